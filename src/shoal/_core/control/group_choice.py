"""Nodes for the bundles of a group that have none, given where its others are.

``policy.bundle_packing`` packs bundles on nodes; here is what a group adds to that:
strategies hold between new and old bundles, and all may have to agree in a label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from shoal._core.base.resources import NO_RESOURCES, ResourceSet
from shoal._core.control.group_rows import GroupRow
from shoal._core.policy.bundle_packing import BundlePlacement, Strategy, place_bundles
from shoal._core.policy.placement import NodeView, Verdict


def choose_nodes(
    row: GroupRow, missing: Sequence[int], nodes: Sequence[NodeView]
) -> BundlePlacement:
    """Nodes for the missing bundles, given where the others are."""
    spec = row.spec
    used = dict.fromkeys(filter(None, row.nodes))
    if spec.strategy == "STRICT_SPREAD":
        nodes = [node for node in nodes if node.node_id not in used]
    elif spec.strategy == "STRICT_PACK" and used:
        nodes = [node for node in nodes if node.node_id in used]
    bundles = [row.bundles[index] for index in missing]
    lacks = f"No node has the label {spec.same_label!r}."
    choice = BundlePlacement(Verdict.NEVER, reason=lacks)
    for candidates in _domains(spec.same_label, nodes, used):
        found = place_bundles(
            bundles,
            cast(Strategy, spec.strategy),
            candidates,
            selectors=[row.selectors[i] for i in missing if row.selectors],
            soft_target=spec.soft_target or None,
        )
        if found.verdict is Verdict.NOW:
            return found
        if choice.verdict is Verdict.NEVER:
            choice = found
    return choice


def may_fit(row: GroupRow, nodes: Sequence[NodeView]) -> bool:
    """Whether the sum of what is free could do: spares most searches."""
    free: dict[str, int] = {}
    for node in nodes:
        for name, units in node.available.items():
            free[name] = free.get(name, 0) + units
    needed = NO_RESOURCES
    for index in row.missing:
        needed = needed.add(row.bundles[index])
    return all(units <= free.get(name, 0) for name, units in needed.items())


def without_bundle(node: NodeView, bundle: ResourceSet) -> NodeView:
    """The node with a bundle less free (with nothing free if it has less than that)."""
    fits = bundle.fits_in(node.available)
    left = node.available.subtract(bundle) if fits else NO_RESOURCES
    return NodeView(node.node_id, node.total, left, node.labels, node.is_local)


def _domains(
    label: str, nodes: Sequence[NodeView], used: Mapping[bytes, None]
) -> list[Sequence[NodeView]]:
    """The sets of nodes a group may lie in: all, or those that agree in a label.

    If some of its bundles have nodes already, only the set these are in.
    """
    if not label:
        return [nodes]
    by_value: dict[str, list[NodeView]] = {}
    for node in nodes:
        value = node.labels.get(label)
        if value is not None:
            by_value.setdefault(value, []).append(node)
    domains = [by_value[value] for value in sorted(by_value)]
    held = [
        domain for domain in domains if any(node.node_id in used for node in domain)
    ]
    return list(held or domains)
