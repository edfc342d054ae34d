"""What runs in a pool process, and the form in which its results travel.

Theory: a pool process is an actor that runs chunks of calls one after the
other. Every call of a chunk is run, whether or not one before it failed, and
failures travel beside the values, not in place of them, so a function may
return an exception as an ordinary value.

An exception keeps its type on the way: it is sent pickled, and the traceback as
text, which becomes its `__cause__` on arrival (as in `multiprocessing`). What
cannot make that journey arrives as MaybeEncodingError with its description.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.pool import MaybeEncodingError  # type: ignore[attr-defined]
from typing import Any, Literal, TypeAlias

import cloudpickle

# How one item of a chunk becomes the arguments of a call: func(item), func(*item),
# or func(*item[0], **item[1]). Strings, because they pickle in no time.
CallStyle: TypeAlias = Literal["one argument", "positional", "positional and keyword"]


@dataclass(slots=True)
class ChunkResult:
    """What came of the calls of one chunk."""

    values: list[Any]
    """One for each call; None where it failed."""

    failures: dict[int, bytes]
    """Pickled `(exception, traceback text)` by position; empty if all went well."""

    duration_s: float
    """Time the calls took together."""


class PoolProcess:
    """One process of a pool: runs chunks of calls in the order they arrive."""

    def __init__(
        self, initializer: Callable[..., object] | None, initargs: Sequence[Any]
    ) -> None:
        if initializer is not None:
            initializer(*initargs)

    def ready(self) -> None:
        """Returns once the initializer has run."""

    def run(
        self, func: Callable[..., Any], style: CallStyle, items: Sequence[Any]
    ) -> ChunkResult:
        """Call `func` once for each item."""
        values: list[Any] = []
        failures: dict[int, bytes] = {}
        started = time.perf_counter()
        for position, item in enumerate(items):
            try:
                values.append(_call(func, style, item))
            except Exception as error:  # noqa: BLE001 - the caller's to handle
                values.append(None)
                failures[position] = _pickle_failure(error)
        return ChunkResult(values, failures, time.perf_counter() - started)


class RemoteTraceback(Exception):
    """Cause of an exception that a pool process raised: the traceback there."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def unpickle_failure(pickled: bytes) -> BaseException:
    """The exception of a failed call, with the remote traceback as its cause."""
    error: BaseException
    try:
        error, text = cloudpickle.loads(pickled)
    except Exception as reason:  # noqa: BLE001 - such as a module missing here
        error = MaybeEncodingError(reason, "an exception of the called function")
        return error
    error.__cause__ = RemoteTraceback(text)
    return error


def _call(func: Callable[..., Any], style: CallStyle, item: Any) -> Any:
    if style == "one argument":
        return func(item)
    if style == "positional":
        return func(*item)
    args, kwargs = item
    return func(*args, **kwargs)


def _pickle_failure(error: Exception) -> bytes:
    text = traceback.format_exc()
    try:
        pickled = _pickle((error, text))
        # Some exceptions pickle but cannot be built again: better found here,
        # where the original can still be described.
        cloudpickle.loads(pickled)
    except Exception as reason:  # noqa: BLE001 - whatever a user's class does
        return _pickle((MaybeEncodingError(reason, error), text))
    return pickled


def _pickle(value: object) -> bytes:
    pickled: bytes = cloudpickle.dumps(value)
    return pickled
