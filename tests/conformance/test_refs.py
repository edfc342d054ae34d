"""Object refs: identity, travelling inside values, dependencies, awaiting."""

import asyncio
import copy
import pickle

import pytest
from conformance_impl import eventually, ray


@ray.remote
def identity(value):
    return value


@ray.remote
def fail():
    raise KeyError("gone")


@ray.remote
def held(gate, value):
    gate.wait()
    return value


@ray.remote
def type_names(*args, **kwargs):
    return [type(value).__name__ for value in (*args, *kwargs.values())]


@ray.remote
def get_inside(container):
    return ray.get(container[0])


# ---------------------------------------------------------------- identity


def test_hex_binary_and_repr(ray_session):
    """An id is 28 bytes; hex and repr show all of it."""
    ref = ray.put(1)
    assert len(ref.binary()) == 28
    assert ref.hex() == ref.binary().hex()
    assert repr(ref) == str(ref) == f"ObjectRef({ref.hex()})"


def test_equality_and_hash(ray_session):
    """Refs are equal by id and can be keys; refs of different objects differ."""
    first, second = ray.put(1), ray.put(1)
    again = copy.copy(first)
    assert first == again
    assert hash(first) == hash(again)
    assert first != second
    assert first != first.hex()
    assert {first: "a", second: "b"}[again] == "a"


def test_ref_is_truthy_and_not_iterable(ray_session):
    """A ref is true whatever its value, and cannot be iterated or indexed."""
    ref = ray.put(0)
    assert ref
    with pytest.raises(TypeError):
        iter(ref)
    with pytest.raises(TypeError):
        ref[0]


def test_nil_and_class_members(ray_session):
    """`nil()`, `size()`, `ObjectRef[int]` and the old name ObjectID."""
    assert ray.ObjectRef.nil().is_nil()
    assert ray.ObjectRef.size() == 28
    assert not ray.put(1).is_nil()
    assert ray.ObjectRef[int] is not None
    assert ray.ObjectID is ray.ObjectRef


def test_task_and_job_of_a_ref(ray_session):
    """Refs of one task name the same task; the job is the driver's."""
    first, second = identity.options(num_returns=2).remote((1, 2))
    other = identity.remote(1)
    assert first.task_id() == second.task_id()
    assert first.task_id() != other.task_id()
    job = ray.get_runtime_context().get_job_id()
    assert first.job_id().hex() == other.job_id().hex() == job


@pytest.mark.parametrize("pickler", ["pickle", "cloudpickle"])
def test_pickled_out_of_band(ray_session, pickler):
    """A ref survives the standard pickler and the function pickler."""
    module = pickle if pickler == "pickle" else ray.cloudpickle
    ref = identity.remote("kept")
    data = module.dumps({"ref": ref})
    back = module.loads(data)["ref"]
    assert back == ref
    assert ray.get(back) == "kept"


# ---------------------------------------------------------------- dependencies


def test_top_level_refs_arrive_as_values(ray_session):
    """Refs that are arguments themselves arrive as values, positional or keyword."""
    assert ray.get(type_names.remote(ray.put(1), "a", key=ray.put([]))) == [
        "int",
        "str",
        "list",
    ]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda ref: [ref],
        lambda ref: (ref,),
        lambda ref: {0: ref},
        lambda ref: [[ref]],
    ],
    ids=["list", "tuple", "dict", "nested"],
)
def test_refs_in_containers_stay_refs(ray_session, wrap):
    """A ref inside a container arrives as a ref."""
    ref = ray.put("inside")
    back = ray.get(identity.remote(wrap(ref)))
    assert back == wrap(ref)


def test_refs_in_containers_can_be_fetched_in_the_task(ray_session):
    """The task can get a ref that came inside a container."""
    assert ray.get(get_inside.remote([identity.remote("x")])) == "x"


def test_ref_in_an_object_attribute(ray_session):
    """A ref may hide in an attribute of any object."""

    class Box:
        def __init__(self, ref):
            self.ref = ref

    @ray.remote
    def open_box(box):
        return ray.get(box.ref)

    assert ray.get(open_box.remote(Box(ray.put(5)))) == 5


def test_ref_in_a_closure(ray_session):
    """A ref that a remote function closes over works in the task."""
    ref = ray.put(41)

    @ray.remote
    def use():
        return ray.get(ref) + 1

    assert ray.get(use.remote()) == 42


def test_task_waits_for_its_dependencies(ray_session, gate, journal):
    """A task starts when the values of its top-level refs are there, not before."""

    @ray.remote
    def consume(value):
        journal.add("consumer")
        return value

    @ray.remote
    def produce():
        gate.wait()
        journal.add("producer")
        return "made"

    ref = consume.remote(produce.remote())
    assert ray.wait([ref], timeout=0.3) == ([], [ref])
    assert journal.read() == []
    gate.open()
    assert ray.get(ref) == "made"
    assert journal.read() == ["producer", "consumer"]


def test_nested_ref_does_not_delay_the_task(ray_session, gate):
    """A ref inside a container is no dependency."""
    pending = held.remote(gate, 1)
    assert ray.get(type_names.remote([pending]), timeout=30) == ["list"]
    gate.open()
    ray.get(pending)


def test_chain_and_fan_in(ray_session):
    """Results can be passed on unseen, in chains and many at once."""

    @ray.remote
    def total(*values):
        return sum(values)

    ref = ray.put(0)
    for _ in range(20):
        ref = total.remote(ref, 1)
    assert ray.get(total.remote(*[ref] * 50)) == 1000


def test_waiting_tasks_hold_no_cpu(ray_session, gate):
    """Tasks that wait for arguments do not keep others from running."""
    pending = held.remote(gate, 1)
    waiting = [identity.remote(pending) for _ in range(20)]
    assert ray.get([identity.remote(n) for n in range(5)], timeout=30) == list(range(5))
    gate.open()
    assert ray.get(waiting) == [1] * 20


# ---------------------------------------------------------------- refs as values


def test_returned_ref_is_not_flattened(ray_session):
    """A task that returns a ref gives a ref to a ref."""

    @ray.remote
    def start():
        return identity.remote("deep")

    inner = ray.get(start.remote())
    assert isinstance(inner, ray.ObjectRef)
    assert ray.get(inner) == "deep"


def test_ref_put_by_a_worker_stays_good(ray_session):
    """What a worker put is there for whoever holds the ref."""

    @ray.remote
    def make():
        return [ray.put(number) for number in range(3)], [ray.put(bytes(300_000))]

    small, large = ray.get(make.remote())
    assert ray.get(small) == [0, 1, 2]
    assert ray.get(large) == [bytes(300_000)]


def test_ref_outlives_the_worker_that_put_it(ray_session):
    """A ref made in a task stays good when its worker is retired in good order."""

    @ray.remote(max_calls=1)
    def make():
        return ray.put("kept")

    refs = ray.get([make.remote() for _ in range(3)])
    assert ray.get(refs) == ["kept"] * 3


def test_borrowed_ref_outlives_the_lenders_variable(ray_session, gate):
    """A task keeps an object alive through a ref it was given inside a container."""

    @ray.remote
    def late(container):
        gate.wait()
        return len(ray.get(container[0]))

    ref = ray.put(bytes(400_000))
    result = late.remote([ref])
    del ref
    gate.open()
    assert ray.get(result) == 400_000


def test_ref_in_a_put_value_outlives_the_variable(ray_session):
    """An object that holds a ref keeps the other object."""
    inner = ray.put(bytes(400_000))
    outer = ray.put({"inner": inner})
    del inner
    assert len(ray.get(ray.get(outer)["inner"])) == 400_000


def test_many_refs_in_one_object(ray_session):
    """An object may hold a thousand refs."""
    refs = [ray.put(number) for number in range(1000)]
    back = ray.get(ray.put(refs))
    assert back == refs
    assert ray.get(back) == list(range(1000))


# ---------------------------------------------------------------- await, futures


def test_await(ray_session):
    """`await ref` gives the value in any running event loop."""

    async def main():
        return await identity.remote(3), await ray.put("put")

    assert asyncio.run(main()) == (3, "put")


def test_await_raises_like_get(ray_session):
    """`await` raises the same dual exception as get."""

    async def main():
        with pytest.raises(KeyError) as caught:
            await fail.remote()
        assert isinstance(caught.value, ray.exceptions.RayTaskError)

    asyncio.run(main())


def test_gather_and_wait(ray_session, gate):
    """Refs work with asyncio.gather, wait and wait_for."""

    async def main():
        pending = held.remote(gate, "late")
        assert await asyncio.gather(*[identity.remote(n) for n in range(3)]) == [
            0,
            1,
            2,
        ]
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(pending, timeout=0.1)
        gate.open()
        futures = [asyncio.ensure_future(_await(ref)) for ref in (pending, ray.put(1))]
        done, rest = await asyncio.wait(futures)
        assert len(done) == 2
        assert not rest
        return await pending

    assert asyncio.run(main()) == "late"


async def _await(ref):
    return await ref


def test_concurrent_future(ray_session, gate):
    """`ref.future()` is a concurrent.futures.Future with callbacks."""
    future = held.remote(gate, "value").future()
    assert not future.done()
    seen = []
    future.add_done_callback(lambda done: seen.append(done.result()))
    gate.open()
    assert future.result(timeout=30) == "value"
    eventually(lambda: seen == ["value"], why="the callback ran")


def test_concurrent_future_of_an_error(ray_session):
    """The future of a failed task raises what get raises."""
    future = fail.remote().future()
    with pytest.raises(KeyError):
        future.result(timeout=30)
    assert isinstance(future.exception(), ray.exceptions.RayTaskError)
