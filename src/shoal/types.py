"""``shoal.types``: the type of references, for annotations."""

from __future__ import annotations

from shoal._core.base.object_ref import ObjectRef

__all__ = ["ObjectRef"]
