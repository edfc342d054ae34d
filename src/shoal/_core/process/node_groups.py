"""Placement groups where control store and node are one process: what joins the two.

The control table and the node machine exchange the messages they would exchange over a
network, in the same order, through a queue that is emptied at the end of each event.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING

from shoal._core.control.placement_groups import ControlGroups
from shoal._core.policy.placement import NodeView
from shoal._core.wire.group_messages import (
    CommitBundles,
    EndBundles,
    PrepareBundles,
    ReturnBundles,
)

if TYPE_CHECKING:
    from shoal._core.process.node_daemon import NodeDaemon


class LocalGroups:
    """The table of placement groups, and the way to the one node there is."""

    def __init__(self, daemon: NodeDaemon) -> None:
        self._daemon = daemon
        self.table = ControlGroups(self)
        self._to_node: deque[object] = deque()
        self._is_busy = False

    # -- events --------------------------------------------------------------------

    def on_request(self, client: bytes, message: object) -> bool:
        """A process's message; False when it is not about placement groups."""
        if not self.table.on_request(client, message):
            return False
        # A group that was made, or removed, changes what can be granted.
        self._deliver_and_schedule()
        return True

    def offer_room(self) -> bool:
        """Resources may be free: reserve; True if groups wait for more of them."""
        if self._is_busy:
            return False
        waits = self.table.on_room()
        self._deliver()
        return waits

    def on_job_over(self, job_id: bytes) -> None:
        """A driver left: the groups of its job end."""
        self.table.on_job_over(job_id)
        self._deliver_later()

    def on_actor_over(self, actor_id: bytes) -> None:
        """An actor died for good: groups that it made may end."""
        self.table.on_actor_over(actor_id)
        self._deliver_later()

    def _deliver_later(self) -> None:
        """At the end of the turn: what runs now may be in the middle of the node."""
        if self._to_node:
            self._daemon.engine.call_at(monotonic(), self._deliver_and_schedule)

    def _deliver_and_schedule(self) -> None:
        self._deliver()
        self._daemon.machine.schedule()

    def _deliver(self) -> None:
        """Carry messages to and fro until all is said."""
        node_id = self._daemon.node_id
        machine, table = self._daemon.machine, self.table
        self._is_busy = True
        try:
            while self._to_node:
                match self._to_node.popleft():
                    case PrepareBundles() as prepare:
                        table.on_prepared(node_id, machine.on_prepare_bundles(prepare))
                    case CommitBundles() as commit:
                        table.on_committed(node_id, machine.on_commit_bundles(commit))
                    case ReturnBundles() as give_back:
                        machine.on_return_bundles(give_back)
                    case EndBundles() as end:
                        machine.on_end_bundles(end)
        finally:
            self._is_busy = False

    # -- port of the table -----------------------------------------------------------

    def send(self, client: bytes, message: object) -> None:
        """Send to a process of this node."""
        self._daemon.send(client, message)

    def send_to_node(self, _node_id: bytes, message: object) -> None:
        """Queue for the node."""
        self._to_node.append(message)

    def nodes(self) -> Sequence[NodeView]:
        """The node there is."""
        return [self._daemon.machine.destinations.view()]

    def now(self) -> float:
        """Monotonic seconds."""
        return monotonic()
