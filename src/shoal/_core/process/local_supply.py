"""Local mode: the resources there are, who holds some, and what can never run.

Nothing waits for resources here, because one thing runs at a time; what asks for more
than there is in all stays pending, as it would on a cluster.

Does not: lock (its callers hold the peer's lock).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shoal._core.base.resources import ResourceSet


class LocalSupply:
    """What the one node has."""

    def __init__(self, resources: Mapping[str, float], node_id: bytes) -> None:
        self.total = ResourceSet(resources)
        self.node_id = node_id
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

    def why_never(self, what: str, demand: Mapping[str, int]) -> str:
        """For people: why ``what`` can never be placed; empty when it can."""
        asked = ResourceSet.from_units(demand)
        if asked.fits_in(self.total):
            return ""
        return (
            f"The {what} cannot be scheduled: it requires {{{asked}}}, and there is "
            f"{{{self.total}}} in all. In local mode no node will join: reduce what it "
            "asks, or give init more."
        )

    def is_elsewhere(self, strategy: list[Any] | None) -> bool:
        """Whether a scheduling strategy insists on a node that is not this one."""
        if not strategy or strategy[0] != "node" or strategy[2]:
            return False
        wanted = strategy[1]
        wanted = bytes.fromhex(wanted) if isinstance(wanted, str) else bytes(wanted)
        return wanted != self.node_id
