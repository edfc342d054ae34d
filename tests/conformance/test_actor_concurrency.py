"""Actors that run several calls at once: threads, groups, order, and limits.

The claims are those of Ray's pages on actor concurrency and task execution order and
of the options ``max_concurrency``, ``concurrency_groups``, ``max_pending_calls`` and
``allow_out_of_order_execution``.  Async actors are in test_async_actors.py.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from conformance_impl import Gate, eventually, ray

pytestmark = pytest.mark.usefixtures("ray_session")

MEETING_TIMEOUT_S = 20


class Room:
    """A plain class whose calls can wait for each other."""

    def __init__(self, seats: int = 1) -> None:
        self.barrier = threading.Barrier(seats)
        self.entries: list[str] = []

    def meet(self) -> int:
        self.barrier.wait(MEETING_TIMEOUT_S)
        return threading.get_ident()

    def hold(self, entered: Gate, gate: Gate) -> str:
        entered.open()
        gate.wait()
        return "held"

    def record(self, entry: str) -> str:
        self.entries.append(entry)
        return entry

    def recorded(self) -> list[str]:
        return self.entries

    def thread(self) -> int:
        return threading.get_ident()

    def ping(self) -> str:
        return "pong"


ActorRoom = ray.remote(Room)


@ray.remote(num_cpus=0)
def pass_gate(gate: Gate) -> str:
    gate.wait()
    return "late"


def test_threaded_actor_runs_calls_together() -> None:
    """max_concurrency=n runs n sync calls at once, each in its own thread."""
    room = ActorRoom.options(max_concurrency=3).remote(3)
    assert len(set(ray.get([room.meet.remote() for _ in range(3)]))) == 3


def test_threaded_actor_never_exceeds_its_limit(new_gate: Any) -> None:
    """No more than max_concurrency calls run; the next one waits for a free thread."""
    room = ActorRoom.options(max_concurrency=2).remote()
    gate = new_gate("gate")
    entered = [new_gate(f"entered{i}") for i in range(3)]
    refs = [room.hold.remote(mine, gate) for mine in entered]
    eventually(lambda: sum(mine.is_open() for mine in entered) == 2)
    ready, _ = ray.wait(refs, timeout=0.3)
    assert ready == []
    assert sum(mine.is_open() for mine in entered) == 2
    gate.open()
    assert ray.get(refs) == ["held"] * 3


def test_sync_actor_is_ordered_by_default(gate: Gate) -> None:
    """With one thread a later call doesn't pass an earlier one with late arguments."""
    room = ActorRoom.remote()
    ray.get(room.ping.remote())
    late = room.record.remote(pass_gate.remote(gate))
    soon = room.record.remote("soon")
    ready, _ = ray.wait([soon], timeout=0.3)
    assert ready == []
    gate.open()
    ray.get([late, soon])
    assert ray.get(room.recorded.remote()) == ["late", "soon"]


@pytest.mark.parametrize(
    "options",
    [{"max_concurrency": 2}, {"allow_out_of_order_execution": True}],
    ids=["threaded", "allowed"],
)
def test_out_of_order(options: dict[str, Any], gate: Gate) -> None:
    """With threads, or when allowed, a call whose arguments are there overtakes."""
    room = ActorRoom.options(**options).remote()
    late = room.record.remote(pass_gate.remote(gate))
    ray.get(room.record.remote("soon"), timeout=20)
    gate.open()
    ray.get(late)
    assert ray.get(room.recorded.remote()) == ["soon", "late"]


def test_order_cannot_be_asked_of_a_threaded_actor() -> None:
    """allow_out_of_order_execution=False contradicts threads: ValueError."""
    with pytest.raises(ValueError, match="order"):
        ActorRoom.options(
            max_concurrency=2, allow_out_of_order_execution=False
        ).remote()


@ray.remote(concurrency_groups={"io": 2, "compute": 1})
class ThreadGroups(Room):
    @ray.method(concurrency_group="io")
    def meet_in_io(self) -> int:
        return self.meet()

    @ray.method(concurrency_group="io")
    def ping_io(self) -> str:
        return "pong"

    @ray.method(concurrency_group="compute")
    def compute_thread(self) -> int:
        return threading.get_ident()


def test_group_runs_as_many_calls_as_it_has_threads() -> None:
    """Calls of a group with two threads run together."""
    groups = ThreadGroups.remote(2)
    assert len(set(ray.get([groups.meet_in_io.remote() for _ in range(2)]))) == 2


def test_groups_do_not_wait_for_each_other(new_gate: Any) -> None:
    """While the default group is busy the other groups go on."""
    entered, gate = new_gate("entered"), new_gate("gate")
    groups = ThreadGroups.remote()
    held = groups.hold.remote(entered, gate)
    eventually(entered.is_open)
    assert ray.get(groups.ping_io.remote(), timeout=20) == "pong"
    assert ray.get(groups.compute_thread.remote(), timeout=20)
    waiting = groups.ping.remote()
    assert ray.wait([waiting], timeout=0.3)[0] == []
    gate.open()
    assert ray.get([held, waiting]) == ["held", "pong"]


def test_group_with_one_thread_keeps_its_thread() -> None:
    """Each group has its own threads."""
    groups = ThreadGroups.remote()
    threads = ray.get([groups.compute_thread.remote() for _ in range(5)])
    assert len(set(threads)) == 1
    assert ray.get(groups.thread.remote()) not in threads


def test_group_chosen_at_the_call(new_gate: Any) -> None:
    """.options(concurrency_group=...) moves one call to another group."""
    entered, gate = new_gate("entered"), new_gate("gate")
    groups = ThreadGroups.remote()
    held = groups.hold.remote(entered, gate)
    eventually(entered.is_open)
    in_io = groups.ping.options(concurrency_group="io").remote()
    assert ray.get(in_io, timeout=20) == "pong"
    gate.open()
    assert ray.get(held) == "held"


def test_unknown_group_fails_the_call() -> None:
    """Naming a group that the class doesn't have never returns a value."""
    groups = ThreadGroups.remote()
    with pytest.raises((ValueError, ray.exceptions.RayError)):
        ray.get(groups.ping.options(concurrency_group="none").remote(), timeout=20)


def test_groups_of_an_async_actor(new_gate: Any) -> None:
    """In an async actor a group limits how many of its coroutines are active."""

    @ray.remote(concurrency_groups={"pair": 2})
    class AsyncGroups:
        def __init__(self) -> None:
            self.active = 0

        @ray.method(concurrency_group="pair")
        async def enter(self, entered: Gate, gate: Gate) -> None:
            self.active += 1
            entered.open()
            while not gate.is_open():
                await asyncio.sleep(0.01)
            self.active -= 1

        async def count(self) -> int:
            return self.active

    gate = new_gate("gate")
    entered = [new_gate(f"entered{i}") for i in range(3)]
    actor = AsyncGroups.remote()
    refs = [actor.enter.remote(mine, gate) for mine in entered]
    eventually(lambda: sum(mine.is_open() for mine in entered) == 2)
    assert ray.get(actor.count.remote(), timeout=20) == 2
    gate.open()
    ray.get(refs)


def test_max_pending_calls(new_gate: Any) -> None:
    """The call that would exceed max_pending_calls raises at .remote()."""
    entered, gate = new_gate("entered"), new_gate("gate")
    room = ActorRoom.options(max_pending_calls=2).remote()
    held = room.hold.remote(entered, gate)
    eventually(entered.is_open)
    queued = room.ping.remote()
    with pytest.raises(ray.exceptions.PendingCallsLimitExceeded):
        for _ in range(3):
            room.ping.remote()
    gate.open()
    assert ray.get([held, queued]) == ["held", "pong"]
    assert eventually(lambda: ping_or_none(room)) == "pong"


def ping_or_none(room: Any) -> str | None:
    """The answer, or None while the limit still counts calls that just ended."""
    try:
        return ray.get(room.ping.remote())
    except ray.exceptions.PendingCallsLimitExceeded:
        return None


def test_threads_of_one_actor_share_its_state() -> None:
    """Threaded calls see one instance; no update is lost under a lock."""

    @ray.remote(max_concurrency=4)
    class Locked:
        def __init__(self) -> None:
            self.lock = threading.Lock()
            self.value = 0

        def add(self) -> int:
            with self.lock:
                self.value += 1
                return self.value

    locked = Locked.remote()
    values = ray.get([locked.add.remote() for _ in range(100)])
    assert sorted(values) == list(range(1, 101))
