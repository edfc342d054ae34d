"""Ways of a program's own to write its classes; public as ``shoal.util``'s."""

from __future__ import annotations

from shoal._core.process.serializers import deregister_serializer, register_serializer

__all__ = ["deregister_serializer", "register_serializer"]
