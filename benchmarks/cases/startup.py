"""From the start of the interpreter to the first result, and the way back.

The runner tells in the environment when it started this process; the clock is the
machine's monotonic one, the same in all processes. Nothing is imported before the
first result but what the system itself needs and a few small standard modules.
"""

import importlib
import os
import sys
import time

from benchmarks.cases.systems import make_system

SPAWNED_AT = "SHOAL_BENCH_SPAWNED_AT"


def first_task(_argument: object = None) -> str:
    """The task whose result is awaited."""
    return "done"


def option(name: str) -> str:
    """The value after an option; argparse would take longer than some systems do."""
    return sys.argv[sys.argv.index(name) + 1]


def main() -> None:
    """Measure one system."""
    system = make_system(option("--peer"))
    system.start(int(option("--cpus")))
    result = system.caller(first_task)()
    first_result_s = time.monotonic() - float(os.environ[SPAWNED_AT])
    measure = importlib.import_module("benchmarks.cases.measure")
    if result != "done":
        raise RuntimeError(f"the first task returned {result!r} instead of 'done'")
    session = measure.Session()
    session.take("first_result", lambda: first_result_s)
    stopped_at = time.monotonic()
    session.take("shutdown", lambda: measure.duration(system.stop))
    measure.report_until_gone("shutdown_gone", stopped_at)


if __name__ == "__main__":
    main()
