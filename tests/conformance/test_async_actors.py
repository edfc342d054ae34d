"""Async actors: one event loop, many calls at once, awaitable references.

The claims are those of Ray's page on asyncio and actors.  A class with any ``async
def`` method is an async actor: its coroutines share one event loop.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from conformance_impl import Gate, eventually, ray

pytestmark = pytest.mark.usefixtures("ray_session")


@ray.remote
class Waiters:
    """Calls wait on one asyncio event until another call sets it."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.waiting = 0
        self.entries: list[str] = []

    async def wait(self, value: Any = None) -> Any:
        self.waiting += 1
        await self.event.wait()
        self.waiting -= 1
        return value

    async def release(self) -> None:
        self.event.set()

    async def count(self) -> int:
        return self.waiting

    def loop_and_thread(self) -> tuple[bool, int]:
        return asyncio.get_running_loop().is_running(), threading.get_ident()

    async def thread(self) -> int:
        return threading.get_ident()

    async def items(self, n: int) -> Any:
        for number in range(n):
            await asyncio.sleep(0)
            yield number

    async def fail(self) -> None:
        raise LookupError("not found")

    async def resolve(self, container: list[Any]) -> Any:
        return await container[0]

    async def resolve_all(self, refs: list[Any]) -> list[Any]:
        return await asyncio.gather(*refs)

    async def record(self, entry: str) -> None:
        self.entries.append(entry)

    async def recorded(self) -> list[str]:
        return self.entries


@ray.remote(num_cpus=0)
def pass_gate(gate: Gate) -> str:
    gate.wait()
    return "late"


@ray.remote
def add_one(x: int) -> int:
    return x + 1


def test_a_thousand_calls_wait_at_once() -> None:
    """An async actor runs up to 1,000 calls concurrently by default."""
    waiters = Waiters.remote()
    ray.get(waiters.count.remote())
    # 998 waiting calls leave room for the one that counts and the one that releases.
    refs = [waiters.wait.remote(i) for i in range(998)]
    eventually(lambda: ray.get(waiters.count.remote()) == 998, 20)
    ray.get(waiters.release.remote())
    assert ray.get(refs) == list(range(998))


def test_max_concurrency_limits_an_async_actor(new_gate: Any) -> None:
    """With max_concurrency=2 a third call starts only when one has ended."""

    @ray.remote(max_concurrency=2)
    class Limited:
        async def enter(self, entered: Gate, gate: Gate) -> None:
            entered.open()
            while not gate.is_open():
                await asyncio.sleep(0.01)

    gate = new_gate("gate")
    entered = [new_gate(f"entered{i}") for i in range(3)]
    limited = Limited.remote()
    refs = [limited.enter.remote(mine, gate) for mine in entered]
    eventually(lambda: sum(mine.is_open() for mine in entered) == 2)
    assert ray.wait(refs, timeout=0.3)[0] == []
    assert sum(mine.is_open() for mine in entered) == 2
    gate.open()
    ray.get(refs)


def test_all_methods_run_on_the_event_loop() -> None:
    """Sync methods of an async actor run on the loop's thread too."""
    waiters = Waiters.remote()
    running, thread = ray.get(waiters.loop_and_thread.remote())
    assert running
    assert ray.get(waiters.thread.remote()) == thread


def test_calls_may_overtake(gate: Gate) -> None:
    """An async actor starts a call as soon as its arguments are there."""
    waiters = Waiters.remote()
    late = waiters.record.remote(pass_gate.remote(gate))
    ray.get(waiters.record.remote("soon"), timeout=20)
    gate.open()
    ray.get(late)
    assert ray.get(waiters.recorded.remote()) == ["soon", "late"]


def test_order_cannot_be_asked_of_an_async_actor() -> None:
    """allow_out_of_order_execution=False contradicts async methods: ValueError."""
    with pytest.raises(ValueError, match="order"):
        Waiters.options(allow_out_of_order_execution=False).remote()


def test_exception_of_a_coroutine() -> None:
    """An exception in a coroutine arrives as its own class and as RayTaskError."""
    waiters = Waiters.remote()
    with pytest.raises(LookupError, match="not found") as caught:
        ray.get(waiters.fail.remote())
    assert isinstance(caught.value, ray.exceptions.RayTaskError)
    assert ray.get(waiters.count.remote()) == 0


def test_await_references_inside_an_actor() -> None:
    """References are awaitable in coroutines, alone and with asyncio.gather."""
    waiters = Waiters.remote()
    assert ray.get(waiters.resolve.remote([add_one.remote(1)])) == 2
    refs = [add_one.remote(i) for i in range(5)]
    assert ray.get(waiters.resolve_all.remote(refs)) == [1, 2, 3, 4, 5]


def test_awaiting_does_not_block_other_calls(gate: Gate) -> None:
    """While a coroutine awaits a reference the actor serves other calls."""
    waiters = Waiters.remote()
    slow = waiters.resolve.remote([pass_gate.remote(gate)])
    assert ray.get(waiters.count.remote(), timeout=20) == 0
    gate.open()
    assert ray.get(slow) == "late"


def test_actor_awaits_itself() -> None:
    """A coroutine may await a call of its own actor without deadlock."""

    @ray.remote
    class Recursive:
        async def factorial(self, n: int) -> int:
            if n <= 1:
                return 1
            me = ray.get_runtime_context().current_actor
            return n * await me.factorial.remote(n - 1)

    assert ray.get(Recursive.remote().factorial.remote(10), timeout=20) == 3628800


def test_async_generator_method() -> None:
    """An async generator streams its items, to for and to async for alike."""
    waiters = Waiters.remote()
    assert [ray.get(ref) for ref in waiters.items.remote(4)] == [0, 1, 2, 3]

    async def collect() -> list[int]:
        return [await ref async for ref in waiters.items.remote(3)]

    assert asyncio.run(collect()) == [0, 1, 2]


def test_async_generators_interleave(new_gate: Any) -> None:
    """Two streams of one async actor advance together."""

    @ray.remote
    class Streams:
        async def stream(self, mine: Gate, other: Gate) -> Any:
            yield "first"
            mine.open()
            while not other.is_open():
                await asyncio.sleep(0.01)
            yield "second"

    one, two = new_gate("one"), new_gate("two")
    streams = Streams.remote()
    left, right = streams.stream.remote(one, two), streams.stream.remote(two, one)
    for stream in (left, right):
        assert [ray.get(ref) for ref in stream] == ["first", "second"]


def test_driver_awaits_references() -> None:
    """In a driver, references can be awaited and used in asyncio.wait."""
    waiters = Waiters.remote()

    async def drive() -> list[Any]:
        call = waiters.wait.remote("released")
        await waiters.release.remote()
        done = await asyncio.wait_for(call, 20)
        return [done, await add_one.remote(1)]

    assert asyncio.run(drive()) == ["released", 2]


def test_awaited_error_is_raised() -> None:
    """Awaiting the reference of a failed call raises what get would raise."""
    waiters = Waiters.remote()

    async def drive() -> None:
        await waiters.fail.remote()

    with pytest.raises(LookupError):
        asyncio.run(drive())


def test_future_of_a_reference(gate: Gate) -> None:
    """ref.future() is a concurrent.futures.Future that becomes done with the value."""
    future = pass_gate.remote(gate).future()
    assert not future.done()
    gate.open()
    assert future.result(timeout=20) == "late"


def test_async_constructor_work_on_the_loop() -> None:
    """Tasks that a coroutine leaves on the loop go on between calls."""

    @ray.remote
    class Background:
        def __init__(self) -> None:
            self.ticks = 0

        async def start(self) -> None:
            self.job = asyncio.get_running_loop().create_task(self.tick())

        async def tick(self) -> None:
            while True:
                self.ticks += 1
                await asyncio.sleep(0.001)

        async def count(self) -> int:
            return self.ticks

    background = Background.remote()
    ray.get(background.start.remote())
    eventually(lambda: ray.get(background.count.remote()) > 5)
