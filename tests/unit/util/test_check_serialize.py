"""The report on what can't be serialized."""

from __future__ import annotations

import io
import threading
from typing import Any

import pytest

from shoal.util.check_serialize import inspect_serializability

LOCK = threading.Lock()


class Holder:
    def __init__(self, part: object) -> None:
        self.number = 1
        self.part = part

    def method(self) -> None:
        """Bound to what it holds."""


def inspect(value: object, **options: Any) -> tuple[bool, Any, str]:
    file = io.StringIO()
    good, failures = inspect_serializability(value, print_file=file, **options)
    assert good == (not failures)
    return good, next(iter(failures), None), file.getvalue()


def test_good_values_are_good() -> None:
    good, failure, report = inspect([1, print, Holder(2)])
    assert good
    assert failure is None
    assert "It can." in report


def test_a_bare_lock_is_reported_under_the_name_given() -> None:
    good, failure, report = inspect(LOCK, name="my_lock")
    assert not good
    assert (failure.name, failure.obj, failure.parent) == ("my_lock", LOCK, None)
    assert "my_lock" in report
    assert "register_serializer" in report


def closing_over(part: object) -> Any:
    def inner() -> object:
        return part

    return inner


def reading_global() -> Any:
    space: dict[str, Any] = {"__name__": "__main__", "lk": LOCK}
    exec("def f(): return lk", space)
    return space["f"]


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Holder(LOCK), "part"),
        (closing_over(LOCK), "part"),
        (reading_global(), "lk"),
        ({"a": LOCK}, "['a']"),
        ((1, LOCK), "[1]"),
    ],
)
def test_parts_are_found(value: object, name: str) -> None:
    _, failure, report = inspect(value)
    assert (failure.name, failure.obj) == (name, LOCK)
    assert failure.parent is value
    assert f"FailTuple({name} [" in report


def test_bound_methods_lead_to_what_they_are_bound_to() -> None:
    holder = Holder(LOCK)
    _, failure, _ = inspect(holder.method)
    assert (failure.obj, failure.parent) == (LOCK, holder)


def test_depth_limits_the_search() -> None:
    nested = Holder(Holder(Holder(LOCK)))
    assert inspect(nested, depth=3)[1].obj is LOCK
    assert inspect(nested, depth=1)[1].obj is nested.part
    assert inspect(nested, depth=0)[1].obj is nested


def test_cycles_end() -> None:
    holder = Holder(LOCK)
    holder.number = holder  # type: ignore[assignment]
    assert inspect(holder)[1].obj is LOCK


def test_the_report_goes_to_standard_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    inspect_serializability(3)
    assert "3 can be serialized" in capsys.readouterr().out
