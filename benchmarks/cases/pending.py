"""A million tasks submitted before the first result is asked for.

Every worker is first given a task that waits for a gate file, so that all the million
are pending when the memory is read: the worst case, and the same one for everybody.
Then the gate opens and all results are taken.
"""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import processes
from benchmarks.cases.measure import Session, report
from benchmarks.cases.systems import System, make_system, nop

GATE_FOLDER = "SHOAL_BENCH_GATE_FOLDER"
"""Variable of the environment; workers inherit it, so no system has to carry it."""

_GATE_LIMIT_S = 3600.0


def hold_until_open(_argument: object = None) -> None:
    """Occupy a worker until the gate opens."""
    folder = Path(os.environ[GATE_FOLDER])
    (folder / f"held-{os.getpid()}").touch()
    if not processes.wait_until((folder / "open").exists, _GATE_LIMIT_S):
        raise TimeoutError(f"the gate in {folder} did not open")


def close_gate(system: System, cpus: int, folder: Path) -> list[Any]:
    """Occupy every worker; returns the handles of the tasks that do it."""
    holders = system.submitter(hold_until_open)(cpus)

    def all_held() -> bool:
        return len(list(folder.glob("held-*"))) == cpus

    if not processes.wait_until(all_held, 60.0):
        raise TimeoutError(f"no {cpus} workers were held within 60 s")
    return holders


def measure_pending(system: System, cpus: int, count: int, folder: Path) -> None:
    """Submit behind the gate, open it, take all, and report."""
    submit = system.submitter(nop)
    system.collect(submit(1000))
    holders = close_gate(system, cpus, folder)
    rss_before = processes.rss_bytes()
    started_at = time.perf_counter()
    handles = submit(count)
    submitted_at = time.perf_counter()
    bytes_each = (processes.rss_bytes() - rss_before) / count
    (folder / "open").touch()
    opened_at = time.perf_counter()
    results = system.collect(handles)
    drained_at = time.perf_counter()
    system.collect(holders)
    report("pending_bytes", bytes_each)
    report("pending_submit", count / (submitted_at - started_at))
    report("pending_drain", count / (drained_at - opened_at))
    report("pending_returned", results.count(None) / count)


def main() -> None:
    """Measure one system."""
    session = Session()
    count = session.scaled(1_000_000, quick=10_000)
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as name:
        os.environ[GATE_FOLDER] = name
        system = make_system(session.peer)
        system.start(session.cpus)
        measure_pending(system, session.cpus, count, Path(name))
        system.stop()


if __name__ == "__main__":
    main()
