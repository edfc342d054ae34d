"""Ways of a program's own to write its classes, for this process and its workers.

The table itself is the pickler's (``serial.pickler``); the API reaches it through here.
"""

from __future__ import annotations

from shoal._core.serial.pickler import deregister_serializer, register_serializer

__all__ = ["deregister_serializer", "register_serializer"]
