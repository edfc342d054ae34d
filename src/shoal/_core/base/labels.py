"""Node labels and label selectors: what may be written, and what matches.

A node has labels, text to text ("region": "eu-1"). A selector maps label names to
conditions, and a node matches if it meets every one:

========== ==================================================== ==================
written    means                                                label absent
========== ==================================================== ==================
``v``      the label is ``v``                                   no match
``!v``     the label is not ``v``                               match
``in(a,b)``   the label is one of these                         no match
``!in(a,b)``  the label is none of these                        match
========== ==================================================== ==================

Label names and values follow the Kubernetes convention: 63 characters at most, letters,
digits, ``-``, ``_`` and ``.``, beginning and ending with a letter or digit; a name may
have a domain in front (``example.com/zone``). Values may be empty. Blanks are not
allowed anywhere.

What it does not do: rank nodes (see ``policy``) or know what labels exist.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

RESERVED_PREFIX = "ray.io/"
"""Names with this prefix are set by the system only."""

_PLAIN = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_DOMAIN = r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?"
_NAME = re.compile(rf"(?:{_DOMAIN}/)?{_PLAIN}")
_VALUE = re.compile(rf"(?:{_PLAIN})?")
_CONDITION = re.compile(
    rf"(?P<negated>!)?(?:in\((?P<several>{_PLAIN}(?:,{_PLAIN})*)\)|(?P<one>{_PLAIN}))"
)
_NAMES_RULE = (
    "up to 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or "
    "digit"
)


ABSENT = None
"""Stands for the value of a label that a node does not have."""


@dataclass(frozen=True, slots=True)
class LabelCondition:
    """What a selector asks of one label.

    With ``values=(ABSENT,)`` it asks that the label be absent, or negated, present.
    """

    values: tuple[str | None, ...]
    """The values named, in the order written."""
    negated: bool
    """True if the label must have none of them."""

    def matches(self, value: str | None) -> bool:
        """Return whether a label's value, None if the node lacks it, is accepted."""
        return (value in self.values) is not self.negated

    def __str__(self) -> str:
        texts = ["(absent)" if value is ABSENT else value for value in self.values]
        text = texts[0] if len(texts) == 1 else f"in({','.join(texts)})"
        return f"!{text}" if self.negated else text


LabelSelector = tuple[tuple[str, LabelCondition], ...]
"""Label names with their conditions, in the order written; all must hold."""

ANY_LABELS: LabelSelector = ()
"""The selector that every node meets."""


def parse_condition(name: str, text: str) -> LabelCondition:
    """Read one condition (``v``, ``!v``, ``in(a,b)``, ``!in(a,b)``).

    Raises:
        TypeError: if it is not text.
        ValueError: if it is written otherwise.
    """
    if not isinstance(text, str):
        raise TypeError(
            f"The label selector of {name!r} must be a str such as 'v', '!v' or "
            f"'in(a,b)', but is {text!r} of type {type(text).__name__}."
        )
    if not text:
        return LabelCondition(("",), negated=False)
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise ValueError(
            f"Invalid label selector {text!r} for label {name!r}: write 'v', '!v', "
            f"'in(a,b)' or '!in(a,b)' without blanks, each value being {_NAMES_RULE}."
        )
    several = match["several"]
    values = (match["one"],) if several is None else tuple(several.split(","))
    return LabelCondition(values, negated=match["negated"] is not None)


def parse_selector(selector: Mapping[str, str]) -> LabelSelector:
    """Read a selector as the user writes it.

    Raises:
        TypeError: if a name or condition is not text.
        ValueError: if a name or condition is not well formed.
    """
    for name in selector:
        check_label_name(name)
    return tuple((name, parse_condition(name, text)) for name, text in selector.items())


def matches(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Return whether a node with these labels meets every condition."""
    return all(condition.matches(labels.get(name)) for name, condition in selector)


def describe(selector: LabelSelector) -> str:
    """Return the selector as text, close to how it was written."""
    conditions = [f"{name}: {condition}" for name, condition in selector]
    return f"{{{', '.join(conditions)}}}" if conditions else "any"


def check_label_name(name: str) -> None:
    """Raise TypeError or ValueError unless this is a well-formed label name."""
    if not isinstance(name, str):
        raise TypeError(
            f"A label name must be a str, but is {name!r} of type "
            f"{type(name).__name__}."
        )
    if _NAME.fullmatch(name) is None:
        raise ValueError(
            f"Invalid label name {name!r}: it must be {_NAMES_RULE}, optionally after "
            "a lower-case domain and '/'."
        )


def check_user_labels(labels: Mapping[str, str]) -> None:
    """Check labels that a user gives to a node.

    Raises:
        TypeError: if a name or value is not text.
        ValueError: if one is not well formed, or the name is reserved for the system.
    """
    for name, value in labels.items():
        check_label_name(name)
        if name.startswith(RESERVED_PREFIX):
            raise ValueError(
                f"The label {name!r} can't be set: names beginning with "
                f"{RESERVED_PREFIX!r} are reserved. Use a prefix of your own."
            )
        if not isinstance(value, str):
            raise TypeError(
                f"The value of label {name!r} must be a str, but is {value!r} of type "
                f"{type(value).__name__}."
            )
        if _VALUE.fullmatch(value) is None:
            raise ValueError(
                f"Invalid value {value!r} of label {name!r}: it must be empty or "
                f"{_NAMES_RULE}."
            )
