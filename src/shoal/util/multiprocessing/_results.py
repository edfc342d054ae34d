"""The two ends of a job that a caller holds: one result, or a stream of them.

Theory: a *job* is what one method call on a pool asks for, cut into chunks. The
engine hands each finished chunk to its job from a background thread; the
caller waits on the job. Positions, not arrival, decide what a caller sees:
values are returned in order, and of several failures the first by position is
raised.

A job never touches pool processes, and it is finished exactly once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from multiprocessing import TimeoutError as PoolTimeoutError
from typing import Any, Protocol

from shoal.util.multiprocessing._process import ChunkResult, unpickle_failure

Callback = Callable[[Any], object]


class Job(Protocol):
    """What the engine needs to know of a job."""

    def chunk_finished(self, number: int, result: ChunkResult) -> None:
        """Chunk `number` was run."""

    def chunk_lost(self, number: int, call_count: int, error: BaseException) -> None:
        """The calls of chunk `number` did not run, or their results were lost."""


class AsyncResult:
    """The result of one asynchronous call on a pool."""

    def __init__(
        self,
        chunk_count: int,
        *,
        is_single: bool,
        callback: Callback | None,
        error_callback: Callback | None,
        run_callback: Callable[[Callable[[], None]], None],
    ) -> None:
        self._is_single = is_single
        self._callback = callback
        self._error_callback = error_callback
        self._run_callback = run_callback
        self._chunks: list[list[Any]] = [[] for _ in range(chunk_count)]
        self._missing = chunk_count
        self._failed_chunk: int | None = None
        self._error: BaseException | None = None
        self._finished = threading.Event()
        if chunk_count == 0:
            self._finish()

    def get(self, timeout: float | None = None) -> Any:
        """Wait for the result and return it.

        Args:
            timeout: seconds to wait; None waits for as long as it takes.

        Raises:
            multiprocessing.TimeoutError: there is no result in time.
            Whatever the function raised, as its own type.
        """
        if not self._finished.wait(timeout):
            raise PoolTimeoutError(f"no result within {timeout} s")
        if self._error is not None:
            raise self._error
        return self._value()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until there is a result, or for `timeout` seconds."""
        self._finished.wait(timeout)

    def ready(self) -> bool:
        """Whether there is a result."""
        return self._finished.is_set()

    def successful(self) -> bool:
        """Whether the call went without an exception.

        Raises:
            ValueError: there is no result yet.
        """
        if not self.ready():
            raise ValueError(f"{self!r} is not ready: call wait() or get() first")
        return self._error is None

    def chunk_finished(self, number: int, result: ChunkResult) -> None:
        """Take in the results of one chunk."""
        self._chunks[number] = result.values
        if result.failures:
            first = result.failures[min(result.failures)]
            self._note_failure(number, unpickle_failure(first))
        self._count_down()

    def chunk_lost(self, number: int, call_count: int, error: BaseException) -> None:
        """Take note that one chunk has no results."""
        self._note_failure(number, error)
        self._count_down()

    def _note_failure(self, number: int, error: BaseException) -> None:
        if self._failed_chunk is None or number < self._failed_chunk:
            self._failed_chunk, self._error = number, error

    def _count_down(self) -> None:
        self._missing -= 1
        if self._missing == 0:
            self._finish()

    def _finish(self) -> None:
        callback = self._callback if self._error is None else self._error_callback
        if callback is None:
            self._finished.set()
        else:
            self._run_callback(lambda: self._call_back(callback))

    def _call_back(self, callback: Callback) -> None:
        # The result is announced after the callback, even one that fails:
        # callers rely on its effects once wait() has returned.
        try:
            callback(self._value() if self._error is None else self._error)
        finally:
            self._finished.set()

    def _value(self) -> Any:
        if self._is_single:
            return self._chunks[0][0]
        return [value for chunk in self._chunks for value in chunk]


class IMapIterator:
    """Results of `imap` or `imap_unordered`, one by one.

    Items are read from the input as results are consumed, a few chunks ahead,
    so the input may be endless.
    """

    def __init__(
        self,
        items: Iterator[Any],
        *,
        chunksize: int,
        is_ordered: bool,
        chunks_ahead: int,
        submit: Callable[[Job, int, Sequence[Any]], None],
    ) -> None:
        self._items = items
        self._chunksize = chunksize
        self._is_ordered = is_ordered
        self._chunks_ahead = chunks_ahead
        self._submit = submit
        self._input_lock = threading.Lock()
        self._changed = threading.Condition()
        # Guarded by _input_lock: the next chunk to read.
        self._submitted_count = 0
        self._input_ended = False
        self._input_error: BaseException | None = None
        # Guarded by _changed: what has arrived and was not handed out yet.
        self._arrived: dict[int, list[tuple[Any, BaseException | None]]] = {}
        self._current: deque[tuple[Any, BaseException | None]] = deque()
        self._consumed_count = 0

    def __iter__(self) -> IMapIterator:
        return self

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """Return the next result.

        Args:
            timeout: seconds to wait; None waits for as long as it takes.

        Raises:
            StopIteration: there are no more results.
            multiprocessing.TimeoutError: none came in time; it is still to come.
            Whatever the function raised for this item; the results after it
            are still to come.
        """
        self._submit_ahead()
        with self._changed:
            if not self._changed.wait_for(self._has_next_or_ended, timeout):
                raise PoolTimeoutError(f"no result within {timeout} s")
            if not self._current and not self._advance():
                error, self._input_error = self._input_error, None
                raise error or StopIteration
            value, error = self._current.popleft()
        if error is not None:
            raise error
        return value

    def start(self) -> None:
        """Submit the first chunks, before anyone asks for a result."""
        self._submit_ahead()

    def submit_rest(self) -> None:
        """Read the whole input now: the pool takes no further calls."""
        self._submit_up_to(None)

    def chunk_finished(self, number: int, result: ChunkResult) -> None:
        """Take in the results of one chunk."""
        errors = {
            position: unpickle_failure(pickled)
            for position, pickled in result.failures.items()
        }
        self._arrive(
            number,
            [(value, errors.get(at)) for at, value in enumerate(result.values)],
        )

    def chunk_lost(self, number: int, call_count: int, error: BaseException) -> None:
        """Take note that one chunk has no results."""
        self._arrive(number, [(None, error)] * call_count)

    def _arrive(
        self, number: int, outcomes: list[tuple[Any, BaseException | None]]
    ) -> None:
        with self._changed:
            self._arrived[number] = outcomes
            self._changed.notify_all()

    def _submit_ahead(self) -> None:
        self._submit_up_to(self._consumed_count + self._chunks_ahead)

    def _submit_up_to(self, limit: int | None) -> None:
        with self._input_lock:
            while not self._input_ended and (
                limit is None or self._submitted_count < limit
            ):
                chunk = self._read_chunk()
                if chunk:
                    self._submit(self, self._submitted_count, chunk)
                    self._submitted_count += 1

    def _read_chunk(self) -> list[Any]:
        chunk: list[Any] = []
        try:
            chunk.extend(islice(self._items, self._chunksize))
        except Exception as error:  # noqa: BLE001
            # Raised to the caller after the results of the items before it.
            self._input_error = error
            self._input_ended = True
        else:
            self._input_ended = len(chunk) < self._chunksize
        return chunk

    def _has_next_or_ended(self) -> bool:
        if self._current or self._next_chunk() is not None:
            return True
        return self._input_ended and self._consumed_count == self._submitted_count

    def _next_chunk(self) -> int | None:
        if self._is_ordered:
            return (
                self._consumed_count if self._consumed_count in self._arrived else None
            )
        return next(iter(self._arrived), None)

    def _advance(self) -> bool:
        """Make the next arrived chunk the current one; False if there is none."""
        number = self._next_chunk()
        if number is None:
            return False
        self._current.extend(self._arrived.pop(number))
        self._consumed_count += 1
        return True
