"""Local mode: one process, for debuggers, with the semantics of the real thing.

Ray no longer has it (`init(local_mode=True)` raises), so all of this goes beyond Ray.
What must not differ from a cluster: values are copied, errors come out of get, refs in
containers stay refs, and an actor's calls run in order.
"""

import os
import threading

import numpy as np
import pytest
from conformance_impl import ray

pytestmark = [
    pytest.mark.beyond_ray(reason="Ray refuses local_mode since it was removed"),
    pytest.mark.cluster(local_mode=True),
    pytest.mark.usefixtures("ray_session"),
]


@ray.remote
def identity(value):
    return value


@ray.remote
def fail():
    raise KeyError("local")


@ray.remote
class Counter:
    def __init__(self, start=0):
        self.value = start

    def add(self, amount):
        self.value += amount
        return self.value

    def fail(self):
        raise KeyError("actor")


def test_everything_is_one_process():
    """Tasks and actors run in the driver's process."""
    assert ray.is_initialized()
    assert ray.get(ray.remote(lambda: os.getpid()).remote()) == os.getpid()


def test_arguments_are_copied():
    """A task that changes its argument does not change the caller's."""

    @ray.remote
    def change(values):
        values.append("changed")
        return values

    mine = ["mine"]
    assert ray.get(change.remote(mine)) == ["mine", "changed"]
    assert mine == ["mine"]


def test_put_and_get_copy():
    """What is put is taken as it was; each get gives a new object."""
    value = {"items": [1]}
    ref = ray.put(value)
    value["items"].append(2)
    first = ray.get(ref)
    first["items"].append(3)
    assert ray.get(ref) == {"items": [1]}


def test_arrays_are_read_only():
    """Arrays come back read-only, as from a store."""
    for array in (ray.get(ray.put(np.ones(5))), ray.get(identity.remote(np.ones(5)))):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 2


def test_globals_of_a_function_are_copied():
    """A function changes its own copy of what it closes over."""
    seen = []

    @ray.remote
    def remember():
        seen.append(1)
        return len(seen)

    assert ray.get(remember.remote()) == 1
    assert seen == []


def test_errors_come_from_get():
    """`.remote()` does not raise; get raises the dual exception with its text."""
    ref = fail.remote()
    with pytest.raises(KeyError) as caught:
        ray.get(ref)
    assert isinstance(caught.value, ray.exceptions.RayTaskError)
    assert caught.value.cause.args == ("local",)
    assert "fail()" in str(caught.value)
    assert ray.wait([ref]) == ([ref], [])


def test_unpicklable_arguments_are_refused():
    """What could not travel is refused here too."""
    with pytest.raises(TypeError):
        identity.remote(threading.Lock())
    with pytest.raises(TypeError):
        ray.put(threading.Lock())


def test_failed_dependency(journal):
    """A task with a failed argument does not run and carries the error."""

    @ray.remote
    def consume(value):
        journal.add("ran")

    with pytest.raises(KeyError):
        ray.get(consume.remote(fail.remote()))
    assert journal.read() == []


def test_refs_in_containers_stay_refs():
    """Top-level refs become values, refs in containers stay refs."""
    ref = ray.put(1)
    assert ray.get(identity.remote(ref)) == 1
    assert ray.get(identity.remote([ref])) == [ref]


def test_num_returns_and_generators():
    """Several returns and streams work."""

    @ray.remote
    def count():
        yield from [0, 1, 2]

    assert ray.get(identity.options(num_returns=2).remote((1, 2))) == [1, 2]
    assert [ray.get(ref) for ref in count.remote()] == [0, 1, 2]


def test_nested_tasks():
    """Tasks start tasks."""

    @ray.remote
    def down(depth):
        return 0 if depth == 0 else 1 + ray.get(down.remote(depth - 1))

    assert ray.get(down.remote(20)) == 20


def test_actor_order_state_and_errors():
    """An actor's calls run in order, its state is its own, its errors are dual."""
    counter = Counter.remote(10)
    assert ray.get([counter.add.remote(n) for n in (1, 2, 3)]) == [11, 13, 16]
    with pytest.raises(KeyError) as caught:
        ray.get(counter.fail.remote())
    assert isinstance(caught.value, ray.exceptions.RayTaskError)
    assert ray.get(counter.add.remote(0)) == 16


def test_handles_and_names():
    """Handles travel into tasks; a named actor can be looked up; kill ends it."""
    counter = Counter.options(name="local-counter").remote()

    @ray.remote
    def use(handle):
        return ray.get(handle.add.remote(5))

    assert ray.get(use.remote(counter)) == 5
    assert ray.get(ray.get_actor("local-counter").add.remote(1)) == 6
    ray.kill(counter)
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(counter.add.remote(1))


def test_retry_exceptions(journal):
    """Retries on exceptions happen as on a cluster."""

    @ray.remote(retry_exceptions=True, max_retries=2)
    def flaky():
        if journal.add("try") < 3:
            raise ValueError("not yet")
        return "done"

    assert ray.get(flaky.remote()) == "done"
