"""Cancelling tasks and actor calls, in each state that they can be in.

The claims are those of the reference page of ``ray.cancel``, and of the page on
cancelling tasks.  A task that must not end by itself waits at a gate that nobody opens.
How fast a cancelled call ends is in test_cancel_promptly.py.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import pytest
from conformance_impl import Gate, Journal, eventually, ray

pytestmark = pytest.mark.usefixtures("ray_session")

RayTaskError = ray.exceptions.RayTaskError
TaskCancelledError = ray.exceptions.TaskCancelledError
WAIT_S = 20


@ray.remote
def hold(entered: Gate, gate: Gate) -> str:
    entered.open()
    gate.wait()
    return "held"


@ray.remote
def identity(value: Any) -> Any:
    return value


@ray.remote
class Sync:
    def hold(self, entered: Gate, gate: Gate) -> str:
        entered.open()
        gate.wait()
        return "held"

    def until_canceled(self, entered: Gate, journal: Journal) -> str:
        entered.open()
        context = ray.get_runtime_context()
        eventually(context.is_canceled, WAIT_S)
        journal.add("saw it")
        return "returned"

    def ping(self) -> str:
        return "pong"


@ray.remote
class Async:
    async def hold(self, entered: Gate, gate: Gate, journal: Journal) -> str:
        entered.open()
        try:
            while not gate.is_open():
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            journal.add("cancelled")
            raise
        return "held"

    async def forward(self, entered: Gate, gate: Gate) -> str:
        return await hold.remote(entered, gate)

    async def ping(self) -> str:
        return "pong"


NewGate = Callable[[str], Gate]


def test_queued_task(new_gate: NewGate) -> None:
    """A task that waits for resources never runs and raises TaskCancelledError."""
    entered, gate, never = new_gate("entered"), new_gate("gate"), new_gate("never")
    busy = hold.options(num_cpus=4).remote(entered, gate)
    eventually(entered.is_open, WAIT_S)
    queued = hold.remote(never, gate)
    ray.cancel(queued)
    with pytest.raises(TaskCancelledError):
        ray.get(queued, timeout=WAIT_S)
    gate.open()
    assert ray.get(busy) == "held"
    assert not never.is_open()


@pytest.mark.beyond_ray(
    reason="Ray 2.60 sometimes aborts the driver when such a task is cancelled"
)
def test_task_that_waits_for_an_argument(new_gate: NewGate) -> None:
    """A task whose argument isn't there is cancelled at once; the argument isn't."""
    entered, gate = new_gate("entered"), new_gate("gate")
    argument = hold.remote(entered, gate)
    waiting = identity.remote(argument)
    ray.cancel(waiting)
    with pytest.raises(TaskCancelledError):
        ray.get(waiting, timeout=WAIT_S)
    gate.open()
    assert ray.get(argument) == "held"


def test_task_that_depends_on_a_cancelled_one(new_gate: NewGate) -> None:
    """What needs the value of a cancelled task fails with TaskCancelledError too."""
    entered, gate = new_gate("entered"), new_gate("gate")
    source = hold.remote(entered, gate)
    consumer = identity.remote(source)
    eventually(entered.is_open, WAIT_S)
    ray.cancel(source)
    with pytest.raises(TaskCancelledError):
        ray.get(consumer, timeout=WAIT_S)


def test_running_task(new_gate: NewGate) -> None:
    """A running task is interrupted; the error is a RayTaskError and a cancellation."""
    entered, gate = new_gate("entered"), new_gate("gate")
    running = hold.remote(entered, gate)
    eventually(entered.is_open, WAIT_S)
    ray.cancel(running)
    with pytest.raises(TaskCancelledError) as caught:
        ray.get(running, timeout=WAIT_S)
    assert isinstance(caught.value, RayTaskError)


def test_running_task_sees_keyboard_interrupt(
    new_gate: NewGate, journal: Journal
) -> None:
    """The interruption is a KeyboardInterrupt in the task, so finally blocks run."""

    @ray.remote
    def careful(entered: Gate, gate: Gate) -> None:
        try:
            entered.open()
            gate.wait()
        except KeyboardInterrupt:
            journal.add("interrupted")
            raise
        finally:
            journal.add("cleaned up")

    entered, gate = new_gate("entered"), new_gate("gate")
    running = careful.remote(entered, gate)
    eventually(entered.is_open, WAIT_S)
    ray.cancel(running)
    with pytest.raises(TaskCancelledError):
        ray.get(running, timeout=WAIT_S)
    eventually(lambda: journal.read() == ["interrupted", "cleaned up"])


def test_task_that_swallows_the_interruption(new_gate: NewGate) -> None:
    """A task that catches KeyboardInterrupt and returns has returned its value."""

    @ray.remote
    def stubborn(entered: Gate, gate: Gate) -> str:
        try:
            entered.open()
            gate.wait()
        except KeyboardInterrupt:
            return "kept"
        return "not interrupted"

    entered, gate = new_gate("entered"), new_gate("gate")
    running = stubborn.remote(entered, gate)
    eventually(entered.is_open, WAIT_S)
    ray.cancel(running)
    assert ray.get(running, timeout=WAIT_S) == "kept"


def test_running_task_by_force(new_gate: NewGate) -> None:
    """force=True ends the worker process; the task isn't retried."""

    @ray.remote(max_retries=3)
    def hold_and_tell(entered: Gate, gate: Gate, starts: Journal) -> None:
        starts.add(os.getpid())
        entered.open()
        gate.wait()

    entered, gate = new_gate("entered"), new_gate("gate")
    starts = Journal(entered.path + "-starts")
    running = hold_and_tell.remote(entered, gate, starts)
    eventually(entered.is_open, WAIT_S)
    pid = int(starts.read()[0])
    ray.cancel(running, force=True)
    with pytest.raises((TaskCancelledError, ray.exceptions.WorkerCrashedError)):
        ray.get(running, timeout=WAIT_S)
    eventually(lambda: not os.path.exists(f"/proc/{pid}"), WAIT_S)
    assert len(starts.read()) == 1


def test_task_blocked_in_get(new_gate: NewGate) -> None:
    """A task that waits inside get is interrupted there."""

    @ray.remote
    def blocked(entered: Gate, inner: list[Any]) -> Any:
        entered.open()
        return ray.get(inner[0])

    entered, inside, gate = new_gate("entered"), new_gate("inside"), new_gate("gate")
    inner = hold.remote(inside, gate)
    outer = blocked.remote(entered, [inner])
    eventually(lambda: entered.is_open() and inside.is_open(), WAIT_S)
    ray.cancel(outer)
    with pytest.raises(TaskCancelledError):
        ray.get(outer, timeout=WAIT_S)
    gate.open()
    assert ray.get(inner) == "held"


@pytest.mark.parametrize("recursive", [True, False])
def test_children(new_gate: NewGate, recursive: bool) -> None:
    """recursive=True, the default, cancels what the task submitted; False does not."""

    @ray.remote
    def parent(entered: Gate, gate: Gate, done: Journal) -> Any:
        child = hold_and_note.remote(entered, gate, done)
        return ray.get(child)

    @ray.remote
    def hold_and_note(entered: Gate, gate: Gate, done: Journal) -> None:
        try:
            entered.open()
            gate.wait()
            done.add("child finished")
        except KeyboardInterrupt:
            done.add("child interrupted")
            raise

    entered, gate = new_gate("entered"), new_gate("gate")
    done = Journal(entered.path + "-done")
    outer = parent.remote(entered, gate, done)
    eventually(entered.is_open, WAIT_S)
    ray.cancel(outer, recursive=recursive)
    with pytest.raises(TaskCancelledError):
        ray.get(outer, timeout=WAIT_S)
    if recursive:
        eventually(lambda: done.read() == ["child interrupted"], WAIT_S)
    gate.open()
    if not recursive:
        eventually(lambda: done.read() == ["child finished"], WAIT_S)


def test_finished_task_and_put_object() -> None:
    """Cancelling what already has a value does nothing, twice as well."""
    finished = identity.remote("value")
    ray.get(finished)
    put = ray.put("put")
    for ref, value in ((finished, "value"), (put, "put")):
        for force in (False, True):
            assert ray.cancel(ref, force=force) is None
        assert ray.get(ref) == value


def test_cancel_wants_a_reference() -> None:
    """Anything but a reference is a TypeError."""
    for wrong in (1, "ref", Sync.remote()):
        with pytest.raises(TypeError, match="cancel"):
            ray.cancel(wrong)


def test_cancelled_task_gives_its_resources_back(new_gate: NewGate) -> None:
    """After a cancelled task its CPUs are free for the next one."""
    entered, gate = new_gate("entered"), new_gate("gate")
    running = hold.options(num_cpus=4).remote(entered, gate)
    eventually(entered.is_open, WAIT_S)
    ray.cancel(running)
    assert ray.get(identity.options(num_cpus=4).remote("next"), timeout=WAIT_S)


def test_running_generator(new_gate: NewGate) -> None:
    """Cancelling a stream ends it: items there stay good, then the error comes."""

    @ray.remote
    def stream(gate: Gate) -> Any:
        yield "first"
        gate.wait()
        yield "second"

    items = stream.remote(new_gate("gate"))
    first = next(items)
    assert ray.get(first) == "first"
    ray.cancel(items)
    with pytest.raises(TaskCancelledError):
        for ref in items:
            ray.get(ref, timeout=WAIT_S)
    assert ray.get(first) == "first"


def test_queued_actor_call(new_gate: NewGate) -> None:
    """A call that waits for the actor raises; the one that runs goes on."""
    entered, gate = new_gate("entered"), new_gate("gate")
    actor = Sync.remote()
    running = actor.hold.remote(entered, gate)
    eventually(entered.is_open, WAIT_S)
    queued = actor.ping.remote()
    ray.cancel(queued)
    gate.open()
    with pytest.raises(TaskCancelledError):
        ray.get(queued, timeout=WAIT_S)
    assert ray.get(running, timeout=WAIT_S) == "held"


@pytest.mark.beyond_ray(
    reason="Ray 2.60 never runs what the caller submitted after a cancelled call"
)
def test_calls_behind_a_cancelled_actor_call(new_gate: NewGate) -> None:
    """A cancelled call leaves no hole: later calls of the same caller are run."""
    entered, gate = new_gate("entered"), new_gate("gate")
    actor = Sync.remote()
    running = actor.hold.remote(entered, gate)
    eventually(entered.is_open, WAIT_S)
    first, second = actor.ping.remote(), actor.ping.remote()
    ray.cancel(first)
    gate.open()
    assert ray.get([running, second], timeout=WAIT_S) == ["held", "pong"]
    assert ray.get(actor.ping.remote(), timeout=WAIT_S) == "pong"


@pytest.mark.parametrize("threads", [1, 2])
def test_running_sync_actor_call(
    new_gate: NewGate, journal: Journal, threads: int
) -> None:
    """A sync call learns of it by is_canceled(); its value is replaced by the error."""
    entered = new_gate("entered")
    actor = Sync.options(max_concurrency=threads).remote()
    running = actor.until_canceled.remote(entered, journal)
    eventually(entered.is_open, WAIT_S)
    ray.cancel(running)
    with pytest.raises(TaskCancelledError):
        ray.get(running, timeout=WAIT_S)
    eventually(lambda: journal.read() == ["saw it"], WAIT_S)
    assert ray.get(actor.ping.remote(), timeout=WAIT_S) == "pong"


def test_running_async_actor_call(new_gate: NewGate, journal: Journal) -> None:
    """An async call gets asyncio.CancelledError where it awaits."""
    entered, gate = new_gate("entered"), new_gate("gate")
    actor = Async.remote()
    running = actor.hold.remote(entered, gate, journal)
    eventually(entered.is_open, WAIT_S)
    ray.cancel(running)
    with pytest.raises(TaskCancelledError) as caught:
        ray.get(running, timeout=WAIT_S)
    assert isinstance(caught.value, RayTaskError)
    assert journal.read() == ["cancelled"]
    assert ray.get(actor.ping.remote(), timeout=WAIT_S) == "pong"


def test_children_of_an_async_actor_call(new_gate: NewGate) -> None:
    """Cancelling an async call cancels the task that it awaits."""
    entered, gate = new_gate("entered"), new_gate("gate")
    running = Async.remote().forward.remote(entered, gate)
    eventually(entered.is_open, WAIT_S)
    ray.cancel(running)
    with pytest.raises(TaskCancelledError):
        ray.get(running, timeout=WAIT_S)
    eventually(lambda: ray.available_resources().get("CPU") == 4, WAIT_S)


def test_force_is_refused_for_actor_calls(new_gate: NewGate) -> None:
    """force=True on an actor call is a ValueError; the call goes on."""
    entered, gate = new_gate("entered"), new_gate("gate")
    running = Sync.remote().hold.remote(entered, gate)
    eventually(entered.is_open, WAIT_S)
    with pytest.raises(ValueError, match="force"):
        ray.cancel(running, force=True)
    gate.open()
    assert ray.get(running) == "held"
