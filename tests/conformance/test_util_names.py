"""The names of ``util`` itself and its small functions."""

import socket

import pytest
from conformance_impl import IMPL, ray, submodule


@pytest.mark.parametrize(
    "name",
    [
        "ActorPool",
        "accelerators",
        "as_completed",
        "disable_log_once_globally",
        "enable_periodic_logging",
        "get_node_instance_id",
        "get_node_ip_address",
        "inspect_serializability",
        "log_once",
        "map_unordered",
        "placement_group",
    ],
)
def test_public_names(name):
    """Each name is there and is said to be public."""
    assert hasattr(ray.util, name)
    assert name in ray.util.__all__


def test_unknown_name():
    """A name that is not there is an AttributeError."""
    with pytest.raises(AttributeError):
        ray.util.no_such_name  # noqa: B018


def test_placement_group_is_the_function():
    """Importing the module of the same name does not hide the function."""
    function = submodule("util.placement_group").placement_group
    assert ray.util.placement_group is function
    from_package = __import__(f"{IMPL}.util", fromlist=["placement_group"])
    assert from_package.placement_group is function


@pytest.mark.beyond_ray(reason="Ray imports everything at once")
def test_import_is_cheap(run_driver):
    """Importing util imports none of its modules, and no optional package."""
    done = run_driver(
        "import subprocess, sys\n"
        "code = 'import sys, shoal.util; print(*sys.modules)'\n"
        "print(subprocess.check_output([sys.executable, '-c', code], text=True))\n"
    )
    loaded = done.stdout.split()
    assert "shoal.util" in loaded, done.stderr
    assert [name for name in loaded if name.startswith("shoal.util.")] == []
    assert {"joblib", "numpy", "prometheus_client"}.isdisjoint(loaded)


def test_log_once(run_driver):
    """log_once is True once for each key, and never after it is disabled."""
    done = run_driver(
        "util = ray.util\n"
        "print([util.log_once(key) for key in ('a', 'a', 'b', 'a')])\n"
        "util.enable_periodic_logging()\n"
        "print(util.log_once('c'), util.log_once('c'))\n"
        "util.disable_log_once_globally()\n"
        "print(util.log_once('d'))\n"
    )
    assert done.stdout.splitlines() == [
        "[True, False, True, False]",
        "True False",
        "False",
    ]


def test_node_address():
    """The address of this node is one that a socket can be bound to."""
    address = ray.util.get_node_ip_address()
    with socket.socket() as probe:
        probe.bind((address, 0))


def test_instance_id(monkeypatch):
    """The instance id is what the environment says."""
    monkeypatch.setenv("RAY_CLOUD_INSTANCE_ID", "i-123")
    assert ray.util.get_node_instance_id() == "i-123"


def test_accelerator_names():
    """Accelerator types are plain strings."""
    accelerators = submodule("util.accelerators")
    assert accelerators.NVIDIA_TESLA_V100 == "V100"
    assert accelerators.NVIDIA_A100 == "A100"
    assert accelerators.GOOGLE_TPU_V4 == "TPU-V4"
    assert accelerators.AMD_INSTINCT_MI300x == "AMD-Instinct-MI300X-OAM"
