"""Rate of empty tasks submitted by four actors (in Dask: four tasks) at once."""

import importlib
from collections.abc import Callable
from typing import Any

from benchmarks.cases.measure import Session, duration
from benchmarks.cases.systems import Dask, RayLike, nop

SUBMITTERS = 4


def ray_like_burst(api: Any) -> Callable[[int], None]:
    """A burst in which each of four actors submits and awaits n tasks."""
    task = api.remote(nop)

    @api.remote(num_cpus=0)
    class Submitter:
        def submit(self, count: int) -> None:
            api.get([task.remote() for _ in range(count)])

    submitters = [Submitter.remote() for _ in range(SUBMITTERS)]
    return lambda count: api.get([each.submit.remote(count) for each in submitters])


def submit_from_dask_task(_number: int, count: int) -> None:
    """A Dask task that submits tasks; it gives its thread back while it waits."""
    with importlib.import_module("distributed").worker_client() as client:
        client.gather(client.map(nop, range(count), pure=False))


def dask_burst(client: Any) -> Callable[[int], None]:
    """A burst in which each of four tasks submits and awaits n tasks."""

    def burst(count: int) -> None:
        client.gather(
            client.map(submit_from_dask_task, range(SUBMITTERS), [count] * SUBMITTERS)
        )

    return burst


def main() -> None:
    """Measure one system."""
    session = Session()
    system = Dask() if session.peer == "dask" else RayLike(session.peer)
    system.start(session.cpus)
    if isinstance(system, Dask):
        burst = dask_burst(system.client)
    else:
        burst = ray_like_burst(system.api)
    # Peers differ by two orders of magnitude: few enough that the slowest is done in
    # seconds, enough that the fastest is measured over a tenth of one.
    count = session.scaled(2_500, quick=100)
    burst(count // 5)
    session.take(
        "task_submitters",
        lambda: SUBMITTERS * count / duration(lambda: burst(count)),
    )
    system.stop()


if __name__ == "__main__":
    main()
