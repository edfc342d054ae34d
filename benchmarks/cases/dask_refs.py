"""Dask's way to take 1,000 results one at a time as they finish: as_completed."""

import importlib

from benchmarks.cases.measure import Session, duration, median
from benchmarks.cases.systems import Dask, nop


def main() -> None:
    """Measure Dask."""
    session = Session()
    system = Dask()
    system.start(session.cpus)
    as_completed = importlib.import_module("distributed").as_completed
    count = session.scaled(1_000, quick=100)

    def one_round(size: int) -> None:
        for _ in as_completed(system.client.map(nop, range(size), pure=False)):
            pass

    def wait_rate() -> float:
        one_round(count // 10)
        return 1 / median([duration(lambda: one_round(count)) for _ in range(3)])

    session.take("wait_1k", wait_rate)
    system.stop()


if __name__ == "__main__":
    main()
