"""What workers print arrives in the driver, with a prefix that says from whom.

The claims are those of Ray's page on logging: stdout goes to the driver's stdout and
stderr to its stderr, each line begins with the name of the task or actor and the
process id, and lines that many workers print alike are shown once with a count.
Colours are not part of the contract and are taken off before comparing.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from conformance_impl import PRELUDE, driver_environment, eventually

START_S = 40
ARRIVES_S = 15
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
INIT = """
import os, sys, logging
ray.init(address="local", num_cpus=4, include_dashboard=False{options})
"""
# The program stays until the test has seen what it waited for.
STAY = """
print("driver is done", flush=True)
sys.stdin.read()
"""
TALKERS = """
@ray.remote
def speak():
    print("a line of a task")
    print("a line for stderr", file=sys.stderr)
    print("two\\nlines")
    for _ in range(3):
        print("again and again")
    logging.getLogger("conformance").warning("a logged warning")
    return os.getpid()

@ray.remote
def other():
    print("a line of a named task")
    return os.getpid()

@ray.remote
class Plain:
    def speak(self):
        print("a line of an actor")
        return os.getpid()

@ray.remote
class Shown:
    def __init__(self, number):
        self.number = number
    def __repr__(self):
        return f"Shown-{self.number}"
    def speak(self):
        print("a line of a shown actor")
        return os.getpid()

plain, shown = Plain.remote(), Shown.remote(7)
pids = ray.get([
    speak.remote(), other.options(name="renamed").remote(),
    plain.speak.remote(), shown.speak.remote(),
])
print("PIDS", *pids, flush=True)
"""
FLOOD = """
@ray.remote
def same(entered, gate):
    entered.open()
    gate.wait()
    print("all alike", flush=True)
    return os.getpid()

from conformance_impl import Gate, eventually
folder = os.getcwd()
gate = Gate(folder + "/gate")
entered = [Gate(f"{folder}/{i}") for i in range(4)]
refs = [same.remote(mine, gate) for mine in entered]
eventually(lambda: all(mine.is_open() for mine in entered), 30)
gate.open()
assert len(set(ray.get(refs))) == 4
"""


class Driver:
    """A running driver program and what it has printed so far, colours removed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._read: dict[str, list[str]] = {"out": [], "err": []}
        self._threads = [
            threading.Thread(target=self._collect, args=(name, stream))
            for name, stream in (("out", process.stdout), ("err", process.stderr))
        ]
        for thread in self._threads:
            thread.start()
        self._process = process

    def _collect(self, name: str, stream: IO[str]) -> None:
        for line in stream:
            self._read[name].append(COLOUR.sub("", line.rstrip("\n")))

    def lines(self, name: str = "out") -> list[str]:
        return list(self._read[name])

    def wait_for(
        self, pattern: str, name: str = "out", timeout_s: float = ARRIVES_S
    ) -> re.Match[str]:
        """Wait for a line that the pattern matches as a whole; return the match."""

        def search() -> re.Match[str] | None:
            matches = (re.fullmatch(pattern, line) for line in self.lines(name))
            return next(filter(None, matches), None)

        why = f"line {pattern!r} in std{name}; process {self._process.poll()}"
        try:
            return eventually(search, timeout_s, why)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._read}") from None

    def finish(self) -> None:
        """Let the program end and read what it still says."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(START_S)
        finally:
            self._process.kill()
            for thread in self._threads:
                thread.join()


@contextmanager
def driver(
    source: str, folder: Path, options: str = "", **env: str
) -> Iterator[Driver]:
    """Run a program and hand it out once it has come to its end and waits."""
    script = folder / "talking_driver.py"
    script.write_text(PRELUDE + INIT.format(options=options) + source + STAY)
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=driver_environment(**env),
        cwd=folder,
    )
    running = Driver(process)
    try:
        running.wait_for("driver is done", timeout_s=START_S)
        yield running
    finally:
        running.finish()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """One driver whose tasks and actors say something in every way."""
    with driver(TALKERS, tmp_path_factory.mktemp("talk")) as running:
        yield running


def pid_of(talk: Driver, index: int) -> str:
    return talk.wait_for("PIDS .*").group().split()[1 + index]


@pytest.mark.parametrize(
    ("index", "name", "line"),
    [
        (0, "speak", "a line of a task"),
        (1, "renamed", "a line of a named task"),
        (2, "Plain", "a line of an actor"),
        (3, "Shown-7", "a line of a shown actor"),
    ],
    ids=["task", "named task", "actor", "actor with repr"],
)
def test_prefix(talk: Driver, index: int, name: str, line: str) -> None:
    """Each line has the prefix (name pid=...): task, task name, class or repr."""
    talk.wait_for(re.escape(f"({name} pid={pid_of(talk, index)}) {line}"))


def test_stderr_goes_to_stderr(talk: Driver) -> None:
    """What a worker writes to stderr is in the driver's stderr, not its stdout."""
    talk.wait_for(r"\(speak pid=\d+\) a line for stderr", "err")
    assert not any("a line for stderr" in line for line in talk.lines("out"))


def test_logging_of_workers(talk: Driver) -> None:
    """Python's logging writes warnings to stderr, so they arrive there."""
    talk.wait_for(r"\(speak pid=\d+\) .*a logged warning", "err")


def test_every_line_has_its_prefix(talk: Driver) -> None:
    """Text of several lines is prefixed line by line."""
    for line in ("two", "lines"):
        talk.wait_for(rf"\(speak pid=\d+\) {line}")


def test_one_source_may_repeat_itself(talk: Driver) -> None:
    """Equal lines of one worker are all shown."""

    def shown() -> int:
        return sum("again and again" in line for line in talk.lines())

    eventually(lambda: shown() == 3, ARRIVES_S)


def test_log_to_driver_off(tmp_path: Path) -> None:
    """log_to_driver=False keeps the output of workers out of the driver."""
    with driver(TALKERS, tmp_path, options=", log_to_driver=False") as running:
        pass
    assert not any("a line of" in line for line in running.lines())
    assert not any("a line for" in line for line in running.lines("err"))


def test_equal_lines_of_many_workers_are_folded(tmp_path: Path) -> None:
    """A line that four workers print alike is shown once, and its count by the end."""
    with driver(FLOOD, tmp_path) as running:
        running.wait_for(r"\(same pid=\d+\) all alike")
    folded = [line for line in running.lines() if "all alike" in line]
    assert len(folded) == 2
    assert re.search(r"all alike.*\[repeated 3x ", folded[1])


def test_folding_can_be_turned_off(tmp_path: Path) -> None:
    """RAY_DEDUP_LOGS=0 shows every line of every worker."""
    with driver(FLOOD, tmp_path, RAY_DEDUP_LOGS="0") as running:
        eventually(
            lambda: sum("all alike" in line for line in running.lines()) == 4,
            ARRIVES_S,
        )
    assert not any("repeated" in line for line in running.lines())


def test_output_right_before_the_end(tmp_path: Path) -> None:
    """Lines printed by a task whose value was got are shown before the driver ends."""
    source = """
@ray.remote
def last_words():
    print("last words")
ray.get(last_words.remote())
"""
    with driver(source, tmp_path) as running:
        pass
    assert any("last words" in line for line in running.lines())
