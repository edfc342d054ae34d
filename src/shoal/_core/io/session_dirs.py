"""Directories of sessions: made, held, and removed when nobody is left.

All sessions of a user lie in one root directory.  Each has a directory of its own,
which the session's daemon makes, *holds* (an advisory lock that the kernel drops when
the last of its processes is gone, however it went) and removes at its end.  What a
session leaves behind all of whose processes were killed at once, the next one removes.

Invariants: a directory is removed by others only when nobody holds it; the root
itself is held while directories are made and looked through, so that one that is just
being made is never taken for a dead one.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from shoal._core.io.process_watch import remove_tree

SESSION_PREFIX = "session_"
_LOCK = "lock"


def make_root(root: str) -> None:
    """Make the directory of this user's sessions, mode 0700, if it is not there.

    Raises:
        PermissionError: something of that name is there and cannot be trusted.
    """
    os.makedirs(root, mode=0o700, exist_ok=True)
    found = os.lstat(root)
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    if not is_ours or found.st_mode & 0o077:
        raise PermissionError(
            f"{root} must be a directory of this user with mode 0700, and it is not: "
            "somebody else may have made it. Remove it, or choose another place with "
            "_temp_dir."
        )


def make_session_dir(session_dir: str) -> None:
    """Make a session's directory, hold it as long as this process lives, and tidy.

    Processes forked from this one hold it as well.

    Raises:
        FileExistsError: there is a directory of that name.
    """
    root = os.path.dirname(session_dir)
    with _held(root):
        os.mkdir(session_dir, mode=0o700)
        # Never closed: that is what holding means.
        fd = os.open(f"{session_dir}/{_LOCK}", os.O_RDWR | os.O_CREAT, mode=0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        dead = _hold_dead_ones(root)
    for path, fd in dead.items():
        remove_tree(path)
        os.close(fd)
    for name in ("p", "logs"):
        os.mkdir(f"{session_dir}/{name}", mode=0o700)


@contextmanager
def _held(root: str) -> Iterator[None]:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _hold_dead_ones(root: str) -> dict[str, int]:
    """Directories of dead sessions, each with the descriptor that holds it now."""
    if os.environ.get("SHOAL_KEEP_SESSION_DIR"):
        return {}
    dead = {}
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.name.startswith(SESSION_PREFIX):
                fd = _try_to_hold(f"{entry.path}/{_LOCK}")
                if fd is not None:
                    dead[entry.path] = fd
    return dead


def _try_to_hold(lock: str) -> int | None:
    """A descriptor that holds a directory; None when others do, or it is gone."""
    try:
        fd = os.open(lock, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:  # removed meanwhile
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd
