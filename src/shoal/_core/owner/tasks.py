"""Tasks this process submitted: from submission to result, retry, error or cancel.

::

    submit -> waiting for arguments -> queued -> pushed -> finished | failed
                     |                   ^         |
                     +------ cancel      +-- retry-+  (worker died, or an exception
                                                       the caller asked to retry on)

A worker that dies had one task running: the first not answered.  Only that attempt is
counted; the ones behind it were never begun.  As replies may be held back for a
moment, which one ran is certain only when tasks are pushed alone, so tasks caught in a
crash are *careful* from then on: pushed one by one.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from shoal._core.base.ids import TASK_ID_BYTES
from shoal._core.owner.calls import DYNAMIC, STREAMING, Channel, TaskRecord
from shoal._core.owner.leases import OwnerLeases
from shoal._core.owner.port import OwnerPort
from shoal._core.owner.references import (
    FAILED,
    FREED,
    PENDING,
    Entry,
    References,
)
from shoal._core.owner.streams import Stream
from shoal._core.serial.failures import dependency_failure, encode_failure
from shoal._core.serial.serializer import serialize
from shoal._core.wire.node_messages import FreeObjects, KillWorker, WorkerGone
from shoal._core.wire.worker_messages import (
    ERROR,
    INLINE,
    CancelTask,
    StreamAck,
    StreamDropped,
    StreamItem,
    TaskDone,
    TaskResult,
    Value,
)
from shoal.exceptions import OutOfMemoryError, TaskCancelledError, WorkerCrashedError

_NONE = serialize(None).to_bytes()


class Tasks:
    """The table of submitted tasks that have not finished."""

    def __init__(self, port: OwnerPort, refs: References) -> None:
        self._port = port
        self._refs = refs
        self.leases: OwnerLeases
        self.pending: dict[bytes, TaskRecord] = {}
        #: tasks whose arguments have all come, to be queued at the end of the turn
        self.resolved: deque[TaskRecord] = deque()
        #: told of each task that ends in an error, for ``error_info``
        self.on_failed: Any = None

    # -- submitting --------------------------------------------------------------

    def submit(self, record: TaskRecord) -> Any:
        """Enter a task; returns the entries of its results."""
        returns = record.call.returns
        task_id = record.task_id
        refs = self._refs
        if returns == 1:
            entries: Any = refs.own(task_id + b"\1\0\0\0", record)
        elif returns >= 0:
            entries = [
                refs.own(task_id + (i + 1).to_bytes(4, "little"), record)
                for i in range(returns)
            ]
        else:
            entries = refs.own(task_id + b"\1\0\0\0", record)
            if returns == STREAMING:
                record.stream = Stream(task_id)
        record.returns = entries
        self.pending[task_id] = record
        if record.holds:
            for object_id in record.holds:
                refs.entries[object_id].count += 1
        if record.actor is not None:
            record.actor.append(record)
        if record.deps and self._await_arguments(record):
            self.drain()
            return entries
        self._ready(record)
        return entries

    def _await_arguments(self, record: TaskRecord) -> bool:
        """Count the arguments still to come; True when there are some."""
        entries = self._refs.entries
        places = record.deps or ()
        pending = [entries[key] for _, key in places if entries[key].state == PENDING]
        record.missing = len(pending)
        for entry in pending:
            entry.add_waiter(record)
        for entry in pending:  # only now: one may fail, and so arrive, at once
            self._refs.fetch(entry)
        return bool(pending)

    def _ready(self, record: TaskRecord) -> None:
        if record.actor is not None:
            record.actor.on_resolved(record)
        else:
            self.leases.enqueue(record)

    def drain(self) -> None:
        """Queue the tasks whose arguments have come."""
        while self.resolved:
            record = self.resolved.popleft()
            if record.task_id in self.pending:
                self._ready(record)

    def push(self, channel: Channel, record: TaskRecord) -> bool:
        """Send a task to an executor; False when it failed instead."""
        deps = None
        if record.deps:
            deps = []
            entries = self._refs.entries
            for place, object_id in record.deps:
                entry = entries[object_id]
                if entry.state == FAILED:
                    self._fail_dependency(record, entry)
                    return False
                deps.append(
                    (place, object_id, entry.owner, self._refs.value_for_task(entry))
                )
        channel.push(record, deps)
        return True

    def _fail_dependency(self, record: TaskRecord, entry: Entry) -> None:
        if entry.record is not None:
            entry.record.is_error_seen = True
        data = dependency_failure(record.call.name, entry.data)
        self._fail_with(record, Value(ERROR, data))

    # -- results -----------------------------------------------------------------

    def on_done(self, channel: Channel, message: TaskDone) -> None:
        """The common reply."""
        record = channel.inflight.pop(message.seq, None)
        if record is None:
            return
        call = record.call
        call.learn(message.took_us)
        del self.pending[record.task_id]
        self._refs.complete_inline(record.returns, message.data)
        if record.holds:
            self._refs.release_all(record.holds)
        self._after_reply(channel, record)

    def on_result(self, channel: Channel, message: TaskResult) -> None:
        """The general reply."""
        record = channel.inflight.pop(message.seq, None)
        if record is None:  # judged already, when its process was said to be gone
            for value in message.values:
                self._refs.drop_refs(value)
            return
        record.call.learn(message.took_us)
        if message.borrowed:
            self._refs.on_still_borrowed(message.borrowed, channel.address)
        if message.retiring and channel.lease is not None:
            self.leases.retire(channel.lease)
        if message.retry and record.retries != 0 and not record.is_cancelled:
            record.retries -= 1
            self.requeue(record)
        else:
            self._settle(record, message)
        self._after_reply(channel, record)

    def _after_reply(self, channel: Channel, record: TaskRecord) -> None:
        lease = channel.lease
        if lease is not None:
            channel.last_reply = self._port.now()
            channel.has_given_back = False
            self.leases.refill(lease)

    def _settle(self, record: TaskRecord, message: TaskResult) -> None:
        """Hand the values of a finished task to their entries."""
        values = message.values
        failed = len(values) == 1 and values[0].kind == ERROR
        if record.stream is not None:
            length = message.stream_length
            if failed:
                self._add_item(record, length, values[0])
                length += 1
                values = [Value(INLINE, _NONE)]
            record.stream.finish(length)
            self._finish(record, values[0])
        elif failed:
            self._finish(record, values[0])
        else:
            self._complete_many(record, values)

    def _complete_many(self, record: TaskRecord, values: list[Value]) -> None:
        if record.call.returns == DYNAMIC:
            for index, value in enumerate(values[1:]):
                item_id = record.task_id + (index + 2).to_bytes(4, "little")
                item = self._refs.own(item_id)
                item.count = 0
                self._refs.complete(item, value)
            entries = [record.returns]
        else:
            entries = self._entries(record)
        self._remove(record)
        for entry, value in zip(entries, values, strict=False):
            self._refs.complete(entry, value)
        self._release_holds(record)

    def _entries(self, record: TaskRecord) -> list[Entry]:
        returns = record.returns
        return [returns] if isinstance(returns, Entry) else returns

    def _finish(self, record: TaskRecord, value: Value) -> None:
        """End a task with one value for all its returns (an error, mostly)."""
        if not self._remove(record):
            return
        if value.kind == ERROR and self.on_failed is not None:
            self.on_failed(record, value)
        for entry in self._entries(record):
            self._refs.complete(entry, value)
        self._release_holds(record)

    def _remove(self, record: TaskRecord) -> bool:
        return self.pending.pop(record.task_id, None) is not None

    def _release_holds(self, record: TaskRecord) -> None:
        holds, record.holds = record.holds, None
        if holds:
            self._refs.release_all(holds)

    def fail(self, record: TaskRecord, error: BaseException) -> None:
        """End a task with an error of the system."""
        data = encode_failure(error, function_name=record.call.name, pid=0, ip="")
        self._fail_with(record, Value(ERROR, data))

    def fail_all(self, error: BaseException) -> None:
        """The session is over: nothing pending can end in any other way."""
        data = encode_failure(error, function_name="", pid=0, ip="")
        value = Value(ERROR, data)
        for record in list(self.pending.values()):
            self._fail_with(record, value)

    def _fail_with(self, record: TaskRecord, value: Value) -> None:
        stream = record.stream
        if stream is not None:
            # The error is the stream's last item; what came before stays good.
            self._add_item(record, stream.taken + len(stream.arrived), value)
            stream.finish(stream.taken + len(stream.arrived))
        self._finish(record, value)

    # -- streams -----------------------------------------------------------------

    def on_item(self, channel: Channel, message: StreamItem) -> None:
        """A streaming task yielded."""
        record = channel.inflight.get(message.seq)
        if record is None or record.stream is None:
            self._refs.drop_refs(message.value)
            return
        self._add_item(record, message.index, message.value)

    def _add_item(self, record: TaskRecord, index: int, value: Value) -> None:
        stream: Stream = record.stream
        if index < stream.taken or index in stream.arrived:
            self._refs.drop_refs(value)  # sent again by another attempt
            return
        if stream.is_dropped:
            unwanted = Entry(stream.item_id(index), self._port.address, 0)
            unwanted.state = FREED
            self._refs.complete(unwanted, value)
            return
        entry = self._refs.own(stream.item_id(index))
        self._refs.complete(entry, value)
        stream.add(index)

    def take_item(self, record: TaskRecord) -> bytes | None:
        """The consumer takes the next item; tells a producer that may be paused."""
        object_id: bytes | None = record.stream.take()
        if (
            object_id is not None
            and record.call.definition.backpressure > 0
            and record.channel is not None
            and record.task_id in self.pending
        ):
            record.channel.link.send(StreamAck(record.task_id, record.stream.taken))
        return object_id

    def drop_stream(self, record: TaskRecord) -> None:
        """The consumer went away: free what came, and let the producer stop."""
        stream: Stream = record.stream
        stream.is_dropped = True
        for object_id in list(stream.arrived.values()):
            self._refs.release(object_id)
        stream.arrived.clear()
        if record.channel is not None and record.task_id in self.pending:
            record.channel.link.send(StreamDropped(record.task_id))

    # -- retries -----------------------------------------------------------------

    def requeue(self, record: TaskRecord, *, counted: bool = True) -> None:
        """Run a task again (or for the first time, when it was given back)."""
        record.channel = None
        if counted:
            record.attempt += 1
        if record.actor is not None:
            record.actor.queue.appendleft(record)
        self._ready(record)

    def on_returned(self, channel: Channel, seqs: list[int]) -> None:
        """An executor gave back tasks it had not begun."""
        channel.is_taking_back = False
        channel.has_given_back = bool(seqs)
        records = [channel.inflight.pop(seq, None) for seq in seqs]
        sclass = None
        for record in reversed(records):
            if record is None or record.task_id not in self.pending:
                continue
            record.channel = None
            if record.is_cancelled:  # on its way back when it was cancelled
                self.fail(record, TaskCancelledError(record.task_id.hex()))
                continue
            sclass = record.sclass
            sclass.queue.appendleft(record)
        if sclass is not None:
            self.leases.pump(sclass)

    def on_worker_gone(self, channel: Channel, gone: WorkerGone) -> None:
        """The worker at the other end died: judge what was in flight there."""
        records = list(channel.inflight.values())
        channel.inflight.clear()
        if channel.lease is not None:
            self.leases.forget(channel.lease)
        for position, record in enumerate(records):
            if record.task_id not in self.pending or record.actor is not None:
                continue
            record.is_careful = True
            self.free_partial_results(record)
            if record.is_cancelled:
                self.fail(record, TaskCancelledError(record.task_id.hex()))
            elif position > 0:
                self.requeue(record, counted=False)
            elif record.retries != 0:
                record.retries -= 1
                if not gone.intended:
                    self._warn_of_retry(record, gone)
                self.requeue(record)
            else:
                self.fail(record, self._crash_error(record, gone))

    def free_partial_results(self, record: TaskRecord) -> None:
        """The dead worker may have stored results that nobody was told of."""
        ids = [entry.object_id for entry in self._entries(record)]
        if ids:
            self._port.send_node(FreeObjects(ids))

    def _warn_of_retry(self, record: TaskRecord, gone: WorkerGone) -> None:
        left = "unlimited" if record.retries < 0 else str(record.retries)
        self._port.warn(
            f"Task {record.call.name} failed: its worker (pid {gone.pid}) "
            f"{gone.cause}. "
            f"There are {left} retries remaining, so the task will be retried."
        )

    def _crash_error(self, record: TaskRecord, gone: WorkerGone) -> Exception:
        text = (
            f"The worker (pid {gone.pid}) running task {record.call.name} "
            f"({record.task_id.hex()}) {gone.cause}. Attempts made: "
            f"{record.attempt + 1}; set max_retries to allow more."
        )
        return OutOfMemoryError(text) if gone.oom else WorkerCrashedError(text)

    # -- cancelling --------------------------------------------------------------

    def cancel(self, object_id: bytes, *, force: bool, recursive: bool) -> bool:
        """Cancel the task that makes an object; False when it is not pending here."""
        record = self.pending.get(object_id[:TASK_ID_BYTES])
        if record is None:
            return False
        self._cancel_record(record, force=force, recursive=recursive)
        return True

    def _cancel_record(
        self, record: TaskRecord, *, force: bool, recursive: bool
    ) -> None:
        if record.is_cancelled and not force:
            return
        record.is_cancelled = True
        channel = record.channel
        if channel is None or channel.inflight.get(record.seq) is not record:
            self._unqueue(record)
            self.fail(record, TaskCancelledError(record.task_id.hex()))
            return
        channel.link.send(CancelTask(record.task_id, recursive))
        if force and channel.lease is not None:
            self._port.send_node(KillWorker(channel.lease.number))

    def _unqueue(self, record: TaskRecord) -> None:
        if record.actor is not None:
            record.actor.on_cancelled(record)
            return
        try:
            record.sclass.queue.remove(record)
        except ValueError:  # it still waits for arguments
            return

    def cancel_children(self, parent: bytes) -> None:
        """Cancel what a cancelled task submitted, and so on down."""
        for record in [one for one in self.pending.values() if one.parent == parent]:
            self._cancel_record(record, force=False, recursive=True)

    def cancel_all(self) -> None:
        """The process leaves: end every task it still waits for."""
        for record in list(self.pending.values()):
            self._cancel_record(record, force=False, recursive=True)
