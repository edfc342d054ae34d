"""Generators: streaming, dynamic and fixed numbers of returns, back-pressure."""

import asyncio
import pickle

import pytest
from conformance_impl import eventually, ray


# The loops are spelled out: Ray cannot run `yield from` over what is no generator.
@ray.remote
def count(number):
    for item in range(number):  # noqa: UP028
        yield item


@ray.remote
def count_then_fail(number):
    for item in range(number):  # noqa: UP028
        yield item
    raise ValueError("mid-stream")


@ray.remote
def identity(value):
    return value


@ray.remote
def gated(gate, number):
    """Yield 0, then wait for the gate, then yield the rest."""
    yield 0
    gate.wait()
    for item in range(1, number):  # noqa: UP028
        yield item


def test_generator_function_streams_by_default(ray_session):
    """A generator function gives an ObjectRefGenerator, which yields refs."""
    generator = count.remote(3)
    assert isinstance(generator, ray.ObjectRefGenerator)
    refs = list(generator)
    assert all(isinstance(ref, ray.ObjectRef) for ref in refs)
    assert ray.get(refs) == [0, 1, 2]


def test_streaming_can_be_said(ray_session):
    """`num_returns="streaming"` is the same."""
    generator = count.options(num_returns="streaming").remote(2)
    assert [ray.get(ref) for ref in generator] == [0, 1]


def test_first_item_comes_before_the_task_ends(ray_session, gate):
    """Items can be taken while the task still runs."""
    generator = gated.remote(gate, 3)
    assert ray.get(next(generator)) == 0
    assert not generator.is_finished()
    assert ray.wait([generator.completed()], timeout=0)[0] == []
    gate.open()
    assert [ray.get(ref) for ref in generator] == [1, 2]


@pytest.mark.beyond_ray(reason="Ray calls send(), which an iterator does not have")
def test_yield_from_an_iterator(ray_session):
    """`yield from` works over any iterable, as in Python."""

    @ray.remote
    def delegate():
        yield from range(3)

    assert [ray.get(ref) for ref in delegate.remote()] == [0, 1, 2]


def test_empty_generator(ray_session):
    """No yield, no items."""
    assert list(count.remote(0)) == []


def test_exhausted_generator_stays_exhausted(ray_session):
    """After the end every next raises StopIteration."""
    generator = count.remote(1)
    next(generator)
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(generator)
    assert generator.is_finished()


def test_items_outlive_the_generator(ray_session):
    """Refs that were taken stay good when the generator is dropped."""
    generator = count.remote(5)
    kept = [next(generator), next(generator)]
    del generator
    assert ray.get(kept) == [0, 1]


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_item_sizes(ray_session, size):
    """Items may be small or large."""

    @ray.remote
    def blocks():
        for number in range(4):
            yield bytes([number]) * size

    got = [ray.get(ref) for ref in blocks.remote()]
    assert got == [bytes([number]) * size for number in range(4)]


def test_items_as_arguments(ray_session):
    """An item's ref can be passed to other tasks."""
    refs = [identity.remote(ref) for ref in count.remote(4)]
    assert ray.get(refs) == [0, 1, 2, 3]


def test_error_mid_stream(ray_session):
    """Items before an error are good; then one ref raises it, then the stream ends."""
    generator = count_then_fail.remote(2)
    refs = list(generator)
    assert ray.get(refs[:2]) == [0, 1]
    assert len(refs) == 3
    with pytest.raises(ValueError, match="mid-stream") as caught:
        ray.get(refs[2])
    assert isinstance(caught.value, ray.exceptions.RayTaskError)


def test_error_before_the_first_item(ray_session):
    """An error before the first yield is the first and only item."""
    refs = list(count_then_fail.remote(0))
    assert len(refs) == 1
    with pytest.raises(ValueError):
        ray.get(refs[0])


def test_failed_dependency_of_a_generator(ray_session):
    """A generator task whose argument failed yields that error."""
    bad = identity.options(num_returns=2).remote((1,))[0]
    refs = list(count.remote(bad))
    assert len(refs) == 1
    with pytest.raises(ValueError):
        ray.get(refs[0])


def test_completed(ray_session):
    """`completed()` is a ref that is ready when the task is; it holds no item."""
    generator = count.remote(3)
    ray.get(generator.completed())
    assert [ray.get(ref) for ref in generator] == [0, 1, 2]


def test_completed_does_not_raise_a_mid_stream_error(ray_session):
    """The error belongs to the items; `completed()` does not raise it."""
    generator = count_then_fail.remote(1)
    ray.get(generator.completed())


def test_next_ready(ray_session, gate):
    """`next_ready()` says without blocking whether next() would return."""
    generator = gated.remote(gate, 2)
    eventually(generator.next_ready, 30, "the first item is there")
    next(generator)
    assert not generator.next_ready()
    gate.open()
    eventually(generator.next_ready, 30, "the second item is there")
    assert ray.get(next(generator)) == 1


def test_wait_takes_generators(ray_session, gate):
    """`wait` on a generator: ready when the next item is there, mixed with refs."""
    generator = gated.remote(gate, 2)
    ref = ray.put(1)
    ready, rest = ray.wait([generator, ref], num_returns=2, timeout=30)
    assert len(ready) == 2
    assert rest == []
    next(generator)
    assert ray.wait([generator], timeout=0) == ([], [generator])
    gate.open()
    assert ray.wait([generator], timeout=30) == ([generator], [])


def test_get_returns_a_generator_unchanged(ray_session):
    """`get` of a generator is the generator."""
    generator = count.remote(1)
    assert ray.get(generator) is generator


@pytest.mark.parametrize("method", ["send", "throw", "close"])
def test_generator_protocol_is_not_there(ray_session, method):
    """send, throw and close raise NotImplementedError."""
    generator = count.remote(1)
    arguments = {"send": (1,), "throw": (ValueError(),), "close": ()}[method]
    with pytest.raises(NotImplementedError):
        getattr(generator, method)(*arguments)


def test_generator_cannot_travel(ray_session):
    """A generator cannot be pickled or passed to a task."""
    generator = count.remote(1)
    with pytest.raises(TypeError):
        pickle.dumps(generator)
    with pytest.raises(TypeError):
        identity.remote(generator)


def test_async_iteration(ray_session):
    """`async for` yields refs, which can be awaited."""

    async def main():
        return [await ref async for ref in count.remote(4)]

    assert asyncio.run(main()) == [0, 1, 2, 3]


def test_async_iteration_of_an_error(ray_session):
    """An error mid-stream comes out of awaiting its item; then the loop ends."""

    async def main():
        seen = []
        async for ref in count_then_fail.remote(1):
            try:
                seen.append(await ref)
            except ValueError:
                seen.append("error")
        return seen

    assert asyncio.run(main()) == [0, "error"]


def test_two_streams_at_once(ray_session):
    """Two generators can be read in turns, also by asyncio."""

    async def read(generator):
        return [await ref async for ref in generator]

    async def main():
        return await asyncio.gather(read(count.remote(3)), read(count.remote(2)))

    assert asyncio.run(main()) == [[0, 1, 2], [0, 1]]


def test_backpressure(ray_session, journal):
    """With a limit of one the producer waits until its item was taken."""

    @ray.remote(_generator_backpressure_num_objects=1)
    def produce():
        for number in range(4):
            journal.add(number)
            yield number

    generator = produce.remote()
    eventually(lambda: len(journal.read()) >= 1, why="the first item is made")
    for taken in range(1, 5):
        assert ray.wait([generator.completed()], timeout=0.1)[0] == []
        assert len(journal.read()) <= taken + 1
        assert ray.get(next(generator)) == taken - 1
    assert journal.read() == ["0", "1", "2", "3"]


def test_no_backpressure_by_default(ray_session, journal):
    """Without a limit the producer runs to its end with nobody reading."""

    @ray.remote
    def produce():
        for number in range(50):
            journal.add(number)
            yield number

    generator = produce.remote()
    ray.get(generator.completed(), timeout=30)
    assert len(journal.read()) == 50
    assert sum(ray.get(list(generator))) == sum(range(50))


@pytest.mark.filterwarnings("ignore")
def test_dynamic(ray_session):
    """`num_returns="dynamic"`: one ref to an iterable of refs that has a length."""
    inner = ray.get(count.options(num_returns="dynamic").remote(3))
    assert isinstance(inner, ray.DynamicObjectRefGenerator)
    assert len(inner) == 3
    assert ray.get(list(inner)) == [0, 1, 2]


def test_dynamic_is_deprecated(ray_session):
    """It warns: streaming is the way."""
    with pytest.warns(DeprecationWarning):
        count.options(num_returns="dynamic").remote(1)


def test_fixed_number_of_yields(ray_session):
    """`num_returns=n` on a generator: its first n items, as a list of refs."""
    assert ray.get(count.options(num_returns=2).remote(2)) == [0, 1]


def test_fixed_number_with_too_few_yields(ray_session):
    """Fewer items than num_returns: ValueError."""
    refs = count.options(num_returns=3).remote(1)
    with pytest.raises(ValueError):
        ray.get(refs[2])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("num_returns", ["streaming", "dynamic"])
def test_streaming_needs_a_generator(ray_session, num_returns):
    """streaming and dynamic on an ordinary function raise an error."""
    with pytest.raises(ValueError):
        ref = identity.options(num_returns=num_returns).remote(1)
        ref = next(ref) if num_returns == "streaming" else ref
        ray.get(ref)
