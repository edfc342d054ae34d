"""Generators as results: items sent one by one, or all at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoal._core.base.generators import DynamicObjectRefGenerator
from shoal._core.base.object_ref import ObjectRef
from shoal._core.executor.inbox import InboxTask
from shoal._core.io.engine import Waiter
from shoal._core.io.interrupts import interruptible
from shoal._core.process.peer import Peer
from shoal._core.serial.serializer import serialize
from shoal._core.wire.worker_messages import INLINE, StreamItem, Value
from shoal.exceptions import TaskCancelledError

if TYPE_CHECKING:
    from shoal._core.process.execution import Executor


def item_id(task: InboxTask, index: int) -> bytes:
    """Id of item ``index`` of a task's stream."""
    return task.message.task_id + (index + 2).to_bytes(4, "little")


def send_item(executor: Executor, task: InboxTask, index: int, item: Any) -> None:
    """Send one item to the owner."""
    receiver = task.link.context.address
    value, _ = executor.peer.pack(item, item_id(task, index), receiver)
    with executor.peer.lock:
        task.link.send(StreamItem(task.message.seq, index, value))
        executor.peer.engine.flush()


def _wait_for_consumer(executor: Executor, task: InboxTask, sent: int) -> None:
    """Pause the producer while the consumer is too far behind."""
    limit = task.call.backpressure
    while limit > 0 and sent - task.consumed >= limit:
        waiter = Waiter(1)
        with executor.peer.lock:
            if task.is_dropped or task.is_cancelled or sent - task.consumed < limit:
                return
            task.runner = waiter
        try:
            executor.peer.block(waiter, None)
        finally:
            task.runner = None


_END = object()


def next_of(generator: Any) -> Any:
    """The next item of a user's generator: a boundary that interrupts may cross."""
    return next(generator, _END)


interruptible(next_of)


def run_stream(
    executor: Executor, task: InboxTask, generator: Any, started: float
) -> None:
    """Iterate over a task's generator, sending its items."""
    index = 0
    generator = iter(generator)
    try:
        while (item := next_of(generator)) is not _END:
            if task.is_dropped or task.is_cancelled:
                break
            send_item(executor, task, index, item)
            index += 1
            _wait_for_consumer(executor, task, index)
        if task.is_cancelled:
            raise TaskCancelledError(task.message.task_id.hex())
    except KeyboardInterrupt as interrupt:
        error = TaskCancelledError(task.message.task_id.hex())
        error = error.with_traceback(interrupt.__traceback__)
        finish_stream(executor, task, index, started, error)
        return
    except Exception as error:  # noqa: BLE001 - its consumer gets it
        finish_stream(executor, task, index, started, error)
        return
    finally:
        close = getattr(generator, "close", None)
        if close is not None:
            close()
    finish_stream(executor, task, index, started)


def finish_stream(
    executor: Executor,
    task: InboxTask,
    length: int,
    started: float,
    error: BaseException | None = None,
) -> None:
    """Tell the owner that the stream has ended, and how."""
    if error is None:
        values = [Value(INLINE, serialize(None).to_bytes())]
    else:
        values = [executor.failure_value(task, error)]
    executor.reply(task, values, started, stream_length=length)


def dynamic_values(
    peer: Peer, task: InboxTask, generator: Any, receiver: str
) -> list[Value]:
    """``num_returns="dynamic"``: the items, and first a value that refers to them."""
    items = []
    refs: list[ObjectRef[Any]] = []
    for index, item in enumerate(generator):
        object_id = item_id(task, index)
        items.append(peer.pack(item, object_id, receiver)[0])
        refs.append(ObjectRef(object_id, receiver))
    head = serialize(DynamicObjectRefGenerator(refs))
    inner = [(ref._id, ref._owner) for ref in refs]
    return [Value(INLINE, head.to_bytes(), head.size, inner or None), *items]
