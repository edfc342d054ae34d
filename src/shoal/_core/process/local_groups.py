"""Local mode: placement groups, all of whose bundles lie on the one node there is.

::

    PENDING --room for all bundles--> CREATED --removed--> REMOVED
       |                                                      ^
       +------------------------------------------------------+

A group holds its resources from its creation to its removal.  What runs in it draws on
them and is not counted again, nor does it wait for others in the group.

Does not: check what users give (``_api/placement_group.py``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import Any

from shoal._core.base.ids import FIRST_RETURN, UNIQUE_ID_BYTES
from shoal._core.base.labels import LabelSelector
from shoal._core.base.object_ref import ObjectRef, counted_ref
from shoal._core.base.placement_wish import selector_to_list
from shoal._core.base.resources import NO_RESOURCES, ResourceSet
from shoal._core.control.group_choice import choose_nodes
from shoal._core.control.group_rows import (
    FINISHED,
    INFEASIBLE,
    NO_ROOM,
    GroupRow,
    describe,
)
from shoal._core.owner.references import Entry
from shoal._core.policy.placement import Verdict
from shoal._core.process.local_peer import (
    LocalPeer,
    deadline_of,
    failure_value,
    pack,
)
from shoal._core.process.local_supply import LocalSupply
from shoal._core.wire.group_messages import (
    CREATED,
    PENDING,
    REMOVED,
    PlacementGroupSpec,
)
from shoal._core.wire.worker_messages import Value
from shoal.exceptions import RaySystemError, TaskPlacementGroupRemoved


class LocalGroups:
    """The table of groups, with the requests a session offers about them."""

    def __init__(self, peer: LocalPeer, supply: LocalSupply) -> None:
        self._peer = peer
        self._supply = supply
        self._rows: dict[bytes, GroupRow] = {}
        self._gpu_ids: dict[bytes, list[int]] = {}
        self._names: dict[tuple[str, str], bytes] = {}
        #: told (outside the lock) of a removal
        self.on_removed: Callable[[bytes], None] = _ignore

    # -- requests ------------------------------------------------------------------

    def create(
        self,
        bundles: Sequence[ResourceSet],
        strategy: str,
        *,
        name: str,
        namespace: str,
        detached: bool,
        selectors: Sequence[LabelSelector],
        same_label: str,
        soft_target: bytes,
    ) -> bytes:
        """Register a group and place it if there is room; returns its id.

        Raises:
            RaySystemError: the name is taken.
        """
        spec = PlacementGroupSpec(
            os.urandom(UNIQUE_ID_BYTES),
            [bundle.to_units() for bundle in bundles],
            strategy,
            self._peer.job_id,
            self._peer.address,
            b"",
            name,
            namespace,
            detached,
            [selector_to_list(selector) for selector in selectors],
            same_label,
            soft_target,
        )
        row = GroupRow(spec, monotonic())
        with self._peer.lock:
            if name and (namespace, name) in self._names:
                raise RaySystemError(
                    RuntimeError(
                        f"the name {name!r} is taken by a placement group in namespace "
                        f"{namespace!r}: choose another, or remove that group"
                    )
                )
            if name:
                self._names[namespace, name] = spec.group_id
            self._rows[spec.group_id] = row
            self._supply.settle(partial(self._try, row))
            if row.progress == INFEASIBLE:
                self._peer.warn(
                    f"The placement group {spec.group_id.hex()} cannot be placed. "
                    f"{row.reason}"
                )
        return spec.group_id

    def remove(self, group_id: bytes) -> None:
        """End a group and what runs in it; nothing if it has ended already."""
        with self._peer.lock:
            row = self._rows.get(group_id)
            if row is None or row.state == REMOVED:
                return
            was_created, row.state = row.state == CREATED, REMOVED
            row.nodes = [b""] * len(row.bundles)
            self._names.pop((row.spec.namespace, row.spec.name), None)
            if was_created:
                demand = _sum_of(row).to_units()
                gpu_ids = self._gpu_ids.pop(group_id)
                self._supply.give(demand, gpu_ids, for_long=True)
            self._supply.try_waiting()
        self.on_removed(group_id)

    def find(self, name: str, namespace: str) -> bytes | None:
        """The id of a named group; None if there is none."""
        return self._names.get((namespace, name))

    def table(self, group_id: bytes = b"") -> dict[str, dict[str, Any]]:
        """Facts about one group, or all, by hexadecimal id."""
        with self._peer.lock:
            rows = [
                row
                for key, row in self._rows.items()
                if not group_id or key == group_id
            ]
            return {row.spec.group_id.hex(): describe(row) for row in rows}

    def wait(self, group_id: bytes, timeout: float | None) -> bool:
        """Block until a group is created (True) or removed, or time is up (False)."""
        self._peer.wait_until(
            lambda: self.state_of(group_id) != PENDING, deadline_of(timeout)
        )
        return self.state_of(group_id) == CREATED

    def ready(self, group_id: bytes, value: object) -> ObjectRef[Any]:
        """A ref that resolves to ``value`` once the group is created."""
        packed, _held = pack(value, "ready")
        object_id = self._peer.next_task_id() + FIRST_RETURN
        with self._peer.lock:
            entry = self._peer.refs.own(object_id, _Promise(group_id))
            self._supply.settle(partial(self._fulfil, group_id, entry, packed))
        return counted_ref(object_id, self._peer.address)

    # -- what runs in groups -------------------------------------------------------

    def state_of(self, group_id: bytes) -> str:
        """PENDING, CREATED or REMOVED; an unknown group counts as removed."""
        row = self._rows.get(group_id)
        return REMOVED if row is None else row.state

    def gpu_ids_of(self, group_id: bytes, demand: dict[str, int]) -> list[int]:
        """GPUs for something that runs in a group (under the lock)."""
        count = round(ResourceSet.from_units(demand).amount_of("GPU"))
        return self._gpu_ids.get(group_id, [])[:count]

    # -- placing -------------------------------------------------------------------

    def _try(self, row: GroupRow) -> bool:
        """Place a group if there is room (under the lock); True when it is settled."""
        if row.state == REMOVED:
            return True
        row.attempt += 1
        choice = choose_nodes(row, row.missing, [self._supply.view()])
        if choice.verdict is not Verdict.NOW:
            row.progress = INFEASIBLE if choice.verdict is Verdict.NEVER else NO_ROOM
            row.reason = choice.reason
            return False
        row.nodes = list(choice.node_ids)
        row.state, row.progress, row.reason = CREATED, FINISHED, ""
        row.created_after = row.placed_after = monotonic() - row.made_at
        self._gpu_ids[row.spec.group_id] = self._supply.take(
            _sum_of(row).to_units(), for_long=True
        )
        return True

    def _fulfil(self, group_id: bytes, entry: Entry, value: Value) -> bool:
        """Complete a ``ready()`` object if that can be said; True when it was."""
        state = self.state_of(group_id)
        if state == PENDING:
            return False
        entry.record = None
        if state == REMOVED:
            value = failure_value(removed(group_id), "ready")
        self._peer.refs.complete(entry, value)
        return True


class _Promise:
    """Stands for the call that makes a ``ready()`` object; there is none."""

    is_lazy = False
    actor = None

    def __init__(self, group_id: bytes) -> None:
        self._group_id = group_id

    def help_along(self, deadline: float | None) -> None:
        """Nothing can be run to have it sooner."""

    def explain(self) -> str:
        """What it waits for, for people."""
        return f"placement group {self._group_id.hex()} has not been placed yet."


def removed(group_id: bytes) -> TaskPlacementGroupRemoved:
    """The error of what was to run in a group that is gone."""
    return TaskPlacementGroupRemoved(
        f"The placement group {group_id.hex()} has been removed."
    )


def _sum_of(row: GroupRow) -> ResourceSet:
    total = NO_RESOURCES
    for bundle in row.bundles:
        total = total.add(bundle)
    return total


def _ignore(_: object) -> None:
    return None
