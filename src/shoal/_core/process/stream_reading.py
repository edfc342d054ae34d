"""The consumer's end of a streaming task: take items, wait for them, let go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoal._core.base.object_ref import ObjectRef, counted_ref
from shoal._core.io.engine import Waiter
from shoal._core.owner.calls import TaskRecord
from shoal._core.process.peer import Peer

if TYPE_CHECKING:
    import asyncio


def next_item(
    peer: Peer, record: TaskRecord, timeout: float | None
) -> ObjectRef[Any] | None:
    """The next item's ref; None at the end of the stream (or of the time)."""
    stream = record.stream
    if not stream.is_next_ready:
        waiter = Waiter(1)
        with peer.lock:
            if not stream.is_next_ready:
                stream.waiters.append(waiter)
            else:
                waiter.arrived()
            peer.engine.flush()
        peer.block(waiter, timeout)
    with peer.lock:
        object_id = peer.owner.tasks.take_item(record)
        peer.engine.flush()
    return None if object_id is None else counted_ref(object_id, peer.address)


class _LoopWait:
    """Wakes an event loop when a stream has news."""

    __slots__ = ("_future", "_loop", "_peer")

    def __init__(self, peer: Peer, future: asyncio.Future[None]) -> None:
        self._peer = peer
        self._loop = future.get_loop()
        self._future = future

    def arrived(self, _: object) -> None:
        """An item came, or the end."""
        self._peer.engine.async_waiters -= 1
        self._peer.engine.callbacks.append(self._deliver)

    def _deliver(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:  # the loop was closed meanwhile: nobody waits
            return

    def _wake(self) -> None:
        if not self._future.done():
            self._future.set_result(None)


async def wait_for_item(peer: Peer, record: TaskRecord) -> None:
    """Wait on the running loop until the next step needs no wait."""
    # Slow to import, and few programs await (futures.py).
    from asyncio import get_running_loop  # noqa: PLC0415

    stream = record.stream
    while not stream.is_next_ready:
        future: asyncio.Future[None] = get_running_loop().create_future()
        with peer.lock:
            if stream.is_next_ready:
                return
            stream.waiters.append(_LoopWait(peer, future))
            peer.engine.async_waiters += 1
        peer.engine.hurry()
        await future
