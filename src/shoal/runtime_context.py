"""``shoal.runtime_context``: which job, node, task and actor the caller is."""

from __future__ import annotations

from shoal._api.runtime_context import RuntimeContext, get_runtime_context

__all__ = ["RuntimeContext", "get_runtime_context"]
