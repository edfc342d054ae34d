"""Results that arrive one by one: the consumer's end of a streaming generator."""

from __future__ import annotations

from typing import Any

from shoal._core.base.ids import OBJECT_ID_BYTES, TASK_ID_BYTES
from shoal._core.owner.references import Arrival

assert OBJECT_ID_BYTES - TASK_ID_BYTES == 4


class Stream:
    """Items of one streaming task: those that came, and how many were taken."""

    __slots__ = ("arrived", "is_dropped", "length", "task_id", "taken", "waiters")

    def __init__(self, task_id: bytes) -> None:
        self.task_id = task_id
        #: item index -> object id, for items that came and were not taken
        self.arrived: dict[int, bytes] = {}
        self.taken = 0
        #: how many items there are in all; -1 while the task runs
        self.length = -1
        self.waiters: list[Arrival] = []
        self.is_dropped = False

    def item_id(self, index: int) -> bytes:
        """Id of item ``index`` (from 0); return 0 is the task's completion."""
        return self.task_id + (index + 2).to_bytes(4, "little")

    @property
    def is_next_ready(self) -> bool:
        """Whether taking the next item, or learning of the end, needs no wait."""
        return self.taken in self.arrived or self.is_exhausted

    @property
    def is_exhausted(self) -> bool:
        """Whether every item was taken."""
        return 0 <= self.length <= self.taken

    def add(self, index: int) -> bytes | None:
        """An item came; None when it is a repeat of one that came before."""
        if index < self.taken or index in self.arrived or self.is_dropped:
            return None
        object_id = self.arrived[index] = self.item_id(index)
        self._tell()
        return object_id

    def finish(self, length: int) -> None:
        """The generator ended after ``length`` items."""
        self.length = length
        self._tell()

    def take(self) -> bytes | None:
        """The next item's id; None at the end (or when it has not come yet)."""
        object_id = self.arrived.pop(self.taken, None)
        if object_id is not None:
            self.taken += 1
        return object_id

    def _tell(self) -> None:
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter.arrived(_anything)


_anything: Any = None
