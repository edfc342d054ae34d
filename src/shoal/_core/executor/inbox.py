"""Tasks that arrived and were not begun; what runs; what was cancelled.

::

    arrived -> waiting --begin--> running --> done
                  |                  |
                  |-- taken back     +-- cancel asked
                  +-- cancelled
"""

from __future__ import annotations

from collections import deque
from typing import Any

from shoal._core.wire.worker_messages import Callable_, PushTask


class InboxTask:
    """One task sent to this process."""

    __slots__ = (
        "arrivals",
        "call",
        "consumed",
        "is_answered",
        "is_begun",
        "is_cancelled",
        "is_dropped",
        "lease",
        "link",
        "message",
        "runner",
        "started_at",
    )

    def __init__(self, link: Any, message: PushTask, call: Callable_) -> None:
        self.link = link
        self.message = message
        self.call = call
        self.lease: Any = None
        self.is_begun = False
        self.is_answered = False
        self.is_cancelled = False
        #: refs met while its arguments were read
        self.arrivals: list[bytes] = []
        #: items of its stream that the consumer has taken
        self.consumed = 0
        #: nobody takes further items of its stream
        self.is_dropped = False
        #: what can interrupt it: an asyncio task; None in a thread
        self.runner: Any = None
        self.started_at = 0.0


class Inbox:
    """The waiting line of an executor, and the tasks it runs."""

    def __init__(self) -> None:
        self.waiting: deque[InboxTask] = deque()
        self.running: dict[bytes, InboxTask] = {}

    def put(self, task: InboxTask) -> None:
        """A task arrived."""
        self.waiting.append(task)

    def begin(self) -> InboxTask | None:
        """The next task to run; None when none waits."""
        if not self.waiting:
            return None
        task = self.waiting.popleft()
        task.is_begun = True
        self.running[task.message.task_id] = task
        return task

    def finish(self, task: InboxTask) -> None:
        """A task was answered."""
        self.running.pop(task.message.task_id, None)

    def take_back(self, link: Any, count: int) -> list[int]:
        """Give back up to ``count`` of a caller's tasks, the last sent first."""
        taken: list[int] = []
        kept: deque[InboxTask] = deque()
        while self.waiting and len(taken) < count:
            task = self.waiting.pop()
            if task.link is link:
                taken.append(task.message.seq)
            else:
                kept.appendleft(task)
        self.waiting.extend(kept)
        taken.reverse()
        return taken

    def find(self, task_id: bytes) -> InboxTask | None:
        """A task that waits or runs here."""
        task = self.running.get(task_id)
        if task is not None:
            return task
        return next(
            (one for one in self.waiting if one.message.task_id == task_id), None
        )

    def withdraw(self, task: InboxTask) -> None:
        """A waiting task was cancelled."""
        self.waiting.remove(task)

    def drop_link(self, link: Any) -> None:
        """A caller is gone: what it sent and is not begun goes with it."""
        self.waiting = deque(one for one in self.waiting if one.link is not link)
