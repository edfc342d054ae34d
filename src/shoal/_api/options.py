"""Every option of tasks, actors and methods: one table, and what follows from it.

The table says for each option where it may be written, of which type it is, what it is
when not given, and how its value is checked. Places are the decorator and
``.options()`` of each of the three kinds, because some options are fixed once the
function or class is defined.

Errors are Ray's: TypeError for a wrong type, ValueError for a wrong value or an unknown
name on tasks and actors. For methods an unknown name is an AssertionError in
``@method`` and a TypeError in ``.options()``.

What it does not do: resolve placement groups or runtime environments, or merge options
of decorator and call (``{**decorator, **call}`` is all there is to it).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Flag, auto
from types import NoneType
from typing import Any, Literal

from shoal._api import option_checks as checks
from shoal._api.scheduling import (
    STRATEGY_TYPES,
    PlacementGroupLike,
    PlacementGroupSchedulingStrategy,
    SchedulingStrategy,
)
from shoal._api.user_warnings import warn_user
from shoal._core.base.resources import ResourceSet

Options = dict[str, Any]
"""Option name to value, as given by the user and checked; absent if not given."""

DEFAULT_ASYNC_CONCURRENCY = 1000
"""How many calls an actor with an async method runs at a time unless told."""

DEFAULT_MAX_RETRIES = 3
"""How often a task is run again after its worker or node died."""

_ACCELERATOR_SHARE = 0.001
"""How much of ``accelerator_type:X`` a request takes: enough to tie it to a node with
one, too little to ever use it up."""


class Place(Flag):
    """Where an option may be written."""

    TASK = auto()
    TASK_OPTIONS = auto()
    ACTOR = auto()
    ACTOR_OPTIONS = auto()
    METHOD = auto()
    METHOD_OPTIONS = auto()


_T = Place.TASK | Place.TASK_OPTIONS
_A = Place.ACTOR | Place.ACTOR_OPTIONS
_M = Place.METHOD | Place.METHOD_OPTIONS

_KIND_OF = {
    Place.TASK: "remote functions",
    Place.TASK_OPTIONS: "remote functions",
    Place.ACTOR: "actors",
    Place.ACTOR_OPTIONS: "actors",
    Place.METHOD: "actor methods",
    Place.METHOD_OPTIONS: "actor methods",
}
_DECORATOR_OF = {
    Place.TASK_OPTIONS: Place.TASK,
    Place.ACTOR_OPTIONS: Place.ACTOR,
    Place.METHOD_OPTIONS: Place.METHOD,
}


@dataclass(frozen=True, slots=True)
class Option:
    """One option."""

    name: str
    """As the user writes it."""
    places: Place
    """Where it may be written."""
    types: tuple[type, ...]
    """What its value may be an instance of."""
    default: object
    """What holds when it is not given."""
    meaning: str
    """What it does, with its unit."""
    check: Callable[[str, Any], None] | None = None
    """Further check of a value that is not None."""


_NUMBER = (float, int, NoneType)
_INT = (int, NoneType)
_TEXT = (str, NoneType)
_DICT = (dict, NoneType)
_BOOL = (bool, NoneType)

# fmt: off
_TABLE = (
    Option("num_cpus", _T | _A, _NUMBER, None,
           "CPUs held; tasks 1; actors 1 while being placed, then 0, unless given",
           checks.check_quantity),
    Option("num_gpus", _T | _A, _NUMBER, None,
           "GPUs held, a share of one or whole ones; 0",
           checks.check_unit_instances),
    Option("resources", _T | _A, _DICT, None,
           "custom resources held, name to quantity",
           checks.check_resources),
    Option("memory", _T | _A, _NUMBER, None,
           "bytes of memory to reckon with when placing; not a limit",
           checks.check_quantity),
    Option("object_store_memory", _T | _A, _INT, None,
           "bytes; has no effect on actors and is refused on tasks",
           checks.check_quantity),
    Option("accelerator_type", _T | _A, _TEXT, None,
           "only nodes with this kind of accelerator"),
    Option("label_selector", _T | _A, _DICT, None,
           "only nodes whose labels match, name to 'v', '!v', 'in(a,b)' or '!in(a,b)'",
           checks.check_label_selector),
    Option("fallback_strategy", _T | _A, (list, NoneType), None,
           "other label selectors to try, in this order",
           checks.check_fallback_strategy),
    Option("name", _T | _A | Place.METHOD_OPTIONS, _TEXT, None,
           "what a task is shown as; what an actor can be looked up by"),
    Option("num_returns", _T | _M, (int, str, NoneType), None,
           "how many refs come back; 1, or 'streaming' for generators",
           checks.check_num_returns),
    Option("max_calls", Place.TASK, _INT, None,
           "calls after which the worker process ends; 0: never; 1 with GPUs",
           checks.check_count),
    Option("max_retries", _T, _INT, DEFAULT_MAX_RETRIES,
           "runs again after a crash; -1: without end",
           checks.check_count_or_unlimited),
    Option("retry_exceptions", _T | _M, (bool, list, tuple), False,
           "whether, or on which exceptions of the code, to run again",
           checks.check_retry_exceptions),
    Option("max_restarts", _A, _INT, 0,
           "how often a dead actor is started again; -1: without end",
           checks.check_count_or_unlimited),
    Option("max_task_retries", _A | _M, _INT, 0,
           "how often a call is sent again after the actor died; -1: without end",
           checks.check_count_or_unlimited),
    Option("max_pending_calls", _A, _INT, -1,
           "calls waiting per handle before .remote() refuses; -1: no limit",
           checks.check_count_or_unlimited),
    Option("max_concurrency", _A, _INT, None,
           "calls running at a time; 1, or 1000 if a method is async",
           checks.check_count),
    Option("concurrency_groups", Place.ACTOR, _DICT, None,
           "named groups of methods and how many calls each runs at a time",
           checks.check_concurrency_groups),
    Option("allow_out_of_order_execution", _A, _BOOL, None,
           "whether a call may overtake one that waits for its arguments"),
    Option("lifetime", _A, _TEXT, None,
           "'detached': lives on without handles and driver, until killed",
           checks.check_lifetime),
    Option("namespace", _A, _TEXT, None,
           "where its name is known; the job's namespace",
           checks.check_not_empty),
    Option("get_if_exists", _A, (bool,), False,
           "return the actor of this name if there is one"),
    Option("runtime_env", _T | _A, _DICT, None,
           "environment of the worker process",
           checks.check_runtime_env),
    Option("scheduling_strategy", _T | _A, (*STRATEGY_TYPES, NoneType), None,
           "where to run: 'DEFAULT', 'SPREAD' or a strategy",
           checks.check_strategy),
    Option("placement_group", _T | _A, (object,), "default",
           "deprecated: PlacementGroupSchedulingStrategy"),
    Option("placement_group_bundle_index", _T | _A, (int,), -1,
           "deprecated: PlacementGroupSchedulingStrategy"),
    Option("placement_group_capture_child_tasks", _T | _A, _BOOL, None,
           "deprecated: PlacementGroupSchedulingStrategy"),
    Option("enable_task_events", _T | _A | _M, (bool,), True,
           "whether its states are reported for the state API and timeline"),
    Option("_labels", _T | _A | Place.METHOD_OPTIONS, _DICT, None,
           "labels shown in the state API",
           checks.check_labels),
    Option("_generator_backpressure_num_objects", _T | _M, _INT, None,
           "values a generator may be ahead of its consumer; -1: no limit",
           checks.check_positive_or_off),
    Option("_num_objects_per_yield", Place.TASK | Place.METHOD, _INT, 1,
           "values handed over per yield",
           checks.check_positive),
    Option("_actor_generator_backpressure_num_objects", _A, _INT, -1,
           "values all generators of an actor may be ahead; -1: no limit",
           checks.check_positive_or_off),
    Option("enable_tensor_transport", _A, _BOOL, None,
           "whether tensors may go between GPUs directly"),
    Option("tensor_transport", _M, _TEXT, None,
           "how tensors in the result travel"),
    Option("concurrency_group", _M, _TEXT, None,
           "the group whose limit the call counts against"),
)
# fmt: on

OPTIONS: Mapping[str, Option] = {option.name: option for option in _TABLE}
"""The table, by name."""

_LEGACY_NAMES = {
    "num_return_vals": "num_returns",
    "max_reconstructions": "max_restarts",
}

_NULLABLE_IN_METHODS = ("retry_exceptions", "enable_task_events")
"""Options whose None means "not given" in @method, though not elsewhere."""


def names_legal_in(place: Place) -> list[str]:
    """Return the names of the options that may be written here, in table order."""
    return [option.name for option in _TABLE if place in option.places]


def validate_task_options(options: Mapping[str, Any], *, in_options: bool) -> Options:
    """Check the options of a task.

    Args:
        options: as the user gave them.
        in_options: True for ``.options()``, False for the decorator.

    Returns:
        The options given, legacy names replaced; defaults are not filled in.

    Raises:
        TypeError: if a value is of a wrong type.
        ValueError: if a value is not allowed, an option is unknown or not legal here.
    """
    checked = _validate(options, Place.TASK_OPTIONS if in_options else Place.TASK)
    if checked.get("object_store_memory") is not None:
        raise ValueError(
            "'object_store_memory' can't be set for tasks; leave it out. The size of "
            "the object store is set in shoal.init()."
        )
    _check_strategies_agree(checked)
    return checked


def validate_actor_options(options: Mapping[str, Any], *, in_options: bool) -> Options:
    """Check the options of an actor; as :func:`validate_task_options`.

    With ``in_options``, ``get_if_exists`` is taken on trust, because the name may
    be given in the decorator: check the merged options with
    :func:`check_actor_identity`.
    """
    checked = _validate(options, Place.ACTOR_OPTIONS if in_options else Place.ACTOR)
    if checked.get("object_store_memory") is not None:
        warn_user(
            "'object_store_memory' has no effect on actors and is deprecated; leave "
            "it out."
        )
    if checked.get("name") is not None:
        checks.check_not_empty("name", checked["name"])
    if not in_options:
        check_actor_identity(checked)
    _check_strategies_agree(checked)
    return checked


def validate_method_options(options: Mapping[str, Any], *, in_options: bool) -> Options:
    """Check the options of an actor's method; as :func:`validate_task_options`.

    Raises:
        AssertionError: for an unknown option in ``@method``.
        TypeError: for an unknown option in ``.options()``, or a wrong type.
        ValueError: if a value is not allowed.
    """
    given = {
        name: value
        for name, value in options.items()
        if not (value is None and name in _NULLABLE_IN_METHODS)
    }
    return _validate(given, Place.METHOD_OPTIONS if in_options else Place.METHOD)


def check_actor_identity(options: Mapping[str, Any]) -> None:
    """Raise ValueError if ``get_if_exists`` is asked for without a name."""
    if options.get("get_if_exists") and options.get("name") is None:
        raise ValueError(
            "get_if_exists=True needs a name to look the actor up by: give name=... "
            "as well."
        )


def resolve_num_returns(
    options: Mapping[str, Any], *, is_generator: bool
) -> int | Literal["streaming", "dynamic"]:
    """Return how many values come back from a function with these options.

    Raises:
        ValueError: if it is "streaming" or "dynamic" and the function has no yield.
    """
    num_returns = options.get("num_returns")
    if num_returns is None:
        return "streaming" if is_generator else 1
    if isinstance(num_returns, int):
        return num_returns
    if not is_generator:
        raise ValueError(
            f"num_returns={num_returns!r} can only be used with generator functions, "
            "but this function has no 'yield'."
        )
    if num_returns == "dynamic":
        warn_user(
            "num_returns='dynamic' is deprecated: leave it out, and the refs of a "
            "generator's values arrive one by one."
        )
        return "dynamic"
    return "streaming"


def resolve_actor_concurrency(
    options: Mapping[str, Any], *, is_async: bool
) -> tuple[int, bool]:
    """Return how many calls an actor runs at a time, and whether they may overtake.

    Raises:
        ValueError: if order is demanded of an actor that runs several at a time.
    """
    limit = options.get("max_concurrency")
    if not limit:
        limit = DEFAULT_ASYNC_CONCURRENCY if is_async else 1
    unordered = is_async or limit > 1
    wanted = options.get("allow_out_of_order_execution")
    if unordered and wanted is False:
        kind = (
            "an async actor" if is_async else f"an actor with max_concurrency={limit}"
        )
        raise ValueError(
            f"allow_out_of_order_execution=False is not possible for {kind}: its calls "
            "run side by side. Leave it out, or use a plain actor."
        )
    return limit, unordered or bool(wanted)


def resolve_max_calls(options: Mapping[str, Any]) -> int:
    """Return after how many calls the worker ends; 0: never.

    A task that uses GPUs ends its worker unless told otherwise, because libraries keep
    GPU memory until their process ends.
    """
    max_calls = options.get("max_calls")
    if max_calls is None:
        return 1 if options.get("num_gpus") else 0
    return int(max_calls)


def resolve_strategy(options: Mapping[str, Any]) -> SchedulingStrategy | None:
    """Return the scheduling strategy, the deprecated placement-group options included.

    Raises:
        TypeError: if ``placement_group`` is not a placement group.
        ValueError: if both ways are used at once, or the group has no such bundle.
    """
    _check_strategies_agree(options)
    group = options.get("placement_group", "default")
    if isinstance(group, str) and group == "default":
        strategy: SchedulingStrategy | None = options.get("scheduling_strategy")
        return strategy
    return PlacementGroupSchedulingStrategy(
        group,
        options.get("placement_group_bundle_index", -1),
        options.get("placement_group_capture_child_tasks"),
    )


def task_resources(options: Mapping[str, Any]) -> ResourceSet:
    """Return what a task with these options holds while it runs; 1 CPU by default."""
    num_cpus = options.get("num_cpus")
    return _resources(options, 1 if num_cpus is None else num_cpus)


def actor_resources(options: Mapping[str, Any]) -> tuple[ResourceSet, ResourceSet]:
    """Return what an actor needs to be placed, and what it holds while it lives.

    An actor with no resource option needs 1 CPU on the node it is placed on and then
    holds none, so that many fit on one machine. As soon as CPUs, GPUs or custom
    resources are given, it holds what it is placed with, 1 CPU by default.
    """
    num_cpus = options.get("num_cpus")
    if num_cpus is not None:
        held = _resources(options, num_cpus)
        return held, held
    if options.get("num_gpus") is not None or options.get("resources"):
        held = _resources(options, 1)
        return held, held
    return _resources(options, 1), _resources(options, 0)


def _resources(options: Mapping[str, Any], num_cpus: float) -> ResourceSet:
    """The resource set of these options with so many CPUs."""
    amounts: dict[str, float] = {**(options.get("resources") or {}), "CPU": num_cpus}
    if options.get("num_gpus"):
        amounts["GPU"] = options["num_gpus"]
    if options.get("memory"):
        amounts["memory"] = int(options["memory"])
    if options.get("accelerator_type"):
        kind = f"accelerator_type:{options['accelerator_type']}"
        amounts[kind] = _ACCELERATOR_SHARE
    return ResourceSet(amounts)


def _validate(options: Mapping[str, Any], place: Place) -> Options:
    """Check names, types and values, and replace legacy names."""
    checked: Options = {}
    for given_name, value in options.items():
        option = OPTIONS.get(given_name)
        if option is None or place not in option.places:
            option = _legacy_or_refuse(given_name, place)
        if not isinstance(value, option.types):
            raise TypeError(_wrong_type(option, value))
        if value is not None and option.check is not None:
            option.check(option.name, value)
        checked[option.name] = value
    return checked


def _legacy_or_refuse(name: str, place: Place) -> Option:
    """The option that an old name stands for; an error if it is not an old name."""
    modern = OPTIONS.get(_LEGACY_NAMES.get(name, ""))
    if modern is not None and place in modern.places:
        warn_user(f"The option {name!r} is deprecated: use {modern.name!r}.")
        return modern
    decorator = _DECORATOR_OF.get(place)
    known = OPTIONS.get(name)
    if decorator is not None and known is not None and decorator in known.places:
        raise ValueError(
            f"Setting {name!r} is not supported in '.options()': give it where the "
            "function or class is decorated."
        )
    message = _unknown_name(name, place)
    if place is Place.METHOD:
        raise AssertionError(message)
    if place is Place.METHOD_OPTIONS:
        raise TypeError(message)
    raise ValueError(message)


def _unknown_name(name: str, place: Place) -> str:
    """What to say of an option that is not known here."""
    legal = names_legal_in(place)
    near = get_close_matches(name, legal, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return (
        f"Invalid option keyword {name} for {_KIND_OF[place]}.{hint} Valid ones are "
        f"{legal}."
    )


def _wrong_type(option: Option, value: object) -> str:
    """What to say of a value of a wrong type."""
    allowed = " or ".join(
        "None" if kind is NoneType else kind.__name__ for kind in option.types
    )
    return (
        f"The type of keyword {option.name!r} must be {allowed}, but received "
        f"{value!r} of type {type(value).__name__}."
    )


def _check_strategies_agree(options: Mapping[str, Any]) -> None:
    """Refuse a placement group beside a scheduling strategy, and what is not one."""
    group = options.get("placement_group", "default")
    if group is None or (isinstance(group, str) and group == "default"):
        return
    if not isinstance(group, PlacementGroupLike):
        raise TypeError(
            "The type of keyword 'placement_group' must be PlacementGroup, None or "
            f"'default', but received {group!r} of type {type(group).__name__}."
        )
    if options.get("scheduling_strategy") is not None:
        raise ValueError(
            "Give either scheduling_strategy or a placement group, not both: "
            "scheduling_strategy=PlacementGroupSchedulingStrategy(placement_group=...) "
            "is the current form."
        )
