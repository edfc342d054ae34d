"""What a lease request draws on at this node: its pool, a bundle, or nothing yet.

A request says in its *strategy* where it wants to run:

============================== =====================================================
strategy                       draws on
============================== =====================================================
none                           the node's pool
``["pg", group, index, …]``    a committed bundle of the group, -1 for any that fits
``["wish", …]``                the node's pool, if the wish allows this node
============================== =====================================================

The answer is one of four: a pool; nothing yet (the group is still being placed);
nothing, for a reason worth telling (no resources or labels like that here); or a
refusal, because it can never be served (the group is removed, the node is not there).

What it does not do: grant anything, or choose among nodes (the global scheduler does).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from shoal._core.base.placement_wish import PlacementWish
from shoal._core.base.resources import ResourcePool
from shoal._core.node.bundles import NodeBundles
from shoal._core.node.leases import LeaseRequest
from shoal._core.policy.placement import NodeView, Verdict, choose_node

#: Kinds of refusal.
GROUP_REMOVED, UNSCHEDULABLE = "placement_group", "unschedulable"


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a request stands."""

    pool: ResourcePool | None = None
    """What it draws on; it fits in there at least when that is idle."""
    reason: str = ""
    """Without a pool: why it waits or is refused, for people."""
    refusal: str = ""
    """The kind of refusal; empty: it waits."""


_NOT_YET = Destination()


def removed_text(group_id: bytes) -> str:
    """Why nothing can run in a removed group."""
    return f"The placement group {group_id.hex()} has been removed."


class Destinations:
    """Answers for one node.

    Args:
        pool: the node's resources.
        bundles: what of them is reserved for placement groups.
        node_id: the node.
        labels: its labels.
        is_group_gone: whether a placement group is removed or was never there.
    """

    def __init__(
        self,
        pool: ResourcePool,
        bundles: NodeBundles,
        node_id: bytes,
        labels: Mapping[str, str],
        is_group_gone: Callable[[bytes], bool],
    ) -> None:
        self._pool = pool
        self._bundles = bundles
        self._node_id = node_id
        self._labels = labels
        self._is_group_gone = is_group_gone
        self._here = Destination(pool)

    def view(self) -> NodeView:
        """The node as schedulers see it."""
        return NodeView(
            self._node_id, self._pool.total, self._pool.available, self._labels, True
        )

    def of(self, request: LeaseRequest) -> Destination:
        """What the request draws on now."""
        strategy = request.strategy
        if strategy is not None:
            if strategy[0] == "pg":
                return self._in_group(request, strategy[1], strategy[2])
            decided = self._against_wish(request, strategy)
            if decided is not None:
                return decided
        if self._pool.could_ever_fit(request.placement):
            return self._here
        what = "actor" if request.actor is not None else "task"
        return Destination(
            reason=f"The {what} {request.name} cannot be scheduled: it requires "
            f"{{{request.placement}}}, and the cluster has {{{self._pool.total}}} in "
            "all. It waits until a node with that joins; otherwise reduce what it asks."
        )

    def _in_group(
        self, request: LeaseRequest, group_id: bytes, index: int
    ) -> Destination:
        bundles = self._bundles.usable(group_id, index)
        if not bundles:
            if self._is_group_gone(group_id):
                return Destination(reason=removed_text(group_id), refusal=GROUP_REMOVED)
            return _NOT_YET
        wanted = request.placement
        fitting = [one for one in bundles if one.pool.could_ever_fit(wanted)]
        if not fitting:
            has = "; ".join(f"bundle {one.index}: {one.pool.total}" for one in bundles)
            return Destination(
                reason=f"{request.name} cannot be scheduled: it requires {{{wanted}}}, "
                f"and its place in placement group {group_id.hex()} has {{{has}}}. "
                "Choose another bundle, or reduce what it asks."
            )
        free = [one for one in fitting if one.pool.fits_now(wanted)]
        return Destination((free or fitting)[0].pool)

    def _against_wish(
        self, request: LeaseRequest, strategy: list[Any]
    ) -> Destination | None:
        """The answer if what is asked of the node rules it out."""
        wish = PlacementWish.from_list(strategy[1])
        placement = choose_node(request.placement, [self.view()], wish)
        if placement.verdict is not Verdict.NEVER:
            return None
        affinity = wish.affinity
        is_final = affinity is not None and not affinity.soft
        what = "actor" if request.actor is not None else "task"
        text = f"The {what} {request.name} cannot be scheduled. {placement.reason}"
        if is_final:
            return Destination(reason=text, refusal=UNSCHEDULABLE)
        return Destination(reason=f"{text} It waits until a node with that joins.")
