"""Local mode: a whole session in one process, for debuggers.

``init(local_mode=True)`` makes one.  Tasks run when they are submitted, on the thread
that submits them, so that ``breakpoint()``, a debugger's breakpoints, coverage and
profilers work in them, and a traceback shows who called whom.  What programs can tell
is otherwise the same as on a cluster: values are copied, arrays are read-only, errors
come out of ``get``, actors have a state of their own and take calls in order.

What is different, and cannot be otherwise in one process:

* modules, and classes (which are never copied), are shared: a task that changes a
  module's global or a class attribute changes it for all;
* nothing runs in parallel, except threaded and async actors, which have threads;
* nothing waits for resources; what asks for more than there is stays pending;
* a task whose arguments come from an async actor runs on a thread of its own, later;
* of a runtime environment only ``env_vars`` count, and are set while plain tasks and
  plain actors run;
* ``os._exit`` in a task ends the program.

Parts: ``local_peer.py`` (objects), ``local_execution.py`` (calls), ``local_actors.py``,
``local_streams.py``, ``local_supply.py`` (resources), ``local_place.py`` (who am I).
"""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from shoal._core.base.ids import JOB_ID_BYTES, NODE_ID_BYTES, UNIQUE_ID_BYTES
from shoal._core.base.object_ref import ObjectRef, counted_ref
from shoal._core.owner.calls import STREAMING, CallTemplate
from shoal._core.owner.references import ACTOR_SUFFIX, PENDING
from shoal._core.process.local_actors import LocalActor
from shoal._core.process.local_execution import (
    LocalArguments,
    LocalCall,
    LocalExecutor,
)
from shoal._core.process.local_peer import (
    LocalPeer,
    deadline_of,
    pack,
    post,
    start_thread,
)
from shoal._core.process.local_place import begin_places, current_place, end_places
from shoal._core.process.local_streams import LocalStream
from shoal._core.process.local_supply import LocalSupply
from shoal._core.process.metric_reports import recorded_families
from shoal._core.process.native import NativeSession, Packed
from shoal._core.process.node_metrics import process_labels
from shoal._core.serial.serializer import serialize
from shoal._core.wire.control_messages import DEAD, ActorSpec
from shoal.exceptions import (
    ActorAlreadyExistsError,
    PendingCallsLimitExceeded,
    TaskUnschedulableError,
)

if TYPE_CHECKING:
    from shoal._core.process.session_interface import SessionInterface

KILLED = "it was killed by `ray.kill`"
UNKNOWN = "it is not on record (its session ended)"


@dataclass(slots=True)
class LocalClass:
    """Tasks of one kind: what they ask for, and whether that can be."""

    demand: dict[str, int]
    env: dict[str, Any]
    #: where to run, as the wire has it; None: anywhere
    strategy: list[Any] | None = None
    #: the user was told that they can never run
    is_told: bool = False


class LocalModeSession:
    """A session of one process.

    Args:
        settings: what a daemon would be told: ``resources`` (floats by name),
            ``labels``, ``node_name``, and the facts of the ``session``.
        on_change: called when options may mean something else from now on.
    """

    def __init__(self, settings: dict[str, Any], on_change: Callable[[], None]) -> None:
        node_id = os.urandom(NODE_ID_BYTES)
        self.peer = LocalPeer((1).to_bytes(JOB_ID_BYTES, "little"))
        self.supply = LocalSupply(settings["resources"], node_id, settings["labels"])
        self.executor = LocalExecutor(self.peer, self.supply)
        self._settings = settings
        self._info = {
            **settings["session"],
            "node_id": node_id.hex(),
            # A name only: nothing is written.
            "session_dir": os.path.join(
                tempfile.gettempdir(), f"local_mode_{os.getpid()}"
            ),
        }
        self._environments: dict[str, dict[str, Any]] = {"": {}}
        self._actors: dict[bytes, LocalActor] = {}
        self._names: dict[tuple[str, str], LocalActor] = {}
        self.peer.refs.on_actor_unreferenced = self._on_unreferenced
        self.peer.install_hooks()
        begin_places(self._info["runtime_env"], on_change)

    def stop(self) -> None:
        """End the session: its actors, and who waits in it."""
        for actor in list(self._actors.values()):
            actor.die("the session was shut down")
        self.peer.close()
        self.executor.close()
        end_places()

    # -- facts -----------------------------------------------------------------------

    @property
    def info(self) -> dict[str, Any]:
        """Facts of the session; in a task its own runtime environment."""
        return {**self._info, "runtime_env": current_place.get().runtime_env}

    @property
    def address_info(self) -> dict[str, Any]:
        """Where a session with processes would be; here mostly nowhere."""
        return {
            "node_ip_address": "127.0.0.1",
            "redis_address": None,
            "object_store_address": "",
            "raylet_socket_name": "",
            "webui_url": "",
            "session_dir": self._info["session_dir"],
            "metrics_export_port": 0,
            "gcs_address": "local",
            "address": "local",
            "dashboard_agent_listen_port": 0,
            "node_id": self._info["node_id"],
        }

    @property
    def is_worker(self) -> bool:
        """Whether the present code is a task's or an actor's."""
        return not current_place.get().is_driver

    @property
    def namespace(self) -> str:
        """Where the present code's names of actors are."""
        spec = current_place.get().actor_spec
        if spec is not None and spec.namespace:
            return str(spec.namespace)
        return str(self._info["namespace"])

    def describe_errors(self) -> list[dict[str, Any]]:
        """The last errors of tasks and actor calls, oldest first."""
        return self.executor.describe_errors()

    # -- tasks -----------------------------------------------------------------------

    def environment(self, key: str, env: dict[str, Any]) -> str:
        """Remember an environment."""
        self._environments[key] = env
        return key

    def scheduling_class(
        self, demand: dict[str, int], env: str, strategy: list[Any] | None
    ) -> LocalClass:
        """Tasks of one kind."""
        return LocalClass(demand, self._environments[env], strategy)

    def submit(
        self,
        call: CallTemplate,
        sclass: LocalClass,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        label: str = "",
    ) -> Any:
        """Run a task; returns its ref, refs, or record (a stream)."""
        record = self._new_call(call, args, kwargs, label)
        record.demand = sclass.demand
        record.env = sclass.env
        record.arguments.on_complete = partial(self.executor.on_arguments, record)
        record.reason, is_final = self.supply.why_never(
            f"task {call.name}", sclass.demand, sclass.strategy
        )
        with self.peer.lock:
            refs = self.executor.enter(record)
        if is_final:
            self.executor.fail_with(record, TaskUnschedulableError(record.reason))
        elif not record.reason:
            self.executor.submit(record)
        elif not sclass.is_told:
            sclass.is_told = True
            self.peer.warn(record.reason)
        return _returned(call, record, refs)

    def _new_call(
        self,
        call: CallTemplate,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        label: str = "",
        handle: ObjectRef[Any] | None = None,
    ) -> LocalCall:
        packed = self.pack_arguments(args, kwargs)
        holds = list(packed.holds or ())
        if handle is not None:
            holds.append(handle._id)
        arguments = LocalArguments(packed.payload, packed.deps, holds)
        return LocalCall(self.peer.next_task_id(), call, arguments, label)

    def pack_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Packed:
        """Arguments as bytes; refs at top level become dependencies."""
        if not args and not kwargs:
            return Packed(b"", None, None)
        places: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
        deps = [
            (place, value._id)
            for place, value in places
            if isinstance(value, ObjectRef)
        ]
        args = tuple(None if isinstance(one, ObjectRef) else one for one in args)
        kwargs = {
            name: None if isinstance(one, ObjectRef) else one
            for name, one in kwargs.items()
        }
        packed = serialize((args, kwargs), "the arguments", "args")
        holds = [object_id for _place, object_id in deps]
        holds += [ref._id for ref in packed.refs]
        return Packed(packed.to_bytes(), deps, holds)

    def cancel(self, ref: ObjectRef[Any], *, force: bool, recursive: bool) -> None:
        """Cancel the call that makes an object, if it is not done.

        Raises:
            ValueError: ``force`` on an actor call.
        """
        with self.peer.lock:
            entry = self.peer.refs.entries.get(ref._id)
            record = None if entry is None else entry.record
        if record is None:
            return
        if force and record.actor is not None:
            raise ValueError(
                "force=True is not supported for actor calls: it would end the actor. "
                "Use kill for that, or cancel without force."
            )
        self.executor.cancel(record, recursive=recursive)

    # -- streams ---------------------------------------------------------------------

    def next_item(
        self, record: LocalCall, timeout: float | None
    ) -> ObjectRef[Any] | None:
        """The next item of a stream; None at its end."""
        deadline = deadline_of(timeout)
        stream = record.stream
        while True:
            stream.pull()
            with self.peer.lock:
                object_id = stream.take()
            if object_id is not None:
                return counted_ref(object_id, self.peer.address)
            if stream.is_over or not self._await_news(record, deadline):
                return None

    def _await_news(self, record: LocalCall, deadline: float | None) -> bool:
        stream: LocalStream = record.stream
        return self.peer.wait_until(
            lambda: stream.has_news or stream.can_go_on, deadline
        )

    async def item_future(self, record: LocalCall) -> None:
        """Wait until the next item of a stream is there."""
        loop = asyncio.get_running_loop()
        while not record.stream.has_news:
            # The producer may wait for what runs on this very loop.
            news: asyncio.Future[None] = loop.create_future()

            def look(news: asyncio.Future[None] = news) -> None:
                record.stream.pull()
                self._await_news(record, None)
                post(loop, partial(_tell, news))

            start_thread(look)
            await news

    def drop_stream(self, record: LocalCall) -> None:
        """A generator died: only note it, this runs in a destructor."""
        self.peer.later.append(partial(self.executor.drop_stream, record))
        self.peer.settle()

    # -- objects ---------------------------------------------------------------------

    def put(self, value: object) -> ObjectRef[Any]:
        """Store a value."""
        return self.peer.put(value)

    def get_one(self, ref: ObjectRef[Any], timeout: float | None = None) -> Any:
        """The value of a ref."""
        return self.peer.get_many([ref], timeout)[0]

    def get_many(
        self, refs: Sequence[ObjectRef[Any]], timeout: float | None = None
    ) -> list[Any]:
        """The values of refs, in order."""
        return self.peer.get_many(refs, timeout)

    def wait(
        self, refs: list[Any], num_returns: int, timeout: float | None, fetch: bool
    ) -> tuple[list[Any], list[Any]]:
        """The first ``num_returns`` ready refs or generators in order, and the others.

        Raises:
            TypeError: something in the list is no ref.
            ValueError: a ref twice.
        """
        _check_waitables(refs)
        deadline = deadline_of(timeout)
        # (what says whether it is ready, what may have to be run for that)
        watched = [self._readiness(one) for one in refs]

        def are_enough() -> bool:
            ready: int = sum(is_ready() for is_ready, _ in watched)
            return ready >= num_returns

        for is_ready, help_along in watched:
            if not is_ready() and not are_enough():
                help_along(deadline)
        self.peer.wait_until(are_enough, deadline)
        ready: list[Any] = []
        rest: list[Any] = []
        for one, (is_ready, _) in zip(refs, watched, strict=True):
            chosen = ready if len(ready) < num_returns and is_ready() else rest
            chosen.append(one)
        return ready, rest

    def _readiness(self, waitable: Any) -> tuple[Any, Any]:
        if not isinstance(waitable, ObjectRef):
            stream = waitable._record.stream
            return lambda: stream.has_news, lambda _deadline: stream.pull()
        with self.peer.lock:
            entry = self.peer.entry_of(waitable)
        return lambda: entry.state != PENDING, partial(_help_along, entry)

    # -- actors ----------------------------------------------------------------------

    def new_actor_id(self) -> bytes:
        """A fresh actor id."""
        return os.urandom(UNIQUE_ID_BYTES)

    def create_actor(
        self, spec: ActorSpec, packed: Packed, *, get_if_exists: bool
    ) -> tuple[ActorSpec, ObjectRef[Any] | None]:
        """Start an actor; returns its spec and its counted handle ref.

        Raises:
            ActorAlreadyExistsError: the name is taken.
        """
        key = (spec.namespace, spec.name)
        with self.peer.lock:
            existing = self._names.get(key)
            if existing is not None and get_if_exists:
                return existing.spec, None
            if existing is not None:
                raise ActorAlreadyExistsError(
                    f"The name '{spec.name}' is taken by a living actor in namespace "
                    f"'{spec.namespace}'. Choose another name, or pass "
                    "get_if_exists=True."
                )
            spec.owner = self.peer.address
            spec.job_id = self.peer.job_id
            arguments = LocalArguments(packed.payload, packed.deps, packed.holds)
            actor = LocalActor(spec, self.executor, arguments)
            actor.env = self._environments[spec.env]
            actor.on_death = self._on_death
            self._actors[spec.actor_id] = actor
            if spec.name:
                self._names[key] = actor
            handle = self._handle_ref(spec)
        self._place(actor)
        return spec, handle

    def _place(self, actor: LocalActor) -> None:
        spec = actor.spec
        actor.reason, is_final = self.supply.why_never(
            f"actor {spec.class_name}", spec.placement_demand, spec.strategy
        )
        if is_final:
            actor.die(actor.reason)
        elif actor.reason:
            self.peer.warn(actor.reason)
        else:
            actor.begin()

    def _handle_ref(self, spec: ActorSpec) -> ObjectRef[Any] | None:
        """The counted object that stands for an actor's handles."""
        if spec.detached:
            return None
        handle_id = spec.actor_id + ACTOR_SUFFIX
        value, _held = pack(None, "")
        self.peer.refs.complete(self.peer.refs.own(handle_id), value)
        return counted_ref(handle_id, self.peer.address)

    def _on_unreferenced(self, actor_id: bytes) -> None:
        """The last handle died (under the lock)."""
        actor = self._actors.get(actor_id)
        if actor is not None:
            self.peer.later.append(actor.leave)

    def _on_death(self, actor: LocalActor) -> None:
        """An actor died (under the lock): its name is free."""
        key = (actor.spec.namespace, actor.spec.name)
        if self._names.get(key) is actor:
            del self._names[key]

    def lookup_actor(self, name: str, namespace: str) -> ActorSpec:
        """Find a named actor.

        Raises:
            ValueError: there is none.
        """
        actor = self._names.get((namespace, name))
        if actor is None:
            raise ValueError(
                f"Failed to look up actor with name '{name}'. No living actor of that "
                f"name is in namespace '{namespace}'."
            )
        return actor.spec

    def actor_calls(self, spec: ActorSpec) -> LocalActor:
        """The actor itself; a dead one for a handle of another session."""
        actor = self._actors.get(spec.actor_id)
        if actor is None:
            arguments = LocalArguments(b"", None, None)
            actor = LocalActor(spec, self.executor, arguments)
            actor.die(UNKNOWN)
        return actor

    def call_actor(
        self,
        calls: LocalActor,
        call: CallTemplate,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        handle: ObjectRef[Any] | None,
        limit: int = -1,
    ) -> Any:
        """Call a method; returns its ref, refs, or record (a stream).

        Raises:
            PendingCallsLimitExceeded: too many calls wait already.
        """
        if 0 <= limit <= calls.waiting_count:
            raise PendingCallsLimitExceeded(
                f"The actor {calls.spec.class_name} has {calls.waiting_count} calls "
                f"pending and max_pending_calls={limit}."
            )
        record = self._new_call(call, args, kwargs, handle=handle)
        record.actor = calls
        with self.peer.lock:
            refs = self.executor.enter(record)
        calls.submit(record)
        return _returned(call, record, refs)

    def kill_actor(self, actor_id: bytes, *, no_restart: bool) -> None:
        """End an actor at once."""
        actor = self._actors.get(actor_id)
        if actor is not None:
            actor.kill(KILLED, no_restart=no_restart)

    def is_actor_dead(self, actor_id: bytes) -> bool:
        """Whether an actor is dead."""
        actor = self._actors.get(actor_id)
        return actor is not None and actor.state == DEAD

    # -- views -----------------------------------------------------------------------

    def query(self, what: str, argument: Any = None) -> Any:
        """A view of what a node and a control store would know.

        Raises:
            ValueError: there is no such view in local mode.
        """
        match what:
            case "total":
                return self.supply.total.to_floats()
            case "available":
                return self.supply.available()
            case "nodes":
                return [self._describe_node()]
            case "named_actors":
                return [
                    key for key in self._names if argument is None or key[0] == argument
                ]
            case "actors":
                return [self._describe_actor(one) for one in self._actors.values()]
            case "events":
                worker = self.peer.worker_id.hex()
                return [
                    [worker, self.peer.pid, *event] for event in self.executor.events
                ]
            case "metrics":
                labels = process_labels(self.peer.worker_id, "driver", self.peer.pid)
                families = msgspec.to_builtins(recorded_families())
                return [{"labels": labels, "families": families}]
            case "workers":
                return []
            case "store":
                return {}
            case "preload":
                return None
        raise ValueError(
            f"local mode has no view {what!r}: it has no processes but this one"
        )

    def _describe_node(self) -> dict[str, Any]:
        return {
            "NodeID": self._info["node_id"],
            "Alive": True,
            "NodeManagerAddress": "127.0.0.1",
            "NodeManagerHostname": socket.gethostname(),
            "NodeManagerPort": 0,
            "ObjectManagerPort": 0,
            "ObjectStoreSocketName": "",
            "RayletSocketName": "",
            "MetricsExportPort": 0,
            "MetricsAgentPort": 0,
            "DashboardAgentListenPort": 0,
            "NodeName": self._settings["node_name"],
            "RuntimeEnvAgentPort": 0,
            "DeathReason": 0,
            "DeathReasonMessage": "",
            "alive": True,
            "Resources": self.supply.total.to_floats(),
            "Labels": dict(self._settings["labels"]),
        }

    def _describe_actor(self, actor: LocalActor) -> dict[str, Any]:
        spec = actor.spec
        return {
            "actor_id": spec.actor_id.hex(),
            "class_name": spec.class_name,
            "state": actor.state,
            "name": spec.name,
            "namespace": spec.namespace,
            "worker_id": self.peer.worker_id.hex(),
            "num_restarts": actor.restarts,
            "death_cause": actor.cause,
            "is_detached": spec.detached,
        }


def _tell(news: asyncio.Future[None]) -> None:
    if not news.done():
        news.set_result(None)


def _help_along(entry: Any, deadline: float | None) -> None:
    record = entry.record
    if record is not None:
        record.help_along(deadline)


def _returned(call: CallTemplate, record: LocalCall, refs: list[ObjectRef[Any]]) -> Any:
    """What a submission returns."""
    if call.returns == STREAMING:
        return record, refs[0]
    return refs[0] if call.returns in (1, -1) else refs


def _check_waitables(refs: list[Any]) -> None:
    for ref in refs:
        if not isinstance(ref, ObjectRef) and not hasattr(ref, "_record"):
            raise TypeError(
                "wait takes a list of ObjectRefs; the list holds a "
                f"{type(ref).__name__}: {ref!r:.80}"
            )
    distinct = {ref if isinstance(ref, ObjectRef) else id(ref) for ref in refs}
    if len(distinct) < len(refs):
        raise ValueError("wait was given a ref twice; every ref must be there once.")


if TYPE_CHECKING:

    def _satisfy(
        native: NativeSession, local: LocalModeSession
    ) -> tuple[SessionInterface, SessionInterface]:
        """For the type checker: both are sessions."""
        return native, local
