"""The owner machine as a whole: who asks for values, and who is gone."""

from __future__ import annotations

import pytest

from shoal._core.owner.references import FAILED, PENDING
from shoal._core.serial.failures import decode_failure
from shoal._core.wire.control_messages import ALIVE, ActorUpdate
from shoal._core.wire.node_messages import ReclaimLeases, Welcome, WorkerGone
from shoal._core.wire.worker_messages import (
    INLINE,
    BorrowAdded,
    BorrowDropped,
    CancelByRef,
    GetValue,
    PeerHello,
    Value,
    ValueReply,
)
from shoal.exceptions import (
    ObjectLostError,
    OwnerDiedError,
    ReferenceCountingAssertionError,
    TaskCancelledError,
)
from tests.unit.owner.scripted import ME, W1, W2, Stage

X, Y = (name.ljust(28, b"\0") for name in (b"x", b"y"))


def gone(address: str) -> WorkerGone:
    return WorkerGone(bytes.fromhex(address), 7, -9, False, "was killed")


# -- dispatch ------------------------------------------------------------------------


def test_messages_for_others_are_not_taken(stage: Stage) -> None:
    channel = stage.owner.channel_to(W1)
    assert channel is not None
    assert not stage.owner.on_peer(channel, PeerHello(b"", "", 1))
    assert not stage.owner.on_node(Welcome(b"", b"", 0, {}))
    assert stage.owner.on_node(ReclaimLeases())


def test_there_is_one_channel_to_each_process(stage: Stage) -> None:
    assert stage.owner.channel_to(W1) is stage.owner.channel_to(W1)
    stage.gone[W2] = None
    assert stage.owner.channel_to(W2) is None


def test_news_of_an_actor_that_nobody_uses_is_ignored(stage: Stage) -> None:
    stage.from_node(ActorUpdate(b"unknown", ALIVE, W1, 0))


# -- values for others -----------------------------------------------------------------


def test_a_value_is_answered_at_once(stage: Stage) -> None:
    stage.refs.complete_inline(stage.refs.own(X), b"5")
    stage.from_peer(W1, GetValue(X))
    assert stage.says() == ["w1: x is 5"]


def test_a_pending_value_is_answered_when_it_comes(stage: Stage) -> None:
    entry = stage.submit("t1")
    stage.from_peer(W1, BorrowAdded([entry.object_id], W1), GetValue(entry.object_id))
    stage.from_peer(W2, GetValue(entry.object_id))
    stage.says()
    stage.refs.complete_inline(entry, b"5")
    assert stage.says() == ["w1: t1.1 is 5", "w2: t1.1 is 5"]


def test_who_hung_up_gets_no_answer(stage: Stage) -> None:
    entry = stage.submit("t1")
    stage.from_peer(W1, GetValue(entry.object_id))
    stage.owner.on_link_lost(W1)
    stage.says()
    stage.refs.complete_inline(entry, b"5")
    assert stage.says() == []


def test_the_receiver_of_a_value_is_registered_for_the_refs_inside(
    stage: Stage,
) -> None:
    stage.refs.complete_inline(stage.refs.own(Y), b"5")
    stage.refs.complete(stage.refs.own(X), Value(INLINE, b"v", 1, [(Y, ME)]))
    stage.refs.release(Y)
    stage.from_peer(W1, BorrowAdded([X], W1), GetValue(X))
    assert stage.refs.lent[Y] == {W1: 1}
    stage.refs.release(X)
    stage.from_peer(W1, BorrowDropped([(X, 1)]))
    assert set(stage.refs.entries) == {Y}
    stage.from_peer(W1, BorrowDropped([(Y, 1)]))
    assert not stage.refs.entries
    stage.says()


def test_what_was_freed_is_answered_with_an_error(stage: Stage) -> None:
    stage.from_peer(W1, GetValue(X))
    ((_, reply),) = stage.said
    stage.said.clear()
    assert isinstance(reply, ValueReply)
    error = decode_failure(reply.value.data)
    assert isinstance(error, ReferenceCountingAssertionError)


def test_what_was_freed_and_came_back_is_answered_with_an_error(stage: Stage) -> None:
    """A ref of ours that nothing kept valid is here again, without a value."""
    stage.refs.on_rebuilt(X, ME)
    stage.from_peer(W1, GetValue(X))
    ((_, reply),) = stage.said
    stage.said.clear()
    assert isinstance(decode_failure(reply.value.data), ObjectLostError)  # type: ignore[attr-defined]


def test_a_borrower_may_cancel_what_makes_its_object(stage: Stage) -> None:
    entry = stage.submit("t1")
    stage.from_peer(W1, CancelByRef(entry.object_id, force=False, recursive=True))
    assert isinstance(decode_failure(entry.data), TaskCancelledError)
    stage.says()


# -- ends ------------------------------------------------------------------------------


def test_values_asked_of_a_process_that_ended_are_lost(stage: Stage) -> None:
    stage.refs.accept(X, W1)
    stage.refs.accept(Y, W1)
    stage.refs.fetch(stage.refs.entries[X])
    stage.says()
    stage.owner.on_link_lost(W1)
    assert isinstance(decode_failure(stage.refs.entries[X].data), OwnerDiedError)
    # y was not asked for; it fails when it is.
    assert stage.refs.entries[Y].state == PENDING
    stage.gone[W1] = None
    stage.refs.fetch(stage.refs.entries[Y])
    assert isinstance(decode_failure(stage.refs.entries[Y].data), OwnerDiedError)


def test_a_link_that_was_never_used_for_tasks_needs_no_explanation(
    stage: Stage,
) -> None:
    stage.owner.channel_to(W1)
    stage.owner.on_link_lost(W1)
    stage.owner.on_link_lost(W1)
    stage.owner.on_link_lost(W2)
    assert stage.says() == []


@pytest.mark.parametrize("is_known", [True, False])
def test_what_an_ended_process_borrowed_is_free(stage: Stage, is_known: bool) -> None:
    if is_known:
        stage.from_peer(W1)
    stage.refs.complete_inline(stage.refs.own(X), b"5")
    stage.from_peer(W2, BorrowAdded([X], W1))
    stage.refs.release(X)
    stage.from_node(gone(W1))
    if is_known:
        assert X in stage.refs.entries  # its last words are still to be read
        stage.owner.on_link_lost(W1)
    stage.check()
    assert not stage.refs.entries


def test_the_last_words_of_an_ended_process_count(stage: Stage) -> None:
    """It handed a ref on and reported that; the news of its end came faster."""
    stage.refs.complete_inline(stage.refs.own(X), b"5")
    stage.from_peer(W1, BorrowAdded([X], W1))
    stage.refs.release(X)
    stage.from_node(gone(W1))
    stage.from_peer(W1, BorrowAdded([X], W2))
    stage.owner.on_link_lost(W1)
    assert stage.refs.lent == {X: {W2: 1}}


def test_the_end_of_the_session_fails_whatever_is_pending(stage: Stage) -> None:
    task = stage.submit("t1")
    actor = stage.owner.actor(b"an actor's id 16", "Counter", is_ordered=True)
    record = stage.make("t2", sclass=actor)
    record.actor = actor
    stage.tasks.submit(record)
    stage.refs.accept(X, W1)
    stage.refs.complete_inline(stage.refs.own(Y), b"5")
    stage.says()
    stage.owner.on_session_lost(ConnectionError("it is gone"))
    stage.check()
    for entry in (task, stage.entry("t2"), stage.refs.entries[X]):
        assert isinstance(decode_failure(entry.data), ConnectionError)
        assert stage.owner.is_failed(entry)
        assert entry.state == FAILED
    assert stage.refs.entries[Y].data == b"5"
    assert not stage.tasks.pending
