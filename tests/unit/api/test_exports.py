"""The public names: what Ray has at its top level is here, and `__all__` is true."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import shoal

# Ray 2.60's public names that one machine can have, from its API reference.
OF_RAY = [
    "__commit__",
    "__version__",
    "available_resources",
    "cancel",
    "client",
    "ClientBuilder",
    "cluster_resources",
    "get",
    "get_actor",
    "get_gpu_ids",
    "get_runtime_context",
    "init",
    "is_initialized",
    "java_actor_class",
    "java_function",
    "cpp_function",
    "kill",
    "Language",
    "LoggingConfig",
    "method",
    "nodes",
    "put",
    "remote",
    "shutdown",
    "timeline",
    "wait",
    "SCRIPT_MODE",
    "WORKER_MODE",
    "actor",
    "util",
    "exceptions",
    "ActorClassID",
    "ActorID",
    "NodeID",
    "JobID",
    "WorkerID",
    "FunctionID",
    "ObjectID",
    "ObjectRef",
    "ObjectRefGenerator",
    "DynamicObjectRefGenerator",
    "TaskID",
    "UniqueID",
    "PlacementGroupID",
]

OF_OLD_RAY = ["LOCAL_MODE", "error_info", "get_resource_ids"]

SUBMODULES = {
    "actor": ["ActorClass", "ActorHandle", "ActorMethod", "exit_actor", "method"],
    "cloudpickle": ["dump", "dumps", "load", "loads", "register_pickle_by_value"],
    "exceptions": ["RayError", "RayTaskError", "GetTimeoutError"],
    "experimental": ["tqdm_ray"],
    "experimental.tqdm_ray": ["tqdm", "safe_print"],
    "job_config": ["JobConfig"],
    "remote_function": ["RemoteFunction"],
    "runtime_context": ["RuntimeContext", "get_runtime_context"],
    "runtime_env": ["RuntimeEnv", "RuntimeEnvConfig"],
    "types": ["ObjectRef"],
    "util": ["ActorPool", "list_named_actors", "register_serializer"],
}


@pytest.mark.parametrize("name", OF_RAY + OF_OLD_RAY + ["install_as_ray"])
def test_name_is_public(name: str) -> None:
    assert name in shoal.__all__
    assert hasattr(shoal, name)


def test_all_is_sorted_and_true() -> None:
    assert len(set(shoal.__all__)) == len(shoal.__all__)
    assert [name for name in shoal.__all__ if not hasattr(shoal, name)] == []
    assert set(shoal.__all__) <= set(dir(shoal))


def test_nothing_public_is_left_out_of_all() -> None:
    """A name without underscore is meant for users, or it is a module."""
    modules = {name for name in vars(shoal) if f"shoal.{name}" in sys.modules}
    helpers = {"annotations", "importlib", "TYPE_CHECKING", "Any"}
    names = {name for name in vars(shoal) if not name.startswith("_")}
    assert names - modules - helpers <= set(shoal.__all__)


@pytest.mark.parametrize("module", SUBMODULES)
def test_submodules_and_their_names(module: str) -> None:
    imported = importlib.import_module(f"shoal.{module}")
    assert [name for name in SUBMODULES[module] if not hasattr(imported, name)] == []


@pytest.mark.parametrize("module", sorted({name.split(".")[0] for name in SUBMODULES}))
def test_submodules_need_no_import_of_their_own(module: str) -> None:
    """`shoal.util.x` works after `import shoal`, as with Ray."""
    program = f"import shoal; print(shoal.{module}.__name__)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(Path(shoal.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == f"shoal.{module}"


@pytest.mark.parametrize("name", ["data", "train", "tune", "serve", "workflow"])
def test_parts_that_are_not_there_say_so(name: str) -> None:
    with pytest.raises(AttributeError, match=f"'{name}' of Ray is not part of this"):
        getattr(shoal, name)
    assert not hasattr(shoal, name)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = shoal.nonsense


def test_one_thing_under_two_names() -> None:
    assert shoal.ObjectID is shoal.ObjectRef
    assert importlib.import_module("shoal.types").ObjectRef is shoal.ObjectRef
    assert shoal.actor.method is shoal.method
    assert shoal.runtime_context.get_runtime_context is shoal.get_runtime_context


def test_version_is_that_of_the_package() -> None:
    project = Path(shoal.__file__).parents[2] / "pyproject.toml"
    stated = re.search(r'^version = "(.+)"$', project.read_text(), re.MULTILINE)
    assert stated is not None
    assert shoal.__version__ == stated[1]


@pytest.mark.parametrize(
    "call",
    [
        lambda: shoal.client("host:1"),
        lambda: shoal.ClientBuilder("host:1"),
        lambda: shoal.java_function("Class", "method"),
        lambda: shoal.java_actor_class("Class"),
        lambda: shoal.cpp_function("function"),
    ],
)
def test_what_cannot_be_served_says_why(call: object) -> None:
    assert callable(call)
    with pytest.raises(NotImplementedError, match=r"one machine|another language"):
        call()


def test_exit_actor_outside_of_actors() -> None:
    with pytest.raises(TypeError, match="not the method of an actor"):
        shoal.actor.exit_actor()
