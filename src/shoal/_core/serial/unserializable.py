"""Finds what keeps a value from being pickled, and says where it is.

A pickler's own complaint names a type (``cannot pickle '_thread.lock' object``), not
the place.  ``explain_unserializable`` walks down from the value: of the parts of
something that can't be pickled, the first that can't be pickled on its own is the next
step.  What has no such part is the culprit, and the steps are its path, written as an
expression that the user could type: ``f.__closure__['self'].model.writer._lock``.

The walk costs a pickling per step and part, so it is bounded in depth and in parts
looked at; where it ends early it names the deepest place that it knows.  It only runs
when an error is on its way out.

Runs the user's code (``__reduce__``, ``__getstate__``, ``repr`` of keys) and so must
expect any exception from it: an exception is the very answer it asks for.
"""

from __future__ import annotations

import dis
from collections.abc import Iterator
from functools import partial
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any

from shoal._core.serial.pickler import ValuePickler

DEPTH_MAX = 24
PARTS_MAX = 2_000

_Part = tuple[str, object]


class _Nowhere:
    """A file that keeps nothing."""

    __slots__ = ()

    def write(self, _part: object) -> None:
        """Drop a part of the stream."""


def pickling_error(value: object) -> Exception | None:
    """What pickling ``value`` raises; None where it works."""
    try:
        ValuePickler(_Nowhere(), lambda _buffer: None).dump(value)
    except Exception as error:  # noqa: BLE001 - the question is whether it raises
        return error
    return None


def find_unserializable(value: object, name: str) -> tuple[str, object, Exception]:
    """Find the innermost part of ``value`` that can't be pickled on its own.

    Args:
        value: something that can't be pickled.
        name: what its path starts with.

    Returns:
        The part's path, the part, and what pickling it raises.
    """
    path, culprit = name, value
    error = pickling_error(value) or TypeError("it can be pickled now")
    on_path = {id(value)}
    budget = PARTS_MAX
    for _ in range(DEPTH_MAX):
        for step, part in _parts(culprit):
            budget -= 1
            if budget < 0:
                return path, culprit, error
            if id(part) in on_path:
                continue
            problem = pickling_error(part)
            if problem is not None:
                path, culprit, error = path + step, part, problem
                on_path.add(id(part))
                break
        else:
            return path, culprit, error
    return path, culprit, error


def explain_unserializable(value: object, name: str) -> str:
    """Say in two sentences what in ``value`` can't be pickled, and what to do.

    Args:
        value: something that can't be pickled.
        name: what its path starts with.
    """
    try:
        path, culprit, error = find_unserializable(value, name)
    except Exception as problem:  # noqa: BLE001 - the user's code may raise anything
        # Another error is on its way out, and must not be hidden by this one.
        return f"The place in {name} could not be found: {problem!r}."
    cls = type(culprit)
    kind = f"{cls.__module__}.{cls.__qualname__}".removeprefix("builtins.")
    return (
        f"What can't be serialized is {path}, of type {kind} ({error}).\n"
        "Make it inside the function or actor that uses it, leave it out of the "
        "pickled state (__getstate__), or say how to write it with "
        "util.register_serializer()."
    )


def _parts(value: object) -> Iterator[_Part]:
    """The parts of a value, each with the step that leads to it."""
    if isinstance(value, dict):
        yield from ((f"[{key!r}]", part) for key, part in list(value.items()))
        yield from ((f".keys()[{i}]", key) for i, key in enumerate(list(value)))
    elif isinstance(value, (list, tuple)):
        yield from ((f"[{i}]", part) for i, part in enumerate(list(value)))
    elif isinstance(value, (set, frozenset)):
        yield from ((f"{{{part!r}}}", part) for part in list(value))
    elif isinstance(value, FunctionType):
        yield from _function_parts(value)
    elif isinstance(value, MethodType):
        yield ".__self__", value.__self__
        yield ".__func__", value.__func__
    elif isinstance(value, partial):
        yield ".func", value.func
        yield ".args", value.args
        yield ".keywords", value.keywords
    elif isinstance(value, (staticmethod, classmethod)):
        yield ".__func__", value.__func__
    elif isinstance(value, property):
        yield from ((f".{n}", getattr(value, n)) for n in ("fget", "fset", "fdel"))
    yield from _attributes(value)


def _function_parts(function: FunctionType) -> Iterator[_Part]:
    """What a function written by value takes along."""
    code = function.__code__
    cells = function.__closure__ or ()
    for variable, cell in zip(code.co_freevars, cells, strict=True):
        if _is_filled(cell):
            yield f".__closure__[{variable!r}]", cell.cell_contents
    for variable in _global_names(code):
        if variable in function.__globals__:
            yield f".__globals__[{variable!r}]", function.__globals__[variable]
    for i, default in enumerate(function.__defaults__ or ()):
        yield f".__defaults__[{i}]", default
    for variable, default in (function.__kwdefaults__ or {}).items():
        yield f".__kwdefaults__[{variable!r}]", default


def _is_filled(cell: CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _global_names(code: CodeType) -> dict[str, None]:
    """Names of globals that the code, or code inside it, reads; in order."""
    names = {
        str(step.argval): None
        for step in dis.get_instructions(code)
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names.update(_global_names(constant))
    return names


def _attributes(value: object) -> Iterator[_Part]:
    """What an object or class keeps in ``__dict__`` and ``__slots__``."""
    state: Any = getattr(value, "__dict__", None) or {}
    for name, part in list(state.items()):
        if not isinstance(value, type) or not name.startswith("__") or callable(part):
            yield f".{name}", part
    if isinstance(value, type):
        return
    for cls in type(value).__mro__:
        slots = vars(cls).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name) and name not in ("__dict__", "__weakref__"):
                yield f".{name}", getattr(value, name)
