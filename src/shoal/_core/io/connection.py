"""A socket with frames on it, served by an engine.

Writing gathers: what is sent during a turn of the engine leaves in one system call at
its end.  What the socket does not take waits here, and goes on when poll says so.

::

    open --close, hang-up, error, bad frame--> closed (told once, with the reason)

All of it happens under the lock of the engine.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import Any, Protocol

from shoal._core.wire.frame import FrameError, FrameReader, encode

RECEIVE_BYTES = 256 * 1024
_IN, _OUT = select.EPOLLIN, select.EPOLLOUT


class ConnectionPort(Protocol):
    """What a connection needs of the engine that serves it."""

    #: those with something to write at the end of the turn
    dirty: list[Connection]

    def watch(self, connection: Connection, events: int) -> None:
        """Change what it waits for."""

    def forget(self, connection: Connection) -> None:
        """Serve it no longer."""

    def report_bug(self) -> None:
        """Tell of the exception being handled, which our own code raised."""


class Connection:
    """A non-blocking stream socket with frames on it."""

    __slots__ = (
        "_engine",
        "_out",
        "_reader",
        "_waits_to_write",
        "context",
        "fd",
        "is_dirty",
        "is_open",
        "on_close",
        "on_message",
        "sock",
    )

    def __init__(
        self,
        engine: ConnectionPort,
        sock: socket.socket,
        reader: FrameReader,
        on_message: Callable[[Connection, Any], None],
        on_close: Callable[[Connection, str], None],
        context: Any = None,
    ) -> None:
        sock.setblocking(False)
        self._engine = engine
        self.sock = sock
        self.fd = sock.fileno()
        self._reader = reader
        self._out: list[bytes] = []
        self._waits_to_write = False
        self.is_dirty = False
        self.is_open = True
        self.on_message = on_message
        self.on_close = on_close
        self.context = context

    def send(self, message: object) -> None:
        """Queue a message; it leaves at the next flush (the end of this turn)."""
        self.send_frame(encode(message))

    def send_frame(self, frame: bytes) -> None:
        """Queue bytes that are whole frames already."""
        self._out.append(frame)
        if not self.is_dirty:
            self.is_dirty = True
            self._engine.dirty.append(self)

    def flush(self) -> None:
        """Write what is queued, as far as the socket takes it."""
        self.is_dirty = False
        if not self.is_open or not self._out or self._waits_to_write:
            return
        self._write()

    def _write(self) -> None:
        out = self._out
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            # The other side is gone.  What it said last is still to be read, and the
            # end comes after that: write no more, and wait for it.
            self._waits_to_write = True
            return
        if sent < len(data):
            out.append(data[sent:])
            if not self._waits_to_write:
                self._waits_to_write = True
                self._engine.watch(self, _IN | _OUT)
        elif self._waits_to_write:
            self._waits_to_write = False
            self._engine.watch(self, _IN)

    @property
    def unsent_bytes(self) -> int:
        """Bytes queued that the socket has not taken yet."""
        return sum(map(len, self._out))

    def on_events(self, events: int) -> None:
        """Handle what poll reported: read first, then go on writing."""
        if events & ~_OUT:
            self._read()
        if events & _OUT and self.is_open and self._waits_to_write:
            self._write()

    def _read(self) -> None:
        try:
            data = self.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self.close(f"cannot read: {error.strerror or error}")
            return
        if not data:
            self.close("the other side hung up")
            return
        try:
            messages = self._reader.feed(data)
        except FrameError as error:
            self.close(str(error))
            return
        on_message = self.on_message
        for message in messages:
            if not self.is_open:  # what came before made us hang up
                return
            try:
                on_message(self, message)
            except Exception:  # noqa: BLE001 - reported, and those behind it go on
                self._engine.report_bug()

    def close(self, reason: str) -> None:
        """Hang up, and tell the owner of the connection why."""
        if not self.is_open:
            return
        self.is_open = False
        self._engine.forget(self)
        self.sock.close()
        self.on_close(self, reason)
