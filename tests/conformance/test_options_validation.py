"""Options: which values are refused, with which error, and when.

Most are checked when the option is given, without a running instance.
"""

import pytest
from conformance_impl import ray


def function():
    return 1


class Plain:
    def method(self):
        return 1


BAD_TASK_OPTIONS = [
    ({"num_cpus": -1}, ValueError),
    ({"num_cpus": "1"}, TypeError),
    ({"num_cpus": 0.00001}, ValueError),
    ({"num_gpus": -1}, ValueError),
    ({"num_gpus": "1"}, TypeError),
    ({"memory": -1}, ValueError),
    ({"memory": "1GB"}, TypeError),
    ({"resources": {"CPU": 1}}, ValueError),
    ({"resources": {"GPU": 1}}, ValueError),
    ({"resources": [("a", 1)]}, TypeError),
    ({"resources": {"a": -1}}, ValueError),
    ({"object_store_memory": 1}, ValueError),
    ({"accelerator_type": 1}, TypeError),
    ({"label_selector": {"zone": "in(a"}}, ValueError),
    ({"label_selector": "zone"}, TypeError),
    ({"fallback_strategy": [{"num_cpus": 1}]}, ValueError),
    ({"name": 1}, TypeError),
    ({"num_returns": -1}, ValueError),
    ({"num_returns": "some"}, (TypeError, ValueError)),
    ({"num_returns": 1.5}, TypeError),
    ({"max_retries": -2}, ValueError),
    ({"max_retries": "3"}, TypeError),
    ({"retry_exceptions": 3}, TypeError),
    ({"retry_exceptions": [1]}, ValueError),
    ({"runtime_env": 3}, TypeError),
    ({"scheduling_strategy": 3}, TypeError),
    ({"_generator_backpressure_num_objects": 0}, ValueError),
    ({"max_restarts": 1}, ValueError),
    ({"max_concurrency": 2}, ValueError),
    ({"lifetime": "detached"}, ValueError),
    ({"nonsense": 1}, ValueError),
]

BAD_ACTOR_OPTIONS = [
    ({"num_cpus": -1}, ValueError),
    ({"num_gpus": "1"}, TypeError),
    ({"resources": {"CPU": 1}}, ValueError),
    ({"max_restarts": -2}, ValueError),
    ({"max_restarts": "1"}, TypeError),
    ({"max_task_retries": -2}, ValueError),
    ({"max_concurrency": -1}, ValueError),
    ({"max_concurrency": "2"}, TypeError),
    ({"max_pending_calls": "2"}, TypeError),
    ({"lifetime": "forever"}, ValueError),
    ({"name": ""}, ValueError),
    ({"name": 1}, TypeError),
    ({"namespace": ""}, ValueError),
    ({"namespace": 1}, TypeError),
    ({"get_if_exists": True}, ValueError),
    ({"get_if_exists": 1}, TypeError),
    ({"num_returns": 2}, ValueError),
    ({"max_retries": 1}, ValueError),
    ({"max_calls": 1}, ValueError),
    ({"nonsense": 1}, ValueError),
]

BAD_METHOD_OPTIONS = [
    ({"num_returns": -1}, ValueError),
    ({"nonsense": 1}, AssertionError),
]


def case_id(value):
    if isinstance(value, dict):
        return ",".join(f"{key}={option!r}" for key, option in value.items())
    return ""


@pytest.mark.parametrize(("options", "error"), BAD_TASK_OPTIONS, ids=case_id)
def test_bad_task_options(ray_session, options, error):
    """A wrong option of a task is refused: TypeError by type, ValueError by value."""
    with pytest.raises(error):
        ray.remote(**options)(function).remote()
    with pytest.raises(error):
        ray.remote(function).options(**options).remote()


@pytest.mark.parametrize(("options", "error"), BAD_ACTOR_OPTIONS, ids=case_id)
def test_bad_actor_options(ray_session, options, error):
    """A wrong option of an actor is refused: TypeError by type, ValueError by value."""
    with pytest.raises(error):
        ray.remote(**options)(Plain).remote()
    with pytest.raises(error):
        ray.remote(Plain).options(**options).remote()


@pytest.mark.parametrize(("options", "error"), BAD_METHOD_OPTIONS, ids=case_id)
def test_bad_method_options(options, error):
    """A wrong option of `method` is refused."""
    with pytest.raises(error):

        @ray.remote
        class Declared:
            @ray.method(**options)
            def method(self):
                return 1

        Declared.remote()


@pytest.mark.beyond_ray(reason="Ray looks at these values only when a call is made")
@pytest.mark.parametrize("options", [{"num_returns": "some"}, {"max_task_retries": -2}])
def test_bad_method_options_are_refused_at_once(options):
    """Every option of `method` is checked where it is written."""
    with pytest.raises((TypeError, ValueError)):
        ray.method(**options)(function)


def test_unknown_option_is_named():
    """The error of an unknown option names it."""
    with pytest.raises(ValueError, match="nonsense"):
        ray.remote(nonsense=1)(function)


def test_max_calls_only_in_the_decorator(ray_session):
    """max_calls in `.options()` raises ValueError."""
    with pytest.raises(ValueError):
        ray.remote(function).options(max_calls=1).remote()


def test_concurrency_groups_only_in_the_decorator(ray_session):
    """concurrency_groups in `.options()` raises ValueError."""
    with pytest.raises(ValueError):
        ray.remote(Plain).options(concurrency_groups={"io": 2}).remote()


def test_bad_scheduling_strategy(ray_session):
    """An unknown strategy word raises ValueError at the latest at `.remote()`."""
    with pytest.raises(ValueError):
        ray.remote(function).options(scheduling_strategy="EVERYWHERE").remote()


def test_gpus_above_one_must_be_whole(ray_session):
    """1.5 GPUs raise ValueError at the latest at `.remote()`."""
    with pytest.raises(ValueError):
        ray.remote(function).options(num_gpus=1.5).remote()


@pytest.mark.parametrize(
    "options",
    [
        {"num_cpus": 0},
        {"num_cpus": 0.5},
        {"num_cpus": None},
        {"memory": 1000},
        {"name": "shown"},
        {"max_retries": -1},
        {"max_retries": 0},
        {"retry_exceptions": True},
        {"retry_exceptions": [ValueError, KeyError]},
        {"retry_exceptions": (ValueError,)},
        {"num_returns": None},
        {"scheduling_strategy": "SPREAD"},
        {"scheduling_strategy": "DEFAULT"},
        {"runtime_env": {}},
        {"enable_task_events": False},
        {"_labels": {"team": "blue"}},
        {"resources": {}},
    ],
    ids=case_id,
)
def test_good_task_options(ray_session, options):
    """Allowed values are allowed in the decorator and in `.options()`."""
    refs = [
        ray.remote(**options)(function).remote(),
        ray.remote(function).options(**options).remote(),
    ]
    assert ray.get(refs, timeout=30) == [1, 1]
