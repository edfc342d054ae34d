"""Where a process keeps what its metrics recorded, and how that is written out.

Theory: a *family* is a metric name with its kind; a *series* is one combination
of label values in it. A process only ever adds to its own registry and hands
out snapshots, plain data that can be sent elsewhere. An exporter renders any
number of snapshots, each with labels saying which process it is of, as one
text in the Prometheus exposition format.

Invariants: a family has one kind and one set of boundaries; series that end up
with equal labels are merged (counts add up, of gauges the last one stands), so
no line of the text is there twice.

Bounds: a family keeps at most SERIES_COUNT_MAX series; more are dropped, with
one warning, because every value of a careless tag (a user id, a path) makes
another. Nothing is sent or served here: see `metrics_export`.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import re
import threading
import warnings
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

SERIES_COUNT_MAX = 10_000
"""Series of one family that a registry keeps."""

_Labels = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Series:
    """One combination of label values of a metric, and what was recorded."""

    labels: _Labels
    """Pairs of name and value, sorted by name."""

    value: float
    """The count, the current value, or the sum of what was observed."""

    bucket_counts: tuple[int, ...]
    """Observations in each range, the unbounded last one included. Empty unless
    the metric is a histogram."""


@dataclass(slots=True)
class MetricFamily:
    """One metric with all its series at one moment."""

    name: str
    kind: str
    """counter, gauge or histogram."""
    description: str
    boundaries: tuple[float, ...]
    """Upper ends of the ranges of a histogram, ascending; otherwise empty."""
    series: tuple[Series, ...]


@dataclass(slots=True)
class ProcessSnapshot:
    """What one process had recorded, and labels that say which process it is."""

    families: tuple[MetricFamily, ...]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _State:
    value: float
    bucket_counts: list[int]


@dataclass(slots=True)
class _Family:
    kind: str
    description: str
    boundaries: tuple[float, ...]
    states: dict[_Labels, _State] = field(default_factory=dict)
    is_full: bool = False


class Registry:
    """The metrics of one process. Thread-safe."""

    def __init__(self) -> None:
        self._families: dict[str, _Family] = {}
        # Reentrant: a destructor may count, and may run in the middle of counting.
        self._lock = threading.RLock()

    def declare(
        self, name: str, kind: str, description: str, boundaries: tuple[float, ...]
    ) -> bool:
        """Make room for a metric.

        Returns:
            Whether it can be recorded: False if there is one of that name that
            is of another kind or has other boundaries.
        """
        with self._lock:
            family = self._families.get(name)
            if family is None:
                self._families[name] = _Family(kind, description, boundaries)
                return True
            return family.kind == kind and family.boundaries == boundaries

    def add(self, name: str, labels: Mapping[str, str], value: float) -> None:
        """Add to a counter."""
        with self._lock:
            state = self._state(name, labels)
            if state is not None:
                state.value += value

    def set(self, name: str, labels: Mapping[str, str], value: float) -> None:
        """Replace the value of a gauge."""
        with self._lock:
            state = self._state(name, labels)
            if state is not None:
                state.value = value

    def observe(self, name: str, labels: Mapping[str, str], value: float) -> None:
        """Count a value in a histogram."""
        with self._lock:
            state = self._state(name, labels)
            if state is not None:
                state.value += value
                boundaries = self._families[name].boundaries
                state.bucket_counts[bisect_left(boundaries, value)] += 1

    def snapshot(self) -> tuple[MetricFamily, ...]:
        """A copy of everything recorded so far."""
        with self._lock:
            return tuple(
                MetricFamily(
                    name,
                    family.kind,
                    family.description,
                    family.boundaries,
                    tuple(
                        Series(labels, state.value, tuple(state.bucket_counts))
                        for labels, state in family.states.items()
                    ),
                )
                for name, family in self._families.items()
            )

    def clear(self) -> None:
        """Forget all that was recorded; metrics that exist go on from zero."""
        with self._lock:
            for family in self._families.values():
                family.states.clear()
                family.is_full = False

    def _state(self, name: str, labels: Mapping[str, str]) -> _State | None:
        """The state of a series, made if need be; None if there is no room."""
        family = self._families[name]
        key = tuple(sorted(labels.items()))
        state = family.states.get(key)
        if state is None and len(family.states) >= SERIES_COUNT_MAX:
            if not family.is_full:
                family.is_full = True
                warnings.warn(
                    f"Metric {name} has {SERIES_COUNT_MAX} combinations of tag "
                    "values; further ones are not recorded. Use tags with few values",
                    UserWarning,
                    stacklevel=4,
                )
            return None
        if state is None:
            bucket_count = len(family.boundaries) + 1 if family.boundaries else 0
            state = family.states[key] = _State(0.0, [0] * bucket_count)
        return state


DEFAULT_REGISTRY = Registry()
"""The registry that the metrics of this process record into."""


def render_text(snapshots: Iterable[ProcessSnapshot], prefix: str) -> str:
    """Write metrics in the Prometheus text format, version 0.0.4.

    Args:
        snapshots: of the processes to export.
        prefix: put before every name.

    Returns:
        The text, with a line feed at the end; empty if nothing was recorded.
    """
    merged = _merge(snapshots)
    return "".join(
        f"{line}\n" for family in merged.values() for line in _lines(family, prefix)
    )


def _merge(snapshots: Iterable[ProcessSnapshot]) -> dict[str, MetricFamily]:
    """All series by family; the first process decides on kind and boundaries."""
    families: dict[str, MetricFamily] = {}
    series: dict[str, dict[_Labels, Series]] = {}
    for snapshot in snapshots:
        for family in snapshot.families:
            first = families.setdefault(family.name, family)
            if (first.kind, first.boundaries) != (family.kind, family.boundaries):
                # Two processes disagree about what this name means: there is no
                # text in which both could stand.
                continue
            known = series.setdefault(family.name, {})
            for one in family.series:
                labels = tuple(sorted({**dict(one.labels), **snapshot.labels}.items()))
                known[labels] = _merged(family.kind, known.get(labels), one, labels)
    return {
        name: MetricFamily(
            family.name,
            family.kind,
            family.description,
            family.boundaries,
            tuple(series[name].values()),
        )
        for name, family in families.items()
        if series.get(name)
    }


def _merged(kind: str, known: Series | None, new: Series, labels: _Labels) -> Series:
    if known is None or kind == "gauge":
        return Series(labels, new.value, new.bucket_counts)
    counts = zip(known.bucket_counts, new.bucket_counts, strict=True)
    return Series(
        labels, known.value + new.value, tuple(one + other for one, other in counts)
    )


def _lines(family: MetricFamily, prefix: str) -> Iterator[str]:
    name = prefix + family.name
    if family.kind == "counter" and not name.endswith("_total"):
        name += "_total"
    yield f"# HELP {name} {_escape(family.description, quotes=False)}"
    yield f"# TYPE {name} {family.kind}"
    for series in family.series:
        if family.kind == "histogram":
            yield from _histogram_lines(name, family.boundaries, series)
        else:
            yield f"{name}{_label_text(series.labels)} {_number(series.value)}"


def _histogram_lines(
    name: str, boundaries: tuple[float, ...], series: Series
) -> Iterator[str]:
    count = 0
    for boundary, in_range in zip(
        (*boundaries, float("inf")), series.bucket_counts, strict=True
    ):
        count += in_range
        labels = (*series.labels, ("le", _number(boundary)))
        yield f"{name}_bucket{_label_text(labels)} {count}"
    yield f"{name}_sum{_label_text(series.labels)} {_number(series.value)}"
    yield f"{name}_count{_label_text(series.labels)} {count}"


def _label_text(labels: _Labels) -> str:
    if not labels:
        return ""
    pairs = (f'{_label_name(name)}="{_escape(value)}"' for name, value in labels)
    return "{" + ",".join(pairs) + "}"


def _label_name(name: str) -> str:
    # A tag may have any name; a label that Prometheus cannot read would cost the
    # whole page.
    cleaned = re.sub(r"[^a-zA-Z0-9_]", "_", name)
    return f"_{cleaned}" if cleaned[:1].isdigit() or not cleaned else cleaned


def _escape(text: str, *, quotes: bool = True) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text


def _number(value: float) -> str:
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
