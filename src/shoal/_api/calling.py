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
from shoal._api.placement_group import (
    PlacementGroup,
    check_request_fits,
    get_current_placement_group,
)
from shoal._api.scheduling import PlacementGroupSchedulingStrategy, wish_of
from shoal._api.session import Session, current_session
from shoal._core.base.resources import ResourceSet
from shoal._core.owner.calls import DYNAMIC, STREAMING, CallTemplate
from shoal._core.owner.leases import SchedulingClass
from shoal._core.process.context import worker_state
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


def encode_strategy(
    options: Mapping[str, Any],
    request: ResourceSet,
    what: str,
    *,
    creation: bool = False,
) -> list[Any] | None:
    """Where a task or actor is to run, as the wire has it; None for anywhere.

    Args:
        options: its options.
        request: what must be free to place it.
        what: the name of the function or class.
        creation: whether the request is more than it will hold (an actor's CPU).

    Raises:
        ValueError: it asks for a bundle that isn't there, or that no bundle can hold.
    """
    strategy = resolve_strategy(options)
    selector = options.get("label_selector")
    fallback = options.get("fallback_strategy")
    if isinstance(strategy, PlacementGroupSchedulingStrategy):
        group = strategy.placement_group
        index = strategy.placement_group_bundle_index
        capture = strategy.placement_group_capture_child_tasks
        if capture is None:
            capture = worker_state.capture_children
    elif strategy is None and worker_state.captured:
        group, index, capture = get_current_placement_group(), -1, True
    else:
        wish = wish_of(strategy, selector, fallback)
        return None if wish is None else ["wish", wish.to_list()]
    if not isinstance(group, PlacementGroup) or group.is_empty:
        wish = wish_of(None, selector, fallback)
        return None if wish is None else ["wish", wish.to_list()]
    check_request_fits(group, index, request, what, creation=creation)
    return ["pg", group.id.binary(), index, capture]


def task_class(
    session: Session, options: Mapping[str, Any], what: str
) -> SchedulingClass:
    """The queue for tasks of a function of this name with these options."""
    request = task_resources(options)
    sclass: SchedulingClass = session.native.scheduling_class(
        request.to_units(),
        environment_key(session, options.get("runtime_env")),
        encode_strategy(options, request, what),
    )
    return sclass


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
