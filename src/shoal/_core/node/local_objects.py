"""Objects in this node's store: who owns each, and who waits for room.

The table of bytes is ``store/object_table``; this adds owners, so that what a dead
owner left behind is freed, and a line for creations that find no room now.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from shoal._core.store.arena import Arena
from shoal._core.store.object_table import ObjectTable, StoreError
from shoal._core.wire.node_messages import (
    CreateObject,
    ObjectCreated,
    ObjectPinned,
    PinObject,
)

#: How long a creation waits at most for readers and writers to make room.
WAIT_MAX_S = 10.0
#: How often it is asked whether that can still happen.  The word that an object is no
#: longer needed may be on its way for about as long.
LOOK_AGAIN_S = 0.5


class ObjectPort(Protocol):
    """Answers to clients, and time."""

    def send(self, client: bytes, message: object) -> None:
        """Send to a process."""

    def now(self) -> float:
        """Monotonic seconds."""

    def call_at(self, when: float, action: Callable[[], None]) -> None:
        """Run ``action`` at about ``when``."""


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
        if self._waiting or not self._try_create(client, message):
            self._waiting.append((client, message))
            self._look_later(client, message, self._port.now() + WAIT_MAX_S)

    def _look_later(self, client: bytes, message: CreateObject, until: float) -> None:
        self._port.call_at(
            self._port.now() + LOOK_AGAIN_S, lambda: self._look(client, message, until)
        )

    def _look(self, client: bytes, message: CreateObject, until: float) -> None:
        """Refuse a creation that waits in vain.

        So it does when nothing is being read or written that could make room, and
        perhaps when the one who could make room is the one who waits.
        """
        if (client, message) not in self._waiting:
            return
        usage = self.table.usage()
        is_hopeless = not usage.pinned_count and not usage.unsealed_count
        if is_hopeless or self._port.now() >= until:
            self._waiting.remove((client, message))
            self._refuse(client, message, self._full_text(message))
            self._serve_waiting()
        else:
            self._look_later(client, message, until)

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
        self.table.seal(object_id, client)
        for reader, request in self._awaiting_seal.pop(object_id, ()):
            place = self.table.locate(object_id)
            self._answer_pin(reader, request, place)
            if place is None and request:
                self.table.unpin(object_id, reader)
        if object_id not in self.table:  # it was dropped meanwhile
            self._forget_if_gone(object_id)
            self._serve_waiting()

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
        for object_id, readers in self._awaiting_seal.items():
            still = [reader for reader in readers if reader[0] != client]
            self._awaiting_seal[object_id] = still
        for object_id in [key for key in self._awaiting_seal if key not in self.table]:
            for reader, request in self._awaiting_seal.pop(object_id):
                self._answer_pin(reader, request, None)
        address = client.hex()
        for object_id, owner in list(self._owners.items()):
            if owner == address:
                self.table.free(object_id)
            self._forget_if_gone(object_id)
        self._waiting = deque(one for one in self._waiting if one[0] != client)
        self._serve_waiting()

    def describe(self) -> dict[str, Any]:
        """Usage in bytes and counts."""
        usage = self.table.usage()
        return {name: getattr(usage, name) for name in usage.__slots__}
