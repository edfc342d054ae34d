"""Rates of empty calls of a Dask actor.

Dask's actors live inside its worker processes, several to a process.
"""

from benchmarks.cases.actors import ARGUMENTS, Plain
from benchmarks.cases.measure import Session, rate
from benchmarks.cases.systems import Dask


def main() -> None:
    """Measure Dask."""
    session = Session()
    system = Dask()
    system.start(session.cpus)
    actor = system.client.submit(Plain, actor=True).result()
    count = session.scaled(1_000, quick=100)

    def burst(*arguments: object) -> None:
        for future in [actor.take(*arguments) for _ in range(count)]:
            future.result()

    seconds = session.seconds
    session.take("actor_sync", lambda: rate(lambda: actor.nop().result(), seconds))
    session.take("actor_async", lambda: count * rate(burst, seconds))
    session.take("actor_args", lambda: count * rate(lambda: burst(*ARGUMENTS), seconds))
    system.stop()


if __name__ == "__main__":
    main()
