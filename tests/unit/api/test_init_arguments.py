"""Arguments of init: taken over, refused with a reason, or warned about."""

import logging
import warnings

import pytest

from shoal._api.init_arguments import (
    HIDDEN_PARAMETERS,
    PARAMETERS,
    auto_init_allowed,
    parse_init_arguments,
)


def parse(environment=None, **given):
    return parse_init_arguments(given, environment or {})


def test_defaults_ask_for_nothing_special():
    parsed = parse()
    assert parsed == parse(**PARAMETERS, **HIDDEN_PARAMETERS)
    assert parsed.num_cpus is None
    assert parsed.object_store_bytes is None
    assert parsed.resources == parsed.labels == parsed.runtime_env == {}
    assert parsed.system_config == {}
    assert parsed.log_to_driver
    assert parsed.logging_level == logging.INFO
    assert not parsed.local_mode


def test_values_are_taken_over():
    parsed = parse(
        num_cpus=4,
        num_gpus=2,
        resources={"custom": 1.5},
        labels={"zone": "a"},
        object_store_memory=100e6,
        _memory=1e9,
        local_mode=True,
        ignore_reinit_error=True,
        configure_logging=False,
        logging_level="warning",
        logging_format="%(message)s",
        log_to_driver=False,
        namespace="space",
        runtime_env={"env_vars": {"A": "1"}},
        _temp_dir="/somewhere",
        _node_name="mine",
        _node_ip_address="10.0.0.1",
        _metrics_export_port=8080,
        _system_config={"a": 1},
    )
    assert parsed.num_cpus == 4
    assert parsed.num_gpus == 2
    assert parsed.resources == {"custom": 1.5}
    assert parsed.labels == {"zone": "a"}
    assert parsed.object_store_bytes == 100_000_000
    assert parsed.memory_bytes == 1_000_000_000
    assert parsed.local_mode
    assert parsed.ignore_reinit_error
    assert not parsed.configure_logging
    assert parsed.logging_level == logging.WARNING
    assert parsed.logging_format == "%(message)s"
    assert not parsed.log_to_driver
    assert parsed.namespace == "space"
    assert parsed.runtime_env == {"env_vars": {"A": "1"}}
    assert parsed.temp_dir == "/somewhere"
    assert parsed.node_name == "mine"
    assert parsed.node_ip_address == "10.0.0.1"
    assert parsed.metrics_export_port == 8080
    assert parsed.system_config == {"a": 1}


@pytest.mark.parametrize(
    "given",
    [
        {"include_dashboard": False},
        {"dashboard_host": "0.0.0.0", "dashboard_port": 8265},
        {"_redis_username": "", "_redis_password": ""},
        {"_skip_env_hook": True},
        {"_enable_object_reconstruction": True},
        {"logging_level": None},
        {"logging_level": logging.ERROR},
    ],
)
def test_harmless_arguments_are_accepted(given):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parse(**given)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"foo": 1}, RuntimeError, r"Unknown keyword argument\(s\): foo"),
        ({"huge_pages": True}, RuntimeError, "Unknown keyword argument"),
        ({"storage": "/x"}, RuntimeError, "was removed"),
        ({"allow_multiple": True}, RuntimeError, "ray://"),
        ({"num_cpus": -1}, ValueError, "must be nonnegative"),
        ({"num_cpus": "4"}, TypeError, "must be int or float or None"),
        ({"num_cpus": float("inf")}, ValueError, "must be finite"),
        ({"num_gpus": 1.5}, ValueError, "whole number"),
        ({"_memory": -1}, ValueError, "must be nonnegative"),
        ({"resources": {"CPU": 1}}, AssertionError, "use num_cpus"),
        ({"resources": {"GPU": 1}}, AssertionError, "use num_gpus"),
        ({"resources": {"memory": 1}}, AssertionError, "use _memory"),
        (
            {"resources": {"object_store_memory": 1}},
            AssertionError,
            "use object_store_memory",
        ),
        ({"resources": {"a": -1}}, ValueError, "must be nonnegative"),
        ({"resources": {"a": "x"}}, TypeError, "str to numbers"),
        ({"resources": [1]}, TypeError, "must be dict or None"),
        ({"object_store_memory": 75 * 2**20 - 1}, ValueError, "75 MiB"),
        ({"object_store_memory": "1GB"}, TypeError, "int or float"),
        ({"labels": {"ray.io/zone": "a"}}, ValueError, "reserved"),
        ({"labels": {"zone": "a b"}}, ValueError, "Invalid value"),
        ({"labels": "zone=a"}, TypeError, "must be dict"),
        ({"_system_config": "{}"}, TypeError, "must be dict"),
        ({"namespace": ""}, ValueError, "must not be empty"),
        ({"namespace": 3}, TypeError, "must be str"),
        ({"runtime_env": "x"}, TypeError, "must be dict"),
        ({"runtime_env": {"env_vars": {"A": 1}}}, TypeError, "str to str"),
        ({"logging_level": "loud"}, ValueError, "logging_level"),
        ({"include_dashboard": True}, NotImplementedError, "dashboard"),
        ({"enable_resource_isolation": True}, NotImplementedError, "cgroups"),
        ({"cgroup_path": "/x"}, ValueError, "enable_resource_isolation"),
        ({"system_reserved_cpu": 1}, ValueError, "enable_resource_isolation"),
        ({"proxy_server_url": "http://x"}, NotImplementedError, "proxy"),
        ({"_tracing_startup_hook": "a:b"}, NotImplementedError, "Tracing"),
        ({"object_spilling_directory": "/x"}, NotImplementedError, "spilled"),
        ({"_plasma_directory": "/dev/shm"}, NotImplementedError, "anonymous memory"),
    ],
)
def test_what_is_refused(given, error, message):
    with pytest.raises(error, match=message):
        parse(**given)


# ------------------------------------------------------------------- addresses


@pytest.mark.parametrize("address", [None, "local"])
def test_local_sessions(address):
    assert parse(address=address) == parse()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("10.0.0.1:6379", "joins no cluster"),
        ("ray://10.0.0.1:10001", "joins no cluster"),
    ],
)
def test_clusters_can_not_be_joined(address, message):
    with pytest.raises(ConnectionError, match=message):
        parse(address=address)


@pytest.mark.parametrize("address", ["auto", "unix:/a/session_1", "/a/session_1"])
def test_local_sessions_can_be_joined(address):
    assert parse(address=address).address == address
    assert parse({"SHOAL_ADDRESS": address}).address == address
    assert parse().address is None


@pytest.mark.parametrize(
    "address", ["somewhere", ":6379", "host:", "http://x:1", "", "unix:relative"]
)
def test_malformed_addresses(address):
    with pytest.raises(ValueError, match="Malformed address"):
        parse(address=address)


@pytest.mark.parametrize(
    "given",
    [
        {"num_cpus": 0},
        {"num_gpus": 1},
        {"resources": {"a": 1}},
        {"labels": {"a": "b"}},
        {"object_store_memory": 10**9},
        {"_system_config": {"a": 1}},
        {"_enable_object_reconstruction": True},
        {"_node_name": "a"},
    ],
)
def test_what_a_cluster_has_is_settled(given):
    for address in ("10.0.0.1:6379", "unix:/a/session_1", "auto"):
        with pytest.raises(ValueError, match=f"existing cluster, {next(iter(given))}"):
            parse(address=address, **given)


def test_an_empty_configuration_settles_nothing():
    with pytest.raises(ConnectionError):
        parse(address="10.0.0.1:6379", _system_config={}, resources={})


@pytest.mark.parametrize("address", [None, "auto"])
def test_the_environment_gives_the_address(address):
    with pytest.raises(ConnectionError, match="RAY_ADDRESS"):
        parse({"RAY_ADDRESS": "10.0.0.1:6379"}, address=address)
    both = {"RAY_ADDRESS": "10.0.0.1:6379", "SHOAL_ADDRESS": "local"}
    assert parse(both, address=address) == parse()


def test_an_explicit_local_address_goes_before_the_environment():
    assert parse({"RAY_ADDRESS": "10.0.0.1:6379"}, address="local") == parse()


# ------------------------------------------------------- environment, old names


def test_the_environment_fills_in():
    environment = {
        "RAY_NAMESPACE": "theirs",
        "RAY_TMPDIR": "/t",
        "RAY_LOG_TO_DRIVER": "0",
    }
    parsed = parse(environment)
    assert parsed.namespace == "theirs"
    assert parsed.temp_dir == "/t"
    assert not parsed.log_to_driver
    assert parse({**environment, "SHOAL_NAMESPACE": "ours"}).namespace == "ours"
    assert parse(environment, namespace="given").namespace == "given"
    assert parse(environment, log_to_driver=True).log_to_driver


def test_automatic_init():
    assert auto_init_allowed({})
    assert not auto_init_allowed({"RAY_ENABLE_AUTO_CONNECT": "0"})
    assert auto_init_allowed({"SHOAL_ENABLE_AUTO_CONNECT": "1"})


def test_old_names_warn_and_work():
    with pytest.warns(DeprecationWarning, match="use '_temp_dir'"):
        assert parse(temp_dir="/t").temp_dir == "/t"
    with pytest.warns(DeprecationWarning, match="use 'include_dashboard'"):
        parse(include_webui=False)
    with pytest.warns(DeprecationWarning, match="use '_system_config'"):
        assert parse(_internal_config='{"a": 1}').system_config == {"a": 1}
    with (
        pytest.warns(DeprecationWarning, match="use 'address'"),
        pytest.raises(ConnectionError),
    ):
        parse(redis_address="12.345.67.89:6379")


@pytest.mark.parametrize("name", ["redis_password", "_redis_password"])
def test_passwords_are_a_thing_of_the_past(name):
    with pytest.warns(DeprecationWarning, match="protected by a token") as caught:
        parse(**{name: "secret"})
    assert not any("secret" in str(warning.message) for warning in caught)


def test_a_store_of_the_driver_is_a_thing_of_the_past():
    with pytest.warns(DeprecationWarning, match="has no effect"):
        parse(_driver_object_store_memory=10**8)
