"""One placement group as the control store keeps it, and as people see it.

The table that changes these rows is control/placement_groups.py.
"""

from __future__ import annotations

from typing import Any

from shoal._core.base.labels import LabelSelector
from shoal._core.base.placement_wish import selector_from_list
from shoal._core.base.resources import ResourceSet
from shoal._core.wire.group_messages import PENDING, PlacementGroupSpec

#: Where placing stands (``stats`` of a group), for people.
QUEUED, STARTED, NO_ROOM, INFEASIBLE, FINISHED = (
    "QUEUED",
    "SCHEDULING_STARTED",
    "NO_RESOURCES",
    "INFEASIBLE",
    "FINISHED",
)
#: What the nodes of an attempt are asked now.
NOTHING, TO_PREPARE, TO_COMMIT = "", "prepare", "commit"


class GroupRow:
    """One placement group."""

    __slots__ = (
        "asked",
        "attempt",
        "attempt_began",
        "awaited",
        "bundles",
        "created_after",
        "has_failed",
        "is_actor_over",
        "is_job_over",
        "made_at",
        "nodes",
        "placed_after",
        "progress",
        "reason",
        "selectors",
        "spec",
        "state",
        "target",
        "waiters",
    )

    def __init__(self, spec: PlacementGroupSpec, now: float) -> None:
        self.spec = spec
        self.bundles = [ResourceSet.from_units(bundle) for bundle in spec.bundles]
        self.selectors: list[LabelSelector] = list(
            map(selector_from_list, spec.selectors)
        )
        self.state = PENDING
        #: the node of each bundle; empty while it has none
        self.nodes = [b""] * len(self.bundles)
        self.attempt = 0
        self.asked = NOTHING
        #: bundle index -> node, while these are asked to prepare
        self.target: dict[int, bytes] = {}
        #: nodes that have not answered yet
        self.awaited: dict[bytes, None] = {}
        self.has_failed = False
        self.progress = QUEUED
        #: why it is not placed, for people
        self.reason = ""
        #: (process, request) of those who wait for it
        self.waiters: list[tuple[bytes, int]] = []
        self.is_job_over = False
        self.is_actor_over = not spec.creator_actor
        self.made_at = now
        self.attempt_began = now
        #: seconds from its making, and from the begin of its last attempt, to CREATED
        self.created_after = 0.0
        self.placed_after = 0.0

    @property
    def missing(self) -> list[int]:
        """The bundles without a node."""
        return [index for index, node_id in enumerate(self.nodes) if not node_id]


def describe(row: GroupRow) -> dict[str, Any]:
    """What ``placement_group_table`` shows of a group."""
    return {
        "placement_group_id": row.spec.group_id.hex(),
        "name": row.spec.name,
        "bundles": {
            index: bundle.to_floats() for index, bundle in enumerate(row.bundles)
        },
        "bundles_to_node_id": {
            index: node_id.hex() for index, node_id in enumerate(row.nodes)
        },
        "strategy": row.spec.strategy,
        "state": row.state,
        "stats": {
            "end_to_end_creation_latency_ms": round(row.created_after * 1000, 3),
            "scheduling_latency_ms": round(row.placed_after * 1000, 3),
            "scheduling_attempt": row.attempt,
            "highest_retry_delay_ms": 0.0,
            "scheduling_state": row.progress,
        },
        "reason": row.reason,
    }
