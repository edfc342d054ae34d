"""get_runtime_context: who and where the caller is.

The claims are those of the reference page of ``RuntimeContext``, for drivers, tasks,
actors and calls of actors.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest
from conformance_impl import ray

shared = pytest.mark.usefixtures("ray_session")


def identity_here() -> dict[str, Any]:
    """Everything that the context of this process says about ids and names."""
    context = ray.get_runtime_context()
    return {
        "job": context.get_job_id(),
        "node": context.get_node_id(),
        "worker": context.get_worker_id(),
        "task": context.get_task_id(),
        "task_name": context.get_task_name(),
        "function": context.get_task_function_name(),
        "actor": context.get_actor_id(),
        "actor_name": context.get_actor_name(),
        "namespace": context.namespace,
        "process": os.getpid(),
    }


@ray.remote
def describe_task() -> dict[str, Any]:
    return identity_here()


@ray.remote
class Describer:
    def describe(self) -> dict[str, Any]:
        return identity_here()

    def handle(self) -> Any:
        return ray.get_runtime_context().current_actor


def is_hex(text: str) -> bool:
    return bool(text) and set(text) <= set("0123456789abcdef")


@shared
def test_driver() -> None:
    """A driver has job, node and worker ids and belongs to no actor."""
    context = ray.get_runtime_context()
    for value in (context.get_job_id(), context.get_worker_id()):
        assert is_hex(value)
    assert context.get_node_id() == ray.nodes()[0]["NodeID"]
    assert context.get_actor_id() is None
    assert context.get_actor_name() is None
    assert context.get_placement_group_id() is None
    assert context.get_session_name()
    assert os.path.isdir(context.get_temp_dir())


@shared
def test_driver_has_no_task_of_its_own_to_ask_about() -> None:
    """What only a worker or an actor can answer raises in a driver."""
    context = ray.get_runtime_context()
    with pytest.raises(AssertionError, match="worker"):
        context.get_assigned_resources()
    with pytest.raises(RuntimeError, match="actor"):
        _ = context.current_actor
    with pytest.raises(RuntimeError, match="worker"):
        context.is_canceled()


@shared
def test_task() -> None:
    """A task knows its ids and name, and no actor."""
    ref = describe_task.remote()
    seen, context = ray.get(ref), ray.get_runtime_context()
    assert seen["job"] == context.get_job_id()
    assert seen["node"] == context.get_node_id()
    assert seen["namespace"] == context.namespace
    assert seen["worker"] != context.get_worker_id()
    assert is_hex(seen["task"])
    assert seen["task"] == ref.task_id().hex()
    assert (seen["actor"], seen["actor_name"]) == (None, None)
    assert seen["task_name"] == "describe_task"
    assert seen["function"].endswith(".describe_task")


@shared
def test_name_option_is_the_task_name() -> None:
    """options(name=...) renames the task and not its function."""
    seen = ray.get(describe_task.options(name="renamed").remote())
    assert seen["task_name"] == "renamed"
    assert seen["function"].endswith(".describe_task")


@shared
def test_ids_of_tasks_differ() -> None:
    """Each task has an id of its own, the worker's id goes with its process."""
    seen = ray.get([describe_task.remote() for _ in range(8)])
    assert len({one["task"] for one in seen}) == 8
    pairs = {(one["process"], one["worker"]) for one in seen}
    assert len(pairs) == len({one["process"] for one in seen})
    assert len(pairs) == len({one["worker"] for one in seen})


@shared
def test_actor() -> None:
    """A call knows its actor; names are Class.method and module.Class.method."""
    actor = Describer.remote()
    first, second = ray.get([actor.describe.remote(), actor.describe.remote()])
    assert first["actor"] == actor._actor_id.hex()
    assert first["actor_name"] == ""
    assert first["task_name"] == "Describer.describe"
    assert first["function"].endswith(".Describer.describe")
    assert first["task"] != second["task"]
    assert first["worker"] == second["worker"]


@shared
def test_current_actor() -> None:
    """current_actor is a handle equal to the one that the creator holds."""
    actor = Describer.remote()
    assert ray.get(actor.handle.remote()) == actor


@shared
def test_task_called_by_an_actor_is_not_in_the_actor() -> None:
    """A task has no actor id, also when an actor submitted it."""

    @ray.remote
    class Caller:
        def call(self) -> dict[str, Any]:
            return ray.get(describe_task.remote())

    assert ray.get(Caller.remote().call.remote())["actor"] is None


@shared
def test_accelerator_ids() -> None:
    """get_accelerator_ids maps every known kind to the assigned ids, here none."""

    @ray.remote
    def accelerators() -> dict[str, list[str]]:
        return ray.get_runtime_context().get_accelerator_ids()

    ids = ray.get(accelerators.remote())
    assert {"GPU", "TPU", "neuron_cores", "HPU", "NPU"} <= set(ids)
    assert set(map(tuple, ids.values())) == {()}


@shared
def test_node_labels() -> None:
    """get_node_labels has at least the node's id."""

    @ray.remote
    def labels() -> dict[str, str]:
        return ray.get_runtime_context().get_node_labels()

    node = ray.nodes()[0]
    assert ray.get(labels.remote())["ray.io/node-id"] == node["NodeID"]
    assert node["Labels"]["ray.io/node-id"] == node["NodeID"]


@shared
def test_runtime_env_of_a_task() -> None:
    """get_runtime_env_string and runtime_env show the environment asked for."""

    @ray.remote
    def environment() -> tuple[str, Any]:
        context = ray.get_runtime_context()
        return context.get_runtime_env_string(), dict(context.runtime_env)

    asked = {"env_vars": {"CONFORMANCE_FLAG": "on"}}
    text, env = ray.get(environment.options(runtime_env=asked).remote())
    assert "CONFORMANCE_FLAG" in text
    assert env["env_vars"]["CONFORMANCE_FLAG"] == "on"


@shared
def test_is_canceled_is_false_while_nobody_cancelled() -> None:
    """is_canceled of a task that nobody cancelled is False."""

    @ray.remote
    def canceled() -> bool:
        return ray.get_runtime_context().is_canceled()

    assert ray.get(canceled.remote()) is False


@shared
def test_is_canceled_in_an_async_actor() -> None:
    """Async calls are cancelled by asyncio; is_canceled raises RuntimeError there."""

    @ray.remote
    class Async:
        async def canceled(self) -> bool:
            return ray.get_runtime_context().is_canceled()

    with pytest.raises(RuntimeError):
        ray.get(Async.remote().canceled.remote())


@shared
def test_context_of_another_thread() -> None:
    """A thread that an actor's call started still knows node, job and actor."""

    @ray.remote
    class Threaded:
        def ask(self) -> dict[str, Any]:
            found: dict[str, Any] = {}

            def look() -> None:
                context = ray.get_runtime_context()
                found["actor"] = context.get_actor_id()
                found["job"] = context.get_job_id()
                found["value"] = ray.get(ray.put("from a thread"))

            thread = threading.Thread(target=look)
            thread.start()
            thread.join()
            return found

    actor = Threaded.remote()
    found = ray.get(actor.ask.remote())
    assert found["actor"] == actor._actor_id.hex()
    assert found["job"] == ray.get_runtime_context().get_job_id()
    assert found["value"] == "from a thread"


def test_after_shutdown(fresh_ray: Any) -> None:
    """Without a session there is no session name and no temporary folder."""
    fresh_ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    context = fresh_ray.get_runtime_context()
    assert os.path.isdir(context.get_temp_dir())
    fresh_ray.shutdown()
    with pytest.raises(RuntimeError):
        context.get_session_name()
    with pytest.raises(AssertionError):
        context.get_temp_dir()
