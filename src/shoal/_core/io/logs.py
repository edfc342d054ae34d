"""Output of workers: marked by its writer, taken apart by the daemon, kept in files.

Theory.  A worker's standard output and error are pipes that its node daemon reads,
so everything written to them arrives, be it from Python, C or a child process.  What
a pipe does not say is which task wrote; so the worker's text stream writes a short
*marker* with the task's or actor's name before its text whenever that name differs
from the last one it marked.  The daemon strips the markers, cuts the bytes into lines
and sends them to the driver (`driver_output` shows them); it also keeps them in one
file per worker and stream.

A line that ends with a carriage return is a progress bar in motion: the next line
overwrites it.  It is passed on as such, so that a terminal can show one moving bar.

Invariants: writes of up to `PIPE_BUF` bytes are whole (the kernel promises it), and
longer ones are cut at line ends where there are some; no byte is lost between the
pieces; the parser's memory is bounded by its longest line.

What it does not do: no event loop, no descriptors of its own, no colours.
"""

from __future__ import annotations

import io
import os
import re
import select
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["LogFile", "LogLine", "LogPipe", "TaskStream"]

_MARKER_START: Final = b"\x1eshoal\x1f"
_MARKER_NAME_BYTES_MAX: Final = 256
_MARKER_BYTES_MAX: Final = len(_MARKER_START) + _MARKER_NAME_BYTES_MAX + 1
_NOT_IN_A_NAME: Final = re.compile(r"[\x00-\x1f\x7f]+")
_MARKER_OR_LINE_END: Final = re.compile(
    re.escape(_MARKER_START) + rb"[^\n\x1e]{0,%d}\n|\r\n|\n|\r" % _MARKER_NAME_BYTES_MAX
)


class _MarkedWriter(io.BufferedIOBase):
    """Bytes to a pipe, with a marker when the name of the writer has changed.

    It takes no lock: a lock would have to be repaired after a fork and would hang a
    signal handler that prints.  Two threads that change the name in the same instant
    may mix up whose line it was, nothing worse.
    """

    def __init__(self, fd: int, current_name: Callable[[], str], name: str) -> None:
        self._fd = fd
        self._current_name = current_name
        self._marked_name: str | None = None
        self.name = name
        self.mode = "wb"

    def forget_marker(self) -> None:
        """Write a marker before the next bytes, whatever the name is."""
        self._marked_name = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return False

    def write(  # type: ignore[override]
        self, data: bytes | bytearray | memoryview, /
    ) -> int:
        """Write all of a bytes-like object; returns its length."""
        if self.closed:
            raise ValueError("write to a closed stream")
        view = memoryview(data).cast("B")
        if not view.nbytes:
            return 0
        name = self._current_name()
        marker = b"" if name == self._marked_name else _marker(name)
        # The name counts as marked once the bytes are out: an interrupted write
        # (Ctrl-C, cancellation) may leave the marker cut, and the next one repairs it.
        self._marked_name = None
        for piece in _pieces(marker, view):
            _write_all(self._fd, piece)
        self._marked_name = name
        return view.nbytes


class TaskStream(io.TextIOWrapper):
    """What `sys.stdout` and `sys.stderr` are in a worker.

    A line-buffered text stream over a descriptor that it does not own, with
    everything a text file has: `buffer` for bytes, `fileno`, `reconfigure`.  What
    can't be encoded is written as an escape, because output must not fail a task.
    Text without an end of line stays in the buffer until the next one: call `flush`
    when a task ends.

    Args:
        fd: where to write: the pipe that the node daemon reads.
        current_name: gives the name of the task or actor that runs now, or "".
        name: what `stream.name` says, such as "<stdout>".
    """

    def __init__(
        self, fd: int, current_name: Callable[[], str], name: str = "<stdout>"
    ) -> None:
        self._writer = _MarkedWriter(fd, current_name, name)
        super().__init__(
            self._writer,
            encoding="utf-8",
            errors="backslashreplace",
            newline="\n",
            line_buffering=True,
        )
        _open_streams.add(self)


_open_streams: weakref.WeakSet[TaskStream] = weakref.WeakSet()


def _before_fork() -> None:
    # A line that is half written would come out twice, once from each process.
    for stream in list(_open_streams):
        if not stream.closed:
            stream.flush()


def _after_fork_in_child() -> None:
    # The parent goes on to other tasks without our markers, and we without its.
    for stream in list(_open_streams):
        stream._writer.forget_marker()


os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)


def _marker(name: str) -> bytes:
    clean = _NOT_IN_A_NAME.sub(" ", name).encode("utf-8", "replace")
    return _MARKER_START + clean[:_MARKER_NAME_BYTES_MAX] + b"\n"


def _pieces(marker: bytes, data: memoryview) -> Iterable[memoryview]:
    """Cut marker and data into pieces of at most PIPE_BUF bytes at line ends.

    A line longer than that is one piece: cutting it would not make it whole.
    """
    if len(marker) + data.nbytes <= select.PIPE_BUF:
        yield memoryview(marker + data) if marker else data
        return
    rest = marker + data.tobytes()
    start = 0
    while len(rest) - start > select.PIPE_BUF:
        end = rest.rfind(b"\n", start + len(marker), start + select.PIPE_BUF) + 1
        if end == 0:
            end = rest.find(b"\n", start + len(marker)) + 1
        if end == 0:
            break
        marker = b""
        yield memoryview(rest)[start:end]
        start = end
    if start < len(rest):
        yield memoryview(rest)[start:]


def _write_all(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]


class LogLine(NamedTuple):
    """One line of a worker's output.

    Attributes:
        name: the task or actor that was marked last; empty when none was.
        text: the line without its end.
        is_overwritten: it ended with a carriage return, as a progress bar does: the
            next line takes its place.
    """

    name: str
    text: str
    is_overwritten: bool


class LogPipe:
    """Cuts the bytes of one worker stream into lines.

    Args:
        line_bytes_max: longer lines are passed on in parts of this size, so that
            a program that never ends its line cannot fill the daemon's memory.

    Raises:
        ValueError: line_bytes_max below 4, which is one character.
    """

    __slots__ = (
        "_last_overwritten",
        "_line_bytes_max",
        "_name",
        "_open",
        "_partial",
        "_told_bytes",
    )

    def __init__(self, line_bytes_max: int = 64 * 1024) -> None:
        if line_bytes_max < 4:
            raise ValueError(f"line_bytes_max must be 4 or more, not {line_bytes_max}")
        self._line_bytes_max = line_bytes_max
        self._name = ""
        self._open = b""  # text of the line that has not ended
        self._told_bytes = 0  # of it, when `open_line` was last asked
        self._partial = b""  # what may become a marker when more bytes come
        # The text of a line whose "\r" ended the bytes we had: if "\n" comes first
        # now, it was an ordinary line after all.
        self._last_overwritten: str | None = None

    def feed(self, data: bytes) -> list[LogLine]:
        """Take in bytes as they were read; returns the lines that they complete."""
        lines: list[LogLine] = []
        if self._last_overwritten is not None and data:
            if data.startswith(b"\n"):
                lines.append(LogLine(self._name, self._last_overwritten, False))
                data = data[1:]
            self._last_overwritten = None
        data = self._partial + data
        position = 0
        for match in _MARKER_OR_LINE_END.finditer(data):
            self._extend(data[position : match.start()], lines)
            position = match.end()
            end = match.group()
            if end.startswith(_MARKER_START):
                self._on_marker(end, lines)
            elif end == b"\r":
                self._on_carriage_return(position == len(data), lines)
            else:
                self._end_line(False, lines)
        rest = data[position:]
        marker_at = _partial_marker_start(rest)
        self._partial = rest[marker_at:]
        self._extend(rest[:marker_at], lines)
        return lines

    def open_line(self) -> LogLine | None:
        """The line that has not ended, if it is longer than when last asked.

        It stays open: when it ends, it comes again from `feed`, whole.  For lines
        that rest for a while, such as a prompt or a bar that writes "\\r" first.
        """
        if len(self._open) == self._told_bytes:
            return None
        self._told_bytes = len(self._open)
        return LogLine(self._name, self._open.decode("utf-8", "replace"), True)

    def end(self) -> list[LogLine]:
        """The stream has ended: returns the open line, if there is one."""
        lines: list[LogLine] = []
        if self._open:
            self._end_line(False, lines)
        self._partial = b""
        return lines

    def _on_marker(self, marker: bytes, lines: list[LogLine]) -> None:
        name = marker[len(_MARKER_START) : -1].decode("utf-8", "replace")
        # What another task left without an end of line stays that task's line; the
        # same name again, as after a fork, changes nothing.
        if name != self._name and self._open:
            self._end_line(False, lines)
        self._name = name

    def _on_carriage_return(self, is_last: bool, lines: list[LogLine]) -> None:
        # Bars begin with "\r" as often as they end with it: nothing is before it.
        if self._open:
            self._end_line(True, lines)
            if is_last:
                self._last_overwritten = lines[-1].text

    def _end_line(self, is_overwritten: bool, lines: list[LogLine]) -> None:
        text = self._open.decode("utf-8", "replace")
        lines.append(LogLine(self._name, text, is_overwritten))
        self._open = b""
        self._told_bytes = 0

    def _extend(self, text: bytes, lines: list[LogLine]) -> None:
        """Lengthen the open line; full parts of one that is too long are passed on."""
        text = self._open + text
        start, size = 0, self._line_bytes_max
        while len(text) - start > size:
            end = start + size
            # Not inside a character: its further bytes all look like 0b10xxxxxx.
            while end > start + size - 3 and text[end] & 0xC0 == 0x80:
                end -= 1
            part = text[start:end].decode("utf-8", "replace")
            lines.append(LogLine(self._name, part, False))
            start = end
        self._open = text[start:]
        if start:
            self._told_bytes = 0


def _partial_marker_start(data: bytes) -> int:
    """Where a marker that has not ended begins in `data`; its length if nowhere."""
    start = data.rfind(b"\x1e")
    if start < 0 or len(data) - start >= _MARKER_BYTES_MAX:
        return len(data)
    rest = data[start:]
    if rest.startswith(_MARKER_START) or _MARKER_START.startswith(rest):
        return start
    return len(data)


class LogFile:
    """A file of lines that moves aside when it is full: `x.log`, `x.log.1`, ….

    It is opened for each append, so that hundreds of workers hold no descriptors.
    A disk that is full or gone must not end the daemon: what can't be written is
    counted, and said in the file as soon as it can be written again.

    Args:
        path: the newest file; its folder exists.
        max_bytes: a file that would grow beyond it is moved aside first.
        backup_count: how many files are kept besides the newest; the oldest goes.

    Raises:
        ValueError: max_bytes below 1 or backup_count below 0.
    """

    __slots__ = ("_backup_count", "_max_bytes", "_path", "lost_bytes")

    def __init__(
        self, path: Path, *, max_bytes: int = 100_000_000, backup_count: int = 5
    ) -> None:
        if max_bytes < 1 or backup_count < 0:
            raise ValueError(
                "max_bytes must be at least 1 and backup_count at least 0, not "
                f"{max_bytes} and {backup_count}"
            )
        self._path = path
        self._max_bytes = max_bytes
        self._backup_count = backup_count
        self.lost_bytes = 0
        """Bytes that could not be written and are not yet told of in the file."""

    @property
    def path(self) -> Path:
        """The newest file; it exists once something was appended."""
        return self._path

    def append_lines(self, lines: Iterable[LogLine]) -> None:
        """Append lines as they were printed, without their markers."""
        self.append(
            "".join(
                line.text + ("\r" if line.is_overwritten else "\n") for line in lines
            ).encode("utf-8", "replace")
        )

    def append(self, data: bytes) -> None:
        """Append bytes; on an error of the disk they are counted as lost."""
        if not data:
            return
        notice = b""
        if self.lost_bytes:
            notice = f"[shoal: {self.lost_bytes} bytes of output lost]\n".encode()
        try:
            self._write(notice + data)
        except OSError:
            self.lost_bytes += len(data)
        else:
            self.lost_bytes = 0

    def _write(self, data: bytes) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        fd = os.open(self._path, flags, 0o600)
        try:
            size = os.fstat(fd).st_size
            if size and size + len(data) > self._max_bytes:
                self._move_aside()
                os.close(fd)
                fd = os.open(self._path, flags, 0o600)
            _write_all(fd, memoryview(data))
        finally:
            os.close(fd)

    def _move_aside(self) -> None:
        if not self._backup_count:
            os.unlink(self._path)
            return
        for number in range(self._backup_count, 0, -1):
            older = self._backup(number)
            newer = self._backup(number - 1)
            if newer.exists():
                os.replace(newer, older)

    def _backup(self, number: int) -> Path:
        if not number:
            return self._path
        return self._path.with_name(f"{self._path.name}.{number}")
