"""put and get: many small values, and one array of 100 MB.

The array is put again and again while the former refs are dropped, the steady state
of a program that works through its data; the first few puts are the warm-up. A get
that copies nothing says little by itself, so besides its latency the rate of a get
whose bytes are then all read is measured.
"""

import functools
import importlib
import time
from collections.abc import Callable
from typing import Any

from benchmarks.cases.measure import Session, duration, median, rate
from benchmarks.cases.systems import Dask, RayLike

LARGE_BYTES = 100_000_000
SMALL = b"x" * 100

Put = Callable[[Any], Any]
Get = Callable[[Any], Any]


def take_large_figures(session: Session, put: Put, get: Get) -> None:
    """Measure put, get and get-and-read of 100 MB."""
    if not session.is_wanted("put_100mb", "get_100mb_ms", "get_read_100mb"):
        return
    numpy = importlib.import_module("numpy")
    array = numpy.ones(LARGE_BYTES // 8)
    target = numpy.zeros_like(array)
    times = session.scaled(10, quick=3)
    ref = put(array)
    for _ in range(3):
        ref = put(array)

    def put_rate() -> float:
        nonlocal ref
        elapsed = []
        for _ in range(times):
            start = time.perf_counter()
            fresh = put(array)
            elapsed.append(time.perf_counter() - start)
            # The former array is dropped outside the measured time.
            ref = fresh
        return LARGE_BYTES / median(elapsed) / 1e9

    def get_latency() -> float:
        get(ref)
        return median([duration(lambda: get(ref)) for _ in range(times)]) * 1e3

    def read_rate() -> float:
        elapsed = [
            duration(lambda: numpy.copyto(target, get(ref))) for _ in range(times)
        ]
        return LARGE_BYTES / median(elapsed) / 1e9

    session.take("put_100mb", put_rate)
    session.take("get_100mb_ms", get_latency)
    session.take("get_read_100mb", read_rate)


def take_small_figures(session: Session, put: Put, get: Get, *, batch: int) -> None:
    """Measure put and get of 100 bytes."""
    session.take(
        "put_small", lambda: rate(lambda: put(SMALL), session.seconds, batch=batch)
    )
    ref = put(SMALL)
    session.take(
        "get_small", lambda: rate(lambda: get(ref), session.seconds, batch=batch)
    )


def main() -> None:
    """Measure shoal, Ray or Dask (scatter and gather)."""
    session = Session()
    put: Put
    get: Get
    system: Dask | RayLike
    if session.peer == "dask":
        system = Dask()
        system.start(session.cpus)
        put = functools.partial(system.client.scatter, hash=False)
        get = system.client.gather
        batch = 1
    else:
        system = RayLike(session.peer)
        system.start(session.cpus)
        put = system.api.put
        get = system.api.get
        batch = 10
    take_small_figures(session, put, get, batch=batch)
    take_large_figures(session, put, get)
    system.stop()


if __name__ == "__main__":
    main()
