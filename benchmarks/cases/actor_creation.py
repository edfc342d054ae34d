"""Time to create 100 actors and have one answer from each.

Each actor of shoal and Ray is a process; in Dask it is an object in a worker process
that is there already, which is no comparison of like with like but shown all the same.
"""

from benchmarks.cases.actors import Plain
from benchmarks.cases.measure import Session, duration
from benchmarks.cases.systems import Dask, RayLike


def create_ray_like(system: RayLike, count: int) -> None:
    """Create actors of 0 CPUs, call each once, and drop them."""
    actor_class = system.api.remote(num_cpus=0)(Plain)
    actors = [actor_class.remote() for _ in range(count)]
    system.api.get([actor.nop.remote() for actor in actors])


def create_dask(system: Dask, count: int) -> None:
    """Create actors, call each once, and drop them."""
    futures = [
        system.client.submit(Plain, actor=True, pure=False) for _ in range(count)
    ]
    calls = [future.result().nop() for future in futures]
    for call in calls:
        call.result()


def main() -> None:
    """Measure one system; two actors are the warm-up."""
    session = Session()
    count = session.scaled(100, quick=8)
    if session.peer == "dask":
        dask = Dask()
        dask.start(session.cpus)
        create_dask(dask, 2)
        session.take("actors_100", lambda: duration(lambda: create_dask(dask, count)))
        dask.stop()
    else:
        system = RayLike(session.peer)
        system.start(session.cpus)
        create_ray_like(system, 2)
        session.take(
            "actors_100", lambda: duration(lambda: create_ray_like(system, count))
        )
        system.stop()


if __name__ == "__main__":
    main()
