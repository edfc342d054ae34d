"""The table of actors: names, lives, deaths, and who is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shoal._core.control import actors as actors_module
from shoal._core.control.actors import REGISTRATION_GRACE_S, ControlActors
from shoal._core.wire.control_messages import (
    ALIVE,
    DEAD,
    PENDING,
    RESTARTING,
    ActorRegistered,
    ActorSpec,
    ActorUpdate,
    CreateActor,
    KillActor,
    LookupActor,
)
from shoal._core.wire.node_messages import DemandInfeasible

OWNER, OTHER = b"owner", b"other"
W1, W2 = b"worker 1", b"worker 2"
A, B = b"actor a", b"actor b"


class Stage:
    """The port of the table, and the table."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.messages: list[Any] = []
        self.time = 100.0
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.actors = ControlActors(self)

    # -- the port ----------------------------------------------------------------

    def send(self, client: bytes, message: object) -> None:
        self.messages.append(message)
        self.said.append(f"{client.decode()}: {_text(message)}")

    def place(self, spec: ActorSpec, incarnation: int) -> None:
        self.said.append(f"place {spec.actor_id.decode()}, life {incarnation}")

    def unplace(self, actor_id: bytes) -> None:
        self.said.append(f"unplace {actor_id.decode()}")

    def end_worker(self, worker_id: bytes, *, graceful: bool, reason: str) -> None:
        how = "ask to end" if graceful else "end"
        self.said.append(f"{how} {worker_id.decode()}: {reason}")

    def actor_over(self, actor_id: bytes) -> None:
        self.said.append(f"{actor_id.decode()} is over")

    def now(self) -> float:
        return self.time

    def call_at(self, when: float, action: Callable[[], None]) -> None:
        self.timers.append((when, action))

    # -- the script --------------------------------------------------------------

    def says(self) -> list[str]:
        self.actors.check()
        said, self.said = self.said, []
        return said

    def create(
        self,
        actor_id: bytes = A,
        *,
        client: bytes = OWNER,
        get_if_exists: bool = False,
        **options: Any,
    ) -> ActorSpec:
        spec = ActorSpec(
            actor_id, client.hex(), "C", b"", b"", b"", [], {}, {}, **options
        )
        self.actors.on_create(client, CreateActor(1, spec, get_if_exists))
        return spec

    def start(self, actor_id: bytes = A, worker_id: bytes = W1, **options: Any) -> None:
        """An actor that lives."""
        self.create(actor_id, **options)
        assert self.actors.on_placed(actor_id, worker_id)
        self.actors.on_started(actor_id, worker_id, None)
        self.says()

    def ends(self, worker_id: bytes = W1, *, intended: bool = False) -> None:
        self.actors.on_worker_gone(worker_id, "was killed", intended=intended)

    def state(self, actor_id: bytes = A) -> str:
        return self.actors.rows[actor_id].state


def _text(message: Any) -> str:
    match message:
        case ActorRegistered():
            if message.spec is None:
                return f"refused, {message.error}"
            return f"registered {message.spec.actor_id.decode()}"
        case ActorUpdate():
            where = bytes.fromhex(message.address).decode()
            text = f"{message.actor_id.decode()} {message.state}"
            text += f" in {where}" * bool(where and message.state == ALIVE)
            text += f", life {message.incarnation}" * bool(message.incarnation)
            return text + f" ({message.cause})" * bool(message.cause)
        case DemandInfeasible():
            return f"warn, {message.reason}"
    raise AssertionError(message)


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    assert stage.says() == []


# -- birth ---------------------------------------------------------------------------


def test_an_actor_is_placed_and_lives(stage: Stage) -> None:
    stage.create()
    assert stage.says() == ["owner: registered actor a", "place actor a, life 0"]
    assert stage.state() == PENDING
    assert stage.actors.on_placed(A, W1)
    stage.actors.on_started(A, W1, None)
    assert stage.says() == ["owner: actor a ALIVE in worker 1"]


def test_who_watches_is_told_now_and_from_now_on(stage: Stage) -> None:
    stage.create()
    stage.says()
    stage.actors.on_watch(OTHER, A)
    assert stage.says() == ["other: actor a PENDING_CREATION"]
    stage.actors.on_placed(A, W1)
    stage.actors.on_started(A, W1, None)
    assert stage.says() == [
        "owner: actor a ALIVE in worker 1",
        "other: actor a ALIVE in worker 1",
    ]
    stage.actors.on_client_gone(OTHER)
    stage.ends()
    assert [line for line in stage.says() if line.startswith("other")] == []


def test_a_handle_may_be_faster_than_the_news_of_its_actor(stage: Stage) -> None:
    stage.actors.on_watch(OTHER, A)
    assert stage.says() == []
    stage.create()
    assert stage.says() == [
        "other: actor a PENDING_CREATION",
        "owner: registered actor a",
        "place actor a, life 0",
    ]
    ((when, action),) = stage.timers
    assert when == 100.0 + REGISTRATION_GRACE_S
    action()
    stage.actors.on_placed(A, W1)
    stage.actors.on_started(A, W1, None)
    assert "other: actor a ALIVE in worker 1" in stage.says()


def test_an_actor_nobody_has_heard_of_is_dead(stage: Stage) -> None:
    stage.actors.on_watch(OTHER, A)
    stage.timers[0][1]()
    (said,) = stage.says()
    assert said.startswith("other: actor a DEAD")
    assert "it is not on record" in said


def test_a_constructor_that_raises_is_the_end(stage: Stage) -> None:
    stage.create(max_restarts=-1)
    stage.actors.on_placed(A, W1)
    stage.says()
    stage.actors.on_started(A, W1, b"failure")
    cause = "its constructor raised an exception"
    assert stage.says() == [
        f"owner: actor a DEAD ({cause})",
        "actor a is over",
        f"ask to end worker 1: {cause}",
    ]
    assert stage.messages[-1].failure == b"failure"
    assert stage.messages[-1].init_failed
    stage.ends()
    assert stage.state() == DEAD


def test_an_actor_that_fits_nowhere_waits_and_its_owner_is_warned(
    stage: Stage,
) -> None:
    stage.create()
    stage.says()
    stage.actors.on_waiting(A, "too big")
    assert stage.says() == [
        "owner: warn, too big",
        "owner: actor a PENDING_CREATION (too big)",
    ]
    stage.actors.on_placed(A, W1)
    stage.actors.on_started(A, W1, None)
    assert stage.says() == ["owner: actor a ALIVE in worker 1"]
    stage.actors.on_waiting(b"unknown", "too big")


def test_an_actor_that_can_never_be_placed_is_dead(stage: Stage) -> None:
    stage.create()
    stage.says()
    stage.actors.on_unplaceable(A, "no such node", "unschedulable")
    assert stage.says() == ["owner: actor a DEAD (no such node)", "actor a is over"]
    assert stage.messages[-1].unplaceable == "unschedulable"
    stage.actors.on_unplaceable(A, "again", "unschedulable")
    assert not stage.actors.on_placed(A, W1)
    assert not stage.actors.on_placed(b"unknown", W1)


# -- names -----------------------------------------------------------------------------


def test_a_name_is_taken_once_in_each_namespace(stage: Stage) -> None:
    stage.create(A, name="counter", namespace="n")
    stage.says()
    stage.create(B, name="counter", namespace="n", client=OTHER)
    (said,) = stage.says()
    assert said.startswith("other: refused, The name 'counter' is taken")
    assert "namespace 'n'" in said
    stage.create(B, name="counter", namespace="m", client=OTHER)
    assert stage.says()[0] == "other: registered actor b"
    assert stage.actors.named(None) == [("n", "counter"), ("m", "counter")]
    assert stage.actors.named("m") == [("m", "counter")]


def test_who_asks_for_the_existing_one_gets_it(stage: Stage) -> None:
    stage.create(A, name="counter")
    stage.says()
    stage.create(B, name="counter", client=OTHER, get_if_exists=True)
    assert stage.says() == ["other: registered actor a"]
    assert B not in stage.actors.rows


def test_an_actor_is_found_by_name_while_it_lives(stage: Stage) -> None:
    stage.start(name="counter", namespace="n")
    stage.actors.on_lookup(OTHER, LookupActor(1, "counter", "n"))
    assert stage.says() == ["other: registered actor a"]
    stage.ends()
    stage.says()
    stage.actors.on_lookup(OTHER, LookupActor(1, "counter", "n"))
    (said,) = stage.says()
    assert "Failed to look up actor with name 'counter'" in said
    stage.create(B, name="counter", namespace="n")
    assert stage.says()[0] == "owner: registered actor b"


# -- restarts --------------------------------------------------------------------------


def test_an_actor_is_restarted_as_often_as_it_may(stage: Stage) -> None:
    stage.start(max_restarts=1)
    stage.ends()
    assert stage.says() == [
        "owner: actor a RESTARTING, life 1 (was killed)",
        "place actor a, life 1",
    ]
    stage.actors.on_placed(A, W2)
    stage.actors.on_started(A, W2, None)
    assert stage.says() == ["owner: actor a ALIVE in worker 2, life 1"]
    stage.ends(W2)
    assert stage.says() == [
        "owner: actor a DEAD, life 1 (was killed)",
        "actor a is over",
    ]
    (row,) = stage.actors.describe()
    assert (row["num_restarts"], row["death_cause"]) == (1, "was killed")


def test_minus_one_restarts_for_ever(stage: Stage) -> None:
    stage.start(max_restarts=-1)
    for life in range(1, 20):
        stage.ends(W1)
        stage.actors.on_placed(A, W1)
        stage.actors.on_started(A, W1, None)
        assert stage.says()[-1] == f"owner: actor a ALIVE in worker 1, life {life}"


def test_a_process_that_dies_while_it_constructs_is_restarted(stage: Stage) -> None:
    stage.create(max_restarts=1)
    stage.actors.on_placed(A, W1)
    stage.says()
    stage.ends()
    assert stage.state() == RESTARTING
    stage.says()


def test_an_intended_end_is_the_end(stage: Stage) -> None:
    stage.start(max_restarts=-1)
    stage.ends(intended=True)
    assert stage.says() == ["owner: actor a DEAD (was killed)", "actor a is over"]


def test_news_of_processes_that_are_no_actors_is_ignored(stage: Stage) -> None:
    stage.start()
    stage.ends(W2)
    stage.actors.on_started(A, W2, None)
    stage.actors.on_started(b"unknown", W2, None)
    assert stage.says() == []
    assert stage.state() == ALIVE


def test_news_of_an_earlier_process_is_ignored(stage: Stage) -> None:
    stage.start(max_restarts=-1)
    stage.ends()
    stage.actors.on_placed(A, W2)
    stage.says()
    stage.actors.on_started(A, W1, None)
    stage.ends(W1)
    assert stage.says() == []
    assert stage.state() == RESTARTING


# -- deaths ----------------------------------------------------------------------------


def test_kill_ends_the_process_and_the_actor(stage: Stage) -> None:
    stage.start(max_restarts=-1)
    stage.actors.on_kill(KillActor(A, True, "it was killed by `ray.kill`"))
    assert stage.says() == ["end worker 1: it was killed by `ray.kill`"]
    stage.ends()
    assert stage.says() == [
        "owner: actor a DEAD (it was killed by `ray.kill`)",
        "actor a is over",
    ]
    stage.actors.on_kill(KillActor(A, True, "again"))
    stage.actors.on_kill(KillActor(b"unknown", True, "again"))


def test_kill_may_leave_a_restart(stage: Stage) -> None:
    stage.start(max_restarts=1)
    stage.actors.on_kill(KillActor(A, False, "killed"))
    stage.ends()
    assert stage.says() == [
        "end worker 1: killed",
        "owner: actor a RESTARTING, life 1 (killed)",
        "place actor a, life 1",
    ]
    stage.actors.on_placed(A, W2)
    stage.actors.on_started(A, W2, None)
    # The cause of the last life is not that of this one.
    assert stage.says() == ["owner: actor a ALIVE in worker 2, life 1"]


def test_no_restart_once_said_stays(stage: Stage) -> None:
    stage.start(max_restarts=-1)
    stage.actors.on_kill(KillActor(A, True, "killed"))
    stage.actors.on_kill(KillActor(A, False, "killed again"))
    stage.ends()
    assert stage.state() == DEAD
    stage.says()


def test_an_actor_that_waits_for_a_worker_is_killed_here(stage: Stage) -> None:
    stage.create()
    stage.says()
    stage.actors.on_kill(KillActor(A, True, "killed"))
    assert stage.says() == [
        "unplace actor a",
        "owner: actor a DEAD (killed)",
        "actor a is over",
    ]


def test_without_handles_an_actor_is_asked_to_end(stage: Stage) -> None:
    stage.start(max_restarts=-1)
    stage.actors.on_out_of_scope(A)
    cause = "all handles to it went out of scope"
    assert stage.says() == [f"ask to end worker 1: {cause}"]
    stage.ends()
    assert stage.says() == [f"owner: actor a DEAD ({cause})", "actor a is over"]
    stage.actors.on_out_of_scope(A)
    stage.actors.on_out_of_scope(b"unknown")


def test_a_detached_actor_needs_no_handles_and_no_owner(stage: Stage) -> None:
    stage.start(detached=True)
    stage.actors.on_out_of_scope(A)
    stage.actors.on_owner_gone(OWNER.hex(), "it left")
    assert stage.says() == []
    assert stage.state() == ALIVE


def test_an_actor_ends_with_its_owner(stage: Stage) -> None:
    stage.start(A, W1, max_restarts=-1)
    stage.start(B, W2, client=OTHER)
    stage.actors.on_owner_gone(OWNER.hex(), "was killed")
    cause = "the process that owns it ended (was killed)"
    assert stage.says() == [f"end worker 1: {cause}"]
    stage.ends()
    assert stage.says()[0] == f"owner: actor a DEAD ({cause})"
    assert stage.state(B) == ALIVE


def test_a_job_has_living_actors_until_the_last_died(stage: Stage) -> None:
    stage.start(job_id=b"job1")
    assert stage.actors.has_living(b"job1")
    assert not stage.actors.has_living(b"job2")
    stage.ends()
    assert not stage.actors.has_living(b"job1")
    stage.says()


def test_the_dead_are_kept_within_a_bound(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actors_module, "DEAD_KEPT_MAX", 1)
    for number, actor_id in enumerate((A, B)):
        worker_id = b"w%d" % number
        stage.start(actor_id, worker_id)
        stage.ends(worker_id)
    assert list(stage.actors.rows) == [B]
    stage.says()
