"""Processes that must not outlive others: death signals, subreaping, clean-up.

Linux only: ``prctl`` has no wrapper in the standard library, so ctypes calls it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
from collections.abc import Collection

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_prctl = ctypes.CDLL(None, use_errno=True).prctl


def die_with_parent(parent: int, signal_number: int = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when its parent ends.

    Args:
        parent: the expected parent; if it is gone already, the signal is sent now.
    """
    _prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal_number)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(root: int) -> list[int]:
    """Ids of every process below ``root``, as /proc shows them now."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            parent = _parent_of(name)
            if parent is not None:
                children.setdefault(parent, []).append(int(name))
    found: list[int] = []
    queue = [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def _parent_of(name: str) -> int | None:
    try:
        with open(f"/proc/{name}/stat", "rb") as file:
            stat = file.read()
    except OSError:  # it ended while we looked
        return None
    return int(stat[stat.rindex(b")") + 2 :].split()[1])


def kill(pid: int, signal_number: int = signal.SIGKILL) -> None:
    """Send a signal to a process that may have ended."""
    try:
        os.kill(pid, signal_number)
    except ProcessLookupError:
        return


def kill_descendants(root: int) -> None:
    """End everything below ``root``; repeats until nothing is left."""
    for _ in range(100):
        below = descendants(root)
        if not below:
            return
        for pid in below:
            kill(pid)
        _reap_all()


def kill_orphans(sessions: Collection[int]) -> bool:
    """End the children of this process that belong to kernel sessions.

    A process that adopts orphans has those of a worker here once that is gone.  What
    left the worker's session (``setsid``) means to outlive it, and stays.

    Returns:
        Whether there were any; what they leave behind needs another call.
    """
    me = os.getpid()
    try:
        with open(f"/proc/{me}/task/{me}/children") as file:
            children = [int(pid) for pid in file.read().split()]
    except FileNotFoundError:  # a kernel without it: they go with this process
        return False
    found = False
    for pid in children:
        try:
            session = os.getsid(pid)
        except ProcessLookupError:  # it ended meanwhile
            continue
        if session in sessions:
            found = True
            kill(pid)
    return found


def _reap_all() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue
    except ChildProcessError:
        return


def remove_tree(path: str) -> None:
    """Remove a session's directory, whoever else removes it at the same time."""
    shutil.rmtree(path, ignore_errors=True)
