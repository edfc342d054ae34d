"""``get``, ``put``, ``wait``, ``cancel``: what is done with refs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, overload

from shoal._api.generators import ObjectRefGenerator
from shoal._api.session import current_session
from shoal._core.base.object_ref import ObjectRef

_T = TypeVar("_T")
_W = TypeVar("_W", bound=ObjectRef[Any] | ObjectRefGenerator[Any])


@overload
def get(
    object_refs: ObjectRef[_T],
    *,
    timeout: float | None = None,
    _use_object_store: bool = False,
) -> _T: ...
@overload
def get(
    object_refs: Sequence[ObjectRef[_T]],
    *,
    timeout: float | None = None,
    _use_object_store: bool = False,
) -> list[_T]: ...
@overload
def get(
    object_refs: ObjectRefGenerator[_T],
    *,
    timeout: float | None = None,
    _use_object_store: bool = False,
) -> ObjectRefGenerator[_T]: ...
def get(
    object_refs: Any, *, timeout: float | None = None, _use_object_store: bool = False
) -> Any:
    """The value of a ref, or the values of a list of refs in order.

    Arrays come back read-only and without copying; each call makes new objects.

    Args:
        object_refs: a ref or a list of refs (a generator is returned as it is).
        timeout: seconds; None waits as long as it takes, 0 does not wait.

    Raises:
        GetTimeoutError: not ready in time; the message says what it waits for.
        RayTaskError: the task raised; also an instance of what it raised.
        ValueError, TypeError: not a ref, or not a list of refs.

    Blocks: yes; a task that waits here lends its CPU out meanwhile.
    """
    native = current_session().native
    if isinstance(object_refs, ObjectRef):
        return native.get_one(object_refs, timeout)
    if isinstance(object_refs, ObjectRefGenerator):
        return object_refs
    if not isinstance(object_refs, list):
        raise ValueError(
            "get takes an ObjectRef or a list of ObjectRefs; it was given a "
            f"{type(object_refs).__name__}."
        )
    for ref in object_refs:
        if not isinstance(ref, ObjectRef):
            raise TypeError(
                "get takes a list of ObjectRefs; the list holds a "
                f"{type(ref).__name__}: {ref!r:.80}"
            )
    if not object_refs:
        return []
    return native.get_many(object_refs, timeout)


def put(
    value: _T, *, _owner: Any = None, _tensor_transport: Any = None
) -> ObjectRef[_T]:
    """Store a value; returns its ref.

    Raises:
        TypeError: the value is a ref already, or cannot be serialised (the message
            names the path to what cannot).
        ObjectStoreFullError: it finds no room.
    """
    if isinstance(value, ObjectRef):
        raise TypeError(
            "put was given an ObjectRef: pass the ref itself on, or put a list that "
            "holds it."
        )
    if _owner is not None:
        raise ValueError(
            "_owner is not supported any more: the caller owns the object."
        )
    if _tensor_transport is not None:
        raise NotImplementedError("_tensor_transport needs GPUs that talk directly.")
    ref: ObjectRef[_T] = current_session().native.put(value)
    return ref


def wait(
    ray_waitables: list[_W],
    *,
    num_returns: int = 1,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> tuple[list[_W], list[_W]]:
    """Wait until ``num_returns`` refs are ready; returns (ready, others), in order.

    A ref whose task failed counts as ready.  At most ``num_returns`` refs are in the
    first list, however many are ready.

    Args:
        ray_waitables: distinct refs or generators.
        num_returns: how many to wait for.
        timeout: seconds; None waits as long as it takes.
        fetch_local: also bring the values to this node.

    Raises:
        TypeError: not a list of refs.
        ValueError: a ref twice, or an impossible ``num_returns`` or ``timeout``.
    """
    native = current_session().native
    if not isinstance(ray_waitables, list):
        raise TypeError(
            "wait takes a list of ObjectRefs; it was given a "
            f"{type(ray_waitables).__name__}."
        )
    if timeout is not None and timeout < 0:
        raise ValueError(f"timeout must be at least 0 seconds, got {timeout}.")
    if not ray_waitables:
        return [], []
    if num_returns <= 0:
        raise ValueError(f"num_returns must be at least 1, got {num_returns}.")
    if num_returns > len(ray_waitables):
        raise ValueError(
            f"num_returns is {num_returns}, and there are {len(ray_waitables)} refs."
        )
    result: tuple[list[_W], list[_W]] = native.wait(
        ray_waitables, num_returns, timeout, fetch_local
    )
    return result


def cancel(
    ray_waitable: ObjectRef[Any] | ObjectRefGenerator[Any],
    *,
    force: bool = False,
    recursive: bool = True,
) -> None:
    """Cancel the task (or actor call) that makes an object.

    A waiting task never runs; a running one is interrupted (KeyboardInterrupt in a
    task, CancelledError in an async method), also while it sleeps.  Getting its ref
    raises TaskCancelledError.  A finished task, or an object that was put, is left
    alone.

    Args:
        ray_waitable: what to cancel.
        force: end the worker process (not for actor calls).
        recursive: cancel what the task submitted, too.

    Raises:
        TypeError: not a ref or generator.
        ValueError: ``force`` on an actor call.
    """
    if isinstance(ray_waitable, ObjectRefGenerator):
        ray_waitable = ray_waitable._completion
    if not isinstance(ray_waitable, ObjectRef):
        raise TypeError(
            "cancel takes an ObjectRef or ObjectRefGenerator; it was given a "
            f"{type(ray_waitable).__name__}."
        )
    current_session().native.cancel(ray_waitable, force=force, recursive=recursive)
