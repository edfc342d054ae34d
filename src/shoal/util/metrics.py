"""Counters, gauges and histograms that user code records.

Theory: a metric object is a validating handle; the numbers live in the
process's `Registry` (`metrics_registry`). A metric pickled into a task is the
same metric there, recording into the registry of that process. Snapshots of
the registries of all processes are put together when somebody asks.

    metric.inc / set / observe ──> DEFAULT_REGISTRY ──snapshot──> export_text, serve

Names and validation follow Ray's documentation of application-level metrics: a
metric with an unusable name warns and is discarded rather than failing the
program that it was meant to watch.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, TypeVar

from shoal.util.metrics_export import export_text, serve
from shoal.util.metrics_registry import (
    DEFAULT_REGISTRY,
    MetricFamily,
    ProcessSnapshot,
    Registry,
    Series,
)

__all__ = [
    "DEFAULT_REGISTRY",
    "Counter",
    "Gauge",
    "Histogram",
    "Metric",
    "MetricFamily",
    "ProcessSnapshot",
    "Registry",
    "Series",
    "export_text",
    "serve",
]

_USABLE_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")

_MetricT = TypeVar("_MetricT", bound="Metric")


class Metric:
    """What counters, gauges and histograms have in common. Not used itself.

    Args:
        name: letters, digits and underscores, not starting with a digit. With any
            other name there is a UserWarning and nothing is recorded.
        description: one line for people.
        tag_keys: names of the tags that every recording must give a value for.

    Raises:
        ValueError: the name is empty.
        TypeError: an argument has the wrong type.
    """

    _kind = ""

    def __init__(
        self,
        name: str,
        description: str = "",
        tag_keys: tuple[str, ...] | None = None,
    ) -> None:
        _check_name(name)
        if tag_keys is not None and not isinstance(tag_keys, tuple):
            raise TypeError(
                f"tag_keys must be a tuple of str, got {type(tag_keys).__name__}"
            )
        for key in tag_keys or ():
            if not isinstance(key, str):
                raise TypeError(f"Tag keys must be str, got {type(key).__name__}.")
        self._name = name
        self._description = description
        self._tag_keys = tag_keys or ()
        self._default_tags: dict[str, str] = {}
        self._is_recorded = _is_usable(name) and self._declare()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        # This process's registry may not have met the metric yet.
        self._is_recorded = self._is_recorded and self._declare()

    @property
    def info(self) -> dict[str, Any]:
        """Name, description, tag keys and default tags of this metric."""
        return {
            "name": self._name,
            "description": self._description,
            "tag_keys": self._tag_keys,
            "default_tags": self._default_tags,
        }

    def set_default_tags(self: _MetricT, default_tags: Mapping[str, str]) -> _MetricT:
        """Give tags the values they have unless a recording says otherwise.

        Args:
            default_tags: values by tag key. They take the place of earlier ones.

        Returns:
            This metric.

        Raises:
            ValueError: a key is not one of `tag_keys`.
            TypeError: a value is not a str.
        """
        for key, value in default_tags.items():
            if key not in self._tag_keys:
                raise ValueError(
                    f"Unrecognized tag key {key}: {self._name} has {self._tag_keys}"
                )
            _check_tag_value(value)
        self._default_tags = dict(default_tags)
        return self

    def _declare(self) -> bool:
        is_declared = DEFAULT_REGISTRY.declare(
            self._name, self._kind, self._description, self._bucket_boundaries()
        )
        if not is_declared:
            warnings.warn(
                f"There is a metric {self._name} of another kind or with other "
                "boundaries already; this one is discarded. Use a name of its own",
                UserWarning,
                stacklevel=4,
            )
        return is_declared

    def _bucket_boundaries(self) -> tuple[float, ...]:
        return ()

    def _labels(self, tags: Mapping[str, str] | None) -> dict[str, str]:
        """The tags of one recording, defaults included.

        Tags beyond the declared ones are accepted and become labels as well.
        """
        for value in (tags or {}).values():
            _check_tag_value(value)
        labels = {**self._default_tags, **(tags or {})}
        missing = [key for key in self._tag_keys if key not in labels]
        if missing:
            raise ValueError(f"Missing value for tag key(s): {','.join(missing)}.")
        return labels


class Counter(Metric):
    """A number that only grows, such as requests served.

    Exported as `<prefix><name>_total`. Arguments as for `Metric`.
    """

    _kind = "counter"

    def inc(self, value: float = 1.0, tags: Mapping[str, str] | None = None) -> None:
        """Add `value`.

        Raises:
            ValueError: value is not positive, or a declared tag has no value.
            TypeError: value is not a number, or a tag value not a str.
        """
        _check_number(value)
        if not value > 0:
            raise ValueError(f"value must be >0, got {value}")
        labels = self._labels(tags)
        if self._is_recorded:
            DEFAULT_REGISTRY.add(self._name, labels, float(value))


class Gauge(Metric):
    """A number that goes up and down, such as a queue's length.

    Arguments as for `Metric`.
    """

    _kind = "gauge"

    def set(self, value: float | None, tags: Mapping[str, str] | None = None) -> None:
        """Make `value` the current one; None changes nothing.

        Raises:
            ValueError: a declared tag has no value.
            TypeError: value is not a number, or a tag value not a str.
        """
        if value is None:
            return
        _check_number(value)
        labels = self._labels(tags)
        if self._is_recorded:
            DEFAULT_REGISTRY.set(self._name, labels, float(value))


class Histogram(Metric):
    """How often values fell into each of several ranges, such as latencies.

    Args:
        name: as for `Metric`.
        description: as for `Metric`.
        boundaries: upper ends of the ranges, positive; the last range has none.
        tag_keys: as for `Metric`.

    Raises:
        ValueError: there are no boundaries, or one is not positive.
    """

    _kind = "histogram"

    def __init__(
        self,
        name: str,
        description: str = "",
        boundaries: Sequence[float] | None = None,
        tag_keys: tuple[str, ...] | None = None,
    ) -> None:
        _check_name(name)
        if not boundaries:
            raise ValueError(
                "A Histogram needs boundaries, the upper ends of its ranges: for "
                f'example Histogram("{name}", boundaries=[0.1, 1, 10])'
            )
        for index, boundary in enumerate(boundaries):
            if boundary <= 0:
                raise ValueError(
                    f"Invalid boundaries {boundaries}: the one at index {index} is "
                    f"{boundary}, and they must be positive"
                )
        self.boundaries = boundaries
        super().__init__(name, description, tag_keys)

    @property
    def info(self) -> dict[str, Any]:
        """As for other metrics, with the boundaries."""
        return {**super().info, "boundaries": self.boundaries}

    def observe(self, value: float, tags: Mapping[str, str] | None = None) -> None:
        """Count `value` in the range it falls into.

        Raises:
            ValueError: a declared tag has no value.
            TypeError: value is not a number, or a tag value not a str.
        """
        _check_number(value)
        labels = self._labels(tags)
        if self._is_recorded:
            DEFAULT_REGISTRY.observe(self._name, labels, float(value))

    def _bucket_boundaries(self) -> tuple[float, ...]:
        return tuple(sorted({float(boundary) for boundary in self.boundaries}))


def _check_name(name: str) -> None:
    if not isinstance(name, str):
        raise TypeError(f"A metric's name must be a str, got {type(name).__name__}")
    if not name:
        raise ValueError("Empty name is not allowed. Please provide a metric name.")


def _is_usable(name: str) -> bool:
    if not _USABLE_NAME.fullmatch(name):
        warnings.warn(
            f"Invalid metric name: {name}. Nothing will be recorded for it: use "
            "letters, digits and underscores, and no digit at the start",
            UserWarning,
            stacklevel=4,
        )
        return False
    if ":" in name:
        warnings.warn(
            f"Metric name {name} contains a colon, which Prometheus keeps for "
            "recording rules: use an underscore",
            FutureWarning,
            stacklevel=4,
        )
    return True


def _check_number(value: object) -> None:
    # The two common types first: the check of an abstract type is slower, and is
    # what lets numpy's scalars through.
    if not isinstance(value, (int, float)) and not isinstance(value, Real):
        raise TypeError(f"value must be int or float, got {type(value).__name__}.")


def _check_tag_value(value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"Tag values must be str, got {type(value).__name__}.")
