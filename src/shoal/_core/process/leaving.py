"""How a worker process ends on purpose."""

from __future__ import annotations

import atexit
import os
import sys
from typing import Any

from shoal._core.process.context import worker_state
from shoal._core.process.metric_reports import report_metrics
from shoal._core.wire.node_messages import WorkerExiting


def exit_worker(executor: Any, error: BaseException) -> None:
    """User code asked to leave: an actor is done, a task's worker crashes on purpose.

    In an actor both ``exit_actor`` and ``sys.exit`` mean that it ends for good; in a
    task ``sys.exit`` ends the worker, which the owner sees as a crash.
    """
    actor = worker_state.actor is not None
    if actor:
        reason = "it exited by its own will (exit_actor or sys.exit in a method)"
    else:
        code = getattr(error, "code", None)
        reason = f"exited because its task called sys.exit({code!r})"
    with executor.peer.lock:
        executor.report_events()
        report_metrics(executor.peer, worker_component())
        executor.peer.send_node(WorkerExiting(reason, actor))
        executor.peer.engine.flush()
    leave(0 if actor else 1)


def worker_component() -> str:
    """What this process is, in the labels of its metrics."""
    return "worker" if worker_state.actor_spec is None else "actor"


def leave(status: int) -> None:
    """End this process the way an interpreter ends: atexit handlers, then out."""
    worker_state.actor = None
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # the daemon that reads it is gone
            continue
    os._exit(status)
