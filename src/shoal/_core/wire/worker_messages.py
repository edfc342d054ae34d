"""What owners and executors say to each other over their direct connection.

A *callable* is a function, an actor method or an actor class, described once per
connection (``DefineCallable``) and named by a small integer from then on, so that a
task costs its id, its arguments and two integers.  Times are in microseconds where
the name says ``_us``.
"""

from __future__ import annotations

import msgspec

#: Kinds of a :class:`Value`.
INLINE, IN_STORE, ERROR = 0, 1, 2

#: Kinds of a callable.
FUNCTION, METHOD, ACTOR_CLASS = 0, 1, 2


class Message(msgspec.Struct, array_like=True, gc=False):
    """Base of everything that travels: a tagged array, small and quick to make."""


class Value(msgspec.Struct, array_like=True, gc=False):
    """A value, or where it is, or the error that took its place.

    ``data`` is the payload for ``INLINE`` and ``ERROR``, and the offset in the arena (8
    bytes, good for the owner only) for ``IN_STORE``: the object's id is its name
    there.  ``refs`` are the refs inside it, as (object id, owner address).
    """

    kind: int
    data: bytes = b""
    size: int = 0
    refs: list[tuple[bytes, str]] | None = None


class PeerHello(Message, tag=1):
    """First frame on a connection between two processes of one node or cluster."""

    worker_id: bytes
    address: str
    version: int


class Callable_(Message, tag=2):
    """What an executor must know of a callable, once per connection."""

    number: int
    kind: int
    key: bytes
    name: str
    pickled: bytes | None = None
    method: str = ""
    returns: int = 1  # -1: dynamic, -2: streaming
    flush: bool = False  # reply at once: the task must not be run twice
    retry_exceptions: bytes | None = None
    group: str = ""
    backpressure: int = -1
    max_calls: int = 0
    max_retries: int = 0


class UseLease(Message, tag=3):
    """The next tasks on this connection run under this lease."""

    lease: int
    demand: dict[str, int]
    gpu_ids: list[int]
    placement_group: bytes = b""
    capture_children: bool = False


class PushTask(Message, tag=4):
    """Run callable ``number``; ``deps`` fill the places of top-level refs.

    ``deps`` holds (place, object id, owner, value): a place is the index of a
    positional argument or the name of a keyword argument.
    """

    seq: int
    number: int
    task_id: bytes
    args: bytes
    deps: list[tuple[int | str, bytes, str, Value]] | None = None
    attempt: int = 0
    label: str = ""


class TaskDone(Message, tag=5):
    """The common reply: one inline value, nothing borrowed."""

    seq: int
    data: bytes
    took_us: int


class TaskResult(Message, tag=6):
    """The general reply.

    ``borrowed`` are the refs that came in with the arguments and that the executor
    still holds: the caller reports them to their owners before it lets go itself.
    """

    seq: int
    values: list[Value]
    took_us: int
    borrowed: list[tuple[bytes, str]] | None = None
    retry: bool = False  # the exception is one the caller asked to retry on
    cancelled: bool = False
    stream_length: int = -1
    retiring: bool = False  # the worker takes no further task (max_calls, exit_actor)


class StreamItem(Message, tag=7):
    """One item of a streaming generator."""

    seq: int
    index: int
    value: Value


class StreamAck(Message, tag=8):
    """How many items the consumer has taken; lets a paused producer go on."""

    task_id: bytes
    consumed: int


class StreamDropped(Message, tag=9):
    """Nobody will take further items."""

    task_id: bytes


class TakeBack(Message, tag=10):
    """Another worker is idle: give back up to ``count`` tasks not begun."""

    count: int


class TasksReturned(Message, tag=11):
    """These were not begun and will not be (answer to TakeBack, or a blocked get)."""

    seqs: list[int]


class CancelTask(Message, tag=12):
    """Cancel a task that was pushed."""

    task_id: bytes
    recursive: bool


class GetValue(Message, tag=13):
    """Tell me the value of an object you own, when it is there."""

    object_id: bytes


class ValueReply(Message, tag=14):
    """Answer to GetValue."""

    object_id: bytes
    value: Value


class BorrowAdded(Message, tag=15):
    """``borrower`` holds these objects of yours now."""

    object_ids: list[bytes]
    borrower: str


class BorrowDropped(Message, tag=16):
    """The sender lets go: (object id, how many times it was registered)."""

    objects: list[tuple[bytes, int]]


class CancelByRef(Message, tag=17):
    """A borrower asks the owner to cancel the task that makes an object."""

    object_id: bytes
    force: bool
    recursive: bool


class ConnectionRefused(Message, tag=18):
    """Why the other side hangs up (wrong version, wrong session)."""

    reason: str


PEER_MESSAGES = (
    PeerHello
    | Callable_
    | UseLease
    | PushTask
    | TaskDone
    | TaskResult
    | StreamItem
    | StreamAck
    | StreamDropped
    | TakeBack
    | TasksReturned
    | CancelTask
    | GetValue
    | ValueReply
    | BorrowAdded
    | BorrowDropped
    | CancelByRef
    | ConnectionRefused
)
