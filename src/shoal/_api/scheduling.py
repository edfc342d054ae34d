"""Scheduling strategies: plain values that say where a task or actor should run.

They are given as ``scheduling_strategy=`` to ``@remote`` or ``.options()``, beside the
strings ``"DEFAULT"`` (fill nodes up to half, then spread) and ``"SPREAD"`` (round
robin). Values are checked when they are made, never change, compare and hash by
content, and pickle.

Public path: ``shoal.util.scheduling_strategies``.

:func:`wish_of` turns a strategy and the label options into the form in which they
travel (``base.placement_wish``).

What it does not do: choose the node (``policy.placement`` does), or check that a node
or placement group exists, which only the head knows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from string import hexdigits
from typing import Protocol, TypeAlias, runtime_checkable

from shoal._core.base.identifiers import NodeID
from shoal._core.base.labels import (
    ABSENT,
    ANY_LABELS,
    LabelCondition,
    LabelSelector,
    parse_selector,
)
from shoal._core.base.placement_wish import NodeAffinity, PlacementWish

_PUBLIC_MODULE = "shoal.util.scheduling_strategies"

_NODE_ID_DIGITS = 2 * NodeID.LENGTH
_RAY_NODE_ID_DIGITS = 56

STRATEGY_NAMES = ("DEFAULT", "SPREAD")
"""The strategies that are written as a string."""


@runtime_checkable
class PlacementGroupLike(Protocol):
    """What a strategy needs of a placement group."""

    @property
    def bundle_count(self) -> int:
        """How many bundles it has; 0 for the empty group."""


@dataclass(frozen=True)
class PlacementGroupSchedulingStrategy:
    """Run inside a placement group.

    Args:
        placement_group: the group; None to run outside of any, which matters for a
            task whose parent captures its children.
        placement_group_bundle_index: which bundle to use, counted from 0; -1 for any.
        placement_group_capture_child_tasks: whether tasks and actors that are started
            by this one run in the group too. None: as the one that starts it.

    That the group has such a bundle is checked where the strategy is used.

    Raises:
        TypeError: if an argument is of another type.
    """

    placement_group: PlacementGroupLike | None
    placement_group_bundle_index: int = -1
    placement_group_capture_child_tasks: bool | None = None

    def __post_init__(self) -> None:
        group = self.placement_group
        if group is not None and not isinstance(group, PlacementGroupLike):
            raise TypeError(
                "placement_group must be a PlacementGroup or None, but is "
                f"{group!r} of type {type(group).__name__}."
            )
        index = self.placement_group_bundle_index
        if not isinstance(index, int):
            raise TypeError(
                "placement_group_bundle_index must be an int, but is "
                f"{index!r} of type {type(index).__name__}."
            )
        capture = self.placement_group_capture_child_tasks
        if capture is not None and not isinstance(capture, bool):
            raise TypeError(
                "placement_group_capture_child_tasks must be True, False or None, but "
                f"is {capture!r} of type {type(capture).__name__}."
            )


@dataclass(frozen=True)
class NodeAffinitySchedulingStrategy:
    """Run on one node.

    Args:
        node_id: the node's id in hexadecimal, as ``shoal.nodes()`` shows it.
        soft: if True, run elsewhere when that node is gone or can never fit it; if
            False, fail.
        _spill_on_unavailable: with ``soft=True``, run elsewhere also when the node is
            only busy.
        _fail_on_unavailable: with ``soft=False``, fail also when the node is only busy.

    Raises:
        ValueError: if the id is malformed, or a flag contradicts ``soft``.
    """

    node_id: str
    soft: bool
    _spill_on_unavailable: bool = False
    _fail_on_unavailable: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.node_id, str):
            # Ids have .hex(); what the user writes is normalised to text.
            object.__setattr__(self, "node_id", _hex_of(self.node_id))
        if not _is_node_id(self.node_id):
            raise ValueError(
                f"Invalid node_id {self.node_id!r}: a node id is {_NODE_ID_DIGITS} "
                "hexadecimal digits. shoal.nodes() lists the nodes and their ids."
            )
        if self._spill_on_unavailable and not self.soft:
            raise ValueError(
                "_spill_on_unavailable cannot be set when soft is False: a hard "
                "affinity never runs elsewhere. Set soft=True."
            )
        if self._fail_on_unavailable and self.soft:
            raise ValueError(
                "_fail_on_unavailable cannot be set when soft is True: a soft affinity "
                "runs elsewhere instead of failing. Set soft=False."
            )


class In:
    """The label is one of these values.

    Raises:
        ValueError: if there are none, or one is not a str.
    """

    __slots__ = ("values",)

    values: list[str]
    """The accepted values, in the order given."""

    def __init__(self, *values: str) -> None:
        _check_values(type(self).__name__, values)
        self.values = list(values)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.values == other.values

    def __hash__(self) -> int:
        return hash((type(self).__name__, *self.values))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.values))})"


class NotIn(In):
    """The label is none of these values, or the node lacks it.

    Raises:
        ValueError: if there are none, or one is not a str.
    """

    __slots__ = ()


@dataclass(frozen=True)
class Exists:
    """The node has the label, with any value."""


@dataclass(frozen=True)
class DoesNotExist:
    """The node does not have the label."""


LabelOperator: TypeAlias = In | NotIn | Exists | DoesNotExist
"""What a node-label strategy may ask of one label."""


@dataclass(frozen=True)
class NodeLabelSchedulingStrategy:
    """Run on nodes by their labels.

    Args:
        hard: label name to operator; only nodes that meet all of these are used.
        soft: the same, but only preferred among those that meet ``hard``.

    Raises:
        ValueError: if both are empty, or one is not a dict of str to operators.
    """

    hard: Mapping[str, LabelOperator] | None
    soft: Mapping[str, LabelOperator] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hard", _checked_conditions("hard", self.hard))
        object.__setattr__(self, "soft", _checked_conditions("soft", self.soft))
        if not self.hard and not self.soft:
            raise ValueError(
                "NodeLabelSchedulingStrategy needs at least one condition: `hard` and "
                '`soft` cannot both be empty. Example: {"zone": In("a", "b")}.'
            )

    def __hash__(self) -> int:
        return hash(tuple(map(_frozen_conditions, (self.hard, self.soft))))


SchedulingStrategy: TypeAlias = (
    str
    | PlacementGroupSchedulingStrategy
    | NodeAffinitySchedulingStrategy
    | NodeLabelSchedulingStrategy
)
"""All that ``scheduling_strategy=`` accepts, besides None."""

STRATEGY_TYPES = (
    str,
    PlacementGroupSchedulingStrategy,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
)
"""The same, for isinstance."""


def wish_of(
    strategy: SchedulingStrategy | None,
    label_selector: Mapping[str, str] | None = None,
    fallback_strategy: Sequence[Mapping[str, Mapping[str, str]]] | None = None,
) -> PlacementWish | None:
    """Return what these options ask of the node, None if nothing.

    A placement group is not part of it: there the bundle decides.

    Raises:
        ValueError: if the strategy is an unknown word or a selector is not well formed.
    """
    if isinstance(strategy, str) and strategy not in STRATEGY_NAMES:
        raise ValueError(
            f"scheduling_strategy must be one of {list(STRATEGY_NAMES)}, a strategy "
            f"from {_PUBLIC_MODULE} or None, but is {strategy!r}."
        )
    alternatives = []
    if label_selector or fallback_strategy:
        alternatives.append(parse_selector(label_selector or {}))
    for step in fallback_strategy or ():
        alternatives.append(parse_selector(step.get("label_selector", {})))
    affinity, preferred = None, ANY_LABELS
    if isinstance(strategy, NodeAffinitySchedulingStrategy):
        affinity = NodeAffinity(
            bytes.fromhex(strategy.node_id),
            strategy.soft,
            strategy._spill_on_unavailable,
            strategy._fail_on_unavailable,
        )
    elif isinstance(strategy, NodeLabelSchedulingStrategy):
        hard = _selector_of(strategy.hard)
        alternatives = [hard + other for other in alternatives or [ANY_LABELS]]
        preferred = _selector_of(strategy.soft)
    wish = PlacementWish(strategy == "SPREAD", affinity, tuple(alternatives), preferred)
    return None if wish == PlacementWish() else wish


def _selector_of(conditions: Mapping[str, LabelOperator] | None) -> LabelSelector:
    """Operators as label conditions."""
    selector = []
    for name, operator in (conditions or {}).items():
        if isinstance(operator, In):
            condition = LabelCondition(
                tuple(operator.values), negated=isinstance(operator, NotIn)
            )
        else:
            condition = LabelCondition((ABSENT,), negated=isinstance(operator, Exists))
        selector.append((name, condition))
    return tuple(selector)


def _hex_of(value: object) -> str:
    """The hexadecimal form of an id object; its repr if it has none, to be refused."""
    to_hex = getattr(value, "hex", None)
    return str(to_hex()) if callable(to_hex) else repr(value)


def _is_node_id(text: str) -> bool:
    """Whether this is as many hexadecimal digits as a node id has.

    An id of Ray's length is well formed too: it names a node that isn't here.
    """
    return len(text) in (_NODE_ID_DIGITS, _RAY_NODE_ID_DIGITS) and all(
        digit in hexdigits for digit in text
    )


def _check_values(operator: str, values: tuple[str, ...]) -> None:
    """Refuse an operator without values, or with one that is not text."""
    if not values:
        raise ValueError(f'{operator} needs at least one value: {operator}("value1").')
    for position, value in enumerate(values):
        if not isinstance(value, str):
            raise ValueError(
                f"The values of {operator} must be str, but the one at position "
                f"{position} is {value!r} of type {type(value).__name__}."
            )


def _checked_conditions(
    parameter: str, conditions: Mapping[str, LabelOperator] | None
) -> dict[str, LabelOperator]:
    """A copy of the conditions, after checking them; empty for None."""
    if conditions is None:
        return {}
    if not isinstance(conditions, Mapping):
        raise ValueError(
            f'`{parameter}` must be a dict such as {{"zone": In("a")}}, but is of type '
            f"{type(conditions).__name__}."
        )
    for name, operator in conditions.items():
        if not isinstance(name, str):
            raise ValueError(
                f"The label names of `{parameter}` must be str, but one is {name!r} of "
                f"type {type(name).__name__}."
            )
        if not isinstance(operator, LabelOperator):
            raise ValueError(
                f"Label {name!r} of `{parameter}` must be given In(…), NotIn(…), "
                f"Exists() or DoesNotExist(), but got {operator!r} of type "
                f"{type(operator).__name__}."
            )
    return dict(conditions)


def _frozen_conditions(
    conditions: Mapping[str, LabelOperator] | None,
) -> tuple[tuple[str, LabelOperator], ...]:
    """The conditions in a form that hashes, whatever order they were written in."""
    return tuple(sorted((conditions or {}).items(), key=lambda item: item[0]))


for _public in (
    PlacementGroupSchedulingStrategy,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    In,
    NotIn,
    Exists,
    DoesNotExist,
):
    _public.__module__ = _PUBLIC_MODULE
