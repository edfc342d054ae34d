"""Options as typed keywords, for checkers and editors; ``options.py`` checks values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypedDict


class SharedOptions(TypedDict, total=False):
    """Options of tasks and actors alike."""

    num_cpus: float | None
    num_gpus: float | None
    resources: dict[str, float] | None
    memory: float | None
    accelerator_type: str | None
    label_selector: dict[str, str] | None
    fallback_strategy: list[dict[str, Any]] | None
    name: str | None
    runtime_env: dict[str, Any] | None
    scheduling_strategy: Any
    placement_group: Any
    placement_group_bundle_index: int
    placement_group_capture_child_tasks: bool | None
    enable_task_events: bool
    _labels: dict[str, str] | None


class TaskOptions(SharedOptions, total=False):
    """Options of tasks (``num_returns`` is spelled out where it changes the type)."""

    max_retries: int | None
    retry_exceptions: bool | Sequence[type[BaseException]]
    _generator_backpressure_num_objects: int | None


class ActorOptions(SharedOptions, total=False):
    """Options of actors."""

    lifetime: Literal["detached", "non_detached"] | None
    namespace: str | None
    get_if_exists: bool
    max_restarts: int | None
    max_task_retries: int | None
    max_pending_calls: int | None
    max_concurrency: int | None
    allow_out_of_order_execution: bool | None
    object_store_memory: int | None


class MethodOptions(TypedDict, total=False):
    """Options of an actor's methods, as ``@method`` takes them."""

    num_returns: int | Literal["streaming", "dynamic"] | None
    concurrency_group: str | None
    max_task_retries: int | None
    retry_exceptions: bool | Sequence[type[BaseException]] | None
    enable_task_events: bool | None
    tensor_transport: str | None
    _generator_backpressure_num_objects: int | None
    _num_objects_per_yield: int | None


class RemoteOptions(TaskOptions, ActorOptions, total=False):
    """What ``@remote(...)`` accepts before it knows what it decorates."""

    max_calls: int | None
    concurrency_groups: dict[str, int] | None
    num_return_vals: int
