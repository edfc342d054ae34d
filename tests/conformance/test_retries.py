"""Retries of tasks: after a crash, after an exception, and when they are over."""

import os
import signal

import pytest
from conformance_impl import eventually, ray

CRASHED = ray.exceptions.WorkerCrashedError


@ray.remote
def crash_until(journal, attempt, result="done"):
    """End the process until this is attempt number `attempt`."""
    if journal.add("try") < attempt:
        os._exit(1)
    return result


@ray.remote
def fail_until(journal, attempt, make=lambda: ValueError("not yet")):
    """Raise until this is attempt number `attempt`."""
    if journal.add("try") < attempt:
        raise make()
    return "done"


@ray.remote
def identity(value):
    return value


def test_four_attempts_by_default(ray_session, journal):
    """A task whose worker dies is run four times, then WorkerCrashedError."""
    with pytest.raises(CRASHED):
        ray.get(crash_until.remote(journal, 100))
    assert len(journal.read()) == 4


def test_crash_is_retried(ray_session, journal):
    """A retry that succeeds delivers the result through the same ref."""
    ref = crash_until.remote(journal, 2)
    assert ray.get(identity.remote(ref)) == "done"
    assert ray.get(ref) == "done"
    assert len(journal.read()) == 2


def test_no_retries(ray_session, journal):
    """`max_retries=0`: one attempt."""
    with pytest.raises(CRASHED):
        ray.get(crash_until.options(max_retries=0).remote(journal, 2))
    assert len(journal.read()) == 1


def test_retries_without_limit(ray_session, journal):
    """`max_retries=-1` goes on beyond the default."""
    assert ray.get(crash_until.options(max_retries=-1).remote(journal, 6)) == "done"
    assert len(journal.read()) == 6


def test_killed_worker_is_retried(ray_session, gate, journal):
    """A worker killed from outside while it runs a task: the task runs again."""

    @ray.remote(max_retries=1)
    def work():
        if journal.add(os.getpid()) == 1:
            gate.wait()
        return os.getpid()

    ref = work.remote()
    first = int(eventually(journal.read, 30, "the task started")[0])
    os.kill(first, signal.SIGKILL)
    assert ray.get(ref) != first
    assert len(journal.read()) == 2


def test_retry_has_its_arguments(ray_session, journal):
    """Arguments, inline and by ref, are there for the retry."""
    large = ray.put(bytes(500_000))

    @ray.remote
    def use(small, value, refs):
        if journal.add("try") == 1:
            os._exit(1)
        return small, len(value), len(ray.get(refs[0]))

    ref = use.remote("small", large, [large])
    del large
    assert ray.get(ref) == ("small", 500_000, 500_000)


def test_retry_of_several_returns(ray_session, journal):
    """All refs of a task with several returns come from the retry."""
    refs = crash_until.options(num_returns=2).remote(journal, 2, ("a", "b"))
    assert ray.get(refs) == ["a", "b"]


def test_exceptions_are_not_retried_by_default(ray_session, journal):
    """An exception of the task is no reason for a retry."""
    with pytest.raises(ValueError):
        ray.get(fail_until.remote(journal, 2))
    assert len(journal.read()) == 1


def test_retry_exceptions(ray_session, journal):
    """`retry_exceptions=True` retries any exception, up to max_retries."""
    retried = fail_until.options(retry_exceptions=True, max_retries=2)
    assert ray.get(retried.remote(journal, 3)) == "done"
    assert len(journal.read()) == 3


def test_retry_exceptions_runs_out(ray_session, journal):
    """When retries are used up, the last exception is raised as usual."""
    retried = fail_until.options(retry_exceptions=True, max_retries=2)
    with pytest.raises(ValueError, match="not yet") as caught:
        ray.get(retried.remote(journal, 9))
    assert isinstance(caught.value, ray.exceptions.RayTaskError)
    assert len(journal.read()) == 3


@pytest.mark.parametrize("allowed", [[OSError], (KeyError, OSError)])
def test_retry_exceptions_list(ray_session, journal, allowed):
    """A list names the classes to retry; subclasses count."""
    retried = fail_until.options(retry_exceptions=allowed, max_retries=2)
    make = FileNotFoundError
    assert ray.get(retried.remote(journal, 2, make)) == "done"
    assert len(journal.read()) == 2


def test_retry_exceptions_list_leaves_others(ray_session, journal):
    """An exception that is not in the list is raised at once."""
    retried = fail_until.options(retry_exceptions=[KeyError], max_retries=2)
    with pytest.raises(ValueError):
        ray.get(retried.remote(journal, 2))
    assert len(journal.read()) == 1


def test_retry_exceptions_without_retries(ray_session, journal):
    """`max_retries=0` wins over retry_exceptions."""
    retried = fail_until.options(retry_exceptions=True, max_retries=0)
    with pytest.raises(ValueError):
        ray.get(retried.remote(journal, 2))
    assert len(journal.read()) == 1


def test_inner_error_is_matched_by_its_class(ray_session, journal):
    """An error that came from an inner task's get matches by its own class."""

    @ray.remote(retry_exceptions=[ValueError], max_retries=1)
    def outer():
        return ray.get(fail_until.remote(journal, 2))

    assert ray.get(outer.remote()) == "done"


def test_generator_is_replayed(ray_session, journal):
    """A generator whose worker dies is run again; items taken are not repeated."""

    @ray.remote(max_retries=1)
    def produce():
        attempt = journal.add("try")
        for number in range(6):
            if attempt == 1 and number == 3:
                os._exit(1)
            yield number

    assert [ray.get(ref) for ref in produce.remote()] == list(range(6))
    assert len(journal.read()) == 2


def test_owner_died(ray_session):
    """An object whose owner's process was killed raises OwnerDiedError."""

    @ray.remote
    class Putter:
        def put(self, number):
            return [ray.put("small") for _ in range(number)], os.getpid()

    putter = Putter.remote()
    refs, pid = ray.get(putter.put.remote(1000))
    os.kill(pid, signal.SIGKILL)

    def next_ref_is_lost():
        """Whether a ref that was never fetched before has lost its owner."""
        try:
            ray.get(refs.pop(), timeout=30)
        except ray.exceptions.OwnerDiedError as error:
            return isinstance(error, ray.exceptions.ObjectLostError)
        return False

    eventually(next_ref_is_lost, 10, "the owner's death is known")


def test_result_survives_its_worker(ray_session):
    """A task's result is owned by the caller and outlives the worker."""

    @ray.remote
    def make(size):
        return os.getpid(), bytes(size)

    refs = [make.remote(10), make.remote(500_000)]
    for pid in {ray.get(ref)[0] for ref in refs}:
        os.kill(pid, signal.SIGKILL)
    assert [len(ray.get(ref)[1]) for ref in refs] == [10, 500_000]
