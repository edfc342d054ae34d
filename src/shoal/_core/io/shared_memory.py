"""The node's arena as this process maps it, and the views that keep pins.

The arena is one anonymous memory file that every process of the node maps whole.  An
object's bytes are handed out as a read-only view over a small owner object; when the
last array or view over them dies, so does that owner, and the pin is given back.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from collections.abc import Callable


def create_arena(size: int) -> int:
    """Make the memory file of a node; returns its descriptor."""
    fd = os.memfd_create("shoal-arena", os.MFD_CLOEXEC)
    os.ftruncate(fd, size)
    return fd


class ArenaMap:
    """This process's mapping of the arena, made when first needed."""

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self.size = size
        self._map: mmap.mmap | None = None

    def _mapped(self) -> mmap.mmap:
        if self._map is None:
            self._map = mmap.mmap(self.fd, self.size)
        return self._map

    def unmap(self) -> None:
        """The session is over: let the memory go when the last array over it dies."""
        mapped, self._map = self._map, None
        if mapped is not None:
            try:
                mapped.close()
            except BufferError:  # arrays over it live on, and keep it
                return

    def writable(self, offset: int, size: int) -> memoryview:
        """A view to write a new object through; drop it before sealing."""
        return memoryview(self._mapped())[offset : offset + size]

    def readable(
        self, offset: int, size: int, on_release: Callable[[], object]
    ) -> memoryview:
        """A read-only view; ``on_release`` runs when nothing refers to it any more."""
        extent = (ctypes.c_char * size).from_buffer(self._mapped(), offset)
        finalizer = weakref.finalize(extent, on_release)
        finalizer.atexit = False
        return memoryview(extent).cast("B").toreadonly()
