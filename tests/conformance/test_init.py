"""Starting and stopping: init, its arguments, what it returns, and shutdown."""

import os

import psutil
import pytest
from conformance_impl import IS_RAY, ray, submodule

SMALL = {"address": "local", "num_cpus": 2, "include_dashboard": False}


@ray.remote
def identity(value):
    return value


@ray.remote
def variable(name):
    return os.environ.get(name)


# ---------------------------------------------------------------- a running instance


def test_second_init_is_refused(ray_session):
    """A second init raises RuntimeError and changes nothing."""
    with pytest.raises(RuntimeError, match="twice"):
        ray.init(**SMALL)
    assert ray.is_initialized()
    assert ray.get(identity.remote(1)) == 1


def test_second_init_may_be_ignored(ray_session):
    """`ignore_reinit_error=True` returns a context for the running instance."""
    context = ray.init(num_cpus=99, ignore_reinit_error=True)
    assert context.address_info["node_id"] == ray.nodes()[0]["NodeID"]
    assert ray.cluster_resources()["CPU"] == 4


def test_resources_as_asked(ray_session):
    """num_cpus and object_store_memory are what the cluster says it has."""
    resources = ray.cluster_resources()
    assert resources["CPU"] == 4
    assert resources["object_store_memory"] == 300 * 1024 * 1024
    assert resources["memory"] > 0
    assert "GPU" not in resources or resources["GPU"] > 0


def test_nodes(ray_session):
    """`nodes()` describes the one node."""
    (node,) = ray.nodes()
    assert node["Alive"] is True
    assert node["alive"] is True
    assert node["Resources"]["CPU"] == 4
    assert len(bytes.fromhex(node["NodeID"])) == 28
    assert node["Labels"]["ray.io/node-id"] == node["NodeID"]
    assert {"NodeManagerAddress", "NodeManagerHostname", "NodeName"} <= set(node)


def test_version_and_modes():
    """Version text and mode constants are there."""
    assert isinstance(ray.__version__, str)
    assert (ray.SCRIPT_MODE, ray.WORKER_MODE) == (0, 1)


# ---------------------------------------------------------------- wrong arguments


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"nonsense": 1}, RuntimeError),
        ({"resources": {"CPU": 1}}, AssertionError),
        ({"resources": {"GPU": 1}}, AssertionError),
        ({"resources": {"memory": 1}}, AssertionError),
        ({"resources": {"thing": -1}}, ValueError),
        ({"num_cpus": -1}, ValueError),
        ({"num_gpus": -1}, ValueError),
        ({"_system_config": 3}, TypeError),
        ({"object_store_memory": 1000}, ValueError),
        ({"allow_multiple": True}, RuntimeError),
        ({"num_cpus": "2"}, (AssertionError, TypeError)),
        ({"num_cpus": 1.5}, ValueError),
        ({"namespace": 3}, TypeError),
        ({"runtime_env": {"env_vars": {"A": 1}}}, TypeError),
        ({"storage": "somewhere"}, RuntimeError),
    ],
    ids=lambda value: repr(value) if isinstance(value, dict) else "",
)
def test_wrong_arguments(fresh_ray, arguments, error):
    """Wrong arguments of init raise, and nothing is running afterwards."""
    with pytest.raises(error):
        ray.init(**{**SMALL, **arguments})
    assert not ray.is_initialized()


@pytest.mark.beyond_ray(reason="Ray takes these, or fails half-way with another class")
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"labels": {"ray.io/own": "x"}}, ValueError),
        ({"labels": {"zone": 1}}, TypeError),
        ({"runtime_env": 3}, TypeError),
    ],
    ids=lambda value: repr(value) if isinstance(value, dict) else "",
)
def test_more_wrong_arguments(fresh_ray, arguments, error):
    """Reserved label names and ill-typed values are refused before anything starts."""
    with pytest.raises(error):
        ray.init(**{**SMALL, **arguments})
    assert not ray.is_initialized()


def test_unknown_argument_is_named(fresh_ray):
    """The error of an unknown argument names it."""
    with pytest.raises(RuntimeError, match="nonsense"):
        ray.init(**SMALL, nonsense=1)


def test_options_are_keyword_only():
    """Only the address is positional."""
    with pytest.raises(TypeError):
        ray.init("local", 2)


def test_auto_address_without_a_cluster(fresh_ray, tmp_path, monkeypatch):
    """`address="auto"` raises ConnectionError when no cluster is running."""
    # Where other sessions of this user on the machine are not seen.
    monkeypatch.setenv("SHOAL_TMPDIR", str(tmp_path))
    if IS_RAY and any(p.name() == "gcs_server" for p in psutil.process_iter(["name"])):
        pytest.skip("Ray would find the cluster that somebody else runs here")
    with pytest.raises(ConnectionError):
        ray.init(address="auto")
    assert not ray.is_initialized()


# ---------------------------------------------------------------- start and stop


def test_nothing_works_before_init(fresh_ray):
    """State calls do not start an instance: RaySystemError."""
    assert not ray.is_initialized()
    for call in (ray.nodes, ray.cluster_resources, ray.available_resources):
        with pytest.raises(submodule("exceptions").RaySystemError):
            call()
    assert not ray.is_initialized()
    ray.shutdown()
    ray.shutdown()


def test_context_manager_and_env_vars(fresh_ray):
    """`with init(...)` shuts down at its end; the context describes the node."""
    with ray.init(
        **SMALL,
        resources={"disk": 2},
        labels={"zone": "a"},
        runtime_env={"env_vars": {"CONFORMANCE_INIT": "yes"}},
        log_to_driver=False,
    ) as context:
        assert ray.is_initialized()
        assert context.address_info["node_id"] == ray.nodes()[0]["NodeID"]
        assert os.path.isdir(context.address_info["session_dir"])
        assert context.python_version.startswith("3.")
        assert context.ray_version == ray.__version__
        assert ray.cluster_resources()["disk"] == 2
        assert ray.nodes()[0]["Labels"]["zone"] == "a"
        own = variable.options(runtime_env={"env_vars": {"CONFORMANCE_TASK": "also"}})
        assert ray.get(variable.remote("CONFORMANCE_INIT")) == "yes"
        assert ray.get(own.remote("CONFORMANCE_INIT")) == "yes"
        assert ray.get(own.remote("CONFORMANCE_TASK")) == "also"
    assert not ray.is_initialized()


def test_remote_functions_survive_a_restart(fresh_ray):
    """A remote function can be used again after shutdown and a new init."""
    for number in range(2):
        ray.init(**SMALL, log_to_driver=False)
        assert ray.get(identity.remote(number)) == number
        ray.shutdown()
        assert not ray.is_initialized()
