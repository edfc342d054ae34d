"""Local mode: ``wait``, which may have to run what it waits for.

Does not: know actors or resources.
"""

from __future__ import annotations

from typing import Any, Protocol

from shoal._core.base.object_ref import ObjectRef
from shoal._core.owner.references import PENDING, Entry
from shoal._core.process.local_peer import LocalPeer, deadline_of
from shoal._core.process.local_streams import LocalStream


class _Watched(Protocol):
    """Something that becomes ready."""

    @property
    def is_ready(self) -> bool:
        """Whether it is."""

    def help_along(self, deadline: float | None) -> None:
        """Run what makes it ready, if that runs only when somebody waits."""


class _WatchedObject:
    def __init__(self, entry: Entry) -> None:
        self._entry = entry

    @property
    def is_ready(self) -> bool:
        return self._entry.state != PENDING

    def help_along(self, deadline: float | None) -> None:
        if self._entry.record is not None:
            self._entry.record.help_along(deadline)


class _WatchedStream:
    """A generator is ready when its next step needs no wait."""

    def __init__(self, stream: LocalStream) -> None:
        self._stream = stream

    @property
    def is_ready(self) -> bool:
        return self._stream.has_news

    def help_along(self, deadline: float | None) -> None:
        self._stream.pull()


def wait(
    peer: LocalPeer, refs: list[Any], num_returns: int, timeout_s: float | None
) -> tuple[list[Any], list[Any]]:
    """The first ``num_returns`` ready refs or generators in order, and the others.

    Raises:
        TypeError: something in the list is no ref.
        ValueError: a ref twice.
    """
    _check(refs)
    deadline = deadline_of(timeout_s)
    with peer.lock:
        watched = [_watch(peer, one) for one in refs]

    def are_enough() -> bool:
        missing = num_returns
        for one in watched:
            missing -= one.is_ready
            if not missing:
                return True
        return False

    for one in watched:
        if not one.is_ready and not are_enough():
            one.help_along(deadline)
    peer.wait_until(are_enough, deadline)
    ready: list[Any] = []
    rest: list[Any] = []
    for ref, one in zip(refs, watched, strict=True):
        chosen = ready if len(ready) < num_returns and one.is_ready else rest
        chosen.append(ref)
    return ready, rest


def _watch(peer: LocalPeer, waitable: Any) -> _Watched:
    if not isinstance(waitable, ObjectRef):
        return _WatchedStream(waitable._record.stream)
    return _WatchedObject(peer.entry_of(waitable))


def _check(refs: list[Any]) -> None:
    """Every item is a ref or a generator, and none is there twice."""
    for ref in refs:
        if not isinstance(ref, ObjectRef) and not hasattr(ref, "_record"):
            raise TypeError(
                "wait takes a list of ObjectRefs; the list holds a "
                f"{type(ref).__name__}: {ref!r:.80}"
            )
    distinct = {ref if isinstance(ref, ObjectRef) else id(ref) for ref in refs}
    if len(distinct) < len(refs):
        raise ValueError("wait was given a ref twice; every ref must be there once.")
