"""The native session: what the public API calls, over one process's peer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from shoal._core.base.ids import UNIQUE_ID_BYTES
from shoal._core.base.object_ref import ObjectRef, counted_ref, hooks
from shoal._core.io import interrupts
from shoal._core.owner.actor_calls import ActorCalls
from shoal._core.owner.calls import STREAMING, CallTemplate, TaskRecord
from shoal._core.owner.leases import SchedulingClass
from shoal._core.owner.references import ACTOR_SUFFIX, PENDING, READY_INLINE
from shoal._core.process import futures, stream_reading
from shoal._core.process.context import current_task_id, worker_state
from shoal._core.process.groups import PlacementGroups
from shoal._core.process.peer import INLINE_LIMIT_BYTES, Peer
from shoal._core.process.waiting import WaitLoops
from shoal._core.serial.serializer import serialize
from shoal._core.wire.control_messages import (
    DEAD,
    ActorSpec,
    CreateActor,
    KillActor,
    LookupActor,
)
from shoal._core.wire.node_messages import SetupEnvironment
from shoal._core.wire.worker_messages import CancelByRef
from shoal.exceptions import ActorAlreadyExistsError, PendingCallsLimitExceeded

#: The submitting thread takes in replies itself every so many tasks.
POLL_EVERY = 64


@dataclass(slots=True)
class Packed:
    """Arguments ready to travel."""

    payload: bytes
    deps: list[tuple[int | str, bytes]] | None
    holds: list[bytes] | None
    #: refs made for large arguments, kept until the task holds them
    temporary: list[ObjectRef[Any]] | None = None


_NO_ARGUMENTS = Packed(b"", None, None)


class NativeSession:
    """One process's session on a shoal node."""

    def __init__(self, peer: Peer, info: dict[str, Any], executor: Any = None) -> None:
        self.peer = peer
        self.info = info
        self.executor = executor
        self._submitted = 0
        self._wait_loops = WaitLoops(peer)
        self._environments: dict[str, None] = {}
        self.groups = PlacementGroups(peer)
        hooks.rebuilt = peer._on_rebuilt
        hooks.as_future = partial(futures.as_concurrent, peer)
        hooks.as_asyncio = partial(futures.as_asyncio, peer)

    # -- tasks -------------------------------------------------------------------

    def scheduling_class(
        self, demand: dict[str, int], env: str, strategy: list[Any] | None
    ) -> SchedulingClass:
        """The queue for tasks of one kind."""
        owner = self.peer.owner
        return owner.leases.sclass(demand, env, strategy, owner.tasks)

    def submit(
        self,
        call: CallTemplate,
        sclass: SchedulingClass,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        label: str = "",
    ) -> Any:
        """Submit a task; returns its ref, refs, or record (a stream)."""
        if interrupts.pending:
            interrupts.check()
        peer = self.peer
        packed = self.pack_arguments(args, kwargs) if args or kwargs else _NO_ARGUMENTS
        record = TaskRecord(peer.next_task_id(), call, packed.payload, sclass)
        record.deps = packed.deps
        record.holds = packed.holds
        record.label = label
        if self.executor is not None:
            record.parent = current_task_id()
        engine = peer.engine
        with peer.lock:
            if peer.lost_reason:
                peer._check_alive()
            returns = peer.owner.tasks.submit(record)
            if hooks.dropped:
                peer.drain_dropped()
            if engine.dirty:
                engine.flush()
        engine.activity += 1
        self._submitted += 1
        if not self._submitted % POLL_EVERY:
            engine.poll_now()
        count = call.returns
        if count == 1:
            return counted_ref(returns.object_id, peer.address)
        if count >= 0:
            return [counted_ref(entry.object_id, peer.address) for entry in returns]
        if count == STREAMING:
            return record, counted_ref(returns.object_id, peer.address)
        return counted_ref(returns.object_id, peer.address)

    def pack_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Packed:
        """Arguments as bytes; refs at top level become dependencies."""
        deps: list[tuple[int | str, bytes]] = []
        temporary: list[ObjectRef[Any]] = []
        for place, value in enumerate(args):
            if isinstance(value, ObjectRef):
                deps.append((place, value._id))
        for name, value in kwargs.items():
            if isinstance(value, ObjectRef):
                deps.append((name, value._id))
        if deps:
            args, kwargs = _blanked(args, kwargs, deps)
        packed = serialize((args, kwargs), "the arguments", "args")
        if packed.size > INLINE_LIMIT_BYTES:
            deps += self._store_large(args, kwargs, temporary)
            args, kwargs = _blanked(args, kwargs, deps)
            packed = serialize((args, kwargs), "the arguments", "args")
        holds = [object_id for _, object_id in deps]
        if packed.refs:
            holds += [ref._id for ref in packed.refs]
        return Packed(packed.to_bytes(), deps or None, holds or None, temporary)

    def _store_large(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        temporary: list[ObjectRef[Any]],
    ) -> list[tuple[int | str, bytes]]:
        """Put each large argument in the store: it is passed as a ref then."""
        places: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
        stored: list[tuple[int | str, bytes]] = []
        for place, value in places:
            if value is not None and serialize(value).size > INLINE_LIMIT_BYTES // 4:
                ref = self.peer.put(value)
                temporary.append(ref)
                stored.append((place, ref._id))
        return stored

    # -- environments --------------------------------------------------------------

    def environment(self, key: str, env: dict[str, Any]) -> str:
        """Make an environment known to the daemon; returns its key."""
        if key and key not in self._environments:
            self._environments[key] = None
            with self.peer.lock:
                self.peer.send_node(SetupEnvironment(key, env))
        return key

    # -- objects -------------------------------------------------------------------

    def put(self, value: object) -> ObjectRef[Any]:
        """Store a value."""
        return self.peer.put(value)

    def get_one(self, ref: ObjectRef[Any], timeout: float | None = None) -> Any:
        """The value of a ref."""
        return self.peer.get_one(ref, timeout)

    def get_many(
        self, refs: Sequence[ObjectRef[Any]], timeout: float | None = None
    ) -> list[Any]:
        """The values of refs, in order."""
        return self.peer.get_many(refs, timeout)

    def wait(
        self, refs: list[Any], num_returns: int, timeout: float | None, fetch: bool
    ) -> tuple[list[Any], list[Any]]:
        """Split refs into ready ones and others."""
        return self._wait_loops.wait(refs, num_returns, timeout)

    def cancel(self, ref: ObjectRef[Any], *, force: bool, recursive: bool) -> None:
        """Cancel the task that makes an object."""
        peer = self.peer
        with peer.lock:
            entry = peer.owner.refs.entries.get(ref._id)
            if entry is None or entry.state != PENDING:
                return
            record = entry.record
            if force and record is not None and record.actor is not None:
                raise ValueError(
                    "force=True is not supported for actor calls: it would end the "
                    "actor. Use kill for that, or cancel without force."
                )
            if entry.owner == peer.address:
                peer.owner.tasks.cancel(ref._id, force=force, recursive=recursive)
            else:
                link = peer.link(entry.owner)
                if link is not None:
                    link.send(CancelByRef(ref._id, force, recursive))
            peer.owner.tasks.drain()
            peer.engine.flush()

    # -- streams -------------------------------------------------------------------

    def next_item(
        self, record: TaskRecord, timeout: float | None
    ) -> ObjectRef[Any] | None:
        """The next item of a stream; None at its end."""
        return stream_reading.next_item(self.peer, record, timeout)

    async def item_future(self, record: TaskRecord) -> None:
        """Wait until the next item of a stream is there."""
        await stream_reading.wait_for_item(self.peer, record)

    def drop_stream(self, record: TaskRecord) -> None:
        """A generator died: only note it, this runs in a destructor."""
        self.peer.dropped_streams.append(record)

    # -- actors --------------------------------------------------------------------

    def create_actor(
        self, spec: ActorSpec, packed: Packed, *, get_if_exists: bool
    ) -> tuple[ActorSpec, ObjectRef[Any] | None]:
        """Register and start an actor; returns its spec and its counted handle ref.

        Raises:
            ActorAlreadyExistsError: the name is taken.
        """
        peer = self.peer
        spec.owner = peer.address
        spec.job_id = peer.job_id
        spec.args = packed.payload
        owners = peer.owner.refs.entries
        spec.deps = [
            (place, object_id, owners[object_id].owner)
            for place, object_id in packed.deps or ()
        ]
        if spec.name:
            reply = peer.ask(lambda number: CreateActor(number, spec, get_if_exists))
            if reply.spec is None:
                raise ActorAlreadyExistsError(reply.error)
            if reply.spec.actor_id != spec.actor_id:
                return reply.spec, None
        with peer.lock:
            if not spec.name:
                peer.send_node(CreateActor(0, spec))
            handle = self._handle_ref(spec)
            calls = peer.owner.actor(
                spec.actor_id, spec.class_name, is_ordered=is_ordered(spec)
            )
            calls.holds = list(packed.holds or ())
            for object_id in calls.holds:
                peer.owner.refs.hold(object_id)
            peer.engine.flush()
        return spec, handle

    def _handle_ref(self, spec: ActorSpec) -> ObjectRef[Any] | None:
        """The counted object that stands for an actor's handles."""
        if spec.detached:
            return None
        handle_id = spec.actor_id + ACTOR_SUFFIX
        entry = self.peer.owner.refs.own(handle_id)
        entry.state = READY_INLINE
        return counted_ref(handle_id, self.peer.address)

    def lookup_actor(self, name: str, namespace: str) -> ActorSpec:
        """Find a named actor.

        Raises:
            ValueError: there is none.
        """
        reply = self.peer.ask(lambda number: LookupActor(number, name, namespace), 60)
        if reply.spec is None:
            raise ValueError(reply.error)
        spec: ActorSpec = reply.spec
        return spec

    def actor_calls(self, spec: ActorSpec) -> ActorCalls:
        """This process's end of the calls to an actor."""
        with self.peer.lock:
            calls = self.peer.owner.actor(
                spec.actor_id, spec.class_name, is_ordered=is_ordered(spec)
            )
            self.peer.engine.flush()
        return calls

    def call_actor(
        self,
        calls: ActorCalls,
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
        if interrupts.pending:
            interrupts.check()
        peer = self.peer
        packed = self.pack_arguments(args, kwargs) if args or kwargs else _NO_ARGUMENTS
        if 0 <= limit <= calls.waiting_count:
            raise PendingCallsLimitExceeded(
                f"The actor {calls.class_name} has {calls.waiting_count} calls of this "
                f"process pending and max_pending_calls={limit}."
            )
        record = TaskRecord(peer.next_task_id(), call, packed.payload, calls)
        record.actor = calls
        record.deps = packed.deps
        record.holds = packed.holds
        if handle is not None:
            record.holds = [*(packed.holds or ()), handle._id]
        if self.executor is not None:
            record.parent = current_task_id()
        engine = peer.engine
        with peer.lock:
            if peer.lost_reason:
                peer._check_alive()
            returns = peer.owner.tasks.submit(record)
            if hooks.dropped:
                peer.drain_dropped()
            # A call behind another one on an ordered actor can wait for company; it
            # could not run yet in any case.
            if engine.dirty and (
                not calls.is_ordered
                or calls.channel is None
                or len(calls.channel.inflight) == 1
            ):
                engine.flush()
        engine.activity += 1
        self._submitted += 1
        if not self._submitted % POLL_EVERY:
            with peer.lock:
                engine.flush()
            engine.poll_now()
        count = call.returns
        if count == 1:
            return counted_ref(returns.object_id, peer.address)
        if count >= 0:
            return [counted_ref(entry.object_id, peer.address) for entry in returns]
        if count == STREAMING:
            return record, counted_ref(returns.object_id, peer.address)
        return counted_ref(returns.object_id, peer.address)

    def kill_actor(self, actor_id: bytes, *, no_restart: bool) -> None:
        """End an actor at once."""
        with self.peer.lock:
            calls = self.peer.owner.actors.get(actor_id)
            if calls is not None and no_restart:
                calls.is_killed = True  # it may live on for a moment
            message = KillActor(actor_id, no_restart, "it was killed by `ray.kill`")
            self.peer.send_node(message)
            self.peer.engine.flush()

    def is_actor_dead(self, actor_id: bytes) -> bool:
        """Whether this process knows that an actor is dead."""
        calls = self.peer.owner.actors.get(actor_id)
        return calls is not None and calls.state == DEAD

    # -- views -----------------------------------------------------------------------

    def query(self, what: str, argument: Any = None) -> Any:
        """A view of the node's or control store's tables."""
        return self.peer.query(what, argument)

    @property
    def is_worker(self) -> bool:
        """Whether this process runs tasks."""
        return self.executor is not None

    @property
    def namespace(self) -> str:
        """The namespace of named actors, unless one is given."""
        spec = worker_state.actor_spec
        if spec is not None and spec.namespace:
            return str(spec.namespace)
        return str(self.info["namespace"])

    def new_actor_id(self) -> bytes:
        """A fresh actor id."""
        return os.urandom(UNIQUE_ID_BYTES)


def is_ordered(spec: ActorSpec) -> bool:
    """Whether calls of one caller run in the order they were made."""
    return not (
        spec.is_async
        or spec.max_concurrency > 1
        or spec.concurrency_groups
        or spec.out_of_order
    )


def _blanked(
    args: tuple[Any, ...], kwargs: dict[str, Any], deps: list[tuple[int | str, bytes]]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with None in the places that dependencies will fill."""
    positional = list(args)
    named = dict(kwargs)
    for place, _ in deps:
        if isinstance(place, str):
            named[place] = None
        else:
            positional[place] = None
    return tuple(positional), named
