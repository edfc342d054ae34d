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
* a task or call whose arguments are not there (they come from such an actor) runs on a
  thread of its own when they are;
* tasks wait for no resources, as the one that holds them may be their caller; actors
  and placement groups do; what asks for more than there is stays pending;
* of a runtime environment only ``env_vars`` count, and are set, for the whole process,
  while plain tasks, plain actors and constructors run;
* the end of an actor is the end of its instance only: what it registered with
  ``atexit`` runs when the program ends, and ``kill`` does not spare its ``__del__``;
* threads that user code starts in a task are taken for the driver's;
* ``os._exit`` in a task ends the program.

Parts: ``local_peer.py`` (objects), ``local_calls.py``, ``local_execution.py``,
``local_actors.py``, ``local_runners.py`` (where actors run), ``local_registry.py``
(their names), ``local_streams.py``, ``local_groups.py`` (placement groups),
``local_supply.py`` (resources), ``local_place.py`` (who am I), ``local_waiting.py``,
``local_views.py``.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from shoal._core.base.ids import JOB_ID_BYTES, NODE_ID_BYTES, UNIQUE_ID_BYTES
from shoal._core.base.object_ref import ObjectRef, counted_ref
from shoal._core.io import interrupts
from shoal._core.owner.calls import STREAMING, CallTemplate
from shoal._core.process import local_waiting
from shoal._core.process.local_actors import LocalActor
from shoal._core.process.local_calls import LocalArguments, LocalCall
from shoal._core.process.local_execution import LocalExecutor
from shoal._core.process.local_groups import LocalGroups, removed
from shoal._core.process.local_peer import (
    LocalPeer,
    deadline_of,
    post,
    start_thread,
)
from shoal._core.process.local_place import (
    LocalPlace,
    begin_places,
    current_place,
    end_places,
)
from shoal._core.process.local_registry import LocalRegistry
from shoal._core.process.local_streams import LocalStream
from shoal._core.process.local_supply import LocalSupply
from shoal._core.process.local_views import LocalViews
from shoal._core.process.native import NativeSession, Packed
from shoal._core.serial.serializer import serialize
from shoal._core.wire.control_messages import DEAD, ActorSpec
from shoal._core.wire.group_messages import CREATED, REMOVED
from shoal.exceptions import (
    PendingCallsLimitExceeded,
    TaskUnschedulableError,
)

if TYPE_CHECKING:
    from shoal._core.process.session_interface import SessionInterface

KILLED = "it was killed by `ray.kill`"


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
        self.groups = LocalGroups(self.peer, self.supply)
        self._registry = LocalRegistry(self.executor, self.groups)
        self._info = {
            **settings["session"],
            "node_id": node_id.hex(),
            # A name only: nothing is written.
            "session_dir": os.path.join(
                tempfile.gettempdir(), f"local_mode_{os.getpid()}"
            ),
        }
        self._environments: dict[str, dict[str, Any]] = {"": {}}
        self._views = LocalViews(self.executor, self._registry, settings["node_name"])
        self.peer.install_hooks()
        if threading.current_thread() is threading.main_thread() and (
            signal.getsignal(signal.SIGINT) is signal.default_int_handler
        ):
            interrupts.install(_always)
        begin_places(self._info["runtime_env"], on_change)

    def stop(self) -> None:
        """End the session: its actors, and who waits in it."""
        self._registry.end_all("the session was shut down")
        self.peer.close()
        self.executor.close()
        if threading.current_thread() is threading.main_thread():
            interrupts.uninstall()
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
        place = record.place = _place_of(sclass)
        record.arguments.on_complete = partial(self.executor.on_ready, record)
        record.reason, is_final = self.supply.why_never(
            f"task {call.name}", sclass.demand, sclass.strategy
        )
        with self.peer.lock:
            refs = self.executor.enter(record)
        if is_final:
            self.executor.fail_with(record, TaskUnschedulableError(record.reason))
        elif place.placement_group:
            self._submit_in_group(record, place)
        elif not record.reason:
            self.executor.submit(record)
        elif not sclass.is_told:
            sclass.is_told = True
            self.peer.warn(record.reason)
        return _returned(call, record, refs)

    def _submit_in_group(self, record: LocalCall, place: LocalPlace) -> None:
        with self.peer.lock:
            if self.groups.state_of(place.placement_group) != CREATED:
                record.is_placed = False
                self.supply.settle(partial(self._try_task, record, place))
                return
            place.gpu_ids = self.groups.gpu_ids_of(place.placement_group, place.demand)
        self.executor.submit(record)

    def _try_task(self, record: LocalCall, place: LocalPlace) -> bool:
        """Let a task run if its group is there (under the lock); True when settled."""
        group_id = place.placement_group
        state = self.groups.state_of(group_id)
        if state == REMOVED:
            self.executor.fail_with(record, removed(group_id))
        elif state == CREATED:
            record.is_placed = True
            place.gpu_ids = self.groups.gpu_ids_of(group_id, place.demand)
            self.executor.on_ready(record)
        return record.is_placed or record.is_done

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
        if not isinstance(record, LocalCall):
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
        return local_waiting.wait(self.peer, refs, num_returns, timeout)

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
        env = self._environments[spec.env]
        return self._registry.create(spec, packed, env, get_if_exists=get_if_exists)

    def lookup_actor(self, name: str, namespace: str) -> ActorSpec:
        """Find a named actor.

        Raises:
            ValueError: there is none.
        """
        return self._registry.find(name, namespace).spec

    def actor_calls(self, spec: ActorSpec) -> LocalActor:
        """The actor itself; a dead one for a handle of another session."""
        return self._registry.of(spec)

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
        actor = self._registry.actors.get(actor_id)
        if actor is not None:
            actor.kill(KILLED, no_restart=no_restart)

    def is_actor_dead(self, actor_id: bytes) -> bool:
        """Whether an actor is dead."""
        actor = self._registry.actors.get(actor_id)
        return actor is not None and actor.state == DEAD

    # -- views -----------------------------------------------------------------------

    def query(self, what: str, argument: Any = None) -> Any:
        """A view of what a node and a control store would know.

        Raises:
            ValueError: there is no such view in local mode.
        """
        return self._views.answer(what, argument)


def _place_of(sclass: LocalClass) -> LocalPlace:
    """The place of one task of a kind."""
    place = LocalPlace()
    place.demand = sclass.demand
    place.runtime_env = sclass.env
    if sclass.strategy is not None and sclass.strategy[0] == "pg":
        _kind, place.placement_group, _index, captures = sclass.strategy
        place.capture_children = bool(captures)
        place.captured = place.placement_group if captures else b""
    return place


def _always() -> bool:
    return True


def _tell(news: asyncio.Future[None]) -> None:
    if not news.done():
        news.set_result(None)


def _returned(call: CallTemplate, record: LocalCall, refs: list[ObjectRef[Any]]) -> Any:
    """What a submission returns."""
    if call.returns == STREAMING:
        return record, refs[0]
    return refs[0] if call.returns in (1, -1) else refs


if TYPE_CHECKING:

    def _satisfy(
        native: NativeSession, local: LocalModeSession
    ) -> tuple[SessionInterface, SessionInterface]:
        """For the type checker: both are sessions."""
        return native, local
