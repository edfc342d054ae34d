"""Exceptions as payloads, with the story of where they were raised.

What a task raises becomes a ``RayTaskError`` whose text a person can read as one
traceback across processes::

    ray::outer() (pid=12, ip=10.0.0.1)          who ran it
      File "job.py", line 9, in outer           the user's frames, shoal's left out
        return shoal.get(inner.remote())
    shoal.exceptions.RayTaskError(ValueError): ray::inner() (pid=13, ip=10.0.0.2)
      File "job.py", line 5, in inner
        raise ValueError("no such row")
    ValueError: no such row

Its ``cause`` is always the innermost exception of the user's: an error that passes
through several tasks grows in text and keeps its cause.

Rules:

- An error of shoal's own that nobody raised (a crashed worker, a cancelled task, as
  its owner made it) is carried as it is.  One that came up through user code is that
  code's exception like any other.
- A cause that can't be pickled is replaced by a ``RayError`` that describes it.
- A cause that can be pickled and not rebuilt is found out by the reader, who gets an
  ``UnserializableException`` with the same text.

Encoding must not fail, whatever the exception's own methods do.  Source lines of the
traceback come from ``linecache``, which reads the files.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from traceback import TracebackException
from types import FrameType, TracebackType

from shoal._core.serial.pickler import PROTOCOL, dumps_in_band
from shoal.exceptions import RayError, RayTaskError, UnserializableException

_CORE_FOLDER = __file__.removesuffix("serial/failures.py")
_HIDDEN_FOLDERS = (_CORE_FOLDER, _CORE_FOLDER.removesuffix("_core/") + "_api/")

_TRACEBACK_TITLE = "Traceback (most recent call last):\n"


@dataclass(slots=True)
class FailedCall:
    """The call that failed, as far as a reader of its traceback wants to know it."""

    #: What ran: ``f``, or ``A.method``.
    function_name: str
    #: Process id of the worker; 0 where it never got to one.
    pid: int
    #: Address of the worker's node; empty where it never got to one.
    ip: str
    #: ``repr`` of the actor; None for a task.
    actor_repr: str | None = None
    #: Hexadecimal id of the actor; None for a task.
    actor_id: str | None = None

    def header(self) -> str:
        """The line that begins the traceback."""
        place = [
            f"{key}={value}"
            for key, value in (
                ("pid", self.pid or None),
                ("ip", self.ip or None),
                ("actor_id", self.actor_id),
                ("repr", self.actor_repr),
            )
            if value is not None
        ]
        title = f"\x1b[36mray::{self.function_name}()\x1b[39m"
        return f"{title} ({', '.join(place)})" if place else title

    def error(self, text: str, cause: BaseException) -> RayTaskError:
        """The error of this call."""
        return RayTaskError(
            self.function_name,
            text,
            cause,
            pid=self.pid,
            ip=self.ip,
            actor_repr=self.actor_repr,
            actor_id=self.actor_id,
        )


def encode_failure(
    error: BaseException,
    *,
    function_name: str,
    pid: int,
    ip: str,
    actor_repr: str | None = None,
    actor_id: str | None = None,
    hide_above: FrameType | None = None,
) -> bytes:
    """Turn what a task or method raised into a payload.

    Args:
        error: what was raised; or a RayError that was made and never raised.
        function_name: what ran: ``f``, or ``A.method``.
        pid: process id of the worker; 0 where there was none.
        ip: address of the worker's node; empty where there was none.
        actor_repr: ``repr`` of the actor; None for a task.
        actor_id: hexadecimal id of the actor; None for a task.
        hide_above: the frame that called the user's code; it and what called it are
            left out of the traceback.

    Returns:
        What ``decode_failure`` reads.  Never raises an Exception.
    """
    if isinstance(error, RayError) and error.__traceback__ is None:
        return _encode(error, str(error))
    call = FailedCall(function_name, pid, ip, actor_repr, actor_id)
    text = _traceback_text(error, call.header(), hide_above)
    return _encode_cause(call, text, _innermost(error))


def dependency_failure(
    function_name: str,
    producer: RayError | bytes | memoryview,
    *,
    pid: int = 0,
    ip: str = "",
    actor_repr: str | None = None,
    actor_id: str | None = None,
) -> bytes:
    """Make the payload of a task that could not run because an argument failed.

    Args:
        function_name: what was to run.
        producer: the argument's error, or its payload.
        pid: process id of the worker; 0 where the task never got to one.
        ip: address of the worker's node; empty where the task never got to one.
        actor_repr: ``repr`` of the actor; None for a task.
        actor_id: hexadecimal id of the actor; None for a task.
    """
    call = FailedCall(function_name, pid, ip, actor_repr, actor_id)
    if not isinstance(producer, RayError):
        producer = decode_failure(producer)
    cls = RayTaskError if isinstance(producer, RayTaskError) else type(producer)
    text = (
        f"{call.header()}\n"
        "  At least one of the input arguments for this task could not be computed:\n"
        f"{cls.__module__}.{cls.__qualname__}: {producer}"
    )
    return _encode_cause(call, text, _innermost(producer))


def decode_failure(payload: bytes | memoryview) -> RayError:
    """Rebuild the error that ``get`` should raise.

    Returns:
        A new error each time: for what user code raised an instance of the cause's
        class too (``RayTaskError.as_instanceof_cause``), or an
        UnserializableException where it can't be rebuilt.
    """
    text, body = pickle.loads(payload)
    try:
        error = pickle.loads(body)
    except Exception as problem:  # noqa: BLE001 - a user's class may raise anything
        unreadable = UnserializableException(text)
        unreadable.add_note(f"Rebuilding it raised {_one_line(problem)}")
        return unreadable
    if isinstance(error, RayTaskError):
        return error.as_instanceof_cause()
    assert isinstance(error, RayError), f"a failure holds {type(error)}"
    return error


def _innermost(error: BaseException) -> BaseException:
    return error.cause if isinstance(error, RayTaskError) else error


def _encode_cause(call: FailedCall, text: str, cause: BaseException) -> bytes:
    """The payload of a RayTaskError; its cause replaced where it can't be pickled."""
    try:
        return _encode(call.error(text, cause), text)
    except Exception as problem:  # noqa: BLE001 - a user's class may raise anything
        cls = type(cause)
        substitute = RayError(
            f"Exception {cls.__module__}.{cls.__qualname__} isn't serializable: "
            f"{_one_line(problem)}\nWhere it was raised:\n{text}"
        )
        return _encode(call.error(text, substitute), text)


def _encode(error: RayError, text: str) -> bytes:
    # In two steps, so that the text can be read where the error can't be rebuilt.
    return pickle.dumps((text, dumps_in_band(error)), PROTOCOL)


def _one_line(error: BaseException) -> str:
    """Class and text of an exception whose ``__str__`` may fail."""
    return "".join(TracebackException(type(error), error, None).format_exception_only())


def _traceback_text(
    error: BaseException, header: str, hide_above: FrameType | None
) -> str:
    """The traceback, each part under ``header``, without shoal's frames."""
    try:
        story = TracebackException(
            type(error), error, _below(error.__traceback__, hide_above), compact=True
        )
        _hide_frames(story)
        parts = list(story.format())
    except Exception as problem:  # noqa: BLE001 - a user's class may raise anything
        name = type(error).__qualname__
        return f"{header}\n{name}: <its traceback can't be shown: {_one_line(problem)}>"
    text = "".join(f"{header}\n" if p == _TRACEBACK_TITLE else p for p in parts)
    if not text.startswith(header):
        # Groups have a title of their own; errors without a frame left have none.
        text = f"{header}\n{text}"
    return text.rstrip("\n")


def _below(
    traceback: TracebackType | None, frame: FrameType | None
) -> TracebackType | None:
    """The traceback below ``frame``; the whole of it if ``frame`` isn't in it."""
    step = traceback
    while step is not None and frame is not None:
        if step.tb_frame is frame:
            return step.tb_next
        step = step.tb_next
    return traceback


def _hide_frames(story: TracebackException) -> None:
    """Leave shoal's own frames out, in the whole chain."""
    waiting: list[TracebackException | None] = [story]
    while waiting:
        part = waiting.pop()
        if part is None:
            continue
        part.stack[:] = [
            f for f in part.stack if not f.filename.startswith(_HIDDEN_FOLDERS)
        ]
        waiting += (part.__cause__, part.__context__, *(part.exceptions or ()))
