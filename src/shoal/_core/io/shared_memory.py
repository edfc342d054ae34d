"""The node's arena as this process maps it, and the views that keep pins.

The arena is one anonymous memory file that every process of the node maps whole.  An
object's bytes are handed out as a read-only view over a small owner object; when the
last array or view over them dies, so does that owner, and the pin is given back.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import weakref
from collections.abc import Callable

from shoal._core.io import interrupts

#: Copies at least this large go through numpy, when the program has it: it copies
#: with wider instructions than a memoryview assignment and without the GIL.
_NUMPY_COPY_BYTES = 1 << 20
#: Fresh memory takes about 1 s/GB: pieces of this size take well under 0.1 s.
_PIECE_BYTES = 64 << 20


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


def copy_into(target: memoryview, source: memoryview) -> None:
    """Copy bytes as fast as this process can; in pieces, so that Ctrl-C gets through.

    Raises:
        KeyboardInterrupt: the user had enough; the target is written in part.
    """
    size = len(source)
    if size <= _PIECE_BYTES:
        _copy_piece(target[:size], source)
        return
    for start in range(0, size, _PIECE_BYTES):
        if interrupts.pending:
            interrupts.check()
        stop = min(start + _PIECE_BYTES, size)
        _copy_piece(target[start:stop], source[start:stop])


def _copy_piece(target: memoryview, source: memoryview) -> None:
    numpy = sys.modules.get("numpy") if len(source) >= _NUMPY_COPY_BYTES else None
    if numpy is None:
        target[:] = source
    else:
        numpy.copyto(
            numpy.frombuffer(target, dtype=numpy.uint8),
            numpy.frombuffer(source, dtype=numpy.uint8),
        )
