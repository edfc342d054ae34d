"""Driver programs run as processes of their own, and what they leave behind.

A program is found again by a mark in its environment, which every process of its
session inherits, whoever becomes its parent.  Each has a temporary directory of its
own, so that what is in there is its own doing.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import TypeVar

import psutil

SOURCES = Path(__file__).resolve().parents[2] / "src"
MARK = "SHOAL_FAULT_TEST"
PATIENCE_S = 20.0
#: What is promised: after a kill nothing is left within this time.
GONE_S = 2.0

PREAMBLE = """
import os, signal, subprocess, sys, threading, time
import shoal as ray

def say(*words):
    print(*words, flush=True)

def busy_with(path):
    # Starts a process of its own, tells both ids, and does not come back.
    import pathlib
    child = subprocess.Popen(["sleep", "1000"])
    part = pathlib.Path(path + ".part")
    part.write_text(f"{os.getpid()} {child.pid}")
    part.rename(path)
    time.sleep(1000)

"""

T = TypeVar("T")


def eventually(
    what: Callable[[], T], why: str, timeout_s: float = PATIENCE_S, *, since: float = 0
) -> T:
    """Poll until ``what`` returns something true; returns that.

    ``since``: when the time began to run (monotonic); now, if it is 0.
    """
    deadline = (since or monotonic()) + timeout_s
    while True:
        found = what()
        if found:
            return found
        assert monotonic() < deadline, why
        sleep(0.005)


def is_running(pid: int) -> bool:
    """Whether a process is there and not just waiting to be reaped."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Program:
    """A driver program, started, with its output as lines."""

    def __init__(
        self,
        source: str,
        *,
        preamble: str = PREAMBLE,
        modules: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        folder: Path | None = None,
    ) -> None:
        """Start it.

        Args:
            source: what it does, after the preamble.
            preamble: what comes before that.
            modules: source by name of what it can import.
            prefix: a command that runs the interpreter.
            folder: its temporary directory; None makes one.
        """
        self.mark = uuid.uuid4().hex
        self.folder = folder or Path(tempfile.mkdtemp(prefix="f"))
        script = self.folder / "program.py"
        script.write_text(preamble + textwrap.dedent(source))
        for name, text in (modules or {}).items():
            (self.folder / f"{name}.py").write_text(textwrap.dedent(text))
        self._errors = (self.folder / "errors").open("w+b")
        variables = {
            **os.environ,
            MARK: self.mark,
            "TMPDIR": str(self.folder),
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(SOURCES), os.environ.get("PYTHONPATH")])
            ),
        }
        self.process = subprocess.Popen(
            [*prefix, sys.executable, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=variables,
            start_new_session=True,
        )
        self._unread = b""

    # -- talking -----------------------------------------------------------------

    def hear(self, timeout_s: float = PATIENCE_S) -> str:
        """The next line it prints.

        Raises:
            AssertionError: it printed none in time, or ended.
        """
        assert self.process.stdout is not None
        deadline = monotonic() + timeout_s
        fd = self.process.stdout.fileno()
        while b"\n" not in self._unread:
            left = deadline - monotonic()
            ready = left > 0 and select.select([fd], [], [], left)[0]
            assert ready, f"it said nothing for {timeout_s} s\n{self.errors()}"
            more = os.read(fd, 65536)
            assert more, f"it ended, and said nothing more\n{self.errors()}"
            self._unread += more
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def expect(self, line: str) -> None:
        """Check that the next line is this one."""
        heard = self.hear()
        assert heard == line, f"{heard!r} instead of {line!r}\n{self.errors()}"

    def tell(self, line: str = "") -> None:
        """Write a line to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def errors(self) -> str:
        """What it wrote to standard error so far."""
        return (self.folder / "errors").read_text(errors="replace")

    def exit_code(self, timeout_s: float = PATIENCE_S) -> int:
        """Wait for its end."""
        return self.process.wait(timeout_s)

    # -- signals -----------------------------------------------------------------

    def kill(self, number: int = signal.SIGKILL) -> float:
        """Send it a signal; returns when."""
        self.process.send_signal(number)
        return monotonic()

    def press_ctrl_c(self) -> float:
        """What a terminal does: SIGINT for its whole process group; returns when."""
        os.killpg(self.process.pid, signal.SIGINT)
        return monotonic()

    # -- its processes -----------------------------------------------------------

    def session_dirs(self) -> list[Path]:
        """Directories of its sessions, dead or alive."""
        return list(self.folder.glob("shoal-*/*"))

    def processes(self) -> list[psutil.Process]:
        """All that runs on its behalf, except itself."""
        found = []
        for process in psutil.process_iter():
            try:
                if (
                    process.pid != self.process.pid
                    and process.environ().get(MARK) == self.mark
                    and process.status() != psutil.STATUS_ZOMBIE
                ):
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def daemon(self) -> psutil.Process:
        """Its node daemon."""
        return psutil.Process(self.process.pid).children()[0]

    def fork_server(self) -> psutil.Process:
        """The fork server of its session."""
        return self.daemon().children()[0]

    def workers(self) -> list[psutil.Process]:
        """The workers of its session."""
        return self.fork_server().children()

    def what_is_left(self) -> str:
        """Processes and files of its sessions; empty when there are none.

        Shared memory has no name anywhere: it is there as long as a process has it.
        """
        left = [f"process {process}" for process in self.processes()]
        left += [f"directory {path}" for path in self.session_dirs()]
        return "\n".join(left)

    def check_nothing_left(self, since: float = 0, within_s: float = GONE_S) -> None:
        """Assert that its sessions are gone without a trace, soon after ``since``."""
        deadline = (since or monotonic()) + within_s
        while self.what_is_left():
            assert monotonic() < deadline, (
                f"left after {within_s} s:\n{self.what_is_left()}\n{self.errors()}"
            )
            sleep(0.01)

    def close(self) -> None:
        """End all of it, for the next test's sake."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for process in self.processes():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        for stream in (self.process.stdin, self.process.stdout, self._errors):
            assert stream is not None
            try:
                stream.close()
            except BrokenPipeError:  # it never read what it was told
                continue
        shutil.rmtree(self.folder, ignore_errors=True)
