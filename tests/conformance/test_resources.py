"""Resources: what is counted, what waits, what is isolated, and which node fits.

The claims are those of Ray's pages on resources, accelerators and scheduling.  The
shared instance of this file has 4 CPUs, 2 GPUs that exist only as numbers, 2 units of
``parts`` and the label ``zone=north``.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from conformance_impl import Gate, eventually, ray, submodule

strategies = submodule("util.scheduling_strategies")
pytestmark = [
    pytest.mark.usefixtures("ray_session"),
    pytest.mark.cluster(
        num_gpus=2, resources={"parts": 2}, labels={"zone": "north", "tier": "a"}
    ),
]
WAIT_S = 20


@ray.remote
def hold(entered: Gate, gate: Gate) -> str:
    entered.open()
    gate.wait()
    return "held"


@ray.remote
def assigned() -> dict[str, float]:
    return ray.get_runtime_context().get_assigned_resources()


@ray.remote
def seen_gpus() -> tuple[str | None, list[Any], list[str]]:
    context = ray.get_runtime_context()
    return (
        os.environ.get("CUDA_VISIBLE_DEVICES"),
        ray.get_gpu_ids(),
        context.get_accelerator_ids()["GPU"],
    )


@ray.remote
class Holder:
    def assigned(self) -> dict[str, float]:
        return ray.get_runtime_context().get_assigned_resources()

    def gpus(self) -> tuple[str | None, list[Any]]:
        return os.environ.get("CUDA_VISIBLE_DEVICES"), ray.get_gpu_ids()


def free(resource: str = "CPU") -> float:
    return ray.available_resources().get(resource, 0.0)


def wait_for_free(amount: float, resource: str = "CPU") -> None:
    """Availability is eventually consistent, so it is always waited for."""
    eventually(
        lambda: free(resource) == pytest.approx(amount),
        WAIT_S,
        f"{amount} {resource} free, have {ray.available_resources()}",
    )


def runs(ref: Any, timeout_s: float = WAIT_S) -> bool:
    return bool(ray.wait([ref], timeout=timeout_s)[0])


def test_cluster_resources() -> None:
    """cluster_resources has what init was given, as floats, and the node's own."""
    total = ray.cluster_resources()
    assert [total["CPU"], total["GPU"], total["parts"]] == [4.0, 2.0, 2.0]
    assert all(isinstance(amount, float) for amount in total.values())
    assert total["memory"] > 0
    assert total["object_store_memory"] > 0
    assert total["node:__internal_head__"] == 1.0


def test_available_resources_around_a_task(new_gate: Any) -> None:
    """A running task's resources are taken from what is available, then given back."""
    wait_for_free(4)
    entered, gate = new_gate("entered"), new_gate("gate")
    ref = hold.options(num_cpus=2, resources={"parts": 0.5}).remote(entered, gate)
    eventually(entered.is_open, WAIT_S)
    wait_for_free(2)
    wait_for_free(1.5, "parts")
    gate.open()
    ray.get(ref)
    wait_for_free(4)
    wait_for_free(2, "parts")


def test_resource_that_is_used_up_is_absent(new_gate: Any) -> None:
    """available_resources leaves out what has nothing left."""
    wait_for_free(4)
    entered, gate = new_gate("entered"), new_gate("gate")
    ref = hold.options(num_cpus=4).remote(entered, gate)
    eventually(entered.is_open, WAIT_S)
    eventually(lambda: "CPU" not in ray.available_resources(), WAIT_S)
    gate.open()
    ray.get(ref)


def test_assigned_resources() -> None:
    """A task holds one CPU by default and otherwise what it asked for."""
    asked = assigned.options(num_cpus=0.25, num_gpus=0.5, resources={"parts": 1.5})
    assert ray.get(assigned.remote()) == {"CPU": 1.0}
    assert ray.get(asked.remote()) == {"CPU": 0.25, "GPU": 0.5, "parts": 1.5}
    assert ray.get(assigned.options(num_cpus=0).remote()) == {}


def test_fractions_add_up(new_gate: Any) -> None:
    """Of four tasks of 0.7 parts two fit into two parts; the rest wait."""
    gate = new_gate("gate")
    entered = [new_gate(f"entered{i}") for i in range(4)]
    options = {"num_cpus": 0, "resources": {"parts": 0.7}}
    refs = [hold.options(**options).remote(mine, gate) for mine in entered]
    eventually(lambda: sum(mine.is_open() for mine in entered) == 2, WAIT_S)
    assert ray.wait(refs, timeout=0.3)[0] == []
    assert sum(mine.is_open() for mine in entered) == 2
    gate.open()
    assert ray.get(refs) == ["held"] * 4


def test_tasks_never_hold_more_than_there_is(new_gate: Any) -> None:
    """With 4 CPUs no more than 4 one-CPU tasks run at once."""
    gate = new_gate("gate")
    entered = [new_gate(f"entered{i}") for i in range(6)]
    refs = [hold.remote(mine, gate) for mine in entered]
    eventually(lambda: sum(mine.is_open() for mine in entered) == 4, WAIT_S)
    assert ray.wait(refs, timeout=0.3)[0] == []
    assert sum(mine.is_open() for mine in entered) == 4
    gate.open()
    assert ray.get(refs) == ["held"] * 6


def test_impossible_request_waits() -> None:
    """A request that no node can ever fulfil pends and raises nothing by itself."""
    for options in ({"num_cpus": 100}, {"resources": {"unknown": 1}}):
        ref = assigned.options(**options).remote()
        assert not runs(ref, 0.2)
        with pytest.raises(ray.exceptions.GetTimeoutError):
            ray.get(ref, timeout=0.2)
        ray.cancel(ref)


@pytest.mark.beyond_ray(
    reason="get with a timeout says what is asked and what is there"
)
def test_impossible_request_is_explained() -> None:
    """The timeout of a request that can't be fulfilled names what it asks for."""
    ref = assigned.options(resources={"unobtainium": 3}).remote()
    with pytest.raises(ray.exceptions.GetTimeoutError, match="unobtainium"):
        ray.get(ref, timeout=0.5)
    ray.cancel(ref)


def test_blocked_get_gives_the_cpu_back() -> None:
    """Recursion deeper than the number of CPUs finishes: get releases its CPU."""

    @ray.remote
    def depth(n: int) -> int:
        return 0 if n == 0 else 1 + ray.get(depth.remote(n - 1))

    assert ray.get(depth.remote(8), timeout=50) == 8


def test_blocked_wait_gives_the_cpu_back() -> None:
    """wait inside a task releases its CPU as get does."""

    @ray.remote(num_cpus=4)
    def inner() -> int:
        return 1

    @ray.remote(num_cpus=4)
    def outer() -> int:
        ready, _ = ray.wait([inner.remote()], timeout=WAIT_S)
        return len(ready)

    assert ray.get(outer.remote(), timeout=2 * WAIT_S) == 1


def test_blocked_get_keeps_custom_resources(new_gate: Any) -> None:
    """Only CPUs are given back during get; custom resources stay taken."""
    inner_entered, gate = new_gate("inner"), new_gate("gate")

    @ray.remote(num_cpus=1, resources={"parts": 2})
    def outer() -> str:
        return ray.get(hold.options(num_cpus=4).remote(inner_entered, gate))

    ref = outer.remote()
    eventually(inner_entered.is_open, WAIT_S)
    waiting = assigned.options(num_cpus=0, resources={"parts": 1}).remote()
    assert not runs(waiting, 0.3)
    gate.open()
    assert ray.get(ref) == "held"
    assert ray.get(waiting, timeout=WAIT_S) == {"parts": 1.0}


def test_default_actor_holds_no_cpu() -> None:
    """An actor without options needs a CPU to start and none to live."""
    wait_for_free(4)
    actors = [Holder.remote() for _ in range(5)]
    assert ray.get([actor.assigned.remote() for actor in actors]) == [{}] * 5
    wait_for_free(4)


def test_actor_with_cpus_holds_them() -> None:
    """num_cpus of an actor is taken for as long as it lives."""
    wait_for_free(4)
    actor = Holder.options(num_cpus=1.5).remote()
    assert ray.get(actor.assigned.remote()) == {"CPU": 1.5}
    wait_for_free(2.5)
    ray.kill(actor)
    wait_for_free(4)


def test_actor_with_other_resources_holds_one_cpu() -> None:
    """When an actor names any resource but CPUs, it holds one CPU as well."""
    actor = Holder.options(resources={"parts": 1}).remote()
    assert ray.get(actor.assigned.remote()) == {"CPU": 1.0, "parts": 1.0}


def test_actors_beyond_the_resources_wait() -> None:
    """An actor that doesn't fit starts when another one has ended."""
    first = Holder.options(num_cpus=4).remote()
    ray.get(first.assigned.remote())
    second = Holder.options(num_cpus=1).remote()
    call = second.assigned.remote()
    assert not runs(call, 0.3)
    ray.kill(first)
    assert ray.get(call, timeout=WAIT_S) == {"CPU": 1.0}


@pytest.mark.parametrize(
    ("num_gpus", "count"), [(0.5, 1), (1, 1), (2, 2)], ids=["half", "one", "two"]
)
def test_gpu_isolation(num_gpus: float, count: int) -> None:
    """CUDA_VISIBLE_DEVICES and the ids show the assigned GPUs and no others."""
    visible, ids, names = ray.get(seen_gpus.options(num_gpus=num_gpus).remote())
    assert len(ids) == count
    assert visible == ",".join(map(str, ids))
    assert names == [str(i) for i in ids]
    assert set(ids) <= {0, 1}


def test_task_without_gpu_sees_no_ids() -> None:
    """Without num_gpus a task, and the driver, have no GPU ids."""
    assert ray.get(seen_gpus.remote())[1:] == ([], [])
    assert ray.get_gpu_ids() == []


def test_actors_get_different_gpus() -> None:
    """Whole GPUs are exclusive; the third actor waits for one."""
    actors = [Holder.options(num_gpus=1).remote() for _ in range(2)]
    seen = ray.get([actor.gpus.remote() for actor in actors])
    assert sorted(visible for visible, _ in seen) == ["0", "1"]
    assert sorted(ids for _, ids in seen) == [[0], [1]]
    third = Holder.options(num_gpus=1).remote()
    call = third.gpus.remote()
    assert not runs(call, 0.3)
    ray.kill(actors[0])
    assert ray.get(call, timeout=WAIT_S) == seen[0]


def test_fractions_share_one_gpu() -> None:
    """Two actors of half a GPU share one device rather than taking two."""
    actors = [Holder.options(num_gpus=0.5).remote() for _ in range(2)]
    seen = ray.get([actor.gpus.remote() for actor in actors])
    assert seen[0] == seen[1]


def test_more_than_one_gpu_must_be_whole() -> None:
    """num_gpus above one that isn't whole is a ValueError."""
    with pytest.raises(ValueError, match="whole"):
        seen_gpus.options(num_gpus=1.5).remote()


def test_memory_is_counted() -> None:
    """memory reserves bytes of the node's memory resource; it isn't a limit."""
    gigabyte = 1024**3
    assert ray.get(assigned.options(memory=gigabyte).remote())["memory"] == gigabyte
    too_much = int(2 * ray.cluster_resources()["memory"])
    ref = assigned.options(memory=too_much).remote()
    assert not runs(ref, 0.3)
    ray.cancel(ref)


def test_accelerator_type_that_is_missing_waits() -> None:
    """accelerator_type restricts the task to nodes that have it."""
    ref = assigned.options(accelerator_type="V100").remote()
    assert not runs(ref, 0.3)
    ray.cancel(ref)


@pytest.mark.parametrize("selector", ["north", "!south", "in(south,north)", "!in(x,y)"])
def test_label_selector_that_fits(selector: str) -> None:
    """label_selector picks nodes by value, negation and membership."""
    ref = assigned.options(label_selector={"zone": selector}).remote()
    assert ray.get(ref, timeout=WAIT_S) == {"CPU": 1.0}


def test_label_selector_that_does_not_fit() -> None:
    """A selector that no node fits waits, unless fallback_strategy has one."""
    selector = {"zone": "south"}
    ref = assigned.options(label_selector=selector).remote()
    assert not runs(ref, 0.3)
    ray.cancel(ref)
    fallback = [{"label_selector": {"zone": "north", "tier": "a"}}]
    options = {"label_selector": selector, "fallback_strategy": fallback}
    assert runs(assigned.options(**options).remote())


def test_node_affinity() -> None:
    """NodeAffinitySchedulingStrategy runs on the node; an unknown one needs soft."""
    affinity = strategies.NodeAffinitySchedulingStrategy
    here = ray.nodes()[0]["NodeID"]
    for strategy in (affinity(here, soft=False), "SPREAD", "DEFAULT"):
        assert runs(assigned.options(scheduling_strategy=strategy).remote())
    with pytest.raises(ValueError, match="node_id"):
        affinity("not a node", soft=False)


def test_node_label_strategy() -> None:
    """NodeLabelSchedulingStrategy places by hard labels; both empty is a ValueError."""
    strategy = strategies.NodeLabelSchedulingStrategy(
        hard={"zone": strategies.In("north", "east"), "tier": strategies.Exists()}
    )
    assert runs(assigned.options(scheduling_strategy=strategy).remote())
    with pytest.raises(ValueError, match="hard"):
        strategies.NodeLabelSchedulingStrategy(hard={})


def test_unknown_strategy() -> None:
    """A scheduling strategy that doesn't exist is a ValueError at .remote()."""
    with pytest.raises(ValueError, match="NEAREST"):
        assigned.options(scheduling_strategy="NEAREST").remote()


def test_thread_count_of_numeric_libraries() -> None:
    """OMP_NUM_THREADS of a worker is the number of CPUs the task asked for."""

    @ray.remote
    def threads() -> str | None:
        return os.environ.get("OMP_NUM_THREADS")

    assert ray.get(threads.options(num_cpus=2).remote()) == "2"
    assert ray.get(threads.options(num_cpus=0.5).remote()) == "1"
