"""The ref value: the name of an object, and the address of the process that owns it.

A ref reports three things to the process it lives in, through ``hooks``: that it was
rebuilt from bytes, that it is being written into bytes, and that it died.  The death
report only appends an id to a queue (``hooks.dropped``): a destructor runs at any
moment, on any thread, and must take no lock.

Source of the public surface: Ray's ``ObjectRef`` (API reference, "ray.ObjectRef").
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from shoal._core.base.identifiers import JobID, TaskID
from shoal._core.base.ids import OBJECT_ID_BYTES, ObjectId, job_of, task_of

if TYPE_CHECKING:
    import asyncio
    import concurrent.futures

T_co = TypeVar("T_co", covariant=True)


class RefHooks:
    """What a ref tells its process; one instance per process, filled by the session."""

    __slots__ = ("as_asyncio", "as_future", "dropped", "rebuilt", "written")

    def __init__(self) -> None:
        self.dropped: deque[bytes] = deque()
        #: (id, owner address) of a ref made from bytes; counts it.
        self.rebuilt: Callable[[bytes, str], None] = _no_session
        #: the ref is being pickled; records it inside a value or pins it for ever.
        self.written: Callable[[ObjectRef[Any]], None] = _no_session
        self.as_future: Callable[[ObjectRef[Any]], Any] = _needs_session
        self.as_asyncio: Callable[[ObjectRef[Any]], Any] = _needs_session

    def detach(self) -> None:
        """The session is over, or another process's: refs are names from now on."""
        self.dropped = deque()
        self.rebuilt = self.written = _no_session
        self.as_future = self.as_asyncio = _needs_session


def _no_session(*_: object) -> None:
    """A ref used where no session runs is a plain name: nothing counts it."""


def _needs_session(ref: ObjectRef[Any]) -> Any:
    raise RuntimeError(
        f"{ref!r} cannot be waited for: no session runs in this process (any more)."
    )


hooks = RefHooks()


class ObjectRef(Generic[T_co]):
    """A reference to a value that a task returned or ``put`` stored.

    Hashable and comparable by id, picklable inside values (the receiver becomes a
    borrower), awaitable inside a running event loop.
    """

    __slots__ = ("__weakref__", "_id", "_owner")

    def __init__(self, object_id: bytes, owner: str = "") -> None:
        self._id = b""  # what is refused below dies, and says so, too
        if len(object_id) != OBJECT_ID_BYTES:
            raise ValueError(
                f"an object id has {OBJECT_ID_BYTES} bytes, got {len(object_id)}"
            )
        self._id = object_id
        self._owner = owner
        hooks.rebuilt(object_id, owner)

    def __del__(self) -> None:
        hooks.dropped.append(self._id)

    def __reduce__(self) -> tuple[type[ObjectRef[Any]], tuple[bytes, str]]:
        hooks.written(self)
        return ObjectRef, (self._id, self._owner)

    def __hash__(self) -> int:
        return hash(self._id)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ObjectRef):
            return self._id == other._id
        return NotImplemented

    def __repr__(self) -> str:
        return f"ObjectRef({self._id.hex()})"

    def __await__(self) -> Generator[Any, None, T_co]:
        return self.as_future().__await__()

    def as_future(self) -> asyncio.Future[T_co]:
        """An ``asyncio`` future of the value, bound to the running event loop."""
        future: asyncio.Future[T_co] = hooks.as_asyncio(self)
        return future

    def future(self) -> concurrent.futures.Future[T_co]:
        """A ``concurrent.futures.Future`` of the value."""
        future: concurrent.futures.Future[T_co] = hooks.as_future(self)
        return future

    def hex(self) -> str:
        """The id in hexadecimal, 56 digits."""
        return self._id.hex()

    def binary(self) -> bytes:
        """The id as 28 bytes."""
        return self._id

    def is_nil(self) -> bool:
        """Whether this is the ref to nothing."""
        return self._id == b"\xff" * OBJECT_ID_BYTES

    def task_id(self) -> TaskID:
        """The id of the task that makes (or made) the object."""
        return TaskID(task_of(ObjectId(self._id)))

    def job_id(self) -> JobID:
        """The id of the job the object belongs to."""
        return JobID(job_of(self._id))

    def owner_address(self) -> str:
        """Address of the process that owns the object; empty outside a session."""
        return self._owner

    def call_site(self) -> str:
        """The line that made the ref; empty unless creation sites are recorded."""
        return ""

    @classmethod
    def size(cls) -> int:
        """Length of an id in bytes."""
        return OBJECT_ID_BYTES

    @classmethod
    def nil(cls) -> ObjectRef[Any]:
        """The ref to nothing."""
        return cls(b"\xff" * OBJECT_ID_BYTES)


def counted_ref(object_id: bytes, owner: str) -> ObjectRef[Any]:
    """Make a ref whose birth the caller has counted already (the hot path)."""
    ref: ObjectRef[Any] = _new(ObjectRef)
    ref._id = object_id
    ref._owner = owner
    return ref


_new = object.__new__
