"""One process's sockets, and who reads them: leader and followers.

A process has many connections and several threads that may wait for what arrives on
them.  Exactly one thread, the *leader*, polls; a thread that waits in ``get`` leads
itself, so that the reply it waits for costs no hop through a reader thread.  Other
waiting threads follow: they sleep until the leader finishes their wait, or promotes
them as it leaves.  A background thread leads when nobody else has for a few
milliseconds, so that replies are taken in and windows refilled while user code runs.

Invariants
    * ``lock`` guards connections and every state machine of the process.
    * Nobody holds ``lock`` while polling or sleeping.
    * User code (callbacks) runs outside ``lock``.
    * A signal may raise only in ``_poll`` and ``_sleep`` (see ``io/interrupts.py``).

The background thread is *parked* while others use the engine: it looks every
``TICK_S`` whether they still do, and sleeps for good while one thread leads for long.
"""

from __future__ import annotations

import heapq
import os
import select
import socket
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from itertools import count
from time import monotonic
from typing import Any

from shoal._core.io import interrupts
from shoal._core.io.connection import Connection
from shoal._core.wire.frame import FrameReader

TICK_S = 0.005
#: How often a process that holds references looks whether some were dropped.
HEARTBEAT_S = 0.25
_IN = select.EPOLLIN


class Waiter:
    """A thread's wait for ``missing`` things; done when all have come."""

    __slots__ = ("_sleep", "is_done", "missing")

    def __init__(self, missing: int = 1) -> None:
        self.missing = missing
        self.is_done = missing <= 0
        self._sleep: threading.Lock | None = None

    def arrived(self, _: object = None) -> None:
        """One of the things waited for is there (called under the engine's lock)."""
        self.missing -= 1
        if self.missing <= 0 and not self.is_done:
            self.is_done = True
            self.rouse()

    def rouse(self) -> None:
        """Wake the thread if it sleeps as a follower."""
        sleep = self._sleep
        if sleep is not None and sleep.locked():
            sleep.release()

    def prepare_sleep(self) -> threading.Lock:
        """The lock a follower sleeps on, held."""
        if self._sleep is None:
            self._sleep = threading.Lock()
        self._sleep.acquire(blocking=False)
        return self._sleep


class Engine:
    """Connections, timers and the threads that serve them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lock = threading.RLock()
        self.dirty: list[Connection] = []
        self.activity = 0
        #: futures of event loops wait: somebody must always lead
        self.async_waiters = 0
        #: run outside the lock after each turn
        self.callbacks: deque[Callable[[], None]] = deque()
        #: called at the end of each turn, under the lock (drains dropped refs)
        self.on_turn: Callable[[], None] | None = None
        #: whether the background thread should look in now and then though idle
        self.wants_heartbeat: Callable[[], bool] = bool
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake_fd, _IN)
        self._handlers[self._wake_fd] = self._on_wake
        self._lead = threading.Lock()
        self._followers: list[Waiter] = []
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_numbers = count()
        self._thread: threading.Thread | None = None
        self._parking = threading.Lock()
        self._parking.acquire()
        self._is_parked_for_good = False
        self._is_closed = False

    # -- connections -------------------------------------------------------------

    def add(
        self,
        sock: socket.socket,
        decode: Callable[[Any], Any],
        on_message: Callable[[Connection, Any], None],
        on_close: Callable[[Connection, str], None],
        context: Any = None,
    ) -> Connection:
        """Serve a connected stream socket."""
        connection = Connection(
            self, sock, FrameReader(decode), on_message, on_close, context
        )
        self._handlers[connection.fd] = connection.on_events
        self._epoll.register(connection.fd, _IN)
        return connection

    def listen(
        self, sock: socket.socket, on_accept: Callable[[socket.socket], None]
    ) -> None:
        """Serve a listening socket."""
        sock.setblocking(False)

        def on_events(_: int) -> None:
            try:
                accepted, _address = sock.accept()
            except BlockingIOError:
                return
            on_accept(accepted)

        self.add_reader(sock.fileno(), on_events)

    def add_reader(self, fd: int, on_events: Callable[[int], None]) -> None:
        """Serve any other descriptor that becomes readable."""
        self._handlers[fd] = on_events
        self._epoll.register(fd, _IN)

    def remove_reader(self, fd: int) -> None:
        """Serve it no longer."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def watch(self, connection: Connection, events: int) -> None:
        """Change what a connection waits for."""
        self._epoll.modify(connection.fd, events)

    def forget(self, connection: Connection) -> None:
        """Drop a connection that closes."""
        self._handlers.pop(connection.fd, None)
        if not self._is_closed:
            self._epoll.unregister(connection.fd)

    def flush(self) -> None:
        """Write what every connection has queued (called under the lock)."""
        while self.dirty:
            batch, self.dirty = self.dirty, []
            for connection in batch:
                connection.flush()

    # -- timers ------------------------------------------------------------------

    def call_at(self, when: float, action: Callable[[], None]) -> None:
        """Run ``action`` under the lock at about monotonic time ``when``."""
        heapq.heappush(self._timers, (when, next(self._timer_numbers), action))
        if self._timers[0][2] is action and self._lead.locked():
            self.wake()

    def _run_timers(self) -> None:
        timers = self._timers
        now = monotonic()
        while timers and timers[0][0] <= now:
            heapq.heappop(timers)[2]()

    def _timeout(self, deadline: float | None) -> float:
        if self._timers:
            first = self._timers[0][0]
            deadline = first if deadline is None or first < deadline else deadline
        timeout = -1.0 if deadline is None else max(0.0, deadline - monotonic())
        if not 0 <= timeout < HEARTBEAT_S and self.wants_heartbeat():
            return HEARTBEAT_S
        return timeout

    # -- turns -------------------------------------------------------------------

    def turn(self, timeout: float) -> None:
        """Poll once and handle what came.  The caller leads."""
        # A turn that does not wait is taken in the middle of other things.
        events = self._poll(timeout) if timeout else self._epoll.poll(0)
        with self.lock:
            handlers = self._handlers
            for fd, mask in events:
                handler = handlers.get(fd)
                if handler is not None:
                    try:
                        handler(mask)
                    except Exception:  # noqa: BLE001 - reported, and others go on
                        self.report_bug()
            try:
                if self._timers:
                    self._run_timers()
                if self.on_turn is not None:
                    self.on_turn()
            except Exception:  # noqa: BLE001 - reported; not of the thread that leads
                self.report_bug()
            if self.dirty:
                self.flush()
        if self.callbacks:
            self._run_callbacks()

    def _poll(self, timeout: float) -> list[tuple[int, int]]:
        return self._epoll.poll(timeout)

    def report_bug(self) -> None:
        """Tell of the exception being handled, which our own code raised."""
        # A handler must not raise; what it was doing is lost, so say so loudly
        # and go on: other work of the process is unharmed.
        sys.stderr.write(f"shoal internal error in {self.name}:\n")
        traceback.print_exc()

    def _run_callbacks(self) -> None:
        while self.callbacks:
            try:
                callback = self.callbacks.popleft()
            except IndexError:
                return
            try:
                callback()
            except Exception:  # noqa: BLE001 - reported; not of the thread that leads
                self.report_bug()

    def poll_now(self) -> None:
        """Take in what has arrived, if nobody else is doing so."""
        if self._lead.acquire(blocking=False):
            try:
                self.turn(0)
            finally:
                self._leave(promote=False)

    # -- waiting -----------------------------------------------------------------

    def wait(self, waiter: Waiter, deadline: float | None = None) -> bool:
        """Block until the waiter is done; return False at the deadline."""
        while not waiter.is_done:
            if self._lead.acquire(blocking=False):
                try:
                    if self._lead_until(waiter, deadline):
                        return waiter.is_done
                finally:
                    self._leave()
            elif self._follow(waiter, deadline):
                break
        return waiter.is_done

    def _lead_until(self, waiter: Waiter, deadline: float | None) -> bool:
        self.activity += 1
        while not waiter.is_done and not self._is_closed:
            if deadline is not None and monotonic() >= deadline:
                self.turn(0)
                return True
            if interrupts.pending:
                interrupts.check()
            self.turn(self._timeout(deadline))
        return True

    def _follow(self, waiter: Waiter, deadline: float | None) -> bool:
        """Sleep until done (True), the deadline (True), or to try to lead (False)."""
        with self.lock:
            if waiter.is_done or self._is_closed:
                return True
            sleep = waiter.prepare_sleep()
            self._followers.append(waiter)
        goes_on_to_lead = False
        try:
            if not self._lead.locked():
                goes_on_to_lead = True
                return False
            if interrupts.pending:
                interrupts.check()
            timeout = -1.0 if deadline is None else max(0.0, deadline - monotonic())
            self._sleep(sleep, timeout)
            if deadline is not None and monotonic() >= deadline:
                return True
            goes_on_to_lead = not waiter.is_done
            return waiter.is_done
        finally:
            with self.lock:
                if waiter in self._followers:
                    self._followers.remove(waiter)
                # It may have been promoted just as its time was up.
                if not goes_on_to_lead and not self._lead.locked():
                    if self._followers:
                        self._followers[0].rouse()
                    elif self._is_parked_for_good:
                        self._unpark()

    def _sleep(self, lock: threading.Lock, timeout: float) -> bool:
        return lock.acquire(timeout=timeout)

    def _leave(self, promote: bool = True) -> None:
        self._lead.release()
        self.activity += 1
        if promote and self._followers:
            with self.lock:
                if self._followers:
                    self._followers[0].rouse()
                    return
        if self._is_parked_for_good:
            self._unpark()

    # -- the background thread ---------------------------------------------------

    def start_background(self) -> None:
        """Start the thread that serves the engine while nobody else does."""
        self._thread = threading.Thread(
            target=self._background, name=f"shoal-{self.name}", daemon=True
        )
        self._thread.start()

    def _background(self) -> None:
        quiet_leader = 0
        while not self._is_closed:
            seen = self.activity
            if self.async_waiters == 0:
                if quiet_leader >= 2:
                    self._is_parked_for_good = True
                    if self._lead.locked():
                        self._parking.acquire()
                    self._is_parked_for_good = False
                    quiet_leader = 0
                else:
                    self._parking.acquire(timeout=TICK_S)
            if self._is_closed:
                return
            if self._lead.locked():
                quiet_leader = quiet_leader + 1 if self.activity == seen else 0
                if self.async_waiters:
                    self._parking.acquire(timeout=TICK_S)
                continue
            quiet_leader = 0
            if self.activity == seen or self.async_waiters:
                self._lead_in_background()

    def _lead_in_background(self) -> None:
        if not self._lead.acquire(blocking=False):
            return
        try:
            seen = self.activity
            if self.dirty:  # replies held back by a thread that runs user code
                with self.lock:
                    self.flush()
            while not self._is_closed:
                self.turn(self._timeout(None))
                if self._followers:
                    return
                if self.activity != seen and not self.async_waiters:
                    return
        finally:
            self._leave()

    def _unpark(self) -> None:
        try:
            self._parking.release()
        except RuntimeError:  # it woke by itself in between
            return

    def hurry(self) -> None:
        """Make the background thread look now (an event loop begins to wait)."""
        self._unpark()
        self.wake()

    def wake(self) -> None:
        """Make the leader return from its poll."""
        os.eventfd_write(self._wake_fd, 1)

    def _on_wake(self, _: int) -> None:
        try:
            os.eventfd_read(self._wake_fd)
        except BlockingIOError:
            return

    def connections(self) -> list[Connection]:
        """The connections that are open."""
        owners = [getattr(one, "__self__", None) for one in self._handlers.values()]
        return [one for one in owners if isinstance(one, Connection)]

    def abandon(self) -> None:
        """In a forked child: close the copies of what the parent goes on serving.

        Nothing is unregistered, as the child's epoll instance is the parent's.  The
        parent's threads are not here, but what they had locked is.
        """
        self._is_closed = True
        self.lock = threading.RLock()
        self._lead = threading.Lock()
        self._thread = None
        for connection in self.connections():
            connection.is_open = False
            connection.sock.close()
        self._handlers.clear()
        self._followers.clear()
        self._timers.clear()
        self.dirty.clear()
        self.callbacks.clear()
        self._epoll.close()
        os.close(self._wake_fd)

    def close(self) -> None:
        """Stop serving; wakes every thread that waits."""
        with self.lock:
            if self._is_closed:
                return
            self._is_closed = True
            for waiter in list(self._followers):
                waiter.rouse()
        self.wake()
        self._unpark()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=5)
        # Another thread may lead: it looks up now, and must not find these closed.
        is_mine = self._lead.acquire(timeout=1)
        self._epoll.close()
        os.close(self._wake_fd)
        if is_mine:
            self._lead.release()

    @property
    def is_closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._is_closed


interrupts.interruptible(Engine._poll)
interrupts.interruptible(Engine._sleep)
