"""Every error that a user of shoal can meet.

The tree (all under ``RayError`` unless a second base is shown)::

    RayError (Exception)
    ├── RayTaskError                  a task or method raised; see below
    ├── TaskCancelledError            the task was cancelled
    ├── GetTimeoutError (TimeoutError)  the value was not there in time
    ├── RayActorError                 an actor could not run the call
    │   ├── ActorDiedError            ... and never will
    │   └── ActorUnavailableError     ... now; it may have run, it may be back
    ├── ActorAlreadyExistsError (ValueError)
    ├── ActorHandleNotFoundError (ValueError)
    ├── ActorPlacementGroupRemoved
    ├── ActorUnschedulableError
    ├── AsyncioActorExit              how an async actor ends itself
    ├── PendingCallsLimitExceeded
    ├── TaskPlacementGroupRemoved
    ├── TaskUnschedulableError
    ├── WorkerCrashedError            the worker died while it ran the task
    ├── OutOfMemoryError              the worker was ended to save the node
    ├── NodeDiedError
    ├── LocalRayletDiedError          the daemon of this node died
    ├── ObjectLostError               the value is gone
    │   ├── ObjectFetchTimedOutError
    │   ├── ObjectFreedError
    │   ├── ObjectReconstructionFailedError
    │   ├── OwnerDiedError
    │   └── ReferenceCountingAssertionError (AssertionError)
    ├── ObjectRefStreamEndOfStreamError
    ├── ObjectStoreFullError
    ├── OutOfDiskError
    ├── PlasmaObjectNotAvailable
    ├── OufOfBandObjectRefSerializationException
    ├── UnserializableException       an exception that could not be rebuilt
    ├── RuntimeEnvSetupError
    ├── AuthenticationError
    ├── RpcError
    ├── CrossLanguageError
    ├── UserCodeException
    ├── InternalError                 a defect of shoal itself
    └── RaySystemError
        ├── RayChannelError
        │   └── RayChannelTimeoutError (TimeoutError)
        ├── RayCgraphCapacityExceeded
        ├── RayDirectTransportError
        └── StreamingGeneratorReplayInconsistentError

What ``get`` raises for a failed task is an instance of *two* classes: ``RayTaskError``
and the class of what the task raised, so that ``except ValueError`` and
``except RayTaskError`` both catch it.  The class that joins the two is made when first
needed and kept for as long as an instance of it lives.

Every error can be pickled, also one made with keyword arguments: it is rebuilt from
its ``args`` and ``__dict__``, without a second call of ``__init__``.

This module knows no other part of shoal.  It doesn't format tracebacks and doesn't
decide what is raised when.

Source of the names, bases and constructor arguments: Ray's API reference,
``ray.exceptions``.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar
from weakref import WeakValueDictionary

_logger = logging.getLogger("shoal")


def _rebuild(
    cls: type[RayError], args: tuple[object, ...], state: dict[str, object]
) -> RayError:
    """Make an error from its pickled parts, whatever its ``__init__`` asks for."""
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class RayError(Exception):
    """The base of all errors that shoal raises."""

    #: The text of an error that was made without arguments.
    _default_text: ClassVar[str] = ""

    def __str__(self) -> str:
        return super().__str__() or self._default_text

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


# --------------------------------------------------------------- what user code did


class RayTaskError(RayError):
    """A task or an actor's method raised an exception.

    Args:
        function_name: what ran, as a person would name it.
        traceback_str: the remote traceback, ready to print; the text of this error.
        cause: the exception that the code raised.
        proctitle: title of the process; default made from the function's name.
        pid: process id of the worker; default this process.
        ip: address of the worker's node; default the loopback address.
        actor_repr: ``repr`` of the actor, None for a task.
        actor_id: hexadecimal id of the actor, None for a task.
    """

    def __init__(
        self,
        function_name: str,
        traceback_str: str,
        cause: BaseException,
        proctitle: str | None = None,
        pid: int | None = None,
        ip: str | None = None,
        actor_repr: str | None = None,
        actor_id: str | None = None,
    ) -> None:
        self.function_name = function_name
        self.traceback_str = traceback_str
        self.cause = cause
        self.proctitle = proctitle or f"ray::{function_name}"
        self.pid = os.getpid() if pid is None else pid
        self.ip = ip or "127.0.0.1"
        self.actor_repr = actor_repr
        self._actor_id = actor_id

    def as_instanceof_cause(self) -> RayTaskError:
        """This error as an instance of the cause's class too, where that is possible.

        Returns:
            This very error if its class is one of the cause's already (``Exception``,
            ``RayError``) or can't be joined with it (a class that refuses subclasses,
            or whose ``__new__`` asks for more arguments; a warning is logged), else a
            new instance of the joined class.
        """
        if isinstance(self, type(self.cause)):
            return self
        try:
            return self.make_dual_exception_instance()
        except Exception as problem:  # noqa: BLE001 - a user's class may raise anything
            _logger.warning(
                "An error of class %s can't be raised as an instance of its own class, "
                "which can't be subclassed with one argument (%s: %s). It is raised as "
                "RayTaskError; the original is its attribute 'cause'.",
                type(self.cause).__qualname__,
                type(problem).__name__,
                problem,
            )
            return self

    def make_dual_exception_instance(self) -> RayTaskError:
        """A new error that is an instance of RayTaskError and of the cause's class.

        Returns:
            An error with the same text and ``cause``, with ``args == (cause,)``, whose
            other attributes are those of the cause, then those of this error.

        Raises:
            TypeError: the class of the cause can't be joined.  Whatever else a class's
                own ``__new__`` or ``__init_subclass__`` raises comes out as it is.
        """
        dual: RayTaskError = _dual_class(type(self.cause))(self)
        return dual

    def __str__(self) -> str:
        return self.traceback_str


def _dual_new(cls: type[Any], task_error: RayTaskError) -> Any:
    cause = task_error.cause
    if isinstance(cause, BaseExceptionGroup):
        return BaseExceptionGroup.__new__(cls, cause.message, cause.exceptions)
    return super(RayTaskError, cls).__new__(cls, cause)


def _dual_init(self: Any, task_error: RayTaskError) -> None:
    cause = task_error.cause
    # Past the class's own __setattr__, which may refuse (a frozen dataclass).
    self.__dict__["cause"] = cause
    self.__dict__["_task_error"] = task_error
    _copy_native_members(cause, self)
    BaseException.args.__set__(self, (cause,))  # type: ignore[attr-defined]


def _dual_getattr(self: Any, name: str) -> Any:
    """What the joined instance lacks comes from the cause, then from the task error."""
    parts = self.__dict__
    if "_task_error" not in parts:
        raise AttributeError(name)
    try:
        return getattr(parts["cause"], name)
    except AttributeError:
        return getattr(parts["_task_error"], name)


def _dual_str(self: Any) -> str:
    return str(self.__dict__["_task_error"].traceback_str)


def _dual_reduce(self: Any, _protocol: int = 0) -> tuple[Any, ...]:
    return RayTaskError.as_instanceof_cause, (self.__dict__["_task_error"],)


def _copy_native_members(source: BaseException, target: BaseException) -> None:
    """Copy what built-in exceptions keep outside ``__dict__`` (``errno``, ``code``)."""
    if isinstance(source, BaseExceptionGroup):
        return  # Its members are read-only: __new__ has set them.
    for cls in type(source).__mro__:
        if cls is Exception or cls is BaseException:
            return
        if cls.__module__ != "builtins":
            continue
        for name, member in vars(cls).items():
            if not name.startswith("__") and hasattr(member, "__set__"):
                value = getattr(source, name, None)
                if value is not None:
                    member.__set__(target, value)


_DUAL_NAMESPACE = {
    "__doc__": "What a task raised, as RayTaskError and as its own class.",
    "__getattr__": _dual_getattr,
    "__init__": _dual_init,
    "__module__": __name__,
    "__new__": _dual_new,
    "__reduce__": _dual_reduce,
    "__reduce_ex__": _dual_reduce,
    "__str__": _dual_str,
    "args": vars(BaseException)["args"],
}

# By id of the cause's class, which may be unhashable.  The joined class keeps the
# cause's class alive, so an id in use here can't be taken by another class.
_dual_classes: WeakValueDictionary[int, type[Any]] = WeakValueDictionary()


def _dual_class(cause_class: type[BaseException]) -> type[Any]:
    """The class that joins RayTaskError and ``cause_class``."""
    dual = _dual_classes.get(id(cause_class))
    if dual is None:
        name = f"RayTaskError({cause_class.__name__})"
        dual = type(name, (RayTaskError, cause_class), dict(_DUAL_NAMESPACE))
        _dual_classes[id(cause_class)] = dual
    return dual


class UserCodeException(RayError):
    """Code of the user, run by shoal outside a task, raised."""


class CrossLanguageError(RayError):
    """A task written in another language failed.

    Args:
        ray_exception: what that language reported; printed as it is.
    """

    def __init__(self, ray_exception: object) -> None:
        super().__init__(f"A task of another language failed:\n{ray_exception}")


class UnserializableException(RayError):
    """An exception reached this process and could not be rebuilt here.

    Args:
        original_stack_trace: the remote traceback.
    """

    def __init__(self, original_stack_trace: str) -> None:
        self._original_stack_trace = original_stack_trace

    def __str__(self) -> str:
        return (
            "A task raised an exception that can't be rebuilt from its pickled form. "
            "Give its class a __reduce__ method, or pass all arguments of its "
            "__init__ on to super().__init__().\nThe original exception:\n"
            f"{self._original_stack_trace}"
        )


# ------------------------------------------------------------------------- tasks


class TaskCancelledError(RayError):
    """The task was cancelled before it could finish.

    Args:
        task_id: id of the task, None where it isn't known.
        error_message: what more is to be said.
    """

    def __init__(
        self, task_id: object | None = None, error_message: str | None = None
    ) -> None:
        self.task_id = task_id
        self.error_message = error_message

    def __str__(self) -> str:
        which = "" if self.task_id is None else f"Task {self.task_id} was cancelled."
        return " ".join(part for part in (which, self.error_message) if part)


class TaskUnschedulableError(RayError):
    """No node can ever run the task.

    Args:
        error_message: what the task asks for and what there is.
    """

    def __init__(self, error_message: str) -> None:
        super().__init__(error_message)
        self.error_message = error_message

    def __str__(self) -> str:
        return f"The task is not schedulable: {self.error_message}"


class TaskPlacementGroupRemoved(RayError):
    """The placement group that the task was to run in has been removed."""

    _default_text = "The placement group of this task has been removed."


class PendingCallsLimitExceeded(RayError):
    """The actor's ``max_pending_calls`` calls are waiting already."""


class ObjectRefStreamEndOfStreamError(RayError):
    """A generator of refs has no further item."""


class GetTimeoutError(RayError, TimeoutError):
    """``get`` waited for as long as its ``timeout`` allows."""


class RuntimeEnvSetupError(RayError):
    """The environment that a task or actor asked for could not be made.

    Args:
        error_message: what failed.
    """

    def __init__(self, error_message: str | None = None) -> None:
        self.error_message = error_message

    def __str__(self) -> str:
        text = "The runtime environment could not be set up."
        return f"{text}\n{self.error_message}" if self.error_message else text


# ------------------------------------------------------------------------ actors


class RayActorError(RayError):
    """An actor could not run, or not finish, a call.

    Args:
        actor_id: hexadecimal id of the actor, None where it isn't known.
        error_msg: what happened.
        actor_init_failed: whether the actor's constructor raised.
        preempted: whether the actor's node was taken away by its provider.
    """

    BASE_ERROR_MSG: ClassVar[str] = "The actor failed before this call was finished."

    def __init__(
        self,
        actor_id: str | None = None,
        error_msg: str | None = None,
        actor_init_failed: bool = False,
        preempted: bool = False,
    ) -> None:
        self.actor_id = actor_id
        self.error_msg = self.BASE_ERROR_MSG if error_msg is None else error_msg
        self._actor_init_failed = actor_init_failed
        self._preempted = preempted

    def __str__(self) -> str:
        return self.error_msg

    @property
    def actor_init_failed(self) -> bool:
        """Whether the actor died because its constructor raised."""
        return self._actor_init_failed

    @property
    def preempted(self) -> bool:
        """Whether the actor's node was taken away by its provider."""
        return self._preempted


class ActorDiedError(RayActorError):
    """The actor is dead and won't come back; the call wasn't finished.

    Args:
        cause: the error of the actor's constructor, or a text that says how the actor
            died; None where nothing is known.
        actor_id: hexadecimal id of the actor; taken from ``cause`` where that has one.
        preempted: whether the actor's node was taken away by its provider.
    """

    BASE_ERROR_MSG = "The actor died before this call was finished."

    def __init__(
        self,
        cause: RayTaskError | str | None = None,
        *,
        actor_id: str | None = None,
        preempted: bool = False,
    ) -> None:
        if isinstance(cause, RayTaskError):
            text = f"The actor died: its constructor raised an error.\n{cause}"
            super().__init__(actor_id or cause._actor_id, text, True, preempted)
        else:
            super().__init__(actor_id, cause, False, preempted)

    @staticmethod
    def from_task_error(task_error: RayTaskError) -> ActorDiedError:
        """The error of all calls to an actor whose constructor raised."""
        return ActorDiedError(task_error)


class ActorUnavailableError(RayActorError):
    """The actor can't be reached now; the call may have run, or may not.

    Args:
        error_message: why it can't be reached.
        actor_id: id of the actor as bytes, None where it isn't known.
    """

    def __init__(self, error_message: str, actor_id: bytes | None) -> None:
        name = None if actor_id is None else actor_id.hex()
        super().__init__(
            name,
            f"The actor {name or 'of this call'} is unavailable: {error_message}. "
            "The call may have been executed, or not.",
        )


class ActorAlreadyExistsError(ValueError, RayError):
    """The name of the new actor is taken.

    Args:
        error_message: which name, in which namespace.
    """

    def __init__(self, error_message: str) -> None:
        super().__init__(error_message)
        self.error_message = error_message


class ActorHandleNotFoundError(ValueError, RayError):
    """The handle belongs to an actor that this session doesn't know.

    Args:
        error_message: which handle.
    """

    def __init__(self, error_message: str) -> None:
        super().__init__(error_message)
        self.error_message = error_message


class ActorUnschedulableError(RayError):
    """No node can ever hold the actor.

    Args:
        error_message: what the actor asks for and what there is.
    """

    def __init__(self, error_message: str) -> None:
        super().__init__(error_message)
        self.error_message = error_message

    def __str__(self) -> str:
        return f"The actor is not schedulable: {self.error_message}"


class ActorPlacementGroupRemoved(RayError):
    """The placement group that the actor lived in has been removed."""

    _default_text = "The placement group of this actor has been removed."


class AsyncioActorExit(RayError):
    """Raised inside an async actor to end it; never seen outside."""


# ------------------------------------------------------------- processes and nodes


class WorkerCrashedError(RayError):
    """The worker process died while it ran the task, on the last try too."""

    _default_text = "The worker process died while it ran this task."


class OutOfMemoryError(RayError):
    """The worker was ended because its node ran out of memory.

    Args:
        message: which worker, how much it used, and how much there was.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class NodeDiedError(RayError):
    """The node died.

    Args:
        message: which node, and how that was noticed.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class LocalRayletDiedError(RayError):
    """The node daemon of this machine died."""

    _default_text = "The node daemon of this machine died."


class AuthenticationError(RayError):
    """The cluster's token is missing or wrong.

    Args:
        message: what was tried, and where a token is looked for.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class RpcError(RayError):
    """A call from one process of the cluster to another failed.

    Args:
        message: what was asked of whom.
        rpc_code: the status that came back, None where none did.
    """

    def __init__(self, message: str, rpc_code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.rpc_code = rpc_code


class RaySystemError(RayError):
    """Something other than user code failed.

    Args:
        client_exc: what failed, as an exception or as a text.
        traceback_str: where it failed, None where that isn't known.
    """

    def __init__(self, client_exc: object, traceback_str: str | None = None) -> None:
        self.client_exc = client_exc
        self.traceback_str = traceback_str

    def __str__(self) -> str:
        text = f"System error: {self.client_exc}"
        return (
            f"{text}\ntraceback: {self.traceback_str}" if self.traceback_str else text
        )


class StreamingGeneratorReplayInconsistentError(RaySystemError):
    """A generator that was run again yielded another number of items."""


class RayChannelError(RaySystemError):
    """Reading from or writing to a channel of a compiled graph failed."""


class RayChannelTimeoutError(RayChannelError, TimeoutError):
    """A channel of a compiled graph was not ready in time."""


class RayCgraphCapacityExceeded(RaySystemError):
    """A compiled graph holds as many unfinished executions as it may."""


class RayDirectTransportError(RaySystemError):
    """Memory of a device could not be sent directly."""


class InternalError(RayError):
    """A defect of shoal: something happened that its own rules exclude.

    Args:
        message: what happened, to which entity.
        story: what led to it, oldest first.
    """

    def __init__(self, message: str, story: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.story = tuple(story)

    def __str__(self) -> str:
        return "\n  ".join((f"Defect in shoal: {self.message}", *self.story))


# ----------------------------------------------------------------------- objects


class ObjectLostError(RayError):
    """No copy of the value is left, and it can't be made again.

    Args:
        object_ref_hex: hexadecimal id of the object.
        owner_address: address of the process that owns it, None where unknown.
        call_site: the line that made the ref, empty unless lines are recorded.
    """

    _reason: ClassVar[str] = "All its copies were lost with the nodes that held them."

    def __init__(
        self, object_ref_hex: str, owner_address: object | None, call_site: str
    ) -> None:
        self.object_ref_hex = object_ref_hex
        self.owner_address = owner_address
        self.call_site = call_site

    def _base_str(self) -> str:
        text = f"Failed to retrieve object {self.object_ref_hex}."
        if self.call_site:
            text += f" Its ref was made at: {self.call_site}"
        return text

    def __str__(self) -> str:
        return f"{self._base_str()}\n{self._reason}"


class ObjectFetchTimedOutError(ObjectLostError):
    """No node said in time that it holds the value."""

    _reason = "No node was found to hold it within the time allowed for that."


class ReferenceCountingAssertionError(ObjectLostError, AssertionError):
    """The value was freed although somebody still holds a ref."""

    _reason = "It was freed while this ref was still counted: a defect of shoal."


class ObjectFreedError(ObjectLostError):
    """The value was freed by hand."""

    _reason = "It was freed by an explicit call."


class OwnerDiedError(ObjectLostError):
    """The process that owned the object ended."""

    _reason = (
        "The process that owned it (the one that called put() or .remote()) has ended."
    )


class ObjectReconstructionFailedError(ObjectLostError):
    """The value was lost and running its task again is not possible.

    Args:
        object_ref_hex: hexadecimal id of the object.
        reason: a key of ``REASON_MESSAGES``, None where unknown.
        reason_message: replaces the message of ``reason``.
        owner_address: address of the process that owns it, None where unknown.
        call_site: the line that made the ref, empty unless lines are recorded.
    """

    REASON_MESSAGES: ClassVar[dict[str, str]] = {
        "MAX_ATTEMPTS_EXCEEDED": "Its task has been run as often as max_retries "
        "allows; raise it with @remote(max_retries=n).",
        "LINEAGE_EVICTED": "How it was made has been forgotten to save memory.",
        "PUT": "It was stored by put(), so no task can make it again; return it from "
        "a task where it must survive.",
        "RETRIES_DISABLED": "Its task has max_retries=0.",
        "BORROWED": "Only its owner can have it made again, and this process isn't it.",
        "REF_NOT_FOUND": "Its owner doesn't know it any more.",
        "TASK_CANCELLED": "Its task was cancelled.",
        "LINEAGE_DISABLED": "Reconstruction is switched off in this cluster.",
    }

    def __init__(
        self,
        object_ref_hex: str,
        reason: str | None = None,
        reason_message: str | None = None,
        owner_address: object | None = None,
        call_site: str = "",
    ) -> None:
        super().__init__(object_ref_hex, owner_address, call_site)
        self.reason = reason
        self.reason_message = reason_message or self.REASON_MESSAGES.get(
            reason or "", "The reason isn't known."
        )

    def __str__(self) -> str:
        code = f"OBJECT_UNRECONSTRUCTABLE_{self.reason}" if self.reason else "UNKNOWN"
        return f"{self._base_str()}\n[{code}] {self.reason_message}"


class ObjectStoreFullError(RayError):
    """The object store has no room for the value, and can't make any.

    The text says how large the value is and how large the store.
    """

    _default_text = "The object store is full of objects that are still in use."


class OutOfDiskError(RayError):
    """The disk that objects are spilled to is full."""

    _default_text = "The disk that objects are spilled to is full."


class PlasmaObjectNotAvailable(RayError):
    """The value is not in this node's object store."""


class OufOfBandObjectRefSerializationException(RayError):
    """A ref was pickled outside shoal where that has been forbidden."""


# -------------------------------------------------------------------- older names

_OLD_NAMES: dict[str, type[RayError]] = {
    "RayCancellationError": TaskCancelledError,
    "RayConnectionError": RaySystemError,
    "RayTimeoutError": GetTimeoutError,
    "RayWorkerError": WorkerCrashedError,
    "RayletError": RaySystemError,
    "UnreconstructableError": ObjectReconstructionFailedError,
}


def __getattr__(name: str) -> type[RayError]:
    """The names that errors had in older programs."""
    if name in _OLD_NAMES:
        today = _OLD_NAMES[name]
        warnings.warn(
            f"{name} is an old name of {today.__name__}; use that.",
            DeprecationWarning,
            stacklevel=2,
        )
        return today
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
