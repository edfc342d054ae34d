"""What workers print: from their pipes to log files and to the driver."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from shoal._core.io.engine import Engine
from shoal._core.io.logs import LogFile, LogLine, LogPipe

READ_BYTES = 64 * 1024
OutputLine = tuple[str, int, bool, str, bool]


class _Stream:
    """One pipe of one worker."""

    __slots__ = ("fd", "file", "is_error", "pid", "pipe", "worker_id")

    def __init__(
        self, worker_id: bytes, fd: int, file: LogFile, *, is_error: bool
    ) -> None:
        self.worker_id = worker_id
        self.fd = fd
        self.file = file
        self.is_error = is_error
        self.pid = 0
        self.pipe = LogPipe()


class WorkerOutput:
    """The output of all workers of a node."""

    def __init__(
        self,
        engine: Engine,
        folder: str,
        show: Callable[[bytes, list[OutputLine]], None],
    ) -> None:
        self._engine = engine
        self._folder = folder
        self._show = show
        self._streams: dict[bytes, list[_Stream]] = {}
        os.makedirs(folder, mode=0o700, exist_ok=True)

    def open(self, worker_id: bytes) -> list[int]:
        """Make a worker's pipes; returns the ends it writes to (out, error)."""
        write_ends = []
        streams = self._streams[worker_id] = []
        for is_error, suffix in ((False, "out"), (True, "err")):
            read_end, write_end = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(read_end, False)
            path = Path(self._folder, f"worker-{worker_id.hex()}.{suffix}")
            stream = _Stream(worker_id, read_end, LogFile(path), is_error=is_error)
            streams.append(stream)
            write_ends.append(write_end)
            self._engine.add_reader(read_end, partial(self._on_readable, stream))
        return write_ends

    def know_pid(self, worker_id: bytes, pid: int) -> None:
        """The worker's process id, for the prefix."""
        for stream in self._streams.get(worker_id, ()):
            stream.pid = pid

    def _on_readable(self, stream: _Stream, _events: int) -> None:
        self._read(stream)

    def _read(self, stream: _Stream) -> bool:
        try:
            data = os.read(stream.fd, READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._engine.remove_reader(stream.fd)
            return False
        self._pass_on(stream, stream.pipe.feed(data))
        return True

    def _pass_on(self, stream: _Stream, lines: list[LogLine]) -> None:
        if not lines:
            return
        stream.file.append_lines(lines)
        self._show(
            stream.worker_id,
            [
                (line.name, stream.pid, stream.is_error, line.text, line.is_overwritten)
                for line in lines
            ],
        )

    def tick(self, _now: float) -> None:
        """Show lines that rest unfinished, such as a progress bar's."""
        for worker_id, streams in self._streams.items():
            for stream in streams:
                line = stream.pipe.open_line()
                if line is not None:
                    self._show(
                        worker_id,
                        [(line.name, stream.pid, stream.is_error, line.text, True)],
                    )

    def close(self, worker_id: bytes) -> None:
        """A worker ended: take its last words."""
        for stream in self._streams.pop(worker_id, ()):
            while self._read(stream):
                continue
            self._pass_on(stream, stream.pipe.end())
            self._engine.remove_reader(stream.fd)
            os.close(stream.fd)

    def drain(self) -> None:
        """The session ends: take everybody's last words."""
        for worker_id in list(self._streams):
            self.close(worker_id)
