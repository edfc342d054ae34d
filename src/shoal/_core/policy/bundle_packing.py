"""Placing all bundles of a placement group, or saying why they can't be.

============= ================================================================
strategy      bundles go
============= ================================================================
PACK          on as few nodes as a quick search finds
SPREAD        on as many different nodes as possible
STRICT_PACK   all on one node
STRICT_SPREAD each on a node of its own
============= ================================================================

Theory: placing bundles is bin packing, which has no fast exact answer. The search takes
the largest bundle first, tries nodes in the order the strategy likes best, and goes
back when it is stuck; its first descent is the usual greedy answer. The number of steps
is bounded (:data:`SEARCH_STEPS_MAX`), so that hopeless groups cost little; within the
bound the search is exact: it finds a placement if there is one.

What it does not do: reserve anything (two-phase reservation is the control store's), or
balance one group against another.

Source: Ray documentation, "Placement Groups" (placement strategies).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from shoal._core.base.labels import LabelSelector, matches
from shoal._core.base.resources import NO_RESOURCES, ResourceSet
from shoal._core.policy.placement import NodeView, Verdict

Strategy = Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]
"""How the bundles of a group lie to each other."""

SEARCH_STEPS_MAX = 2_000
"""Bundles tried on nodes before the search gives up, per bundle of the group."""

_LOOK_AHEAD_MAX = 100
"""How many of the bundles still to come are weighed when a fresh node is begun."""


@dataclass(frozen=True, slots=True)
class BundlePlacement:
    """The answer for one group."""

    verdict: Verdict
    """NOW: reserve it; LATER: try again when resources are freed; NEVER: no way."""
    node_ids: tuple[bytes, ...] = ()
    """The node of each bundle, in the order of the bundles; empty unless NOW."""
    reason: str = ""
    """For people; empty if NOW."""


def place_bundles(
    bundles: Sequence[ResourceSet],
    strategy: Strategy,
    nodes: Sequence[NodeView],
    *,
    selectors: Sequence[LabelSelector] = (),
    soft_target: bytes | None = None,
) -> BundlePlacement:
    """Choose the node of each bundle.

    Args:
        bundles: the resources of each, at least one.
        strategy: how they lie to each other.
        nodes: all nodes that are alive, in any order.
        selectors: what each bundle asks of the labels of its node; empty: nothing.
        soft_target: a node to prefer for STRICT_PACK; None: no preference.

    Returns:
        Where to reserve them, or whether it is worth waiting, and why.
    """
    assert bundles, "a group has at least one bundle"
    assert not selectors or len(selectors) == len(bundles), (selectors, bundles)
    group = _Group(bundles, strategy, sorted(nodes, key=_by_id), selectors, soft_target)
    found = group.search([node.available for node in group.nodes])
    if found is not None:
        chosen = tuple(group.nodes[index].node_id for index in found)
        return BundlePlacement(Verdict.NOW, chosen)
    if group.search([node.total for node in group.nodes]) is not None:
        return BundlePlacement(Verdict.LATER, reason=group.why_not("free"))
    return BundlePlacement(Verdict.NEVER, reason=group.why_not("at all"))


class _Group:
    """The bundles, the nodes, and which may go where."""

    def __init__(
        self,
        bundles: Sequence[ResourceSet],
        strategy: Strategy,
        nodes: list[NodeView],
        selectors: Sequence[LabelSelector],
        soft_target: bytes | None,
    ) -> None:
        self.bundles = bundles
        self.strategy = strategy
        self.nodes = nodes
        self.soft_target = soft_target
        self.labels_fit = [
            [not selectors or matches(selectors[index], node.labels) for node in nodes]
            for index in range(len(bundles))
        ]

    def search(self, room: list[ResourceSet]) -> list[int] | None:
        """The index of the node of each bundle with so much room on each node."""
        if self.strategy == "STRICT_PACK":
            node = self._one_node_for_all(room)
            return None if node is None else [node] * len(self.bundles)
        return _Search(self, room).run()

    def all_together(self) -> ResourceSet:
        """What the group needs in sum."""
        total = NO_RESOURCES
        for bundle in self.bundles:
            total = total.add(bundle)
        return total

    def why_not(self, state: str) -> str:
        """What stands in the way; room is what is "free", or what is there "at all"."""
        rooms = [
            node.available if state == "free" else node.total for node in self.nodes
        ]
        if not self.nodes:
            return "No node is alive."
        for index, bundle in enumerate(self.bundles):
            if not any(
                self.labels_fit[index][node] and bundle.fits_in(room)
                for node, room in enumerate(rooms)
            ):
                return (
                    f"Bundle {index} needs {bundle}, which no node with fitting labels "
                    f"has {state}."
                )
        if self.strategy == "STRICT_PACK":
            return (
                f"All bundles together need {self.all_together()} on one node, which "
                f"no node has {state}."
            )
        if self.strategy == "STRICT_SPREAD":
            return (
                f"{len(self.bundles)} bundles need a node of their own each, but the "
                f"{len(self.nodes)} nodes have no such places {state}."
            )
        return (
            f"The bundles together need {self.all_together()}; no division over the "
            f"{len(self.nodes)} nodes was found with what is {state}."
        )

    def _one_node_for_all(self, room: list[ResourceSet]) -> int | None:
        """The fullest node that has room for the whole group, or the target."""
        total = self.all_together()
        possible = [
            index
            for index, free in enumerate(room)
            if total.fits_in(free) and all(fits[index] for fits in self.labels_fit)
        ]

        def rank(index: int) -> tuple[bool, float, int]:
            node = self.nodes[index]
            return node.node_id != self.soft_target, _spare(total, room[index]), index

        return min(possible, key=rank, default=None)


class _Search:
    """One bounded search for PACK, SPREAD and STRICT_SPREAD."""

    def __init__(self, group: _Group, room: list[ResourceSet]) -> None:
        self.group = group
        self.room = list(room)
        self.chosen = [-1] * len(group.bundles)
        self.counts = [0] * len(group.nodes)
        self.steps_left = SEARCH_STEPS_MAX * len(group.bundles)
        # Largest first: it has the fewest places. Measured by its largest share of
        # the largest room, so that GPUs and bytes compare.
        largest = _largest(room)
        self.order = sorted(
            range(len(group.bundles)),
            key=lambda index: (-_share(group.bundles[index], largest), index),
        )

    def run(self) -> list[int] | None:
        """The node of each bundle, or None."""
        # An explicit stack, because groups may be deeper than Python's recursion.
        pending = [self._choices(0)]
        while pending:
            position = len(pending) - 1
            self._undo(position)
            node = next(pending[-1], None)
            if node is None or self.steps_left <= 0:
                pending.pop()
                continue
            self._put(position, node)
            if len(pending) == len(self.order):
                return self.chosen
            pending.append(self._choices(position + 1))
        return None

    def _choices(self, position: int) -> Iterator[int]:
        """Nodes that have room for the bundle at this position, best first."""
        bundle_index = self.order[position]
        bundle = self.group.bundles[bundle_index]
        fits = self.group.labels_fit[bundle_index]
        possible = [
            node
            for node, room in enumerate(self.room)
            if fits[node] and bundle.fits_in(room)
        ]
        used = [node for node in possible if self.counts[node]]
        fresh = [node for node in possible if not self.counts[node]]
        if self.group.strategy == "STRICT_SPREAD":
            return iter(fresh)
        if self.group.strategy == "SPREAD":
            return chain(fresh, sorted(used, key=lambda node: self.counts[node]))
        return self._packed_choices(position, used, fresh)

    def _packed_choices(
        self, position: int, used: list[int], fresh: list[int]
    ) -> Iterator[int]:
        """Nodes begun already, then those that hold most of what is still to come."""
        yield from sorted(used, key=lambda node: -self.counts[node])
        # Weighed only when it comes to that: mostly a node that is begun will do.
        yield from sorted(fresh, key=lambda node: -self._how_many_fit(position, node))

    def _put(self, position: int, node: int) -> None:
        bundle_index = self.order[position]
        self.room[node] = self.room[node].subtract(self.group.bundles[bundle_index])
        self.counts[node] += 1
        self.chosen[bundle_index] = node
        self.steps_left -= 1

    def _undo(self, position: int) -> None:
        bundle_index = self.order[position]
        node = self.chosen[bundle_index]
        if node >= 0:
            self.room[node] = self.room[node].add(self.group.bundles[bundle_index])
            self.counts[node] -= 1
            self.chosen[bundle_index] = -1

    def _how_many_fit(self, position: int, node: int) -> int:
        """How many bundles from this position on would fit on the node together."""
        room, count = self.room[node], 0
        for bundle_index in self.order[position : position + _LOOK_AHEAD_MAX]:
            bundle = self.group.bundles[bundle_index]
            if self.group.labels_fit[bundle_index][node] and bundle.fits_in(room):
                room, count = room.subtract(bundle), count + 1
        return count


def _largest(rooms: Sequence[ResourceSet]) -> ResourceSet:
    """The largest quantity of each resource on any node."""
    units: dict[str, int] = {}
    for room in rooms:
        for name, quantity in room.items():
            units[name] = max(units.get(name, 0), quantity)
    return ResourceSet.from_units(units)


def _share(bundle: ResourceSet, whole: ResourceSet) -> float:
    """The largest fraction of ``whole`` that the bundle takes; 1 of what lacks."""
    return max(
        (units / (whole.units_of(name) or units) for name, units in bundle.items()),
        default=0.0,
    )


def _spare(request: ResourceSet, room: ResourceSet) -> float:
    """The largest fraction of a resource in ``room`` that stays free."""
    return max(
        (1 - request.units_of(name) / units for name, units in room.items()),
        default=0.0,
    )


def _by_id(node: NodeView) -> bytes:
    return node.node_id
