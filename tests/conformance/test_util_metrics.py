"""Application metrics: construction, validation and tags; on shoal also the text.

No instance needs to run for any of it.
"""

import pickle
import warnings

import pytest
from conformance_impl import submodule

metrics = submodule("util.metrics")
Counter, Gauge, Histogram = metrics.Counter, metrics.Gauge, metrics.Histogram

KINDS = [
    Counter,
    Gauge,
    lambda *args, **kwargs: Histogram(*args, boundaries=[1.0], **kwargs),
]


def record(metric, value=1, tags=None):
    """Record with whichever method the kind has."""
    for name in ("inc", "set", "observe"):
        if hasattr(metric, name):
            return getattr(metric, name)(value, tags)
    raise AssertionError(metric)


@pytest.mark.parametrize("make", KINDS)
def test_info(make):
    """info tells what the metric was made with."""
    name = f"described_{KINDS.index(make)}"
    info = make(name, "words", tag_keys=("a",)).info
    info.pop("boundaries", None)
    assert info == {
        "name": name,
        "description": "words",
        "tag_keys": ("a",),
        "default_tags": {},
    }


def test_info_of_a_histogram():
    """A histogram's info has the boundaries as they were given."""
    assert Histogram("with_bounds", boundaries=[3, 1]).info["boundaries"] == [3, 1]


@pytest.mark.parametrize("make", KINDS)
def test_names(make):
    """The empty name is an error, an unusable one warns and records nothing."""
    with pytest.raises(ValueError):
        make("")
    with pytest.raises(TypeError):
        make(3)
    for name in ("a b", "a-b", "a.b", "1a", "é"):
        with pytest.warns(UserWarning):
            metric = make(name)
        record(metric)


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("tag_keys", [["a"], "a", (1,)])
def test_tag_keys(make, tag_keys):
    """Tag keys are a tuple of str."""
    with pytest.raises(TypeError):
        make("badly_tagged", tag_keys=tag_keys)


@pytest.mark.parametrize("make", KINDS)
def test_tags(make):
    """Each declared tag needs a value that is a str."""
    metric = make("tagged_" + str(KINDS.index(make)), tag_keys=("a", "b"))
    record(metric, tags={"a": "1", "b": "2"})
    with pytest.raises(ValueError, match="a,b"):
        record(metric)
    with pytest.raises(ValueError, match="b"):
        record(metric, tags={"a": "1"})
    with pytest.raises(TypeError):
        record(metric, tags={"a": 1, "b": "2"})
    with pytest.raises(TypeError):
        record(metric, tags={"a": None, "b": "2"})


@pytest.mark.parametrize("make", KINDS)
def test_default_tags(make):
    """Default tags stand for values that a recording leaves out."""
    metric = make("defaulted_" + str(KINDS.index(make)), tag_keys=("a", "b"))
    assert metric.set_default_tags({"a": "1"}) is metric
    assert metric.info["default_tags"] == {"a": "1"}
    record(metric, tags={"b": "2"})
    record(metric, tags={"a": "3", "b": "2"})
    with pytest.raises(ValueError):
        record(metric)
    with pytest.raises(ValueError):
        metric.set_default_tags({"z": "1"})
    with pytest.raises(TypeError):
        metric.set_default_tags({"a": 1})


@pytest.mark.parametrize("make", KINDS)
def test_values_are_numbers(make):
    """Recording anything but a number is a TypeError."""
    metric = make("numbers_" + str(KINDS.index(make)))
    for value in (1, 2.5, True):
        record(metric, value)
    with pytest.raises(TypeError):
        record(metric, "1")


def test_counter_grows():
    """A counter takes positive numbers only."""
    counter = Counter("growing")
    counter.inc()
    for value in (0, -1):
        with pytest.raises(ValueError):
            counter.inc(value)
    with pytest.raises(TypeError):
        counter.inc(None)


def test_gauge_ignores_none():
    """Setting a gauge to None changes nothing and is no error."""
    gauge = Gauge("level")
    gauge.set(-1.5)
    gauge.set(None)


@pytest.mark.parametrize("boundaries", [None, [], [0, 1], [-1]])
def test_boundaries(boundaries):
    """A histogram needs boundaries, positive ones."""
    with pytest.raises(ValueError):
        Histogram("unbounded", boundaries=boundaries)


@pytest.mark.parametrize("make", KINDS)
def test_pickled(make):
    """A metric can be sent to another process."""
    metric = make("travelling_" + str(KINDS.index(make)), tag_keys=("a",))
    copy = pickle.loads(pickle.dumps(metric))
    assert copy.info == metric.info
    record(copy, tags={"a": "1"})


def own_text(**options):
    """The text of this process alone, whether or not an instance runs."""
    own = metrics.ProcessSnapshot(metrics.DEFAULT_REGISTRY.snapshot())
    return metrics.export_text([own], **options)


TEXT = pytest.mark.beyond_ray(reason="Ray exports through its agent process only")


@pytest.fixture
def empty_registry():
    metrics.DEFAULT_REGISTRY.clear()
    yield metrics.DEFAULT_REGISTRY
    metrics.DEFAULT_REGISTRY.clear()


@TEXT
def test_text_of_all_kinds(empty_registry):
    """The text is what Prometheus reads, with Ray's names."""
    counter = Counter("requests", "How many\nrequests", tag_keys=("route",))
    counter.inc(2, {"route": 'a"b'})
    counter.inc(0.5, {"route": 'a"b'})
    Gauge("depth").set(-3)
    histogram = Histogram("latency", boundaries=[2, 1])
    for value in (0.5, 1, 1.5, 9):
        histogram.observe(value)
    assert own_text().splitlines() == [
        "# HELP ray_requests_total How many\\nrequests",
        "# TYPE ray_requests_total counter",
        'ray_requests_total{route="a\\"b"} 2.5',
        "# HELP ray_depth ",
        "# TYPE ray_depth gauge",
        "ray_depth -3",
        "# HELP ray_latency ",
        "# TYPE ray_latency histogram",
        'ray_latency_bucket{le="1"} 2',
        'ray_latency_bucket{le="2"} 3',
        'ray_latency_bucket{le="+Inf"} 4',
        "ray_latency_sum 12",
        "ray_latency_count 4",
    ]


@TEXT
def test_text_can_be_parsed(empty_registry):
    """An independent parser of the format reads back what was recorded."""
    parser = pytest.importorskip("prometheus_client.parser")
    Counter("parsed", "words", tag_keys=("odd-tag",)).inc(3, {"odd-tag": "a\\b\n"})
    Gauge("not_a_number").set(float("nan"))
    text = own_text(prefix="mine_")
    families = {
        family.name: family for family in parser.text_string_to_metric_families(text)
    }
    [sample] = families["mine_parsed"].samples
    assert (sample.labels, sample.value) == ({"odd_tag": "a\\b\n"}, 3.0)
    assert families["mine_not_a_number"].samples[0].value != 0


@TEXT
def test_snapshots_of_several_processes(empty_registry):
    """Snapshots are told apart by their labels; equal labels are added up."""
    Counter("shared_count").inc(2)
    families = empty_registry.snapshot()
    one = metrics.ProcessSnapshot(families, {"WorkerId": "1"})
    two = metrics.ProcessSnapshot(families, {"WorkerId": "2"})
    lines = metrics.export_text([one, two, two]).splitlines()
    assert lines[2:] == [
        'ray_shared_count_total{WorkerId="1"} 2',
        'ray_shared_count_total{WorkerId="2"} 4',
    ]


@TEXT
def test_one_name_one_kind(empty_registry):
    """A second metric of another kind under the same name is discarded."""
    Counter("only_once").inc()
    Counter("only_once").inc()
    with pytest.warns(UserWarning, match="only_once"):
        Gauge("only_once").set(7)
    assert "ray_only_once_total 2" in own_text().splitlines()


@TEXT
def test_too_many_series(empty_registry):
    """Beyond the limit further series are dropped, with one warning."""
    limit = submodule("util.metrics_registry").SERIES_COUNT_MAX
    gauge = Gauge("exploding", tag_keys=("user",))
    for user in range(limit):
        gauge.set(1, {"user": str(user)})
    with pytest.warns(UserWarning, match="exploding"):
        gauge.set(1, {"user": "one too many"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gauge.set(1, {"user": "another"})
    families = {family.name: family for family in empty_registry.snapshot()}
    assert len(families["exploding"].series) == limit
