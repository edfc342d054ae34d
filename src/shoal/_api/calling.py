"""From options to what the core needs: templates, queues, environments.

Options are validated once, when a remote function or actor class is made; what they
mean for the running session is worked out once per session and kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from shoal._api.options import (
    DEFAULT_MAX_RETRIES,
    resolve_max_calls,
    resolve_num_returns,
    resolve_strategy,
    task_resources,
)
from shoal._api.scheduling import (
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)
from shoal._api.session import Session, current_session
from shoal._core.owner.calls import DYNAMIC, STREAMING, CallTemplate
from shoal._core.owner.leases import SchedulingClass
from shoal._core.serial import functions
from shoal._core.serial.serializer import serialize
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


def environment_key(session: Session, env: Mapping[str, Any] | None) -> str:
    """The key of a runtime environment, made known to the node; "" for none."""
    merged = session.merged_environment(env)
    if not merged:
        return ""
    text = json.dumps(merged, sort_keys=True, default=repr)
    key = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    return session.native.environment(key, merged)


def task_template(
    function: Callable[..., Any], options: Mapping[str, Any], *, is_generator: bool
) -> CallTemplate:
    """What every task of a function with these options shares."""
    key, pickled = functions.export(function)
    max_retries = options.get("max_retries")
    if max_retries is None:
        max_retries = DEFAULT_MAX_RETRIES
    definition = Callable_(
        0,
        FUNCTION,
        key,
        getattr(function, "__name__", type(function).__name__),
        pickled,
        returns=returns_code(resolve_num_returns(options, is_generator=is_generator)),
        flush=max_retries == 0,
        retry_exceptions=packed_exceptions(options.get("retry_exceptions")),
        backpressure=options.get("_generator_backpressure_num_objects") or -1,
        max_calls=resolve_max_calls(options),
    )
    return CallTemplate(definition, max_retries)


def encode_strategy(strategy: object) -> list[Any] | None:
    """A scheduling strategy as the wire has it; None for the default."""
    if isinstance(strategy, PlacementGroupSchedulingStrategy):
        group = strategy.placement_group
        if group is None or group.is_empty:
            return None
        capture = bool(strategy.placement_group_capture_child_tasks)
        return ["pg", group.id.binary(), strategy.placement_group_bundle_index, capture]
    if isinstance(strategy, NodeAffinitySchedulingStrategy):
        return ["node", strategy.node_id, bool(strategy.soft)]
    if isinstance(strategy, NodeLabelSchedulingStrategy):
        return ["labels", repr(strategy.hard), repr(strategy.soft)]
    return ["spread"] if strategy == "SPREAD" else None


def task_class(session: Session, options: Mapping[str, Any]) -> SchedulingClass:
    """The queue for tasks with these options."""
    strategy = encode_strategy(resolve_strategy(options))
    return session.native.scheduling_class(
        task_resources(options).to_units(),
        environment_key(session, options.get("runtime_env")),
        strategy,
    )


def method_template(class_name: str, name: str, meta: Mapping[str, Any]) -> CallTemplate:
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


__all__ = [
    "current_session",
    "environment_key",
    "method_template",
    "packed_exceptions",
    "returns_code",
    "task_class",
    "task_template",
]
