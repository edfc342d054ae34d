"""Settings come from where they should, and bad ones are refused by name."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import pytest

from shoal._core.base.config import Config, unused_ray_settings

MIB = 1 << 20


def test_defaults_are_within_their_own_limits_and_explained() -> None:
    Config()
    for name, about in Config.settings().items():
        assert about.reason.endswith((".", ":")), name
        if name.endswith("_bytes"):
            assert about.unit == "bytes", name
        if name.endswith("_s"):
            assert about.unit == "seconds", name


def test_documented_defaults() -> None:
    config = Config.from_mapping({}, {})
    assert config == Config()
    assert config.inline_limit_bytes == 102_400
    assert config.max_frame_bytes == 64 * MIB
    assert config.object_store_fraction == 0.3
    assert config.object_store_min_bytes == 75 * MIB
    assert config.task_max_retries == 3
    assert config.log_dedup_window_s == 5.0


def test_a_config_never_changes() -> None:
    with pytest.raises(FrozenInstanceError):
        Config().log_dedup = False  # type: ignore[misc]


def test_each_ray_name_belongs_to_one_setting() -> None:
    names = [made.name for made in fields(Config)]
    for about in Config.settings().values():
        names += about.ray_names
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "env",
    [
        {"SHOAL_log_dedup_window_s": "2.5"},
        {"SHOAL_LOG_DEDUP_WINDOW_S": "2.5"},
        {"SHOAL_DEDUP_LOGS_AGG_WINDOW_S": "2.5"},
        {"RAY_DEDUP_LOGS_AGG_WINDOW_S": "2.5"},
        {"RAY_DEDUP_LOGS_AGG_WINDOW_S": "9", "SHOAL_log_dedup_window_s": "2.5"},
        {"SHOAL_log_dedup_window_s": "", "RAY_log_dedup_window_s": "2.5"},
    ],
)
def test_environment_names(env: dict[str, str]) -> None:
    assert Config.from_mapping(env, {}).log_dedup_window_s == 2.5


def test_system_config_goes_before_the_environment() -> None:
    config = Config.from_mapping(
        {"SHOAL_inline_limit_bytes": "10"}, {"inline_limit_bytes": 20}
    )
    assert config.inline_limit_bytes == 20


@pytest.mark.parametrize("text", ["0", "false", "False", "no", "OFF"])
def test_switches_are_read_from_text(text: str) -> None:
    assert Config.from_mapping({"RAY_DEDUP_LOGS": text}, {}).log_dedup is False


def test_switches_take_booleans_and_zero_or_one() -> None:
    for given in (False, 0, "0"):
        assert Config.from_mapping({}, {"log_dedup": given}).log_dedup is False
    for given in (True, 1, "yes"):
        assert Config.from_mapping({}, {"log_dedup": given}).log_dedup is True


def test_rays_names_and_units_are_converted() -> None:
    config = Config.from_mapping(
        {"RAY_worker_register_timeout_seconds": "30"},
        {
            "idle_worker_killing_time_threshold_ms": 2500,
            "max_direct_call_object_size": 1000,
        },
    )
    assert config.worker_register_timeout_s == 30.0
    assert config.worker_idle_retire_s == 2.5
    assert config.inline_limit_bytes == 1000
    text = {"RAY_idle_worker_killing_time_threshold_ms": "500"}
    assert Config.from_mapping(text, {}).worker_idle_retire_s == 0.5


def test_whole_numbers_do_for_fractions() -> None:
    assert Config.from_mapping({}, {"wait_explanation_s": 3}).wait_explanation_s == 3.0


def test_names_of_ray_without_a_counterpart_are_accepted_and_told() -> None:
    asked: dict[str, object] = {"object_spilling_config": "{}", "log_dedup": True}
    assert Config.from_mapping({}, asked) == Config()
    assert unused_ray_settings(asked) == ["object_spilling_config"]


def test_unknown_names_are_refused_with_near_ones() -> None:
    with pytest.raises(ValueError, match=r"'inline_limit'.*inline_limit_bytes"):
        Config.from_mapping({}, {"inline_limit": 1})
    with pytest.raises(ValueError, match="'zzz'; is it misspelt"):
        Config.from_mapping({}, {"zzz": 1})


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ({"inline_limit_bytes": -1}, ValueError, "from 0 to"),
        ({"inline_limit_bytes": 1.5}, TypeError, "must be int, not float"),
        ({"inline_limit_bytes": True}, TypeError, "must be int, not bool"),
        ({"inline_limit_bytes": "lots"}, ValueError, "a whole number"),
        ({"lease_idle_return_s": "soon"}, ValueError, "must be a number"),
        ({"lease_idle_return_s": float("nan")}, ValueError, "must be from"),
        ({"log_dedup": "maybe"}, ValueError, "must be 1 or 0"),
        ({"log_dedup": 2}, TypeError, "must be bool"),
        ({"log_dedup_skip_regex": 3}, TypeError, "must be str"),
        ({"color_prefix": "blue"}, ValueError, "must be one of '', '0', '1'"),
        ({"object_store_fraction": 2}, ValueError, "fraction"),
    ],
)
def test_bad_values_are_refused_and_say_where_they_were(
    given: dict[str, object], error: type[Exception], told: str
) -> None:
    (name,) = given
    with pytest.raises(error, match=told) as caught:
        Config.from_mapping({}, given)
    assert f"_system_config['{name}']" in str(caught.value)


def test_a_bad_variable_is_named() -> None:
    with pytest.raises(ValueError, match="RAY_DEDUP_LOGS must be"):
        Config.from_mapping({"RAY_DEDUP_LOGS": "perhaps"}, {})


@pytest.mark.parametrize(
    "given",
    [
        {"function_size_warn_bytes": 10, "function_size_limit_bytes": 5},
        {"object_store_min_bytes": 100 * MIB, "object_store_max_bytes": 50 * MIB},
    ],
)
def test_settings_that_contradict_each_other_are_refused(given: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must not be above"):
        Config(**given)  # type: ignore[arg-type]
