"""Checking a call's arguments where it is made, not where it runs.

``f.remote(1, 2)`` with a wrong number of arguments or an unknown keyword raises
TypeError at once, in the process of the caller, with the words of ``inspect``.

Theory: whether a call without keywords fits depends on the number of its arguments
only, so each signature is boiled down to two bounds, and the hot path is one
comparison::

    if kwargs or not signature.least <= len(args) <= signature.most:
        signature.check(args, kwargs)

A signature that can't be satisfied by position alone (a required keyword-only
parameter) has bounds that no call meets, and so always takes the slow path.

Invariants: ``check`` accepts exactly the calls that Python would accept. Signatures are
plain data: they pickle, and don't hold on to the function or its defaults.

What it does not do: check types of arguments, or put them in their places; they travel
as they were given.
"""

import inspect
from collections.abc import Callable, Mapping
from sys import maxsize
from typing import Any

_POSITIONAL_ONLY = inspect.Parameter.POSITIONAL_ONLY
_KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY
_VAR_POSITIONAL = inspect.Parameter.VAR_POSITIONAL
_VAR_KEYWORD = inspect.Parameter.VAR_KEYWORD


class CallSignature:
    """What arguments a function takes.

    Args:
        name: what the function is called in errors.
        parameters: as ``inspect`` describes them, without ``self``; None if unknown, so
            that every call is accepted.
    """

    __slots__ = (
        "_keyword_only",
        "_positional",
        "_positional_only_count",
        "_required_count",
        "_required_keyword_only",
        "_takes_any_keyword",
        "least",
        "most",
        "name",
    )

    least: int
    """Calls without keywords and at least this many arguments fit, up to ``most``."""
    most: int
    """The largest number of arguments by position."""

    def __init__(self, name: str, parameters: list[inspect.Parameter] | None) -> None:
        self.name = name
        if parameters is None:
            parameters = [
                inspect.Parameter("args", _VAR_POSITIONAL),
                inspect.Parameter("kwargs", _VAR_KEYWORD),
            ]
        kinds = [parameter.kind for parameter in parameters]
        named = [p for p in parameters if p.kind not in (_VAR_POSITIONAL, _VAR_KEYWORD)]
        positional = [p for p in named if p.kind is not _KEYWORD_ONLY]
        keyword_only = [p for p in named if p.kind is _KEYWORD_ONLY]
        self._positional = tuple(p.name for p in positional)
        self._positional_only_count = kinds.count(_POSITIONAL_ONLY)
        self._required_count = sum(p.default is p.empty for p in positional)
        self._keyword_only = frozenset(p.name for p in keyword_only)
        self._required_keyword_only = tuple(
            p.name for p in keyword_only if p.default is p.empty
        )
        self._takes_any_keyword = _VAR_KEYWORD in kinds
        self.most = maxsize if _VAR_POSITIONAL in kinds else len(positional)
        self.least = maxsize if self._required_keyword_only else self._required_count

    def check(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
        """Raise TypeError unless the function can be called with these arguments."""
        count = len(args)
        if not kwargs and self.least <= count <= self.most:
            return
        problem = self._problem(count, kwargs)
        if problem is not None:
            raise TypeError(f"{problem} (calling {self})")

    def _problem(self, count: int, kwargs: Mapping[str, object]) -> str | None:
        """What is wrong with so many arguments by position and these by keyword."""
        if count > self.most:
            return "too many positional arguments"
        for name in kwargs:
            problem = self._keyword_problem(count, name)
            if problem is not None:
                return problem
        for index in range(count, self._required_count):
            name = self._positional[index]
            if index < self._positional_only_count or name not in kwargs:
                return f"missing a required argument: {name!r}"
        for name in self._required_keyword_only:
            if name not in kwargs:
                return f"missing a required argument: {name!r}"
        return None

    def _keyword_problem(self, count: int, name: str) -> str | None:
        """What is wrong with one keyword after so many arguments by position."""
        if name in self._keyword_only:
            return None
        if name in self._positional:
            index = self._positional.index(name)
            if index >= self._positional_only_count:
                if index < count:
                    return f"multiple values for argument {name!r}"
                return None
            if not self._takes_any_keyword:
                return (
                    f"{name!r} parameter is positional only, but was passed as a "
                    "keyword"
                )
        if not self._takes_any_keyword:
            return f"got an unexpected keyword argument {name!r}"
        return None

    def __str__(self) -> str:
        parts = []
        for index, name in enumerate(self._positional):
            optional = "" if index < self._required_count else "=…"
            parts.append(f"{name}{optional}")
            if index + 1 == self._positional_only_count:
                parts.append("/")
        if self.most == maxsize:
            parts.append("*args")
        elif self._keyword_only:
            parts.append("*")
        for name in sorted(self._keyword_only):
            optional = "" if name in self._required_keyword_only else "=…"
            parts.append(f"{name}{optional}")
        if self._takes_any_keyword:
            parts.append("**kwargs")
        return f"{self.name}({', '.join(parts)})"

    def __repr__(self) -> str:
        return f"CallSignature({self})"


def signature_of(function: Callable[..., Any]) -> CallSignature:
    """Return the signature of a function, or of a class's constructor."""
    name = getattr(function, "__name__", type(function).__name__)
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        # Functions and classes written in C may not say what they take.
        return CallSignature(name, None)
    return CallSignature(name, parameters)


def signature_of_method(cls: type, name: str) -> CallSignature:
    """Return the signature of a method as seen on an instance: without ``self``.

    Args:
        cls: the class.
        name: the name of a method of it or of a base class, of whatever kind: plain,
            static or class method.
    """
    attribute = inspect.getattr_static(cls, name)
    bound = isinstance(attribute, staticmethod | classmethod)
    try:
        parameters = list(inspect.signature(getattr(cls, name)).parameters.values())
    except (TypeError, ValueError):
        return CallSignature(name, None)
    # A class method is bound already when it is taken from the class.
    takes_self = not bound and parameters and parameters[0].kind is not _VAR_POSITIONAL
    return CallSignature(name, parameters[1:] if takes_self else parameters)
