"""Choosing a node for a request: where now, where later, or why nowhere.

Theory (the default follows what Ray documents as its hybrid policy): fill nodes up to
half, one after the other and beginning with the local one, because data and workers
stay together; once all are half full, take the least used, because then contention
costs more than distance. "Use" of a node is the largest fraction in use among the
resources the request asks for, CPU always among them, counted with the request on it.
Nodes with GPUs come last for requests without, so that they stay free for those with.

The choice is a pure function of what is known of the nodes; ties go to the lowest node
id, so that equal inputs give equal choices.

What it does not do: reserve anything, know about bundles, weigh where the arguments
are (``locality``), or keep the cursor of the round robin (its caller passes the node
chosen last).

Source: Ray documentation, "Scheduling" (scheduling strategies).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from shoal._core.base.labels import ANY_LABELS, LabelSelector, describe, matches
from shoal._core.base.placement_wish import NO_WISH, NodeAffinity, PlacementWish
from shoal._core.base.resources import ResourceSet

PACK_UNTIL = 0.5
"""The use up to which a node is filled before the next is begun."""

_NODES_NAMED_MAX = 5
"""So many nodes are listed in a reason before it just counts the rest."""


@dataclass(slots=True)
class NodeView:
    """What is known of a node that is alive."""

    node_id: bytes
    """Its id."""
    total: ResourceSet
    """All it has."""
    available: ResourceSet
    """What of it is free."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Its labels."""
    is_local: bool = False
    """Whether it is the node that asks."""


class Verdict(Enum):
    """How a request stands."""

    NOW = auto()
    """The node can take it at once."""
    LATER = auto()
    """The node can take it when others have finished."""
    NEVER = auto()
    """No node there is can take it."""


@dataclass(frozen=True, slots=True)
class Placement:
    """The answer for one request."""

    verdict: Verdict
    """How the request stands."""
    node_id: bytes | None = None
    """The node to run or wait at; None if never."""
    reason: str = ""
    """For people: what is asked and what there is; empty if now."""


def choose_node(
    request: ResourceSet,
    nodes: Sequence[NodeView],
    wish: PlacementWish = NO_WISH,
    *,
    last_chosen: bytes = b"",
    pack_until: float = PACK_UNTIL,
) -> Placement:
    """Choose the node for a request.

    Args:
        request: the resources it needs at once on one node.
        nodes: all nodes that are alive, in any order.
        wish: what else it asks for.
        last_chosen: the node that the previous spread request went to.
        pack_until: use up to which nodes are filled, between 0 and 1.

    Returns:
        A node that can take it now; else one that will be able to; else the reason why
        there is none.
    """
    if wish.affinity is not None:
        decided = _decide_affinity(request, nodes, wish.affinity)
        if decided is not None:
            return decided
    waiting = None
    for selector in wish.alternatives or (ANY_LABELS,):
        fitting = [
            node
            for node in nodes
            if request.fits_in(node.total) and matches(selector, node.labels)
        ]
        free = [node for node in fitting if request.fits_in(node.available)]
        if free:
            best = _best(request, free, wish, last_chosen, pack_until)
            return Placement(Verdict.NOW, best.node_id)
        if fitting and waiting is None:
            waiting = _best(request, fitting, wish, last_chosen, pack_until)
    if waiting is not None:
        return Placement(Verdict.LATER, waiting.node_id, _busy(request, waiting))
    return Placement(Verdict.NEVER, reason=why_never(request, nodes, wish.alternatives))


def why_never(
    request: ResourceSet,
    nodes: Sequence[NodeView],
    alternatives: Sequence[LabelSelector] = (),
) -> str:
    """Return, for people, what the request needs and what the nodes have instead."""
    need = f"It needs {request}"
    if alternatives:
        need += f" on a node with labels {' or '.join(map(describe, alternatives))}"
    if not nodes:
        return f"{need}, but no node is alive."
    listed = []
    for node in sorted(nodes, key=_by_id)[:_NODES_NAMED_MAX]:
        has = ", ".join(f"{node.total.amount_of(name):g} {name}" for name in request)
        labels = f" and labels {dict(node.labels)}" if alternatives else ""
        listed.append(f"node {node.node_id.hex()[:8]} has {has or 'that'}{labels}")
    if len(nodes) > _NODES_NAMED_MAX:
        listed.append(f"{len(nodes) - _NODES_NAMED_MAX} more nodes do not fit either")
    return f"{need}, but {'; '.join(listed)}."


def _decide_affinity(
    request: ResourceSet, nodes: Sequence[NodeView], affinity: NodeAffinity
) -> Placement | None:
    """The answer if the wished node decides it; None if any node will do instead."""
    shown = affinity.node_id.hex()[:8]
    node = next((node for node in nodes if node.node_id == affinity.node_id), None)
    if node is None or not request.fits_in(node.total):
        if affinity.soft:
            return None
        if node is None:
            reason = (
                f"It must run on node {shown}, which is dead or unknown. Use soft=True "
                "to let it run elsewhere."
            )
        else:
            reason = f"It must run on node {shown}. {why_never(request, [node])}"
        return Placement(Verdict.NEVER, reason=reason)
    if request.fits_in(node.available):
        return Placement(Verdict.NOW, node.node_id)
    if affinity.spill_if_busy:
        return None
    if affinity.fail_if_busy:
        return Placement(Verdict.NEVER, reason=_busy(request, node))
    return Placement(Verdict.LATER, node.node_id, _busy(request, node))


def _best(
    request: ResourceSet,
    candidates: Sequence[NodeView],
    wish: PlacementWish,
    last_chosen: bytes,
    pack_until: float,
) -> NodeView:
    """The best of several nodes that will do."""
    if wish.preferred:
        preferred = [
            node for node in candidates if matches(wish.preferred, node.labels)
        ]
        candidates = preferred or candidates
    if wish.spread:
        return min(
            candidates, key=lambda node: (node.node_id <= last_chosen, node.node_id)
        )

    def rank(node: NodeView) -> tuple[bool, float, bool, bytes]:
        use = _use_with(request, node)
        wastes_gpus = "GPU" in node.total and "GPU" not in request
        packed = 0.0 if use <= pack_until else use
        return wastes_gpus, packed, not node.is_local, node.node_id

    return min(candidates, key=rank)


def _use_with(request: ResourceSet, node: NodeView) -> float:
    """The largest fraction in use with the request on the node."""
    use = 0.0
    for name in ("CPU", *request):
        total = node.total.units_of(name)
        if total:
            free = node.available.units_of(name) - request.units_of(name)
            use = max(use, (total - free) / total)
    return use


def _busy(request: ResourceSet, node: NodeView) -> str:
    """What a request waits for at a node that is busy."""
    free = ", ".join(f"{node.available.amount_of(name):g} {name}" for name in request)
    return f"It needs {request}; node {node.node_id.hex()[:8]} has {free} free."


def _by_id(node: NodeView) -> bytes:
    return node.node_id
