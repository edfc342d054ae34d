"""Placement groups: resources reserved together, on one node or on many.

A group is a list of *bundles*.  Each bundle is a set of resources on one node; the
group has all its bundles or none of them, and nothing runs in them but what names the
group (``PlacementGroupSchedulingStrategy``).

What it does not do: choose nodes (``policy.bundle_packing``), or keep the table of
groups (``control.placement_groups``).

Public path: ``shoal.util.placement_group``.

Source: Ray's API reference (``ray.util.placement_group``) and its user guide,
"Placement Groups".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shoal._api.session import Session, current_session, running_session
from shoal._core.base.identifiers import PlacementGroupID
from shoal._core.base.labels import (
    RESERVED_PREFIX,
    LabelSelector,
    check_label_name,
    parse_selector,
)
from shoal._core.base.object_ref import ObjectRef
from shoal._core.base.resources import UNIT_INSTANCE_NAMES, ResourceSet
from shoal._core.process.context import worker_state
from shoal.exceptions import RaySystemError

_PUBLIC_MODULE = "shoal.util.placement_group"

VALID_PLACEMENT_GROUP_STRATEGIES = frozenset(
    {"PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"}
)
"""How the bundles of a group may lie to each other."""

_NODE_LABEL = f"{RESERVED_PREFIX}node-id"
_EXAMPLE = 'such as [{"CPU": 1}, {"GPU": 1, "CPU": 2}]'


class PlacementGroup:
    """The name of a placement group, with what it reserves.

    Made by :func:`placement_group`. Picklable; equal to others by id.

    Args:
        id: the group.
        bundle_cache: the resources of each bundle, None if not known yet.
    """

    __slots__ = ("_bundles", "_resources", "id")

    def __init__(
        self,
        id: PlacementGroupID,
        bundle_cache: Sequence[Mapping[str, float]] | None = None,
    ) -> None:
        self.id = id
        self._bundles: list[dict[str, float]] | None = None
        if bundle_cache is not None:
            self._bundles = [dict(bundle) for bundle in bundle_cache]
        self._resources: list[ResourceSet] | None = None

    @staticmethod
    def empty() -> PlacementGroup:
        """The group that stands for none."""
        return PlacementGroup(PlacementGroupID.nil(), [])

    @property
    def is_empty(self) -> bool:
        """Whether it stands for none."""
        return self.id.is_nil()

    @property
    def bundle_specs(self) -> list[dict[str, float]]:
        """The resources of each bundle: name to quantity, bytes for memory.

        Raises:
            ValueError: this session knows no such group.

        Blocks: for a round trip to the control store, the first time, where the
        process did not make the group or receive it.
        """
        if self._bundles is None:
            row = _table(current_session(), self.id).get(self.id.hex())
            if row is None:
                raise ValueError(
                    f"There is no placement group {self.id.hex()} in this session."
                )
            self._bundles = [row["bundles"][i] for i in range(len(row["bundles"]))]
        return self._bundles

    @property
    def bundle_count(self) -> int:
        """How many bundles it has."""
        return len(self.bundle_specs)

    @property
    def bundle_resources(self) -> list[ResourceSet]:
        """The same as ``bundle_specs``, in the form that requests are compared with."""
        if self._resources is None:
            self._resources = [ResourceSet(bundle) for bundle in self.bundle_specs]
        return self._resources

    def ready(self) -> ObjectRef[PlacementGroup]:
        """A ref that resolves to this group once it is created.

        If the group is removed instead, ``get`` raises TaskPlacementGroupRemoved.
        """
        groups = current_session().native.groups
        ref: ObjectRef[PlacementGroup] = groups.ready(self.id.binary(), self)
        return ref

    def wait(self, timeout_seconds: float | None = 30) -> bool:
        """Wait until the group is created.

        Args:
            timeout_seconds: how long at most; None: without limit.

        Returns:
            Whether it is created; False when time is up, or when it is removed.

        Blocks: yes; a task that waits here lends its CPU out meanwhile.
        """
        groups = current_session().native.groups
        return bool(groups.wait(self.id.binary(), timeout_seconds))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PlacementGroup):
            return NotImplemented
        return self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        bundles = "" if self._bundles is None else f", {self._bundles}"
        return f"PlacementGroup({self.id.hex()}{bundles})"

    def __reduce__(self) -> Any:
        return PlacementGroup, (self.id, self._bundles)


def placement_group(
    bundles: list[dict[str, float]],
    strategy: str | None = None,
    name: str = "",
    lifetime: str | None = None,
    _soft_target_node_id: str | None = None,
    bundle_label_selector: list[dict[str, str]] | None = None,
    topology_strategy: dict[str, str] | None = None,
) -> PlacementGroup:
    """Reserve resources together; returns at once, before they are found.

    Args:
        bundles: the resources of each bundle, name to quantity (bytes for memory).
        strategy: "PACK" on few nodes (the default), "SPREAD" over many, "STRICT_PACK"
            on one node, "STRICT_SPREAD" each on a node of its own.
        name: what :func:`get_placement_group` finds it by in its namespace; "": none.
        lifetime: "detached" to outlive the job that made it; None ends with that job.
        _soft_target_node_id: the node to prefer, in hexadecimal (STRICT_PACK only).
        bundle_label_selector: what each bundle asks of the labels of its node, as in
            the option ``label_selector``; one dict for each bundle.
        topology_strategy: instead of ``strategy``: ``{"ray.io/node-id": strategy}``,
            and one further label with "STRICT_PACK", in which all its nodes agree.

    Raises:
        ValueError: bundles that are empty, no list of dicts or not quantities; an
            unknown strategy or lifetime; selectors that do not match the bundles.
        TypeError: a name that is not text.
        RaySystemError: the name is taken.

    Blocks: for a round trip to the control store. Use ``ready()`` or ``wait()`` to wait
    until it is created.

    Example:
        >>> group = placement_group([{"CPU": 1}, {"CPU": 1}])
        >>> group.wait(10)
        True
    """
    resources = _checked_bundles(bundles)
    chosen, same_label = _checked_topology(strategy, topology_strategy)
    if lifetime not in (None, "detached"):
        raise ValueError(
            f"The lifetime of a placement group is None or 'detached', not "
            f"{lifetime!r}."
        )
    if not isinstance(name, str | None):
        raise TypeError(
            f"The name of a placement group must be a str, but is {name!r} of type "
            f"{type(name).__name__}."
        )
    selectors = _checked_selectors(bundle_label_selector, len(bundles))
    soft_target = _checked_target(_soft_target_node_id, chosen)
    native = current_session().native
    group_id = native.groups.create(
        resources,
        chosen,
        name=name or "",
        namespace=native.namespace,
        detached=lifetime == "detached",
        selectors=selectors,
        same_label=same_label,
        soft_target=soft_target,
    )
    specs = [one.to_floats() for one in resources]
    return PlacementGroup(PlacementGroupID(group_id), specs)


def remove_placement_group(placement_group: PlacementGroup) -> None:
    """Give a group's resources back; what runs in it is ended.

    Its actors die (ActorDiedError), running tasks fail, and what is submitted to it
    from now on raises TaskPlacementGroupRemoved. A group may be removed twice.

    Raises:
        TypeError: it is no placement group.

    Blocks: for a round trip to the control store.
    """
    _check_is_group(placement_group)
    current_session().native.groups.remove(placement_group.id.binary())


def get_placement_group(placement_group_name: str) -> PlacementGroup:
    """Find a group of this namespace by its name.

    Raises:
        ValueError: the name is empty, or no group has it.

    Blocks: for a round trip to the control store.
    """
    if not placement_group_name:
        raise ValueError("get_placement_group needs the name of a placement group.")
    native = current_session().native
    found = native.groups.find(placement_group_name, native.namespace)
    if found is None:
        raise ValueError(
            f"Failed to look up placement group '{placement_group_name}': none of that "
            f"name is in namespace '{native.namespace}'. It may have been removed."
        )
    return PlacementGroup(PlacementGroupID(found))


def get_current_placement_group() -> PlacementGroup | None:
    """The group that the running task or actor is in; None outside of any.

    Example:
        >>> get_current_placement_group() is None
        True
    """
    group_id = worker_state.placement_group
    return PlacementGroup(PlacementGroupID(group_id)) if group_id else None


def placement_group_table(
    placement_group: PlacementGroup | None = None,
) -> dict[str, Any]:
    """Facts about one group, or about all by id: state, bundles and their nodes.

    Args:
        placement_group: the group; None: all, those removed lately included.

    Returns:
        A dict with the keys of Ray's table, and ``reason``: why the group is not placed
        yet. For a group that was never made, an empty dict.

    Raises:
        TypeError: it is no placement group.
        RaySystemError: no session runs.

    Blocks: for a round trip to the control store.
    """
    session = running_session()
    if session is None:
        raise RaySystemError(
            RuntimeError("no session runs, so it has no state: call init() first.")
        )
    if placement_group is None:
        return dict(_table(session, None))
    _check_is_group(placement_group)
    row = _table(session, placement_group.id).get(placement_group.id.hex())
    return dict(row or {})


def check_request_fits(
    group: PlacementGroup,
    index: int,
    request: ResourceSet,
    what: str,
    *,
    creation: bool,
) -> None:
    """Refuse what the group can never hold.

    Args:
        group: the group it is to run in.
        index: which bundle; -1 for any.
        request: what must be free to place it.
        what: the name of the function or class.
        creation: whether the request is more than it will hold (an actor's CPU).

    Raises:
        ValueError: there is no such bundle, or none is as large as the request.
    """
    count = group.bundle_count
    if not -1 <= index < count:
        raise ValueError(
            f"Placement group bundle index {index} is invalid for {what}: the group "
            f"has {count} bundles, so give 0 to {count - 1}, or -1 for any."
        )
    if any(request.fits_in(bundle) for bundle in group.bundle_resources):
        return
    needs = (
        f"the actor needs {request} while it is being placed"
        if creation
        else f"it requires {request}"
    )
    raise ValueError(
        f"Cannot schedule {what} in the placement group: {needs}, which fits into "
        f"none of its bundles, {group.bundle_specs}. Reserve larger bundles, or ask "
        "for less."
    )


def _table(
    session: Session, group: PlacementGroupID | None
) -> Mapping[str, dict[str, Any]]:
    rows: Mapping[str, dict[str, Any]] = session.native.groups.table(
        b"" if group is None else group.binary()
    )
    return rows


def _check_is_group(value: object) -> None:
    if not isinstance(value, PlacementGroup):
        raise TypeError(
            f"Expected a PlacementGroup, but got {value!r} of type "
            f"{type(value).__name__}."
        )


def _checked_bundles(bundles: object) -> list[ResourceSet]:
    """The bundles as resource sets."""
    if not isinstance(bundles, list) or not bundles:
        raise ValueError(
            f"The bundles of a placement group must be a list of at least one dict, "
            f"{_EXAMPLE}, but are {bundles!r}."
        )
    return [_checked_bundle(index, bundle) for index, bundle in enumerate(bundles)]


def _checked_bundle(index: int, bundle: object) -> ResourceSet:
    what = f"Bundle {index} of the placement group"
    if not isinstance(bundle, Mapping) or not all(
        isinstance(name, str)
        and isinstance(amount, int | float)
        and not isinstance(amount, bool)
        for name, amount in bundle.items()
    ):
        raise ValueError(
            f"{what} must be a dict of resource names to numbers, {_EXAMPLE}, but is "
            f"{bundle!r}."
        )
    try:
        resources = ResourceSet(bundle)
    except ValueError as error:
        raise ValueError(f"{what} is not possible. {error}") from None
    for name in UNIT_INSTANCE_NAMES:
        amount = resources.amount_of(name)
        if amount > 1 and amount != int(amount):
            raise ValueError(
                f"{what} has {amount:g} {name}s: above 1 it must be a whole number."
            )
    if not resources:
        raise ValueError(
            f"{what} reserves nothing: {bundle!r}. Give it some resource, {_EXAMPLE}."
        )
    return resources


def _checked_topology(strategy: object, topology: object) -> tuple[str, str]:
    """The strategy between nodes, and the label in which all nodes agree ("": none)."""
    if topology is None:
        return _checked_strategy("PACK" if strategy is None else strategy), ""
    if strategy is not None:
        raise ValueError(
            "Give either strategy or topology_strategy, not both: "
            f'topology_strategy={{"{_NODE_LABEL}": {strategy!r}}} says the same.'
        )
    if not isinstance(topology, Mapping):
        raise ValueError(
            "topology_strategy must be a dict of a label to a strategy, but is "
            f"{topology!r}."
        )
    others = [label for label in topology if label != _NODE_LABEL]
    if len(others) > 1:
        raise ValueError(
            f"topology_strategy has one label at most besides {_NODE_LABEL!r}, but got "
            f"{others}."
        )
    for label in others:
        check_label_name(label)
        if topology[label] != "STRICT_PACK":
            raise ValueError(
                f"The strategy of label {label!r} in topology_strategy must be "
                f"'STRICT_PACK', but is {topology[label]!r}."
            )
    chosen = _checked_strategy(topology.get(_NODE_LABEL, "PACK"))
    return chosen, others[0] if others else ""


def _checked_strategy(strategy: object) -> str:
    if strategy not in VALID_PLACEMENT_GROUP_STRATEGIES:
        raise ValueError(
            f"The strategy of a placement group must be one of "
            f"{sorted(VALID_PLACEMENT_GROUP_STRATEGIES)}, but is {strategy!r}."
        )
    return str(strategy)


def _checked_selectors(selectors: object, count: int) -> list[LabelSelector]:
    if not selectors:
        return []
    if not isinstance(selectors, list) or not all(
        isinstance(selector, Mapping) for selector in selectors
    ):
        raise ValueError(
            "bundle_label_selector must be a list with a dict for each bundle, but is "
            f"{selectors!r}."
        )
    if len(selectors) != count:
        raise ValueError(
            f"bundle_label_selector has {len(selectors)} selectors for {count} "
            "bundles: give one for each, {} where any node will do."
        )
    return [parse_selector(selector) for selector in selectors]


def _checked_target(node_id: str | None, strategy: str) -> bytes:
    if not node_id:
        return b""
    if strategy != "STRICT_PACK":
        raise ValueError(
            "_soft_target_node_id is for strategy='STRICT_PACK' only, but the strategy "
            f"is {strategy!r}."
        )
    try:
        return bytes.fromhex(node_id)
    except ValueError:
        raise ValueError(
            f"_soft_target_node_id must be hexadecimal digits, but is {node_id!r}."
        ) from None


for _public in (
    PlacementGroup,
    placement_group,
    remove_placement_group,
    get_placement_group,
    get_current_placement_group,
    placement_group_table,
):
    _public.__module__ = _PUBLIC_MODULE
