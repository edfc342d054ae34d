"""The life of each object in the local store: created, sealed, pinned, freed.

Theory.  A client asks for room (`create`), writes in place and seals; from then on
the bytes never change and any client may pin and read them.  The object stays until
its owner drops it (`free`) and no pin is left, because a reader's arrays point
straight into the memory.  Clients are other processes and not trusted: every
mistake of theirs raises a `StoreError` that leaves the table as it was, and when a
client's connection ends, `client_gone` ends its pins and unsealed allocations.

====================  =====================================  ====================
state                 event                                  next
====================  =====================================  ====================
absent                create                                 created
created               seal by its creator                    sealed
created               pin ahead of the seal                  created
created               abort, or its creator is gone          absent
created               free                                   created and dropped
created and dropped   seal, abort, or its creator is gone    absent
sealed                pin, unpin                             sealed
sealed                free, nobody has it pinned             absent
sealed                free, somebody has it pinned           dropped
dropped               the last pin ends                      absent
====================  =====================================  ====================

Invariants (`check`): each object holds exactly one block of the arena and each block
belongs to one object; the pins counted by object and by client are the same; a
dropped object is unsealed or pinned.

What it does not do: no waiting for room or for a seal, no eviction and no spilling
(the node's local objects decide those), no bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from shoal._core.store.arena import Arena

__all__ = [
    "AlreadySealedError",
    "BadSizeError",
    "Client",
    "NotPinnedError",
    "ObjectExistsError",
    "ObjectTable",
    "StoreError",
    "StoreUsage",
    "UnknownObjectError",
    "WrongClientError",
]

Client: TypeAlias = int | str | bytes
"""Names the connection of one process; never used again for another one."""


class StoreError(Exception):
    """A client asked the store for something its state does not allow."""


class UnknownObjectError(StoreError):
    """The store holds no object of that id."""


class ObjectExistsError(StoreError):
    """The store already holds an object of that id."""


class WrongClientError(StoreError):
    """Only the client that created an object may seal or abort it."""


class AlreadySealedError(StoreError):
    """The object is sealed: its bytes can no longer change."""


class NotPinnedError(StoreError):
    """The client gives back more pins than it has."""


class BadSizeError(StoreError):
    """The size is negative, or larger than the whole store."""


@dataclass(slots=True)
class StoreUsage:
    """What the store holds now; sizes in bytes, as reserved in the arena.

    Attributes:
        capacity_bytes: all that can be handed out.
        used_bytes: handed out now.
        high_water_bytes: ever handed out; what the kernel backs with memory.
        largest_hole_bytes: the largest object that could be created now, about.
        object_count: objects of any state.
        unsealed_count: objects still being written.
        unsealed_bytes: their memory.
        pinned_count: objects that at least one client has pinned.
        pinned_bytes: their memory.
        dropped_count: objects whose owner dropped them and that are not gone yet.
        dropped_bytes: their memory.
    """

    capacity_bytes: int
    used_bytes: int
    high_water_bytes: int
    largest_hole_bytes: int
    object_count: int = 0
    unsealed_count: int = 0
    unsealed_bytes: int = 0
    pinned_count: int = 0
    pinned_bytes: int = 0
    dropped_count: int = 0
    dropped_bytes: int = 0


@dataclass(slots=True)
class _Entry:
    """One object of the store.

    Attributes:
        offset: where its bytes start in the arena.
        size: what the creator asked for, in bytes.
        creator: the client that writes it, or wrote it.
        is_sealed: its bytes are final.
        is_dropped: its owner has dropped it.
        pins: how often each client has it pinned; empty when nobody has.
    """

    offset: int
    size: int
    creator: Client
    is_sealed: bool = False
    is_dropped: bool = False
    pins: dict[Client, int] = field(default_factory=dict)


class ObjectTable:
    """Objects of one node's store, by id.

    Args:
        arena: where the bytes live; this table alone allocates and frees in it.
    """

    __slots__ = ("_arena", "_entries", "_pinned_by", "_writing_by")

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._entries: dict[bytes, _Entry] = {}
        # The same facts by client, so that a client's end costs what it held.
        self._pinned_by: dict[Client, dict[bytes, None]] = {}
        self._writing_by: dict[Client, dict[bytes, None]] = {}

    def __contains__(self, object_id: bytes) -> bool:
        return object_id in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def create(self, object_id: bytes, size: int, client: Client) -> int | None:
        """Reserve room for `client` to write an object of `size` bytes.

        Returns:
            The offset in the arena, or None when there is no room now.

        Raises:
            ObjectExistsError: the store holds this id, in whatever state.
            BadSizeError: negative, or more than the store can ever hold.
        """
        if object_id in self._entries:
            raise ObjectExistsError(
                f"object {object_id.hex()} is in the store already; "
                "an object is created once"
            )
        if size < 0:
            raise BadSizeError(
                f"object {object_id.hex()} was to be created with {size} bytes; "
                "a size cannot be negative"
            )
        if self._arena.reserved_size(size) > self._arena.capacity:
            raise BadSizeError(
                f"object {object_id.hex()} needs {size} bytes and the whole store "
                f"has {self._arena.capacity}; give the store more memory or make "
                "the object smaller"
            )
        offset = self._arena.allocate(size)
        if offset is None:
            return None
        self._entries[object_id] = _Entry(offset, size, client)
        self._writing_by.setdefault(client, {})[object_id] = None
        return offset

    def seal(self, object_id: bytes, client: Client) -> bool:
        """Make the object readable; its creator has written all of it.

        Returns:
            True when it can be read now, False when its owner dropped it meanwhile,
            in which case its memory is free again.

        Raises:
            UnknownObjectError, AlreadySealedError, WrongClientError.
        """
        entry = self._entry_being_written(object_id, client, "seal")
        self._forget_writing(object_id, client)
        entry.is_sealed = True
        if entry.is_dropped and not entry.pins:
            self._reclaim(object_id, entry)
            return False
        return True

    def abort(self, object_id: bytes, client: Client) -> int:
        """Give an unsealed object up; returns the bytes that are free again.

        Raises:
            UnknownObjectError, AlreadySealedError, WrongClientError.
        """
        entry = self._entry_being_written(object_id, client, "abort")
        self._forget_writing(object_id, client)
        return self._reclaim(object_id, entry)

    def pin(self, object_id: bytes, client: Client) -> tuple[int, int] | None:
        """Keep the object's bytes where they are for `client`, once more.

        Returns:
            (offset, size in bytes), or None when there is nothing to read: absent,
            not sealed yet, or dropped by its owner.  Not an error, because a pin and
            a drop may cross on their ways here.
        """
        entry = self._entries.get(object_id)
        if entry is None or not entry.is_sealed or entry.is_dropped:
            return None
        entry.pins[client] = entry.pins.get(client, 0) + 1
        self._pinned_by.setdefault(client, {})[object_id] = None
        return entry.offset, entry.size

    def pin_ahead(self, object_id: bytes, client: Client) -> bool:
        """Pin an object that is still being written, for when it can be read.

        Its writer told `client` of it before telling the store that it is written, as
        happens when the two messages travel on different connections.

        Returns:
            Whether there is such an object.
        """
        entry = self._entries.get(object_id)
        if entry is None or entry.is_sealed or entry.is_dropped:
            return False
        entry.pins[client] = entry.pins.get(client, 0) + 1
        self._pinned_by.setdefault(client, {})[object_id] = None
        return True

    def unpin(self, object_id: bytes, client: Client, count: int = 1) -> int:
        """Give back `count` pins of `client`; returns the bytes that are free again.

        Raises:
            UnknownObjectError: no such object, so no pin either.
            NotPinnedError: the client has fewer pins than `count`, or count < 1.
        """
        entry = self._entries.get(object_id)
        if entry is None:
            raise UnknownObjectError(
                f"object {object_id.hex()} is not in the store, "
                "so no pin of it can be given back"
            )
        held = entry.pins.get(client, 0)
        if not 1 <= count <= held:
            raise NotPinnedError(
                f"client {_client_name(client)} gave back {count} pins of object "
                f"{object_id.hex()} and has {held}; each pin is given back once"
            )
        if count < held:
            entry.pins[client] = held - count
            return 0
        self._forget_pins(object_id, client)
        return self._end_pins(object_id, entry, client)

    def free(self, object_id: bytes) -> int:
        """The owner dropped the object; returns the bytes that are free again.

        Bytes that are being written or read are freed when that ends.  Freeing an
        object that is not here, or a second time, changes nothing: the message that
        asks for it may come late or twice.
        """
        entry = self._entries.get(object_id)
        if entry is None:
            return 0
        entry.is_dropped = True
        if entry.pins or not entry.is_sealed:
            return 0
        return self._reclaim(object_id, entry)

    def client_gone(self, client: Client) -> int:
        """End all pins and unsealed allocations of `client`; it can hold no more.

        Returns:
            The bytes that are free again.  Sealed objects that the client created
            stay: only their owner's `free` ends them.
        """
        reclaimed = 0
        for object_id in self._writing_by.pop(client, ()):
            reclaimed += self._reclaim(object_id, self._entries[object_id])
        for object_id in self._pinned_by.pop(client, ()):
            reclaimed += self._end_pins(object_id, self._entries[object_id], client)
        return reclaimed

    def locate(self, object_id: bytes) -> tuple[int, int] | None:
        """(offset, size in bytes) of a readable object without pinning it, or None.

        Good until the next call that frees; pin for longer.
        """
        entry = self._entries.get(object_id)
        if entry is None or not entry.is_sealed or entry.is_dropped:
            return None
        return entry.offset, entry.size

    def usage(self) -> StoreUsage:
        """Counts and sizes for people and metrics; linear in the number of objects."""
        usage = StoreUsage(
            capacity_bytes=self._arena.capacity,
            used_bytes=self._arena.used,
            high_water_bytes=self._arena.high_water,
            largest_hole_bytes=self._arena.largest_hole,
            object_count=len(self._entries),
        )
        for entry in self._entries.values():
            reserved = self._arena.reserved_size(entry.size)
            if not entry.is_sealed:
                usage.unsealed_count += 1
                usage.unsealed_bytes += reserved
            if entry.pins:
                usage.pinned_count += 1
                usage.pinned_bytes += reserved
            if entry.is_dropped:
                usage.dropped_count += 1
                usage.dropped_bytes += reserved
        return usage

    def describe(self) -> dict[str, dict[str, object]]:
        """A copy of the table by hexadecimal id, for the state API and debugging."""
        return {
            object_id.hex(): {
                "offset": entry.offset,
                "size_bytes": entry.size,
                "creator": _client_name(entry.creator),
                "state": "sealed" if entry.is_sealed else "created",
                "dropped": entry.is_dropped,
                "pins": {_client_name(c): n for c, n in entry.pins.items()},
            }
            for object_id, entry in self._entries.items()
        }

    def check(self) -> None:
        """Assert every invariant, the arena's included; linear."""
        self._arena.check()
        blocks = sorted(
            (entry.offset, self._arena.reserved_size(entry.size))
            for entry in self._entries.values()
        )
        assert blocks == self._arena.blocks(), "objects and arena blocks differ"
        pinned: dict[Client, dict[bytes, None]] = {}
        writing: dict[Client, dict[bytes, None]] = {}
        for object_id, entry in self._entries.items():
            if not entry.is_sealed:
                writing.setdefault(entry.creator, {})[object_id] = None
            elif entry.is_dropped:
                assert entry.pins, f"{object_id.hex()} should be gone"
            for client, count in entry.pins.items():
                assert count > 0, (object_id.hex(), client, count)
                pinned.setdefault(client, {})[object_id] = None
        assert pinned == self._pinned_by, "pins by object and by client differ"
        assert writing == self._writing_by, "writers by object and by client differ"

    def _entry_being_written(
        self, object_id: bytes, client: Client, verb: str
    ) -> _Entry:
        entry = self._entries.get(object_id)
        if entry is None:
            raise UnknownObjectError(
                f"cannot {verb} object {object_id.hex()}: it is not in the store; "
                "create it first"
            )
        if entry.is_sealed:
            raise AlreadySealedError(
                f"cannot {verb} object {object_id.hex()}: it is sealed and its bytes "
                "are final"
            )
        if entry.creator != client:
            raise WrongClientError(
                f"client {_client_name(client)} cannot {verb} object "
                f"{object_id.hex()}: client {_client_name(entry.creator)} is writing it"
            )
        return entry

    def _forget_writing(self, object_id: bytes, client: Client) -> None:
        writing = self._writing_by[client]
        del writing[object_id]
        if not writing:
            del self._writing_by[client]

    def _forget_pins(self, object_id: bytes, client: Client) -> None:
        pinned = self._pinned_by[client]
        del pinned[object_id]
        if not pinned:
            del self._pinned_by[client]

    def _end_pins(self, object_id: bytes, entry: _Entry, client: Client) -> int:
        del entry.pins[client]
        if entry.is_dropped and entry.is_sealed and not entry.pins:
            return self._reclaim(object_id, entry)
        return 0

    def _reclaim(self, object_id: bytes, entry: _Entry) -> int:
        del self._entries[object_id]
        for client in entry.pins:  # pinned ahead, and given up by its writer
            self._forget_pins(object_id, client)
        return self._arena.free(entry.offset)


def _client_name(client: Client) -> str:
    return client.hex() if isinstance(client, bytes) else str(client)
