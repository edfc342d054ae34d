"""Scheduling strategies for tasks and actors (``scheduling_strategy=``).

Public names only; they are defined in ``shoal._api.scheduling``.
"""

from shoal._api.scheduling import (
    DoesNotExist,
    Exists,
    In,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    NotIn,
    PlacementGroupSchedulingStrategy,
    SchedulingStrategy,
)

SchedulingStrategyT = None | SchedulingStrategy
"""The type of the option ``scheduling_strategy``."""

__all__ = [
    "DoesNotExist",
    "Exists",
    "In",
    "NodeAffinitySchedulingStrategy",
    "NodeLabelSchedulingStrategy",
    "NotIn",
    "PlacementGroupSchedulingStrategy",
    "SchedulingStrategyT",
]
