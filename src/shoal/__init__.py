"""shoal: tasks, actors and shared objects on one machine or many.

The public API is Ray's: ``import shoal as ray`` runs a Ray program as it stands.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from shoal import exceptions
from shoal._api.actor_handle import get_actor, kill, method
from shoal._api.client_builder import ClientBuilder, client
from shoal._api.cross_language import (
    Language,
    cpp_function,
    java_actor_class,
    java_function,
)
from shoal._api.drop_in import install_as_ray
from shoal._api.generators import ObjectRefGenerator
from shoal._api.logging_config import LoggingConfig
from shoal._api.objects import cancel, get, put, wait
from shoal._api.remote_decorator import remote
from shoal._api.runtime_context import get_runtime_context
from shoal._api.session import init, is_initialized, shutdown
from shoal._api.state import (
    available_resources,
    cluster_resources,
    error_info,
    get_gpu_ids,
    get_resource_ids,
    metric_snapshots,
    nodes,
    timeline,
)
from shoal._core.base.generators import DynamicObjectRefGenerator
from shoal._core.base.identifiers import (
    ActorClassID,
    ActorID,
    FunctionID,
    JobID,
    NodeID,
    PlacementGroupID,
    TaskID,
    UniqueID,
    WorkerID,
)
from shoal._core.base.object_ref import ObjectRef
from shoal._core.base.version import VERSION as __version__

if TYPE_CHECKING:
    from shoal import actor as actor
    from shoal import cloudpickle as cloudpickle
    from shoal import experimental as experimental
    from shoal import job_config as job_config
    from shoal import remote_function as remote_function
    from shoal import runtime_context as runtime_context
    from shoal import runtime_env as runtime_env
    from shoal import types as types
    from shoal import util as util

__commit__ = ""

#: What a process is for: Ray's constants.  ``init`` makes a driver, "script mode".
SCRIPT_MODE, WORKER_MODE, LOCAL_MODE = 0, 1, 2

#: The old name.
ObjectID = ObjectRef

__all__ = [
    "LOCAL_MODE",
    "SCRIPT_MODE",
    "WORKER_MODE",
    "ActorClassID",
    "ActorID",
    "ClientBuilder",
    "DynamicObjectRefGenerator",
    "FunctionID",
    "JobID",
    "Language",
    "LoggingConfig",
    "NodeID",
    "ObjectID",
    "ObjectRef",
    "ObjectRefGenerator",
    "PlacementGroupID",
    "TaskID",
    "UniqueID",
    "WorkerID",
    "__commit__",
    "__version__",
    "actor",
    "available_resources",
    "cancel",
    "client",
    "cloudpickle",
    "cluster_resources",
    "cpp_function",
    "error_info",
    "exceptions",
    "experimental",
    "get",
    "get_actor",
    "get_gpu_ids",
    "get_resource_ids",
    "get_runtime_context",
    "init",
    "install_as_ray",
    "is_initialized",
    "java_actor_class",
    "java_function",
    "job_config",
    "kill",
    "method",
    "metric_snapshots",
    "nodes",
    "put",
    "remote",
    "remote_function",
    "runtime_context",
    "runtime_env",
    "shutdown",
    "timeline",
    "types",
    "util",
    "wait",
]

#: Imported when they are first asked for.
_SUBMODULES = (
    "actor",
    "cloudpickle",
    "experimental",
    "job_config",
    "remote_function",
    "runtime_context",
    "runtime_env",
    "types",
    "util",
)

#: Parts of Ray that are not part of this version.
_ABSENT = (
    "air",
    "autoscaler",
    "dag",
    "data",
    "internal",
    "job_submission",
    "rllib",
    "serve",
    "train",
    "tune",
    "widgets",
    "workflow",
)


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    reason = (
        f": {name!r} of Ray is not part of this version, which has tasks, actors, "
        "objects and their utilities"
        if name in _ABSENT
        else ""
    )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}{reason}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
