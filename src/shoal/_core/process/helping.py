"""A task that waits for its own child runs it, when workers are scarce.

A recursion of depth 200 would need 200 processes if each level waited in one of its
own.  Once many workers wait, the node holds new ones back and says so
(``LeaseDelayed``); then a task blocked in ``get`` takes a child it waits for out of its
own queue and runs it on its own stack: the child needs no more than the parent holds,
and nothing else could run meanwhile that the parent does not wait for anyway.

The child travels the usual way, over a link of the process with itself, so that
results, errors and references are handled as for any other task.
"""

from __future__ import annotations

import sys
from typing import Any

from shoal._core.executor.inbox import InboxTask
from shoal._core.owner.calls import Channel, TaskRecord
from shoal._core.owner.references import PENDING, Entry
from shoal._core.process.context import worker_state
from shoal._core.process.execution import Executor
from shoal._core.process.peer import PeerLink
from shoal._core.wire.worker_messages import FUNCTION, Callable_, PushTask

#: Python frames that one level of helping may add.
FRAMES_PER_LEVEL = 60


class _LoopLink:
    """The connection of a process with itself: what is sent arrives at once."""

    def __init__(self, helper: Helper, address: str) -> None:
        self._helper = helper
        self.context = PeerLink()
        self.context.address = address

    def send(self, message: Any) -> None:
        """Deliver a message."""
        self._helper.deliver(message)


class Helper:
    """Runs awaited children of this worker's tasks in this worker."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._owner = executor.peer.owner
        address = executor.peer.address
        self._link = _LoopLink(self, address)
        self._channel = Channel(address, self._link)  # type: ignore[arg-type]
        self._link.context.channel = self._channel
        self._arrived: InboxTask | None = None

    def help(self, missing: list[Entry]) -> bool:
        """Run one task that the caller waits for; False when there is none to run."""
        executor = self._executor
        with executor.peer.lock:
            record = self._choose(missing)
            if record is None:
                return False
            record.sclass.queue.remove(record)
            if not self._owner.tasks.push(self._channel, record):
                return True  # an argument had failed, so the task has
            task, self._arrived = self._arrived, None
        assert task is not None
        if sys.getrecursionlimit() < _depth() + 4 * FRAMES_PER_LEVEL:
            sys.setrecursionlimit(sys.getrecursionlimit() + FRAMES_PER_LEVEL)
        executor.run(task)
        return True

    def _choose(self, missing: list[Entry]) -> TaskRecord | None:
        for entry in missing:
            record: TaskRecord | None = entry.record
            if (
                entry.state == PENDING
                and record is not None
                and record.actor is None
                and record.sclass.is_delayed
                and record in record.sclass.queue
                and self._can_run(record)
            ):
                return record
        return None

    def _can_run(self, record: TaskRecord) -> bool:
        definition = record.call.definition
        return (
            definition.kind == FUNCTION
            and definition.returns >= 0
            and not definition.max_calls
            and record.sclass.env == worker_state.env
            and record.sclass.demand == worker_state.demand
            and record.sclass.strategy in (None, self._captured_strategy())
        )

    def _captured_strategy(self) -> list[Any] | None:
        """The strategy of children that stay in this task's placement group."""
        group = worker_state.captured
        return ["pg", group, -1, True] if group else None

    def deliver(self, message: Any) -> None:
        """Take a message of the process to itself (under the engine's lock)."""
        callables = self._link.context.callables
        if isinstance(message, Callable_):
            callables[message.number] = message
        elif isinstance(message, PushTask):
            task = InboxTask(self._link, message, callables[message.number])
            task.is_begun = True
            self._executor.inbox.running[message.task_id] = task
            self._arrived = task
        else:
            self._owner.on_peer(self._channel, message)


def _depth() -> int:
    frame = sys._getframe()
    depth = 0
    while frame.f_back is not None:
        frame = frame.f_back
        depth += 1
    return depth
