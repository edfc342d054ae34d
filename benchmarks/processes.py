"""What the kernel tells about processes: family trees, memory, threads.

Reads /proc directly, so that it works in every peer's interpreter without a further
package and without that package's memory counting in the figures. Linux only.

A process family is found by parent links. The benchmark runner makes itself the
*subreaper* of what it starts, so that also processes whose parent has ended stay
in the family and can be counted, awaited and, at the end, killed. Nothing outside
the family is ever touched.

Sources: proc(5) for the files read here, prctl(2) for PR_SET_CHILD_SUBREAPER.
"""

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36

_KIB = 1024


def become_subreaper() -> None:
    """Make orphans among our descendants our children instead of init's.

    Raises:
        OSError: the kernel refused, which no supported Linux does.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def _stat_fields(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the state on, None when the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The command name may hold spaces and brackets; only the last ")" closes it.
    return text[text.rindex(")") + 2 :].split()


def is_running(pid: int) -> bool:
    """Whether the process exists and is not a zombie waiting to be reaped."""
    fields = _stat_fields(pid)
    return fields is not None and fields[0] not in ("Z", "X")


def descendants(root: int) -> list[int]:
    """All living descendants of a process, the process itself not included."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        fields = _stat_fields(int(entry))
        if fields is not None and fields[0] not in ("Z", "X"):
            children.setdefault(int(fields[1]), []).append(int(entry))
    found: list[int] = []
    queue = [root]
    while queue:
        offspring = children.get(queue.pop(), [])
        found.extend(offspring)
        queue.extend(offspring)
    return found


def pss_bytes(pid: int) -> int:
    """Proportional set size: own pages plus this process's share of shared ones.

    Shared pages are divided among the processes that map them, so that the sum over
    a family counts each page once. 0 when the process is gone.
    """
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * _KIB
    return 0


def rss_bytes() -> int:
    """Resident set size of the calling process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def thread_count(pid: int) -> int:
    """Number of threads of a process, 0 when it is gone."""
    fields = _stat_fields(pid)
    return 0 if fields is None else int(fields[17])


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Poll every millisecond; True as soon as it holds, False when time is up."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def wait_gone(pids: Iterable[int], timeout_s: float) -> bool:
    """Wait until none of the processes runs; False when time is up."""
    waiting = list(pids)
    return wait_until(lambda: not any(map(is_running, waiting)), timeout_s)


def clear_family(patience_s: float) -> int:
    """Wait for all our descendants to end, then kill what is left.

    Args:
        patience_s: seconds to let them end by themselves.

    Returns:
        How many had to be killed.
    """
    me = os.getpid()
    wait_until(lambda: not descendants(me), patience_s)
    left = descendants(me)
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    wait_gone(left, 10.0)
    _reap_orphans()
    return len(left)


def _reap_orphans() -> None:
    """Collect the exit status of ended children, so that no zombies pile up."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0] != 0:
            pass
    except ChildProcessError:
        return
