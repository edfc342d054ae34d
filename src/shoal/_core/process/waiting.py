"""``wait``: which of many refs are ready, at a cost that grows with what is ready.

A program that takes results as they come calls ``wait`` in a loop with the list that
the last call returned.  Such a list is recognised (comparing two lists of the same
objects costs nanoseconds an item), and the entries of its refs report to it when they
are ready, so that a call need not look at each of them again.  The recognised list
holds its refs for at most ``FORGET_S`` after the last call.
"""

from __future__ import annotations

from collections import deque
from operator import attrgetter
from time import monotonic
from typing import Any

from shoal._core.base.object_ref import ObjectRef, hooks
from shoal._core.io.engine import Waiter
from shoal._core.owner.references import PENDING, Entry
from shoal._core.process.peer import Peer

FORGET_S = 0.25
_id_of = attrgetter("_id")


class _Watch:
    """The refs of a wait loop that were not ready when it last looked."""

    __slots__ = ("_by_id", "last_used", "ready", "rest", "waiter")

    def __init__(self) -> None:
        #: the list as the caller has it, in order
        self.rest: list[Any] = []
        self._by_id: dict[bytes, Any] = {}
        #: those of it that have become ready since, in the order they did
        self.ready: deque[Any] = deque()
        self.waiter: Waiter | None = None
        self.last_used = 0.0

    def watch(self, entry: Entry, ref: Any) -> None:
        """Report when an entry is ready."""
        self._by_id[entry.object_id] = ref
        entry.add_waiter(self)

    def arrived(self, entry: Entry) -> None:
        """A watched object is ready."""
        ref = self._by_id.pop(entry.object_id, None)
        if ref is not None:
            self.ready.append(ref)
            if self.waiter is not None:
                self.waiter.arrived()

    def let_go(self) -> None:
        """Hold no refs any more; what is reported later is ignored."""
        self.rest = []
        self._by_id.clear()
        self.ready.clear()


class WaitLoops:
    """The wait loop of a process that is recognised, if there is one."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._watch: _Watch | None = None
        self._timer_is_set = False

    def wait(
        self, refs: list[Any], num_returns: int, timeout: float | None
    ) -> tuple[list[Any], list[Any]]:
        """Up to ``num_returns`` ready refs in the list's order, and the others.

        Raises:
            TypeError: something in the list is no ref.
            ValueError: a ref twice.
        """
        peer = self._peer
        with peer.lock:
            watch = self._recognise(refs) or self._begin(refs)
            missing = num_returns - len(watch.ready)
            if missing > 0:
                watch.waiter = waiter = Waiter(missing)
            if hooks.dropped:
                peer.drain_dropped()
            peer.owner.tasks.drain()
            if peer.engine.dirty:
                peer.engine.flush()
        if missing > 0:
            try:
                peer.block(waiter, timeout)
            except BaseException:
                watch.let_go()
                raise
            finally:
                watch.waiter = None
        with peer.lock:
            return self._split(watch, refs, num_returns)

    def _recognise(self, refs: list[Any]) -> _Watch | None:
        """The watch over this very list, possibly with new refs at its end."""
        watch, self._watch = self._watch, None
        if watch is None:
            return None
        known = watch.rest
        count = len(known)
        if not count or len(refs) < count:
            watch.let_go()
            return None
        if len(refs) == count:
            if refs == known:
                return watch
        elif refs[:count] == known:
            added = refs[count:]
            _check(refs)
            for ref in added:
                self._add(watch, ref)
            watch.rest = list(refs)
            return watch
        watch.let_go()
        return None

    def _begin(self, refs: list[Any]) -> _Watch:
        _check(refs)
        watch = _Watch()
        watch.rest = list(refs)
        for ref in refs:
            self._add(watch, ref)
        return watch

    def _add(self, watch: _Watch, ref: Any) -> None:
        peer = self._peer
        if not isinstance(ref, ObjectRef):
            self._add_stream(watch, ref)
            return
        entry = peer.get_entry(ref)
        if entry.state != PENDING:
            watch.ready.append(ref)
            return
        watch.watch(entry, ref)
        if entry.owner != peer.address:
            peer.owner.refs.fetch(entry)

    def _add_stream(self, watch: _Watch, generator: Any) -> None:
        """A generator counts as ready when its next step needs no wait."""
        stream = generator._record.stream
        if stream.is_next_ready:
            watch.ready.append(generator)
            return
        marker = Entry(b"stream:%x" % id(generator), "", 0)
        watch._by_id[marker.object_id] = generator
        stream.waiters.append(_StreamReady(watch, marker))

    def _split(
        self, watch: _Watch, refs: list[Any], num_returns: int
    ) -> tuple[list[Any], list[Any]]:
        ready = watch.ready
        count = min(num_returns, len(ready))
        rest = refs.copy()
        if count == 1:
            done = [ready.popleft()]
            rest.remove(done[0])
        else:
            chosen = {id(ready.popleft()) for _ in range(count)}
            done = [ref for ref in refs if id(ref) in chosen]
            rest = [ref for ref in refs if id(ref) not in chosen]
        self._remember(watch, rest)
        return done, rest

    def _remember(self, watch: _Watch, rest: list[Any]) -> None:
        if not all(isinstance(one, ObjectRef) for one in rest[:1]):
            watch.let_go()  # generators are looked at anew each time
            return
        watch.rest = rest.copy()
        watch.last_used = monotonic()
        self._watch = watch
        if not self._timer_is_set:
            self._timer_is_set = True
            self._peer.call_at(watch.last_used + FORGET_S, self._forget)

    def _forget(self) -> None:
        self._timer_is_set = False
        watch = self._watch
        if watch is None:
            return
        due = watch.last_used + FORGET_S
        if monotonic() < due:
            self._timer_is_set = True
            self._peer.call_at(due, self._forget)
        else:
            self._watch = None
            watch.let_go()


class _StreamReady:
    """Reports a generator to a watch."""

    __slots__ = ("_marker", "_watch")

    def __init__(self, watch: _Watch, marker: Entry) -> None:
        self._watch = watch
        self._marker = marker

    def arrived(self, _: Any) -> None:
        """The generator has news."""
        self._watch.arrived(self._marker)


def _check(refs: list[Any]) -> None:
    """Every item is a ref or a generator, and none is there twice."""
    try:
        distinct = len(set(map(_id_of, refs)))
    except AttributeError:
        for ref in refs:
            if not isinstance(ref, ObjectRef) and not hasattr(ref, "_record"):
                raise TypeError(
                    "wait takes a list of ObjectRefs; the list holds a "
                    f"{type(ref).__name__}: {ref!r:.80}"
                ) from None
        distinct = len(set(map(id, refs)))
    if distinct != len(refs):
        raise ValueError("wait was given a ref twice; every ref must be there once.")
