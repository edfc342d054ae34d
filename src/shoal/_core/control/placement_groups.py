"""Placement groups of the cluster: names, placement in two phases, rescheduling, end.

::

    PENDING --all prepared--> PREPARED --all committed--> CREATED
       |                         |                          |
       |                         +--- a node died ----+     | a node died
       |                                              v     v
       |                       all committed <--- RESCHEDULING
       |                                              |
       +--------------- removed, its job ended -------+--> REMOVED

A try (*attempt*) to place a group chooses a node for each bundle that has none
(``policy.bundle_packing``), asks those nodes to prepare, and when all have, to commit.
If one cannot, the others give back what they prepared and the group waits until there
is room.  A group that no room would help waits for nodes to join.

Groups are tried in the order in which they were made, and each takes what fits: a
small one may overtake a large one.

Invariants, asserted by :meth:`ControlGroups.check`: a name belongs to one group that is
not removed; a created group has a node for every bundle; answers are awaited only from
nodes of the attempt under way.

What it does not do: hold resources (``node/bundles.py``), or place tasks.

Source: Ray documentation, "Placement Groups" (lifetimes, fault tolerance), for what
users see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from shoal._core.control.group_choice import choose_nodes, may_fit, without_bundle
from shoal._core.control.group_rows import (
    FINISHED,
    INFEASIBLE,
    NO_ROOM,
    NOTHING,
    QUEUED,
    STARTED,
    TO_COMMIT,
    TO_PREPARE,
    GroupRow,
    describe,
)
from shoal._core.policy.placement import NodeView, Verdict
from shoal._core.wire.group_messages import (
    CREATED,
    PENDING,
    PREPARED,
    REMOVED,
    RESCHEDULING,
    AwaitPlacementGroup,
    BundlesCommitted,
    BundlesPrepared,
    CommitBundles,
    CreatePlacementGroup,
    EndBundles,
    ListPlacementGroups,
    LookupPlacementGroup,
    PrepareBundles,
    RemovePlacementGroup,
    ReturnBundles,
)
from shoal._core.wire.node_messages import DemandInfeasible, NodeReply

#: Removed groups kept for people to look at; the oldest go first.
REMOVED_KEPT_MAX = 1000


class GroupPort(Protocol):
    """What the table asks of its surroundings."""

    def send(self, client: bytes, message: object) -> None:
        """Send to a process."""

    def send_to_node(self, node_id: bytes, message: object) -> None:
        """Send to a node, in order; its answer comes after this call has returned."""

    def nodes(self) -> Sequence[NodeView]:
        """Every node that is alive, and what of it is free."""

    def now(self) -> float:
        """Monotonic seconds."""


class ControlGroups:
    """The table of placement groups and their names."""

    def __init__(self, port: GroupPort) -> None:
        self._port = port
        self.rows: dict[bytes, GroupRow] = {}
        self._names: dict[tuple[str, str], bytes] = {}
        #: groups with bundles to place, in the order they were made
        self._unplaced: dict[bytes, GroupRow] = {}
        self._removed: dict[bytes, None] = {}
        self._requests: dict[type, Callable[[bytes, Any], None]] = {
            CreatePlacementGroup: self._on_create,
            RemovePlacementGroup: self._on_remove,
            AwaitPlacementGroup: self._on_await,
            LookupPlacementGroup: self._on_lookup,
            ListPlacementGroups: self._on_list,
        }

    # -- requests of processes -----------------------------------------------------

    def on_request(self, client: bytes, message: object) -> bool:
        """A process's message; False when it is not about placement groups."""
        handler = self._requests.get(type(message))
        if handler is None:
            return False
        handler(client, message)
        return True

    def _on_create(self, client: bytes, message: CreatePlacementGroup) -> None:
        spec = message.spec
        key = (spec.namespace, spec.name)
        if spec.name and key in self._names:
            refusal = (
                f"The name '{spec.name}' is taken by a placement group in namespace "
                f"'{spec.namespace}'. Choose another, or remove that group first."
            )
            self._port.send(client, NodeReply(message.request, refusal))
            return
        row = self.rows[spec.group_id] = GroupRow(spec, self._port.now())
        if spec.name:
            self._names[key] = spec.group_id
        self._unplaced[spec.group_id] = row
        if message.request:
            self._port.send(client, NodeReply(message.request, ""))
        self._try(row, self._nodes())

    def _on_remove(self, client: bytes, message: RemovePlacementGroup) -> None:
        self._end(self.rows.get(message.group_id))
        self._port.send(client, NodeReply(message.request, None))

    def _on_await(self, client: bytes, message: AwaitPlacementGroup) -> None:
        row = self.rows.get(message.group_id)
        state = REMOVED if row is None else row.state
        if row is not None and state not in (CREATED, REMOVED):
            row.waiters.append((client, message.request))
        else:
            self._port.send(client, NodeReply(message.request, state))

    def _on_lookup(self, client: bytes, message: LookupPlacementGroup) -> None:
        group_id = self._names.get((message.namespace, message.name))
        self._port.send(client, NodeReply(message.request, group_id))

    def _on_list(self, client: bytes, message: ListPlacementGroups) -> None:
        wanted = message.group_id
        rows = self.rows
        if wanted:
            rows = {wanted: rows[wanted]} if wanted in rows else {}
        facts = {group_id.hex(): describe(row) for group_id, row in rows.items()}
        self._port.send(client, NodeReply(message.request, facts))

    # -- placing -------------------------------------------------------------------

    def on_room(self) -> bool:
        """Resources became free; True if groups wait for more of them."""
        if not self._unplaced:
            return False
        for row in list(self._unplaced.values()):
            if row.asked or row.progress == INFEASIBLE:
                continue
            nodes = self._nodes()
            if row.progress != NO_ROOM or may_fit(row, nodes):
                self._try(row, nodes)
        return any(
            not row.asked and row.progress != INFEASIBLE
            for row in self._unplaced.values()
        )

    def on_node_joined(self) -> None:
        """There is a new node: also what seemed hopeless is tried again."""
        for row in list(self._unplaced.values()):
            if not row.asked:
                self._try(row, self._nodes())

    def _nodes(self) -> list[NodeView]:
        """The nodes, less what they are asked to prepare and have not answered for."""
        nodes = {node.node_id: node for node in self._port.nodes()}
        for row in self._unplaced.values():
            for index, node_id in row.target.items():
                node = nodes.get(node_id)
                if node is not None and node_id in row.awaited:
                    nodes[node_id] = without_bundle(node, row.bundles[index])
        return list(nodes.values())

    def _try(self, row: GroupRow, nodes: Sequence[NodeView]) -> None:
        """Choose nodes for the bundles that have none, and ask them to prepare."""
        missing = row.missing
        was_infeasible = row.progress == INFEASIBLE
        placement = choose_nodes(row, missing, nodes)
        row.reason = placement.reason
        if placement.verdict is not Verdict.NOW:
            is_hopeless = placement.verdict is Verdict.NEVER
            row.progress = INFEASIBLE if is_hopeless else NO_ROOM
            if is_hopeless and not was_infeasible:
                self._tell_owner(row)
            return
        row.attempt += 1
        row.attempt_began = self._port.now()
        row.progress = STARTED
        row.asked = TO_PREPARE
        row.has_failed = False
        row.target = dict(zip(missing, placement.node_ids, strict=True))
        row.awaited = dict.fromkeys(placement.node_ids)
        for node_id in row.awaited:
            bundles = [
                (index, row.spec.bundles[index])
                for index, chosen in row.target.items()
                if chosen == node_id
            ]
            self._port.send_to_node(
                node_id, PrepareBundles(row.spec.group_id, row.attempt, bundles)
            )

    def _tell_owner(self, row: GroupRow) -> None:
        """Nobody sees a group that waits for ever, so say so."""
        text = (
            f"The placement group {row.spec.name or row.spec.group_id.hex()} cannot be "
            f"placed. {row.reason} It waits until a node with that joins."
        )
        owner = bytes.fromhex(row.spec.owner)
        self._port.send(owner, DemandInfeasible(0, text))

    # -- answers of nodes ------------------------------------------------------------

    def on_prepared(self, node_id: bytes, message: BundlesPrepared) -> None:
        """A node took the resources aside, or could not."""
        row = self._row_of(message.group_id, message.attempt)
        if row is None or node_id not in row.awaited or row.asked != TO_PREPARE:
            # The attempt is over, and the node was told so behind this question.
            return
        del row.awaited[node_id]
        if not message.ok:
            row.has_failed = True
            for index in [i for i, chosen in row.target.items() if chosen == node_id]:
                del row.target[index]
        if not row.awaited:
            self._decide(row)

    def _decide(self, row: GroupRow) -> None:
        """Every node has answered: commit, or give back."""
        nodes = dict.fromkeys(row.target.values())
        if row.has_failed:
            for node_id in nodes:
                self._return(node_id, row.spec.group_id, row.attempt)
            row.target = {}
            row.asked = NOTHING
            row.progress = NO_ROOM
            return
        for index, node_id in row.target.items():
            row.nodes[index] = node_id
        if row.state == PENDING:
            row.state = PREPARED
        row.target = {}
        row.awaited = nodes
        row.asked = TO_COMMIT
        for node_id in nodes:
            self._port.send_to_node(
                node_id, CommitBundles(row.spec.group_id, row.attempt)
            )

    def on_committed(self, node_id: bytes, message: BundlesCommitted) -> None:
        """A node lets tasks into its bundles."""
        row = self._row_of(message.group_id, message.attempt)
        if row is None or node_id not in row.awaited or row.asked != TO_COMMIT:
            return
        del row.awaited[node_id]
        if not row.awaited:
            self._became_whole(row)

    def _became_whole(self, row: GroupRow) -> None:
        """No answer is awaited any more: created, or short of a node that died."""
        row.asked = NOTHING
        if row.missing:
            row.progress = QUEUED
            self._try(row, self._nodes())
            return
        now = self._port.now()
        row.state = CREATED
        row.progress = FINISHED
        row.reason = ""
        row.created_after = now - row.made_at
        row.placed_after = now - row.attempt_began
        self._unplaced.pop(row.spec.group_id, None)
        self._answer_waiters(row)

    def on_node_gone(self, node_id: bytes) -> None:
        """A node died: its bundles are placed again."""
        for row in list(self.rows.values()):
            if row.state == REMOVED:
                continue
            lost = [i for i, chosen in enumerate(row.nodes) if chosen == node_id]
            for index in lost:
                row.nodes[index] = b""
            if lost:
                row.state = RESCHEDULING
                self._unplaced.setdefault(row.spec.group_id, row)
            if node_id in row.target.values():
                self._abandon(row, node_id)
            elif lost and row.asked != TO_PREPARE:
                row.awaited.pop(node_id, None)
                if not row.awaited:
                    self._became_whole(row)

    def _abandon(self, row: GroupRow, node_id: bytes) -> None:
        """A node of the attempt died while others prepare: start over."""
        for other in dict.fromkeys(row.target.values()):
            if other != node_id:
                self._return(other, row.spec.group_id, row.attempt)
        row.target = {}
        row.awaited = {}
        row.asked = NOTHING
        self._try(row, self._nodes())

    def _row_of(self, group_id: bytes, attempt: int) -> GroupRow | None:
        row = self.rows.get(group_id)
        return row if row is not None and row.attempt == attempt else None

    def _return(self, node_id: bytes, group_id: bytes, attempt: int) -> None:
        self._port.send_to_node(node_id, ReturnBundles(group_id, attempt))

    # -- ends ------------------------------------------------------------------------

    def is_gone(self, group_id: bytes) -> bool:
        """Whether a group is removed, or was never made."""
        row = self.rows.get(group_id)
        return row is None or row.state == REMOVED

    def on_job_over(self, job_id: bytes) -> None:
        """A job ended: its groups end, but for those a living actor made."""
        for row in list(self.rows.values()):
            if row.spec.job_id == job_id:
                row.is_job_over = True
                self._end_if_abandoned(row)

    def on_actor_over(self, actor_id: bytes) -> None:
        """An actor died for good: its groups end if its job is over, too."""
        for row in list(self.rows.values()):
            if row.spec.creator_actor == actor_id:
                row.is_actor_over = True
                self._end_if_abandoned(row)

    def _end_if_abandoned(self, row: GroupRow) -> None:
        if row.is_job_over and row.is_actor_over and not row.spec.detached:
            self._end(row)

    def on_client_gone(self, client: bytes) -> None:
        """A process ended: it waits for nothing any more."""
        for row in self._unplaced.values():
            row.waiters = [one for one in row.waiters if one[0] != client]

    def _end(self, row: GroupRow | None) -> None:
        if row is None or row.state == REMOVED:
            return
        spec = row.spec
        row.state = REMOVED
        row.progress = REMOVED
        row.reason = ""
        row.awaited = {}
        row.target = {}
        row.asked = NOTHING
        if spec.name:
            del self._names[spec.namespace, spec.name]
        self._unplaced.pop(spec.group_id, None)
        self._removed[spec.group_id] = None
        if len(self._removed) > REMOVED_KEPT_MAX:
            oldest = next(iter(self._removed))
            del self._removed[oldest], self.rows[oldest]
        # Also nodes without bundles: requests may wait there for the group.
        for node in self._port.nodes():
            self._port.send_to_node(node.node_id, EndBundles(spec.group_id))
        self._answer_waiters(row)

    def _answer_waiters(self, row: GroupRow) -> None:
        waiters, row.waiters = row.waiters, []
        for client, request in waiters:
            self._port.send(client, NodeReply(request, row.state))

    # -- views -----------------------------------------------------------------------

    def check(self) -> None:
        """Assert what must always hold."""
        for (namespace, name), group_id in self._names.items():
            row = self.rows[group_id]
            assert (row.spec.namespace, row.spec.name) == (namespace, name)
            assert row.state != REMOVED, name
        for group_id, row in self.rows.items():
            if row.state == CREATED:
                assert not row.missing
                assert not row.asked
            assert bool(row.asked) == bool(row.awaited), (row.asked, row.awaited)
            assert bool(row.target) <= (row.asked == TO_PREPARE), row.asked
            assert (group_id in self._unplaced) == (
                row.state not in (CREATED, REMOVED)
            ), row.state
            assert row.state not in (CREATED, REMOVED) or not row.waiters
