"""The public RuntimeEnv: what it takes, what it refuses, how it behaves as a dict."""

from __future__ import annotations

import json
import logging
import pickle
from pathlib import Path

import pytest

from shoal._api.environments import checked_environment
from shoal.exceptions import RuntimeEnvSetupError
from shoal.runtime_env import RuntimeEnv, RuntimeEnvConfig


def test_empty_fields_are_no_fields() -> None:
    assert RuntimeEnv() == {}
    assert RuntimeEnv(env_vars=None, pip=[], py_modules=[], env_vars_extra=None) == {}


def test_fields_are_kept_as_given(tmp_path: Path) -> None:
    environment = RuntimeEnv(
        working_dir=str(tmp_path),
        py_modules=[json, tmp_path, "file:///m.whl"],
        env_vars={"A": "1"},
        excludes=["*.csv"],
        worker_process_setup_hook="package.setup",
    )
    assert environment == {
        "working_dir": str(tmp_path),
        "py_modules": [json, str(tmp_path), "file:///m.whl"],
        "env_vars": {"A": "1"},
        "excludes": ["*.csv"],
        "worker_process_setup_hook": "package.setup",
    }
    assert environment.env_vars() == {"A": "1"}
    assert environment.working_dir() == str(tmp_path)
    assert environment.has_working_dir()
    assert environment.py_modules() == [json, str(tmp_path), "file:///m.whl"]
    assert RuntimeEnv().working_dir() is None
    assert isinstance(environment, dict)


@pytest.mark.parametrize(
    ("fields", "error", "told"),
    [
        ({"env_vars": {"a": 1}}, TypeError, "has 'a': 1"),
        ({"env_vars": ["a"]}, TypeError, "not list"),
        ({"env_vars": {"": "x"}}, ValueError, "must not be empty"),
        ({"env_vars": {"A=B": "x"}}, ValueError, "'='"),
        ({"env_vars": {"A": "x\0"}}, ValueError, "null character"),
        ({"working_dir": 1}, TypeError, "must be str, not int"),
        ({"working_dir": "/not/there"}, ValueError, "not a valid path"),
        ({"working_dir": "s3://bucket/x"}, ValueError, "must be an archive"),
        ({"working_dir": __file__}, ValueError, "must be a folder"),
        ({"py_modules": "."}, TypeError, "must be a list"),
        ({"py_modules": [3]}, TypeError, "not int: 3"),
        ({"py_modules": ["/not/there"]}, ValueError, "not a valid path"),
        ({"excludes": "*.x"}, TypeError, "list of str"),
        ({"excludes": [1]}, TypeError, "list of str"),
        ({"config": [1]}, TypeError, "dict or RuntimeEnvConfig"),
        ({"worker_process_setup_hook": 3}, TypeError, "not int"),
        ({"worker_process_setup_hook": "nodot"}, ValueError, "module.function"),
        ({"pip": ["a"], "conda": "b"}, ValueError, "only one of"),
        ({"pip": ["a"], "uv": ["b"]}, ValueError, "pip and uv"),
    ],
)
def test_mistakes_are_told_at_once(
    fields: dict[str, object], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        RuntimeEnv(**fields)  # type: ignore[arg-type]
    with pytest.raises(error, match=told):
        checked_environment(fields)
    *others, (name, value) = fields.items()
    changed = RuntimeEnv(_validate=False, **dict(others))
    with pytest.raises(error, match=told):
        changed[name] = value
    assert changed == dict(others)


def test_a_module_file_can_be_a_py_module_but_no_working_dir() -> None:
    assert RuntimeEnv(py_modules=[__file__]).py_modules() == [__file__]


@pytest.mark.parametrize(
    "field", ["pip", "uv", "conda", "container", "image_uri", "py_executable", "nsight"]
)
def test_what_comes_later_says_so_and_what_to_do(field: str) -> None:
    with pytest.raises(RuntimeEnvSetupError, match=f"'{field}'.*later version") as told:
        RuntimeEnv(**{field: "x"})  # type: ignore[arg-type]
    assert "Install" in str(told.value) or "rogram" in str(told.value)


def test_unknown_fields_are_kept_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, logger="shoal"):
        assert RuntimeEnv(env_var={"A": "1"}) == {"env_var": {"A": "1"}}
    assert "no field 'env_var'" in caplog.text
    assert "env_vars" in caplog.text
    caplog.clear()
    RuntimeEnv(_ray_release="2.60.0")
    assert caplog.text == ""


def test_validation_can_be_left_out() -> None:
    assert RuntimeEnv(env_vars={"a": 1}, _validate=False) == {"env_vars": {"a": 1}}


def test_setting_fields_checks_them() -> None:
    environment = RuntimeEnv(env_vars={"A": "1"})
    environment["env_vars"] = {"B": "2"}
    environment.set("excludes", ["x"])
    assert environment == {"env_vars": {"B": "2"}, "excludes": ["x"]}
    environment["excludes"] = None
    environment["excludes"] = None
    environment["env_vars"] = {}
    assert environment == {}


def test_copies_by_pickle_and_by_json() -> None:
    environment = RuntimeEnv(env_vars={"A": "1"}, config={"eager_install": False})
    for copy in (
        pickle.loads(pickle.dumps(environment)),
        RuntimeEnv.deserialize(environment.serialize()),
    ):
        assert copy == environment
        assert type(copy) is RuntimeEnv
    assert type(environment.to_dict()) is dict
    with pytest.raises(TypeError):
        RuntimeEnv(worker_process_setup_hook=print).serialize()


def test_the_public_path_is_shown() -> None:
    assert RuntimeEnv.__module__ == "shoal.runtime_env"
    assert RuntimeEnvConfig.__module__ == "shoal.runtime_env"


def test_config_defaults() -> None:
    expected = {"setup_timeout_seconds": 600, "eager_install": True, "log_files": []}
    assert RuntimeEnvConfig() == expected
    assert RuntimeEnvConfig(-1).to_dict() == {**expected, "setup_timeout_seconds": -1}
    assert RuntimeEnv(config={"setup_timeout_seconds": 5})["config"] == {
        **expected,
        "setup_timeout_seconds": 5,
    }
    given = RuntimeEnv(config=RuntimeEnvConfig(log_files=["a"]))
    assert given["config"] == {**expected, "log_files": ["a"]}


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"setup_timeout_seconds": 0}, ValueError),
        ({"setup_timeout_seconds": -5}, ValueError),
        ({"setup_timeout_seconds": "1"}, TypeError),
        ({"setup_timeout_seconds": 1.5}, TypeError),
        ({"setup_timeout_seconds": True}, TypeError),
        ({"eager_install": 1}, TypeError),
        ({"log_files": "x"}, TypeError),
        ({"log_files": [1]}, TypeError),
    ],
)
def test_bad_configs_are_refused(
    fields: dict[str, object], error: type[Exception]
) -> None:
    (name,) = fields
    with pytest.raises(error, match=name):
        RuntimeEnvConfig(**fields)  # type: ignore[arg-type]
    with pytest.raises(error, match=name):
        RuntimeEnv(config=fields)


def test_unknown_config_entries_are_told_and_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, logger="shoal"):
        assert "zz" not in RuntimeEnv(config={"zz": 5})["config"]
    assert "zz" in caplog.text
