"""Local mode: the resources there are, who holds some, and who waits for room.

Tasks wait for nobody, because one thing runs at a time: a task that would wait for a
running one would wait for ever.  Actors and placement groups hold resources for long,
so they wait for each other as on a cluster.  What asks for more than there is in all
stays pending, and the user is told.

What waits is a function that tries to have what it needs and returns whether that is
settled; all are tried again, first come first, whenever somebody lets go.

Does not: lock (its callers hold the peer's lock), or start anything itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from shoal._core.base.placement_wish import PlacementWish
from shoal._core.base.resources import ResourceSet
from shoal._core.policy.placement import NodeView, Verdict, choose_node

_NO_NODES = (
    "It waits, and no node will join in local mode: reduce what it asks, or give init "
    "more."
)
_ONE = ResourceSet({"GPU": 1}).units_of("GPU")


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
        self.labels = {"ray.io/node-id": node_id.hex(), **labels}
        #: units held by all, and by those that hold them for long
        self._held: dict[str, int] = {}
        self._kept: dict[str, int] = {}
        self._free_gpus = list(range(int(self.total.amount_of("GPU"))))
        self._waiting: list[Callable[[], bool]] = []
        self._is_trying = False

    # -- holding -------------------------------------------------------------------

    def take(self, demand: Mapping[str, int], *, for_long: bool) -> list[int]:
        """Note that somebody holds ``demand`` (in units); returns ids of GPUs for it.

        As many different GPUs as are free; fractions share the first.
        """
        _add(self._held, demand, 1)
        if for_long:
            _add(self._kept, demand, 1)
        asked = demand.get("GPU", 0)
        count = -(-asked // _ONE)
        taken = self._free_gpus[:count]
        if asked >= _ONE:
            self._free_gpus = self._free_gpus[count:]
        return taken

    def give(
        self, demand: Mapping[str, int], gpu_ids: list[int], *, for_long: bool
    ) -> None:
        """The holder has ended; whoever waits may be next."""
        _add(self._held, demand, -1)
        self._free_gpus = sorted({*self._free_gpus, *gpu_ids})
        if for_long:
            _add(self._kept, demand, -1)
            self.try_waiting()

    def has_room(self, demand: Mapping[str, int]) -> bool:
        """Whether ``demand`` fits beside what is held for long."""
        return ResourceSet.from_units(demand).fits_in(self._room())

    def _room(self) -> ResourceSet:
        return _left(self.total, self._kept)

    def available(self) -> dict[str, float]:
        """What nobody holds, without what is used up."""
        return _left(self.total, self._held).to_floats()

    def view(self) -> NodeView:
        """The node as the policies of placement see it."""
        return NodeView(self.node_id, self.total, self._room(), self.labels, True)

    # -- waiting -------------------------------------------------------------------

    def settle(self, attempt: Callable[[], bool]) -> None:
        """Try something now, and again whenever there is more room, until it is so."""
        self._waiting.append(attempt)
        self.try_waiting()

    def try_waiting(self) -> None:
        """Something changed that others may wait for."""
        if self._is_trying:  # one of them made the change: the loop below goes on
            return
        self._is_trying = True
        try:
            while True:
                before = self._waiting
                self._waiting = []
                left = [attempt for attempt in before if not attempt()]
                self._waiting = left + self._waiting
                if len(left) == len(before):
                    return
        finally:
            self._is_trying = False

    # -- never ---------------------------------------------------------------------

    def why_never(
        self, what: str, demand: Mapping[str, int], strategy: list[Any] | None
    ) -> tuple[str, bool]:
        """For people: why ``what`` can never be placed; empty when it can.

        Returns:
            The reason, and whether it is to fail instead of waiting.
        """
        asked = ResourceSet.from_units(demand)
        if strategy is not None and strategy[0] == "wish":
            return self._why_not_here(what, asked, strategy[1])
        if asked.fits_in(self.total):
            return "", False
        text = (
            f"The {what} cannot be scheduled: it requires {{{asked}}}, and the cluster "
            f"has {{{self.total}}} in all. {_NO_NODES}"
        )
        return text, False

    def _why_not_here(
        self, what: str, asked: ResourceSet, packed_wish: Any
    ) -> tuple[str, bool]:
        wish = PlacementWish.from_list(packed_wish)
        empty = NodeView(self.node_id, self.total, self.total, self.labels, True)
        placement = choose_node(asked, [empty], wish)
        if placement.verdict is not Verdict.NEVER:
            return "", False
        is_final = wish.affinity is not None and not wish.affinity.soft
        text = f"The {what} cannot be scheduled. {placement.reason}"
        return (text if is_final else f"{text} {_NO_NODES}"), is_final


def _add(held: dict[str, int], demand: Mapping[str, int], sign: int) -> None:
    for name, units in demand.items():
        held[name] = held.get(name, 0) + sign * units


def _left(total: ResourceSet, held: Mapping[str, int]) -> ResourceSet:
    """What is left of ``total``; nothing of what is held more than once over."""
    return ResourceSet.from_units(
        {
            name: units - held.get(name, 0)
            for name, units in total.items()
            if units > held.get(name, 0)
        }
    )
