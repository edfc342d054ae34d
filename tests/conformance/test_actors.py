"""Actors: state, order, arguments, handles, methods, and how they are called.

The claims are those of Ray's actor guide and of the reference pages of
``ray.remote`` and ``ActorHandle``.  What classes, handles and methods offer is in
test_actor_handles.py, how actors end in test_actor_lifetime.py, how they run several
calls at once in test_actor_concurrency.py and test_async_actors.py.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from conformance_impl import Gate, Journal, eventually, ray

pytestmark = pytest.mark.usefixtures("ray_session")


@ray.remote
class Counter:
    def __init__(self, start: int = 0, *, label: str = "plain") -> None:
        self.value = start
        self.label = label

    def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value

    def describe(self) -> tuple[int, str]:
        return self.value, self.label

    def fail(self) -> None:
        raise KeyError("lost")

    def process(self) -> int:
        return os.getpid()


@ray.remote
class Keeper:
    """Holds whatever it is given, in a list, so that references stay as they are."""

    def __init__(self) -> None:
        self.held: list[Any] = []

    def keep(self, container: list[Any]) -> int:
        self.held.extend(container)
        return len(self.held)

    def call_held(self) -> int:
        return ray.get(self.held[0].add.remote())


@ray.remote(num_cpus=0)
def pass_gate(gate: Gate) -> str:
    gate.wait()
    return "through"


def test_state_lasts_from_call_to_call() -> None:
    """An actor is one process with its own state that its methods change."""
    counter = Counter.remote(5)
    assert ray.get([counter.add.remote(), counter.add.remote(10)]) == [6, 16]
    assert len(set(ray.get([counter.process.remote() for _ in range(3)]))) == 1


def test_constructor_takes_positional_and_keyword_arguments() -> None:
    """Arguments of .remote() reach __init__."""
    assert ray.get(Counter.remote(3, label="x").describe.remote()) == (3, "x")
    assert ray.get(Counter.remote(label="y").describe.remote()) == (0, "y")


def test_actor_class_of_plain_class() -> None:
    """ray.remote(cls) leaves the plain class usable and makes an actor class of it."""

    class Plain:
        def who(self) -> int:
            return os.getpid()

    assert Plain().who() == os.getpid()
    assert ray.get(ray.remote(Plain).remote().who.remote()) != os.getpid()


def test_calls_of_one_caller_run_in_order() -> None:
    """Calls that one caller makes on one actor run in the order of submission."""
    counter = Counter.remote()
    assert ray.get([counter.add.remote() for _ in range(200)]) == list(range(1, 201))


def test_order_holds_when_an_argument_is_unfinished(
    gate: Gate, journal: Journal
) -> None:
    """A later call of the same caller waits for an earlier one with a late argument."""

    @ray.remote
    class Recorder:
        def record(self, entry: str) -> None:
            journal.add(entry)

    recorder = Recorder.remote()
    late = recorder.record.remote(pass_gate.remote(gate))
    after = recorder.record.remote("after")
    ready, _ = ray.wait([after], timeout=0.3)
    assert ready == []
    gate.open()
    ray.get([late, after])
    assert journal.read() == ["through", "after"]


def test_one_call_at_a_time(journal: Journal) -> None:
    """Without max_concurrency, calls of several callers never overlap."""

    @ray.remote
    class Exclusive:
        def __init__(self) -> None:
            self.inside = 0

        def enter(self) -> int:
            self.inside += 1
            seen = self.inside
            journal.add("x")
            self.inside -= 1
            return seen

    @ray.remote(num_cpus=0.5)
    def caller(actor: Any) -> list[int]:
        return ray.get([actor.enter.remote() for _ in range(20)])

    exclusive = Exclusive.remote()
    for seen in ray.get([caller.remote(exclusive) for _ in range(3)]):
        assert set(seen) == {1}
    assert len(journal.read()) == 60


def test_actors_run_in_parallel_with_each_other(new_gate: Any) -> None:
    """Different actors run at the same time: each waits for what the other does."""
    here, there = new_gate("here"), new_gate("there")

    @ray.remote
    class Partner:
        def meet(self, mine: Gate, other: Gate) -> bool:
            mine.open()
            other.wait()
            return True

    one, two = Partner.remote(), Partner.remote()
    assert ray.get([one.meet.remote(here, there), two.meet.remote(there, here)])


def test_references_as_arguments_are_resolved_at_top_level_only() -> None:
    """A method gets the value of a top-level reference and a nested one as it is."""

    @ray.remote
    class Kinds:
        def kinds(self, *args: Any, **kwargs: Any) -> list[str]:
            return [type(arg).__name__ for arg in (*args, *kwargs.values())]

    ref = ray.put(1)
    kinds = ray.get(Kinds.remote().kinds.remote(ref, [ref], key=ref))
    assert kinds == ["int", "list", "int"]


def test_handle_passed_to_tasks() -> None:
    """A handle is an argument like any other and names the same actor everywhere."""

    @ray.remote
    def use(counter: Any, times: int) -> None:
        ray.get([counter.add.remote() for _ in range(times)])

    counter = Counter.remote()
    ray.get([use.remote(counter, 5) for _ in range(4)])
    assert ray.get(counter.describe.remote())[0] == 20


def test_handle_stored_in_another_actor() -> None:
    """An actor may keep handles, also from inside containers, and call them later."""
    counter, keeper = Counter.remote(1), Keeper.remote()
    ray.get(keeper.keep.remote([counter]))
    assert ray.get(keeper.call_held.remote()) == 2
    assert ray.get(counter.add.remote()) == 3


def test_stored_handle_keeps_the_actor_alive() -> None:
    """An actor lives as long as anybody holds a handle, not only its creator."""
    keeper = Keeper.remote()
    counter = Counter.remote(1)
    ray.get(keeper.keep.remote([counter]))
    del counter
    assert [ray.get(keeper.call_held.remote()) for _ in range(3)] == [2, 3, 4]


def test_handle_returned_by_the_task_that_created_the_actor() -> None:
    """An actor created in a task outlives the task while its handle is held."""

    @ray.remote
    def create() -> Any:
        return Counter.remote(41)

    assert ray.get(ray.get(create.remote()).add.remote()) == 42


def test_actor_created_by_an_actor() -> None:
    """Actors may create actors."""

    @ray.remote
    class Parent:
        def __init__(self) -> None:
            self.child = Counter.remote(7)

        def ask(self) -> int:
            return ray.get(self.child.add.remote())

    assert ray.get(Parent.remote().ask.remote()) == 8


def test_actor_calls_itself_through_current_actor() -> None:
    """current_actor is the running actor's own handle: it may call and hand it out."""

    @ray.remote
    class Selfish:
        def __init__(self) -> None:
            self.me = ray.get_runtime_context().current_actor
            self.calls = 0

        def bump(self) -> int:
            self.calls += 1
            return self.calls

        def call_self(self) -> list[Any]:
            return [self.me.bump.remote(), self.me]

    selfish = Selfish.remote()
    ref, handle = ray.get(selfish.call_self.remote())
    assert ray.get(ref) == 1
    assert handle == selfish
    assert ray.get(handle.bump.remote()) == 2


def test_exception_in_a_method_leaves_the_actor_alive() -> None:
    """A method's exception is raised by get, as its own class; the actor goes on."""
    counter = Counter.remote()
    ray.get(counter.add.remote())
    with pytest.raises(KeyError) as caught:
        ray.get(counter.fail.remote())
    assert isinstance(caught.value, ray.exceptions.RayTaskError)
    assert "Counter.fail" in str(caught.value)
    assert ray.get(counter.add.remote()) == 2


def test_callers_are_each_served_in_order(journal: Journal) -> None:
    """Calls of several callers may interleave, but each caller's own stay in order."""

    @ray.remote
    class Recorder:
        def record(self, caller: int, number: int) -> None:
            journal.add(f"{caller} {number}")

    @ray.remote
    def call(actor: Any, caller: int) -> None:
        ray.get([actor.record.remote(caller, number) for number in range(30)])

    recorder = Recorder.remote()
    ray.get([call.remote(recorder, caller) for caller in range(3)])
    entries = [tuple(map(int, line.split())) for line in journal.read()]
    for caller in range(3):
        assert [n for c, n in entries if c == caller] == list(range(30))


def test_actor_is_created_without_being_called(gate: Gate) -> None:
    """.remote() on the class starts the actor; no call is needed to construct it."""

    @ray.remote
    class Eager:
        def __init__(self) -> None:
            gate.open()

    eager = Eager.remote()
    eventually(gate.is_open, why="the constructor ran")
    assert ray.get(eager.__ray_ready__.remote())
