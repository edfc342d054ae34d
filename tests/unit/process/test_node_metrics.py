"""What the node daemon keeps of the metrics of processes that ended."""

from __future__ import annotations

import pytest

from shoal._core.process import node_metrics
from shoal._core.process.node_metrics import NodeMetrics
from shoal._core.wire.node_messages import MetricFamily, MetricSeries, MetricsReport


def report(*families: MetricFamily) -> MetricsReport:
    return MetricsReport(0, "worker", 7, list(families))


def counter(name: str, **tagged: float) -> MetricFamily:
    series = [MetricSeries([("tag", tag)], value, []) for tag, value in tagged.items()]
    return MetricFamily(name, "counter", "", [], series)


def ended(kept: NodeMetrics) -> dict[str, dict[str, float]]:
    """Values by family and tag, of the processes that ended."""
    [snapshot] = kept.snapshots()
    assert snapshot["labels"] == {"Component": "ended"}
    return {
        family.name: {
            dict(one.labels).get("tag", ""): one.value for one in family.series
        }
        for family in snapshot["families"]
    }


def test_the_last_report_stands() -> None:
    kept = NodeMetrics()
    kept.on_report(b"a", report(counter("n", x=1)))
    kept.on_report(b"a", report(counter("n", x=4)))
    [snapshot] = kept.snapshots()
    assert snapshot["labels"] == {"Component": "worker", "WorkerId": "61", "pid": "7"}
    assert snapshot["families"] == [counter("n", x=4)]
    kept.on_client_gone(b"a")
    kept.on_client_gone(b"a")
    assert ended(kept) == {"n": {"x": 4}}


def test_ended_processes_add_up() -> None:
    kept = NodeMetrics()
    histogram = MetricFamily("h", "histogram", "", [1.0], [MetricSeries([], 2, [1, 3])])
    gauge = MetricFamily("g", "gauge", "", [], [MetricSeries([], 5, [])])
    for client in (b"a", b"b"):
        kept.on_report(client, report(counter("n", x=1, y=2), histogram, gauge))
        kept.on_client_gone(client)
    assert ended(kept) == {"n": {"x": 2, "y": 4}, "h": {"": 4}}
    [snapshot] = kept.snapshots()
    assert snapshot["families"][1].series[0].bucket_counts == [2, 6]


def test_one_name_of_two_kinds() -> None:
    kept = NodeMetrics()
    kept.on_report(b"a", report(counter("n", x=1)))
    kept.on_client_gone(b"a")
    other = MetricFamily("n", "histogram", "", [1.0], [MetricSeries([], 2, [1, 3])])
    kept.on_report(b"b", report(other))
    kept.on_client_gone(b"b")
    assert ended(kept) == {"n": {"x": 1}}


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_metrics, "ENDED_SERIES_MAX", 2)
    monkeypatch.setattr(node_metrics, "ENDED_FAMILIES_MAX", 2)
    kept = NodeMetrics()
    kept.on_report(b"a", report(counter("n", x=1, y=2, z=3, w=4), counter("m", x=5)))
    kept.on_client_gone(b"a")
    kept.on_report(b"b", report(counter("n", x=1, z=3), counter("o", x=1)))
    kept.on_client_gone(b"b")
    assert ended(kept) == {"n": {"x": 2, "y": 2, "": 10}, "m": {"": 5}}


def test_nothing_recorded_is_nothing_told() -> None:
    kept = NodeMetrics()
    kept.on_report(b"a", report())
    assert kept.snapshots() == []
    kept.on_client_gone(b"a")
    assert kept.snapshots() == []
