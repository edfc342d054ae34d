"""Calls to an actor: their order, and what restarts and deaths do to them."""

from __future__ import annotations

from typing import Any

import pytest

from shoal._core.owner.actor_calls import ActorCalls
from shoal._core.owner.references import FAILED, PENDING, Entry
from shoal._core.serial.failures import decode_failure, encode_failure
from shoal._core.wire import control_messages as control
from shoal._core.wire.control_messages import ALIVE, DEAD, RESTARTING, ActorUpdate
from shoal._core.wire.worker_messages import INLINE, TaskResult, Value
from shoal.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    ActorUnschedulableError,
    RuntimeEnvSetupError,
    TaskCancelledError,
)
from tests.unit.owner.scripted import W1, W2, Stage, failure

ACTOR = b"an actor's id 16"


def make_actor(stage: Stage, *, is_ordered: bool = True) -> ActorCalls:
    actor = stage.owner.actor(ACTOR, "Counter", is_ordered=is_ordered)
    assert stage.says() == ["node: watch an actor's id 16"]
    return actor


def call(
    stage: Stage,
    actor: ActorCalls,
    label: str,
    *,
    deps: list[bytes] | None = None,
    retries: int = 0,
) -> None:
    record = stage.make(
        label, stage.call("m", retries=retries), deps=deps, sclass=actor
    )
    record.actor = actor
    stage.tasks.submit(record)
    stage.end_turn()


def update(
    stage: Stage, state: str, address: str = "", incarnation: int = 0, **how: Any
) -> None:
    stage.from_node(ActorUpdate(ACTOR, state, address, incarnation, **how))


def alive(stage: Stage, *, is_ordered: bool = True) -> ActorCalls:
    """An actor that lives in w1."""
    actor = make_actor(stage, is_ordered=is_ordered)
    update(stage, ALIVE, W1)
    return actor


def pending(stage: Stage) -> Entry:
    """The result of a task that is still to come."""
    entry: Entry = stage.submit("late")
    stage.says()
    return entry


def error_of(stage: Stage, label: str) -> Exception:
    assert stage.entry(label).state == FAILED
    return decode_failure(stage.entry(label).data)


# -- order ---------------------------------------------------------------------------


def test_an_actor_is_watched_from_first_use_on(stage: Stage) -> None:
    actor = make_actor(stage)
    assert stage.owner.actor(ACTOR, "Counter", is_ordered=True) is actor
    assert actor.describe() == {
        "state": control.PENDING,
        "queued": 0,
        "incarnation": -1,
    }


def test_calls_wait_for_the_actor_and_leave_in_order(stage: Stage) -> None:
    actor = make_actor(stage)
    for label in ("t1", "t2"):
        call(stage, actor, label)
    assert stage.says() == []
    assert actor.waiting_count == 2
    update(stage, ALIVE, W1)
    call(stage, actor, "t3")
    assert stage.says() == ["w1: run t1", "w1: run t2", "w1: run t3"]
    assert actor.waiting_count == 3
    stage.done(W1, "t1")
    assert actor.waiting_count == 2


def test_on_an_ordered_actor_a_late_argument_holds_up_the_calls_behind(
    stage: Stage,
) -> None:
    actor = alive(stage)
    late = pending(stage)
    call(stage, actor, "t1", deps=[late.object_id])
    call(stage, actor, "t2")
    assert stage.says() == []
    stage.refs.complete_inline(late, b"5")
    stage.end_turn()
    assert stage.says() == ["w1: run t1 with late.1=5", "w1: run t2"]


def test_an_out_of_order_actor_takes_calls_as_they_become_ready(stage: Stage) -> None:
    actor = make_actor(stage, is_ordered=False)
    late = pending(stage)
    call(stage, actor, "t1", deps=[late.object_id])
    call(stage, actor, "t2")
    update(stage, ALIVE, W1)
    call(stage, actor, "t3")
    assert stage.says() == ["w1: run t2", "w1: run t3"]
    stage.refs.complete_inline(late, b"5")
    stage.end_turn()
    assert stage.says() == ["w1: run t1 with late.1=5"]


def test_a_failed_argument_fails_its_call_only(stage: Stage) -> None:
    actor = alive(stage)
    bad = pending(stage)
    call(stage, actor, "t1", deps=[bad.object_id])
    call(stage, actor, "t2")
    stage.refs.complete(bad, failure("no"))
    stage.end_turn()
    assert stage.says() == ["w1: run t2"]
    assert "no" in str(error_of(stage, "t1"))


def test_a_cancelled_call_no_longer_holds_up_the_others(stage: Stage) -> None:
    actor = alive(stage)
    late = pending(stage)
    call(stage, actor, "t1", deps=[late.object_id])
    call(stage, actor, "t2")
    first = stage.entry("t1").object_id
    assert stage.tasks.cancel(first, force=False, recursive=False)
    assert stage.says() == ["w1: run t2"]
    assert isinstance(error_of(stage, "t1"), TaskCancelledError)


def test_a_method_that_raised_is_tried_again_before_later_calls(stage: Stage) -> None:
    actor = alive(stage)
    call(stage, actor, "t1", retries=1)
    stage.says()
    result = TaskResult(stage.seq("t1"), [failure("no")], 1, retry=True)
    stage.from_peer(W1, result)
    assert stage.says() == ["w1: run t1 again (1)"]


# -- restarts ------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["link", "news"])
def test_unanswered_calls_fail_at_a_restart_unless_they_may_be_sent_again(
    stage: Stage, first: str
) -> None:
    actor = alive(stage)
    for label, retries in (("t1", 0), ("t2", 1), ("t3", -1)):
        call(stage, actor, label, retries=retries)
    stage.says()
    if first == "link":
        stage.owner.on_link_lost(W1)
        update(stage, RESTARTING, incarnation=1, cause="it was killed")
    else:
        update(stage, RESTARTING, incarnation=1, cause="it was killed")
        stage.owner.on_link_lost(W1)
    error = error_of(stage, "t1")
    assert isinstance(error, ActorUnavailableError)
    assert "it was killed" in str(error)
    # What the dead process may have stored must not be in the way.
    assert stage.says() == [f"node: free t{number}.1" for number in (1, 2, 3)]
    call(stage, actor, "t4")
    update(stage, ALIVE, W2, 1)
    assert stage.says() == [
        "w2: run t2 again (1)",
        "w2: run t3 again (1)",
        "w2: run t4",
    ]
    update(stage, RESTARTING, incarnation=2)
    update(stage, ALIVE, W1, 2)
    assert isinstance(error_of(stage, "t2"), ActorUnavailableError)
    assert stage.says()[-1] == "w1: run t3 again (2)"


def test_calls_made_after_the_process_hung_up_wait_for_the_next(stage: Stage) -> None:
    """They were never sent, so they are not among the unanswered."""
    actor = alive(stage)
    stage.owner.on_link_lost(W1)
    call(stage, actor, "t1")
    assert stage.says() == []
    update(stage, RESTARTING, incarnation=1)
    assert stage.entry("t1").state == PENDING
    update(stage, ALIVE, W2, 1)
    assert stage.says() == ["w2: run t1"]


def test_a_process_that_is_gone_before_it_was_reached_is_waited_for(
    stage: Stage,
) -> None:
    actor = make_actor(stage)
    stage.gone[W1] = None
    update(stage, ALIVE, W1)
    call(stage, actor, "t1")
    assert stage.says() == []
    update(stage, RESTARTING, incarnation=1)
    update(stage, ALIVE, W2, 1)
    assert stage.says() == ["w2: run t1"]


def test_news_of_an_earlier_life_is_ignored(stage: Stage) -> None:
    actor = alive(stage)
    update(stage, ALIVE, W2, 1)
    update(stage, RESTARTING, incarnation=0)
    call(stage, actor, "t1")
    assert stage.says() == ["w2: run t1"]


def test_a_life_that_was_missed_is_judged_when_the_next_begins(stage: Stage) -> None:
    actor = alive(stage)
    call(stage, actor, "t1", retries=1)
    stage.says()
    update(stage, ALIVE, W2, 1)
    assert stage.says() == ["node: free t1.1", "w2: run t1 again (1)"]


def test_a_cancelled_call_is_not_sent_again(stage: Stage) -> None:
    actor = alive(stage)
    call(stage, actor, "t1", retries=-1)
    first = stage.entry("t1").object_id
    stage.tasks.cancel(first, force=False, recursive=False)
    update(stage, RESTARTING, incarnation=1)
    assert isinstance(error_of(stage, "t1"), TaskCancelledError)
    stage.says()


def test_after_a_kill_calls_wait_for_its_news(stage: Stage) -> None:
    actor = alive(stage)
    actor.is_killed = True
    call(stage, actor, "t1")
    assert stage.says() == []
    update(stage, DEAD, cause="it was killed by `ray.kill`")
    assert isinstance(error_of(stage, "t1"), ActorDiedError)


# -- death ---------------------------------------------------------------------------


def test_death_fails_all_calls_and_all_later_ones(stage: Stage) -> None:
    actor = alive(stage)
    late = pending(stage)
    call(stage, actor, "t1", retries=5)
    call(stage, actor, "t2", deps=[late.object_id])
    stage.says()
    update(stage, DEAD, cause="it was killed.")
    call(stage, actor, "t3")
    stage.refs.complete_inline(late, b"5")
    stage.end_turn()
    for label in ("t1", "t2", "t3"):
        error = error_of(stage, label)
        assert isinstance(error, ActorDiedError)
        assert f"The actor Counter({ACTOR.hex()}) is dead: it was killed." in str(error)
    assert stage.says() == ["node: free t1.1"]


def test_creation_arguments_are_held_until_death(stage: Stage) -> None:
    actor = make_actor(stage)
    argument = stage.refs.own(b"x".ljust(28, b"\0"))
    actor.holds = [argument.object_id]
    update(stage, ALIVE, W1)
    update(stage, RESTARTING, incarnation=1)
    assert argument.object_id in stage.refs.entries
    update(stage, DEAD, incarnation=1)
    update(stage, DEAD, incarnation=1)
    assert argument.object_id not in stage.refs.entries


def test_a_constructor_that_raised_is_the_cause(stage: Stage) -> None:
    actor = make_actor(stage)
    call(stage, actor, "t1")
    cause = ValueError("bad start")
    data = encode_failure(cause, function_name="Counter.__init__", pid=1, ip="")
    update(stage, DEAD, failure=data, init_failed=True)
    error = error_of(stage, "t1")
    assert isinstance(error, ActorDiedError)
    assert "bad start" in str(error)


def test_a_constructor_that_the_system_failed_is_the_cause(stage: Stage) -> None:
    actor = make_actor(stage)
    call(stage, actor, "t1")
    data = encode_failure(
        RuntimeEnvSetupError("no such folder"), function_name="f", pid=1, ip=""
    )
    update(stage, DEAD, failure=data)
    assert "no such folder" in str(error_of(stage, "t1"))


@pytest.mark.parametrize(
    ("kind", "error"),
    [("unschedulable", ActorUnschedulableError), ("environment", RuntimeEnvSetupError)],
)
def test_an_actor_without_a_place_says_why(
    stage: Stage, kind: str, error: type[Exception]
) -> None:
    actor = make_actor(stage)
    call(stage, actor, "t1")
    update(stage, DEAD, cause="because", unplaceable=kind)
    raised = error_of(stage, "t1")
    assert isinstance(raised, error)
    assert "because" in str(raised)


def test_answers_of_a_process_that_was_judged_change_nothing(stage: Stage) -> None:
    actor = alive(stage)
    call(stage, actor, "t1")
    stage.says()
    seq = stage.seq("t1")
    update(stage, RESTARTING, incarnation=1)
    refs = [(b"x".ljust(28, b"\0"), W2)]
    stage.from_peer(W1, TaskResult(seq, [Value(INLINE, b"v", 1, refs)], 1))
    assert isinstance(error_of(stage, "t1"), ActorUnavailableError)
    assert stage.says() == ["node: free t1.1", "w2: drop x*1"]
