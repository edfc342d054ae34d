"""The implementation under test, and what tests use to stay deterministic.

The same test files run on shoal and on Ray.  ``SHOAL_CONFORMANCE_IMPL`` says
which: ``shoal`` (the default) or ``ray``.  Tests write
``from conformance_impl import ray`` and never import either package by name;
a submodule that is not imported here comes from ``submodule("util.queue")``.

Workers import this module too, because functions of a test module are pickled by
reference, so it must stay importable without pytest.

No test sleeps to let something happen.  A task is held with a ``Gate`` (a file
that the task waits for), what ran is written to a ``Journal`` (a file with one line
per entry, appended atomically), and anything that becomes true in its own time is
waited for with ``eventually``.  They work through the file system so that a test of
tasks does not depend on actors.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

IMPL = os.environ.get("SHOAL_CONFORMANCE_IMPL", "shoal")
if IMPL not in ("shoal", "ray"):
    raise RuntimeError(f"SHOAL_CONFORMANCE_IMPL is {IMPL!r}, expected 'shoal' or 'ray'")
IS_RAY = IMPL == "ray"


def submodule(name: str) -> ModuleType:
    """Import a submodule of the implementation, as in ``submodule("util.queue")``."""
    return importlib.import_module(f"{IMPL}.{name}")


# Typed as Any: the tests check behaviour, among it calls that a type checker refuses.
ray: Any = importlib.import_module(IMPL)
for _name in ("exceptions", "util", "actor"):
    submodule(_name)


def eventually(
    predicate: Callable[[], object], timeout_s: float = 10.0, why: str = ""
) -> Any:
    """Poll until `predicate` is truthy and return its value; fail at the deadline."""
    deadline = time.monotonic() + timeout_s
    while not (value := predicate()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not true within {timeout_s} s: {why or predicate}")
        time.sleep(0.01)
    return value


@dataclass(frozen=True)
class Gate:
    """A door between processes: `wait` returns once somebody has called `open`."""

    path: str

    def open(self) -> None:
        Path(self.path).touch()

    def is_open(self) -> bool:
        return os.path.exists(self.path)

    def wait(self, timeout_s: float = 30.0) -> None:
        eventually(self.is_open, timeout_s, f"gate {self.path} opened")


@dataclass(frozen=True)
class Journal:
    """An append-only list of lines that any process may write to."""

    path: str

    def add(self, entry: object) -> int:
        """Append one line; return how many lines there are now."""
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(fd, f"{entry}\n".encode())
        finally:
            os.close(fd)
        return len(self.read())

    def read(self) -> list[str]:
        if not os.path.exists(self.path):
            return []
        return Path(self.path).read_text().splitlines()


PRELUDE = "from conformance_impl import IMPL, ray\n"


def driver_environment(**extra: str) -> dict[str, str]:
    """Environment in which a program of its own finds the implementation."""
    import_path = [str(Path(__file__).parent), *filter(None, sys.path)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(import_path), **extra}


def run_driver(
    source: str, folder: Path, *, timeout_s: float = 50.0, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run `source` as the main script of a new process and return what it said.

    ``ray`` is imported for it.  The process is killed when `timeout_s` is over.
    """
    script = folder / "driver_program.py"
    script.write_text(PRELUDE + source)
    return subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env=driver_environment(**env),
        cwd=folder,
        check=False,
    )
