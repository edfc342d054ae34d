"""What the public API hands to the core: templates of calls, queues, specs of actors.

The API checks options and says what they mean in plain values; this module makes of
them what owners, executors and the wire work with, so that no other module of the API
needs to know those.  It runs when a function, class or method is first used in a
session, never for each call.

Invariant: nothing here depends on the session; a template may be used in any.

Does not: validate options, submit anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from shoal._core.owner.calls import DYNAMIC, STREAMING, CallTemplate
from shoal._core.owner.leases import SchedulingClass
from shoal._core.serial import functions
from shoal._core.serial.serializer import serialize
from shoal._core.wire.control_messages import ActorSpec
from shoal._core.wire.worker_messages import FUNCTION, METHOD, Callable_

_RETURN_MODES = {"streaming": STREAMING, "dynamic": DYNAMIC}


def returns_code(num_returns: int | str) -> int:
    """How many values come back, as the wire has it."""
    return num_returns if isinstance(num_returns, int) else _RETURN_MODES[num_returns]


def packed_exceptions(wanted: Any) -> bytes | None:
    """``retry_exceptions`` for the executor: True, or a tuple of classes."""
    if not wanted:
        return None
    return serialize(True if wanted is True else tuple(wanted)).to_bytes()


def task_template(
    function: Callable[..., Any],
    *,
    num_returns: int | str,
    max_retries: int,
    retry_exceptions: Any,
    backpressure: int,
    max_calls: int,
) -> CallTemplate:
    """What every task of a function with these options shares.

    Args:
        function: what runs.
        num_returns: how many values come back, "streaming" or "dynamic".
        max_retries: how often a task is tried again; -1 for ever.
        retry_exceptions: True, classes of errors, or nothing.
        backpressure: items a stream may run ahead of its consumer; -1 for any number.
        max_calls: tasks after which a worker is replaced; 0 for never.

    Raises:
        TypeError: the function can't be pickled.
    """
    key, pickled = functions.export(function)
    definition = Callable_(
        0,
        FUNCTION,
        key,
        getattr(function, "__name__", type(function).__name__),
        pickled,
        returns=returns_code(num_returns),
        flush=max_retries == 0,
        retry_exceptions=packed_exceptions(retry_exceptions),
        backpressure=backpressure,
        max_calls=max_calls,
    )
    return CallTemplate(definition, max_retries)


def method_template(
    class_name: str, name: str, meta: Mapping[str, Any]
) -> CallTemplate:
    """What every call of an actor's method shares."""
    definition = Callable_(
        0,
        METHOD,
        b"",
        meta.get("name") or f"{class_name}.{name}",
        None,
        method=name,
        returns=meta["returns"],
        flush=True,
        retry_exceptions=meta.get("retry_exceptions"),
        group=meta.get("group") or "",
        backpressure=meta.get("backpressure") or -1,
    )
    return CallTemplate(definition, meta.get("max_task_retries") or 0)


def export_class(cls: type) -> tuple[bytes, bytes]:
    """An actor's class as (key, pickled).

    Raises:
        TypeError: it can't be pickled.
    """
    return functions.export(cls)


def pack_spec(spec: ActorSpec) -> bytes:
    """An actor's spec as another process's handle needs it: no class, no arguments."""
    slim = msgspec.structs.replace(spec, pickled_class=b"", args=b"", deps=[])
    return msgspec.msgpack.encode(slim)


def unpack_spec(packed: bytes) -> ActorSpec:
    """What ``pack_spec`` made, as a spec again."""
    return msgspec.msgpack.decode(packed, type=ActorSpec)


__all__ = [
    "STREAMING",
    "ActorSpec",
    "CallTemplate",
    "SchedulingClass",
    "export_class",
    "method_template",
    "pack_spec",
    "packed_exceptions",
    "returns_code",
    "task_template",
    "unpack_spec",
]
