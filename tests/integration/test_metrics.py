"""Metrics of all processes of a session come together in one text."""

from __future__ import annotations

import os
import signal
import sys
import urllib.request
from collections.abc import Callable, Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

import shoal
from shoal.util import metrics
from tests.integration.programs import Program

pytestmark = pytest.mark.integration

Samples = list[tuple[dict[str, str], float]]


@pytest.fixture(autouse=True)
def _empty_registry() -> Iterator[None]:
    metrics.DEFAULT_REGISTRY.clear()
    yield
    metrics.DEFAULT_REGISTRY.clear()


@pytest.fixture
def session() -> Iterator[None]:
    shoal.init(num_cpus=2, address="local", log_to_driver=False)
    yield
    shoal.shutdown()


def samples(name: str, text: str | None = None) -> Samples:
    """Labels and value of each sample of that name."""
    families = text_string_to_metric_families(text or metrics.export_text())
    return [
        (dict(sample.labels), sample.value)
        for family in families
        for sample in family.samples
        if sample.name == name
    ]


def total(name: str) -> float:
    return sum(value for _, value in samples(name))


@shoal.remote
class Recorder:
    """Records in its own process."""

    def __init__(self) -> None:
        self.counter = metrics.Counter("m_calls", "calls", tag_keys=("kind",))
        self.gauge = metrics.Gauge("m_level")
        self.histogram = metrics.Histogram("m_time", boundaries=[1, 2])

    def record(self, amount: float) -> int:
        self.counter.inc(amount, {"kind": "actor"})
        self.gauge.set(amount)
        self.histogram.observe(1.5)
        return os.getpid()


@pytest.mark.usefixtures("session")
def test_every_process_is_in_the_text() -> None:
    counter = metrics.Counter("m_calls", "calls", tag_keys=("kind",))
    counter.inc(1, {"kind": "driver"})

    @shoal.remote
    def task() -> int:
        counter.inc(10, {"kind": "task"})
        return os.getpid()

    recorder = Recorder.remote()
    worker_pid = shoal.get(task.remote())
    actor_pid = shoal.get(recorder.record.remote(100))
    by_component = {
        labels["Component"]: (labels["kind"], labels["pid"], value)
        for labels, value in samples("ray_m_calls_total")
    }
    assert by_component == {
        "driver": ("driver", str(os.getpid()), 1),
        "worker": ("task", str(worker_pid), 10),
        "actor": ("actor", str(actor_pid), 100),
    }
    workers = {labels["WorkerId"] for labels, _ in samples("ray_m_calls_total")}
    assert len(workers) == 3
    assert shoal.get_runtime_context().get_worker_id() in workers
    buckets = {labels["le"]: value for labels, value in samples("ray_m_time_bucket")}
    assert buckets == {"1": 0, "2": 1, "+Inf": 1}


@pytest.mark.usefixtures("session")
def test_a_task_may_ask_too() -> None:
    @shoal.remote
    def ask() -> float:
        metrics.Counter("m_asked").inc(2)
        return total("ray_m_asked_total")

    metrics.Counter("m_asked").inc()
    assert shoal.get(ask.remote()) == 3


@pytest.mark.usefixtures("session")
def test_counters_of_ended_processes_stay() -> None:
    counter = metrics.Counter("m_single")

    @shoal.remote(max_calls=1)
    def single() -> None:
        counter.inc()

    shoal.get([single.remote() for _ in range(3)])
    recorder = Recorder.remote()
    shoal.get([recorder.record.remote(2), recorder.record.remote(5)])
    with pytest.raises(shoal.exceptions.ActorDiedError):
        shoal.get(recorder.__ray_terminate__.remote())
    assert total("ray_m_single_total") == 3
    [(labels, value)] = samples("ray_m_calls_total")
    assert (labels, value) == ({"Component": "ended", "kind": "actor"}, 7)
    assert total("ray_m_time_count") == 2
    assert samples("ray_m_level") == []


@pytest.mark.usefixtures("session")
def test_killed_processes_leave_what_was_known() -> None:
    recorder = Recorder.remote()
    shoal.get(recorder.record.remote(3))
    assert total("ray_m_calls_total") == 3
    shoal.kill(recorder)
    with pytest.raises(shoal.exceptions.ActorDiedError):
        shoal.get(recorder.record.remote(1))
    assert total("ray_m_calls_total") == 3


@pytest.mark.usefixtures("session")
def test_a_process_that_does_not_answer() -> None:
    """What it said before stands, and the others are not held up for long."""
    recorder = Recorder.remote()
    pid = shoal.get(recorder.record.remote(3))
    assert total("ray_m_calls_total") == 3
    metrics.Counter("m_driver").inc()
    os.kill(pid, signal.SIGSTOP)
    try:
        text = metrics.export_text()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert [value for _, value in samples("ray_m_calls_total", text)] == [3]
    assert [value for _, value in samples("ray_m_driver_total", text)] == [1]


def test_a_driver_that_leaves(join: Callable[..., Program]) -> None:
    """Its counters are added to those of ended processes."""
    program = join(
        """
        from shoal.util.metrics import Counter

        Counter("m_other").inc(9)
        ray.shutdown()
        """
    )
    program.finish()
    assert samples("ray_m_other_total") == [({"Component": "ended"}, 9)]


@pytest.mark.usefixtures("session")
def test_snapshots_are_plain_data() -> None:
    metrics.Gauge("m_plain", "words").set(4)
    [snapshot] = shoal.metric_snapshots()
    assert snapshot["labels"]["Component"] == "driver"
    [family] = snapshot["families"]
    assert family == {
        "name": "m_plain",
        "kind": "gauge",
        "description": "words",
        "boundaries": [],
        "series": [{"labels": [], "value": 4.0, "bucket_counts": []}],
    }


@pytest.mark.usefixtures("session")
def test_served_page() -> None:
    metrics.Counter("m_served", "words").inc(6)
    port, stop = metrics.serve()
    try:
        url = f"http://127.0.0.1:{port}/metrics"
        with urllib.request.urlopen(url, timeout=20) as answer:
            page = answer.read().decode()
    finally:
        stop()
    [(labels, value)] = samples("ray_m_served_total", page)
    assert (labels["Component"], value) == ("driver", 6)
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url, timeout=20)


def test_serving_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ImportError, match=r"shoal\[metrics\]"):
        metrics.serve()


def test_local_mode_is_one_process() -> None:
    shoal.init(local_mode=True)
    try:
        shoal.get(Recorder.remote().record.remote(1))
        [(labels, value)] = samples("ray_m_calls_total")
        assert (labels["pid"], value) == (str(os.getpid()), 1)
    finally:
        shoal.shutdown()


def test_without_a_session_it_is_this_process() -> None:
    metrics.Counter("m_alone").inc()
    assert samples("ray_m_alone_total") == [({}, 1)]
    with pytest.raises(shoal.exceptions.RaySystemError, match="init"):
        shoal.metric_snapshots()
