"""``wait``: which of many refs are ready, at a cost that grows with what is ready."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from shoal._core.base.object_ref import hooks
from shoal._core.io.engine import Waiter
from shoal._core.owner.references import PENDING
from shoal._core.process.peer import Peer

_id_of = attrgetter("_id")


def wait(
    peer: Peer, refs: list[Any], num_returns: int, timeout: float | None
) -> tuple[list[Any], list[Any]]:
    """The first ``num_returns`` ready refs in order, and the others in order."""
    entries = peer.owner.refs.entries
    with peer.lock:
        if hooks.dropped:
            peer.drain_dropped()
        peer.owner.tasks.drain()
        pending = []
        ready = 0
        for ref in refs:
            entry = entries.get(ref._id) or peer.get_entry(ref)
            if entry.state == PENDING:
                pending.append(entry)
            else:
                ready += 1
        waiter = Waiter(num_returns - ready)
        if not waiter.is_done:
            for entry in pending:
                entry.add_waiter(waiter)
                if entry.owner != peer.address:
                    peer.owner.refs.fetch(entry)
        if peer.engine.dirty:
            peer.engine.flush()
    if not waiter.is_done:
        peer.block(waiter, timeout)
        with peer.lock:
            for entry in pending:
                if entry.state == PENDING:
                    entry.remove_waiter(waiter)
    done: list[Any] = []
    rest: list[Any] = []
    for ref in refs:
        entry = entries[ref._id]
        if len(done) < num_returns and entry.state != PENDING:
            done.append(ref)
        else:
            rest.append(ref)
    return done, rest
