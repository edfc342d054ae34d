"""Tasks from submission to result, retry, error or cancellation."""

from __future__ import annotations

from typing import Any

from shoal._core.base.ids import ObjectId, TaskId, return_id
from shoal._core.owner.calls import DYNAMIC
from shoal._core.owner.references import FAILED, PENDING, READY_INLINE, READY_STORED
from shoal._core.serial.failures import decode_failure
from shoal._core.wire.node_messages import WorkerGone
from shoal._core.wire.worker_messages import (
    IN_STORE,
    INLINE,
    TaskResult,
    TasksReturned,
    Value,
)
from shoal.exceptions import (
    OutOfMemoryError,
    OwnerDiedError,
    RayTaskError,
    TaskCancelledError,
    WorkerCrashedError,
)
from tests.unit.owner.scripted import ME, W1, W2, Stage, failure


def plain(data: bytes = b"value") -> Value:
    return Value(INLINE, data, len(data))


def run(stage: Stage, label: str, call: Any = None, **how: Any) -> None:
    """Submit a task and have w1 run it, under lease 70."""
    stage.submit(label, call, **how)
    stage.grant(stage.sclass().request or 0, 70, W1)
    stage.says()


def result(stage: Stage, label: str, *values: Value, **how: Any) -> TaskResult:
    return TaskResult(stage.seq(label), list(values), 1_000_000, **how)


def crash(
    stage: Stage, address: str, *, oom: bool = False, intended: bool = False
) -> None:
    """A worker dies: its link is lost, and the node says how it ended."""
    stage.owner.on_link_lost(address)
    worker = bytes.fromhex(address)
    cause = "was killed by signal 9"
    stage.from_node(WorkerGone(worker, 7, -9, intended, cause, oom))


def error_of(stage: Stage, label: str) -> Exception:
    assert stage.entry(label).state == FAILED
    return decode_failure(stage.entry(label).data)


def cancel(
    stage: Stage, label: str, *, force: bool = False, down: bool = False
) -> bool:
    object_id = stage.entry(label).object_id
    is_found = stage.tasks.cancel(object_id, force=force, recursive=down)
    stage.end_turn()
    return is_found


# -- submitting ----------------------------------------------------------------------


def test_results_have_the_ids_that_follow_from_the_task(stage: Stage) -> None:
    one = stage.submit("t1")
    three = stage.submit("t2", stage.call(returns=3))
    none = stage.submit("t3", stage.call(returns=0))
    stage.says()
    task_id = TaskId(stage.records["t2"].task_id)
    assert one.object_id == return_id(TaskId(stage.records["t1"].task_id), 0)
    assert [e.object_id for e in three] == [return_id(task_id, i) for i in range(3)]
    assert none == []
    assert all(entry.state == PENDING for entry in three)


def test_arguments_are_held_until_the_reply(stage: Stage) -> None:
    argument = stage.refs.own(b"x".ljust(28, b"\0"))
    stage.refs.complete_inline(argument, b"5")
    run(stage, "t1", deps=[argument.object_id])
    stage.refs.release(argument.object_id)
    assert argument.object_id in stage.refs.entries
    stage.done(W1, "t1")
    assert argument.object_id not in stage.refs.entries


def test_a_task_waits_for_its_arguments(stage: Stage) -> None:
    first = stage.submit("t1")
    second = stage.submit("t2", stage.call("g"))
    deps = [first.object_id, second.object_id, first.object_id]
    stage.submit("t3", deps=deps)
    stage.grant(1, 70, W1)
    stage.grant(1, 71, W2)
    assert stage.records["t3"].missing == 3
    stage.says()
    stage.done(W1, "t1")
    assert stage.says() == []
    stage.done(W2, "t2")
    # Queued at the end of the turn, when w2 has been found idle.
    assert stage.says() == ["w1: run t3 with t1.1=value t2.1=value t1.1=value"]


def test_arguments_that_are_there_cost_no_wait(stage: Stage) -> None:
    stored = stage.refs.own(b"big".ljust(28, b"\0"))
    stage.refs.complete(stored, Value(IN_STORE, b"", 1 << 20))
    stage.submit("t1", deps=[stored.object_id])
    stage.grant(1, 70, W1)
    assert stage.says() == [
        "node: ask 1 for 1",
        "w1: use 70",
        f"w1: run t1 with big={IN_STORE}",
    ]


def test_a_borrowed_argument_is_fetched_first(stage: Stage) -> None:
    key = b"x".ljust(28, b"\0")
    stage.refs.accept(key, W2)
    stage.submit("t1", deps=[key])
    assert stage.says() == ["w2: get x"]
    stage.refs.complete_inline(stage.refs.entries[key], b"5")
    stage.end_turn()
    assert stage.says() == ["node: ask 1 for 1"]


def test_arguments_whose_owner_is_gone_fail_the_task_once(stage: Stage) -> None:
    """The fetch fails at once, while another argument is still to come."""
    stage.gone[W2] = None
    lost, lost_too = (name.ljust(28, b"\0") for name in (b"x", b"y"))
    stage.refs.accept(lost, W2)
    stage.refs.accept(lost_too, W2)
    pending = stage.submit("t1")
    stage.submit("t2", deps=[lost, pending.object_id, lost_too])
    assert stage.records["t2"].missing == 1
    stage.submit("t3", deps=[lost, lost_too])
    assert len(stage.sclass().queue) == 2  # t1 and t3, once
    stage.grant(1, 70, W1)
    stage.done(W1, "t1")
    assert "w1: run t1" in stage.says()
    for label in ("t2", "t3"):
        assert isinstance(error_of(stage, label), OwnerDiedError)


def test_a_failed_argument_fails_the_task_without_a_run(stage: Stage) -> None:
    run(stage, "t1")
    stage.submit("t2", deps=[stage.entry("t1").object_id])
    stage.submit("t3", deps=[stage.entry("t2").object_id])
    stage.from_peer(W1, result(stage, "t1", failure("bad input")))
    for label in ("t1", "t2", "t3"):
        error = error_of(stage, label)
        assert isinstance(error, RayTaskError)
        assert isinstance(error, ValueError)
        assert "bad input" in str(error)
    assert stage.says() == []
    assert not stage.tasks.pending


# -- results -------------------------------------------------------------------------


def test_several_results_go_to_their_refs(stage: Stage) -> None:
    run(stage, "t1", stage.call(returns=2))
    first, second = stage.records["t1"].returns
    values = [plain(b"1"), Value(IN_STORE, b"", 1 << 20)]
    stage.from_peer(W1, result(stage, "t1", *values))
    assert (first.state, first.data) == (READY_INLINE, b"1")
    assert (second.state, second.size) == (READY_STORED, 1 << 20)
    stage.refs.release(second.object_id)
    assert stage.says() == ["node: free t1.2"]


def test_an_error_goes_to_all_refs_and_is_told(stage: Stage) -> None:
    told: list[str] = []
    stage.tasks.on_failed = lambda record, _: told.append(record.label)
    run(stage, "t1", stage.call(returns=3))
    stage.from_peer(W1, result(stage, "t1", failure("no")))
    assert [entry.state for entry in stage.records["t1"].returns] == [FAILED] * 3
    assert told == ["t1"]


def test_a_result_nobody_holds_any_more_is_dropped(stage: Stage) -> None:
    run(stage, "t1")
    stage.refs.release(stage.entry("t1").object_id)
    stage.from_peer(W1, result(stage, "t1", Value(IN_STORE, b"", 9)))
    assert stage.says() == ["node: free t1.1"]


def test_what_the_executor_keeps_is_reported_before_the_arguments_go(
    stage: Stage,
) -> None:
    borrowed = b"x".ljust(28, b"\0")
    stage.refs.accept(borrowed, W2)
    record = stage.make("t1")
    record.holds = [borrowed]
    stage.tasks.submit(record)
    stage.refs.release(borrowed)
    stage.grant(1, 70, W1)
    stage.says()
    stage.from_peer(W1, result(stage, "t1", plain(), borrowed=[(borrowed, W2)]))
    assert stage.says() == ["w2: w1 holds x", "w2: drop x*1"]


def test_dynamic_results_are_held_by_the_first(stage: Stage) -> None:
    run(stage, "t1", stage.call(returns=DYNAMIC))
    record = stage.records["t1"]
    ids = [ObjectId(record.task_id + bytes([index, 0, 0, 0])) for index in (2, 3)]
    head = Value(INLINE, b"head", 4, [(one, ME) for one in ids])
    stage.from_peer(W1, result(stage, "t1", head, plain(b"1"), plain(b"2")))
    assert [stage.refs.entries[one].data for one in ids] == [b"1", b"2"]
    stage.refs.release(record.returns.object_id)
    assert not stage.refs.entries


def test_an_answer_that_was_given_up_leaves_nothing_held(stage: Stage) -> None:
    run(stage, "t1")
    late = result(stage, "t1", Value(INLINE, b"v", 1, [(b"x".ljust(28, b"\0"), W2)]))
    stage.owner.channels[W1].inflight.clear()
    stage.from_peer(W1, late)
    assert stage.says() == ["w2: drop x*1"]
    stage.done(W1, "t1")
    assert stage.entry("t1").state == PENDING


# -- retries -------------------------------------------------------------------------


def test_an_exception_is_retried_as_often_as_was_asked(stage: Stage) -> None:
    run(stage, "t1", stage.call(retries=1))
    stage.from_peer(W1, result(stage, "t1", failure("no"), retry=True))
    assert stage.says() == ["w1: run t1 again (1)"]
    stage.from_peer(W1, result(stage, "t1", failure("still no"), retry=True))
    assert "still no" in str(error_of(stage, "t1"))


def test_minus_one_retries_for_ever(stage: Stage) -> None:
    run(stage, "t1", stage.call(retries=-1))
    for attempt in range(1, 10):
        stage.from_peer(W1, result(stage, "t1", failure("no"), retry=True))
        assert stage.says() == [f"w1: run t1 again ({attempt})"]


def in_flight(stage: Stage, *retries: int) -> None:
    """w1 has t1, t2, …, of which t1 runs."""
    call = stage.call("f")
    call.learn(1)
    for number, left in enumerate(retries, 1):
        stage.submit(f"t{number}", call)
        stage.records[f"t{number}"].retries = left
    stage.grant(1, 70, W1)
    assert stage.says()[-1] == f"w1: run t{len(retries)}"


def test_a_crash_counts_for_the_task_that_ran_only(stage: Stage) -> None:
    in_flight(stage, 1, 0, 0)
    crash(stage, W1)
    assert stage.says()[:1] == ["node: how did w1 end"]
    assert [stage.records[label].retries for label in ("t1", "t2", "t3")] == [0, 0, 0]
    assert [stage.records[label].attempt for label in ("t1", "t2", "t3")] == [1, 0, 0]
    assert stage.warnings == [
        "Task f failed: its worker (pid 7) was killed by signal 9. There are 0 retries "
        "remaining, so the task will be retried."
    ]
    stage.warnings.clear()


def test_tasks_caught_in_a_crash_are_pushed_one_by_one(stage: Stage) -> None:
    in_flight(stage, 1, 0, 0)
    crash(stage, W1)
    stage.warnings.clear()
    stage.says()
    stage.grant(stage.sclass().request or 0, 71, W2)
    assert stage.says() == ["w2: use 71", "w2: run t1 again (1)"]
    for number in (1, 2):
        stage.done(W2, f"t{number}", took_us=1)
        assert stage.says() == [f"w2: run t{number + 1}"]


def test_a_careful_task_is_not_pushed_behind_another(stage: Stage) -> None:
    in_flight(stage, 1, 0)
    crash(stage, W1)
    stage.warnings.clear()
    call = stage.records["t1"].call
    stage.submit("t4", call)
    queue = stage.sclass().queue
    queue.rotate(1)  # t4 before t1 and t2
    stage.says()
    stage.grant(stage.sclass().request or 0, 71, W2)
    assert stage.says() == ["w2: use 71", "w2: run t4"]


def test_without_retries_a_crash_is_the_result(stage: Stage) -> None:
    in_flight(stage, 0, 0)
    crash(stage, W1)
    error = error_of(stage, "t1")
    assert isinstance(error, WorkerCrashedError)
    assert "was killed by signal 9" in str(error)
    assert "Attempts made: 1" in str(error)
    assert stage.entry("t2").state == PENDING
    stage.says()


def test_running_out_of_memory_is_said(stage: Stage) -> None:
    in_flight(stage, 0)
    crash(stage, W1, oom=True)
    assert isinstance(error_of(stage, "t1"), OutOfMemoryError)
    stage.says()


def test_an_intended_end_is_retried_without_a_word(stage: Stage) -> None:
    in_flight(stage, -1)
    crash(stage, W1, intended=True)
    assert stage.records["t1"].retries < 0
    assert stage.says()[-1] == "node: ask 2 for 1"


def test_a_dead_workers_half_stored_results_are_freed(stage: Stage) -> None:
    run(stage, "t1", stage.call(returns=2, retries=1))
    crash(stage, W1)
    assert stage.says()[1] == "node: free t1.1 t1.2"
    stage.warnings.clear()


def test_the_end_may_be_said_before_the_link_is_lost(stage: Stage) -> None:
    """What the worker said last is still to be read: its answer counts."""
    in_flight(stage, 0, 0)
    worker = bytes.fromhex(W1)
    stage.from_node(WorkerGone(worker, 7, -9, False, "was killed"))
    stage.done(W1, "t1", took_us=1)
    assert stage.entry("t1").data == b"value"
    stage.owner.on_link_lost(W1)
    assert isinstance(error_of(stage, "t2"), WorkerCrashedError)
    stage.says()


# -- cancelling ----------------------------------------------------------------------


def test_what_is_not_pending_is_not_cancelled(stage: Stage) -> None:
    run(stage, "t1")
    stage.done(W1, "t1")
    assert not cancel(stage, "t1")
    assert stage.entry("t1").data == b"value"


def test_a_task_that_waits_is_cancelled_here(stage: Stage) -> None:
    first = stage.submit("t1")
    stage.submit("t2", deps=[first.object_id])
    assert cancel(stage, "t1")
    assert isinstance(error_of(stage, "t1"), TaskCancelledError)
    assert [one.label for one in stage.sclass().queue] == ["t2"]
    stage.grant(1, 70, W1)
    assert isinstance(error_of(stage, "t2"), TaskCancelledError)
    assert stage.says() == ["node: ask 1 for 1", "w1: use 70"]


def test_a_task_that_waits_for_arguments_is_cancelled_here(stage: Stage) -> None:
    first = stage.submit("t1")
    stage.submit("t2", deps=[first.object_id])
    assert cancel(stage, "t2")
    assert isinstance(error_of(stage, "t2"), TaskCancelledError)
    stage.grant(1, 70, W1)
    stage.done(W1, "t1")
    assert stage.says() == ["node: ask 1 for 1", "w1: use 70", "w1: run t1"]


def test_a_task_that_runs_is_cancelled_there(stage: Stage) -> None:
    run(stage, "t1", stage.call(retries=3))
    assert cancel(stage, "t1", down=True)
    assert stage.says() == ["w1: cancel t1 and children"]
    cancel(stage, "t1")
    assert stage.says() == []
    stage.from_peer(W1, result(stage, "t1", failure("cancelled"), retry=True))
    assert stage.entry("t1").state == FAILED  # and is not retried


def test_force_ends_its_worker(stage: Stage) -> None:
    run(stage, "t1", stage.call(retries=3))
    cancel(stage, "t1", force=True)
    assert stage.says() == ["w1: cancel t1", "node: kill worker of 70"]
    crash(stage, W1)
    assert isinstance(error_of(stage, "t1"), TaskCancelledError)
    stage.says()


def test_a_task_on_its_way_back_is_not_run_after_its_cancellation(
    stage: Stage,
) -> None:
    in_flight(stage, 0, 0, 0)
    cancel(stage, "t3")
    assert stage.says() == ["w1: cancel t3"]
    stage.from_peer(W1, TasksReturned([stage.seq("t2"), stage.seq("t3")]))
    assert isinstance(error_of(stage, "t3"), TaskCancelledError)
    assert [one.label for one in stage.sclass().queue] == ["t2"]
    stage.says()


def test_children_are_cancelled_down_to_the_last(stage: Stage) -> None:
    parent = b"p" * 24
    for label in ("t1", "t2", "t3"):
        record = stage.make(label, stage.call())
        record.parent = parent if label != "t3" else None
        stage.tasks.submit(record)
    stage.grant(1, 70, W1)
    stage.says()
    stage.tasks.cancel_children(parent)
    assert stage.says() == ["w1: cancel t1 and children"]
    assert isinstance(error_of(stage, "t2"), TaskCancelledError)
    assert stage.entry("t3").state == PENDING


def test_a_process_that_leaves_cancels_all_it_waits_for(stage: Stage) -> None:
    run(stage, "t1")
    stage.submit("t2")
    stage.says()
    stage.tasks.cancel_all()
    assert stage.says() == ["w1: cancel t1 and children"]
    assert isinstance(error_of(stage, "t2"), TaskCancelledError)
