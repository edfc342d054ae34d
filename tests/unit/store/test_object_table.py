"""Each object lives its life once, whatever the clients do."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from shoal._core.store.arena import Arena
from shoal._core.store.object_table import (
    AlreadySealedError,
    BadSizeError,
    NotPinnedError,
    ObjectExistsError,
    ObjectTable,
    StoreError,
    UnknownObjectError,
    WrongClientError,
)

MIB = 1 << 20
A, B = b"object-a", b"object-b"
WRITER, READER, OTHER = 1, 2, 3


@pytest.fixture
def table() -> ObjectTable:
    return ObjectTable(Arena(MIB))


def sealed(table: ObjectTable, object_id: bytes, size: int = 1000) -> int:
    offset = table.create(object_id, size, WRITER)
    assert offset is not None
    assert table.seal(object_id, WRITER)
    table.check()
    return offset


def is_empty(table: ObjectTable) -> bool:
    table.check()
    return len(table) == 0 and table.usage().used_bytes == 0


def test_create_seal_pin_unpin_free(table: ObjectTable) -> None:
    offset = sealed(table, A)
    assert table.pin(A, READER) == (offset, 1000)
    assert table.unpin(A, READER) == 0
    assert table.free(A) == 1024
    assert A not in table
    assert is_empty(table)


def test_an_unsealed_object_can_not_be_read(table: ObjectTable) -> None:
    table.create(A, 10, WRITER)
    assert table.pin(A, READER) is None
    assert table.locate(A) is None


def test_locate_does_not_pin(table: ObjectTable) -> None:
    offset = sealed(table, A)
    assert table.locate(A) == (offset, 1000)
    assert table.usage().pinned_count == 0
    assert table.locate(B) is None


def test_memory_is_freed_with_the_last_of_several_pins(table: ObjectTable) -> None:
    sealed(table, A)
    for client in (READER, READER, READER, OTHER):
        table.pin(A, client)
    assert table.free(A) == 0
    table.check()
    assert table.unpin(A, READER, 2) == 0
    assert table.unpin(A, OTHER) == 0
    assert table.unpin(A, READER) == 1024
    assert is_empty(table)


def test_a_dropped_object_gets_no_new_pins(table: ObjectTable) -> None:
    sealed(table, A)
    table.pin(A, READER)
    table.free(A)
    assert table.pin(A, OTHER) is None
    assert table.pin(A, READER) is None
    assert table.locate(A) is None
    assert A in table


def test_an_object_dropped_while_written_goes_when_sealed(table: ObjectTable) -> None:
    table.create(A, 1000, WRITER)
    assert table.free(A) == 0
    table.check()
    assert table.seal(A, WRITER) is False
    assert is_empty(table)


def test_free_is_idempotent_and_knows_no_strangers(table: ObjectTable) -> None:
    assert table.free(A) == 0
    sealed(table, A)
    table.pin(A, READER)
    assert table.free(A) == 0
    assert table.free(A) == 0
    assert table.unpin(A, READER) == 1024
    assert table.free(A) == 0


def test_abort_gives_the_room_back(table: ObjectTable) -> None:
    table.create(A, 1000, WRITER)
    assert table.abort(A, WRITER) == 1024
    assert is_empty(table)
    assert table.create(A, 1000, OTHER) is not None


def test_a_full_store_says_none_and_takes_the_object_later(table: ObjectTable) -> None:
    sealed(table, A, MIB)
    assert table.create(B, 10, WRITER) is None
    assert B not in table
    table.free(A)
    assert table.create(B, 10, WRITER) is not None


def test_a_client_that_goes_leaves_no_pin_and_no_draft(table: ObjectTable) -> None:
    sealed(table, A)
    table.pin(A, READER)
    table.pin(A, READER)
    table.create(B, 2000, READER)
    table.free(A)
    assert table.client_gone(READER) == 1024 + 2048
    assert is_empty(table)
    assert table.client_gone(READER) == 0


def test_a_creator_that_goes_leaves_its_sealed_objects(table: ObjectTable) -> None:
    offset = sealed(table, A)
    table.pin(A, READER)
    assert table.client_gone(WRITER) == 0
    assert table.pin(A, OTHER) == (offset, 1000)
    table.check()


def test_pins_of_others_survive_a_client(table: ObjectTable) -> None:
    sealed(table, A)
    table.pin(A, READER)
    table.pin(A, OTHER)
    table.free(A)
    assert table.client_gone(READER) == 0
    assert table.client_gone(OTHER) == 1024


def test_creating_twice_is_refused_in_every_state(table: ObjectTable) -> None:
    table.create(A, 10, WRITER)
    for prepare in (lambda: None, lambda: table.seal(A, WRITER)):
        prepare()
        with pytest.raises(ObjectExistsError, match=A.hex()):
            table.create(A, 10, OTHER)


@pytest.mark.parametrize(("size", "told"), [(-1, "negative"), (MIB + 1, "whole store")])
def test_bad_sizes_are_refused(table: ObjectTable, size: int, told: str) -> None:
    with pytest.raises(BadSizeError, match=told):
        table.create(A, size, WRITER)
    assert is_empty(table)


def test_sealing_is_for_the_creator_and_once(table: ObjectTable) -> None:
    with pytest.raises(UnknownObjectError, match="create it first"):
        table.seal(A, WRITER)
    table.create(A, 10, WRITER)
    with pytest.raises(WrongClientError, match="client 1 is writing"):
        table.seal(A, OTHER)
    table.seal(A, WRITER)
    with pytest.raises(AlreadySealedError):
        table.seal(A, WRITER)
    with pytest.raises(AlreadySealedError):
        table.abort(A, WRITER)
    assert table.locate(A) is not None


@pytest.mark.parametrize("count", [0, -1, 2])
def test_no_client_gives_back_what_it_has_not(table: ObjectTable, count: int) -> None:
    sealed(table, A)
    table.pin(A, READER)
    table.free(A)
    with pytest.raises(NotPinnedError):
        table.unpin(A, READER, count)
    with pytest.raises(NotPinnedError, match="has 0"):
        table.unpin(A, OTHER)
    with pytest.raises(UnknownObjectError):
        table.unpin(B, READER)
    table.check()
    assert table.unpin(A, READER) == 1024


def test_usage_counts_each_kind(table: ObjectTable) -> None:
    sealed(table, A, 100)
    table.pin(A, READER)
    table.free(A)
    table.create(B, 1000, WRITER)
    usage = table.usage()
    assert (usage.object_count, usage.used_bytes) == (2, 128 + 1024)
    assert (usage.unsealed_count, usage.unsealed_bytes) == (1, 1024)
    assert (usage.pinned_count, usage.pinned_bytes) == (1, 128)
    assert (usage.dropped_count, usage.dropped_bytes) == (1, 128)
    assert usage.capacity_bytes == MIB
    assert usage.high_water_bytes == 128 + 1024
    assert usage.largest_hole_bytes == MIB - 128 - 1024


def test_describe_is_a_copy(table: ObjectTable) -> None:
    sealed(table, A, 100)
    table.pin(A, b"\x01\x02")
    told = table.describe()
    assert told == {
        A.hex(): {
            "offset": 0,
            "size_bytes": 100,
            "creator": "1",
            "state": "sealed",
            "dropped": False,
            "pins": {"0102": 1},
        }
    }
    told[A.hex()]["pins"] = {}
    assert table.describe()[A.hex()]["pins"] == {"0102": 1}


CLIENTS = st.integers(1, 3)
IDS = st.sampled_from([b"%d" % number for number in range(6)])


class TableModel(RuleBasedStateMachine):
    """Clients that do anything at any time; refused calls must change nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.table = ObjectTable(Arena(8 * 4096))
        self.pins: dict[tuple[bytes, int], int] = {}
        self.readable: dict[bytes, int] = {}  # id -> size, not dropped

    @rule(object_id=IDS, size=st.integers(-1, 9 * 4096), client=CLIENTS)
    def create(self, object_id: bytes, size: int, client: int) -> None:
        self.attempt(lambda: self.table.create(object_id, size, client))

    @rule(object_id=IDS, client=CLIENTS)
    def seal(self, object_id: bytes, client: int) -> None:
        sealed_now = self.attempt(lambda: self.table.seal(object_id, client))
        if sealed_now is True:
            found = self.table.locate(object_id)
            assert found is not None
            self.readable[object_id] = found[1]

    @rule(object_id=IDS, client=CLIENTS)
    def abort(self, object_id: bytes, client: int) -> None:
        self.attempt(lambda: self.table.abort(object_id, client))

    @rule(object_id=IDS, client=CLIENTS)
    def pin(self, object_id: bytes, client: int) -> None:
        found = self.table.pin(object_id, client)
        assert (found is not None) == (object_id in self.readable)
        if found is not None:
            assert found[1] == self.readable[object_id]
            key = (object_id, client)
            self.pins[key] = self.pins.get(key, 0) + 1

    @rule(object_id=IDS, client=CLIENTS, count=st.integers(0, 3))
    def unpin(self, object_id: bytes, client: int, count: int) -> None:
        held = self.pins.get((object_id, client), 0)
        outcome = self.attempt(lambda: self.table.unpin(object_id, client, count))
        assert (outcome is not None) == (1 <= count <= held)
        if outcome is not None:
            self.pins[object_id, client] = held - count

    @rule(object_id=IDS)
    def free(self, object_id: bytes) -> None:
        self.table.free(object_id)
        self.readable.pop(object_id, None)

    @rule(client=CLIENTS)
    def client_gone(self, client: int) -> None:
        self.table.client_gone(client)
        self.pins = {key: n for key, n in self.pins.items() if key[1] != client}

    def attempt(self, call: object) -> object:
        assert callable(call)
        before = self.table.describe()
        try:
            return call()
        except StoreError:
            assert self.table.describe() == before
            return None

    @invariant()
    def holds(self) -> None:
        self.table.check()
        told = self.table.describe()
        for object_id in self.readable:
            assert told[object_id.hex()]["state"] == "sealed"
        for (object_id, _), count in self.pins.items():
            assert count == 0 or object_id in self.table

    def teardown(self) -> None:
        for client in (1, 2, 3):
            self.table.client_gone(client)
        for object_id in self.readable:
            self.table.free(object_id)
        assert len(self.table) == 0
        assert self.table.usage().used_bytes == 0


TestTableModel = TableModel.TestCase
TestTableModel.settings = settings(
    max_examples=60, stateful_step_count=50, deadline=None
)
