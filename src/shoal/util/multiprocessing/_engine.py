"""Gives the chunks of a pool's jobs to its processes and collects the results.

Theory: chunks wait in a backlog and go to the process with the least work. A
process holds a *window* of chunks: one while nothing is known of how long a
chunk takes or when chunks are long, so that no chunk waits behind a long one
while another process is idle; several when they are short, so that a process
need not wait for the driver between them.

    submit ──> backlog ──> outstanding of a process ──future──> events ──> job

Finished chunks come in through the future of their object ref, which only
appends to a queue; one courier thread takes them from there and another runs
user callbacks, so a callback may be slow or use the pool without stopping it.

A process that dies loses the one chunk it was running, because calls run in
order: the oldest outstanding one. That chunk's job gets the error, since its
calls may have had effects; the chunks behind it never started and go back to
the backlog, and a new process takes the place of the dead one.

Invariants: every submitted chunk is reported to its job exactly once; a slot
has one live process; after `close`, processes are released as soon as nothing
is left to do.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import shoal
from shoal.exceptions import ActorHandleNotFoundError, RayActorError, RayTaskError
from shoal.util.multiprocessing._process import CallStyle, ChunkResult
from shoal.util.multiprocessing._results import Job

_logger = logging.getLogger(__name__)

# Work a process may hold ahead, in seconds: enough to cover the time in which
# the driver reacts, short enough that a chunk behind it is not noticeably late.
_WORK_AHEAD_S = 0.01
_WINDOW_MAX = 16


@dataclass(slots=True)
class Chunk:
    """Calls that are sent to a process together."""

    job: Job
    number: int
    func: Any
    """The function, or an object ref of it when it is sent many times."""
    style: CallStyle
    items: Sequence[Any]


@dataclass(slots=True)
class _Slot:
    """Place of one process; the process in it changes."""

    process: Any
    sent_count: int = 0
    outstanding: deque[_Sent] = field(default_factory=deque)


@dataclass(slots=True, eq=False)
class _Sent:
    """One chunk on its way to, or in, a process."""

    chunk: Chunk
    slot: _Slot
    ref: Any


class Courier:
    """A daemon thread that runs functions one after the other."""

    def __init__(self, name: str) -> None:
        self._letters: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def send(self, letter: Callable[[], None]) -> None:
        """Have `letter` called in the thread; returns at once."""
        self._letters.put(letter)

    def finish(self) -> None:
        """End the thread once all functions sent so far have run."""
        self._letters.put(None)

    def join(self) -> None:
        """Wait for the thread to end; does nothing when called from it."""
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        for letter in iter(self._letters.get, None):
            try:
                letter()
            except Exception:
                # The thread serves all jobs of the pool: a callback of one of
                # them that fails is reported and must not end the others.
                _logger.exception("A callback of a shoal Pool raised an exception")


class PoolEngine:
    """The moving parts of one pool.

    Args:
        process_count: how many processes work at a time.
        new_process: starts a process and returns its handle.
        chunks_per_process_max: replace a process after this many chunks; None
            keeps it for as long as it lives.
    """

    def __init__(
        self,
        process_count: int,
        new_process: Callable[[], Any],
        chunks_per_process_max: int | None,
    ) -> None:
        self._new_process = new_process
        self._chunks_per_process_max = chunks_per_process_max
        self._slots = [_Slot(new_process()) for _ in range(process_count)]
        self._backlog: deque[Chunk] = deque()
        self._lock = threading.Lock()
        self._chunk_duration_s: float | None = None
        self._is_closed = False
        self._is_terminated = False
        self._is_released = False
        self._events = Courier("shoal-pool-results")
        self._callbacks = Courier("shoal-pool-callbacks")

    def wait_until_ready(self) -> None:
        """Wait for the initializers; raises ActorDiedError if one failed."""
        shoal.get([slot.process.ready.remote() for slot in self._slots])

    def submit(self, chunks: Sequence[Chunk]) -> None:
        """Run the chunks as soon as processes are free."""
        with self._lock:
            if self._is_terminated or self._is_released:
                raise ValueError("Pool not running: it was closed or terminated")
            self._backlog.extend(chunks)
            self._dispatch()

    def run_callback(self, callback: Callable[[], None]) -> None:
        """Have a user callback called outside of the caller's thread."""
        self._callbacks.send(callback)

    def close(self) -> None:
        """Take no new chunks; release the processes when all are done."""
        with self._lock:
            self._is_closed = True
            self._release_if_done()

    def close_soon(self) -> None:
        """As `close`, in another thread: safe to call from a finalizer."""
        self._events.send(self.close)

    def terminate(self) -> None:
        """End the processes now; what is unfinished fails with RayActorError."""
        with self._lock:
            self._is_closed = self._is_terminated = True
            error = RayActorError(
                error_msg="The pool was terminated before this call started"
            )
            for chunk in self._backlog:
                self._report_lost(chunk, error)
            self._backlog.clear()
            for slot in self._slots:
                _kill(slot.process)
            self._release_if_done()

    def join(self) -> None:
        """Wait until a closed or terminated pool has finished, callbacks included."""
        self._events.join()
        self._callbacks.join()

    def _dispatch(self) -> None:
        """Send what the windows have room for. Called with the lock held."""
        window = self._window()
        while self._backlog:
            open_slots = [slot for slot in self._slots if self._has_room(slot, window)]
            if not open_slots:
                return
            slot = min(open_slots, key=lambda slot: len(slot.outstanding))
            self._send(slot, self._backlog.popleft())

    def _window(self) -> int:
        if self._chunk_duration_s is None:
            return 1
        fitting = int(_WORK_AHEAD_S / max(self._chunk_duration_s, 1e-6))
        return min(max(fitting, 1), _WINDOW_MAX)

    def _has_room(self, slot: _Slot, window: int) -> bool:
        if self._is_worn_out(slot):
            # The next chunk goes to a new process, once this one is done.
            return not slot.outstanding
        return len(slot.outstanding) < window

    def _is_worn_out(self, slot: _Slot) -> bool:
        limit = self._chunks_per_process_max
        return limit is not None and slot.sent_count >= limit

    def _send(self, slot: _Slot, chunk: Chunk) -> None:
        if self._is_worn_out(slot):
            self._replace_process(slot)
        try:
            ref = slot.process.run.remote(chunk.func, chunk.style, chunk.items)
        except Exception as error:  # noqa: BLE001
            # Such as arguments that cannot be serialised: it is the job's error.
            self._report_lost(chunk, error)
            return
        sent = _Sent(chunk, slot, ref)
        slot.sent_count += 1
        slot.outstanding.append(sent)
        future: Future[ChunkResult] = ref.future()
        future.add_done_callback(
            lambda done: self._events.send(lambda: self._on_done(sent, done))
        )

    def _replace_process(self, slot: _Slot) -> None:
        # The old process ends by itself: nothing refers to it any more.
        slot.process = self._new_process()
        slot.sent_count = 0

    def _on_done(self, sent: _Sent, done: Future[ChunkResult]) -> None:
        error = done.exception()
        with self._lock:
            if sent not in sent.slot.outstanding:
                # Its process died and the chunk was settled with the first
                # of the errors that followed.
                return
            if isinstance(error, RayActorError):
                self._on_process_died(sent, error)
            else:
                sent.slot.outstanding.remove(sent)
                if error is None:
                    self._note_duration(done.result().duration_s)
            self._dispatch()
        if not isinstance(error, RayActorError):
            self._report(sent.chunk, done, error)
        with self._lock:
            self._release_if_done()

    def _on_process_died(self, sent: _Sent, error: RayActorError) -> None:
        slot = sent.slot
        running, *unstarted = [sent.chunk for sent in slot.outstanding]
        slot.outstanding.clear()
        self._report_lost(running, error)
        if self._is_terminated:
            for chunk in unstarted:
                self._report_lost(chunk, error)
        else:
            self._backlog.extendleft(reversed(unstarted))
            self._replace_process(slot)

    def _note_duration(self, duration_s: float) -> None:
        known = self._chunk_duration_s
        # Up at once, down slowly: too wide a window makes chunks wait behind a
        # long one, too narrow a window only costs a little idle time.
        smoothed = duration_s if known is None else 0.8 * known + 0.2 * duration_s
        self._chunk_duration_s = max(duration_s, smoothed)

    def _report(
        self, chunk: Chunk, done: Future[ChunkResult], error: BaseException | None
    ) -> None:
        if error is None:
            chunk.job.chunk_finished(chunk.number, done.result())
        else:
            cause = error.cause if isinstance(error, RayTaskError) else error
            chunk.job.chunk_lost(chunk.number, len(chunk.items), cause)

    def _report_lost(self, chunk: Chunk, error: BaseException) -> None:
        # By way of the courier: the lock is held here, and jobs are told in
        # one thread only.
        self._events.send(
            lambda: chunk.job.chunk_lost(chunk.number, len(chunk.items), error)
        )

    def _release_if_done(self) -> None:
        """Let the processes go when nothing can come any more. Lock held."""
        is_busy = bool(self._backlog) or any(slot.outstanding for slot in self._slots)
        if self._is_closed and not self._is_released and not is_busy:
            self._is_released = True
            self._slots.clear()
            # Last: callbacks of the last jobs have been sent by now or are sent
            # by letters that are before this one.
            self._events.send(self._callbacks.finish)
            self._events.finish()


def _kill(process: Any) -> None:
    # A process of a session that has ended is gone already; asking a new session
    # to kill it would be an error, and without one would start one.
    if shoal.is_initialized():
        with contextlib.suppress(ActorHandleNotFoundError):
            shoal.kill(process, no_restart=True)
