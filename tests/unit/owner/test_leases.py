"""The owner's end of leases: ask, fill, relieve, give back."""

from __future__ import annotations

import pytest

from shoal._core.owner.calls import WINDOW_MAX
from shoal._core.owner.leases import IDLE_RETURN_S, QUANTUM_S, STALL_S
from shoal._core.owner.references import FAILED
from shoal._core.serial.failures import decode_failure
from shoal._core.wire.node_messages import (
    DemandInfeasible,
    LeaseDelayed,
    LeaseGranted,
    LeaseRefused,
    ReclaimLeases,
    WorkerGone,
)
from shoal._core.wire.worker_messages import (
    INLINE,
    Callable_,
    TaskResult,
    TasksReturned,
    UseLease,
    Value,
)
from shoal.exceptions import (
    ActorUnschedulableError,
    RuntimeEnvSetupError,
    TaskPlacementGroupRemoved,
    TaskUnschedulableError,
)
from tests.unit.owner.scripted import ONE_CPU, W1, W2, W3, Stage, failure


def gone(address: str, *, oom: bool = False) -> WorkerGone:
    return WorkerGone(bytes.fromhex(address), 7, -9, False, "was killed", oom)


# -- asking ------------------------------------------------------------------------


def test_a_task_asks_for_a_worker_runs_there_and_the_worker_goes_back(
    stage: Stage,
) -> None:
    stage.submit("t1")
    assert stage.says() == ["node: ask 1 for 1"]
    stage.grant(1, 70, W1)
    assert stage.says() == ["w1: use 70", "w1: run t1"]
    stage.done(W1, "t1")
    assert stage.entry("t1").data == b"value"
    stage.pass_time(IDLE_RETURN_S * 0.9)
    assert stage.says() == []
    stage.pass_time(IDLE_RETURN_S * 0.2)
    assert stage.says() == ["node: return 70"]
    assert stage.leases.describe() == {"leases": 0, "queued": 0}


def test_the_worker_is_told_what_it_may_use(stage: Stage) -> None:
    demand = {"CPU": 10_000, "GPU": 20_000}
    strategy = ["pg", b"group", 3, True]
    sclass = stage.leases.sclass(demand, "", strategy, stage.tasks)
    stage.submit("t1", sclass=sclass)
    (_, request), stage.said = stage.said[0], []
    assert (request.demand, request.strategy, request.name) == (demand, strategy, "f")
    granted = LeaseGranted(1, 70, bytes.fromhex(W1), W1, demand, [4, 5])
    stage.from_node(granted)
    use = stage.said[0][1]
    assert use == UseLease(70, demand, [4, 5], b"group", True)
    assert stage.says() == ["w1: use 70", "w1: run t1"]


def test_tasks_of_one_kind_share_a_request_and_more_is_told_when_they_double(
    stage: Stage,
) -> None:
    stage.submit_many(1, 9, stage.call())
    assert stage.says() == [
        "node: ask 1 for 1",
        "node: ask 1 for 2",
        "node: ask 1 for 4",
        "node: ask 1 for 8",
    ]


def test_kinds_that_differ_in_demand_environment_or_strategy_ask_apart(
    stage: Stage,
) -> None:
    stage.submit("t1", sclass=stage.sclass(cpus=1))
    stage.submit("t2", sclass=stage.sclass(cpus=2))
    stage.submit("t3", sclass=stage.sclass(env="e"))
    spread = stage.leases.sclass(ONE_CPU, "", ["wish"], stage.tasks)
    stage.submit("t4", sclass=spread)
    assert stage.sclass(cpus=2) is stage.records["t2"].sclass
    assert stage.says() == [f"node: ask {number} for 1" for number in (1, 2, 3, 4)]


def test_an_idle_worker_gets_the_next_task_at_once(stage: Stage) -> None:
    stage.submit("t1")
    stage.grant(1, 70, W1)
    stage.done(W1, "t1")
    stage.says()
    stage.submit("t2")
    assert stage.says() == ["w1: run t2"]


def test_a_function_is_described_once_on_each_connection(stage: Stage) -> None:
    call = stage.call("f", pickled=b"code", max_retries=0)
    stage.submit("t1", call)
    stage.grant(1, 70, W1)
    stage.done(W1, "t1")
    stage.submit("t2", call)
    described = [one for _, one in stage.said if isinstance(one, Callable_)]
    assert [(one.number, one.pickled) for one in described] == [(1, b"code")]
    stage.says()


def test_a_worker_granted_for_tasks_that_are_gone_is_given_back(stage: Stage) -> None:
    stage.submit("t1")
    stage.grant(1, 70, W1)
    stage.grant(1, 71, W2)
    assert stage.says() == [
        "node: ask 1 for 1",
        "w1: use 70",
        "w1: run t1",
        "node: return 71",
    ]


def test_a_worker_that_cannot_be_reached_is_given_back_for_good(stage: Stage) -> None:
    stage.gone[W1] = None
    stage.submit("t1")
    stage.grant(1, 70, W1)
    assert stage.says() == [
        "node: ask 1 for 1",
        "node: return 70 for good",
        "node: ask 2 for 1",
    ]


def test_a_request_is_withdrawn_when_nothing_waits_any_more(stage: Stage) -> None:
    stage.submit_many(1, 2, stage.call())
    stage.grant(1, 70, W1)
    stage.says()
    stage.tasks.cancel(stage.entry("t2").object_id, force=False, recursive=False)
    stage.done(W1, "t1")
    stage.pass_time(IDLE_RETURN_S)
    assert stage.says() == ["node: return 70", "node: withdraw 1"]
    stage.grant(1, 71, W2)  # it was under way
    assert stage.says() == ["node: return 71"]


# -- windows -----------------------------------------------------------------------


def with_known_time(stage: Stage, took_us: int) -> None:
    """One worker, idle, and a function whose run time is known."""
    call = stage.call()
    stage.submit("t0", call)
    stage.grant(1, 70, W1)
    stage.done(W1, "t0", took_us=took_us)
    stage.says()


def test_a_function_that_has_never_finished_is_pushed_one_by_one(stage: Stage) -> None:
    stage.submit_many(1, 3, stage.call())
    stage.grant(1, 70, W1)
    assert stage.says()[-2:] == ["w1: use 70", "w1: run t1"]
    stage.done(W1, "t1")
    assert stage.says() == ["w1: run t2"]


def test_short_tasks_are_pushed_ahead_and_refilled_at_half(stage: Stage) -> None:
    with_known_time(stage, took_us=995)  # 4 ms of work are 4 of these
    call = stage.records["t0"].call
    assert call.window == 4
    stage.submit_many(1, 9, call)
    assert stage.says()[0] == "w1: run t1"
    # The worker is busy, so the others wait until half of its window has come back.
    stage.done(W1, "t1", took_us=995)
    assert stage.says() == [f"w1: run t{number}" for number in (2, 3, 4, 5)]
    stage.done(W1, "t2", took_us=995)
    assert stage.says() == []
    stage.done(W1, "t3", took_us=995)
    assert stage.says() == ["w1: run t6", "w1: run t7"]


def test_the_queue_is_shared_among_the_workers(stage: Stage) -> None:
    with_known_time(stage, took_us=1)
    call = stage.records["t0"].call
    assert call.window == WINDOW_MAX
    stage.submit_many(1, 9, call)
    stage.says()
    request = stage.records["t1"].sclass.request
    stage.grant(request, 71, W2)  # 8 wait for two workers
    assert stage.says() == ["w2: use 71", *(f"w2: run t{n}" for n in (2, 3, 4, 5))]
    stage.done(W1, "t1", took_us=1)
    assert stage.says() == ["w1: run t6", "w1: run t7"]


def test_long_tasks_are_not_pushed_behind_others(stage: Stage) -> None:
    """The window counts for the task that is pushed, not only for the one running."""
    with_known_time(stage, took_us=1)
    short = stage.records["t0"].call
    long = stage.call("long")
    stage.submit("t1", short)
    stage.submit("t2", short)
    stage.submit("t3", long)
    stage.submit("t4", short)
    stage.says()
    stage.done(W1, "t1", took_us=1)
    assert stage.says() == ["w1: run t2"]
    stage.done(W1, "t2", took_us=1)
    assert stage.says() == ["w1: run t3"]


def test_the_window_follows_the_run_time(stage: Stage) -> None:
    call = stage.call()
    call.learn(395)
    assert call.window == 10
    for _ in range(100):
        call.learn(100_000)
    assert call.window == 1


def test_a_worker_that_may_end_after_each_call_gets_one_at_a_time(
    stage: Stage,
) -> None:
    call = stage.call(max_calls=1)
    plain = stage.call("plain")
    plain.learn(1)
    stage.submit("t1", call)
    stage.submit("t2", call)
    stage.submit("t3", plain)
    stage.says()
    stage.grant(1, 70, W1)
    assert stage.says() == ["w1: use 70", "w1: run t1"]
    result = TaskResult(stage.seq("t1"), [Value(INLINE, b"v")], 1, retiring=True)
    stage.from_peer(W1, result)
    assert stage.says() == ["node: return 70 for good", "node: ask 1 for 2"]
    stage.grant(1, 71, W2)
    assert stage.says() == ["w2: use 71", "w2: run t2"]


def test_a_worker_that_retires_is_replaced(stage: Stage) -> None:
    call = stage.call(max_calls=1)
    stage.submit("t1", call)
    stage.grant(1, 70, W1)
    stage.submit("t2", call)
    stage.grant(2, 71, W2)
    stage.submit("t3", call)
    stage.says()
    result = TaskResult(stage.seq("t1"), [Value(INLINE, b"v")], 1, retiring=True)
    stage.from_peer(W1, result)
    assert stage.says() == ["node: return 70 for good"]
    assert stage.records["t3"].sclass.request == 3


# -- reclaim -----------------------------------------------------------------------


def test_idle_workers_go_back_at_once_when_others_wait(stage: Stage) -> None:
    stage.submit("t1")
    stage.grant(1, 70, W1)
    stage.done(W1, "t1")
    stage.says()
    stage.from_node(ReclaimLeases())
    assert stage.says() == ["node: return 70"]


def test_a_busy_worker_goes_back_when_it_is_done(stage: Stage) -> None:
    stage.submit("t1")
    stage.grant(1, 70, W1)
    stage.says()
    stage.from_node(ReclaimLeases())
    assert stage.says() == []
    stage.done(W1, "t1")
    assert stage.says() == ["node: return 70"]


def test_a_worker_with_work_is_kept_for_a_quantum_then_given_back(
    stage: Stage,
) -> None:
    stage.submit_many(1, 3, stage.call())
    stage.grant(1, 70, W1)
    stage.says()
    stage.from_node(ReclaimLeases())
    stage.done(W1, "t1")
    assert stage.says() == ["w1: run t2"]
    stage.pass_time(QUANTUM_S)
    stage.done(W1, "t2")
    # The request is open still (it asked for more workers than it got).
    assert stage.says() == ["node: return 70"]
    stage.grant(1, 71, W1)
    assert stage.says() == ["w1: use 71", "w1: run t3"]


def test_after_the_quantum_nothing_is_pushed_behind_what_runs(stage: Stage) -> None:
    with_known_time(stage, took_us=995)
    stage.submit_many(1, 9, stage.records["t0"].call)
    stage.done(W1, "t1", took_us=995)
    stage.from_node(ReclaimLeases())
    stage.says()
    stage.pass_time(QUANTUM_S)
    assert stage.says() == ["w1: give back 4"]  # it is silent, too
    stage.from_peer(W1, TasksReturned([]))
    stage.done(W1, "t2", "t3", "t4", took_us=995)
    assert stage.says() == []
    stage.done(W1, "t5", took_us=995)
    assert stage.says() == ["node: return 70"]


# -- taking back -------------------------------------------------------------------


def loaded_and_idle(stage: Stage, took_us: int) -> None:
    """W1 has t1 to t4, W2 is about to become idle with t5."""
    call = stage.call()
    call.learn(took_us)
    stage.submit_many(1, 4, call)
    stage.grant(1, 70, W1)
    stage.submit("t5", stage.call("other"))
    stage.grant(1, 71, W2)
    stage.says()


def test_an_idle_worker_relieves_the_busiest(stage: Stage) -> None:
    loaded_and_idle(stage, took_us=995)
    stage.done(W2, "t5")
    assert stage.says() == ["w1: give back 2"]
    stage.submit("t6", stage.records["t1"].call)
    stage.done(W2, "t6", took_us=995)
    assert stage.says() == ["w2: run t6"]  # and w1 is not asked twice
    stage.from_peer(W1, TasksReturned([stage.seq("t3"), stage.seq("t4")]))
    assert stage.says() == ["w2: run t3"]
    assert [one.label for one in stage.sclass().queue] == ["t4"]


def test_what_a_worker_gave_back_goes_elsewhere_until_it_answers_again(
    stage: Stage,
) -> None:
    """Else the tasks would wait behind the same long one again and again."""
    call = stage.call()
    call.learn(995)
    stage.submit_many(1, 4, call)
    stage.grant(1, 70, W1)
    stage.says()
    later = [stage.seq(label) for label in ("t2", "t3", "t4")]
    stage.from_peer(W1, TasksReturned(later))
    stage.submit("t5", call)
    assert stage.says() == []  # the first request is open still
    assert [one.label for one in stage.sclass().queue] == ["t2", "t3", "t4", "t5"]
    stage.grant(1, 71, W2)
    assert stage.says() == ["w2: use 71", "w2: run t2", "w2: run t3"]
    stage.done(W1, "t1", took_us=995)
    assert stage.says()[0] == "w1: run t4"


def test_a_few_short_tasks_are_not_worth_moving(stage: Stage) -> None:
    loaded_and_idle(stage, took_us=1)
    stage.done(W2, "t5")
    assert stage.says() == []


def test_a_silent_worker_gives_back_what_waits_behind_its_task(stage: Stage) -> None:
    with_known_time(stage, took_us=995)  # the timer for the idle worker is set
    stage.submit_many(1, 5, stage.records["t0"].call)
    stage.done(W1, "t1", took_us=995)
    stage.says()
    stage.pass_time(STALL_S * 2.1)
    assert stage.says() == ["node: withdraw 2", "w1: give back 4"]
    stage.pass_time(STALL_S * 2)
    assert stage.says() == []  # it is asked once


def test_a_worker_that_answers_in_time_keeps_its_tasks(stage: Stage) -> None:
    call = stage.call()
    call.learn(995)
    stage.submit_many(1, 4, call)
    stage.grant(1, 70, W1)
    stage.says()
    for label in ("t1", "t2"):
        stage.pass_time(STALL_S * 0.9)
        stage.done(W1, label, took_us=995)
    assert stage.says() == ["node: withdraw 1"]


# -- refusals ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("unschedulable", TaskUnschedulableError),
        ("environment", RuntimeEnvSetupError),
        ("placement_group", TaskPlacementGroupRemoved),
        ("something new", ActorUnschedulableError),
    ],
)
def test_a_refusal_fails_what_waits_with_its_reason(
    stage: Stage, kind: str, error: type[Exception]
) -> None:
    stage.submit_many(1, 2, stage.call())
    stage.says()
    stage.from_node(LeaseRefused(1, kind, "because"))
    for label in ("t1", "t2"):
        assert stage.entry(label).state == FAILED
        failure = decode_failure(stage.entry(label).data)
        assert isinstance(failure, error)
        assert "because" in str(failure)
    stage.submit("t3")
    assert stage.says() == ["node: ask 2 for 1"]


def test_news_of_a_request_that_is_closed_is_no_news(stage: Stage) -> None:
    stage.from_node(
        LeaseRefused(9, "unschedulable", "because"),
        DemandInfeasible(9, "because"),
        LeaseDelayed(9),
    )


def test_what_no_node_can_run_is_told_once(stage: Stage) -> None:
    stage.submit("t1")
    stage.from_node(DemandInfeasible(1, "too big"), DemandInfeasible(1, "too big"))
    assert stage.warnings == ["too big"]
    assert stage.records["t1"].sclass.reason == "too big"
    stage.warnings.clear()
    stage.grant(1, 70, W1)
    assert stage.records["t1"].sclass.reason == ""
    stage.says()


def test_news_of_an_actor_or_a_group_is_passed_on(stage: Stage) -> None:
    stage.from_node(DemandInfeasible(0, "the actor is too big"))
    assert stage.warnings == ["the actor is too big"]
    stage.warnings.clear()


def test_a_delayed_request_is_marked_until_it_is_served(stage: Stage) -> None:
    stage.submit_many(1, 2, stage.call())
    stage.from_node(LeaseDelayed(1))
    assert stage.records["t1"].sclass.is_delayed
    stage.grant(1, 70, W1)
    assert not stage.records["t1"].sclass.is_delayed
    stage.says()


# -- ends --------------------------------------------------------------------------


def test_a_granted_worker_without_any_task_to_run_goes_back(stage: Stage) -> None:
    bad = stage.refs.own(b"bad" + bytes(25))
    stage.refs.complete(bad, failure("no"))
    stage.submit("t1", deps=[bad.object_id])
    stage.grant(1, 70, W1)
    assert stage.entry("t1").state == FAILED
    stage.pass_time(IDLE_RETURN_S * 1.1)
    assert stage.says() == ["node: ask 1 for 1", "w1: use 70", "node: return 70"]


def test_a_worker_that_died_is_not_given_back(stage: Stage) -> None:
    stage.submit("t1")
    stage.grant(1, 70, W1)
    stage.done(W1, "t1")
    stage.says()
    stage.owner.on_link_lost(W1)
    assert stage.says() == ["node: how did w1 end"]
    stage.from_node(gone(W1))
    stage.pass_time(1)
    assert stage.leases.describe() == {"leases": 0, "queued": 0}
    assert stage.says() == []


def test_the_end_of_the_session_forgets_everything(stage: Stage) -> None:
    stage.submit_many(1, 3, stage.call())
    stage.grant(1, 70, W1)
    stage.says()
    stage.owner.on_session_lost(ConnectionError("it is gone"))
    for label in ("t1", "t2", "t3"):
        assert isinstance(decode_failure(stage.entry(label).data), ConnectionError)
    assert stage.leases.describe() == {"leases": 0, "queued": 0}
    stage.pass_time(1)
    assert stage.says() == []
    assert W3 not in stage.owner.channels
