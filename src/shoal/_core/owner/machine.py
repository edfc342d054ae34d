"""The owner machine: objects, tasks, leases and actor calls of one process.

The shell gives it messages with the connection they came on; it answers through its
port.  Driver and worker run the same machine: a worker owns what its tasks submit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shoal._core.owner.actor_calls import ActorCalls
from shoal._core.owner.calls import Channel
from shoal._core.owner.leases import OwnerLeases
from shoal._core.owner.port import OwnerPort
from shoal._core.owner.references import FAILED, PENDING, Entry, References
from shoal._core.owner.tasks import Tasks
from shoal._core.serial.failures import encode_failure
from shoal._core.wire.control_messages import ActorOutOfScope, ActorUpdate, WatchActor
from shoal._core.wire.node_messages import (
    DemandInfeasible,
    ExitQuery,
    LeaseDelayed,
    LeaseGranted,
    LeaseRefused,
    ReclaimLeases,
    WorkerGone,
)
from shoal._core.wire.worker_messages import (
    ERROR,
    BorrowAdded,
    BorrowDropped,
    CancelByRef,
    GetValue,
    StreamItem,
    TaskDone,
    TaskResult,
    TasksReturned,
    Value,
    ValueReply,
)
from shoal.exceptions import (
    ActorUnschedulableError,
    ObjectLostError,
    OwnerDiedError,
    ReferenceCountingAssertionError,
    RuntimeEnvSetupError,
    TaskPlacementGroupRemoved,
    TaskUnschedulableError,
)


class _Reply:
    """Somebody asked for an object that is not there yet."""

    __slots__ = ("_owner", "_receiver")

    def __init__(self, owner: Owner, receiver: str) -> None:
        self._owner = owner
        self._receiver = receiver

    def arrived(self, entry: Entry) -> None:
        """It is there: answer."""
        self._owner.answer(entry, self._receiver)


class Owner:
    """What one process knows of what it created."""

    def __init__(self, port: OwnerPort) -> None:
        self.port = port
        self.refs = References(port)
        self.refs.on_actor_unreferenced = self._actor_unreferenced
        self.refs.on_fetch_failed = self._fetch_failed
        self.tasks = Tasks(port, self.refs)
        self.leases = OwnerLeases(port, self.channel_to, self.tasks.push)
        self.tasks.leases = self.leases
        self.channels: dict[str, Channel] = {}
        self.actors: dict[bytes, ActorCalls] = {}
        self._lost: dict[str, Channel] = {}
        self._gone: dict[str, WorkerGone] = {}
        self._peer_handlers: dict[type, Callable[[Channel, Any], None]] = {
            TaskDone: self.tasks.on_done,
            TaskResult: self.tasks.on_result,
            StreamItem: self.tasks.on_item,
            TasksReturned: self._on_tasks_returned,
            GetValue: self._on_get_value,
            ValueReply: self._on_value_reply,
            BorrowAdded: self._on_borrow_added,
            BorrowDropped: self._on_borrow_dropped,
            CancelByRef: self._on_cancel_by_ref,
        }
        self._node_handlers: dict[type, Callable[[Any], None]] = {
            LeaseGranted: self.leases.on_granted,
            ReclaimLeases: self._on_reclaim,
            LeaseRefused: self._on_refused,
            DemandInfeasible: self._on_infeasible,
            LeaseDelayed: self._on_delayed,
            WorkerGone: self.on_worker_gone,
            ActorUpdate: self._on_actor_update,
        }

    # -- dispatch ----------------------------------------------------------------

    def on_peer(self, channel: Channel, message: Any) -> bool:
        """A message of another process; False when it is not the owner's."""
        handler = self._peer_handlers.get(type(message))
        if handler is None:
            return False
        handler(channel, message)
        return True

    def on_node(self, message: Any) -> bool:
        """A message of the daemon or control store; False when not the owner's."""
        handler = self._node_handlers.get(type(message))
        if handler is None:
            return False
        handler(message)
        return True

    def channel_to(self, address: str) -> Channel | None:
        """The sending side of the connection to a process."""
        channel = self.channels.get(address)
        if channel is None:
            link = self.port.link(address)
            if link is None:
                return None
            channel = self.channels.get(address)
            if channel is None:
                channel = self.channels[address] = Channel(address, link)
        return channel

    # -- peers -------------------------------------------------------------------

    def _on_tasks_returned(self, channel: Channel, message: TasksReturned) -> None:
        self.tasks.on_returned(channel, message.seqs)

    def _on_get_value(self, channel: Channel, message: GetValue) -> None:
        entry = self.refs.entries.get(message.object_id)
        if entry is None:
            error = ReferenceCountingAssertionError(
                message.object_id.hex(), self.port.address, ""
            )
            data = encode_failure(error, function_name="get", pid=0, ip="")
            channel.link.send(ValueReply(message.object_id, Value(ERROR, data)))
        elif entry.state == PENDING:
            entry.add_waiter(_Reply(self, channel.address))
            self.refs.fetch(entry)  # fails at once if nothing will ever make it
        else:
            self.answer(entry, channel.address)

    def answer(self, entry: Entry, receiver: str) -> None:
        """Send a ready object's value to a process that asked for it."""
        channel = self.channels.get(receiver)
        if channel is not None:
            value = self.refs.value_of(entry, receiver)
            channel.link.send(ValueReply(entry.object_id, value))

    def _on_value_reply(self, _: Channel, message: ValueReply) -> None:
        self.refs.on_value_reply(message)

    def _on_borrow_added(self, _: Channel, message: BorrowAdded) -> None:
        self.refs.on_borrow_added(message)

    def _on_borrow_dropped(self, channel: Channel, message: BorrowDropped) -> None:
        self.refs.on_borrow_dropped(message, channel.address)

    def _on_cancel_by_ref(self, _: Channel, message: CancelByRef) -> None:
        self.tasks.cancel(
            message.object_id, force=message.force, recursive=message.recursive
        )

    # -- leases ------------------------------------------------------------------

    def _on_reclaim(self, _: ReclaimLeases) -> None:
        self.leases.on_reclaim()

    def _on_infeasible(self, message: DemandInfeasible) -> None:
        if not message.request:  # an actor or a placement group made here
            self.port.warn(message.reason)
            return
        sclass = self.leases.class_of_request(message.request)
        if sclass is not None and sclass.reason != message.reason:
            sclass.reason = message.reason
            self.port.warn(message.reason)

    def _on_delayed(self, message: LeaseDelayed) -> None:
        sclass = self.leases.class_of_request(message.request)
        if sclass is not None:
            sclass.is_delayed = True

    def _on_refused(self, message: LeaseRefused) -> None:
        sclass = self.leases.class_of_request(message.request)
        if sclass is None:
            return
        self.leases._close_request(sclass)
        kind = {"unschedulable": TaskUnschedulableError}.get(message.kind)
        queue, sclass.queue = list(sclass.queue), type(sclass.queue)()
        for record in queue:
            error = kind(message.reason) if kind else _refusal(message)
            self.tasks.fail(record, error)

    # -- ends --------------------------------------------------------------------

    def on_link_lost(self, address: str) -> None:
        """The connection to a process is gone; its end explains it."""
        channel = self.channels.pop(address, None)
        if channel is None:
            return
        actors = [one for one in self.actors.values() if one.channel is channel]
        for actor in actors:
            actor.on_link_lost()
        for entry in self.refs.asked_of(address):
            self._owner_died(entry)
        self.refs.on_process_gone(address)
        gone = self._gone.pop(address, None)
        if channel.lease is not None or (channel.inflight and not actors):
            if gone is not None:
                self.tasks.on_worker_gone(channel, gone)
            else:
                self._lost[address] = channel
                self.port.send_node(ExitQuery(bytes.fromhex(address)))

    def on_worker_gone(self, gone: WorkerGone) -> None:
        """The daemon says how a process ended."""
        address = gone.worker_id.hex()
        channel = self._lost.pop(address, None)
        if channel is not None:
            self.tasks.on_worker_gone(channel, gone)
        elif address in self.channels:
            # What it said last is still to be read, and may report a new holder.
            self._gone[address] = gone
            return
        self.refs.on_process_gone(address)

    def on_session_lost(self, error: BaseException) -> None:
        """The node daemon is gone: whatever is not here yet will never come."""
        self.tasks.fail_all(error)
        self.leases.abandon()
        for channel in [*self.channels.values(), *self._lost.values()]:
            channel.inflight.clear()
        for calls in self.actors.values():
            calls.queue.clear()
        data = encode_failure(error, function_name="get", pid=0, ip="")
        for entry in list(self.refs.entries.values()):
            if entry.state == PENDING:
                self.refs.complete(entry, Value(ERROR, data))

    def _owner_died(self, entry: Entry) -> None:
        error = OwnerDiedError(entry.object_id.hex(), entry.owner, "")
        data = encode_failure(error, function_name="get", pid=0, ip="")
        self.refs.complete(entry, Value(ERROR, data))

    def _fetch_failed(self, entry: Entry) -> None:
        if entry.owner and entry.owner != self.port.address:
            self._owner_died(entry)
            return
        # Ours, and freed: the ref was rebuilt from bytes that nothing kept valid.
        error = ObjectLostError(entry.object_id.hex(), entry.owner, "")
        data = encode_failure(error, function_name="get", pid=0, ip="")
        self.refs.complete(entry, Value(ERROR, data))

    # -- actors ------------------------------------------------------------------

    def actor(
        self, actor_id: bytes, class_name: str, *, is_ordered: bool
    ) -> ActorCalls:
        """The calls to an actor, watched from first use on."""
        calls = self.actors.get(actor_id)
        if calls is None:
            calls = self.actors[actor_id] = ActorCalls(
                actor_id,
                class_name,
                is_ordered=is_ordered,
                tasks=self.tasks,
                channel_to=self.channel_to,
            )
            self.port.send_node(WatchActor(actor_id))
        return calls

    def _on_actor_update(self, update: ActorUpdate) -> None:
        calls = self.actors.get(update.actor_id)
        if calls is not None:
            calls.on_update(update)

    def _actor_unreferenced(self, actor_id: bytes) -> None:
        self.port.send_node(ActorOutOfScope(actor_id))

    # -- turns -------------------------------------------------------------------

    def is_failed(self, entry: Entry) -> bool:
        """Whether an object is an error."""
        return entry.state == FAILED

    def check(self) -> None:
        """Assert every invariant."""
        self.refs.check()


def _refusal(message: LeaseRefused) -> Exception:
    if message.kind == "environment":
        return RuntimeEnvSetupError(message.reason)
    if message.kind == "placement_group":
        return TaskPlacementGroupRemoved(message.reason)
    return ActorUnschedulableError(message.reason)
