"""multiprocessing.Pool on actors.

Claims: the interface of the standard library's Pool with its errors: exceptions arrive
as their own plain type, ``TimeoutError`` is multiprocessing's, a closed pool takes
nothing more, ``join`` waits for what it has taken.
"""

import multiprocessing
import os
import threading
import time

import pytest
from conformance_impl import eventually, ray, submodule

module = submodule("util.multiprocessing")
Pool = module.Pool


def square(value):
    return value * value


def add(left, right=10):
    return left + right


def fail(value):
    raise ValueError(f"broken {value}")


def fail_odd(value):
    if value % 2:
        raise ValueError(f"odd {value}")
    return value


def wait_for(gate):
    gate.wait()
    return "done"


def process_id(_=None):
    return os.getpid()


def meet(journal):
    """Returns once three processes are in here together."""
    journal.add(os.getpid())
    eventually(lambda: len(set(journal.read())) == 3, 30, "three processes at work")
    return os.getpid()


@pytest.fixture
def make(ray_session):
    """Pools that are ended at the end of the test."""
    made = []

    def make_pool(*args, **kwargs):
        made.append(Pool(*args, **kwargs))
        return made[-1]

    yield make_pool
    for one in made:
        one.terminate()
        one.join()


@pytest.fixture
def pool(make):
    return make(2)


def test_names():
    """TimeoutError and JoinableQueue are multiprocessing's own."""
    assert module.TimeoutError is multiprocessing.TimeoutError
    assert module.JoinableQueue == multiprocessing.JoinableQueue


# One result


def test_apply(pool):
    """apply passes arguments and returns the result."""
    assert pool.apply(add, (1,)) == 11
    assert pool.apply(add, (1,), {"right": 2}) == 3
    assert pool.apply(process_id) != os.getpid()
    assert pool.apply(lambda: "closure") == "closure"


def test_apply_raises_the_plain_type(pool):
    """The function's exception arrives as exactly its own type."""
    with pytest.raises(ValueError, match="broken 1") as caught:
        pool.apply(fail, (1,))
    assert type(caught.value) is ValueError


def test_apply_async(pool):
    """The result can be waited for, asked about, and taken more than once."""
    result = pool.apply_async(square, (3,))
    assert result.wait() is None
    assert result.ready()
    assert result.successful()
    assert (result.get(), result.get(timeout=1)) == (9, 9)


def test_unfinished_result(pool, gate):
    """Before there is a result: not ready, not successful, and timeouts."""
    result = pool.apply_async(wait_for, (gate,))
    assert not result.ready()
    with pytest.raises(ValueError):
        result.successful()
    result.wait(timeout=0.05)
    with pytest.raises(multiprocessing.TimeoutError):
        result.get(timeout=0.05)
    gate.open()
    assert result.get(timeout=30) == "done"


def test_failed_result(pool):
    """A result that is an exception is ready and not successful."""
    result = pool.apply_async(fail, (1,))
    result.wait()
    assert result.ready()
    assert not result.successful()
    with pytest.raises(ValueError):
        result.get()


def test_refs_are_passed_as_refs(pool):
    """Object refs among the arguments arrive as refs."""
    assert pool.apply(lambda ref: ray.get(ref), (ray.put(3),)) == 3


# Callbacks


def test_callbacks(pool):
    """The one callback that fits is called, before the result is announced."""
    results, errors = [], []
    for start in (
        lambda **calls: pool.apply_async(square, (3,), **calls),
        lambda **calls: pool.map_async(square, [1, 2], **calls),
        lambda **calls: pool.starmap_async(add, [(1,), (2, 2)], **calls),
        lambda **calls: pool.map_async(square, [], **calls),
    ):
        start(callback=results.append, error_callback=errors.append).wait()
    eventually(lambda: len(results) == 4, why="all callbacks ran")
    # Ray gives the callback of a map its results in the order they came in.
    assert results[0] == 9
    assert [sorted(one) for one in results[1:]] == [[1, 4], [4, 11], []]
    assert errors == []


def test_error_callbacks(pool):
    """error_callback is called with the error, callback not at all."""
    results, errors = [], []
    calls = {"callback": results.append, "error_callback": errors.append}
    pool.apply_async(fail, (1,), **calls).wait()
    pool.map_async(fail, [2], **calls).wait()
    eventually(lambda: len(errors) == 2, why="both error callbacks ran")
    assert ["broken 1" in str(errors[0]), "broken 2" in str(errors[1])] == [True, True]
    assert results == []


@pytest.mark.beyond_ray(reason="Ray passes a private wrapper of the exception")
def test_error_callback_gets_the_exception(pool):
    """error_callback gets the exception itself, as in the standard library."""
    errors = []
    pool.apply_async(fail, (1,), error_callback=errors.append).wait()
    assert [type(error) for error in errors] == [ValueError]


def test_callback_runs_beside_the_caller(pool):
    """Callbacks run in another thread, and one that fails spoils nothing."""
    threads = []
    pool.apply_async(
        square, (3,), callback=lambda _: threads.append(threading.current_thread())
    ).wait()
    eventually(lambda: threads, why="the callback ran")
    assert threads[0] is not threading.current_thread()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_failing_callback(pool):
    """A callback that raises does not keep the result from anyone."""

    def raise_error(_):
        raise KeyError("in a callback")

    assert pool.apply_async(square, (3,), callback=raise_error).get(timeout=30) == 9
    assert pool.apply(square, (4,)) == 16


@pytest.mark.timeout(60)
def test_callback_may_use_the_pool(pool):
    """A callback may itself wait for a call on the pool."""
    results = []
    pool.apply_async(
        square, (3,), callback=lambda value: results.append(pool.apply(add, (value,)))
    ).wait(30)
    eventually(lambda: results == [19], 30, why="the nested call returned")


# Many results


@pytest.mark.parametrize("chunksize", [None, 1, 3, 100])
def test_map(pool, chunksize):
    """map keeps order, whatever the chunks."""
    expected = [square(value) for value in range(10)]
    assert pool.map(square, range(10), chunksize=chunksize) == expected
    assert pool.map(square, iter(range(10)), chunksize) == expected
    assert pool.map_async(square, range(10), chunksize).get() == expected


def test_map_of_nothing(pool):
    """map over nothing is an empty list."""
    assert pool.map(square, []) == []
    result = pool.map_async(square, [])
    result.wait(30)
    assert result.ready()


def test_map_raises_the_first_error(pool):
    """Of several errors the one of the first item is raised, as its plain type."""
    with pytest.raises(ValueError, match="odd 1") as caught:
        pool.map(fail_odd, range(6), chunksize=2)
    assert type(caught.value) is ValueError


def test_map_refuses(pool):
    """What is no iterable is a TypeError, a chunk without items an error."""
    with pytest.raises(TypeError):
        pool.map(square, 5)
    with pytest.raises((ValueError, AssertionError)):
        pool.map(square, [1], chunksize=0)


def test_map_raises_the_error_of_its_input(pool):
    """An error in the iterable is raised by map."""

    def broken():
        yield 1
        raise KeyError("input")

    with pytest.raises(KeyError):
        pool.map(square, broken())
    with pytest.raises(KeyError):
        list(pool.imap(square, broken()))


def test_starmap(pool):
    """Each item of starmap holds the arguments of one call."""
    assert pool.starmap(add, [(1, 2), (3,), [4, 5]]) == [3, 13, 9]
    assert pool.starmap_async(add, iter([(1, 2)])).get() == [3]
    with pytest.raises(TypeError):
        pool.starmap(add, [1])


def test_map_uses_all_processes(make, journal):
    """The calls of one map run at the same time, in several processes."""
    pids = make(3).map(meet, [journal] * 3, chunksize=1)
    assert len(set(pids)) == 3


# Streams of results


@pytest.mark.parametrize("chunksize", [1, 3])
def test_imap(pool, chunksize):
    """imap yields in order and ends."""
    results = pool.imap(square, range(7), chunksize=chunksize)
    assert next(results) == 0
    assert list(results) == [1, 4, 9, 16, 25, 36]
    with pytest.raises(StopIteration):
        results.next()


@pytest.mark.parametrize("chunksize", [1, 3])
def test_imap_unordered(pool, chunksize):
    """imap_unordered yields everything."""
    results = pool.imap_unordered(square, range(7), chunksize=chunksize)
    assert sorted(results) == [square(value) for value in range(7)]


def test_imap_unordered_ready_first(pool, gate):
    """imap_unordered yields a ready result before an earlier one that isn't."""
    results = pool.imap_unordered(
        lambda late: wait_for(gate) if late else "at once", [True, False]
    )
    assert results.next(timeout=30) == "at once"
    gate.open()
    assert list(results) == ["done"]


@pytest.mark.parametrize("method", ["imap", "imap_unordered"])
def test_imap_timeout(pool, gate, method):
    """A result that is not there in time comes later."""
    results = getattr(pool, method)(wait_for, [gate])
    with pytest.raises(multiprocessing.TimeoutError):
        results.next(timeout=0.1)
    gate.open()
    assert results.next(timeout=30) == "done"


def test_imap_reads_input_as_needed(pool):
    """The input of imap may be endless."""
    taken = []

    def endless():
        while True:
            taken.append(len(taken))
            yield taken[-1]

    results = pool.imap(square, endless())
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    assert len(taken) < 30


@pytest.mark.beyond_ray(reason="Ray yields a wrapper of the exception as a result")
@pytest.mark.parametrize("chunksize", [1, 3])
def test_imap_raises_and_goes_on(pool, chunksize):
    """The error of an item is raised in its place; the rest follows."""
    results = pool.imap(fail_odd, range(3), chunksize=chunksize)
    assert next(results) == 0
    with pytest.raises(ValueError, match="odd 1"):
        next(results)
    assert next(results) == 2
    with pytest.raises(StopIteration):
        next(results)


@pytest.mark.beyond_ray(reason="Ray's iterator raises ValueError after close")
def test_imap_outlives_close(make):
    """An iterator made before close yields all its results after join."""
    pool = make(2)
    results = pool.imap(square, range(20))
    pool.close()
    pool.join()
    assert list(results) == [square(value) for value in range(20)]


# Processes


def test_initializer(make):
    """Every process runs the initializer before anything else."""
    pool = make(
        2, initializer=lambda name: setattr(os, "pool_name", name), initargs=("x",)
    )
    assert pool.map(lambda _: os.pool_name, range(8), chunksize=1) == ["x"] * 8


def test_failing_initializer(ray_session):
    """An initializer that raises fails the pool."""

    def broken():
        raise RuntimeError("no start")

    with pytest.raises(ray.exceptions.RayActorError, match="no start"):
        Pool(1, initializer=broken)


def test_maxtasksperchild(make):
    """A process is replaced after so many chunks."""
    pool = make(1, maxtasksperchild=2)
    pids = [pool.apply(process_id) for _ in range(5)]
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]
    assert len(set(pids)) == 3
    assert len(set(pool.map(process_id, range(6), chunksize=3))) <= 2


def test_process_count_is_checked(ray_session):
    """Not none, and not more than there are CPUs."""
    for count in (0, -1):
        with pytest.raises(ValueError):
            Pool(count)
    with pytest.raises(ValueError, match="CPUs"):
        Pool(int(ray.cluster_resources()["CPU"]) + 1)


def test_options_of_the_actors(make):
    """ray_remote_args are options of the processes, and checked as such."""
    pool = make(1, ray_remote_args={"runtime_env": {"env_vars": {"POOL_VAR": "1"}}})
    assert pool.apply(os.getenv, ("POOL_VAR",)) == "1"
    with pytest.raises(ValueError):
        Pool(1, ray_remote_args={"no_such_option": 1})


def test_death_of_a_process(pool):
    """The call whose process dies raises an actor error."""
    with pytest.raises(ray.exceptions.RayActorError):
        pool.apply(os._exit, (1,))


@pytest.mark.beyond_ray(reason="in Ray every later call fails like the first")
def test_pool_survives_the_death_of_a_process(pool):
    """A dead process is replaced, and calls behind the fatal one are not lost."""
    fatal = pool.apply_async(os._exit, (1,))
    others = [pool.apply_async(square, (value,)) for value in range(20)]
    with pytest.raises(ray.exceptions.RayActorError):
        fatal.get(timeout=30)
    assert [one.get(timeout=30) for one in others] == [
        square(value) for value in range(20)
    ]


@pytest.mark.beyond_ray(reason="Ray raises a TypeError or RaySystemError without it")
def test_exception_that_cannot_travel(pool):
    """An exception that can't be rebuilt arrives described, as MaybeEncodingError."""

    class Unbuildable(Exception):
        def __init__(self, one, two):
            super().__init__(one)

    def raise_it():
        raise Unbuildable("what happened", 2)

    with pytest.raises(multiprocessing.pool.MaybeEncodingError, match="what happened"):
        pool.apply(raise_it)
    assert pool.apply(square, (2,)) == 4


def test_result_that_cannot_travel(pool):
    """A result that can't be serialised is a TypeError, and the pool goes on."""
    with pytest.raises(TypeError):
        pool.apply(threading.Lock)
    assert pool.apply(square, (2,)) == 4


@pytest.mark.beyond_ray(reason="Ray does not send the traceback")
def test_remote_traceback(pool):
    """The cause of a remote exception tells where it was raised."""
    with pytest.raises(ValueError) as caught:
        pool.apply(fail, (1,))
    assert "in fail" in str(caught.value.__cause__)


# The end


def test_close_and_join(make):
    """A closed pool takes nothing more and finishes what it has."""
    pool = make(2)
    with pytest.raises(ValueError):
        pool.join()
    result = pool.map_async(lambda _: time.sleep(0.05), range(6), chunksize=1)
    pool.close()
    pool.close()
    for call in (
        lambda: pool.apply(square, (1,)),
        lambda: pool.map(square, [1]),
        lambda: pool.imap(square, [1]),
        lambda: pool.starmap_async(add, [(1, 1)]),
    ):
        with pytest.raises(ValueError):
            call()
    pool.join()
    assert result.get(timeout=30) == [None] * 6


def test_terminate(make, gate):
    """terminate ends running calls; their results are errors."""
    pool = make(1)
    results = [pool.apply_async(wait_for, (gate,)) for _ in range(3)]
    pool.terminate()
    for result in results:
        with pytest.raises(ray.exceptions.RayActorError):
            result.get(timeout=30)
    with pytest.raises(ValueError):
        pool.apply(square, (1,))
    pool.join()


def test_context_manager(ray_session):
    """Leaving the block ends the pool."""
    with Pool(2) as pool:
        assert pool.map(square, [1, 2]) == [1, 4]
    with pytest.raises(ValueError):
        pool.map(square, [1])
    pool.join()


def test_processes_end(ray_session):
    """No process of a pool is left after join."""
    import psutil

    pool = Pool(2)
    pids = set(pool.map(process_id, range(20), chunksize=1))
    pool.close()
    pool.join()
    eventually(
        lambda: not any(psutil.pid_exists(pid) for pid in pids), 20, "processes ended"
    )


@pytest.mark.beyond_ray(reason="not said of Ray's pool")
def test_forgotten_pool_finishes(ray_session):
    """A pool that nobody holds finishes its calls and ends its processes."""
    import psutil

    result = Pool(1).apply_async(process_id)
    pid = result.get(timeout=30)
    eventually(lambda: not psutil.pid_exists(pid), 20, "the process ended")


def test_pool_cannot_be_sent(pool):
    """A pool can't be pickled."""
    import pickle

    with pytest.raises((NotImplementedError, AttributeError, TypeError)):
        pickle.dumps(pool)


def test_starts_a_session(fresh_ray):
    """Without an instance, the pool starts one with as many CPUs as processes."""
    with Pool(3) as pool:
        assert pool.apply(square, (3,)) == 9
        assert ray.cluster_resources()["CPU"] == 3
