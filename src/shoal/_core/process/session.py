"""Which session the public API of this process talks to.

A forked child of a driver or worker has none: it shares sockets, memory map and epoll
instance with its parent, and using any of them would corrupt the parent's work.  So it
closes its copies, silently, and begins without a session.
"""

from __future__ import annotations

import os
from typing import Any

from shoal._core.base.object_ref import hooks
from shoal._core.io import interrupts
from shoal._core.process.native import NativeSession


class Current:
    """The session of this process; ``None`` before init and after shutdown."""

    session: Any = None
    #: forked from a process with a session, and none was begun here since
    is_forked = False


current = Current()


def adopt_worker(peer: Any, executor: Any, info: dict[str, Any]) -> None:
    """In a worker: the API talks to this worker's peer."""
    current.session = NativeSession(peer, info, executor=executor)


def settle_interrupts(*, is_exiting: bool) -> None:
    """Raise a Ctrl-C that came while the session ended, unless the program ends too."""
    if is_exiting:
        interrupts.pending.clear()
    elif interrupts.pending:
        interrupts.check()


def _after_fork_in_child() -> None:
    session = current.session
    # Local mode is all in this process, and goes on in its copy.
    if isinstance(session, NativeSession):
        current.session = None
        current.is_forked = True
        session.peer.abandon()
        hooks.detach()
        interrupts.pending.clear()
        interrupts.uninstall()


os.register_at_fork(after_in_child=_after_fork_in_child)
