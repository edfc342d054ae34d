"""Programs of their own that a test starts, hears and tells to go on."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import shoal as ray
from shoal._core.process.session import current

ROOT = Path(__file__).resolve().parents[2]

PREAMBLE = """
import os, sys
import numpy as np
import shoal as ray
from shoal.util import placement_group

def say(*words):
    print(*words, flush=True)

def wait():
    sys.stdin.readline()

"""


def eventually(holds: Callable[[], bool], why: str, timeout_s: float = 20) -> None:
    """Poll until something holds."""
    deadline = monotonic() + timeout_s
    while not holds():
        assert monotonic() < deadline, why
        sleep(0.01)


class Program:
    """Another program, which says lines and goes on when it is told to."""

    def __init__(self, source: str, cwd: Path | None = None, **variables: str) -> None:
        path = str(ROOT / "src")
        self.process = subprocess.Popen(
            [sys.executable, "-c", PREAMBLE + textwrap.dedent(source)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env=os.environ | {"PYTHONPATH": path} | variables,
        )

    def hear(self) -> str:
        """The next line that it says."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.finish()
        return line.strip()

    def go_on(self) -> None:
        """End its ``wait()``."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def finish(self) -> tuple[str, str]:
        """Wait for its end; what it said that nobody heard: output and errors."""
        return self.process.communicate(timeout=30)


def workers_of(job_id: str) -> list[dict[str, Any]]:
    return [one for one in current.session.query("workers") if one["job_id"] == job_id]


def stored_objects() -> int:
    return int(current.session.query("store")["object_count"])


@ray.remote
class Shelf:
    """Keeps what it is given, also refs."""

    def __init__(self) -> None:
        self.things: dict[str, Any] = {}

    def put(self, name: str, thing: Any) -> None:
        self.things[name] = thing

    def take(self, name: str) -> Any:
        return self.things.pop(name)
