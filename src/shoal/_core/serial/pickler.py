"""The pickler of user values: cloudpickle's rules at the speed of the C pickler.

Who is asked how to reduce an object, in this order:

1. its exact type's entry in ``_reducers``: serializers that users registered, arrays,
   views, refs, and the types that cloudpickle knows better than the standard library;
2. cloudpickle, for functions and classes: by name if they can be imported by name,
   else by value;
3. the standard library: ``copyreg``'s table, then the object's own methods.

Types that the C pickler writes itself (numbers, text, bytes, built-in containers)
never get here.

Keeps the results of cloudpickle and differs in cost alone: cloudpickle looks for each
object in a chain of two tables written in Python, and wraps ``dump`` in Python.

Arrays of plain numbers get a shorter form than numpy's own, which is three times as
fast to write and to read; numpy itself is never imported here, only recognised.
"""

from __future__ import annotations

import copyreg
from _pickle import Pickler as NativePickler
from collections.abc import Callable
from pickle import PickleBuffer
from types import FunctionType
from typing import Any

import cloudpickle

from shoal._core.base.object_ref import ObjectRef
from shoal._core.serial.ref_capture import note_written

PROTOCOL = 5

#: A view of at least this many bytes is written without a copy.
_VIEW_OUT_OF_BAND_BYTES = 1 << 12

Reducer = Callable[[Any], Any]


def _reduce_ref(ref: ObjectRef[Any]) -> Any:
    """A ref inside a value that is being written belongs to that value."""
    if note_written(ref):
        return ObjectRef, (ref._id, ref._owner)
    return ref.__reduce__()


def _reduce_view(view: memoryview) -> Any:
    """A ``memoryview`` comes back as ``bytes``."""
    if view.nbytes >= _VIEW_OUT_OF_BAND_BYTES and view.c_contiguous:
        return bytes, (PickleBuffer(view),)
    return bytes, (view.tobytes(),)


#: Kinds of numpy types that ``dtype.str`` describes in full; times are told apart
#: because numpy lends out their memory as numbers only.
_NAMED_KINDS = frozenset("biufcSU")
_TIME_KINDS = frozenset("mM")


def _reduce_array(array: Any) -> Any:
    """Write an array as its class called with shape, name of its type, and memory.

    Arrays of other types are left to numpy.  Arrays with gaps are copied first, so
    that every array reaches its reader as a (read-only) buffer.
    """
    flags = array.flags
    if not flags.forc:
        array = array.copy()
    elif not flags.c_contiguous:
        return array.__reduce_ex__(PROTOCOL)
    dtype = array.dtype
    if dtype.isbuiltin != 2 and dtype.itemsize and dtype.metadata is None:
        if dtype.kind in _NAMED_KINDS:
            return type(array), (array.shape, dtype.str, PickleBuffer(array))
        if dtype.kind in _TIME_KINDS:
            numbers = array.view("i8")
            return type(array), (array.shape, dtype.str, PickleBuffer(numbers))
    return array.__reduce_ex__(PROTOCOL)


_reducers: dict[type, Reducer] = {
    **cloudpickle.Pickler._dispatch_table,
    memoryview: _reduce_view,
    ObjectRef: _reduce_ref,
}

#: Classes on the hot path that cloudpickle needn't be asked about.
_always_by_name: set[type] = {ObjectRef}

_find_reducer = _reducers.get
_cloudpickle_override = cloudpickle.Pickler.reducer_override


class ValuePickler(cloudpickle.Pickler):  # type: ignore[misc]
    """A pickler for any value, protocol 5.

    Args:
        file: has a ``write`` that takes bytes-like parts.
        buffer_callback: called with each buffer; None writes them into the stream.
    """

    # The live table of the standard library, instead of cloudpickle's chain of two.
    dispatch_table = copyreg.dispatch_table
    dump = NativePickler.dump

    def __init__(
        self, file: Any, buffer_callback: Callable[[PickleBuffer], Any] | None = None
    ) -> None:
        NativePickler.__init__(self, file, PROTOCOL, buffer_callback=buffer_callback)
        # What cloudpickle's methods expect to find.
        self.globals_ref: dict[int, dict[str, Any]] = {}
        self.proto = PROTOCOL

    def reducer_override(self, obj: Any) -> Any:
        """How to reduce ``obj``; NotImplemented for the standard library's way."""
        cls = type(obj)
        reduce = _find_reducer(cls)
        if reduce is not None:
            return reduce(obj)
        if cls is FunctionType or issubclass(cls, type):
            if cls is type and obj in _always_by_name:
                return NotImplemented
            return _cloudpickle_override(self, obj)
        if cls.__name__ == "ndarray" and cls.__module__ == "numpy":
            _always_by_name.add(cls)
            _reducers[cls] = _reduce_array
            return _reduce_array(obj)
        return NotImplemented


class PartsFile:
    """A file for a pickler: ``write`` appends to a list."""

    __slots__ = ("write",)

    def __init__(self, parts: list[bytes]) -> None:
        self.write = parts.append


def dumps_in_band(value: object) -> bytes:
    """Pickle ``value`` as one stream, its buffers included.

    Refs inside are copies that nobody counts (``ref_capture.py``).
    """
    parts: list[bytes] = []
    ValuePickler(PartsFile(parts)).dump(value)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def register_serializer(
    cls: type, *, serializer: Callable[[Any], Any], deserializer: Callable[[Any], Any]
) -> None:
    """Write the instances of exactly ``cls`` in a way of the caller's, in this process.

    Args:
        cls: the class; its subclasses are not affected.
        serializer: turns an instance into a value that can be serialized.
        deserializer: turns that value into an instance; travels with each value.

    Raises:
        TypeError: ``cls`` isn't a class.
    """
    if not isinstance(cls, type):
        raise TypeError(f"a serializer is registered for a class, got {cls!r}")

    def reduce(value: Any) -> Any:
        return deserializer, (serializer(value),)

    _reducers[cls] = reduce


def deregister_serializer(cls: type) -> None:
    """Forget the serializer of ``cls``; nothing happens where there is none."""
    standard = cloudpickle.Pickler._dispatch_table.get(cls)
    if standard is not None:
        _reducers[cls] = standard
    else:
        _reducers.pop(cls, None)
