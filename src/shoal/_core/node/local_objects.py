"""Objects in this node's store: who owns each, and who waits for room.

The table of bytes is ``store/object_table``; this adds owners, so that what a dead
owner left behind is freed, and a line for creations that find no room now.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

from shoal._core.store.arena import Arena
from shoal._core.store.object_table import ObjectTable, StoreError
from shoal._core.wire.node_messages import (
    CreateObject,
    ObjectCreated,
    ObjectPinned,
    PinObject,
)


class ObjectPort(Protocol):
    """Answers to clients."""

    def send(self, client: bytes, message: object) -> None:
        """Send to a process."""


class LocalObjects:
    """The node's object store, without the memory."""

    def __init__(self, port: ObjectPort, capacity: int) -> None:
        self._port = port
        self._capacity = capacity
        self.table = ObjectTable(Arena(capacity))
        self._owners: dict[bytes, str] = {}
        self._waiting: deque[tuple[bytes, CreateObject]] = deque()
        #: objects being written -> (client, request) of those who asked to read them
        self._awaiting_seal: dict[bytes, list[tuple[bytes, int]]] = {}

    def on_create(self, client: bytes, message: CreateObject) -> None:
        """A client wants to write an object."""
        if self._waiting:
            self._waiting.append((client, message))
        elif not self._try_create(client, message):
            self._waiting.append((client, message))
            self._refuse_if_hopeless()

    def _try_create(self, client: bytes, message: CreateObject) -> bool:
        try:
            offset = self.table.create(message.object_id, message.size, client)
        except StoreError as error:
            self._refuse(client, message, str(error))
            return True
        if offset is None:
            return False
        self._owners[message.object_id] = message.owner
        self._port.send(client, ObjectCreated(message.request, offset))
        return True

    def _refuse(self, client: bytes, message: CreateObject, reason: str) -> None:
        self._port.send(client, ObjectCreated(message.request, -1, reason))

    def _refuse_if_hopeless(self) -> None:
        """Nothing is being read or written that could make room: waiting is vain."""
        usage = self.table.usage()
        while self._waiting and not usage.pinned_count and not usage.unsealed_count:
            client, message = self._waiting.popleft()
            self._refuse(client, message, self._full_text(message))

    def _full_text(self, message: CreateObject) -> str:
        arena = self.table.usage()
        return (
            f"an object of {message.size:,} bytes finds no room: the store of "
            f"{self._capacity:,} bytes holds {arena.object_count} objects that are all "
            "still referenced, and its largest hole is "
            f"{arena.largest_hole_bytes:,} bytes. "
            "Drop refs you no longer need, or give the store more memory with "
            "init(object_store_memory=...)."
        )

    def _serve_waiting(self) -> None:
        while self._waiting:
            client, message = self._waiting[0]
            if not self._try_create(client, message):
                return
            self._waiting.popleft()

    def on_seal(self, client: bytes, object_id: bytes) -> None:
        """The bytes are written."""
        if not self.table.seal(object_id, client):
            self._forget_if_gone(object_id)
            self._serve_waiting()
        for reader, request in self._awaiting_seal.pop(object_id, ()):
            place = self.table.locate(object_id)
            self._answer_pin(reader, request, place)
            if place is None and request and object_id in self.table:
                self.table.unpin(object_id, reader)

    def on_pin(self, client: bytes, message: PinObject) -> None:
        """A client wants to read an object."""
        object_id = message.object_id
        place = self.table.pin(object_id, client)
        if place is None and self.table.pin_ahead(object_id, client):
            # The news of the object came before its writer's word that it is done.
            waiting = self._awaiting_seal.setdefault(object_id, [])
            waiting.append((client, message.request))
        else:
            self._answer_pin(client, message.request, place)

    def _answer_pin(
        self, client: bytes, request: int, place: tuple[int, int] | None
    ) -> None:
        if request:  # 0: the owner, who knows the place and asks for none
            offset, size = place if place is not None else (-1, 0)
            self._port.send(client, ObjectPinned(request, offset, size))

    def on_unpin(self, client: bytes, object_ids: list[bytes]) -> None:
        """A client has done with reading."""
        for object_id in object_ids:
            # It may be gone with a writer that died before it was sealed.
            if object_id in self.table:
                self.table.unpin(object_id, client)
            self._forget_if_gone(object_id)
        self._serve_waiting()

    def on_free(self, object_ids: list[bytes]) -> None:
        """Owners need these no longer."""
        for object_id in object_ids:
            self.table.free(object_id)
            self._forget_if_gone(object_id)
        self._serve_waiting()

    def _forget_if_gone(self, object_id: bytes) -> None:
        if object_id not in self.table:
            self._owners.pop(object_id, None)

    def on_client_gone(self, client: bytes) -> None:
        """A process ended: its pins, its half-written objects and what it owned go."""
        self.table.client_gone(client)
        for object_id in [key for key in self._awaiting_seal if key not in self.table]:
            for reader, request in self._awaiting_seal.pop(object_id):
                self._answer_pin(reader, request, None)
        address = client.hex()
        owned = [key for key, owner in self._owners.items() if owner == address]
        for object_id in owned:
            self.table.free(object_id)
            self._owners.pop(object_id, None)
        self._waiting = deque(one for one in self._waiting if one[0] != client)
        self._serve_waiting()

    def describe(self) -> dict[str, Any]:
        """Usage in bytes and counts."""
        usage = self.table.usage()
        return {name: getattr(usage, name) for name in usage.__slots__}
