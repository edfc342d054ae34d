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
from shoal._api.session import Session
from shoal._core.base.resources import ResourceSet
from shoal._core.process import templates
from shoal._core.process.context import worker_state
from shoal._core.process.templates import CallTemplate, SchedulingClass


def environment_key(session: Session, env: Mapping[str, Any] | None) -> str:
    """The key of a runtime environment, made known to the node; "" for none."""
    merged = session.merged_environment(env)
    if not merged:
        return ""
    text = json.dumps(merged, sort_keys=True, default=repr)
    key = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    known: str = session.native.environment(key, merged)
    return known


def task_template(
    function: Callable[..., Any], options: Mapping[str, Any], *, is_generator: bool
) -> CallTemplate:
    """What every task of a function with these options shares."""
    max_retries = options.get("max_retries")
    return templates.task_template(
        function,
        num_returns=resolve_num_returns(options, is_generator=is_generator),
        max_retries=DEFAULT_MAX_RETRIES if max_retries is None else max_retries,
        retry_exceptions=options.get("retry_exceptions"),
        backpressure=options.get("_generator_backpressure_num_objects") or -1,
        max_calls=resolve_max_calls(options),
    )


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
