"""JobConfig and LoggingConfig: their checks, and what they do to `init`."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from shoal._api.init_arguments import InitArguments, parse_init_arguments
from shoal._api.job_config import JobConfig, with_job_config
from shoal._api.logging_config import (
    LoggingConfig,
    logging_facts,
    set_up_driver_logging,
)


def arguments(**given: Any) -> InitArguments:
    return parse_init_arguments(given, {})


# ----------------------------------------------------------------------- JobConfig


def test_job_config_fills_in_what_init_does_not_say() -> None:
    config = JobConfig(
        runtime_env={"env_vars": {"A": "1"}},
        ray_namespace="mine",
        metadata={"owner": "me"},
    )
    merged = with_job_config(arguments(job_config=config))
    assert merged.runtime_env == {"env_vars": {"A": "1"}}
    assert merged.namespace == "mine"
    assert config.metadata == {"owner": "me"}


def test_arguments_of_init_count_first() -> None:
    config = JobConfig(runtime_env={"env_vars": {"A": "1"}}, ray_namespace="mine")
    own = {"env_vars": {"B": "2"}}
    merged = with_job_config(
        arguments(job_config=config, runtime_env=own, namespace="other")
    )
    assert merged.runtime_env == own
    assert merged.namespace == "other"


def test_no_job_config_changes_nothing() -> None:
    plain = arguments(num_cpus=2)
    assert with_job_config(plain) is plain


def test_job_config_from_json() -> None:
    config = JobConfig.from_json(
        {"ray_namespace": "n", "runtime_env": {"env_vars": {}}, "metadata": {"k": "v"}}
    )
    assert (config.ray_namespace, config.metadata) == ("n", {"k": "v"})


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"default_actor_lifetime": "for ever"}, ValueError),
        ({"default_actor_lifetime": "detached"}, NotImplementedError),
        ({"jvm_options": ["-Xmx1g"]}, NotImplementedError),
        ({"code_search_path": ["/x"]}, NotImplementedError),
        ({"metadata": {"k": 1}}, TypeError),
        ({"runtime_env": {"env_vars": {"A": 1}}}, TypeError),
    ],
)
def test_wrong_job_configs(given: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        JobConfig(**given)


def test_job_config_of_another_type() -> None:
    with pytest.raises(TypeError, match="JobConfig"):
        with_job_config(arguments(job_config={"ray_namespace": "n"}))


# ------------------------------------------------------------------- LoggingConfig


class Captured:
    """What was written to standard error since it was last asked."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def lines(self) -> list[str]:
        return self._capsys.readouterr().err.splitlines()


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Iterator[Captured]:
    """Standard error, and the loggers as they were afterwards."""
    root, own = logging.getLogger(), logging.getLogger("shoal")
    before = [(one, one.level, list(one.handlers)) for one in (root, own)]
    yield Captured(capsys)
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers


def test_json_lines(stderr: Captured) -> None:
    config = LoggingConfig(encoding="JSON", additional_log_standard_attrs=["name"])
    set_up_driver_logging(arguments(logging_config=config))
    logging.getLogger("mine").info("hello %s", "you", extra={"answer": 42})
    logging.getLogger("mine").debug("below the level")
    (line,) = stderr.lines()
    said = json.loads(line)
    assert said["message"] == "hello you"
    assert said["levelname"] == "INFO"
    assert said["filename"] == "test_job_and_logging_config.py"
    assert (said["name"], said["answer"]) == ("mine", 42)
    assert {"asctime", "lineno", "process", "timestamp_ns"} <= set(said)


def test_json_has_the_traceback(stderr: Captured) -> None:
    set_up_driver_logging(arguments(logging_config=LoggingConfig(encoding="JSON")))
    try:
        raise KeyError("lost")
    except KeyError:
        logging.exception("oh")
    (line,) = stderr.lines()
    assert "KeyError: 'lost'" in json.loads(line)["exc_text"]


def test_text_lines(stderr: Captured) -> None:
    set_up_driver_logging(arguments(logging_config=LoggingConfig(log_level="WARNING")))
    logging.info("below the level")
    logging.warning("careful", extra={"answer": 42})
    (line,) = stderr.lines()
    assert "WARNING test_job_and_logging_config.py:" in line
    assert "-- careful answer=42 timestamp_ns=" in line


def test_a_second_config_takes_the_place_of_the_first(stderr: Captured) -> None:
    for encoding in ("JSON", "TEXT"):
        config = LoggingConfig(encoding=encoding)
        set_up_driver_logging(arguments(logging_config=config))
    logging.info("once")
    (line,) = stderr.lines()
    assert "-- once" in line


def test_handlers_of_the_program_stay(stderr: Captured) -> None:
    own = logging.NullHandler()
    logging.getLogger().addHandler(own)
    set_up_driver_logging(arguments(logging_config=LoggingConfig()))
    assert own in logging.getLogger().handlers


def test_level_of_the_logger_shoal(stderr: Captured) -> None:
    set_up_driver_logging(arguments(logging_level="error"))
    assert logging.getLogger("shoal").level == logging.ERROR
    set_up_driver_logging(arguments(logging_level="debug", configure_logging=False))
    assert logging.getLogger("shoal").level == logging.ERROR


@pytest.mark.parametrize(
    "given",
    [
        {"encoding": "XML"},
        {"log_level": "LOUD"},
        {"additional_log_standard_attrs": ["colour"]},
    ],
)
def test_wrong_logging_configs(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"XML|LOUD|colour"):
        LoggingConfig(**given)


def test_logging_config_of_another_type() -> None:
    assert logging_facts(None) is None
    with pytest.raises(TypeError, match="LoggingConfig"):
        logging_facts({"encoding": "JSON"})
