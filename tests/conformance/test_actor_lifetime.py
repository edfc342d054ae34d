"""How actors end: by kill, by themselves, by a crash, or because nobody is left.

The claims are those of Ray's pages on terminating actors and of the reference pages
of ``ray.kill``, ``ray.actor.exit_actor`` and the exceptions.  Restarts are in
test_actor_restarts.py.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from typing import Any

import pytest
from conformance_impl import Gate, Journal, eventually, ray

ActorDiedError = ray.exceptions.ActorDiedError
shared = pytest.mark.usefixtures("ray_session")


@ray.remote
class Victim:
    def __init__(self, at_exit: Journal | None = None) -> None:
        if at_exit is not None:
            atexit.register(at_exit.add, "atexit")

    def process(self) -> int:
        return os.getpid()

    def hold(self, entered: Gate, gate: Gate) -> str:
        entered.open()
        gate.wait()
        return "held"

    def leave(self) -> None:
        ray.actor.exit_actor()

    def exit_python(self) -> None:
        sys.exit(0)

    def crash(self) -> None:
        os._exit(1)


@ray.remote
class BadConstructor:
    def __init__(self) -> None:
        raise ZeroDivisionError("cannot be built")

    def method(self) -> int:
        return 1


def is_running(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_gone(pid: int) -> None:
    eventually(lambda: not is_running(pid), why=f"process {pid} ended")


@shared
def test_exception_in_constructor() -> None:
    """Creation succeeds; every call raises ActorDiedError with the cause's text."""
    actor = BadConstructor.remote()
    for ref in (actor.method.remote(), actor.__ray_ready__.remote()):
        with pytest.raises(ActorDiedError, match="cannot be built") as caught:
            ray.get(ref)
        assert "ZeroDivisionError" in str(caught.value)
    with pytest.raises(ActorDiedError, match="cannot be built"):
        ray.get(actor.method.remote())


@shared
def test_constructor_argument_that_failed() -> None:
    """An actor whose constructor argument failed never starts; calls fail."""

    @ray.remote
    def fail() -> None:
        raise ValueError("bad argument")

    @ray.remote
    class Dependent:
        def __init__(self, value: Any) -> None:
            self.value = value

        def get(self) -> Any:
            return self.value

    with pytest.raises(ray.exceptions.RayError):
        ray.get(Dependent.remote(fail.remote()).get.remote(), timeout=20)


@shared
def test_kill_ends_running_and_later_calls(new_gate: Any) -> None:
    """ray.kill ends the process at once; running, queued and later calls fail."""
    victim = Victim.remote()
    pid = ray.get(victim.process.remote())
    entered, never = new_gate("entered"), new_gate("never")
    running = victim.hold.remote(entered, never)
    queued = victim.process.remote()
    eventually(entered.is_open)
    ray.kill(victim)
    for ref in (running, queued, victim.process.remote()):
        with pytest.raises(ActorDiedError, match=r"ray\.kill"):
            ray.get(ref, timeout=20)
    wait_until_gone(pid)


@shared
def test_kill_twice_is_silent() -> None:
    """Killing an actor that is already dead does nothing."""
    victim = Victim.remote()
    ray.get(victim.process.remote())
    ray.kill(victim)
    with pytest.raises(ActorDiedError):
        ray.get(victim.process.remote(), timeout=20)
    assert ray.kill(victim) is None


@shared
def test_kill_before_the_actor_started() -> None:
    """An actor killed while it waits for resources never runs."""
    victim = Victim.options(resources={"not_here": 1}).remote()
    call = victim.process.remote()
    ray.kill(victim)
    with pytest.raises(ActorDiedError):
        ray.get(call, timeout=20)


@shared
def test_results_of_a_killed_actor_stay_good() -> None:
    """What a call returned before the actor died can still be read."""

    @ray.remote
    class Maker:
        def small(self) -> str:
            return "small"

        def large(self) -> bytes:
            return bytes(500_000)

    maker = Maker.remote()
    refs = [maker.small.remote(), maker.large.remote()]
    ray.wait(refs, num_returns=2, timeout=20)
    ray.kill(maker)
    assert ray.get(refs) == ["small", bytes(500_000)]


@shared
def test_kill_wants_a_handle() -> None:
    """Anything but an actor handle is a ValueError."""
    for wrong in ("name", ray.put(1), Victim.remote().process):
        with pytest.raises(ValueError, match="actor"):
            ray.kill(wrong)


@shared
def test_kill_from_a_task() -> None:
    """Whoever holds a handle may kill the actor."""

    @ray.remote
    def assassin(victim: Any) -> None:
        ray.kill(victim)

    victim = Victim.remote()
    ray.get(victim.process.remote())
    ray.get(assassin.remote(victim))
    with pytest.raises(ActorDiedError):
        eventually(lambda: ray.get(victim.process.remote(), timeout=20) is None)


@shared
def test_ray_terminate_finishes_what_was_submitted(journal: Journal) -> None:
    """__ray_terminate__ is queued behind earlier calls and runs atexit handlers."""
    victim = Victim.remote(journal)
    before = victim.process.remote()
    end = victim.__ray_terminate__.remote()
    pid = ray.get(before)
    with pytest.raises(ActorDiedError):
        ray.get(end, timeout=20)
    with pytest.raises(ActorDiedError):
        ray.get(victim.process.remote(), timeout=20)
    wait_until_gone(pid)
    assert journal.read() == ["atexit"]


@shared
def test_exit_actor(journal: Journal) -> None:
    """exit_actor ends the actor gracefully; its own call raises ActorDiedError."""
    victim = Victim.remote(journal)
    pid = ray.get(victim.process.remote())
    with pytest.raises(ActorDiedError, match="exit_actor"):
        ray.get(victim.leave.remote(), timeout=20)
    wait_until_gone(pid)
    assert journal.read() == ["atexit"]
    with pytest.raises(ActorDiedError):
        ray.get(victim.process.remote(), timeout=20)


@shared
def test_exit_actor_outside_an_actor() -> None:
    """exit_actor in a driver is a TypeError."""
    with pytest.raises(TypeError, match="actor"):
        ray.actor.exit_actor()


@shared
@pytest.mark.parametrize("way", ["exit_python", "crash"])
def test_process_that_ends_itself(way: str) -> None:
    """sys.exit and a crash end an actor; that call and later ones fail."""
    victim = Victim.remote()
    with pytest.raises(ActorDiedError):
        ray.get(getattr(victim, way).remote(), timeout=20)
    with pytest.raises(ActorDiedError):
        ray.get(victim.process.remote(), timeout=20)


@shared
def test_process_killed_from_outside() -> None:
    """SIGKILL of the actor's process fails the running call with ActorDiedError."""
    victim = Victim.remote()
    os.kill(ray.get(victim.process.remote()), signal.SIGKILL)
    with pytest.raises(ActorDiedError):
        eventually(lambda: ray.get(victim.process.remote(), timeout=20) is None)


@shared
def test_errors_form_the_documented_tree() -> None:
    """ActorDiedError and ActorUnavailableError are RayActorErrors and RayErrors."""
    errors = ray.exceptions
    assert issubclass(errors.ActorDiedError, errors.RayActorError)
    assert issubclass(errors.ActorUnavailableError, errors.RayActorError)
    assert issubclass(errors.RayActorError, errors.RayError)


@shared
def test_actor_out_of_scope_ends(journal: Journal) -> None:
    """When the last handle is gone the actor exits gracefully."""
    victim = Victim.remote(journal)
    pid = ray.get(victim.process.remote())
    del victim
    wait_until_gone(pid)
    assert journal.read() == ["atexit"]


@shared
def test_out_of_scope_finishes_submitted_calls(new_gate: Any) -> None:
    """Calls made before the last handle went are run before the actor exits."""
    entered, gate = new_gate("entered"), new_gate("gate")
    victim = Victim.remote()
    refs = [victim.hold.remote(entered, gate), victim.process.remote()]
    del victim
    eventually(entered.is_open)
    gate.open()
    assert ray.get(refs, timeout=20)[0] == "held"


@shared
def test_anonymous_handle() -> None:
    """A.remote().method.remote() works although nobody keeps the handle."""
    assert ray.get(Victim.remote().process.remote(), timeout=20) != os.getpid()


@shared
def test_temporary_handle_of_a_task_ends_with_it() -> None:
    """An actor that only a task held ends when the task is over."""

    @ray.remote
    def use() -> int:
        victim = Victim.remote()
        return ray.get(victim.process.remote())

    wait_until_gone(ray.get(use.remote()))


@shared
def test_kill_skips_exit_handlers(journal: Journal) -> None:
    """ray.kill ends the process without running its atexit handlers."""
    victim = Victim.remote(journal)
    pid = ray.get(victim.process.remote())
    ray.kill(victim)
    wait_until_gone(pid)
    assert journal.read() == []


def test_shutdown_ends_actors_and_their_handles(fresh_ray: Any) -> None:
    """Shutdown ends the actors; a handle of the old session is not found afterwards."""
    fresh_ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    victim = Victim.remote()
    pid = fresh_ray.get(victim.process.remote())
    fresh_ray.shutdown()
    wait_until_gone(pid)
    fresh_ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    with pytest.raises(ray.exceptions.ActorHandleNotFoundError):
        fresh_ray.kill(victim)
