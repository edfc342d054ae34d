"""What is said about placement groups: by processes to the control store, and by the
control store to the nodes that hold the bundles.

A group is reserved in two phases, so that it has all its bundles or none.  The control
store asks each node chosen to *prepare* its bundles (take their resources aside) and,
when all have, to *commit* them (let tasks in).  Every try carries a new ``attempt``, so
that answers to an older one are told apart.  Requests carry ``request``, a number the
asker chose; the answer is a ``NodeReply`` with it.  Resource amounts are in units of
1/10000.
"""

from __future__ import annotations

from typing import Any

from shoal._core.wire.worker_messages import Message

#: Life of a group (control/placement_groups.py draws the table).
PENDING, PREPARED, CREATED = "PENDING", "PREPARED", "CREATED"
RESCHEDULING, REMOVED = "RESCHEDULING", "REMOVED"


class PlacementGroupSpec(Message, tag=300):
    """Everything needed to place a group, and to know when it ends."""

    group_id: bytes
    bundles: list[dict[str, int]]
    strategy: str
    job_id: bytes
    #: the process told when the group can never be placed
    owner: str
    #: the actor that made it; empty: a driver or a task
    creator_actor: bytes = b""
    name: str = ""
    namespace: str = ""
    detached: bool = False
    #: a label selector for each bundle, as lists; empty: any node
    selectors: list[list[Any]] = []
    #: all bundles on nodes that agree in this label; empty: not asked
    same_label: str = ""
    #: a node to prefer for STRICT_PACK; empty: none
    soft_target: bytes = b""


class CreatePlacementGroup(Message, tag=301):
    """Register a group and place it; the answer is "", or why it was refused.

    Request 0 is not answered.
    """

    request: int
    spec: PlacementGroupSpec


class RemovePlacementGroup(Message, tag=302):
    """End a group and what runs in it; answered with None."""

    request: int
    group_id: bytes


class AwaitPlacementGroup(Message, tag=303):
    """Answer with the group's state once it is CREATED or REMOVED."""

    request: int
    group_id: bytes


class LookupPlacementGroup(Message, tag=304):
    """Find a named group; the answer is its id, or None."""

    request: int
    name: str
    namespace: str


class ListPlacementGroups(Message, tag=305):
    """Describe one group (or all, with an empty id): hexadecimal id to facts."""

    request: int
    group_id: bytes = b""


class PrepareBundles(Message, tag=311):
    """Control store to node: take the resources of these bundles aside."""

    group_id: bytes
    attempt: int
    bundles: list[tuple[int, dict[str, int]]]


class BundlesPrepared(Message, tag=312):
    """Node to control store: all are taken aside, or none (not ``ok``)."""

    group_id: bytes
    attempt: int
    ok: bool


class CommitBundles(Message, tag=313):
    """Control store to node: tasks may run in the bundles prepared."""

    group_id: bytes
    attempt: int


class BundlesCommitted(Message, tag=314):
    """Node to control store: they may."""

    group_id: bytes
    attempt: int


class ReturnBundles(Message, tag=315):
    """Control store to node: the attempt has failed, give its resources back."""

    group_id: bytes
    attempt: int


class EndBundles(Message, tag=316):
    """Control store to node: the group is removed; end what runs or waits for it."""

    group_id: bytes


#: From processes to the control store.
GROUP_REQUESTS = (
    CreatePlacementGroup
    | RemovePlacementGroup
    | AwaitPlacementGroup
    | LookupPlacementGroup
    | ListPlacementGroups
)
#: Between the control store and nodes.
BUNDLE_MESSAGES = (
    PrepareBundles
    | BundlesPrepared
    | CommitBundles
    | BundlesCommitted
    | ReturnBundles
    | EndBundles
)
