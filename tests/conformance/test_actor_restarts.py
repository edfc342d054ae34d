"""Actors that are restarted, and calls that are retried.

The claims are those of Ray's page on actor fault tolerance: ``max_restarts`` and
``max_task_retries`` are 0 by default, a restarted actor runs its constructor again
with the original arguments, and a call in flight is lost unless it may be retried.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from conformance_impl import Gate, Journal, eventually, ray

pytestmark = pytest.mark.usefixtures("ray_session")

RayActorError = ray.exceptions.RayActorError
ActorDiedError = ray.exceptions.ActorDiedError
ActorUnavailableError = ray.exceptions.ActorUnavailableError


@ray.remote
class Phoenix:
    def __init__(self, lives: Journal, tag: str = "x") -> None:
        self.tag = tag
        self.value = 0
        lives.add(tag)

    def add(self) -> int:
        self.value += 1
        return self.value

    def process(self) -> int:
        return os.getpid()

    def crash(self) -> None:
        os._exit(1)

    def crash_until(self, journal: Journal, attempts: int) -> int:
        count = journal.add("attempt")
        if count < attempts:
            os._exit(1)
        return count

    def fail_until(self, journal: Journal, attempts: int) -> int:
        count = journal.add("attempt")
        if count < attempts:
            raise ConnectionError("try again")
        return count

    def is_reconstructed(self) -> bool:
        return ray.get_runtime_context().was_current_actor_reconstructed

    def leave(self) -> None:
        ray.actor.exit_actor()

    def hold(self, entered: Gate, gate: Gate) -> str:
        entered.open()
        gate.wait()
        return "held"


def call_when_available(method: Any) -> Any:
    """Call until the actor is there again; what is permanent is raised."""

    def attempt() -> list[Any] | None:
        try:
            return [ray.get(method.remote(), timeout=20)]
        except ActorUnavailableError:
            return None

    return eventually(attempt, 20)[0]


def test_no_restart_by_default(journal: Journal) -> None:
    """With max_restarts=0 an actor whose process died stays dead."""
    actor = Phoenix.remote(journal)
    with pytest.raises(ActorDiedError):
        ray.get(actor.crash.remote(), timeout=20)
    with pytest.raises(ActorDiedError):
        ray.get(actor.add.remote(), timeout=20)
    assert journal.read() == ["x"]


def test_restart_runs_the_constructor_again(journal: Journal) -> None:
    """A restart repeats __init__ with its arguments; state starts anew."""
    actor = Phoenix.options(max_restarts=1).remote(journal, tag="again")
    before = ray.get([actor.add.remote(), actor.process.remote()])
    assert before[0] == 1
    with pytest.raises(RayActorError):
        ray.get(actor.crash.remote(), timeout=20)
    assert call_when_available(actor.add) == 1
    assert ray.get(actor.process.remote()) != before[1]
    assert journal.read() == ["again", "again"]


def test_call_in_flight_is_unavailable_not_dead(journal: Journal) -> None:
    """When the actor will be restarted, the lost call raises ActorUnavailableError."""
    actor = Phoenix.options(max_restarts=1).remote(journal)
    ray.get(actor.add.remote())
    with pytest.raises(ActorUnavailableError):
        ray.get(actor.crash.remote(), timeout=20)


def test_restarts_are_used_up(journal: Journal) -> None:
    """After max_restarts restarts the next death is final."""
    actor = Phoenix.options(max_restarts=1).remote(journal)
    for _ in range(2):
        call_when_available(actor.add)
        with pytest.raises(RayActorError):
            ray.get(actor.crash.remote(), timeout=20)
    with pytest.raises(ActorDiedError):
        eventually(lambda: call_when_available(actor.add) is None)
    assert len(journal.read()) == 2


def test_restarts_without_limit(journal: Journal) -> None:
    """max_restarts=-1 restarts as often as the process dies."""
    actor = Phoenix.options(max_restarts=-1).remote(journal)
    for _ in range(3):
        call_when_available(actor.add)
        with pytest.raises(ActorUnavailableError):
            ray.get(actor.crash.remote(), timeout=20)
    assert call_when_available(actor.add) == 1
    assert len(journal.read()) == 4


def test_was_current_actor_reconstructed(journal: Journal) -> None:
    """The runtime context says whether the actor has been restarted."""
    actor = Phoenix.options(max_restarts=1).remote(journal)
    assert ray.get(actor.is_reconstructed.remote()) is False
    with pytest.raises(RayActorError):
        ray.get(actor.crash.remote(), timeout=20)
    assert call_when_available(actor.is_reconstructed) is True


def test_call_is_retried_after_a_restart(new_journal: Any) -> None:
    """With max_task_retries a call lost in a crash runs again on the new process."""
    lives, attempts = new_journal("lives"), new_journal("attempts")
    # Without a limit on retries: Ray also counts attempts made while restarting.
    actor = Phoenix.options(max_restarts=2, max_task_retries=-1).remote(lives)
    assert ray.get(actor.crash_until.remote(attempts, 3), timeout=40) == 3
    assert len(lives.read()) == 3


def test_retries_of_a_method(new_journal: Any) -> None:
    """max_task_retries may be given for one call."""
    lives, attempts = new_journal("lives"), new_journal("attempts")
    actor = Phoenix.options(max_restarts=1).remote(lives)
    call = actor.crash_until.options(max_task_retries=-1).remote(attempts, 2)
    assert ray.get(call, timeout=40) == 2


def test_exceptions_are_not_retried_by_default(new_journal: Any) -> None:
    """max_task_retries is about lost processes; an exception is a result."""
    lives, attempts = new_journal("lives"), new_journal("attempts")
    actor = Phoenix.options(max_task_retries=3).remote(lives)
    with pytest.raises(ConnectionError):
        ray.get(actor.fail_until.remote(attempts, 2), timeout=20)
    assert len(attempts.read()) == 1


@pytest.mark.parametrize("retry_exceptions", [True, [ConnectionError]])
def test_exceptions_are_retried_when_asked(
    new_journal: Any, retry_exceptions: Any
) -> None:
    """retry_exceptions on a method retries its exceptions, all or those listed."""
    lives, attempts = new_journal("lives"), new_journal("attempts")
    actor = Phoenix.options(max_task_retries=2).remote(lives)
    method = actor.fail_until.options(retry_exceptions=retry_exceptions)
    assert ray.get(method.remote(attempts, 3), timeout=40) == 3
    assert len(lives.read()) == 1


def test_exceptions_not_listed_are_not_retried(new_journal: Any) -> None:
    """An exception outside the list of retry_exceptions is final."""
    lives, attempts = new_journal("lives"), new_journal("attempts")
    actor = Phoenix.options(max_task_retries=2).remote(lives)
    method = actor.fail_until.options(retry_exceptions=[KeyError])
    with pytest.raises(ConnectionError):
        ray.get(method.remote(attempts, 3), timeout=20)
    assert len(attempts.read()) == 1


def test_kill_with_no_restart_false_restarts(journal: Journal) -> None:
    """ray.kill(no_restart=False) ends the process and lets a restart happen."""
    actor = Phoenix.options(max_restarts=1).remote(journal)
    process = ray.get(actor.process.remote())
    ray.kill(actor, no_restart=False)
    eventually(lambda: len(journal.read()) == 2, 20, "the constructor ran again")
    assert call_when_available(actor.process) != process


def test_kill_prevents_restart(journal: Journal) -> None:
    """ray.kill is final although restarts are left."""
    actor = Phoenix.options(max_restarts=-1).remote(journal)
    ray.get(actor.add.remote())
    ray.kill(actor)
    with pytest.raises(ActorDiedError):
        eventually(lambda: call_when_available(actor.add) is None)
    assert journal.read() == ["x"]


def test_exit_actor_prevents_restart(journal: Journal) -> None:
    """An actor that exits by itself isn't restarted."""
    actor = Phoenix.options(max_restarts=-1).remote(journal)
    with pytest.raises(ActorDiedError):
        ray.get(actor.leave.remote(), timeout=20)
    with pytest.raises(ActorDiedError):
        ray.get(actor.add.remote(), timeout=20)
    assert journal.read() == ["x"]


def test_queued_calls_run_after_the_restart(new_journal: Any, new_gate: Any) -> None:
    """Calls with retries that were queued behind a crash are run afterwards."""
    lives, attempts = new_journal("lives"), new_journal("attempts")
    actor = Phoenix.options(max_restarts=1, max_task_retries=-1).remote(lives)
    crash = actor.crash_until.remote(attempts, 2)
    behind = [actor.process.remote() for _ in range(3)]
    assert ray.get(crash, timeout=40) == 2
    assert len(set(ray.get(behind, timeout=40))) == 1


def test_named_actor_keeps_its_name_over_a_restart(journal: Journal) -> None:
    """get_actor finds a restarted actor under its name."""
    actor = Phoenix.options(max_restarts=1, name="phoenix").remote(journal)
    ray.get(actor.add.remote())
    with pytest.raises(RayActorError):
        ray.get(actor.crash.remote(), timeout=20)
    assert call_when_available(ray.get_actor("phoenix").add) == 1


@pytest.fixture
def new_journal(tmp_path: Any) -> Any:
    """Make an empty journal by name."""
    return lambda name: Journal(str(tmp_path / f"journal-{name}"))
