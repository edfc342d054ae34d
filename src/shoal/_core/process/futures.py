"""Objects as futures: ``ref.future()`` and ``await ref``.

asyncio and concurrent.futures are imported when a future is first asked for: together
they would be a third of the time that ``import shoal`` takes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from shoal._core.base.object_ref import ObjectRef
from shoal._core.owner.references import PENDING, Entry
from shoal._core.process.peer import Peer


class _FutureWait:
    """Completes a future when an object is there."""

    __slots__ = ("_deliver", "_peer")

    def __init__(self, peer: Peer, deliver: Callable[[], None]) -> None:
        self._peer = peer
        self._deliver = deliver

    def arrived(self, _: Entry) -> None:
        """The object is there: deliver it outside the lock."""
        engine = self._peer.engine
        engine.async_waiters -= 1
        engine.callbacks.append(self._deliver)


def _when_ready(peer: Peer, ref: ObjectRef[Any], deliver: Callable[[], None]) -> None:
    engine = peer.engine
    with peer.lock:
        entry = peer.get_entry(ref)
        if entry.state == PENDING:
            entry.add_waiter(_FutureWait(peer, deliver))
            engine.async_waiters += 1
            if entry.owner != peer.address:
                peer.owner.refs.fetch(entry)
            engine.flush()
            if engine.async_waiters == 1:
                engine.hurry()
            return
    deliver()


def _fulfil(peer: Peer, ref: ObjectRef[Any], future: Any) -> None:
    if future.done():
        return
    try:
        value = peer.get_one(ref)
    except BaseException as error:  # noqa: BLE001 - raised where it is awaited
        future.set_exception(error)
    else:
        future.set_result(value)


def as_concurrent(peer: Peer, ref: ObjectRef[Any]) -> Any:
    """A ``concurrent.futures.Future`` of a ref's value."""
    from concurrent.futures import Future  # noqa: PLC0415 - see the header

    future: Future[Any] = Future()
    _when_ready(peer, ref, partial(_fulfil, peer, ref, future))
    return future


def as_asyncio(peer: Peer, ref: ObjectRef[Any]) -> Any:
    """An ``asyncio`` future of a ref's value, in the running loop."""
    from asyncio import get_running_loop  # noqa: PLC0415 - see the header

    loop = get_running_loop()
    future = loop.create_future()

    def deliver() -> None:
        try:
            loop.call_soon_threadsafe(_fulfil, peer, ref, future)
        except RuntimeError:  # the loop was closed meanwhile: nobody waits
            return

    _when_ready(peer, ref, deliver)
    return future
