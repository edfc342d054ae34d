"""Local mode: streams whose producer runs when its consumer asks for the next item.

A generator task needs no thread of its own.  It runs to its first ``yield`` when it is
called, and whoever takes an item after that runs it up to the next.  What can be seen
is the same as with a producer elsewhere, except that one that nobody reads does not
get further.  Whoever waits for the end of the
task (``completed()``, or a later call to the same actor) runs it to the end, or as far
as back-pressure lets it go.

Generators of async and threaded actors are pushed by their own loop or thread; their
streams have no producer here.

Does not: enter the items in the table of references (``local_execution.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from time import monotonic
from typing import Any

from shoal._core.io.interrupts import interruptible
from shoal._core.owner.streams import Stream

#: What ``next_of`` returns at the end.
END = object()


def next_of(iterator: Iterator[Any]) -> Any:
    """The next item of a user's generator: a boundary that interrupts may cross."""
    return next(iterator, END)


interruptible(next_of)


def _nothing() -> None:
    return None


class LocalStream(Stream):
    """The items of one streaming call.

    Args:
        task_id: of the call.
        backpressure: how many items may wait for the consumer; 0 or less: any number.
        lock: of the peer.
    """

    __slots__ = ("_has_turn", "_lock", "backpressure", "on_pause", "produce")

    def __init__(
        self, task_id: bytes, backpressure: int, lock: AbstractContextManager[None]
    ) -> None:
        super().__init__(task_id)
        self.backpressure = backpressure
        #: runs the generator to its next item; None before it began, after its end,
        #: and where it runs by itself.  Nothing else refers to the generator, so that
        #: forgetting this closes it.
        self.produce: Callable[[], None] | None = None
        #: told (under the lock) when a thread has left the generator
        self.on_pause: Callable[[], None] = _nothing
        self._lock = lock
        #: somebody runs the generator at this moment
        self._has_turn = False

    @property
    def sent(self) -> int:
        """How many items were produced."""
        return self.taken + len(self.arrived)

    @property
    def is_over(self) -> bool:
        """Whether every item was taken, as far as is known."""
        return 0 <= self.length <= self.taken

    @property
    def has_news(self) -> bool:
        """Whether the next item is here, or the end is known."""
        return self.taken in self.arrived or self.is_over

    @property
    def is_running(self) -> bool:
        """Whether a thread is in the producer."""
        return self._has_turn

    @property
    def can_go_on(self) -> bool:
        """Whether the producer waits to be run."""
        return self.produce is not None and not self._has_turn

    @property
    def must_pause(self) -> bool:
        """Whether the consumer is too far behind."""
        return 0 < self.backpressure <= len(self.arrived)

    @property
    def is_next_ready(self) -> bool:
        """Whether the next step needs no wait; runs the producer to find out."""
        self.pull()
        return self.has_news

    @property
    def is_exhausted(self) -> bool:
        """Whether every item was taken; runs the producer to find out."""
        self.pull()
        return self.is_over

    def pull(self) -> None:
        """Run the producer to its next item if that is not here, and it can run."""
        if not self.has_news:
            self.step()

    def step(self) -> bool:
        """Run the producer to its next item; False when that is not possible now."""
        with self._lock:
            produce = self.produce
            if produce is None or self._has_turn:
                return False
            self._has_turn = True
        try:
            produce()
        finally:
            with self._lock:
                self._has_turn = False
                self.on_pause()
        return True

    def run_on(self, deadline: float | None) -> None:
        """Run the producer to its end, or until it must pause, or time is up."""
        while not self.must_pause and (deadline is None or monotonic() < deadline):
            if not self.step():
                return
