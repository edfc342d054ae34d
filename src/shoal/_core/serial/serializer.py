"""Values to bytes and back, without copying what is large.

Theory.  A value is pickled once, with protocol 5.  Buffers (the memory of arrays,
frames, Arrow data) stay where they are and are copied once, straight to where they
are going; a reader gets views of that memory and copies nothing.

Layout of one *extent*, the form of a value in a message or in shared memory::

    plain    pickle stream (its first byte is 0x80)
    framed   0x01, 3 zero bytes, count n (4), length of the stream (8),
             n times offset (8) and length (8) of a buffer,
             pickle stream, then each buffer at a multiple of 64 bytes, zeros between

All numbers are little endian, offsets count from the start of the extent.  Bytes after
the extent are ignored, so an extent may lie in a larger allocation.

Invariants:

- What a reader sees through a buffer is read-only, whatever the size of the buffer.
- Buffers keep the memory of the payload alive for as long as anything uses them.
- The refs inside a value are reported once per object, in the order they were met.

Picklers are kept and used again, one per thread that is writing at the moment; making
one costs three times as much as using it.  A pickler that has seen much is dropped: its
memo and its output buffer never shrink, and clearing them would cost every later
value.  One that was left by an exception is dropped too.  A pickler writes into a list,
so that large ``bytes`` inside a value are handed over and not copied.

Does not: decide where a value goes, allocate, or know what a ref means.

Source of the buffer protocol: PEP 574.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Sequence
from pickle import PickleBuffer
from struct import Struct, pack, unpack_from
from typing import Any

from shoal._core.base.object_ref import ObjectRef
from shoal._core.serial.pickler import PROTOCOL, PartsFile, ValuePickler
from shoal._core.serial.ref_capture import Captured, begin_write, end_write
from shoal._core.serial.unserializable import explain_unserializable

#: Buffers start at multiples of this many bytes: a cache line, and the widest vector.
ALIGNMENT_BYTES = 64

#: A pickler that has written more than this at once is not used again.
_REUSE_LIMIT_BYTES = 2048

#: From this size on numpy copies faster than a slice assignment, and without the GIL.
_NUMPY_COPY_FROM_BYTES = 1 << 20
#: Memory touched for the first time takes about 1 s/GB: some 20 ms a piece.
_PIECE_BYTES = 16 << 20

_PICKLE_START = 0x80
_FRAMED_START = 0x01
_HEAD = Struct("<B3xIQ")

_loads = pickle.loads


class Serialized:
    """A value, ready to be sent or stored.

    Attributes:
        pickled: the pickle stream, protocol 5.
        buffers: memory that the stream refers to, in order; empty for most values.
            Views of the value's own memory: write them before the value changes.
        refs: the refs inside the value, in the order met, once per object.
        size: length of the extent, in bytes.
    """

    __slots__ = ("buffers", "pickled", "refs", "size")

    buffers: Sequence[memoryview]
    pickled: bytes
    refs: Sequence[ObjectRef[Any]]
    size: int

    def __init__(self, pickled: bytes, refs: Sequence[ObjectRef[Any]]) -> None:
        self.pickled = pickled
        self.buffers = ()
        self.refs = refs
        self.size = len(pickled)

    def to_bytes(self) -> bytes:
        """The extent, as one bytes object."""
        return self.pickled

    def write_into(self, target: memoryview) -> None:
        """Write the extent at the start of ``target``.

        Args:
            target: writable bytes, at least ``size`` of them, which start at a
                multiple of 64 in memory if the reader is to see aligned arrays.
        """
        target[: self.size] = self.pickled


class _LargeSerialized(Serialized):
    """A value with buffers, or whose stream is in several parts."""

    __slots__ = ("_header", "_offsets", "_parts")

    def __init__(
        self,
        parts: list[bytes],
        buffers: list[memoryview],
        refs: Sequence[ObjectRef[Any]],
    ) -> None:
        self._parts = parts
        self.buffers = buffers
        self.refs = refs
        self._offsets: list[int] = []
        self._header = b""
        stream_bytes = sum(map(len, parts))
        if not buffers:
            self.size = stream_bytes
            return
        end = _HEAD.size + 16 * len(buffers) + stream_bytes
        table: list[int] = []
        for buffer in buffers:
            start = -(-end // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
            end = start + len(buffer)
            self._offsets.append(start)
            table += (start, len(buffer))
        self.size = end
        self._header = _HEAD.pack(_FRAMED_START, len(buffers), stream_bytes) + pack(
            f"<{len(table)}Q", *table
        )

    @property
    def pickled(self) -> bytes:  # type: ignore[override]
        """The pickle stream, joined."""
        return b"".join(self._parts)

    def to_bytes(self) -> bytes:
        """The extent, as one bytes object."""
        pieces: list[bytes | memoryview] = [self._header, *self._parts]
        end = sum(map(len, pieces))
        for start, buffer in zip(self._offsets, self.buffers, strict=True):
            pieces += (bytes(start - end), buffer)
            end = start + len(buffer)
        return b"".join(pieces)

    def write_into(self, target: memoryview) -> None:
        """Write the extent at the start of ``target``."""
        end = 0
        for piece in (self._header, *self._parts):
            start, end = end, end + len(piece)
            copy_bytes(target[start:end], piece)
        for start, buffer in zip(self._offsets, self.buffers, strict=True):
            target[end:start] = bytes(start - end)
            end = start + len(buffer)
            copy_bytes(target[start:end], buffer)


def copy_bytes(target: memoryview, source: bytes | memoryview) -> None:
    """Copy bytes, with numpy where that is loaded and worth it.

    Between two pieces Python gets round to its signals: a shell may let them raise.
    """
    numpy: Any = sys.modules.get("numpy")
    if numpy is None or len(source) < _NUMPY_COPY_FROM_BYTES:
        target[:] = source
        return
    to = numpy.frombuffer(target, numpy.uint8)
    what = numpy.frombuffer(source, numpy.uint8)
    for start in range(0, len(what), _PIECE_BYTES):
        stop = start + _PIECE_BYTES
        numpy.copyto(to[start:stop], what[start:stop])


class _Writer:
    """A pickler with the lists that it writes to."""

    __slots__ = ("buffers", "clear", "dump", "globals_ref", "parts")

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.buffers: list[PickleBuffer] = []
        pickler = ValuePickler(PartsFile(self.parts), self.buffers.append)
        self.dump = pickler.dump
        self.clear = pickler.clear_memo
        self.globals_ref = pickler.globals_ref


# Taking and giving back are one bytecode each, so threads need no lock here.
_idle: list[_Writer] = []

# What the C pickler writes without asking anybody, so that no writer is needed.
_NATIVE_TYPES = frozenset((type(None), bool, int, float))
_NATIVE_TEXT_TYPES = frozenset((bytes, str))
# Longer text is better handed over by a writer than copied into the stream.
_NATIVE_TEXT_MAX = 1 << 15

_dumps = pickle.dumps


def serialize(
    value: object, what: str = "the value", name: str = "value"
) -> Serialized:
    """Pickle a value.

    Args:
        value: anything that can be pickled, functions and classes included.
            ``bytearray`` and ``memoryview`` come back as ``bytes``.
        what: how an error calls the value.
        name: how an error's path into the value begins.

    Returns:
        The stream, the buffers and the refs.  The buffers are views of the value.

    Raises:
        TypeError: something inside can't be pickled; the message says what and where.
            Other exceptions that the value's own code raises come out as they are,
            with that as a note.
    """
    cls = type(value)
    if cls in _NATIVE_TYPES or (
        cls in _NATIVE_TEXT_TYPES and len(value) <= _NATIVE_TEXT_MAX  # type: ignore[arg-type]
    ):
        return Serialized(_dumps(value, PROTOCOL), ())
    if cls is bytearray:
        value = bytes(value)  # type: ignore[call-overload]
    try:
        writer = _idle.pop()
    except IndexError:
        writer = _Writer()
    captured: Captured = {}
    outer = begin_write(captured)
    try:
        writer.dump(value)
    except Exception as error:
        explained = _explained(error, value, what, name)
        if explained is error:
            raise
        # The pickler's own complaint is quoted; only code below it is worth telling.
        step = error.__traceback__
        raise explained from (error if step and step.tb_next else None)
    finally:
        end_write(outer)
    return _finish(writer, captured)


def _finish(writer: _Writer, captured: Captured) -> Serialized:
    """Take the results out of a writer and put it back where that is worth it."""
    refs = tuple(captured.values()) if captured else ()
    parts = writer.parts
    if len(parts) > 1 or writer.buffers:
        views = [buffer.raw() for buffer in writer.buffers]
        # A large bytearray is handed over as it is, and could change before the write.
        streams = [p if type(p) is bytes else bytes(p) for p in parts]
        large = _LargeSerialized(streams, views, refs)
        if len(parts) > 1 or len(parts[0]) > _REUSE_LIMIT_BYTES:
            return large
        parts.clear()
        writer.buffers.clear()
        result: Serialized = large
    else:
        result = Serialized(parts.pop(), refs)
        if result.size > _REUSE_LIMIT_BYTES:
            return result
    writer.clear()
    if writer.globals_ref:
        writer.globals_ref.clear()
    _idle.append(writer)
    return result


def _explained(error: Exception, value: object, what: str, name: str) -> Exception:
    """The error to raise for a value whose pickling raised ``error``."""
    if isinstance(error, RecursionError):
        return TypeError(f"Could not serialize {what}: it is nested too deeply.")
    explanation = explain_unserializable(value, name)
    if isinstance(error, (TypeError, pickle.PicklingError, AttributeError)):
        return TypeError(f"Could not serialize {what}: {error}\n{explanation}")
    error.add_note(explanation)
    return error


def deserialize(payload: bytes | memoryview) -> Any:
    """Rebuild a value from its extent.

    Args:
        payload: starts with the extent; may be longer.

    Returns:
        The value.  Its arrays are read-only views of ``payload``, which stays alive as
        long as they do.

    Raises:
        ValueError: ``payload`` doesn't start with an extent.
        Exception: whatever the value's own code raises.
    """
    first = payload[0] if payload else -1
    if first == _PICKLE_START:
        return _loads(payload)
    if first != _FRAMED_START:
        raise ValueError(
            f"the payload starts with {first:#x}, and neither with a pickle stream nor "
            "with a table of buffers: it wasn't written by serialize()"
        )
    view = memoryview(payload).toreadonly()
    _, count, stream_bytes = _HEAD.unpack_from(view)
    table = unpack_from(f"<{2 * count}Q", view, _HEAD.size)
    start = _HEAD.size + 16 * count
    buffers = [
        view[offset : offset + length]
        for offset, length in zip(table[::2], table[1::2], strict=True)
    ]
    return _loads(view[start : start + stream_bytes], buffers=buffers)
