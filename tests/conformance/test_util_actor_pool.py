"""ActorPool: distribution, order, timeouts, errors and membership.

Claims: results of ``map`` and ``get_next`` come in submission order, those of the
unordered forms as they become ready; a call is started as soon as an actor is free;
an actor serves again after a call that raised, and not after it died.
"""

import os

import pytest
from conformance_impl import eventually, ray, submodule

ActorPool = submodule("util.actor_pool").ActorPool


@ray.remote
class Worker:
    def double(self, value):
        return value * 2

    def fail(self, value):
        raise ValueError(value)

    def die(self, value):
        os._exit(1)

    def wait_for(self, gate, value):
        gate.wait()
        return value

    def note(self, journal, value):
        journal.add(value)
        return value

    @ray.method(num_returns=2)
    def pair(self, value):
        return value, -value


@pytest.fixture
def pool(ray_session):
    return ActorPool([Worker.remote() for _ in range(2)])


def double(actor, value):
    return actor.double.remote(value)


def test_is_in_util():
    """``util.ActorPool`` is the class of ``util.actor_pool``."""
    assert ray.util.ActorPool is ActorPool


def test_map_keeps_order(pool):
    """``map`` yields one result per value, in the order of the values."""
    assert list(pool.map(double, range(10))) == [2 * value for value in range(10)]


def test_map_of_nothing(pool):
    """``map`` over nothing yields nothing."""
    assert list(pool.map(double, [])) == []


def test_map_submits_at_once(pool, journal):
    """The calls of ``map`` start before anyone asks for a result."""
    results = pool.map(lambda actor, value: actor.note.remote(journal, value), [1, 2])
    eventually(lambda: len(journal.read()) == 2, why="both calls ran")
    assert list(results) == [1, 2]


def test_map_unordered_takes_the_ready_one(pool, gate):
    """``map_unordered`` yields a ready result before an earlier one that isn't."""
    results = pool.map_unordered(
        lambda actor, value: (
            actor.wait_for.remote(gate, value)
            if value == "late"
            else actor.double.remote(value)
        ),
        ["late", 1, 2],
    )
    assert next(results) == 2
    assert next(results) == 4
    gate.open()
    assert list(results) == ["late"]


def test_map_waits_for_the_earlier_one(pool, gate):
    """``map`` does not yield a ready result before an earlier one."""
    pool.submit(lambda actor, value: actor.wait_for.remote(gate, value), "first")
    pool.submit(double, 1)
    with pytest.raises(TimeoutError):
        pool.get_next(timeout=0.2)
    gate.open()
    assert pool.get_next() == "first"
    assert pool.get_next() == 2


def test_new_map_discards_old_results(pool):
    """Results that were not taken are not results of the next ``map``."""
    pool.map(double, [1, 2, 3, 4, 5])
    assert list(pool.map(double, [10])) == [20]
    assert not pool.has_next()
    assert pool.has_free()


def test_submitted_values_wait_for_an_actor(pool):
    """More values than actors: all are served, and has_free says when one is idle."""
    assert (pool.has_next(), pool.has_free()) == (False, True)
    for value in range(3):
        pool.submit(double, value)
    assert (pool.has_next(), pool.has_free()) == (True, False)
    assert [pool.get_next() for _ in range(3)] == [0, 2, 4]
    assert (pool.has_next(), pool.has_free()) == (False, True)


@pytest.mark.parametrize("method", ["get_next", "get_next_unordered"])
def test_nothing_to_get(pool, method):
    """Asking for a result that nobody asked to compute raises StopIteration."""
    with pytest.raises(StopIteration):
        getattr(pool, method)()


@pytest.mark.parametrize("method", ["get_next", "get_next_unordered"])
def test_timeout_keeps_the_result(pool, gate, method):
    """A result that was late can be taken later."""
    pool.submit(lambda actor, value: actor.wait_for.remote(gate, value), "late")
    with pytest.raises(TimeoutError):
        getattr(pool, method)(timeout=0.1)
    assert pool.has_next()
    gate.open()
    assert getattr(pool, method)() == "late"


def test_timeout_zero_takes_what_is_ready(pool):
    """A timeout of zero takes a ready result and does not wait for one."""
    pool.submit(double, 4)

    def taken():
        try:
            return [pool.get_next(timeout=0)]
        except TimeoutError:
            return None

    assert eventually(taken, why="the call finished") == [8]


def test_ignored_result_is_skipped(pool, gate):
    """With ignore_if_timedout the late result is given up, and the next one comes."""
    pool.submit(lambda actor, value: actor.wait_for.remote(gate, value), "late")
    pool.submit(double, 1)
    with pytest.raises(TimeoutError):
        pool.get_next(timeout=0.1, ignore_if_timedout=True)
    assert pool.get_next() == 2
    assert not pool.has_next()
    gate.open()


@pytest.mark.beyond_ray(
    reason="Ray 2.60 fails with UnboundLocalError in place of the TimeoutError"
)
def test_ignored_result_unordered(pool, gate):
    """get_next_unordered gives up the oldest result when none is ready."""
    pool.submit(lambda actor, value: actor.wait_for.remote(gate, value), "late")
    with pytest.raises(TimeoutError):
        pool.get_next_unordered(timeout=0.1, ignore_if_timedout=True)
    assert not pool.has_next()
    gate.open()


def test_no_order_after_unordered(pool, gate):
    """get_next raises once a later result was handed out, until all are taken."""
    pool.submit(lambda actor, value: actor.wait_for.remote(gate, value), "late")
    pool.submit(double, 1)
    assert pool.get_next_unordered() == 2
    with pytest.raises(ValueError):
        pool.get_next()
    gate.open()
    assert pool.get_next_unordered() == "late"
    pool.submit(double, 3)
    assert pool.get_next() == 6


@pytest.mark.parametrize("method", ["get_next", "get_next_unordered"])
def test_error_keeps_the_actor(pool, method):
    """The error of a call is raised where its result is due; the actor serves on."""
    pool.submit(lambda actor, value: actor.fail.remote(value), "broken")
    with pytest.raises(ValueError, match="broken"):
        getattr(pool, method)()
    assert len([pool.pop_idle(), pool.pop_idle()]) == 2
    assert pool.pop_idle() is None


@pytest.mark.parametrize("method", ["get_next", "get_next_unordered"])
def test_dead_actor_leaves_the_pool(ray_session, method):
    """An actor that died is not given further calls."""
    pool = ActorPool([Worker.remote()])
    pool.submit(lambda actor, value: actor.die.remote(value), 1)
    with pytest.raises(ray.exceptions.ActorDiedError):
        getattr(pool, method)()
    assert not pool.has_free()
    assert pool.pop_idle() is None


def test_calls_waiting_for_a_new_actor(ray_session):
    """Values submitted to a pool without actors are served by one that is pushed."""
    pool = ActorPool([])
    pool.submit(double, 1)
    assert not pool.has_free()
    pool.push(Worker.remote())
    assert pool.get_next() == 2


@pytest.mark.beyond_ray(
    reason="Ray ends silently, without the results of the values that wait"
)
def test_waiting_calls_are_not_lost_silently(ray_session):
    """A pool whose actors are all dead says so; it does not just end early."""
    pool = ActorPool([Worker.remote()])
    pool.submit(lambda actor, value: actor.die.remote(value), 1)
    pool.submit(double, 2)
    with pytest.raises(ray.exceptions.ActorDiedError):
        pool.get_next()
    assert pool.has_next()
    with pytest.raises(RuntimeError, match=r"push\(\) an actor"):
        pool.get_next()
    pool.push(Worker.remote())
    assert pool.get_next() == 4


def test_membership(ray_session, gate):
    """pop_idle and push move idle actors; a member, busy or not, can't be pushed."""
    first, second = Worker.remote(), Worker.remote()
    pool = ActorPool([first])
    with pytest.raises(ValueError):
        pool.push(first)
    pool.submit(lambda actor, value: actor.wait_for.remote(gate, value), "done")
    with pytest.raises(ValueError):
        pool.push(first)
    assert pool.pop_idle() is None
    pool.push(second)
    assert pool.pop_idle() == second
    gate.open()
    assert pool.get_next() == "done"
    assert pool.pop_idle() == first


def test_call_with_several_refs(pool):
    """A call that returns a list of refs has a list of values as its result."""
    pool.submit(lambda actor, value: actor.pair.remote(value), 3)
    assert pool.get_next() == [3, -3]


def test_waiting_calls_take_turns(ray_session, journal):
    """One actor runs the values in the order in which they were submitted."""
    pool = ActorPool([Worker.remote()])
    note = lambda actor, value: actor.note.remote(journal, value)  # noqa: E731
    assert list(pool.map(note, range(5))) == list(range(5))
    assert journal.read() == [str(value) for value in range(5)]
