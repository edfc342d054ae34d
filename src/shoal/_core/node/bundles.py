"""Bundles reserved on this node for placement groups.

::

    prepare -> prepared -- commit --> committed
                  |                       |
                  +---- return or end ----+--> ending --> (gone, resources given back)

A bundle is an allocation from the node's pool and a pool of its own over what was
allocated (the same GPUs, too): leases inside the group draw on that pool.  A bundle
that ends while leases still draw on it stays, as *ending*, until the last of them is
released; only then do its resources return to the node.

Invariants, asserted by :meth:`NodeBundles.check`: every bundle holds its allocation;
an ending bundle is held by some lease; no bundle stands twice.

What it does not do: choose nodes, count attempts (control/placement_groups.py), or end
the processes that run in a bundle (node/machine.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shoal._core.base.resources import Allocation, ResourcePool, ResourceSet


class Bundle:
    """Resources of this node that belong to one placement group."""

    __slots__ = ("allocation", "attempt", "group_id", "index", "is_committed", "pool")

    def __init__(
        self, group_id: bytes, index: int, attempt: int, allocation: Allocation
    ) -> None:
        self.group_id = group_id
        self.index = index
        #: the try of the control store it was prepared in
        self.attempt = attempt
        self.allocation = allocation
        #: what leases inside the group draw on
        self.pool = ResourcePool(allocation.request, allocation.shares)
        self.is_committed = False


class NodeBundles:
    """All bundles of one node.

    Args:
        pool: the node's resources, which bundles are taken from.
    """

    def __init__(self, pool: ResourcePool) -> None:
        self._pool = pool
        self._groups: dict[bytes, dict[int, Bundle]] = {}
        self._ending: list[Bundle] = []

    # -- reserving ---------------------------------------------------------------

    def prepare(
        self,
        group_id: bytes,
        attempt: int,
        bundles: Sequence[tuple[int, ResourceSet]],
    ) -> bool:
        """Take the resources of these bundles aside: all, or none and return False."""
        standing = self._groups.setdefault(group_id, {})
        made: list[Bundle] = []
        for index, resources in bundles:
            assert index not in standing, f"bundle {index} is reserved already"
            allocation = self._pool.acquire(resources)
            if allocation is None:
                for bundle in made:
                    self._pool.release(bundle.allocation)
                self._forget_if_empty(group_id)
                return False
            made.append(Bundle(group_id, index, attempt, allocation))
        standing.update((bundle.index, bundle) for bundle in made)
        return True

    def commit(self, group_id: bytes, attempt: int) -> None:
        """Let leases draw on the bundles of an attempt."""
        for bundle in self._groups.get(group_id, {}).values():
            if bundle.attempt == attempt:
                bundle.is_committed = True

    def give_back(self, group_id: bytes, attempt: int | None = None) -> list[Bundle]:
        """Begin the end of a group's bundles: of one attempt, or of all.

        Returns:
            Those that leases still draw on; ``settle`` ends them.
        """
        standing = self._groups.get(group_id, {})
        chosen = [
            bundle
            for bundle in standing.values()
            if attempt is None or bundle.attempt == attempt
        ]
        for bundle in chosen:
            del standing[bundle.index]
        self._forget_if_empty(group_id)
        in_use = [bundle for bundle in chosen if bundle.pool.held_count]
        self._ending += chosen
        self.settle()
        return in_use

    def settle(self) -> None:
        """Give back what ending bundles held, where no lease draws on them any more."""
        if not self._ending:
            return
        for bundle in self._ending:
            if not bundle.pool.held_count:
                self._pool.release(bundle.allocation)
        self._ending = [bundle for bundle in self._ending if bundle.pool.held_count]

    def _forget_if_empty(self, group_id: bytes) -> None:
        if not self._groups.get(group_id, True):
            del self._groups[group_id]

    # -- using -------------------------------------------------------------------

    def usable(self, group_id: bytes, index: int) -> list[Bundle]:
        """The bundles a lease may draw on.

        Args:
            group_id: the placement group.
            index: which bundle of it; -1 for any.

        Returns:
            Committed bundles that are here, by index; empty while there are none.
        """
        standing = self._groups.get(group_id, {})
        if index >= 0:
            bundle = standing.get(index)
            chosen = [] if bundle is None else [bundle]
        else:
            chosen = [standing[index] for index in sorted(standing)]
        return [bundle for bundle in chosen if bundle.is_committed]

    # -- views -------------------------------------------------------------------

    def describe(self) -> list[dict[str, Any]]:
        """Every bundle, for people and tests."""
        return [
            {
                "placement_group_id": bundle.group_id.hex(),
                "index": bundle.index,
                "resources": bundle.pool.total.to_floats(),
                "available": bundle.pool.available.to_floats(),
                "is_committed": bundle.is_committed,
            }
            for group in self._groups.values()
            for bundle in group.values()
        ]

    def check(self) -> None:
        """Assert what must always hold."""
        standing = [one for group in self._groups.values() for one in group.values()]
        for bundle in [*standing, *self._ending]:
            bundle.pool.check()
            assert bundle.pool.total == bundle.allocation.request, bundle.index
        for group_id, group in self._groups.items():
            assert group, "a group without bundles is forgotten"
            for index, bundle in group.items():
                assert (bundle.group_id, bundle.index) == (group_id, index)
        for bundle in self._ending:
            assert bundle.pool.held_count, "a bundle nobody draws on has ended"
