"""Local mode: the objects of the one process, who waits for them, and their end.

The table of references is the owner's own (``owner/references.py``), so a value lives
exactly as long as it would elsewhere: while a ref, an unfinished task or another value
holds it.  Values are kept pickled, so that nobody shares them.

The lock.  Everything that changes goes through ``LocalPeer.lock``.  It can be taken
again by the thread that has it, because Python may run a user's destructor anywhere.
User code never runs under it on purpose: what a change causes (a call whose arguments
are there now, the end of an actor nobody can reach) is put in ``later`` and done when
the outermost holder has let go.  The death of a ref only notes its id and asks for
``settle``, which frees nothing while somebody holds the lock: the holder does it then.

Does not: run tasks (``local_execution.py``) or know actors.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import sys
import threading
from _thread import get_ident
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import Any

from shoal._core.base.ids import (
    OWNER_TAG_BYTES,
    PUT_INDEX,
    UNIQUE_ID_BYTES,
    JobId,
    task_id_source,
)
from shoal._core.base.object_ref import ObjectRef, counted_ref, hooks
from shoal._core.io.interrupts import interruptible
from shoal._core.owner.references import (
    FAILED,
    PENDING,
    READY_INLINE,
    Entry,
    References,
)
from shoal._core.serial.failures import decode_failure, encode_failure
from shoal._core.serial.ref_capture import note_written
from shoal._core.serial.serializer import deserialize, serialize
from shoal._core.wire.worker_messages import ERROR, INLINE, Value
from shoal.exceptions import (
    GetTimeoutError,
    ObjectLostError,
    RayError,
    RaySystemError,
)


class _DroppedRefs(deque[bytes]):
    """Ids of refs that died; tells the peer, which frees what nobody holds."""

    def __init__(self, settle: Callable[[], None]) -> None:
        super().__init__()
        self._settle = settle

    def append(self, object_id: bytes) -> None:
        """A ref died."""
        super().append(object_id)
        self._settle()


class _PeerLock:
    """The lock of a peer; letting go of it does what became due meanwhile."""

    def __init__(self, drain: Callable[[], None], settle: Callable[[], None]) -> None:
        self._lock = threading.RLock()
        self._drain = drain
        self._settle = settle
        self._changed = threading.Condition(self._lock)
        #: how many times its holder has taken it
        self._depth = 0
        self._holder: int | None = None

    @property
    def is_mine(self) -> bool:
        """Whether the present thread holds it."""
        return self._holder == get_ident()

    def __enter__(self) -> None:
        self._lock.acquire()
        self._depth += 1
        self._holder = get_ident()

    def __exit__(self, *_: object) -> None:
        if self._depth == 1:
            self._drain()
            self._changed.notify_all()
            self._holder = None
        self._depth -= 1
        is_free = not self._depth
        self._lock.release()
        if is_free:
            self._settle()

    def try_drain(self) -> bool:
        """Take in what is due, unless somebody has the lock, who does it then."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            self._drain()
        finally:
            self._lock.release()
        return True

    def sleep_until(
        self, is_true: Callable[[], object], deadline: float | None
    ) -> bool:
        """Let go until a change makes ``is_true`` so; False when time is up first."""
        with self._lock:
            assert not self._depth, "nobody sleeps in the middle of a change"
            while True:
                self._holder = get_ident()
                found = bool(is_true())
                self._holder = None
                left = None if deadline is None else deadline - monotonic()
                if found or (left is not None and left <= 0):
                    return found
                self._changed.wait(left)


interruptible(_PeerLock.sleep_until)


class LocalPeer:
    """The process's objects; also the port of its table of references."""

    def __init__(self, job_id: bytes) -> None:
        self.worker_id = os.urandom(UNIQUE_ID_BYTES)
        self.address = self.worker_id.hex()
        self.job_id = job_id
        self.pid = os.getpid()
        self.is_closed = False
        self.refs = References(self)
        self.next_task_id = task_id_source(os.urandom(OWNER_TAG_BYTES), JobId(job_id))
        #: what to do when the lock is free
        self.later: deque[Callable[[], None]] = deque()
        self._dropped = _DroppedRefs(self.settle)
        self.lock = _PeerLock(self._drain, self.settle)

    # -- hooks of refs -------------------------------------------------------------

    def install_hooks(self) -> None:
        """Make this the table in which the refs of the process are counted."""
        _forking.peer = self
        hooks.dropped = self._dropped
        hooks.rebuilt = self._on_rebuilt
        hooks.written = self._on_written
        hooks.as_future = self.as_concurrent
        hooks.as_asyncio = self.as_asyncio

    def close(self) -> None:
        """Count refs no longer; wake whoever waits."""
        hooks.detach()
        _forking.peer = None
        with self.lock:
            self.is_closed = True
            self._dropped.clear()

    def _on_rebuilt(self, object_id: bytes, owner: str) -> None:
        with self.lock:
            self.refs.on_rebuilt(object_id, owner)

    def _on_written(self, ref: ObjectRef[Any]) -> None:
        """A ref is pickled; behind our back its object is kept for good."""
        if note_written(ref):
            return
        with self.lock:
            entry = self.refs.entries.get(ref._id)
            if entry is not None:
                entry.count += 1

    def _drain(self) -> None:
        dropped = self._dropped
        while dropped:
            self.refs.release(dropped.popleft())

    def settle(self) -> None:
        """Free what died and do what is due, unless this is the middle of a change."""
        while (self._dropped or self.later) and not self.lock.is_mine:
            is_drained = self.lock.try_drain()
            self._do_what_is_due()
            if not is_drained:  # the holder of the lock does it
                return

    def _do_what_is_due(self) -> None:
        while True:
            try:
                action = self.later.popleft()
            except IndexError:  # or another thread has done it
                return
            action()

    # -- port of the references ----------------------------------------------------

    def link(self, address: str) -> None:
        """Nobody else is there."""
        return

    def send_node(self, message: object) -> None:
        """There is no daemon; the table only tells it of objects in the store."""

    def now(self) -> float:
        """Monotonic seconds."""
        return monotonic()

    def call_at(self, when: float, action: Any) -> None:
        """The table sets no timers.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("local mode has no timers")

    def warn(self, text: str) -> None:
        """Tell the user something."""
        print(f"(shoal) {text}", file=sys.stderr, flush=True)  # noqa: T201

    # -- values --------------------------------------------------------------------

    def put(self, value: object) -> ObjectRef[Any]:
        """Store a value as it is now; returns its ref."""
        packed, _held = pack(value, "put")
        object_id = self.next_task_id() + PUT_INDEX
        with self.lock:
            self.refs.complete(self.refs.own(object_id), packed)
        return counted_ref(object_id, self.address)

    def entry_of(self, ref: ObjectRef[Any]) -> Entry:
        """The entry of a ref in the user's hands (under the lock).

        Raises:
            ObjectLostError: the object is of another session, or was freed.
        """
        entry = self.refs.entries.get(ref._id)
        if entry is None or (entry.state == PENDING and entry.record is None):
            raise ObjectLostError(ref.hex(), ref._owner, "")
        return entry

    def get_many(
        self, refs: Sequence[ObjectRef[Any]], timeout_s: float | None
    ) -> list[Any]:
        """New copies of the values, once all are there.

        Raises:
            GetTimeoutError: they are not in time; the message says what is missing.
            RayTaskError: one of them is an error.
        """
        deadline = deadline_of(timeout_s)
        with self.lock:
            entries = [self.entry_of(ref) for ref in refs]
        for entry in entries:
            if entry.state == PENDING and not self.await_entry(entry, deadline):
                raise GetTimeoutError(self._explain(entries, timeout_s))
        return [read(entry) for entry in entries]

    def await_entry(self, entry: Entry, deadline: float | None) -> bool:
        """Wait for an object; False when it is not there in time."""
        if entry.record is not None:
            entry.record.help_along(deadline)
        return self.wait_until(lambda: entry.state != PENDING, deadline)

    def wait_until(self, is_true: Callable[[], object], deadline: float | None) -> bool:
        """Sleep until a change makes ``is_true`` so; False when time is up first.

        Raises:
            RaySystemError: the session ended meanwhile.
        """
        self.settle()
        found = self.lock.sleep_until(lambda: is_true() or self.is_closed, deadline)
        self.settle()
        if found and self.is_closed and not is_true():
            raise RaySystemError(
                RuntimeError("the session was shut down while this waited in it")
            )
        return found

    def _explain(self, entries: list[Entry], timeout_s: float | None) -> str:
        late = [entry for entry in entries if entry.state == PENDING]
        if not late:  # came just now
            return f"Get timed out after {timeout_s} s."
        return (
            f"Get timed out: {len(late)} object(s) not ready after {timeout_s} s. "
            f"{late[0].object_id.hex()}: {late[0].record.explain()}"
        )

    # -- futures -------------------------------------------------------------------

    def as_concurrent(self, ref: ObjectRef[Any]) -> concurrent.futures.Future[Any]:
        """A ``concurrent.futures.Future`` of a ref's value."""
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._when_ready(ref, partial(self._fulfil, future, ref))
        return future

    def as_asyncio(self, ref: ObjectRef[Any]) -> asyncio.Future[Any]:
        """A future of a ref's value in the running event loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        deliver = partial(post, loop, partial(self._fulfil, future, ref))
        self._when_ready(ref, deliver)
        return future

    def _fulfil(self, future: Any, ref: ObjectRef[Any]) -> None:
        """Complete a future; until then it keeps the ref, and so the value."""
        if future.done():
            return
        try:
            value = self.get_many([ref], None)[0]
        except BaseException as error:  # noqa: BLE001 - it is raised where it is awaited
            future.set_exception(error)
        else:
            future.set_result(value)

    def _when_ready(self, ref: ObjectRef[Any], deliver: Callable[[], None]) -> None:
        with self.lock:
            entry = self.entry_of(ref)
            if entry.state == PENDING:
                entry.add_waiter(_Delivery(self.later, deliver))
                if entry.record.is_lazy:
                    start_thread(partial(entry.record.help_along, None))
                return
        deliver()


class _Forking:
    """Has the forking thread hold the lock, so that nobody else does in the child."""

    def __init__(self) -> None:
        self.peer: LocalPeer | None = None
        self._held: list[_PeerLock] = []

    def before(self) -> None:
        """A thread of this process is about to fork."""
        if self.peer is not None:
            self.peer.lock.__enter__()
            self._held.append(self.peer.lock)

    def after(self) -> None:
        """It has, and this is the parent or the child."""
        if self._held:
            self._held.pop().__exit__()


_forking = _Forking()
os.register_at_fork(
    before=_forking.before,
    after_in_parent=_forking.after,
    after_in_child=_forking.after,
)


class _Delivery:
    """Delivers an object when it is there, outside the lock."""

    __slots__ = ("_deliver", "_later")

    def __init__(
        self, later: deque[Callable[[], None]], deliver: Callable[[], None]
    ) -> None:
        self._later = later
        self._deliver = deliver

    def arrived(self, _: Entry) -> None:
        """The object is there."""
        self._later.append(self._deliver)


def read(entry: Entry) -> Any:
    """A new copy of a ready object's value.

    Raises:
        RayTaskError: the object is an error.
    """
    if entry.state == READY_INLINE:
        return deserialize(entry.data)
    if entry.state == FAILED:
        raise decode_failure(entry.data)
    raise ObjectLostError(entry.object_id.hex(), entry.owner, "")


def pack(value: object, function_name: str) -> tuple[Value, object]:
    """A value as the table keeps it, and what must live until it is entered there."""
    if isinstance(value, RayError):
        return failure_value(value, function_name), None
    packed = serialize(value)
    refs = [(ref._id, ref._owner) for ref in packed.refs] if packed.refs else None
    return Value(INLINE, packed.to_bytes(), packed.size, refs), packed.refs


def failure_value(error: BaseException, function_name: str) -> Value:
    """An error of the system as the table keeps it."""
    return Value(
        ERROR, encode_failure(error, function_name=function_name, pid=0, ip="")
    )


def deadline_of(timeout_s: float | None) -> float | None:
    """When a wait of so many seconds ends; None (and a negative number) never."""
    return None if timeout_s is None or timeout_s < 0 else monotonic() + timeout_s


def start_thread(action: Callable[[], None]) -> None:
    """Run something that must not wait for the present thread, nor hold up the exit."""
    threading.Thread(target=action, name="shoal local", daemon=True).start()


def post(loop: asyncio.AbstractEventLoop, action: Callable[[], object]) -> None:
    """Run something on an event loop, if that still runs."""
    try:
        loop.call_soon_threadsafe(action)
    except RuntimeError:  # the loop was closed: nobody waits for this
        return
