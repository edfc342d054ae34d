"""Where the time of one task goes: submit, push, run, reply, get.

`python -m benchmarks.profile_hot_path [--kind actor] [--mode sync]` starts shoal
with one worker and does two things with the same load, in this order:

1. Without a profiler: microseconds of submitting, of collecting and of a whole round
   trip, and the CPU time that driver and worker took for each task. This part also
   takes `--api ray`, for comparison.
2. Under cProfile, in every thread of the driver that ran Python and in the worker's
   thread that runs the tasks: the functions that took most.

The worker is profiled from inside: a task switches the profiler of its thread on; it
stays on when that task has returned, so it sees receiving, running and replying,
until another task switches it off. A profiler makes small functions look dearer than
they are: the first table says how much there is to win, the second where to look.
"""

import argparse
import cProfile
import io
import os
import pstats
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from benchmarks.cases.systems import load_ray_api

_KEPT = "_shoal_hot_path_profiler"
"""Where a worker keeps its profiler between two tasks: an attribute of `sys`, because
a function that was sent by value brings globals of its own."""


class Load:
    """One worker, and the ways to make it run something."""

    def __init__(self, api: Any, kind: str) -> None:
        self._api = api
        self._actor = api.remote(_Actor).remote() if kind == "actor" else None
        self.submit_nop: Callable[[], Any] = (
            self._actor.nop.remote if self._actor else api.remote(_nop).remote
        )

    def in_worker(self, function: Callable[[], Any]) -> Any:
        """Run a function in the worker and return its result."""
        if self._actor:
            return self._api.get(self._actor.run.remote(function))
        return self._api.get(self._api.remote(function).remote())

    def one_at_a_time(self, count: int) -> None:
        """So many round trips."""
        for _ in range(count):
            self._api.get(self.submit_nop())

    def at_once(self, count: int) -> tuple[float, float]:
        """Submit all, then collect all; returns the seconds of each."""
        started_at = time.perf_counter()
        refs = [self.submit_nop() for _ in range(count)]
        submitted_at = time.perf_counter()
        self._api.get(refs)
        return submitted_at - started_at, time.perf_counter() - submitted_at


class _Actor:
    """The actor of `--kind actor`."""

    def nop(self) -> None:
        """No work."""

    def run(self, function: Callable[[], Any]) -> Any:
        """Anything else that has to happen in this process."""
        return function()


def _nop() -> None:
    """No work."""


def _cpu_s() -> float:
    """CPU time this process has taken so far, seconds."""
    return time.process_time()


class DriverProfile:
    """cProfile in every thread of this process that is started after this object.

    `threading.setprofile` gives each new thread a hook, whose first call puts a
    profiler in the hook's own place. Such a thread is profiled from its own start, so
    a little of the session's start is in its figures.
    """

    def __init__(self) -> None:
        self._profiles: dict[str, cProfile.Profile] = {}
        self._main = cProfile.Profile()
        self._pid = os.getpid()
        threading.setprofile(self._enter_thread)

    def _enter_thread(self, _frame: object, _event: str, _argument: object) -> None:
        if os.getpid() != self._pid:
            # A process forked from this one inherits the hook but is not the driver.
            sys.setprofile(None)
            return
        profile = cProfile.Profile()
        self._profiles[threading.current_thread().name] = profile
        profile.enable()

    def begin(self) -> None:
        """Profile the calling thread from here on."""
        self._main.enable()

    def end(self) -> dict[str, pstats.Stats]:
        """Stop; returns the statistics of each thread by its name."""
        self._main.disable()
        threading.setprofile(None)
        profiles = {"calling thread": self._main, **self._profiles}
        return {
            f"driver, {name}": pstats.Stats(profile, stream=io.StringIO())
            for name, profile in profiles.items()
        }


def _start_worker_profile() -> None:
    """In the worker: profile this thread from here on."""
    profile = cProfile.Profile()
    setattr(sys, _KEPT, profile)
    profile.enable()


def _stop_worker_profile() -> dict[Any, Any]:
    """In the worker: stop and return the statistics in a form that pickles."""
    profile = getattr(sys, _KEPT)
    profile.disable()
    profile.create_stats()
    statistics: dict[Any, Any] = profile.stats
    return statistics


class _Pickled:
    """Lets pstats read statistics that came from another process."""

    def __init__(self, stats: dict[Any, Any]) -> None:
        self.stats = stats

    def create_stats(self) -> None:
        """Nothing to do: the statistics are complete."""


def time_phases(load: Load, count: int) -> list[str]:
    """The first table, in microseconds a task."""
    load.one_at_a_time(count // 10)
    cpu_before = load.in_worker(_cpu_s), _cpu_s()
    started_at = time.perf_counter()
    load.one_at_a_time(count)
    round_trip_s = time.perf_counter() - started_at
    lines = [
        f"one at a time, {count:,} of them",
        _phase("round trip", round_trip_s, count),
        *_cpu_lines(load, cpu_before, count),
    ]
    load.at_once(count)
    cpu_before = load.in_worker(_cpu_s), _cpu_s()
    submit_s, collect_s = load.at_once(count)
    lines += [
        f"all at once, {count:,} of them",
        _phase("submit", submit_s, count),
        _phase("collect what is left then", collect_s, count),
        _phase("together", submit_s + collect_s, count),
        *_cpu_lines(load, cpu_before, count),
    ]
    return lines


def _cpu_lines(load: Load, before: tuple[float, float], count: int) -> list[str]:
    """CPU time of both processes since `before`."""
    driver_s = _cpu_s() - before[1]
    worker_s = load.in_worker(_cpu_s) - before[0]
    return [
        _phase("CPU of the driver, all threads", driver_s, count),
        _phase("CPU of the worker, all threads", worker_s, count),
    ]


def _phase(name: str, seconds: float, count: int) -> str:
    """One line of the first table."""
    return f"  {name:<34} {seconds / count * 1e6:8.2f} us"


def profile_load(
    load: Load, driver: DriverProfile, mode: str, count: int
) -> dict[str, pstats.Stats]:
    """Run the load under the profilers; returns the statistics of each thread."""
    load.in_worker(_start_worker_profile)
    driver.begin()
    if mode == "sync":
        load.one_at_a_time(count)
    else:
        load.at_once(count)
    found = driver.end()
    statistics = _Pickled(load.in_worker(_stop_worker_profile))
    found["worker, thread of the tasks"] = pstats.Stats(
        statistics, stream=io.StringIO()
    )
    return found


def top_functions(statistics: pstats.Stats, order: str, lines: int) -> str:
    """The functions that took most, as pstats prints them."""
    stream = io.StringIO()
    statistics.stream = stream  # type: ignore[attr-defined]
    statistics.sort_stats(order).print_stats(lines)
    return stream.getvalue().strip()


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.profile_hot_path",
        description=(__doc__ or "").splitlines()[0],
    )
    parser.add_argument("--api", default="shoal", help="or ray, for the times only")
    parser.add_argument("--kind", choices=("task", "actor"), default="task")
    parser.add_argument("--mode", choices=("sync", "async"), default="async")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--order", default="tottime", help="as pstats sorts")
    parser.add_argument("--lines", type=int, default=25)
    parser.add_argument("--no-profiler", action="store_true", help="only the times")
    return parser.parse_args()


def main() -> None:
    """Print both tables."""
    options = parse()
    # Threads are profiled from their start, so the plain times need another session.
    api = load_ray_api(options.api)
    api.init(num_cpus=1, logging_level="ERROR")
    _say(f"{options.api}, {options.kind}, driver {os.getpid()}")
    _say("\n".join(time_phases(Load(api, options.kind), options.count)))
    api.shutdown()
    if options.no_profiler or options.api != "shoal":
        return
    driver = DriverProfile()
    api.init(num_cpus=1, logging_level="ERROR")
    load = Load(api, options.kind)
    load.one_at_a_time(options.count // 100)
    found = profile_load(load, driver, options.mode, options.count)
    api.shutdown()
    for name, statistics in found.items():
        _say(f"\n===== {name}")
        _say(top_functions(statistics, options.order, options.lines))


def _say(text: str) -> None:
    """One piece of the report."""
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    main()
