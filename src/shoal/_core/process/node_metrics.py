"""What the processes of a session have recorded with metrics, also those that ended.

Theory: of each living process the last report stands.  When a process ends, its
counters and histograms are added to those of all that ended before, without its id,
so that the sum over all processes never goes down; its gauges say nothing any more
and are dropped.

Bounds: however many processes come and go, ENDED_SERIES_MAX series of ended ones are
kept apart by their tags; what has no room is added to one series of its family without
tags, and families beyond ENDED_FAMILIES_MAX are dropped.

What it does not do: it sends and asks nothing.  A process that is killed takes along
what it recorded since it was last asked.
"""

from __future__ import annotations

from operator import add
from typing import Any

from shoal._core.wire.node_messages import MetricFamily, MetricSeries, MetricsReport

ENDED_FAMILIES_MAX = 1_000
ENDED_SERIES_MAX = 100_000

_Labels = tuple[tuple[str, str], ...]


class _Total:
    """A family as it adds up over processes that ended."""

    __slots__ = ("family", "series")

    def __init__(self, family: MetricFamily) -> None:
        #: name, kind and boundaries, as the first process had them
        self.family = family
        self.series: dict[_Labels, MetricSeries] = {}


class NodeMetrics:
    """Metrics by process."""

    def __init__(self) -> None:
        self._reports: dict[bytes, MetricsReport] = {}
        self._ended: dict[str, _Total] = {}
        self._ended_series_count = 0

    def on_report(self, client: bytes, report: MetricsReport) -> None:
        """A process says what it has recorded so far."""
        self._reports[client] = report

    def on_client_gone(self, client: bytes) -> None:
        """A process ended."""
        report = self._reports.pop(client, None)
        for family in () if report is None else report.families:
            if family.kind != "gauge":
                self._add(family)

    def snapshots(self) -> list[dict[str, Any]]:
        """Per process its labels and families, and one for all that ended."""
        told = [
            {
                "labels": process_labels(client, report.component, report.pid),
                "families": report.families,
            }
            for client, report in self._reports.items()
            if report.families
        ]
        if self._ended:
            ended = [
                MetricFamily(
                    total.family.name,
                    total.family.kind,
                    total.family.description,
                    total.family.boundaries,
                    list(total.series.values()),
                )
                for total in self._ended.values()
            ]
            told.append({"labels": {"Component": "ended"}, "families": ended})
        return told

    def _add(self, family: MetricFamily) -> None:
        total = self._ended.get(family.name)
        if total is None:
            if len(self._ended) >= ENDED_FAMILIES_MAX:
                return
            total = self._ended[family.name] = _Total(family)
        first = total.family
        if (first.kind, first.boundaries) != (family.kind, family.boundaries):
            return  # they disagree about what the name means: there is no sum
        for series in family.series:
            self._add_series(total.series, series)

    def _add_series(
        self, known: dict[_Labels, MetricSeries], new: MetricSeries
    ) -> None:
        labels = tuple(new.labels)
        if labels not in known and self._ended_series_count >= ENDED_SERIES_MAX:
            labels = ()
        old = known.get(labels)
        if old is None:
            known[labels] = MetricSeries(list(labels), new.value, new.bucket_counts)
            self._ended_series_count += 1
        else:
            counts = map(add, old.bucket_counts, new.bucket_counts)
            old.value, old.bucket_counts = old.value + new.value, list(counts)


def process_labels(worker_id: bytes, component: str, pid: int) -> dict[str, str]:
    """The labels that say which process a series is of."""
    return {"Component": component, "WorkerId": worker_id.hex(), "pid": str(pid)}
