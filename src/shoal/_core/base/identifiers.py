"""The id classes users meet: printable, hashable, comparable values over bytes.

Inside, ids are plain ``bytes`` with ``NewType`` names (``base/ids.py``): they cost
nothing.  These classes exist at the public surface only.

Source: Ray's API reference (``ray.TaskID``, ``ray.ActorID``, …), names and methods.
"""

from __future__ import annotations

from typing import ClassVar, Self


class BaseID:
    """An id of ``LENGTH`` bytes."""

    LENGTH: ClassVar[int] = 16
    __slots__ = ("_bytes",)

    def __init__(self, value: bytes) -> None:
        if len(value) != self.LENGTH:
            raise ValueError(
                f"{type(self).__name__} has {self.LENGTH} bytes, got {len(value)}"
            )
        self._bytes = bytes(value)

    @classmethod
    def from_hex(cls, text: str) -> Self:
        """Parse an id from hexadecimal digits."""
        return cls(bytes.fromhex(text))

    @classmethod
    def nil(cls) -> Self:
        """The id of nothing: all bits set."""
        return cls(b"\xff" * cls.LENGTH)

    @classmethod
    def size(cls) -> int:
        """Length in bytes."""
        return cls.LENGTH

    def binary(self) -> bytes:
        """The id as bytes."""
        return self._bytes

    def hex(self) -> str:
        """The id in hexadecimal."""
        return self._bytes.hex()

    def is_nil(self) -> bool:
        """Whether this is the id of nothing."""
        return self._bytes == b"\xff" * self.LENGTH

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._bytes == self._bytes

    def __hash__(self) -> int:
        return hash(self._bytes)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._bytes.hex()})"

    def __reduce__(self) -> tuple[type[Self], tuple[bytes]]:
        return type(self), (self._bytes,)


class UniqueID(BaseID):
    """An id with no structure."""

    __slots__ = ()


class JobID(BaseID):
    """Id of a job: one driver's work."""

    LENGTH = 4
    __slots__ = ()


class TaskID(BaseID):
    """Id of a task."""

    LENGTH = 24
    __slots__ = ()


class ActorID(BaseID):
    """Id of an actor."""

    __slots__ = ()


class ActorClassID(BaseID):
    """Id of an actor class."""

    __slots__ = ()


class NodeID(BaseID):
    """Id of a node."""

    LENGTH = 28
    __slots__ = ()


class WorkerID(BaseID):
    """Id of a worker or driver process."""

    __slots__ = ()


class FunctionID(BaseID):
    """Id of an exported function: the hash of its pickled form."""

    __slots__ = ()


class PlacementGroupID(BaseID):
    """Id of a placement group."""

    __slots__ = ()
