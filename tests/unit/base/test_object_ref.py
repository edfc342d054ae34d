"""The ref value, and what it reports to its process."""

from __future__ import annotations

import gc
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from shoal._core.base.identifiers import JobID, TaskID
from shoal._core.base.object_ref import ObjectRef, RefHooks, counted_ref, hooks

ID = bytes(range(28))
OTHER = bytes(28)


class Reports(list[tuple[str, bytes]]):
    """What refs reported since the test began."""

    def dropped(self) -> list[bytes]:
        gc.collect()
        return list(hooks.dropped)


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reports]:
    noted = Reports()
    gc.collect()
    hooks.dropped.clear()
    rebuilt = lambda object_id, owner: noted.append((f"rebuilt {owner}", object_id))  # noqa: E731
    monkeypatch.setattr(hooks, "rebuilt", rebuilt)
    monkeypatch.setattr(
        hooks, "written", lambda ref: noted.append(("written", ref.binary()))
    )
    yield noted
    hooks.dropped.clear()


def test_refs_are_equal_by_id(reports: Reports) -> None:
    one, same, other = ObjectRef(ID, "a"), ObjectRef(ID, "b"), ObjectRef(OTHER)
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one != ID
    assert {one: 1}[same] == 1


def test_a_ref_shows_its_id(reports: Reports) -> None:
    ref: ObjectRef[Any] = ObjectRef(ID, "owner")
    assert ref.binary() == ID
    assert ref.hex() == ID.hex()
    assert repr(ref) == f"ObjectRef({ID.hex()})"
    assert ref.owner_address() == "owner"
    assert ref.task_id() == TaskID(ID[:24])
    assert ref.job_id() == JobID(ID[20:24])
    assert ref.size() == 28
    assert ref.call_site() == ""


def test_nil_is_the_ref_to_nothing(reports: Reports) -> None:
    assert ObjectRef.nil().is_nil()
    assert not ObjectRef(ID).is_nil()


@pytest.mark.parametrize("wrong", [b"", b"short", bytes(29)])
def test_an_id_has_28_bytes(reports: Reports, wrong: bytes) -> None:
    with pytest.raises(ValueError, match="an object id has 28 bytes"):
        ObjectRef(wrong)


def test_birth_and_death_are_reported(reports: Reports) -> None:
    ref: ObjectRef[Any] = ObjectRef(ID, "owner")
    assert reports == [("rebuilt owner", ID)]
    assert reports.dropped() == []
    del ref
    assert reports.dropped() == [ID]


def test_the_birth_of_a_counted_ref_is_not_reported(reports: Reports) -> None:
    ref: ObjectRef[Any] = counted_ref(ID, "owner")
    assert (reports, ref.binary(), ref.owner_address()) == ([], ID, "owner")
    del ref
    assert reports.dropped() == [ID]


def test_copies_and_pickles_are_reported(reports: Reports) -> None:
    ref: ObjectRef[Any] = counted_ref(ID, "owner")
    copy = pickle.loads(pickle.dumps(ref))
    assert copy == ref
    assert copy.owner_address() == "owner"
    assert reports == [("written", ID), ("rebuilt owner", ID)]
    del copy
    assert reports.dropped() == [ID]


def test_futures_come_from_the_session(
    reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref: ObjectRef[Any] = counted_ref(ID, "owner")
    monkeypatch.setattr(hooks, "as_future", lambda one: ("future", one))
    monkeypatch.setattr(hooks, "as_asyncio", lambda one: iter([one]))
    assert ref.future() == ("future", ref)
    assert next(iter(ref.as_future())) is ref


def test_without_a_session_a_ref_is_a_plain_name() -> None:
    fresh = RefHooks()
    fresh.rebuilt(ID, "")
    fresh.written(counted_ref(ID, ""))
    hooks.dropped.clear()
