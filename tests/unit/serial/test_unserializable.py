"""What can't be pickled is found, wherever it is."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import pytest

from shoal._core.serial import unserializable
from shoal._core.serial.unserializable import (
    explain_unserializable,
    find_unserializable,
    pickling_error,
)

LOCK = threading.Lock()


class Holder:
    def __init__(self, **parts: Any) -> None:
        vars(self).update(parts)

    def method(self) -> None:
        """Bound to what it holds."""


class Slotted:
    __slots__ = ("empty", "part")

    def __init__(self, part: object) -> None:
        self.part = part


class OneSlot:
    """A lone name is allowed as ``__slots__``."""

    __slots__ = "part"


class Own:
    """Writes a part that it doesn't keep as an attribute."""

    def __reduce__(self) -> Any:
        return Holder, (threading.Lock(),)


def one_slot() -> OneSlot:
    value = OneSlot()
    value.part = LOCK
    return value


def closing_over(part: object) -> Any:
    def inner() -> object:
        return part

    return inner


class_with_lock = type("Inner", (), {"lock": LOCK, "__module__": "__main__"})

CASES = [
    (LOCK, "v"),
    ([1, LOCK], "v[1]"),
    ((1, (2, LOCK)), "v[1][1]"),
    ({"a": {7: LOCK}}, "v['a'][7]"),
    ({LOCK: 1}, "v.keys()[0]"),
    (Holder(a=1, b=[LOCK]), "v.b[0]"),
    (Slotted(LOCK), "v.part"),
    (one_slot(), "v.part"),
    (Holder(part=LOCK).method, "v.__self__.part"),
    (partial(print, LOCK), "v.args[0]"),
    (partial(print, end=LOCK), "v.keywords['end']"),
    (closing_over(LOCK), "v.__closure__['part']"),
    (closing_over(Holder(x=LOCK)), "v.__closure__['part'].x"),
    ([staticmethod(closing_over(LOCK))], "v[0].__func__.__closure__['part']"),
    (property(closing_over(LOCK)), "v.fget.__closure__['part']"),
    (class_with_lock, "v.lock"),
    (Own(), "v"),
]


@pytest.mark.parametrize(("value", "path"), CASES, ids=[path for _, path in CASES])
def test_the_innermost_part_is_found(value: object, path: str) -> None:
    found, _part, error = find_unserializable(value, "v")
    assert found == path
    assert "lock" in str(error)


def test_elements_of_sets_are_shown() -> None:
    assert find_unserializable({1, LOCK}, "v")[0].startswith("v{<unlocked _thread.lock")


def test_cycles_end() -> None:
    loop: list[Any] = []
    loop.append(loop)
    loop.append(Holder(back=loop, lock=LOCK))
    assert find_unserializable(loop, "v")[0] == "v[1].lock"


def test_the_search_is_bounded_in_depth_and_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deep: object = LOCK
    for _ in range(10):
        deep = [deep]
    monkeypatch.setattr(unserializable, "DEPTH_MAX", 3)
    assert find_unserializable(deep, "v")[0] == "v[0][0][0]"
    monkeypatch.setattr(unserializable, "PARTS_MAX", 5)
    assert find_unserializable([0] * 9 + [LOCK], "v")[0] == "v"


def test_the_explanation_names_place_type_and_remedies() -> None:
    text = explain_unserializable({"a": LOCK}, "arg")
    assert text.startswith("What can't be serialized is arg['a'], of type _thread.lock")
    assert "cannot pickle" in text
    assert "__getstate__" in text


class Evil:
    """Neither pickled nor looked at without an error."""

    def __reduce__(self) -> Any:
        raise RuntimeError("not picklable")

    def __getattribute__(self, name: str) -> Any:
        if name == "__dict__":
            raise RuntimeError("hands off")
        return super().__getattribute__(name)


def test_objects_that_cannot_be_looked_at_do_not_hide_the_error() -> None:
    assert "could not be found: RuntimeError('hands off')" in explain_unserializable(
        Evil(), "v"
    )


def test_cells_that_are_not_filled_yet_are_passed_over() -> None:
    def make(fill: bool) -> Any:
        def reads(default: object = LOCK) -> Any:
            return later, default

        if fill:
            later = 1
        return reads

    assert find_unserializable(make(fill=False), "v")[0] == "v.__defaults__[0]"


def test_what_can_be_pickled_has_no_error() -> None:
    assert pickling_error([1, print, Holder(a=2)]) is None
    assert isinstance(pickling_error(LOCK), TypeError)
