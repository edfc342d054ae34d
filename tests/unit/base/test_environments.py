"""Environments join, expand and get keys as plain data."""

from __future__ import annotations

import pytest

from shoal._core.base.environments import (
    environment_key,
    expand_variables,
    merge_environments,
)


def test_variables_are_replaced_one_by_one_and_other_fields_whole() -> None:
    parent = {"env_vars": {"A": "1", "B": "2"}, "working_dir": "x", "py_modules": ["m"]}
    child = {"env_vars": {"B": "3", "C": "4"}, "py_modules": ["n"], "working_dir": None}
    assert merge_environments(parent, child) == {
        "env_vars": {"A": "1", "B": "3", "C": "4"},
        "working_dir": "x",
        "py_modules": ["n"],
    }
    assert parent["env_vars"] == {"A": "1", "B": "2"}


def test_nothing_joins_with_anything() -> None:
    assert merge_environments(None, None) == {}
    assert merge_environments({"env_vars": {"A": "1"}}, None) == {
        "env_vars": {"A": "1"}
    }
    assert merge_environments({}, {"env_vars": {"A": "1"}}) == {"env_vars": {"A": "1"}}


@pytest.mark.parametrize(
    "environment",
    [None, {}, {"env_vars": {}}, {"config": {"eager_install": True}}, {"zzz": 1}],
)
def test_what_changes_no_worker_has_the_empty_key(
    environment: dict[str, object] | None,
) -> None:
    assert environment_key(environment) == ""


def test_keys_tell_environments_apart() -> None:
    one: dict[str, object] = {"env_vars": {"A": "1"}, "working_dir": "gcs://x.zip"}
    keys = {
        environment_key(one),
        environment_key({"env_vars": {"A": "1"}}),
        environment_key({"env_vars": {"A": "2"}}),
        environment_key({"working_dir": "gcs://x.zip"}),
        environment_key({"py_modules": ["gcs://x.zip"]}),
        environment_key({"worker_process_setup_hook": "a.b"}),
    }
    assert len(keys) == 6
    assert environment_key(dict(reversed(one.items()))) == environment_key(one)
    assert environment_key({**one, "config": {}, "zzz": 1}) == environment_key(one)


def test_what_was_not_packed_has_no_key() -> None:
    with pytest.raises(TypeError):
        environment_key({"worker_process_setup_hook": print})


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"A": "x:${PATH}"}, {"A": "x:/bin"}),
        ({"A": "$PATH/$PATH"}, {"A": "/bin//bin"}),
        ({"A": "[${NOT_THERE}$NOR_THIS]"}, {"A": "[]"}),
        ({"A": "1", "B": "${A}2"}, {"A": "1", "B": "12"}),
        ({"PATH": "/x:${PATH}", "B": "$PATH"}, {"PATH": "/x:/bin", "B": "/x:/bin"}),
        ({"A": "5$ and ${ and $1"}, {"A": "5$ and ${ and $1"}),
        ({}, {}),
    ],
)
def test_variables_are_expanded_in_order(
    asked: dict[str, str], expected: dict[str, str]
) -> None:
    assert expand_variables(asked, {"PATH": "/bin"}) == expected
