"""``shoal.cloudpickle``: the pickler of functions and classes, under Ray's name for it.

It is the package ``cloudpickle`` itself.  Pickles of refs made with it travel outside
of shoal: the objects stay until the process that made the pickle ends.
"""

from __future__ import annotations

from cloudpickle import (
    DEFAULT_PROTOCOL,
    CloudPickler,
    Pickler,
    dump,
    dumps,
    load,
    loads,
    register_pickle_by_value,
    unregister_pickle_by_value,
)

__all__ = [
    "DEFAULT_PROTOCOL",
    "CloudPickler",
    "Pickler",
    "dump",
    "dumps",
    "load",
    "loads",
    "register_pickle_by_value",
    "unregister_pickle_by_value",
]
