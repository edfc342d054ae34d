"""Results that arrive one by one."""

from __future__ import annotations

from typing import Any

from shoal._core.owner.calls import STREAMING
from shoal._core.owner.references import FAILED, READY_INLINE
from shoal._core.owner.streams import Stream
from shoal._core.serial.failures import decode_failure
from shoal._core.serial.serializer import deserialize
from shoal._core.wire.node_messages import LeaseRefused, WorkerGone
from shoal._core.wire.worker_messages import (
    IN_STORE,
    INLINE,
    StreamItem,
    TaskResult,
    Value,
)
from shoal.exceptions import WorkerCrashedError
from tests.unit.owner.scripted import W1, W2, Stage, failure


class Counter:
    """Counts the news of a stream."""

    def __init__(self) -> None:
        self.count = 0

    def arrived(self, _: Any) -> None:
        self.count += 1


# -- the stream itself ---------------------------------------------------------------


def test_items_are_taken_in_order_whatever_order_they_come_in() -> None:
    stream = Stream(bytes(24))
    assert stream.take() is None
    second, first = stream.add(1), stream.add(0)
    assert (first, second) == (stream.item_id(0), stream.item_id(1))
    assert first != second
    assert stream.is_next_ready
    assert [stream.take(), stream.take(), stream.take()] == [first, second, None]
    assert not stream.is_next_ready


def test_an_item_counts_once() -> None:
    stream = Stream(bytes(24))
    assert stream.add(0)
    assert stream.add(0) is None
    stream.take()
    assert stream.add(0) is None


def test_the_end_is_news_without_an_item() -> None:
    stream = Stream(bytes(24))
    stream.add(0)
    stream.finish(1)
    assert stream.is_next_ready
    assert not stream.is_exhausted
    stream.take()
    assert stream.is_exhausted
    assert stream.is_next_ready


def test_an_empty_stream_is_exhausted_when_it_ends() -> None:
    stream = Stream(bytes(24))
    assert not stream.is_exhausted
    stream.finish(0)
    assert stream.is_exhausted


def test_those_who_wait_are_told_once() -> None:
    stream = Stream(bytes(24))
    waiter = Counter()
    stream.waiters.append(waiter)
    stream.add(0)
    stream.add(1)
    assert waiter.count == 1
    stream.waiters.append(waiter)
    stream.finish(2)
    assert waiter.count == 2


def test_a_dropped_stream_takes_nothing_in() -> None:
    stream = Stream(bytes(24))
    stream.is_dropped = True
    assert stream.add(0) is None


# -- a streaming task ----------------------------------------------------------------


def start(stage: Stage, *, retries: int = 0, backpressure: int = -1) -> Any:
    """A streaming task that runs on w1; returns its record."""
    call = stage.call(returns=STREAMING, retries=retries, backpressure=backpressure)
    stage.submit("t1", call)
    stage.grant(1, 70, W1)
    stage.says()
    return stage.records["t1"]


def item(
    stage: Stage, index: int, *, refs: Any = None, kind: int = INLINE
) -> StreamItem:
    return StreamItem(stage.seq("t1"), index, Value(kind, b"item", 4, refs))


def ended(stage: Stage, length: int, value: Value | None = None) -> TaskResult:
    values = [value or Value(INLINE, b"none")]
    return TaskResult(stage.seq("t1"), values, 1, stream_length=length)


def test_items_are_objects_of_the_consumer(stage: Stage) -> None:
    record = start(stage)
    stage.from_peer(W1, item(stage, 0), item(stage, 1), ended(stage, 2))
    taken = [stage.tasks.take_item(record) for _ in range(3)]
    assert taken[2] is None
    assert record.stream.is_exhausted
    assert [stage.refs.entries[one].data for one in taken[:2]] == [b"item"] * 2
    for one in taken[:2]:
        stage.refs.release(one)
    stage.refs.release(record.returns.object_id)
    assert not stage.refs.entries


def test_an_exception_is_the_last_item(stage: Stage) -> None:
    record = start(stage)
    stage.from_peer(W1, item(stage, 0), ended(stage, 1, failure("no more")))
    stage.tasks.take_item(record)
    last = stage.tasks.take_item(record)
    entry = stage.refs.entries[last]
    assert entry.state == FAILED
    assert "no more" in str(decode_failure(entry.data))
    assert record.stream.is_exhausted
    # The task as such is done: its own ref holds no error.
    assert record.returns.state == READY_INLINE
    assert deserialize(record.returns.data) is None


def test_a_failure_of_the_system_is_the_last_item(stage: Stage) -> None:
    record = start(stage)
    stage.from_peer(W1, item(stage, 0))
    stage.owner.on_link_lost(W1)
    stage.from_node(WorkerGone(bytes.fromhex(W1), 7, -9, False, "was killed"))
    stage.tasks.take_item(record)
    last = stage.tasks.take_item(record)
    assert isinstance(decode_failure(stage.refs.entries[last].data), WorkerCrashedError)
    assert record.stream.is_exhausted
    stage.says()


def test_a_stream_that_never_began_has_its_error_as_first_item(stage: Stage) -> None:
    stage.submit("t1", stage.call(returns=STREAMING))
    stage.from_node(LeaseRefused(1, "unschedulable", "because"))
    record = stage.records["t1"]
    first = stage.tasks.take_item(record)
    assert "because" in str(decode_failure(stage.refs.entries[first].data))
    assert record.stream.is_exhausted
    stage.says()


def test_a_paused_producer_is_told_what_was_taken(stage: Stage) -> None:
    record = start(stage, backpressure=2)
    stage.from_peer(W1, item(stage, 0), item(stage, 1))
    stage.tasks.take_item(record)
    assert stage.says() == ["w1: taken 1 of t1"]
    stage.tasks.take_item(record)
    assert stage.says() == ["w1: taken 2 of t1"]
    assert stage.tasks.take_item(record) is None
    assert stage.says() == []


def test_a_producer_that_is_done_is_told_nothing(stage: Stage) -> None:
    record = start(stage, backpressure=2)
    stage.from_peer(W1, item(stage, 0), ended(stage, 1))
    stage.tasks.take_item(record)
    assert stage.says() == []


def test_a_consumer_that_went_away_frees_what_came_and_what_comes(
    stage: Stage,
) -> None:
    record = start(stage)
    stage.from_peer(W1, item(stage, 0, kind=IN_STORE), item(stage, 1))
    taken = stage.tasks.take_item(record)
    stage.tasks.drop_stream(record)
    assert stage.says() == ["w1: stop t1"]
    refs = [(b"x".ljust(28, b"\0"), W2)]
    stage.from_peer(W1, item(stage, 2, kind=IN_STORE, refs=refs), ended(stage, 3))
    assert stage.says() == ["node: free t1.4", "w2: drop x*1"]
    stage.refs.release(taken)
    assert stage.says() == ["node: free t1.2"]
    stage.refs.release(record.returns.object_id)
    assert not stage.refs.entries


def test_another_attempt_begins_again_and_its_repeats_count_once(
    stage: Stage,
) -> None:
    record = start(stage, retries=1)
    stage.from_peer(W1, item(stage, 0), item(stage, 1))
    first = stage.tasks.take_item(record)
    stage.owner.on_link_lost(W1)
    stage.from_node(WorkerGone(bytes.fromhex(W1), 7, -9, False, "was killed"))
    stage.warnings.clear()
    stage.grant(2, 71, W2)
    stage.says()
    refs = [(b"x".ljust(28, b"\0"), W2)]
    stage.from_peer(W2, item(stage, 0, refs=refs), item(stage, 1), item(stage, 2))
    assert stage.says() == ["w2: drop x*1"]  # what the repeat held
    stage.from_peer(W2, ended(stage, 3))
    taken = [first]
    while (one := stage.tasks.take_item(record)) is not None:
        taken.append(one)
    assert taken == [record.stream.item_id(index) for index in range(3)]


def test_items_of_a_task_that_was_given_up_leave_nothing_held(stage: Stage) -> None:
    start(stage)
    late = item(stage, 0, refs=[(b"x".ljust(28, b"\0"), W2)])
    stage.owner.channels[W1].inflight.clear()
    stage.from_peer(W1, late)
    assert stage.says() == ["w2: drop x*1"]
