"""A fixed set of actors that share a stream of calls.

Theory: every value handed to the pool becomes one *call*. A call is either
waiting (no actor is free) or running (it has an actor and an object ref).
Waiting calls start in submission order as actors come free, so the running
calls, kept in a dict, are always in submission order too: the next result in
order is the first entry, and the next result in any order is whichever ref is
ready.

An actor is only given its next call when the result of its previous one is
taken. That bounds the results held in memory by the number of actors, however
many values were submitted.

Invariants: an actor is idle or runs exactly one call; calls wait only while no
actor is idle; an actor known to be dead is in neither set.

It does not create, restart or stop actors, and it is not thread-safe.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import shoal
from shoal.exceptions import ActorDiedError

V = TypeVar("V")


@dataclass(slots=True)
class _RunningCall:
    """One call that has an actor."""

    actor: Any
    result: Any
    """What `fn` returned: one object ref, or the list of refs of one call."""

    @property
    def last_ref(self) -> Any:
        """The ref to wait on: the refs of one call become ready together."""
        return self.result[-1] if isinstance(self.result, list) else self.result


class ActorPool:
    """Spread calls over a fixed set of actors.

    Args:
        actors: handles of the actors to use. Each runs one call at a time.

    Example:
        >>> pool = ActorPool([Worker.remote(), Worker.remote()])  # doctest: +SKIP
        >>> list(pool.map(lambda a, v: a.double.remote(v), [1, 2, 3]))  # doctest: +SKIP
        [2, 4, 6]
    """

    def __init__(self, actors: Iterable[Any]) -> None:
        self._idle: list[Any] = list(actors)
        self._waiting: deque[tuple[Callable[[Any, Any], Any], Any]] = deque()
        self._running: dict[int, _RunningCall] = {}
        self._next_call = 0
        # True while a call is still running that was submitted before one whose
        # result was already handed out by get_next_unordered.
        self._order_lost = False

    def map(self, fn: Callable[[Any, V], Any], values: Iterable[V]) -> Iterator[Any]:
        """Apply `fn` to every value and yield the results in the order given.

        The calls are submitted now, not when the iterator is first used.
        Results of earlier calls that nobody took are discarded.

        Args:
            fn: takes an actor and a value, returns an object ref.
            values: one call is made for each.

        Returns:
            An iterator of results.

        Raises:
            Whatever a call raised, at the point where its result is due.
        """
        self._submit_all(fn, values)
        return self._results(self.get_next)

    def map_unordered(
        self, fn: Callable[[Any, V], Any], values: Iterable[V]
    ) -> Iterator[Any]:
        """Like `map`, but yield each result as soon as it is there."""
        self._submit_all(fn, values)
        return self._results(self.get_next_unordered)

    def submit(self, fn: Callable[[Any, V], Any], value: V) -> None:
        """Run `fn(actor, value)` on a free actor, or as soon as one is free.

        Args:
            fn: takes an actor and a value, returns an object ref.
            value: the second argument of `fn`.
        """
        if self._idle:
            self._start(self._idle.pop(), fn, value)
        else:
            self._waiting.append((fn, value))

    def has_next(self) -> bool:
        """Whether a result is still to come."""
        return bool(self._running or self._waiting)

    def get_next(
        self, timeout: float | None = None, ignore_if_timedout: bool = False
    ) -> Any:
        """Return the next result in the order of submission.

        Blocks: yes, up to `timeout`.

        Args:
            timeout: seconds to wait; None waits for as long as it takes.
            ignore_if_timedout: give the late result up, so that the next call
                of this method goes on to the one after it.

        Raises:
            StopIteration: nothing was submitted whose result is outstanding.
            TimeoutError: the result is not ready in time. It stays outstanding
                unless `ignore_if_timedout` is set.
            ValueError: get_next_unordered has already handed out a later result.
        """
        self._require_outstanding()
        if self._order_lost:
            raise ValueError(
                "get_next() is not allowed after get_next_unordered() while results "
                "from before it are outstanding: take those with get_next_unordered()"
            )
        number, call = next(iter(self._running.items()))
        ready, _ = shoal.wait([call.last_ref], num_returns=1, timeout=timeout)
        if not ready:
            raise self._timed_out(number, timeout, ignore_if_timedout)
        return self._take(number)

    def get_next_unordered(
        self, timeout: float | None = None, ignore_if_timedout: bool = False
    ) -> Any:
        """Return the next result that is ready, whichever it is.

        Blocks: yes, up to `timeout`.

        Args:
            timeout: seconds to wait; None waits for as long as it takes.
            ignore_if_timedout: give up the result that has been outstanding
                longest.

        Raises:
            StopIteration: nothing was submitted whose result is outstanding.
            TimeoutError: no result is ready in time.
        """
        self._require_outstanding()
        number_of = {call.last_ref: number for number, call in self._running.items()}
        ready, _ = shoal.wait(list(number_of), num_returns=1, timeout=timeout)
        if not ready:
            oldest = next(iter(self._running))
            raise self._timed_out(oldest, timeout, ignore_if_timedout)
        number = number_of[ready[0]]
        if number != next(iter(self._running)):
            self._order_lost = True
        return self._take(number)

    def has_free(self) -> bool:
        """Whether an actor is idle and would take a call at once."""
        return bool(self._idle) and not self._waiting

    def pop_idle(self) -> Any | None:
        """Take an idle actor out of the pool; None when all are busy."""
        return self._idle.pop() if self.has_free() else None

    def push(self, actor: Any) -> None:
        """Add an actor to the pool.

        Raises:
            ValueError: the actor is in the pool already.
        """
        if actor in self._idle or any(
            call.actor == actor for call in self._running.values()
        ):
            raise ValueError(f"{actor!r} already belongs to this ActorPool")
        self._return_actor(actor)

    def _submit_all(self, fn: Callable[[Any, V], Any], values: Iterable[V]) -> None:
        while self._running:
            self._discard(next(iter(self._running)))
        for value in values:
            self.submit(fn, value)

    def _results(self, take_next: Callable[[], Any]) -> Iterator[Any]:
        while self.has_next():
            yield take_next()

    def _require_outstanding(self) -> None:
        if not self.has_next():
            raise StopIteration("No more results to get")
        if not self._running:
            raise RuntimeError(
                f"{len(self._waiting)} submitted values wait for an actor, but the "
                "pool has none left: its actors died or were popped. push() an actor"
            )

    def _start(self, actor: Any, fn: Callable[[Any, Any], Any], value: Any) -> None:
        self._running[self._next_call] = _RunningCall(actor, fn(actor, value))
        self._next_call += 1

    def _take(self, number: int) -> Any:
        call = self._remove(number)
        try:
            value = shoal.get(call.result)
        except ActorDiedError:
            # A dead actor would fail every further call: it leaves the pool.
            raise
        except BaseException:
            self._return_actor(call.actor)
            raise
        self._return_actor(call.actor)
        return value

    def _discard(self, number: int) -> None:
        """Forget a result that nobody will take; its actor goes on to the next."""
        self._return_actor(self._remove(number).actor)

    def _remove(self, number: int) -> _RunningCall:
        call = self._running.pop(number)
        if not self._running and not self._waiting:
            self._order_lost = False
        return call

    def _return_actor(self, actor: Any) -> None:
        if self._waiting:
            self._start(actor, *self._waiting.popleft())
        else:
            self._idle.append(actor)

    def _timed_out(
        self, number: int, timeout: float | None, ignore: bool
    ) -> TimeoutError:
        message = f"no result within {timeout} s"
        if ignore:
            message += f"; {self._running[number].result!r} is ignored from now on"
            self._discard(number)
        return TimeoutError(message)
