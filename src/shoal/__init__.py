"""shoal: tasks, actors and shared objects on one machine or many.

The public API is Ray's: ``import shoal as ray`` runs a Ray program as it stands.
"""

from __future__ import annotations

from shoal import exceptions
from shoal._api.actor_handle import get_actor, kill, method
from shoal._api.generators import ObjectRefGenerator
from shoal._api.objects import cancel, get, put, wait
from shoal._api.remote_decorator import remote
from shoal._api.session import init, is_initialized, shutdown
from shoal._core.base.generators import DynamicObjectRefGenerator
from shoal._core.base.object_ref import ObjectRef

__version__ = "0.1.0"
