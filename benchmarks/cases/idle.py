"""What a system costs while it does nothing, after its start and one task.

Memory is the sum of the proportional set sizes of the whole process family, less what
this process took before it imported the system; so a driver's own growth counts, the
interpreter it would be anyway does not.
"""

import os
import time

from benchmarks import processes
from benchmarks.cases.measure import Session
from benchmarks.cases.systems import make_system, nop, own_pid

_SETTLED_S = 1.5
_SETTLE_LIMIT_S = 15.0
_MEGABYTE = 1e6


def family() -> list[int]:
    """This process and everything it has started."""
    return [os.getpid(), *processes.descendants(os.getpid())]


def settled_family() -> list[int]:
    """The family once it has not changed for a while.

    Some systems go on starting processes after the first result.
    """
    members = family()
    limit = time.monotonic() + _SETTLE_LIMIT_S
    since = time.monotonic()
    while time.monotonic() - since < _SETTLED_S and time.monotonic() < limit:
        time.sleep(0.1)
        now = family()
        if now != members:
            members, since = now, time.monotonic()
    return members


def main() -> None:
    """Measure one system."""
    session = Session()
    bare_bytes = processes.pss_bytes(os.getpid())
    system = make_system(session.peer)
    system.start(session.cpus)
    system.caller(nop)()
    members = settled_family()
    pss_bytes = sum(map(processes.pss_bytes, members)) - bare_bytes
    threads = sum(map(processes.thread_count, members))
    # Asked last, because these tasks may themselves start further workers.
    submit = system.submitter(own_pid)
    workers = set(system.collect(submit(8 * session.cpus)))
    worker_threads = max(map(processes.thread_count, workers))
    session.take("idle_pss", lambda: pss_bytes / _MEGABYTE)
    session.take("idle_processes", lambda: len(members))
    session.take("idle_threads", lambda: threads)
    session.take("idle_worker_threads", lambda: worker_threads)
    system.stop()


if __name__ == "__main__":
    main()
