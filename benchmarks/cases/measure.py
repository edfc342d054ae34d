"""How every case measures and reports.

A case takes each of its figures with `Session.take`, which measures only what was
asked for, prints the figure at once as one JSON line, and goes on after a failure, so
that one missing feature of a peer costs one row and not the program.

Warm-up is separate: `rate` runs the operation unmeasured first. Nothing here is
imported before the start-up case has its first result; the module is for the others.
"""

import argparse
import json
import os
import time
import traceback
from collections.abc import Callable


class Session:
    """One case process: its options and its way to report.

    Attributes:
        peer: which system is measured.
        cpus: how many workers or CPUs to give it.
        seconds: how long one figure is measured.
        is_quick: whether sizes are cut down to a smoke test.
    """

    def __init__(self, arguments: list[str] | None = None) -> None:
        options = _parser().parse_args(arguments)
        self.peer: str = options.peer
        self.cpus: int = options.cpus
        self.is_quick: bool = options.quick
        self.seconds: float = 0.2 if options.quick else 1.0
        self._wanted = frozenset(filter(None, options.only.split(",")))

    def scaled(self, count: int, quick: int) -> int:
        """The count of a full run, or the smaller one of a quick run."""
        return quick if self.is_quick else count

    def is_wanted(self, *figures: str) -> bool:
        """Whether any of these figures was asked for."""
        return not self._wanted or not self._wanted.isdisjoint(figures)

    def take(self, figure: str, measure: Callable[[], float]) -> None:
        """Measure one figure if it is wanted and report it, or why it failed."""
        if not self.is_wanted(figure):
            return
        try:
            value = measure()
        except Exception as error:  # noqa: BLE001 - reported as the figure's result
            report_failure(figure, error)
        else:
            report(figure, value)


def report(figure: str, value: float) -> None:
    """Print a figure as one JSON line."""
    _print_line({"figure": figure, "value": value})


def report_until_gone(figure: str, since: float) -> None:
    """Let the runner complete a figure: the time until all our processes are gone.

    Args:
        figure: its key.
        since: when the time began, on the monotonic clock.
    """
    _print_line({"figure": figure, "until_gone_since": since})


def report_failure(figure: str, error: Exception) -> None:
    """Print a failure as one JSON line, the whole traceback on stderr."""
    traceback.print_exception(error)
    text = str(error).strip()
    last_line = text.splitlines()[-1] if text else ""
    _print_line({"figure": figure, "error": f"{type(error).__name__}: {last_line}"})


def rate(operation: Callable[[], object], seconds: float, *, batch: int = 1) -> float:
    """Operations per second, after a warm-up of a quarter of the time.

    Args:
        operation: called with no arguments as often as time allows.
        seconds: how long to measure.
        batch: calls between two looks at the clock, so that reading it costs
            nothing beside operations of a microsecond.
    """
    _run_for(operation, seconds / 4, batch)
    calls, elapsed = _run_for(operation, seconds, batch)
    return calls / elapsed


def median(values: list[float]) -> float:
    """The middle value; of an even number, the upper middle one."""
    return sorted(values)[len(values) // 2]


def duration(operation: Callable[[], object]) -> float:
    """Seconds one call takes."""
    start = time.perf_counter()
    operation()
    return time.perf_counter() - start


def _run_for(
    operation: Callable[[], object], seconds: float, batch: int
) -> tuple[int, float]:
    """Call in batches until time is up; returns calls and the exact time."""
    repetitions = [None] * batch
    calls = 0
    start = time.perf_counter()
    end = start + seconds
    now = start
    while now < end:
        for _ in repetitions:
            operation()
        calls += batch
        now = time.perf_counter()
    return calls, now - start


def _print_line(record: dict[str, object]) -> None:
    """Write one line in a single system call, so no other output can split it."""
    os.write(1, b"\n" + json.dumps(record).encode() + b"\n")


def _parser() -> argparse.ArgumentParser:
    """The command line every case understands."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer", required=True)
    parser.add_argument("--cpus", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="", help="figures, separated by commas")
    return parser
