"""Checks of single option values, beyond their type.

Each takes the option's name and a value of a right type and raises ValueError (or
TypeError for what is inside a container) saying what is allowed. ``options`` names
them in its table.

What it does not do: know which option is legal where, or look at two at once.
"""

import os
from collections.abc import Iterable
from inspect import isclass

from shoal._api.scheduling import STRATEGY_NAMES
from shoal._core.base.labels import parse_selector
from shoal._core.base.resources import to_units

_OWN_OPTION = {
    "CPU": "num_cpus",
    "GPU": "num_gpus",
    "memory": "memory",
    "object_store_memory": "object_store_memory",
}
_FALLBACK_KEYS = ("label_selector",)
_ENVIRONMENT_BUILDERS = ("pip", "uv", "conda")


def check_quantity(name: str, value: float) -> None:
    """A resource quantity: not negative, and not finer than 0.0001."""
    to_units(name, value)


def check_unit_instances(name: str, value: float) -> None:
    """A quantity of something that is shared singly or given whole."""
    to_units(name, value)
    if value > 1 and value != int(value):
        raise ValueError(
            f"{name} above 1 must be a whole number, but is {value!r}: a share of "
            "several devices is not possible. Use a value up to 1, or a whole number."
        )


def check_resources(name: str, value: dict[object, object]) -> None:
    """Custom resources: text to quantity, without those that have their own option."""
    for resource, quantity in value.items():
        if not isinstance(resource, str):
            raise TypeError(
                f"The names in {name!r} must be str, but one is {resource!r} of type "
                f"{type(resource).__name__}."
            )
        if resource in _OWN_OPTION:
            raise ValueError(
                f"Use the option {_OWN_OPTION[resource]!r} instead of {resource!r} in "
                f"{name!r}."
            )
        if not isinstance(quantity, int | float):
            raise TypeError(
                f"The quantity of {resource!r} in {name!r} must be a number, but is "
                f"{quantity!r} of type {type(quantity).__name__}."
            )
        to_units(resource, quantity)


def check_count(name: str, value: int) -> None:
    """A count from 0 up."""
    if value < 0:
        raise ValueError(f"{name} must be 0 or a positive integer, but is {value}.")


def check_count_or_unlimited(name: str, value: int) -> None:
    """A count from 0 up, or -1 for no limit."""
    if value < -1:
        raise ValueError(
            f"{name} must be 0, a positive integer, or -1 for no limit, but is {value}."
        )


def check_positive(name: str, value: int) -> None:
    """A count from 1 up."""
    if value < 1:
        raise ValueError(f"{name} must be a positive integer, but is {value}.")


def check_positive_or_off(name: str, value: int) -> None:
    """A limit from 1 up, or negative for none."""
    if value == 0:
        raise ValueError(
            f"{name} must be a positive integer, or -1 for no limit, but is 0, which "
            "would let nothing through."
        )


def check_num_returns(name: str, value: int | str) -> None:
    """How many values come back: a count, or one of two words."""
    if isinstance(value, str):
        if value not in ("streaming", "dynamic"):
            raise TypeError(
                f"{name} must be an int from 0 up, 'streaming', 'dynamic' or None, but "
                f"is {value!r}."
            )
    elif value < 0:
        raise ValueError(
            f"{name} must be an int from 0 up, 'streaming', 'dynamic' or None (1, or "
            f"'streaming' for a generator), but is {value}."
        )


def check_retry_exceptions(name: str, value: bool | Iterable[object]) -> None:
    """Which exceptions to retry on: all, none, or these classes."""
    if isinstance(value, bool):
        return
    for kind in value:
        if not (isclass(kind) and issubclass(kind, Exception)):
            raise ValueError(
                f"{name} must be a bool or a list of exception classes, but the list "
                f"has {kind!r}, which is not a subclass of Exception."
            )


def check_not_empty(name: str, value: str) -> None:
    """Text that names something."""
    if not value:
        raise ValueError(f"{name} must not be empty. Leave it out, or use None.")


def check_lifetime(name: str, value: str) -> None:
    """How long an actor lives."""
    if value not in ("detached", "non_detached"):
        raise ValueError(
            f"{name} must be 'detached', 'non_detached' or None, but is {value!r}."
        )


def check_label_selector(name: str, value: dict[str, str]) -> None:
    """A label selector as the user writes it."""
    parse_selector(value)


def check_labels(name: str, value: dict[object, object]) -> None:
    """Labels: text to text."""
    for label, text in value.items():
        if not isinstance(label, str) or not isinstance(text, str):
            raise TypeError(f"{name} must map str to str, but has {label!r}: {text!r}.")


def check_fallback_strategy(name: str, value: list[object]) -> None:
    """What else would do, in order of preference, each by label selector."""
    for step in value:
        if not isinstance(step, dict) or not step:
            raise ValueError(
                f"{name} must be a list of dicts such as "
                f"{{'label_selector': {{'zone': 'a'}}}}, but has {step!r}."
            )
        for key, selector in step.items():
            if key not in _FALLBACK_KEYS:
                raise ValueError(
                    f"Unsupported option {key!r} in {name}: only "
                    f"{list(_FALLBACK_KEYS)} can be given."
                )
            if not isinstance(selector, dict):
                raise TypeError(
                    f"'label_selector' in {name} must be a dict, but is {selector!r}."
                )
            parse_selector(selector)


def check_strategy(name: str, value: object) -> None:
    """A scheduling strategy that is written as a string must be a known one."""
    if isinstance(value, str) and value not in STRATEGY_NAMES:
        raise ValueError(
            f"{name} must be one of {list(STRATEGY_NAMES)}, a strategy from "
            f"shoal.util.scheduling_strategies or None, but is {value!r}."
        )


def check_concurrency_groups(name: str, value: dict[object, object]) -> None:
    """Named groups and how many calls each runs at a time."""
    for group, limit in value.items():
        if not isinstance(group, str) or not isinstance(limit, int):
            raise TypeError(
                f"{name} must map str to int, such as {{'io': 2}}, but has "
                f"{group!r}: {limit!r}."
            )
        check_positive(f"The limit of concurrency group {group!r}", limit)


def check_runtime_env(name: str, value: dict[str, object]) -> None:
    """The parts of a runtime environment that can be judged without building it."""
    check_env_vars(name, value.get("env_vars"))
    builders = [kind for kind in _ENVIRONMENT_BUILDERS if value.get(kind) is not None]
    if len(builders) > 1:
        raise ValueError(f"{name} can have only one of {builders}.")
    locations = [value.get("working_dir")]
    modules = value.get("py_modules")
    if isinstance(modules, list | tuple):
        locations.extend(modules)
    for location in locations:
        if isinstance(location, str | os.PathLike) and "://" not in str(location):
            raise ValueError(
                f"{str(location)!r} in {name} is not a valid URI. Directories of this "
                "machine can be uploaded for a whole job only: give them to "
                "shoal.init(runtime_env=...)."
            )


def check_env_vars(name: str, variables: object) -> None:
    """Environment variables: text to text."""
    if variables is None:
        return
    if not isinstance(variables, dict):
        raise TypeError(
            f"'env_vars' in {name} must be a dict of str to str, but is of type "
            f"{type(variables).__name__}."
        )
    for variable, text in variables.items():
        if not isinstance(variable, str) or not isinstance(text, str):
            raise TypeError(
                f"'env_vars' in {name} must be a dict of str to str, but has "
                f"{variable!r}: {text!r}."
            )
