"""Options: what is allowed where, what is refused and how, what follows."""

import pytest

import shoal
from shoal._api.options import (
    OPTIONS,
    Place,
    actor_resources,
    check_actor_identity,
    names_legal_in,
    resolve_actor_concurrency,
    resolve_max_calls,
    resolve_num_returns,
    resolve_strategy,
    task_resources,
    validate_actor_options,
    validate_method_options,
    validate_task_options,
)
from shoal._api.scheduling import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)
from shoal._core.base.resources import NO_RESOURCES, ResourceSet

WHERE = pytest.mark.parametrize("in_options", [False, True], ids=["decorator", "call"])


class Group:
    """As much of a placement group as options look at."""

    bundle_count = 2


# ------------------------------------------------------------------- the table

GOOD_VALUES = {
    "num_cpus": [0, 1, 0.5, None, True],
    "num_gpus": [0, 0.5, 1, 2, 2.0, None],
    "resources": [{}, {"custom": 1}, {"custom": 0}, None],
    "memory": [0, 1_000, 1.5, None],
    "object_store_memory": [None],
    "accelerator_type": ["A100", None],
    "label_selector": [{}, {"zone": "in(a,b)"}, None],
    "fallback_strategy": [[], [{"label_selector": {"zone": "a"}}], None],
    "name": ["shown", None],
    "num_returns": [0, 1, 3, "streaming", "dynamic", None],
    "max_calls": [0, 1, None],
    "max_retries": [-1, 0, 3, None],
    "retry_exceptions": [True, False, [], [ValueError], (KeyError, OSError)],
    "max_restarts": [-1, 0, 3, None],
    "max_task_retries": [-1, 0, 3, None],
    "max_pending_calls": [-1, 0, 5, None],
    "max_concurrency": [0, 1, 100, None],
    "concurrency_groups": [{}, {"io": 2}, None],
    "allow_out_of_order_execution": [True, False, None],
    "lifetime": ["detached", "non_detached", None],
    "namespace": ["space", None],
    "get_if_exists": [False],
    "runtime_env": [
        {},
        {"env_vars": {"A": "1"}},
        {"working_dir": "s3://x/y.zip"},
        None,
    ],
    "scheduling_strategy": ["DEFAULT", "SPREAD", None],
    "placement_group": ["default", None],
    "placement_group_bundle_index": [-1, 0],
    "placement_group_capture_child_tasks": [True, None],
    "enable_task_events": [True, False],
    "_labels": [{"team": "blue"}, None],
    "_generator_backpressure_num_objects": [-1, 1, None],
    "_num_objects_per_yield": [1, 2, None],
    "_actor_generator_backpressure_num_objects": [-1, 1, None],
    "enable_tensor_transport": [True, None],
    "tensor_transport": ["nccl", None],
    "concurrency_group": ["io", None],
}

BAD_VALUES = [
    ("num_cpus", -1, ValueError),
    ("num_cpus", "1", TypeError),
    ("num_cpus", 0.00001, ValueError),
    ("num_cpus", float("nan"), ValueError),
    ("num_gpus", 1.5, ValueError),
    ("num_gpus", -1, ValueError),
    ("resources", [1], TypeError),
    ("resources", {"CPU": 1}, ValueError),
    ("resources", {"GPU": 1}, ValueError),
    ("resources", {"memory": 1}, ValueError),
    ("resources", {"a": -1}, ValueError),
    ("resources", {"a": "x"}, TypeError),
    ("resources", {1: 1}, TypeError),
    ("memory", -1, ValueError),
    ("memory", "1GB", TypeError),
    ("accelerator_type", 3, TypeError),
    ("label_selector", [1], TypeError),
    ("label_selector", {"a": "in(a"}, ValueError),
    ("label_selector", {"a b": "c"}, ValueError),
    ("label_selector", {"a": 1}, TypeError),
    ("fallback_strategy", {"a": 1}, TypeError),
    ("fallback_strategy", [{}], ValueError),
    ("fallback_strategy", [{"num_cpus": 1}], ValueError),
    ("fallback_strategy", [{"label_selector": 1}], TypeError),
    ("fallback_strategy", [{"label_selector": {"a": "in("}}], ValueError),
    ("name", 3, TypeError),
    ("num_returns", -1, ValueError),
    ("num_returns", 1.0, TypeError),
    ("num_returns", "some", TypeError),
    ("max_calls", -1, ValueError),
    ("max_calls", "1", TypeError),
    ("max_retries", -2, ValueError),
    ("max_retries", 1.5, TypeError),
    ("retry_exceptions", 1, TypeError),
    ("retry_exceptions", ValueError, TypeError),
    ("retry_exceptions", [1], ValueError),
    ("retry_exceptions", [KeyboardInterrupt], ValueError),
    ("max_restarts", -2, ValueError),
    ("max_restarts", "1", TypeError),
    ("max_task_retries", -2, ValueError),
    ("max_pending_calls", -2, ValueError),
    ("max_concurrency", -1, ValueError),
    ("max_concurrency", "2", TypeError),
    ("concurrency_groups", [1], TypeError),
    ("concurrency_groups", {"io": "2"}, TypeError),
    ("concurrency_groups", {"io": 0}, ValueError),
    ("allow_out_of_order_execution", 1, TypeError),
    ("lifetime", "forever", ValueError),
    ("lifetime", 1, TypeError),
    ("namespace", "", ValueError),
    ("namespace", 1, TypeError),
    ("get_if_exists", 1, TypeError),
    ("runtime_env", "x", TypeError),
    ("runtime_env", {"env_vars": {"A": 1}}, TypeError),
    ("runtime_env", {"env_vars": ["A"]}, TypeError),
    ("runtime_env", {"working_dir": "."}, ValueError),
    ("runtime_env", {"py_modules": ["/somewhere"]}, ValueError),
    ("runtime_env", {"pip": ["a"], "uv": ["a"]}, ValueError),
    ("scheduling_strategy", "EVERYWHERE", ValueError),
    ("scheduling_strategy", 3, TypeError),
    ("placement_group", "other", TypeError),
    ("placement_group_bundle_index", "0", TypeError),
    ("placement_group_capture_child_tasks", 1, TypeError),
    ("enable_task_events", 1, TypeError),
    ("_labels", [1], TypeError),
    ("_labels", {"a": 1}, TypeError),
    ("_generator_backpressure_num_objects", 0, ValueError),
    ("_num_objects_per_yield", 0, ValueError),
    ("_actor_generator_backpressure_num_objects", 0, ValueError),
    ("enable_tensor_transport", 1, TypeError),
    ("tensor_transport", 1, TypeError),
    ("concurrency_group", 3, TypeError),
]

VALIDATORS = {
    Place.TASK: lambda given: validate_task_options(given, in_options=False),
    Place.TASK_OPTIONS: lambda given: validate_task_options(given, in_options=True),
    Place.ACTOR: lambda given: validate_actor_options(given, in_options=False),
    Place.ACTOR_OPTIONS: lambda given: validate_actor_options(given, in_options=True),
    Place.METHOD: lambda given: validate_method_options(given, in_options=False),
    Place.METHOD_OPTIONS: lambda given: validate_method_options(given, in_options=True),
}
UNKNOWN_ERRORS = {Place.METHOD: AssertionError, Place.METHOD_OPTIONS: TypeError}


def test_every_option_has_examples():
    assert set(GOOD_VALUES) == set(OPTIONS)
    assert {name for name, _, _ in BAD_VALUES} == set(OPTIONS) - {"object_store_memory"}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("place", Place)
def test_good_values_pass_where_they_are_legal(name, place):
    for value in GOOD_VALUES[name]:
        if place in OPTIONS[name].places:
            assert VALIDATORS[place]({name: value}).get(name, value) == value
        else:
            with pytest.raises((ValueError, TypeError, AssertionError), match=name):
                VALIDATORS[place]({name: value})


@pytest.mark.parametrize(("name", "value", "error"), BAD_VALUES)
def test_bad_values_are_refused_everywhere(name, value, error):
    places = [place for place in Place if place in OPTIONS[name].places]
    assert places
    for place in places:
        with pytest.raises(error):
            VALIDATORS[place]({name: value})


@pytest.mark.parametrize("place", Place)
def test_unknown_names_are_refused_with_what_is_allowed(place):
    error = UNKNOWN_ERRORS.get(place, ValueError)
    with pytest.raises(error, match="Invalid option keyword nonsense") as caught:
        VALIDATORS[place]({"nonsense": 1})
    assert str(names_legal_in(place)) in str(caught.value)
    with pytest.raises(error, match=r"Did you mean '(num_returns|num_cpus)'"):
        VALIDATORS[place]({"num_return" if "METHOD" in place.name else "num_cpu": 1})


def test_options_of_one_kind_are_unknown_to_another():
    with pytest.raises(ValueError, match="for remote functions"):
        validate_task_options({"max_restarts": 1}, in_options=False)
    with pytest.raises(ValueError, match="for actors"):
        validate_actor_options({"num_returns": 2}, in_options=True)


def test_some_options_belong_to_the_decorator():
    for name, value in [("max_calls", 1), ("_num_objects_per_yield", 2)]:
        with pytest.raises(ValueError, match=r"not supported in '\.options\(\)'"):
            validate_task_options({name: value}, in_options=True)
    with pytest.raises(ValueError, match=r"not supported in '\.options\(\)'"):
        validate_actor_options({"concurrency_groups": {"io": 2}}, in_options=True)


def test_wrong_types_name_the_right_ones():
    with pytest.raises(TypeError) as caught:
        validate_task_options({"num_cpus": "2"}, in_options=True)
    assert str(caught.value) == (
        "The type of keyword 'num_cpus' must be float or int or None, but received "
        "'2' of type str."
    )


def test_what_is_given_comes_back_without_defaults():
    given = {"num_cpus": 2, "name": None}
    assert validate_task_options(given, in_options=True) == given
    assert validate_task_options({}, in_options=False) == {}


# ---------------------------------------------------------------- special cases


def test_legacy_names_warn_and_work():
    with pytest.warns(DeprecationWarning, match="use 'num_returns'"):
        checked = validate_task_options({"num_return_vals": 2}, in_options=False)
    assert checked == {"num_returns": 2}
    with pytest.warns(DeprecationWarning, match="use 'num_returns'"):
        checked = validate_method_options({"num_return_vals": 2}, in_options=False)
    assert checked == {"num_returns": 2}
    with pytest.warns(DeprecationWarning, match="use 'max_restarts'"):
        checked = validate_actor_options({"max_reconstructions": 2}, in_options=True)
    assert checked == {"max_restarts": 2}


def pair():
    return 1, 2


@pytest.mark.parametrize(
    "use",
    [
        lambda: shoal.remote(num_return_vals=2)(pair),
        lambda: shoal.remote(pair).options(num_return_vals=2),
        lambda: shoal.method(num_return_vals=2)(pair),
    ],
)
def test_warnings_point_at_the_line_they_are_about(use):
    with pytest.warns(DeprecationWarning, match="use 'num_returns'") as caught:
        use()
    assert caught[0].filename == __file__
    assert caught[0].lineno == use.__code__.co_firstlineno


def test_legacy_names_are_checked_like_others():
    with (
        pytest.warns(DeprecationWarning, match="use 'num_returns'"),
        pytest.raises(ValueError, match="num_returns must be"),
    ):
        validate_task_options({"num_return_vals": -1}, in_options=False)
    with pytest.raises(ValueError, match="Invalid option keyword max_reconstructions"):
        validate_task_options({"max_reconstructions": 1}, in_options=False)


@WHERE
def test_object_store_memory(in_options):
    with pytest.raises(ValueError, match="can't be set for tasks"):
        validate_task_options({"object_store_memory": 5}, in_options=in_options)
    with pytest.warns(DeprecationWarning, match="no effect on actors"):
        validate_actor_options({"object_store_memory": 5}, in_options=in_options)


@WHERE
def test_names_of_actors_are_not_empty(in_options):
    with pytest.raises(ValueError, match="name must not be empty"):
        validate_actor_options({"name": ""}, in_options=in_options)
    assert validate_task_options({"name": ""}, in_options=in_options) == {"name": ""}


def test_get_if_exists_needs_a_name():
    with pytest.raises(ValueError, match="needs a name"):
        validate_actor_options({"get_if_exists": True}, in_options=False)
    given = {"get_if_exists": True, "name": "counter"}
    assert validate_actor_options(given, in_options=False) == given
    # In .options() the name may come from the decorator.
    assert validate_actor_options({"get_if_exists": True}, in_options=True)
    with pytest.raises(ValueError, match="needs a name"):
        check_actor_identity({"get_if_exists": True})


@WHERE
def test_none_means_not_given_to_methods(in_options):
    given = {"retry_exceptions": None, "enable_task_events": None, "num_returns": None}
    checked = validate_method_options(given, in_options=in_options)
    assert checked == {"num_returns": None}


@WHERE
def test_a_placement_group_beside_a_strategy(in_options):
    both = {"placement_group": Group(), "scheduling_strategy": "SPREAD"}
    for validate in (validate_task_options, validate_actor_options):
        with pytest.raises(ValueError, match="not both"):
            validate(both, in_options=in_options)


# ------------------------------------------------------------- what follows


@pytest.mark.parametrize(
    ("num_returns", "is_generator", "expected"),
    [
        (None, False, 1),
        (None, True, "streaming"),
        (0, False, 0),
        (3, True, 3),
        ("streaming", True, "streaming"),
    ],
)
def test_number_of_returns(num_returns, is_generator, expected):
    options = {"num_returns": num_returns}
    assert resolve_num_returns(options, is_generator=is_generator) == expected
    assert resolve_num_returns({}, is_generator=False) == 1


def test_words_for_returns_need_a_generator():
    for word in ("streaming", "dynamic"):
        with pytest.raises(ValueError, match="only be used with generator functions"):
            resolve_num_returns({"num_returns": word}, is_generator=False)
    with pytest.warns(DeprecationWarning, match="dynamic"):
        resolved = resolve_num_returns({"num_returns": "dynamic"}, is_generator=True)
    assert resolved == "dynamic"


@pytest.mark.parametrize(
    ("options", "is_async", "expected"),
    [
        ({}, False, (1, False)),
        ({}, True, (1000, True)),
        ({"max_concurrency": 0}, False, (1, False)),
        ({"max_concurrency": 3}, False, (3, True)),
        ({"max_concurrency": 1}, True, (1, True)),
        ({"allow_out_of_order_execution": True}, False, (1, True)),
        ({"allow_out_of_order_execution": False}, False, (1, False)),
    ],
)
def test_concurrency_of_actors(options, is_async, expected):
    assert resolve_actor_concurrency(options, is_async=is_async) == expected


def test_order_can_not_be_demanded_of_concurrent_actors():
    ordered = {"allow_out_of_order_execution": False}
    with pytest.raises(ValueError, match="not possible for an async actor"):
        resolve_actor_concurrency(ordered, is_async=True)
    with pytest.raises(ValueError, match="max_concurrency=2"):
        resolve_actor_concurrency({**ordered, "max_concurrency": 2}, is_async=False)


def test_workers_with_gpus_end_after_one_call():
    assert resolve_max_calls({}) == 0
    assert resolve_max_calls({"num_gpus": 0}) == 0
    assert resolve_max_calls({"num_gpus": 0.5}) == 1
    assert resolve_max_calls({"num_gpus": 1, "max_calls": 0}) == 0
    assert resolve_max_calls({"max_calls": 7}) == 7


def test_strategy_from_old_and_new_options():
    group = Group()
    affinity = NodeAffinitySchedulingStrategy("ab" * 28, soft=True)
    assert resolve_strategy({}) is None
    assert resolve_strategy({"scheduling_strategy": affinity}) is affinity
    spread = {"scheduling_strategy": "SPREAD", "placement_group": "default"}
    assert resolve_strategy(spread) == "SPREAD"
    old = {
        "placement_group": group,
        "placement_group_bundle_index": 1,
        "placement_group_capture_child_tasks": True,
    }
    assert resolve_strategy(old) == PlacementGroupSchedulingStrategy(group, 1, True)
    assert resolve_strategy({"placement_group": None, "scheduling_strategy": "SPREAD"})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"CPU": 1}),
        ({"num_cpus": None}, {"CPU": 1}),
        ({"num_cpus": 0}, {}),
        ({"num_gpus": 1}, {"CPU": 1, "GPU": 1}),
        ({"memory": 10.6}, {"CPU": 1, "memory": 10}),
        ({"resources": {"c": 0.25, "d": 0}}, {"CPU": 1, "c": 0.25}),
        ({"accelerator_type": "A100"}, {"CPU": 1, "accelerator_type:A100": 0.001}),
    ],
)
def test_resources_of_tasks(options, expected):
    assert task_resources(options) == ResourceSet(expected)


@pytest.mark.parametrize(
    ("options", "placed", "held"),
    [
        ({}, {"CPU": 1}, {}),
        ({"resources": {}}, {"CPU": 1}, {}),
        ({"memory": 100}, {"CPU": 1, "memory": 100}, {"memory": 100}),
        ({"num_cpus": 0}, {}, {}),
        ({"num_cpus": 2}, {"CPU": 2}, {"CPU": 2}),
        ({"num_gpus": 0}, {"CPU": 1}, {"CPU": 1}),
        ({"num_gpus": 1}, {"CPU": 1, "GPU": 1}, {"CPU": 1, "GPU": 1}),
        ({"num_cpus": 0, "num_gpus": 1}, {"GPU": 1}, {"GPU": 1}),
        ({"resources": {"c": 0}}, {"CPU": 1}, {"CPU": 1}),
        ({"resources": {"c": 1}}, {"CPU": 1, "c": 1}, {"CPU": 1, "c": 1}),
    ],
)
def test_resources_of_actors(options, placed, held):
    assert actor_resources(options) == (ResourceSet(placed), ResourceSet(held))


def test_the_default_actor_holds_nothing():
    assert actor_resources({})[1] == NO_RESOURCES
