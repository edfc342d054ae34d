"""Who holds what, message by message (test_borrowing draws the orders by chance)."""

from __future__ import annotations

import pytest

from shoal._core.owner import references
from shoal._core.owner.references import (
    ACTOR_SUFFIX,
    FAILED,
    PENDING,
    READY_INLINE,
    READY_STORED,
    Entry,
)
from shoal._core.wire.worker_messages import (
    IN_STORE,
    INLINE,
    BorrowAdded,
    BorrowDropped,
    Value,
    ValueReply,
)
from tests.unit.owner.scripted import ME, W1, W2, W3, Stage, failure


def id_of(name: str) -> bytes:
    return name.encode().ljust(28, b"\0")


X, Y, Z = map(id_of, "xyz")


def inline(data: bytes, refs: list[tuple[bytes, str]] | None = None) -> Value:
    return Value(INLINE, data, len(data), refs)


def put(stage: Stage, object_id: bytes, *inner: bytes) -> Entry:
    """An object of ours with refs inside, as ``put`` enters it."""
    entry = stage.refs.own(object_id)
    entry.inner = list(inner)
    for one in inner:
        stage.refs.hold(one)
    entry.state = READY_INLINE
    entry.data = b"value"
    return entry


def borrow(stage: Stage, object_id: bytes, owner: str) -> Entry:
    """A ref that came in a value whose sender registered us."""
    stage.refs.accept(object_id, owner)
    return stage.refs.entries[object_id]


class Arrived:
    """Notes what arrives."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def arrived(self, entry: Entry) -> None:
        self.entries.append(entry)


# -- holds in this process -----------------------------------------------------------


def test_an_object_goes_with_its_last_hold(stage: Stage) -> None:
    put(stage, X)
    stage.refs.hold(X)
    stage.refs.release(X)
    assert X in stage.refs.entries
    stage.refs.release(X)
    assert not stage.refs.entries


def test_a_release_of_what_is_not_known_is_nothing(stage: Stage) -> None:
    stage.refs.release(X)
    stage.check()


def test_a_stored_object_is_freed_in_the_store(stage: Stage) -> None:
    entry = stage.refs.own(X)
    stage.refs.complete(entry, Value(IN_STORE, bytes(8), 1000))
    assert (entry.state, entry.size) == (READY_STORED, 1000)
    stage.refs.release(X)
    assert stage.says() == ["node: free x"]


def test_an_object_holds_the_refs_inside_it(stage: Stage) -> None:
    put(stage, X)
    put(stage, Y, X)
    put(stage, Z, Y, X)
    stage.refs.release_all([X, Y])
    assert set(stage.refs.entries) == {X, Y, Z}
    stage.refs.release(Z)
    assert not stage.refs.entries


def test_an_actor_is_dropped_with_its_last_handle(stage: Stage) -> None:
    handle = b"an actor's id 16" + ACTOR_SUFFIX
    stage.refs.own(handle).state = READY_INLINE
    stage.refs.hand_over([(handle, ME)], W1)
    stage.refs.release(handle)
    assert stage.says() == []
    stage.from_peer(W1, BorrowDropped([(handle, 1)]))
    assert stage.says() == ["node: drop actor an actor's id 16"]


def test_a_borrowed_actor_handle_is_not_ours_to_end(stage: Stage) -> None:
    handle = b"an actor's id 16" + ACTOR_SUFFIX
    borrow(stage, handle, W1)
    stage.refs.release(handle)
    assert stage.says() == [f"w1: drop {handle.decode()}*1"]


# -- holds in other processes --------------------------------------------------------


def test_a_lent_object_stays_until_the_borrower_drops_it(stage: Stage) -> None:
    put(stage, X)
    stage.refs.hand_over([(X, ME)], W1)
    stage.refs.release(X)
    assert X in stage.refs.entries
    stage.from_peer(W1, BorrowDropped([(X, 1)]))
    assert not stage.refs.entries


def test_it_stays_while_any_of_several_holds_it(stage: Stage) -> None:
    put(stage, X)
    stage.from_peer(W1, BorrowAdded([X], W1), BorrowAdded([X], W2))
    stage.refs.release(X)
    stage.from_peer(W1, BorrowDropped([(X, 1)]))
    assert stage.refs.lent == {X: {W2: 1}}
    stage.from_peer(W2, BorrowDropped([(X, 1)]))
    assert not stage.refs.entries


def test_a_release_may_overtake_the_report_it_releases(stage: Stage) -> None:
    """w1 returned x to w2 and reported that; w2's release of it comes first."""
    put(stage, X)
    stage.refs.hand_over([(X, ME)], W1)
    stage.refs.release(X)
    stage.from_peer(W2, BorrowDropped([(X, 1)]))
    assert X in stage.refs.entries
    stage.from_peer(W1, BorrowAdded([X], W2), BorrowDropped([(X, 1)]))
    assert not stage.refs.entries


def test_reports_of_what_is_freed_change_nothing(stage: Stage) -> None:
    stage.from_peer(W1, BorrowAdded([X], W1), BorrowDropped([(X, 1)]))
    assert not stage.refs.lent


def test_a_process_that_ended_holds_nothing(stage: Stage) -> None:
    put(stage, X)
    put(stage, Y)
    stage.refs.hand_over([(X, ME), (Y, ME)], W1)
    stage.refs.hand_over([(Y, ME)], W2)
    stage.refs.release_all([X, Y])
    stage.refs.on_process_gone(W1)
    stage.check()
    assert set(stage.refs.entries) == {Y}


def test_late_reports_of_a_process_that_ended_are_not_believed(stage: Stage) -> None:
    put(stage, X)
    stage.refs.on_process_gone(W1)
    stage.from_peer(W2, BorrowAdded([X], W1))
    stage.refs.hand_over([(X, ME)], W1)
    stage.refs.release(X)
    assert not stage.refs.entries


def test_ended_processes_are_remembered_within_a_bound(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(references, "GONE_KEPT_MAX", 2)
    for address in (W1, W2, W3):
        stage.refs.on_process_gone(address)
    assert list(stage.refs._gone) == [W2, W3]


# -- borrowing -----------------------------------------------------------------------


def test_a_borrower_tells_how_often_it_was_registered(stage: Stage) -> None:
    borrow(stage, X, W1)
    borrow(stage, X, W1)
    stage.refs.release(X)
    assert stage.says() == []
    stage.refs.release(X)
    assert stage.says() == ["w1: drop x*2"]


def test_nobody_is_told_when_the_owner_is_gone(stage: Stage) -> None:
    borrow(stage, X, W1)
    stage.gone[W1] = None
    stage.refs.release(X)
    assert not stage.refs.entries


def test_a_ref_rebuilt_outside_of_tasks_is_reported_at_once(stage: Stage) -> None:
    stage.refs.on_rebuilt(X, W1)
    stage.refs.on_rebuilt(X, W1)
    assert stage.says() == ["w1: me holds x"]
    stage.refs.release_all([X, X])
    assert stage.says() == ["w1: drop x*1"]


def test_a_ref_of_ours_that_comes_back_is_counted(stage: Stage) -> None:
    put(stage, X)
    stage.refs.on_rebuilt(X, ME)
    stage.refs.release(X)
    assert X in stage.refs.entries
    stage.refs.release(X)
    assert not stage.refs.entries


@pytest.mark.parametrize("owner", [ME, ""])
def test_a_ref_that_nothing_kept_valid_stands_for_nothing(
    stage: Stage, owner: str
) -> None:
    stage.refs.on_rebuilt(X, owner)
    assert stage.refs.entries[X].state == PENDING
    stage.refs.release(X)
    assert not stage.refs.entries


def test_who_sends_a_ref_on_reports_it_to_the_owner(stage: Stage) -> None:
    borrow(stage, X, W1)
    stage.refs.hand_over([(X, W1)], W2)
    assert stage.says() == ["w1: w2 holds x"]
    stage.refs.hand_over([(X, W1)], W1)  # the owner needs no telling
    assert stage.says() == []


def test_a_ref_to_ourselves_is_not_lent_to_ourselves(stage: Stage) -> None:
    """A process that runs a task of its own is sender and receiver of the result."""
    put(stage, X)
    stage.refs.hand_over([(X, ME)], ME)
    stage.refs.accept(X, ME)
    assert not stage.refs.lent
    stage.refs.release_all([X, X])
    assert not stage.refs.entries


# -- refs that came with a task --------------------------------------------------------


@pytest.fixture
def arrivals(stage: Stage) -> list[bytes]:
    """A task runs: the refs of its arguments are noted here."""
    noted: list[bytes] = []
    stage.refs.arrivals = lambda: noted
    return noted


def test_what_a_task_drops_is_not_reported(stage: Stage, arrivals: list[bytes]) -> None:
    stage.refs.on_rebuilt(X, W1)
    assert arrivals == [X]
    stage.refs.release(X)
    assert stage.refs.still_borrowed(arrivals) is None


def test_what_a_task_keeps_is_named_in_its_reply(
    stage: Stage, arrivals: list[bytes]
) -> None:
    stage.refs.on_rebuilt(X, W1)
    stage.refs.on_rebuilt(Y, W2)
    stage.refs.on_rebuilt(Z, W3)
    stage.refs.release(Y)
    assert stage.refs.still_borrowed(arrivals) == [(X, W1), (Z, W3)]
    assert stage.refs.still_borrowed(arrivals) is None
    stage.refs.release(X)
    assert stage.says() == ["w1: drop x*1"]


def test_known_refs_are_not_on_loan(stage: Stage, arrivals: list[bytes]) -> None:
    put(stage, X)
    borrow(stage, Y, W1)
    stage.refs.on_rebuilt(X, ME)
    stage.refs.on_rebuilt(Y, W1)
    assert arrivals == []


def test_the_caller_reports_what_its_executor_keeps(stage: Stage) -> None:
    put(stage, X)
    borrow(stage, Y, W2)
    stage.refs.on_still_borrowed([(X, ME), (Y, W2)], W1)
    assert stage.says() == ["w2: w1 holds y"]
    assert stage.refs.lent == {X: {W1: 1}}


@pytest.mark.parametrize("receiver", [W1, W2])
def test_who_hands_a_loan_on_is_named_though_it_keeps_nothing(
    stage: Stage, arrivals: list[bytes], receiver: str
) -> None:
    """Its own release follows the report to the owner; the caller's might not."""
    stage.refs.on_rebuilt(X, W1)
    stage.refs.hand_over([(X, W1)], receiver)
    stage.refs.hand_over([(X, W1)], receiver)
    assert stage.says() == ["w1: w2 holds x"] * 2 * (receiver == W2)
    stage.refs.release(X)
    assert X in stage.refs.entries
    assert stage.refs.still_borrowed(arrivals) == [(X, W1)]
    assert stage.says() == ["w1: drop x*1"]
    assert not stage.refs.entries


def test_a_loan_is_named_though_somebody_has_registered_it_since(
    stage: Stage, arrivals: list[bytes]
) -> None:
    """Who did may have had it on loan from us, and our caller is all that counts."""
    stage.refs.on_rebuilt(X, W1)
    borrow(stage, X, W1)
    stage.refs.release(X)
    assert stage.refs.still_borrowed(arrivals) == [(X, W1)]
    stage.refs.release(X)
    assert stage.says() == ["w1: drop x*2"]


# -- values ----------------------------------------------------------------------------


def test_those_who_wait_are_told_once(stage: Stage) -> None:
    entry = stage.refs.own(X)
    one, other = Arrived(), Arrived()
    entry.add_waiter(one)
    entry.add_waiter(other)
    entry.remove_waiter(other)
    entry.remove_waiter(other)
    stage.refs.complete_inline(entry, b"value")
    assert (one.entries, other.entries) == ([entry], [])
    assert (entry.state, entry.data, entry.size) == (READY_INLINE, b"value", 5)
    late = stage.refs.own(Y)
    late.add_waiter(one)
    stage.refs.complete(late, inline(b"v"))
    assert one.entries == [entry, late]


def test_refs_inside_a_result_are_held_with_it(stage: Stage) -> None:
    put(stage, X)
    entry = stage.refs.own(Z)
    stage.refs.complete(entry, inline(b"v", [(X, ME), (Y, W1)]))
    stage.refs.release(X)
    assert set(stage.refs.entries) == {X, Y, Z}
    stage.refs.release(Z)
    assert not stage.refs.entries
    assert stage.says() == ["w1: drop y*1"]


def test_a_result_that_nobody_wants_is_let_go(stage: Stage) -> None:
    entry = stage.refs.own(Z)
    stage.refs.release(Z)
    stage.refs.complete(entry, Value(IN_STORE, bytes(8), 9, [(Y, W1)]))
    assert stage.says() == ["node: free z", "w1: drop y*1"]
    stage.refs.complete_inline(entry, b"value")
    assert not stage.refs.entries


def test_a_value_with_refs_registers_its_receiver(stage: Stage) -> None:
    put(stage, X)
    borrow(stage, Y, W1)
    entry = put(stage, Z, X, Y)
    value = stage.refs.value_of(entry, W2)
    assert value == Value(INLINE, b"value", 0, [(X, ME), (Y, W1)])
    assert stage.refs.lent == {X: {W2: 1}}
    assert stage.says() == ["w1: w2 holds y"]


def test_a_value_for_a_task_registers_nobody(stage: Stage) -> None:
    put(stage, X)
    entry = put(stage, Z, X)
    assert stage.refs.value_for_task(entry).refs is None
    assert not stage.refs.lent
    stage.refs.own(Y)
    stage.refs.complete(stage.refs.entries[Y], failure("no"))
    assert stage.refs.entries[Y].state == FAILED


# -- fetching --------------------------------------------------------------------------


def test_a_borrowed_value_is_asked_for_once(stage: Stage) -> None:
    entry = borrow(stage, X, W1)
    stage.refs.fetch(entry)
    stage.refs.fetch(entry)
    assert stage.says() == ["w1: get x"]
    assert stage.refs.asked_of(W1) == [entry]
    assert stage.refs.borrowed_from(W1) == [entry]
    stage.from_peer(W1, ValueReply(X, inline(b"value")))
    assert entry.data == b"value"
    stage.refs.fetch(entry)
    assert stage.says() == []
    assert stage.refs.asked_of(W1) == []


def test_an_answer_that_comes_too_late_leaves_nothing_held(stage: Stage) -> None:
    entry = borrow(stage, X, W1)
    stage.refs.fetch(entry)
    stage.refs.release(X)
    stage.says()
    stage.from_peer(W1, ValueReply(X, inline(b"value", [(Y, W2)])))
    assert stage.says() == ["w2: drop y*1"]
    assert not stage.refs.entries


def test_a_second_answer_leaves_nothing_held(stage: Stage) -> None:
    """The ref was dropped and came again, and was asked for again, on the way."""
    for _ in range(2):
        entry = borrow(stage, X, W1)
        stage.refs.fetch(entry)
        stage.refs.release(X)
    entry = borrow(stage, X, W1)
    stage.refs.fetch(entry)
    stage.says()
    answer = ValueReply(X, inline(b"value", [(Y, W2)]))
    stage.from_peer(W1, answer, answer, answer)
    stage.refs.release(X)
    assert stage.says() == ["w2: drop y*3", "w1: drop x*1"]


def test_a_task_of_ours_needs_no_fetching(stage: Stage) -> None:
    stage.submit("t1")
    stage.says()
    stage.refs.fetch(stage.entry("t1"))
    assert stage.entry("t1").state == PENDING


def test_the_task_of_an_object(stage: Stage) -> None:
    assert stage.refs.task_of(b"t" * 24 + b"\1\0\0\0") == b"t" * 24
