"""Cancelling what sleeps or is held up: the caller hears of it at once.

Ray delivers a cancellation between two bytecodes, so a call in ``time.sleep`` ends
when the sleep does, and an actor call when the method returns.  shoal promises more.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from conformance_impl import Gate, Journal, eventually, ray

pytestmark = pytest.mark.usefixtures("ray_session")

# shoal promises 0.2 s; the rest is room for a busy machine.
PROMPT_S = 1.0
SLEEP_S = 30.0
WAIT_S = 20
beyond_ray = pytest.mark.beyond_ray
SLEEPS = "a cancellation interrupts a sleep; Ray waits until it is over"
ANSWERS = "the caller of a cancelled actor call hears of it before the method returns"


def sleep_in_python() -> None:
    time.sleep(SLEEP_S)


def wait_for_event() -> None:
    threading.Event().wait(SLEEP_S)


def wait_for_subprocess() -> None:
    subprocess.run(["sleep", str(SLEEP_S)], check=True)


@ray.remote
def enter(entered: Gate, body: Callable[[], None]) -> None:
    entered.open()
    body()


@ray.remote
def enter_nested(entered: Gate, body: Callable[[], None]) -> None:
    ray.get(enter.remote(entered, body))


@ray.remote
class Room:
    def sleep(self, entered: Gate) -> None:
        entered.open()
        time.sleep(SLEEP_S)

    def ping(self) -> str:
        return "pong"


@contextmanager
def cancelled_promptly() -> Iterator[None]:
    """The body cancels and gets, and raises TaskCancelledError without delay."""
    start = time.monotonic()
    with pytest.raises(ray.exceptions.TaskCancelledError):
        yield
    assert time.monotonic() - start < PROMPT_S


@beyond_ray(reason=SLEEPS)
@pytest.mark.parametrize("body", [sleep_in_python, wait_for_event, wait_for_subprocess])
def test_sleeping_task(gate: Gate, body: Callable[[], None]) -> None:
    """A task that sleeps or waits ends within a moment of its cancellation."""
    running = enter.remote(gate, body)
    eventually(gate.is_open, WAIT_S)
    with cancelled_promptly():
        ray.cancel(running)
        ray.get(running, timeout=WAIT_S)


@beyond_ray(reason=SLEEPS)
def test_sleeping_task_frees_its_worker(gate: Gate) -> None:
    """The CPUs of a cancelled sleeping task are free at once for the next one."""
    running = enter.options(num_cpus=4).remote(gate, sleep_in_python)
    eventually(gate.is_open, WAIT_S)
    start = time.monotonic()
    ray.cancel(running)
    after = ray.remote(num_cpus=4)(lambda: "next").remote()
    assert ray.get(after, timeout=WAIT_S) == "next"
    assert time.monotonic() - start < PROMPT_S


@beyond_ray(reason=SLEEPS)
def test_sleeping_child(gate: Gate) -> None:
    """Recursive cancellation ends a sleeping child as promptly."""
    outer = enter_nested.remote(gate, sleep_in_python)
    eventually(gate.is_open, WAIT_S)
    with cancelled_promptly():
        ray.cancel(outer)
        ray.get(outer, timeout=WAIT_S)
    eventually(
        lambda: ray.available_resources().get("CPU") == 4,
        PROMPT_S,
        "the child ended too",
    )


@beyond_ray(reason=ANSWERS)
@pytest.mark.parametrize("threads", [1, 2], ids=["sync", "threaded"])
def test_sleeping_actor_call(gate: Gate, threads: int) -> None:
    """The reference of a cancelled sync or threaded call fails at once."""
    room = Room.options(max_concurrency=threads).remote()
    running = room.sleep.remote(gate)
    eventually(gate.is_open, WAIT_S)
    with cancelled_promptly():
        ray.cancel(running)
        ray.get(running, timeout=WAIT_S)
    ray.kill(room)


@beyond_ray(reason=ANSWERS)
def test_threaded_actor_goes_on(gate: Gate) -> None:
    """The other threads of the actor serve calls after a cancellation."""
    room = Room.options(max_concurrency=2).remote()
    running = room.sleep.remote(gate)
    eventually(gate.is_open, WAIT_S)
    ray.cancel(running)
    assert ray.get(room.ping.remote(), timeout=WAIT_S) == "pong"
    ray.kill(room)


@beyond_ray(reason=ANSWERS)
def test_queued_actor_call(new_gate: Any, journal: Journal) -> None:
    """A queued call fails at once although the actor is busy, and never runs."""
    entered, gate = new_gate("entered"), new_gate("gate")

    @ray.remote
    class Busy:
        def hold(self) -> None:
            entered.open()
            gate.wait()

        def note(self, entry: str) -> None:
            journal.add(entry)

    busy = Busy.remote()
    running = busy.hold.remote()
    eventually(entered.is_open, WAIT_S)
    first, second = busy.note.remote("first"), busy.note.remote("second")
    with cancelled_promptly():
        ray.cancel(first)
        ray.get(first, timeout=WAIT_S)
    gate.open()
    ray.get([running, second])
    assert journal.read() == ["second"]
