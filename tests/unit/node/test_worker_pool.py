"""The pool of worker processes: kinds, idle ones, jobs that are over."""

from __future__ import annotations

from shoal._core.node.worker_pool import EXITING, PoolWorker, WorkerPool

ONE, OTHER = b"job 1", b"job 2"


def idle_worker(pool: WorkerPool, name: bytes, job: bytes, since: float) -> PoolWorker:
    worker = pool.add(name, (job, ""), since)
    pool.became_idle(worker, since)
    return worker


def test_a_worker_serves_its_job_and_environment_only() -> None:
    """An idle worker of another kind is not given out."""
    pool = WorkerPool()
    worker = idle_worker(pool, b"a", ONE, 0)
    assert pool.take_idle((OTHER, "")) is None
    assert pool.take_idle((ONE, "env")) is None
    assert pool.take_idle((ONE, "")) is worker


def test_workers_that_start_are_counted_by_kind() -> None:
    """All, or those of one kind."""
    pool = WorkerPool()
    pool.add(b"a", (ONE, ""), 0)
    pool.add(b"b", (OTHER, ""), 0)
    pool.became_idle(pool.add(b"c", (ONE, ""), 0), 0)
    assert pool.starting_count() == 2
    assert pool.starting_count((ONE, "")) == 1


def test_idle_workers_of_a_job_that_is_over_are_not_kept() -> None:
    """Of living jobs the last used are kept; each only goes after a while."""
    pool = WorkerPool()
    oldest = idle_worker(pool, b"a", ONE, 1)
    idle_worker(pool, b"b", ONE, 2)
    over = idle_worker(pool, b"c", OTHER, 3)
    idle_worker(pool, b"d", OTHER, 9)
    assert pool.longest_idle(5, keep=1, jobs=[ONE]) == [over, oldest]
    assert pool.longest_idle(5, keep=2, jobs=[ONE]) == [over]


def test_unused_workers_of_a_job() -> None:
    """Idle ones, and those that stayed for the sake of their objects."""
    pool = WorkerPool()
    idle = idle_worker(pool, b"a", ONE, 1)
    idle_worker(pool, b"b", OTHER, 1)
    pool.add(b"c", (ONE, ""), 1)
    kept = idle_worker(pool, b"d", ONE, 1)
    pool.retire(kept)
    assert pool.unused_of(ONE) == [idle]
    kept.is_kept = True
    assert kept.state == EXITING
    assert pool.unused_of(ONE) == [idle, kept]


def test_workers_that_refused_to_end_are_asked_again() -> None:
    """After a while, as their objects may have gone."""
    pool = WorkerPool()
    kept = idle_worker(pool, b"a", ONE, 3)
    idle_worker(pool, b"b", ONE, 1)
    pool.retire(kept)
    assert pool.kept_since(9) == []
    kept.is_kept = True
    assert pool.kept_since(2) == []
    assert pool.kept_since(3) == [kept]


def test_a_job_is_ending_until_its_processes_have_gone() -> None:
    """Those told to end count, whatever they were doing."""
    pool = WorkerPool()
    worker = idle_worker(pool, b"a", ONE, 1)
    assert not pool.is_ending(ONE)
    worker.exit_cause = "its job is over"
    assert pool.is_ending(ONE)
    assert not pool.is_ending(OTHER)
    pool.remove(b"a")
    assert not pool.is_ending(ONE)
