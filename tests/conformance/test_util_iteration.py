"""as_completed and map_unordered: order, laziness, back-pressure, validation."""

import pytest
from conformance_impl import ray


@ray.remote
def square(value):
    if value == "broken":
        raise ValueError(value)
    return value * value


@ray.remote
def wait_for(gate, value):
    gate.wait()
    return value


@ray.remote
class Squarer:
    def square(self, value):
        return value * value


def test_as_completed_yields_every_value(ray_session):
    """Every value comes, also when there are more than fit into a chunk."""
    refs = [square.remote(value) for value in range(25)]
    values = list(ray.util.as_completed(refs, chunk_size=4))
    assert sorted(values) == [value * value for value in range(25)]


def test_as_completed_ready_first(ray_session, gate):
    """A value that is ready does not wait for one that isn't."""
    refs = [wait_for.remote(gate, "late"), square.remote(3)]
    results = ray.util.as_completed(refs, chunk_size=1)
    assert next(results) == 9
    gate.open()
    assert list(results) == ["late"]


@pytest.mark.beyond_ray(reason="Ray holds ready values back until a chunk is full")
def test_as_completed_does_not_wait_for_a_chunk(ray_session, gate):
    """The size of a chunk is a limit, not something to wait for."""
    refs = [wait_for.remote(gate, "late"), square.remote(3)]
    results = ray.util.as_completed(refs, chunk_size=2)
    assert next(results) == 9
    gate.open()
    assert list(results) == ["late"]


def test_as_completed_refs(ray_session):
    """With yield_obj_refs the refs themselves come."""
    refs = [square.remote(value) for value in (1, 2)]
    assert set(ray.util.as_completed(refs, yield_obj_refs=True)) == set(refs)


def test_as_completed_error(ray_session):
    """A task's error is raised where its value is due."""
    results = ray.util.as_completed([square.remote("broken")])
    with pytest.raises(ValueError, match="broken"):
        next(results)


def test_as_completed_nothing(ray_session):
    """No refs, no values."""
    assert list(ray.util.as_completed([])) == []


def test_as_completed_timeout_repeats(ray_session, gate):
    """A timeout passed on to wait does not end the iteration."""
    results = ray.util.as_completed([square.remote(2)], timeout=0.01)
    assert list(results) == [4]


@pytest.mark.parametrize("options", [{"num_returns": 1}, {"chunk_size": 0}])
def test_as_completed_refuses(ray_session, options):
    """num_returns and chunks without elements are errors."""
    with pytest.raises(ValueError):
        list(ray.util.as_completed([square.remote(1)], **options))


def test_as_completed_refuses_what_is_no_ref(ray_session):
    """Anything but a ref is a TypeError."""
    with pytest.raises(TypeError):
        list(ray.util.as_completed([1]))


@pytest.mark.parametrize("backpressure_size", [1, 3, 100, None])
def test_map_unordered_yields_every_value(ray_session, backpressure_size):
    """Every item gives one value, whatever the bound."""
    values = ray.util.map_unordered(
        square, iter(range(25)), backpressure_size=backpressure_size
    )
    assert sorted(values) == [value * value for value in range(25)]


def test_map_unordered_with_options(ray_session):
    """A function with options may be mapped."""
    values = ray.util.map_unordered(square.options(num_cpus=0.5), range(3))
    assert sorted(values) == [0, 1, 4]


def test_map_unordered_actor_method(ray_session):
    """A method of an actor may be mapped."""
    squarer = Squarer.remote()
    assert sorted(ray.util.map_unordered(squarer.square, range(3))) == [0, 1, 4]


def test_map_unordered_refs(ray_session):
    """With yield_obj_refs the refs themselves come."""
    refs = list(ray.util.map_unordered(square, range(3), yield_obj_refs=True))
    assert sorted(ray.get(refs)) == [0, 1, 4]


def test_map_unordered_reads_input_as_needed(ray_session):
    """No more items are taken than the bound allows, so input may be endless."""
    taken = []

    def endless():
        while True:
            taken.append(len(taken))
            yield taken[-1]

    results = ray.util.map_unordered(
        square, endless(), backpressure_size=4, chunk_size=2
    )
    for consumed in range(1, 8):
        next(results)
        assert len(taken) <= 4 + consumed
    results.close()


def test_map_unordered_error(ray_session):
    """A task's error is raised where its value is due."""
    with pytest.raises(ValueError, match="broken"):
        list(ray.util.map_unordered(square, [1, "broken"]))


@pytest.mark.parametrize(
    "options", [{"num_returns": 1}, {"chunk_size": 0}, {"backpressure_size": 0}]
)
def test_map_unordered_refuses(ray_session, options):
    """num_returns and sizes below one are errors."""
    with pytest.raises(ValueError):
        list(ray.util.map_unordered(square, [1], **options))


def test_map_unordered_needs_a_remote_function(ray_session):
    """A plain function has no ``.remote``."""
    with pytest.raises(AttributeError):
        list(ray.util.map_unordered(abs, [1]))
