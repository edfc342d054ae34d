"""The shell around the owner machine: what a driver and a worker have in common.

A peer listens on a Unix socket of its own, keeps one connection to its node daemon and
one to every process it talks with, maps the arena, and offers the blocking operations
the public API is made of: ``get``, ``put``, ``wait``.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from time import monotonic
from typing import Any

from shoal._core.base.ids import OWNER_TAG_BYTES, PUT_INDEX, JobId, task_id_source
from shoal._core.base.object_ref import ObjectRef, counted_ref, hooks
from shoal._core.io import interrupts
from shoal._core.io.connection import Connection
from shoal._core.io.engine import Engine, Waiter
from shoal._core.io.peer_credentials import same_user
from shoal._core.io.shared_memory import ArenaMap
from shoal._core.owner.calls import Channel
from shoal._core.owner.machine import Owner
from shoal._core.owner.references import (
    FAILED,
    PENDING,
    READY_INLINE,
    READY_STORED,
    Entry,
)
from shoal._core.process.explanations import explain_timeout
from shoal._core.process.node_requests import ANSWERS, NodeRequests
from shoal._core.serial.failures import decode_failure, encode_failure
from shoal._core.serial.ref_capture import note_written
from shoal._core.serial.serializer import (
    Serialized,
    copy_bytes,
    deserialize,
    serialize,
)
from shoal._core.wire.control_messages import CONTROL_MESSAGES
from shoal._core.wire.frame import PROTOCOL_VERSION, decoder
from shoal._core.wire.node_messages import (
    NODE_MESSAGES,
    CreateObject,
    NodeQuery,
    PinObject,
    SealObject,
    UnpinObjects,
)
from shoal._core.wire.worker_messages import (
    IN_STORE,
    INLINE,
    PEER_MESSAGES,
    ConnectionRefused,
    PeerHello,
    Value,
)
from shoal.exceptions import (
    GetTimeoutError,
    ObjectLostError,
    ObjectStoreFullError,
    RayError,
    RaySystemError,
)

INLINE_LIMIT_BYTES = 100 * 1024
#: A wait shorter than this is not worth lending the CPU out.
BLOCK_NOTICE_S = 0.001
#: How often a task that waits for queued children looks whether it should help.
HELP_CHECK_S = 0.02

decode_peer = decoder(PEER_MESSAGES)
decode_node = decoder(NODE_MESSAGES | CONTROL_MESSAGES)
_id_of = attrgetter("_id")


class PeerLink:
    """What this process keeps with a connection to another."""

    __slots__ = ("address", "callables", "channel", "lease")

    def __init__(self) -> None:
        self.address = ""
        self.channel: Channel | None = None
        #: callables the other side described, by its number for them (executor)
        self.callables: dict[int, Any] = {}
        self.lease: Any = None


class Peer:
    """One process of a session: owner machine, sockets, arena."""

    def __init__(
        self,
        *,
        session_dir: str,
        worker_id: bytes,
        job_id: bytes,
        arena_fd: int,
        arena_bytes: int,
        name: str,
        node_socket: socket.socket | None = None,
    ) -> None:
        self.session_dir = session_dir
        self.worker_id = worker_id
        self.address = worker_id.hex()
        self.job_id = job_id
        self.pid = os.getpid()
        self.engine = Engine(name)
        self.lock = self.engine.lock
        self.arena = ArenaMap(arena_fd, arena_bytes)
        self.owner = Owner(self)
        self.next_task_id = task_id_source(os.urandom(OWNER_TAG_BYTES), JobId(job_id))
        self.node: Connection | None = None
        self.lost_reason = ""
        #: this process ends the session: what waits is woken by the end, not by news
        self.is_leaving = False
        #: executor's handler of messages that are not the owner's
        self.on_execute: Callable[[Connection, Any], None] | None = None
        self.on_node_message: Callable[[Any], None] | None = None
        self.on_node_lost: Callable[[str], None] | None = None
        #: told when the running task begins and ends to wait
        self.on_blocked: Callable[[bool], None] | None = None
        #: runs a task that is waited for in this very thread, if one can be
        self.help: Callable[[list[Entry]], bool] | None = None
        self.on_warning: Callable[[str], None] = _print_warning
        self.requests = NodeRequests(self.engine, self.send_node, self._check_alive)
        self.ask = self.requests.ask
        self.ask_later = self.requests.ask_later
        self._links: dict[str, Connection] = {}
        self._unpinned: deque[bytes] = deque()
        #: tasks whose generators died
        self.dropped_streams: deque[Any] = deque()
        self._listener: socket.socket | None = None
        self.engine.on_turn = self._end_turn
        self.engine.wants_heartbeat = self._has_references
        if node_socket is not None:
            self.attach_node(node_socket)

    # -- connections -------------------------------------------------------------

    def socket_path(self, address: str) -> str:
        """Where the process of an address listens."""
        # Half of an address is unique enough, and a socket's path has 107 bytes.
        return f"{self.session_dir}/p/{address[:16]}"

    def listen(self) -> None:
        """Let other processes connect."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(self.socket_path(self.address))
        listener.listen(128)
        self._listener = listener
        self.engine.listen(listener, self._accept)

    def _accept(self, sock: socket.socket) -> None:
        if not same_user(sock):
            sock.close()
            return
        self._add_link(sock)

    def _add_link(self, sock: socket.socket) -> Connection:
        return self.engine.add(
            sock, decode_peer, self._on_peer_message, self._on_peer_closed, PeerLink()
        )

    def link(self, address: str) -> Connection | None:
        """The connection to another process, opened if need be."""
        connection = self._links.get(address)
        if connection is not None:
            return connection
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(self.socket_path(address))
        except OSError:
            sock.close()
            return None
        connection = self._add_link(sock)
        connection.send(PeerHello(self.worker_id, self.address, PROTOCOL_VERSION))
        self._introduce(connection, address)
        return connection

    def _introduce(self, connection: Connection, address: str) -> None:
        link: PeerLink = connection.context
        link.address = address
        if address not in self._links:
            self._links[address] = connection
        channel = self.owner.channels.get(address)
        if channel is None:
            channel = Channel(address, connection)
            self.owner.channels[address] = channel
        link.channel = channel

    def _on_peer_message(self, connection: Connection, message: Any) -> None:
        link: PeerLink = connection.context
        channel = link.channel
        if channel is not None:
            if not self.owner.on_peer(channel, message):
                if self.on_execute is not None:
                    self.on_execute(connection, message)
                elif not isinstance(message, PeerHello):
                    connection.close(f"a driver runs no tasks ({type(message)})")
        elif isinstance(message, PeerHello):
            self._greet(connection, message)
        else:
            connection.close("the first message must be PeerHello")

    def _greet(self, connection: Connection, message: PeerHello) -> None:
        if message.version != PROTOCOL_VERSION:
            connection.send(
                ConnectionRefused(
                    f"this process speaks protocol {PROTOCOL_VERSION}, "
                    f"the other {message.version}"
                )
            )
            connection.flush()
            connection.close("protocol versions differ")
            return
        self._introduce(connection, message.address)

    def _on_peer_closed(self, connection: Connection, reason: str) -> None:
        address = connection.context.address
        if address and self._links.get(address) is connection:
            del self._links[address]
            self.owner.on_link_lost(address)

    def attach_node(self, sock: socket.socket) -> None:
        """Serve the connection to the node daemon."""
        self.node = self.engine.add(
            sock, decode_node, self._on_node_message, self._on_node_closed
        )

    def _on_node_message(self, _: Connection, message: Any) -> None:
        if isinstance(message, ANSWERS):
            self.requests.on_answer(message)
        elif not self.owner.on_node(message) and self.on_node_message is not None:
            self.on_node_message(message)

    def _on_node_closed(self, _: Connection, reason: str) -> None:
        if self.on_node_lost is not None:
            self.on_node_lost(reason)
        self.lost_reason = self.lost_reason or reason
        self.requests.on_node_lost()
        if not self.is_leaving or self.engine.async_waiters:
            self.owner.on_session_lost(self._lost_error())

    # -- the owner's port --------------------------------------------------------

    def send_node(self, message: object) -> None:
        """Queue a message for the daemon."""
        node = self.node
        if node is not None and node.is_open:
            node.send(message)

    def now(self) -> float:
        """Monotonic seconds."""
        return monotonic()

    def call_at(self, when: float, action: Callable[[], None]) -> None:
        """Run ``action`` at about ``when``."""
        self.engine.call_at(when, action)

    def warn(self, text: str) -> None:
        """Tell the user, outside the lock."""
        self.engine.callbacks.append(partial(self.on_warning, text))

    # -- requests ----------------------------------------------------------------

    def query(self, what: str, argument: Any = None) -> Any:
        """Ask the daemon for a view of its tables."""
        return self.ask(lambda number: NodeQuery(number, what, argument), 60).result

    def _check_alive(self) -> None:
        if self.lost_reason:
            raise self._lost_error()

    def _lost_error(self) -> RaySystemError:
        return RaySystemError(
            ConnectionError(
                f"the node daemon of this session is gone ({self.lost_reason}); "
                "call shutdown() and init() to begin a new session"
            )
        )

    # -- references --------------------------------------------------------------

    def install_hooks(self) -> None:
        """Make this the process whose refs are counted."""
        hooks.dropped.clear()
        hooks.rebuilt = self._on_rebuilt
        hooks.written = self._on_written

    def _on_rebuilt(self, object_id: bytes, owner: str) -> None:
        with self.lock:
            self.owner.refs.on_rebuilt(object_id, owner)

    def _on_written(self, ref: ObjectRef[Any]) -> None:
        """A ref is pickled: inside a value of ours, or by somebody for keeps.

        Bytes that leave shoal may come back at any time, so their object stays.
        """
        if note_written(ref):
            return
        with self.lock:
            entry = self.owner.refs.entries.get(ref._id)
            if entry is not None:
                entry.count += 1

    def drain_dropped(self) -> None:
        """Take in the deaths of refs (under the lock)."""
        dropped = hooks.dropped
        release = self.owner.refs.release
        while dropped:
            release(dropped.popleft())
        if self._unpinned:
            gone = []
            while self._unpinned:
                gone.append(self._unpinned.popleft())
            self.send_node(UnpinObjects(gone))

    def _end_turn(self) -> None:
        while self.dropped_streams:
            self.owner.tasks.drop_stream(self.dropped_streams.popleft())
        if hooks.dropped or self._unpinned:
            self.drain_dropped()
        if self.owner.tasks.resolved:
            self.owner.tasks.drain()

    def _has_references(self) -> bool:
        return bool(self.owner.refs.entries)

    # -- put ---------------------------------------------------------------------

    def put(self, value: object) -> ObjectRef[Any]:
        """Store a value; returns its ref."""
        if interrupts.pending:
            interrupts.check()
        object_id = self.next_task_id() + PUT_INDEX
        if isinstance(value, RayError):
            return self._put_error(object_id, value)
        packed = serialize(value)
        stored = packed.size > INLINE_LIMIT_BYTES
        if stored:
            place = self.store(object_id, packed, self.address)
        with self.lock:
            entry = self.owner.refs.own(object_id)
            entry.size = packed.size
            if packed.refs:
                entry.inner = [ref._id for ref in packed.refs]
                for inner in entry.inner:
                    self.owner.refs.hold(inner)
            if stored:
                entry.state = READY_STORED
                entry.data = place
                self.engine.flush()
            else:
                entry.state = READY_INLINE
                entry.data = packed.to_bytes()
            if hooks.dropped:
                self.drain_dropped()
        return counted_ref(object_id, self.address)

    def _put_error(self, object_id: bytes, error: RayError) -> ObjectRef[Any]:
        """An error of the system is raised by ``get``, wherever it was put."""
        with self.lock:
            entry = self.owner.refs.own(object_id)
            entry.state = FAILED
            entry.data = encode_failure(error, function_name="put", pid=0, ip="")
        return counted_ref(object_id, self.address)

    def store(self, object_id: bytes, packed: Serialized, owner: str) -> bytes:
        """Write a value into the arena; returns its place (the offset, 8 bytes).

        Raises:
            ObjectStoreFullError: it finds no room.
        """
        if hooks.dropped or self._unpinned:
            # What was dropped may be the very room this object needs.
            with self.lock:
                self.drain_dropped()
        created = self.ask(
            lambda number: CreateObject(number, object_id, packed.size, owner)
        )
        if created.offset < 0:
            raise ObjectStoreFullError(created.reason)
        try:
            packed.write_into(self.arena.writable(created.offset, packed.size))
        except BaseException:
            with self.lock:
                self.requests.give_up_object(object_id)
            raise
        with self.lock:
            self.send_node(SealObject(object_id))
        return int(created.offset).to_bytes(8, "little")

    # -- get ---------------------------------------------------------------------

    def get_entry(self, ref: ObjectRef[Any]) -> Entry:
        """The entry of a ref in the user's hands (under the lock)."""
        entry = self.owner.refs.entries.get(ref._id)
        if entry is None:
            raise ObjectLostError(
                ref.hex(),
                ref._owner,
                "",
            )
        return entry

    def get_one(self, ref: ObjectRef[Any], timeout: float | None = None) -> Any:
        """The value of one ref."""
        if interrupts.pending:
            interrupts.check()
        entry = self.owner.refs.entries.get(ref._id)
        if entry is None or entry.state == PENDING:
            self._await((ref,), timeout)
            entry = self.get_entry(ref)
        if entry.state == READY_INLINE:
            return deserialize(entry.data)
        return self._read(entry)

    def get_many(
        self, refs: Sequence[ObjectRef[Any]], timeout: float | None = None
    ) -> list[Any]:
        """The values of many refs, in order."""
        self._await(refs, timeout)
        entries = self.owner.refs.entries
        values = []
        for ref in refs:
            entry = entries[ref._id]
            if entry.state == READY_INLINE:
                values.append(deserialize(entry.data))
            else:
                values.append(self._read(entry))
        return values

    def _await(self, refs: Sequence[ObjectRef[Any]], timeout: float | None) -> None:
        """Block until every ref is ready, an error among them, or time is up."""
        waiter = Waiter(0)
        waiter.is_done = True
        missing: list[Entry] = []
        with self.lock:
            entries = self.owner.refs.entries
            for ref in refs:
                entry = entries.get(ref._id) or self.get_entry(ref)
                if entry.state == PENDING:
                    missing.append(entry)
                    entry.add_waiter(waiter)
                    if entry.record is None:
                        self.owner.refs.fetch(entry)
            missing = [entry for entry in missing if entry.state == PENDING]
            if missing:
                waiter.missing = len(missing)
                waiter.is_done = False
            if hooks.dropped:
                self.drain_dropped()
            if self.owner.tasks.resolved:
                self.owner.tasks.drain()
            if self.engine.dirty:
                self.engine.flush()
        if not missing:
            return
        late = missing
        try:
            if self.block(waiter, timeout, missing):
                late = []
        finally:
            if late:
                with self.lock:
                    late = [entry for entry in late if entry.state == PENDING]
                    for entry in late:
                        entry.remove_waiter(waiter)
        if late:
            self._check_alive()
            raise GetTimeoutError(explain_timeout(late, timeout))

    def block(
        self, waiter: Waiter, timeout: float | None, missing: Sequence[Entry] = ()
    ) -> bool:
        """Wait; a running task that waits for long lends its CPU out."""
        engine = self.engine
        deadline = None if timeout is None or timeout < 0 else monotonic() + timeout
        if self.on_blocked is None:
            return engine.wait(waiter, deadline)
        soon = monotonic() + BLOCK_NOTICE_S
        if deadline is not None and deadline <= soon:
            return engine.wait(waiter, deadline)
        if engine.wait(waiter, soon):
            return True
        self.on_blocked(True)
        try:
            if missing and self.help is not None and _in_main_thread():
                self._help_until_done(waiter, deadline, list(missing))
            return engine.wait(waiter, deadline)
        finally:
            self.on_blocked(False)

    def _help_until_done(
        self, waiter: Waiter, deadline: float | None, missing: list[Entry]
    ) -> None:
        """While tasks waited for are still queued here, run them if need be."""
        assert self.help is not None
        while not waiter.is_done:
            if self.help(missing):
                continue
            if not any(_is_queued(entry) for entry in missing):
                return
            soon = monotonic() + HELP_CHECK_S
            if deadline is not None and deadline <= soon:
                return
            self.engine.wait(waiter, soon)

    def _read(self, entry: Entry) -> Any:
        """The value of a ready entry that is not a plain inline one."""
        if entry.state == READY_INLINE:
            return deserialize(entry.data)
        if entry.state == FAILED:
            if entry.record is not None:
                entry.record.is_error_seen = True
            raise decode_failure(entry.data)
        if entry.state == READY_STORED:
            return deserialize(self._map_entry(entry))
        self._check_alive()
        raise ObjectLostError(entry.object_id.hex(), entry.owner, "")

    def _map_entry(self, entry: Entry) -> memoryview:
        """View a stored object: one's own without asking, as it stays in its place.

        The pin is on its way to the daemon before any message that could free it.
        """
        if entry.owner != self.address or not entry.data:
            return self.map(entry.object_id)
        with self.lock:
            self.send_node(PinObject(0, entry.object_id))
        return self.arena.readable(
            int.from_bytes(entry.data, "little"),
            entry.size,
            partial(self._unpinned.append, entry.object_id),
        )

    def map(self, object_id: bytes) -> memoryview:
        """Pin an object of the arena and view it.

        Raises:
            ObjectLostError: it is not there.
        """
        pinned = self.ask(lambda number: PinObject(number, object_id))
        if pinned.offset < 0:
            raise ObjectLostError(object_id.hex(), "", "")
        return self.arena.readable(
            pinned.offset, pinned.size, partial(self._unpinned.append, object_id)
        )

    def value_of_dep(self, object_id: bytes, value: Value) -> Any:
        """The value of a task argument that came as a ref."""
        if value.kind == INLINE:
            return deserialize(value.data)
        if value.kind == IN_STORE:
            return deserialize(self.map(object_id))
        raise decode_failure(value.data)

    def pack(
        self, value: object, object_id: bytes, receiver: str
    ) -> tuple[Value, bool]:
        """A result as a message to its owner; True when it is plain inline bytes."""
        packed = serialize(value)
        refs = [(ref._id, ref._owner) for ref in packed.refs] if packed.refs else None
        if refs is not None:
            with self.lock:
                self.owner.refs.hand_over(refs, receiver)
        if packed.size > INLINE_LIMIT_BYTES:
            place = self.store(object_id, packed, receiver)
            return Value(IN_STORE, place, packed.size, refs), False
        return Value(INLINE, packed.to_bytes(), packed.size, refs), refs is None

    # -- end ---------------------------------------------------------------------

    def abandon(self) -> None:
        """In a forked child: let go of what is the parent's, without a word to anybody.

        What was mapped stays mapped: arrays of the parent stay good here.
        """
        self.lost_reason = "it is the session of the process this one was forked from"
        self.engine.abandon()
        self.lock = self.engine.lock
        if self._listener is not None:
            self._listener.close()
        os.close(self.arena.fd)

    def close(self) -> None:
        """Hang up everything."""
        self.engine.close()
        self.arena.unmap()
        with self.lock:
            for connection in self.engine.connections():
                connection.is_open = False
                connection.sock.close()
        if self._listener is not None:
            self._listener.close()
            try:
                os.unlink(self.socket_path(self.address))
            except FileNotFoundError:  # the session's directory went first
                return


# ``store`` takes back what an interrupted copy leaves half written.
interrupts.interruptible(copy_bytes)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _is_queued(entry: Entry) -> bool:
    """Whether the task that makes an object waits for a worker in this process."""
    record = entry.record
    return (
        entry.state == PENDING
        and record is not None
        and record.actor is None
        and record.channel is None
        and not record.missing
    )


def _print_warning(text: str) -> None:
    sys.stderr.write(f"(shoal) {text}\n")
    sys.stderr.flush()
