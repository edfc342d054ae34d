"""Many refs: an object that holds 10,000 of them, a wait that takes them singly."""

from typing import Any

from benchmarks.cases.measure import Session, duration, median, rate
from benchmarks.cases.systems import RayLike, nop


def holder(api: Any, count: int) -> Any:
    """A ref to a list of `count` refs, all made by a task."""

    @api.remote
    def make() -> list[Any]:
        return [api.put(1) for _ in range(count)]

    return make.remote()


def wait_one_at_a_time(api: Any, task: Any, count: int) -> None:
    """Submit tasks and take their refs off `wait` one by one."""
    waiting = [task.remote() for _ in range(count)]
    while waiting:
        _, waiting = api.wait(waiting, num_returns=1)


def take_figures(session: Session, api: Any) -> None:
    """Measure both; a round of the second is all 1,000 waits, tasks included."""

    def ref_rate() -> float:
        ref = holder(api, session.scaled(10_000, quick=500))
        return rate(lambda: api.get(ref), session.seconds)

    def wait_rate() -> float:
        task = api.remote(nop)
        count = session.scaled(1_000, quick=100)
        wait_one_at_a_time(api, task, count // 10)
        rounds = [
            duration(lambda: wait_one_at_a_time(api, task, count)) for _ in range(3)
        ]
        return 1 / median(rounds)

    session.take("ref_10k", ref_rate)
    session.take("wait_1k", wait_rate)


def main() -> None:
    """Measure shoal or Ray."""
    session = Session()
    system = RayLike(session.peer)
    system.start(session.cpus)
    take_figures(session, system.api)
    system.stop()


if __name__ == "__main__":
    main()
