"""Which session the public API of this process talks to."""

from __future__ import annotations

from typing import Any

from shoal._core.process.native import NativeSession


class Current:
    """The session of this process; ``None`` before init and after shutdown."""

    session: Any = None
    #: makes a session when the API is used before ``init``
    auto_init: Any = None


current = Current()


def adopt_worker(peer: Any, executor: Any, info: dict[str, Any]) -> None:
    """In a worker: the API talks to this worker's peer."""
    current.session = NativeSession(peer, info, executor=executor)
