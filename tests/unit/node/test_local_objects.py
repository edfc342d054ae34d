"""The node's store: owners, readers that come early, creations that wait for room."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shoal._core.node.local_objects import LOOK_AGAIN_S, WAIT_MAX_S, LocalObjects
from shoal._core.store.object_table import (
    NotPinnedError,
    UnknownObjectError,
    WrongClientError,
)
from shoal._core.wire.node_messages import CreateObject, ObjectCreated, PinObject

MIB = 1 << 20
W, R, Q = b"writer", b"reader", b"other"
X, Y, Z = b"x", b"y", b"z"


class Stage:
    """A store of one MiB, and who is answered what."""

    def __init__(self) -> None:
        self.said: list[tuple[bytes, object]] = []
        self.time = 100.0
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.objects = LocalObjects(self, MIB)
        self._requests = 0

    def send(self, client: bytes, message: object) -> None:
        self.said.append((client, message))

    def now(self) -> float:
        return self.time

    def call_at(self, when: float, action: Callable[[], None]) -> None:
        self.timers.append((when, action))

    def pass_time(self, seconds: float) -> None:
        end = self.time + seconds
        while self.timers and min(self.timers, key=lambda one: one[0])[0] <= end:
            self.timers.sort(key=lambda one: one[0])
            self.time, action = self.timers.pop(0)
            action()
            self.objects.table.check()
        self.time = end

    def create(
        self, object_id: bytes, size: int, client: bytes = W, owner: bytes = W
    ) -> None:
        self._requests += 1
        message = CreateObject(self._requests, object_id, size, owner.hex())
        self.objects.on_create(client, message)
        self.objects.table.check()

    def put(self, object_id: bytes, size: int, owner: bytes = W) -> None:
        """Create and seal, and look at no answer."""
        self.create(object_id, size, owner=owner)
        self.objects.on_seal(W, object_id)
        self.said.clear()

    def pin(self, object_id: bytes, client: bytes = R, request: int = 9) -> None:
        self.objects.on_pin(client, PinObject(request, object_id))

    def answers(self) -> list[tuple[bytes, int]]:
        """(client, offset) of each answer since the last look."""
        said, self.said = self.said, []
        self.objects.table.check()
        return [(client, message.offset) for client, message in said]  # type: ignore[attr-defined]

    def reasons(self) -> list[str]:
        said, self.said = self.said, []
        return [one.reason for _, one in said if isinstance(one, ObjectCreated)]

    def count(self) -> int:
        return int(self.objects.describe()["object_count"])


@pytest.fixture
def stage() -> Stage:
    return Stage()


# -- writing and reading -------------------------------------------------------------


def test_an_object_is_given_a_place_and_found_there(stage: Stage) -> None:
    stage.create(X, 1000)
    stage.objects.on_seal(W, X)
    stage.pin(X)
    assert stage.answers() == [(W, 0), (R, 0)]
    usage = stage.objects.describe()
    assert (usage["object_count"], usage["pinned_count"]) == (1, 1)


def test_what_is_not_here_is_not_found(stage: Stage) -> None:
    stage.pin(X)
    assert stage.answers() == [(R, -1)]


def test_an_id_is_used_once(stage: Stage) -> None:
    stage.put(X, 10)
    stage.create(X, 10)
    assert stage.said[0][1].offset == -1  # type: ignore[attr-defined]
    assert "in the store already" in stage.reasons()[0]


def test_the_owner_pins_without_an_answer(stage: Stage) -> None:
    stage.put(X, 10)
    stage.pin(X, request=0)
    assert stage.answers() == []
    stage.objects.on_free([X])
    assert stage.count() == 1
    stage.objects.on_unpin(R, [X])
    assert stage.count() == 0


def test_clients_that_break_the_rules_are_told(stage: Stage) -> None:
    stage.create(X, 10)
    with pytest.raises(WrongClientError):
        stage.objects.on_seal(R, X)
    with pytest.raises(UnknownObjectError):
        stage.objects.on_seal(W, Y)
    stage.objects.on_seal(W, X)
    with pytest.raises(NotPinnedError):
        stage.objects.on_unpin(R, [X])


# -- readers ahead of the writer's word ------------------------------------------------


def test_a_reader_may_come_before_the_object_is_sealed(stage: Stage) -> None:
    stage.create(X, 10)
    stage.pin(X)
    stage.pin(X, Q)
    assert stage.answers() == [(W, 0)]
    stage.objects.on_seal(W, X)
    assert stage.answers() == [(R, 0), (Q, 0)]
    stage.objects.on_free([X])
    stage.objects.on_unpin(R, [X])
    stage.objects.on_unpin(Q, [X])
    assert stage.count() == 0


def test_an_early_reader_hears_of_the_writers_death(stage: Stage) -> None:
    stage.create(X, 10)
    stage.pin(X)
    stage.objects.on_client_gone(W)
    assert stage.answers() == [(W, 0), (R, -1)]
    stage.objects.on_unpin(R, [X])  # its word that it reads no more comes late
    assert stage.count() == 0
    stage.objects.on_client_gone(R)


def test_an_early_reader_that_dies_is_not_answered(stage: Stage) -> None:
    stage.create(X, 10)
    stage.pin(X)
    stage.pin(X, Q)
    stage.objects.on_free([X])
    stage.objects.on_client_gone(R)
    stage.answers()
    stage.objects.on_seal(W, X)
    assert [client for client, _ in stage.answers()] == [Q]


def test_an_object_dropped_before_it_was_sealed_is_not_found(stage: Stage) -> None:
    stage.create(X, 10)
    stage.pin(X)
    stage.objects.on_free([X])
    stage.answers()
    stage.objects.on_seal(W, X)
    assert stage.answers() == [(R, -1)]
    assert stage.count() == 0


# -- owners ----------------------------------------------------------------------------


def test_what_a_dead_owner_left_is_freed(stage: Stage) -> None:
    stage.put(X, 10, owner=Q)
    stage.put(Y, 10, owner=R)
    stage.objects.on_client_gone(Q)
    assert X not in stage.objects.table
    assert Y in stage.objects.table


def test_what_somebody_reads_stays_until_he_is_done(stage: Stage) -> None:
    stage.put(X, 10, owner=Q)
    stage.pin(X)
    stage.objects.on_client_gone(Q)
    assert stage.count() == 1
    stage.objects.on_unpin(R, [X])
    assert stage.count() == 0


def test_what_a_dead_writer_began_is_gone(stage: Stage) -> None:
    stage.create(X, 10, owner=Q)
    stage.objects.on_client_gone(W)
    assert stage.count() == 0


def test_nothing_is_remembered_of_what_is_gone(stage: Stage) -> None:
    stage.put(X, 10, owner=Q)
    stage.pin(X)
    stage.objects.on_free([X])
    stage.create(Y, 10, owner=Q)
    stage.objects.on_client_gone(R)  # the last pin of x
    stage.objects.on_client_gone(W)  # the writer of y
    assert stage.objects._owners == {}


# -- waiting for room ------------------------------------------------------------------


def test_a_creation_waits_until_there_is_room(stage: Stage) -> None:
    stage.put(X, MIB)
    stage.create(Y, 1000)
    assert stage.answers() == []
    stage.objects.on_free([X])
    assert stage.answers() == [(W, 0)]
    stage.pass_time(WAIT_MAX_S * 2)
    assert stage.answers() == []


def test_creations_are_served_in_order(stage: Stage) -> None:
    """A small one does not go past a large one, which would wait for ever."""
    stage.put(X, MIB * 3 // 4)
    stage.create(Y, MIB // 2, client=R)
    stage.create(Z, 1000, client=Q)
    assert stage.answers() == []
    stage.objects.on_free([X])
    assert [client for client, _ in stage.answers()] == [R, Q]


def test_room_may_come_from_a_reader_or_from_a_dead_client(stage: Stage) -> None:
    stage.put(X, MIB)
    stage.pin(X)
    stage.objects.on_free([X])
    stage.create(Y, MIB)
    stage.answers()
    stage.objects.on_unpin(R, [X])
    assert stage.answers() == [(W, 0)]
    stage.create(Z, MIB, client=R)
    stage.objects.on_client_gone(W)
    assert stage.answers() == [(R, 0)]


def test_room_may_come_from_an_object_dropped_before_it_was_sealed(
    stage: Stage,
) -> None:
    stage.create(X, MIB)
    stage.objects.on_free([X])
    stage.create(Y, MIB, client=R)
    stage.answers()
    stage.objects.on_seal(W, X)
    assert stage.answers() == [(R, 0)]


def test_the_creations_of_a_dead_client_wait_no_more(stage: Stage) -> None:
    stage.put(X, MIB)
    stage.create(Y, MIB, client=R)
    stage.create(Z, MIB, client=Q)
    stage.objects.on_client_gone(R)
    stage.objects.on_free([X])
    assert stage.answers() == [(Q, 0)]


def test_a_creation_that_nothing_can_help_is_refused_after_a_moment(
    stage: Stage,
) -> None:
    """Long enough for the word that an object is needed no longer to arrive."""
    stage.put(X, MIB)
    stage.create(Y, 1000)
    stage.pass_time(LOOK_AGAIN_S * 0.9)
    assert stage.answers() == []
    stage.pass_time(LOOK_AGAIN_S * 0.2)
    (reason,) = stage.reasons()
    assert "an object of 1,000 bytes finds no room" in reason
    assert "the store of 1,048,576 bytes holds 1 objects" in reason
    assert "its largest hole is 0 bytes" in reason


def test_a_creation_waits_for_readers_but_not_for_ever(stage: Stage) -> None:
    """The reader may be the very process that waits for the creation."""
    stage.put(X, MIB)
    stage.pin(X, W)
    stage.create(Y, 1000)
    assert stage.answers() == [(W, 0)]  # of the pin
    stage.pass_time(WAIT_MAX_S * 0.9)
    assert stage.answers() == []
    stage.pass_time(WAIT_MAX_S * 0.2)
    assert stage.answers() == [(W, -1)]


def test_when_the_first_gives_up_those_behind_it_may_fit(stage: Stage) -> None:
    stage.put(X, MIB * 3 // 4)
    stage.create(Y, MIB // 2, client=R)
    stage.create(Z, 1000, client=Q)
    stage.pass_time(LOOK_AGAIN_S)
    said = stage.answers()
    assert said[0] == (R, -1)
    assert said[1][0] == Q
    assert said[1][1] >= 0


def test_what_can_never_fit_is_refused_at_once(stage: Stage) -> None:
    stage.create(X, MIB + 1)
    assert stage.answers() == [(W, -1)]
