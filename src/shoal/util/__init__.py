"""Tools built on the public API: pools, queues, iteration, metrics, placement.

Importing this package imports none of them: each name is looked up in its
module when it is first used.

`placement_group` is both a function here and a module of that name. Importing
the module would replace the function, so the package is of a class that keeps
the function whatever is assigned.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shoal._api.serializers import deregister_serializer as deregister_serializer
    from shoal._api.serializers import register_serializer as register_serializer
    from shoal._api.state import list_named_actors as list_named_actors
    from shoal.util.actor_pool import ActorPool as ActorPool
    from shoal.util.check_serialize import (
        inspect_serializability as inspect_serializability,
    )
    from shoal.util.iteration import as_completed as as_completed
    from shoal.util.iteration import map_unordered as map_unordered
    from shoal.util.message_gate import (
        disable_log_once_globally as disable_log_once_globally,
    )
    from shoal.util.message_gate import (
        enable_periodic_logging as enable_periodic_logging,
    )
    from shoal.util.message_gate import log_once as log_once
    from shoal.util.node_address import get_node_instance_id as get_node_instance_id
    from shoal.util.node_address import get_node_ip_address as get_node_ip_address
    from shoal.util.placement_group import (
        get_current_placement_group as get_current_placement_group,
    )
    from shoal.util.placement_group import get_placement_group as get_placement_group
    from shoal.util.placement_group import placement_group as placement_group
    from shoal.util.placement_group import (
        placement_group_table as placement_group_table,
    )
    from shoal.util.placement_group import (
        remove_placement_group as remove_placement_group,
    )

_MODULE_OF = {
    "ActorPool": "shoal.util.actor_pool",
    "as_completed": "shoal.util.iteration",
    "deregister_serializer": "shoal._api.serializers",
    "disable_log_once_globally": "shoal.util.message_gate",
    "enable_periodic_logging": "shoal.util.message_gate",
    "get_current_placement_group": "shoal.util.placement_group",
    "get_node_instance_id": "shoal.util.node_address",
    "get_node_ip_address": "shoal.util.node_address",
    "get_placement_group": "shoal.util.placement_group",
    "inspect_serializability": "shoal.util.check_serialize",
    "list_named_actors": "shoal._api.state",
    "log_once": "shoal.util.message_gate",
    "map_unordered": "shoal.util.iteration",
    "placement_group": "shoal.util.placement_group",
    "placement_group_table": "shoal.util.placement_group",
    "register_serializer": "shoal._api.serializers",
    "remove_placement_group": "shoal.util.placement_group",
}

_SUBMODULES = (
    "accelerators",
    "joblib",
    "metrics",
    "multiprocessing",
    "queue",
    "scheduling_strategies",
)

__all__ = sorted([*_MODULE_OF, "accelerators"])


class _UtilPackage(ModuleType):
    """The package, with a `placement_group` that stays the function."""

    @property
    def placement_group(self) -> Any:
        return importlib.import_module(_MODULE_OF["placement_group"]).placement_group

    @placement_group.setter
    def placement_group(self, module: ModuleType) -> None:
        # The import system binds a submodule to its name in the package. The
        # module stays reachable by `import`, the name stays the function.
        pass


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBMODULES})


sys.modules[__name__].__class__ = _UtilPackage
