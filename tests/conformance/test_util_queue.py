"""Queue: one queue for all processes.

Claims: the interface and the exceptions of the standard library's queue; batches are
atomic; a queue that was sent elsewhere is the same queue; the end by ``shutdown``.
"""

import asyncio
import queue

import pytest
from conformance_impl import eventually, ray, submodule

module = submodule("util.queue")
Queue, Empty, Full = module.Queue, module.Empty, module.Full


@pytest.fixture
def make(ray_session):
    """Queues that are shut down at the end of the test."""
    made = []

    def make_queue(*args, **kwargs):
        made.append(Queue(*args, **kwargs))
        return made[-1]

    yield make_queue
    for one in made:
        one.shutdown(force=True)


@ray.remote
def put_all(shared, items):
    for item in items:
        shared.put(item)


@ray.remote
def get_one(shared, timeout=30):
    return shared.get(timeout=timeout)


def test_exceptions_are_those_of_the_standard_library():
    """``except queue.Empty`` and ``except queue.Full`` catch ours."""
    assert issubclass(Empty, queue.Empty)
    assert issubclass(Full, queue.Full)


def test_first_in_first_out(make):
    """Items come out in the order in which they went in."""
    shared = make()
    for item in (1, "two", None, [4]):
        shared.put(item)
    assert [shared.get() for _ in range(4)] == [1, "two", None, [4]]


def test_sizes(make):
    """size, qsize, len, empty and full count items."""
    shared = make(maxsize=2)
    assert (shared.size(), shared.empty(), shared.full()) == (0, True, False)
    shared.put(1)
    assert (shared.qsize(), shared.empty(), shared.full()) == (1, False, False)
    shared.put(2)
    assert (len(shared), shared.empty(), shared.full()) == (2, False, True)
    assert shared.maxsize == 2


@pytest.mark.parametrize("maxsize", [0, -1])
def test_no_limit(make, maxsize):
    """A maxsize of zero or less is none."""
    shared = make(maxsize=maxsize)
    shared.put_nowait_batch(list(range(100)))
    assert not shared.full()
    assert shared.size() == 100


@pytest.mark.parametrize(
    "get",
    [
        lambda shared: shared.get_nowait(),
        lambda shared: shared.get(block=False),
        lambda shared: shared.get(timeout=0),
        lambda shared: shared.get(timeout=0.1),
        lambda shared: shared.get_nowait_batch(1),
    ],
)
def test_empty(make, get):
    """Every way of not getting an item raises Empty."""
    with pytest.raises(Empty):
        get(make())


@pytest.mark.parametrize(
    "put",
    [
        lambda shared: shared.put_nowait(1),
        lambda shared: shared.put(1, block=False),
        lambda shared: shared.put(1, timeout=0),
        lambda shared: shared.put(1, timeout=0.1),
        lambda shared: shared.put_nowait_batch([1]),
    ],
)
def test_full(make, put):
    """Every way of not putting an item raises Full."""
    shared = make(maxsize=1)
    shared.put(0)
    with pytest.raises(Full):
        put(shared)
    assert shared.size() == 1


@pytest.mark.beyond_ray(
    reason="on Python 3.11 Ray's queue raises Empty and Full at once, items or not"
)
def test_timeout_zero_tries_once(make):
    """A timeout of zero takes what is there and puts where there is room."""
    shared = make(maxsize=1)
    shared.put("item", timeout=0)
    assert shared.get(timeout=0) == "item"


def test_negative_timeout(make):
    """A negative timeout is a ValueError."""
    shared = make()
    with pytest.raises(ValueError):
        shared.get(timeout=-1)
    with pytest.raises(ValueError):
        shared.put(1, timeout=-1)


def test_batches(make):
    """A batch is put in order, and taken in order."""
    shared = make()
    shared.put_nowait_batch([1, 2])
    shared.put_nowait_batch((3,))
    assert shared.get_nowait_batch(0) == []
    assert shared.get_nowait_batch(3) == [1, 2, 3]


def test_batches_are_all_or_nothing(make):
    """A batch that doesn't fit is not put, one that isn't there is not taken."""
    shared = make(maxsize=3)
    shared.put_nowait_batch([1, 2])
    with pytest.raises(Full):
        shared.put_nowait_batch([3, 4])
    assert shared.size() == 2
    with pytest.raises(Empty):
        shared.get_nowait_batch(3)
    assert shared.size() == 2


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda shared: shared.put_nowait_batch(3), TypeError),
        (lambda shared: shared.get_nowait_batch("1"), TypeError),
        (lambda shared: shared.get_nowait_batch(-1), ValueError),
    ],
)
def test_batch_arguments(make, call, error):
    """Batches are iterables of items, and counts that are not negative."""
    with pytest.raises(error):
        call(make())


def test_shared_by_reference(make):
    """A queue sent to a task is the same queue."""
    shared = make()
    ray.get(put_all.remote(shared, ["a", "b"]))
    assert shared.get_nowait_batch(2) == ["a", "b"]
    shared.put("c")
    assert ray.get(get_one.remote(shared)) == "c"


def test_blocking_get_is_woken(make):
    """A get that waits receives the item that is put later."""
    shared = make()
    waiting = get_one.remote(shared)
    assert ray.wait([waiting], timeout=0.3)[0] == []
    shared.put("late")
    assert ray.get(waiting) == "late"


def test_blocking_put_is_woken(make):
    """A put that waits goes on when an item is taken."""
    shared = make(maxsize=1)
    shared.put(1)
    waiting = put_all.remote(shared, [2])
    assert ray.wait([waiting], timeout=0.3)[0] == []
    assert shared.get() == 1
    ray.get(waiting)
    assert shared.get() == 2


def test_in_coroutines(make):
    """put_async and get_async work in an event loop, with the same errors."""
    shared = make(maxsize=1)

    async def use():
        waiting = asyncio.ensure_future(shared.get_async())
        await shared.put_async("item")
        assert await waiting == "item"
        with pytest.raises(Empty):
            await shared.get_async(block=False)
        with pytest.raises(Empty):
            await shared.get_async(timeout=0.1)
        with pytest.raises(ValueError):
            await shared.get_async(timeout=-1)
        await shared.put_async(1, block=False)
        with pytest.raises(Full):
            await shared.put_async(2, block=False)
        with pytest.raises(Full):
            await shared.put_async(2, timeout=0.1)

    asyncio.run(use())


def test_actor_options(make):
    """The options are those of the actor that holds the items."""
    shared = make(actor_options={"name": "the-queue", "num_cpus": 0})
    assert ray.get_actor("the-queue") == shared.actor
    with pytest.raises(ValueError):
        Queue(actor_options={"no_such_option": 1})


@pytest.mark.parametrize("force", [False, True])
def test_shutdown(ray_session, force):
    """After shutdown the actor is gone, calls raise AttributeError, again is fine."""
    shared = Queue(actor_options={"name": f"ending-{force}"})
    shared.put(1)
    shared.shutdown(force=force)
    shared.shutdown()
    for call in (
        shared.size,
        shared.empty,
        shared.get,
        shared.get_nowait,
        lambda: len(shared),
        lambda: shared.put(1),
        lambda: shared.put_nowait_batch([1]),
        lambda: shared.get_nowait_batch(1),
    ):
        with pytest.raises(AttributeError):
            call()

    def is_gone():
        try:
            ray.get_actor(f"ending-{force}")
        except ValueError:
            return True
        return False

    eventually(is_gone, why="the actor of the queue ended")


def test_shutdown_ends_waiting_calls(ray_session):
    """A call that still waits after the grace period fails."""
    shared = Queue()
    waiting = get_one.remote(shared)
    assert ray.wait([waiting], timeout=0.3)[0] == []
    shared.shutdown(grace_period_s=0.1)
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(waiting)


def test_many_producers_and_consumers(make):
    """Nothing is lost and nothing doubled between several processes."""
    shared = make(maxsize=5)
    producers = [put_all.remote(shared, range(at, at + 20)) for at in (0, 100)]
    items = [shared.get(timeout=30) for _ in range(40)]
    ray.get(producers)
    assert sorted(items) == [*range(20), *range(100, 120)]
    assert [item for item in items if item < 100] == list(range(20))
