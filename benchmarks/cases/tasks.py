"""Rates of empty tasks: one at a time, 1,000 at once, 100,000 at once."""

from benchmarks.cases.measure import Session, duration, rate
from benchmarks.cases.systems import System, make_system, nop


def rate_at_once(system: System, count: int, seconds: float) -> float:
    """Tasks per second when `count` are submitted before the first is awaited."""
    submit = system.submitter(nop)
    return count * rate(lambda: system.collect(submit(count)), seconds)


def rate_of_one_burst(system: System, count: int) -> float:
    """Tasks per second of a single burst, after a small one to warm up."""
    submit = system.submitter(nop)
    system.collect(submit(1000))
    return count / duration(lambda: system.collect(submit(count)))


def main() -> None:
    """Measure one system."""
    session = Session()
    system = make_system(session.peer)
    system.start(session.cpus)
    call = system.caller(nop)
    small = session.scaled(1_000, quick=200)
    large = session.scaled(100_000, quick=2_000)
    session.take("task_sync", lambda: rate(call, session.seconds))
    session.take("task_async_1k", lambda: rate_at_once(system, small, session.seconds))
    session.take("task_async_100k", lambda: rate_of_one_burst(system, large))
    system.stop()


if __name__ == "__main__":
    main()
