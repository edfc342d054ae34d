"""What a task, actor or bundle asks of the node it runs on, besides resources.

Made where the user's options are read, carried in messages as plain lists, and obeyed
by ``policy.placement``. A wish never changes and can be a dictionary key, so that
requests with equal wishes can share a queue.

What it does not do: say anything of placement groups; inside one, the bundle decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shoal._core.base.labels import ANY_LABELS, LabelCondition, LabelSelector


@dataclass(frozen=True, slots=True)
class NodeAffinity:
    """The wish for one node."""

    node_id: bytes
    """The node."""
    soft: bool
    """True: elsewhere will do if the node is gone or can never fit the request."""
    spill_if_busy: bool = False
    """True: elsewhere will do also if the node is busy (only when soft)."""
    fail_if_busy: bool = False
    """True: fail instead of waiting for the node (only when not soft)."""


@dataclass(frozen=True, slots=True)
class PlacementWish:
    """All that is asked of the node."""

    spread: bool = False
    """True: take the nodes in turn, instead of filling one before the next."""
    affinity: NodeAffinity | None = None
    """The one node wished for; None: any."""
    alternatives: tuple[LabelSelector, ...] = ()
    """Label selectors in order of preference, one of which must hold; empty: any."""
    preferred: LabelSelector = ANY_LABELS
    """Labels that are better, among the nodes that will do; empty: none."""

    def to_list(self) -> list[Any]:
        """Return the wish as lists, texts and numbers, for a message."""
        affinity = self.affinity
        return [
            self.spread,
            affinity
            and [
                affinity.node_id,
                affinity.soft,
                affinity.spill_if_busy,
                affinity.fail_if_busy,
            ],
            [selector_to_list(selector) for selector in self.alternatives],
            selector_to_list(self.preferred),
        ]

    @classmethod
    def from_list(cls, wish: Sequence[Any]) -> "PlacementWish":
        """Read what :meth:`to_list` wrote."""
        spread, affinity, alternatives, preferred = wish
        return cls(
            spread,
            None if affinity is None else NodeAffinity(*affinity),
            tuple(selector_from_list(selector) for selector in alternatives),
            selector_from_list(preferred),
        )


NO_WISH = PlacementWish()
"""Any node will do."""


def selector_to_list(selector: LabelSelector) -> list[Any]:
    """Return a label selector as lists and texts, for a message."""
    return [
        [name, list(condition.values), condition.negated]
        for name, condition in selector
    ]


def selector_from_list(selector: Sequence[Any]) -> LabelSelector:
    """Read what :func:`selector_to_list` wrote."""
    return tuple(
        (name, LabelCondition(tuple(values), negated))
        for name, values, negated in selector
    )
