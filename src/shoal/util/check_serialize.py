"""``inspect_serializability``: why a value can't be sent, part by part, printed.

Pickles the object as a task's argument would be pickled (with cloudpickle), and where
that fails goes on with its parts: the globals and the closure of a function, the
attributes of an object or class, the items of a container.  It follows the first part
that fails at each level; what has no part that fails is reported.

Stands on cloudpickle alone, so it needs no running session and no other part of shoal.
It prints, since a report for a person is what it is for.

Source of the function's signature and result: Ray's API reference,
``ray.util.inspect_serializability``.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

import cloudpickle


class FailureTuple:
    """One part that can't be serialized.

    Attributes:
        obj: the part.
        name: how its parent calls it.
        parent: what holds it; None for the object that was asked about.
    """

    __slots__ = ("name", "obj", "parent")

    def __init__(self, obj: Any, name: str, parent: Any) -> None:
        self.obj = obj
        self.name = name
        self.parent = parent

    def __repr__(self) -> str:
        return f"FailTuple({self.name} [obj={self.obj!r}, parent={self.parent!r}])"


def inspect_serializability(
    base_obj: Any,
    name: str | None = None,
    depth: int = 3,
    print_file: TextIO | None = None,
) -> tuple[bool, set[FailureTuple]]:
    """Say whether an object can be serialized, and print what in it can't.

    Args:
        base_obj: any object.
        name: how the report calls it; default what the object calls itself.
        depth: how many levels of parts to look into.
        print_file: where the report goes; default standard output.

    Returns:
        Whether it can be serialized, and the parts found that can't.

    Example:
        >>> import io
        >>> inspect_serializability(3, print_file=io.StringIO())
        (True, set())
    """
    report = _Report(print_file or sys.stdout)
    title = f"Checking whether {base_obj!r} can be serialized"
    report.say("=" * min(len(title), 80))
    report.say(title)
    report.say("=" * min(len(title), 80))
    called = name or getattr(base_obj, "__name__", None) or type(base_obj).__name__
    problem = _problem(base_obj)
    if problem is None:
        report.say("It can.")
        return True, set()
    report.say(f"It can't: {problem}")
    found = _follow(base_obj, called, None, depth, report)
    report.say("-" * 80)
    report.say(f"What can't be serialized:\n\n    {found!r}\n")
    report.say(
        "There may be more. Make it inside the function or actor that uses it, leave "
        "it out of\nthe pickled state (__getstate__), or register a serializer "
        "(util.register_serializer)."
    )
    return False, {found}


class _Report:
    """Lines for a person, indented by level."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def say(self, text: str, level: int = 0) -> None:
        """Print one line."""
        print(f"{'    ' * level}{text}", file=self._file)


def _problem(value: Any) -> Exception | None:
    """What pickling ``value`` raises; None where it works."""
    try:
        cloudpickle.dumps(value)
    except Exception as error:  # noqa: BLE001 - the question is whether it raises
        return error
    return None


def _follow(
    value: Any, name: str, parent: Any, depth: int, report: _Report
) -> FailureTuple:
    """Go down to the first part that fails and has no part that fails."""
    level = 1
    on_path = {id(value)}
    while depth > 0:
        depth -= 1
        for part_name, part in _parts(value):
            if id(part) in on_path:
                continue
            problem = _problem(part)
            if problem is None:
                continue
            report.say(f"{part_name} = {part!r} can't: {problem}", level)
            value, name, parent = part, part_name, value
            on_path.add(id(part))
            level += 1
            break
        else:
            break
    return FailureTuple(value, name, parent)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """The parts that pickling a value takes along, by name."""
    if inspect.isfunction(value):
        closure = inspect.getclosurevars(value)
        yield from closure.nonlocals.items()
        yield from closure.globals.items()
    elif inspect.ismethod(value):
        yield "__self__", value.__self__
        yield "__func__", value.__func__
    elif isinstance(value, Mapping):
        yield from ((f"[{key!r}]", part) for key, part in value.items())
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from ((f"[{i}]", part) for i, part in enumerate(value))
    attributes = getattr(value, "__dict__", None) or {}
    for name, part in list(attributes.items()):
        if not name.startswith("__") or inspect.isfunction(part):
            yield name, part
