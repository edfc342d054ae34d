"""Local mode: the resources there are, who holds some, and what can never run.

Nothing waits for resources here, because one thing runs at a time; what asks for more
than there is in all stays pending, as it would on a cluster.

Does not: lock (its callers hold the peer's lock).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shoal._core.base.placement_wish import PlacementWish
from shoal._core.base.resources import ResourceSet
from shoal._core.policy.placement import NodeView, Verdict, choose_node

_NO_NODES = (
    "It waits, and no node will join in local mode: reduce what it asks, or give init "
    "more."
)


class LocalSupply:
    """What the one node has.

    Args:
        resources: amounts by name.
        node_id: of the node.
        labels: of the node.
    """

    def __init__(
        self,
        resources: Mapping[str, float],
        node_id: bytes,
        labels: Mapping[str, str],
    ) -> None:
        self.total = ResourceSet(resources)
        self.node_id = node_id
        self._labels = {"ray.io/node-id": node_id.hex(), **labels}
        self._held: dict[str, int] = {}
        self._free_gpus = list(range(int(self.total.amount_of("GPU"))))

    def take(self, demand: Mapping[str, int]) -> list[int]:
        """Note that somebody holds ``demand`` (in units); returns ids of GPUs for it.

        As many different GPUs as are free; fractions share the first.
        """
        for name, units in demand.items():
            self._held[name] = self._held.get(name, 0) + units
        wanted = -(-demand.get("GPU", 0) // ResourceSet({"GPU": 1}).units_of("GPU"))
        taken = self._free_gpus[:wanted]
        if demand.get("GPU", 0) >= ResourceSet({"GPU": 1}).units_of("GPU"):
            self._free_gpus = self._free_gpus[wanted:]
        return taken

    def give(self, demand: Mapping[str, int], gpu_ids: list[int]) -> None:
        """The holder has ended."""
        for name, units in demand.items():
            self._held[name] -= units
        self._free_gpus = sorted({*self._free_gpus, *gpu_ids})

    def available(self) -> dict[str, float]:
        """What nobody holds, without what is used up."""
        free = {
            name: units - self._held.get(name, 0) for name, units in self.total.items()
        }
        left = {name: units for name, units in free.items() if units > 0}
        return ResourceSet.from_units(left).to_floats()

    def why_never(
        self, what: str, demand: Mapping[str, int], strategy: list[Any] | None
    ) -> tuple[str, bool]:
        """For people: why ``what`` can never be placed; empty when it can.

        Returns:
            The reason, and whether it is to fail instead of waiting.
        """
        asked = ResourceSet.from_units(demand)
        if strategy is not None and strategy[0] == "wish":
            wish = PlacementWish.from_list(strategy[1])
            view = NodeView(self.node_id, self.total, self.total, self._labels, True)
            placement = choose_node(asked, [view], wish)
            if placement.verdict is not Verdict.NEVER:
                return "", False
            is_final = wish.affinity is not None and not wish.affinity.soft
            text = f"The {what} cannot be scheduled. {placement.reason}"
            return (text if is_final else f"{text} {_NO_NODES}"), is_final
        if asked.fits_in(self.total):
            return "", False
        text = (
            f"The {what} cannot be scheduled: it requires {{{asked}}}, and the cluster "
            f"has {{{self.total}}} in all. {_NO_NODES}"
        )
        return text, False
