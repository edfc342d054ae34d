"""Objects this process owns or borrows, and who else holds them.

Every object has one owner: the process whose ref it was first.  The owner frees it when
nobody holds it.  ``Entry.count`` counts the holds *inside this process*: refs in the
user's hands, arguments of tasks not finished, objects that contain it.  ``lent`` counts
the holds of other processes, per process.

How a ref reaches another process, and who tells the owner
    * as a task argument: the caller holds it until the reply; the reply names the refs
      the executor still holds, and the caller reports those before it lets go;
    * inside a returned, streamed or fetched value: the sender registers the receiver
      (in its own table, or by ``BorrowAdded`` to the owner) before it sends.  An
      executor that hands on a ref it has only *on loan* from its caller is named in
      the reply even if it holds the ref no longer.
So whoever reports a new holder is counted itself, and its own release follows the
report on the same connection: no acknowledgement is needed, and messages of different
processes may overtake one another.  A release that overtakes the report of *its own*
registration makes a count negative for a moment, which holds nothing.

Source: Wang et al., "Ownership", NSDI 2021, for the model; the protocol here differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from shoal._core.base.ids import TASK_ID_BYTES
from shoal._core.owner.port import OwnerPort
from shoal._core.wire.node_messages import FreeObjects
from shoal._core.wire.worker_messages import (
    ERROR,
    IN_STORE,
    INLINE,
    BorrowAdded,
    BorrowDropped,
    GetValue,
    Value,
    ValueReply,
)

PENDING, READY_INLINE, READY_STORED, FAILED, FREED = range(5)
_STATE_OF_KIND = {INLINE: READY_INLINE, IN_STORE: READY_STORED, ERROR: FAILED}
_KIND_OF_STATE = {state: kind for kind, state in _STATE_OF_KIND.items()}

#: Ended processes remembered; reports of what they hold come within moments, if at all.
GONE_KEPT_MAX = 10_000
#: The last 12 bytes of the id that stands for an actor's handles (after its ActorId).
ACTOR_SUFFIX = b"actor-handle"


class Arrival(Protocol):
    """Something that waits for an object."""

    def arrived(self, entry: Entry) -> None:
        """The object is there (or failed)."""


class Entry:
    """What this process knows of one object."""

    __slots__ = (
        "count",
        "data",
        "inner",
        "is_on_loan",
        "is_passed_on",
        "object_id",
        "owner",
        "record",
        "registered",
        "size",
        "state",
        "waiters",
    )

    def __init__(self, object_id: bytes, owner: str, count: int) -> None:
        self.object_id = object_id
        self.owner = owner
        self.count = count
        self.state = PENDING
        self.data: Any = None
        self.size = 0
        #: the task that makes it, for what this process submitted
        self.record: Any = None
        #: refs inside the value, held while this entry lives
        self.inner: list[bytes] | None = None
        #: how many times the owner counts this process (borrowed objects only)
        self.registered = 0
        #: came with a running task: until the reply its caller holds it for us
        self.is_on_loan = False
        #: handed on while on loan: kept until the reply, which names it
        self.is_passed_on = False
        self.waiters: list[Arrival] | None = None

    def add_waiter(self, waiter: Arrival) -> None:
        """Tell ``waiter`` when the object is there."""
        if self.waiters is None:
            self.waiters = [waiter]
        else:
            self.waiters.append(waiter)

    def remove_waiter(self, waiter: Arrival) -> None:
        """Tell it no longer."""
        if self.waiters is not None and waiter in self.waiters:
            self.waiters.remove(waiter)


class References:
    """The table of entries, and the borrower protocol over it."""

    def __init__(self, port: OwnerPort) -> None:
        self._port = port
        self.entries: dict[bytes, Entry] = {}
        #: object -> process address -> holds; owned objects only
        self.lent: dict[bytes, dict[str, int]] = {}
        #: processes that ended: reports of what they hold may still be under way
        self._gone: dict[str, None] = {}
        #: refs met while one task's arguments are read: reported with its reply
        self.arrivals: Callable[[], list[bytes] | None] = _none
        self.on_actor_unreferenced: Callable[[bytes], None] = _ignore
        self.on_fetch_failed: Callable[[Entry], None] = _ignore
        #: told of a task's error (record, payload) that died before anybody saw it
        self.on_unseen_error: Callable[[Any, bytes], None] = _ignore_error

    # -- births ------------------------------------------------------------------

    def own(self, object_id: bytes, record: Any = None) -> Entry:
        """Enter an object made here; it has one hold, the caller's ref."""
        entry = Entry(object_id, self._port.address, 1)
        entry.record = record
        self.entries[object_id] = entry
        return entry

    def on_rebuilt(self, object_id: bytes, owner: str) -> None:
        """A ref was made from bytes in this process."""
        entry = self.entries.get(object_id)
        if entry is not None:
            entry.count += 1
            return
        entry = Entry(object_id, owner, 1)
        self.entries[object_id] = entry
        if not owner or owner == self._port.address:
            # Ours once, freed since: it can only have come from bytes kept aside.
            return
        arrivals = self.arrivals()
        if arrivals is not None:
            entry.is_on_loan = True
            arrivals.append(object_id)
        else:
            self._register(entry)

    def _register(self, entry: Entry) -> None:
        link = self._port.link(entry.owner)
        if link is not None:
            link.send(BorrowAdded([entry.object_id], self._port.address))
            entry.registered += 1

    # -- holds -------------------------------------------------------------------

    def hold(self, object_id: bytes) -> None:
        """Count one more hold of an object this process knows."""
        self.entries[object_id].count += 1

    def release(self, object_id: bytes) -> None:
        """Count one hold less; free the object when it was the last."""
        entry = self.entries.get(object_id)
        if entry is None:
            return
        entry.count -= 1
        if entry.count <= 0:
            self._unheld(entry)

    def release_all(self, object_ids: Iterable[bytes]) -> None:
        """``release`` for many."""
        for object_id in object_ids:
            self.release(object_id)

    def _unheld(self, entry: Entry) -> None:
        object_id = entry.object_id
        if entry.owner != self._port.address:
            del self.entries[object_id]
            self._forget_value(entry, free=False)
            if entry.registered:
                link = self._port.link(entry.owner)
                if link is not None:
                    link.send(BorrowDropped([(object_id, entry.registered)]))
            return
        holders = self.lent.get(object_id)
        if holders is not None:
            if any(count > 0 for count in holders.values()):
                return
            del self.lent[object_id]
        del self.entries[object_id]
        self._forget_value(entry, free=True)

    def _forget_value(self, entry: Entry, *, free: bool) -> None:
        was_stored = entry.state == READY_STORED
        if entry.state == FAILED:
            self._tell_if_unseen(entry.record, entry.data)
        entry.state = FREED
        entry.data = None
        inner, entry.inner = entry.inner, None
        if entry.object_id.endswith(ACTOR_SUFFIX):
            if free:
                self.on_actor_unreferenced(entry.object_id[:16])
        elif was_stored and free:
            self._port.send_node(FreeObjects([entry.object_id]))
        if inner:
            self.release_all(inner)

    def _tell_if_unseen(self, record: Any, payload: bytes) -> None:
        if record is not None and not record.is_error_seen:
            record.is_error_seen = True
            self.on_unseen_error(record, payload)

    # -- values ------------------------------------------------------------------

    def complete(self, entry: Entry, value: Value) -> None:
        """The object's value, place or error is known."""
        if entry.state == FREED:
            self._drop_unwanted(entry, value)
            return
        entry.state = _STATE_OF_KIND[value.kind]
        entry.data = value.data
        entry.size = value.size or len(value.data)
        if value.refs:
            self._hold_inner(entry, value.refs)
        waiters, entry.waiters = entry.waiters, None
        if waiters:
            for waiter in waiters:
                waiter.arrived(entry)

    def complete_inline(self, entry: Entry, data: bytes) -> None:
        """``complete`` for the common case: an inline value without refs."""
        if entry.state == FREED:
            return
        entry.state = READY_INLINE
        entry.data = data
        entry.size = len(data)
        waiters, entry.waiters = entry.waiters, None
        if waiters:
            for waiter in waiters:
                waiter.arrived(entry)

    def _hold_inner(self, entry: Entry, refs: list[tuple[bytes, str]]) -> None:
        entry.inner = [object_id for object_id, _ in refs]
        for object_id, owner in refs:
            self.accept(object_id, owner)

    def accept(self, object_id: bytes, owner: str) -> None:
        """Hold a ref whose sender has registered us with its owner."""
        inner = self.entries.get(object_id)
        if inner is None:
            inner = self.entries[object_id] = Entry(object_id, owner, 0)
        inner.count += 1
        mine = self._port.address
        if owner != mine:
            inner.registered += 1
        elif mine in self.lent.get(object_id, ()):
            # A process that runs a task of its own lends to itself on the way.
            self._lend(object_id, mine, -1)

    def _drop_unwanted(self, entry: Entry, value: Value) -> None:
        """A value came for which no ref is left."""
        if value.kind == IN_STORE:
            self._port.send_node(FreeObjects([entry.object_id]))
        elif value.kind == ERROR:
            self._tell_if_unseen(entry.record, value.data)
        self.drop_refs(value)

    def drop_refs(self, value: Value) -> None:
        """Let go of the refs inside a value that nobody wants."""
        for object_id, owner in value.refs or ():
            self.accept(object_id, owner)
            self.release(object_id)

    def value_of(self, entry: Entry, receiver: str) -> Value:
        """A ready entry as a message to ``receiver``, now a holder of its refs."""
        refs = None
        if entry.inner:
            refs = [(inner, self.entries[inner].owner) for inner in entry.inner]
            self.hand_over(refs, receiver)
        return self.value_for_task(entry, refs)

    def value_for_task(
        self, entry: Entry, refs: list[tuple[bytes, str]] | None = None
    ) -> Value:
        """A ready entry as a task argument: the caller holds its refs meanwhile."""
        kind = _KIND_OF_STATE[entry.state]
        if kind == ERROR and entry.record is not None:
            entry.record.is_error_seen = True
        data = b"" if entry.data is None else entry.data
        return Value(kind, data, entry.size, refs)

    def hand_over(self, refs: list[tuple[bytes, str]], receiver: str) -> None:
        """Register ``receiver`` with the owners of refs about to be sent to it."""
        mine = self._port.address
        for object_id, owner in refs:
            if owner == mine:
                self._lend(object_id, receiver, 1)
                continue
            self._keep_until_reply(object_id)
            if owner != receiver:
                link = self._port.link(owner)
                if link is not None:
                    link.send(BorrowAdded([object_id], receiver))

    def _keep_until_reply(self, object_id: bytes) -> None:
        """A ref that is on loan goes on to somebody: be counted for it, too.

        Our caller's release could overtake what we send; our own cannot.
        """
        entry = self.entries.get(object_id)
        if entry is not None and entry.is_on_loan and not entry.is_passed_on:
            entry.is_passed_on = True
            entry.count += 1

    def _lend(self, object_id: bytes, receiver: str, change: int) -> None:
        if change > 0 and receiver in self._gone:
            return
        holders = self.lent.setdefault(object_id, {})
        left = holders.get(receiver, 0) + change
        if left:
            holders[receiver] = left
        else:
            holders.pop(receiver, None)
            if not holders:
                del self.lent[object_id]

    # -- what an executor still holds of its task's arguments ----------------------

    def still_borrowed(self, arrivals: list[bytes]) -> list[tuple[bytes, str]] | None:
        """Of the refs a task brought, those held on: the caller reports them."""
        kept = []
        for object_id in arrivals:
            entry = self.entries.get(object_id)
            if entry is None or not entry.is_on_loan:
                continue
            entry.is_on_loan = False
            # Also if somebody has registered us since: he may have it on loan from us.
            entry.registered += 1
            kept.append((object_id, entry.owner))
            if entry.is_passed_on:
                entry.is_passed_on = False
                self.release(object_id)
        return kept or None

    def on_still_borrowed(self, kept: list[tuple[bytes, str]], borrower: str) -> None:
        """A reply says its executor holds these on; report it to their owners."""
        self.hand_over(kept, borrower)

    # -- messages ----------------------------------------------------------------

    def on_borrow_added(self, message: BorrowAdded) -> None:
        """Somebody holds objects of ours (said by itself or by who gave it them)."""
        for object_id in message.object_ids:
            if object_id in self.entries:
                self._lend(object_id, message.borrower, 1)

    def on_borrow_dropped(self, message: BorrowDropped, borrower: str) -> None:
        """A borrower lets go."""
        for object_id, times in message.objects:
            if object_id in self.entries:
                self._lend(object_id, borrower, -times)
                self._reconsider(object_id)

    def _reconsider(self, object_id: bytes) -> None:
        entry = self.entries.get(object_id)
        if entry is not None and entry.count <= 0:
            self._unheld(entry)

    def on_process_gone(self, address: str) -> None:
        """A process ended: what it borrowed it holds no longer."""
        self._gone[address] = None
        if len(self._gone) > GONE_KEPT_MAX:
            del self._gone[next(iter(self._gone))]
        for object_id in [key for key, who in self.lent.items() if address in who]:
            holders = self.lent[object_id]
            del holders[address]
            if not holders:
                del self.lent[object_id]
            self._reconsider(object_id)

    # -- fetching borrowed values --------------------------------------------------

    def fetch(self, entry: Entry) -> None:
        """Ask the owner of a borrowed object for its value, once."""
        if entry.state != PENDING or entry.data is _ASKED:
            return
        if entry.owner == self._port.address:
            if entry.record is None:
                self.on_fetch_failed(entry)
            return
        link = self._port.link(entry.owner) if entry.owner else None
        if link is None:
            self.on_fetch_failed(entry)
            return
        entry.data = _ASKED
        link.send(GetValue(entry.object_id))

    def on_value_reply(self, message: ValueReply) -> None:
        """The owner answered."""
        entry = self.entries.get(message.object_id)
        if entry is not None and entry.state == PENDING:
            self.complete(entry, message.value)
        else:
            self.drop_refs(message.value)

    def asked_of(self, owner: str) -> list[Entry]:
        """Entries that wait for an answer of ``owner``."""
        return [
            entry
            for entry in self.entries.values()
            if entry.owner == owner and entry.state == PENDING and entry.data is _ASKED
        ]

    def borrowed_from(self, owner: str) -> list[Entry]:
        """Entries of objects that ``owner`` owns."""
        return [entry for entry in self.entries.values() if entry.owner == owner]

    # -- views -------------------------------------------------------------------

    def task_of(self, object_id: bytes) -> bytes:
        """The task id inside an object id."""
        return object_id[:TASK_ID_BYTES]

    def check(self) -> None:
        """Assert what must always hold."""
        for object_id, entry in self.entries.items():
            assert entry.object_id == object_id
            assert entry.state != FREED
            if entry.owner != self._port.address:
                assert object_id not in self.lent
        for object_id in self.lent:
            assert object_id in self.entries


_ASKED = object()


def _none() -> None:
    return None


def _ignore(_: Any) -> None:
    return None


def _ignore_error(_record: Any, _payload: bytes) -> None:
    return None
