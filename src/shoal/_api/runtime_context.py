"""``get_runtime_context``: which job, node, worker, task and actor the caller is.

One context serves a whole process: each question is answered for the task that the
calling thread (or coroutine) runs at that moment.  A thread that user code started
belongs to the task that the process runs, as long as that is a single one.

Ids are hexadecimal text.  The attributes that give ids as objects are Ray's old ones.

Source: Ray's ``RuntimeContext`` (API reference, "ray.runtime_context").
"""

from __future__ import annotations

import json
import os
import warnings
from typing import Any

from shoal._api.actor_handle import ActorHandle
from shoal._api.environments import RuntimeEnv
from shoal._api.session import Session, current_session, running_session
from shoal._core.base.identifiers import (
    ActorID,
    JobID,
    NodeID,
    PlacementGroupID,
    TaskID,
)
from shoal._core.base.resources import ResourceSet
from shoal._core.process.context import current_task, worker_state
from shoal.exceptions import RaySystemError

#: Every kind of accelerator that a program written for Ray may ask for.
ACCELERATOR_KINDS = (
    "GPU",
    "TPU",
    "neuron_cores",
    "HPU",
    "NPU",
    "RBLN",
    "FURIOSA",
    "MBLT",
    "TTNPU",
)

#: The constructor of an actor is no call: its task id is this and the actor's id.
_CREATION_PREFIX = b"\xff" * 8


def _session() -> Session:
    session = running_session()
    if session is None:
        raise RaySystemError(
            RuntimeError("no session runs (any more): call init() to start one.")
        )
    return session


def _task() -> Any:
    """The task of this thread; None in a driver and where it cannot be told."""
    task = current_task.get()
    session = running_session()
    if task is None and session is not None and session.native.is_worker:
        native = session.native
        with native.peer.lock:
            running = list(native.executor.inbox.running.values())
        if len(running) == 1:
            (task,) = running
    return task


def _refuse_in_driver(error: type[Exception]) -> None:
    if not _session().native.is_worker:
        raise error(
            "This can only be asked in a task or an actor, which run in a worker; this "
            "is the driver."
        )


def _deprecated(name: str, replacement: str) -> None:
    warnings.warn(
        f"{name} is deprecated: use {replacement} instead.",
        DeprecationWarning,
        stacklevel=3,
    )


class RuntimeContext:
    """Where and as what the present code runs; made by ``get_runtime_context()``.

    Every method raises RaySystemError when no session runs, unless it says otherwise.
    """

    # -- job, node, process --------------------------------------------------------

    def get_job_id(self) -> str:
        """Id of the job: one driver's work."""
        job_id: bytes = _session().native.peer.job_id
        return job_id.hex()

    def get_node_id(self) -> str:
        """Id of the node this process runs on."""
        return str(_session().native.info["node_id"])

    def get_worker_id(self) -> str:
        """Id of this process, be it a worker or a driver."""
        worker_id: bytes = _session().native.peer.worker_id
        return worker_id.hex()

    def get_session_name(self) -> str:
        """Name of the session: the last part of its directory.

        Raises:
            RuntimeError: no session runs.
        """
        session = running_session()
        if session is None:
            raise RuntimeError("no session runs: call init() first.")
        return os.path.basename(str(session.native.info["session_dir"]))

    def get_temp_dir(self) -> str:
        """The folder in which sessions keep their directories.

        Raises:
            AssertionError: no session runs.
        """
        session = running_session()
        assert session is not None, "no session runs: call init() first."
        return os.path.dirname(str(session.native.info["session_dir"]))

    def get_node_labels(self) -> dict[str, str]:
        """Labels of this node: its id, and those given to ``init``."""
        info = _session().native.info
        return {"ray.io/node-id": info["node_id"], **info["labels"]}

    @property
    def namespace(self) -> str:
        """Where the names of actors are looked up; random unless given to ``init``."""
        return str(_session().native.namespace)

    @property
    def gcs_address(self) -> str:
        """What another program of this user gives to ``init`` to join this session.

        ``unix:`` and the session's directory; ``"local"`` in local mode, which no
        other program can join.
        """
        session = _session()
        if session.arguments is not None and session.arguments.local_mode:
            return "local"
        return f"unix:{session.native.info['session_dir']}"

    # -- task ----------------------------------------------------------------------

    def get_task_id(self) -> str | None:
        """Id of the running task or actor call; None in a driver."""
        _session()
        task = _task()
        if task is not None:
            return str(task.message.task_id.hex())
        if _constructs():
            actor_id: bytes = worker_state.actor_spec.actor_id
            return (_CREATION_PREFIX + actor_id).hex()
        return None

    def get_task_name(self) -> str | None:
        """The option ``name``, else the function's, or ``Class.method``.

        None in a driver; empty in a thread whose task cannot be told.
        """
        if not _session().native.is_worker:
            return None
        task = _task()
        if task is not None:
            return task.message.label or str(task.call.name)
        return f"{worker_state.actor_spec.class_name}.__init__" if _constructs() else ""

    def get_task_function_name(self) -> str | None:
        """The function in full: ``module.function`` or ``module.Class.method``.

        None in a driver; empty in a thread whose task cannot be told.  Where the
        program is a script, its module is the script's name without ``.py``.
        """
        native = _session().native
        if not native.is_worker:
            return None
        task = _task()
        if task is None:
            return self.get_task_name()
        if worker_state.actor_spec is None:
            function = native.executor.function_of(task.call)
            name = getattr(function, "__qualname__", task.call.name)
            return f"{_module_name(native, function)}.{name}"
        cls = type(worker_state.actor)
        return f"{_module_name(native, cls)}.{cls.__qualname__}.{task.call.method}"

    def is_canceled(self) -> bool:
        """Whether somebody has cancelled the running task or actor call.

        Raises:
            RuntimeError: in a driver; in an async actor, whose calls are cancelled by
                asyncio.
        """
        _refuse_in_driver(RuntimeError)
        spec = worker_state.actor_spec
        if spec is not None and spec.is_async:
            raise RuntimeError(
                "is_canceled() does not serve async actors: a call that is cancelled "
                "gets asyncio.CancelledError where it awaits."
            )
        task = _task()
        return task is not None and bool(task.is_cancelled)

    # -- actor ---------------------------------------------------------------------

    def get_actor_id(self) -> str | None:
        """Id of the actor this is; None outside of actors."""
        _session()
        spec = worker_state.actor_spec
        return None if spec is None else str(spec.actor_id.hex())

    def get_actor_name(self) -> str | None:
        """Name of the actor this is, empty if it has none; None outside of actors."""
        _session()
        spec = worker_state.actor_spec
        return None if spec is None else str(spec.name)

    @property
    def current_actor(self) -> ActorHandle[Any]:
        """A handle of the actor this is.  It does not keep the actor alive.

        Raises:
            RuntimeError: outside of actors.
        """
        _session()
        spec = worker_state.actor_spec
        if spec is None:
            raise RuntimeError(
                "current_actor is the handle of the actor that asks; this is no actor."
            )
        return ActorHandle(spec, None)

    @property
    def was_current_actor_reconstructed(self) -> bool:
        """Whether this actor was started again after it died; False in a task.

        Raises:
            AssertionError: in a driver.
        """
        _refuse_in_driver(AssertionError)
        return worker_state.incarnation > 0

    # -- resources -----------------------------------------------------------------

    def get_assigned_resources(self) -> dict[str, float]:
        """What the running task holds, or the actor for life; amounts by name.

        Raises:
            AssertionError: in a driver.
        """
        _refuse_in_driver(AssertionError)
        return ResourceSet.from_units(worker_state.demand).to_floats()

    def get_accelerator_ids(self) -> dict[str, list[str]]:
        """Ids of the accelerators that are assigned, by kind; every kind is there."""
        _session()
        ids: dict[str, list[str]] = {kind: [] for kind in ACCELERATOR_KINDS}
        ids["GPU"] = [str(gpu) for gpu in worker_state.gpu_ids]
        return ids

    def get_resource_ids(self) -> dict[str, list[str]]:
        """Deprecated name of ``get_accelerator_ids``."""
        _deprecated("get_resource_ids()", "get_accelerator_ids()")
        return self.get_accelerator_ids()

    def get_placement_group_id(self) -> str | None:
        """Id of the placement group this runs in; None if it runs in none."""
        _session()
        return worker_state.placement_group.hex() or None

    @property
    def should_capture_child_tasks_in_placement_group(self) -> bool:
        """Whether what this submits goes to the same placement group."""
        _session()
        return worker_state.capture_children

    # -- environment ---------------------------------------------------------------

    def get_runtime_env_string(self) -> str:
        """The runtime environment of this process as JSON text."""
        env = _session().native.info.get("runtime_env") or {}
        return json.dumps(env, sort_keys=True)

    @property
    def runtime_env(self) -> RuntimeEnv:
        """The runtime environment of this process: the job's and the task's in one."""
        env = _session().native.info.get("runtime_env") or {}
        return RuntimeEnv(_validate=False, **env)

    # -- old names -----------------------------------------------------------------

    def get(self) -> dict[str, Any]:
        """Deprecated: the ids and the namespace in one dict."""
        _deprecated("get()", "the method for each id")
        native = _session().native
        facts: dict[str, Any] = {
            "job_id": JobID(native.peer.job_id),
            "node_id": NodeID.from_hex(self.get_node_id()),
            "namespace": self.namespace,
        }
        if (task_id := self.get_task_id()) is not None:
            facts["task_id"] = TaskID.from_hex(task_id)
        if (actor_id := self.get_actor_id()) is not None:
            facts["actor_id"] = ActorID.from_hex(actor_id)
        return facts

    @property
    def job_id(self) -> JobID:
        """Deprecated: ``get_job_id()`` as an object."""
        _deprecated("job_id", "get_job_id()")
        return JobID.from_hex(self.get_job_id())

    @property
    def node_id(self) -> NodeID:
        """Deprecated: ``get_node_id()`` as an object."""
        _deprecated("node_id", "get_node_id()")
        return NodeID.from_hex(self.get_node_id())

    @property
    def task_id(self) -> TaskID | None:
        """Deprecated: ``get_task_id()`` as an object.

        Raises:
            AssertionError: in a driver.
        """
        _deprecated("task_id", "get_task_id()")
        _refuse_in_driver(AssertionError)
        task_id = self.get_task_id()
        return None if task_id is None else TaskID.from_hex(task_id)

    @property
    def actor_id(self) -> ActorID | None:
        """Deprecated: ``get_actor_id()`` as an object.

        Raises:
            AssertionError: in a driver.
        """
        _deprecated("actor_id", "get_actor_id()")
        _refuse_in_driver(AssertionError)
        actor_id = self.get_actor_id()
        return None if actor_id is None else ActorID.from_hex(actor_id)

    @property
    def current_placement_group_id(self) -> PlacementGroupID:
        """Deprecated: ``get_placement_group_id()`` as an object; nil for none."""
        _deprecated("current_placement_group_id", "get_placement_group_id()")
        group = self.get_placement_group_id()
        if group is None:
            return PlacementGroupID.nil()
        return PlacementGroupID.from_hex(group)


def _constructs() -> bool:
    """Whether this worker is an actor whose constructor runs."""
    return worker_state.actor_spec is not None and worker_state.actor is None


def _module_name(native: Any, definition: Any) -> str:
    """The module of a function or class; a script goes by its own name."""
    module = getattr(definition, "__module__", None) or "__main__"
    return native.info["main_module"] if module == "__main__" else module


_context = RuntimeContext()


def get_runtime_context() -> RuntimeContext:
    """Where and as what the caller runs; starts a session if none runs.

    Example::

        @shoal.remote
        def whoami() -> str | None:
            return shoal.get_runtime_context().get_task_id()
    """
    current_session()
    return _context
