"""Where and as what the present code runs: the task, the actor, the resources."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from shoal._core.executor.inbox import InboxTask


def _nothing() -> None:
    return None


class WorkerState:
    """What a worker process is for its whole life, or for a lease."""

    def __init__(self) -> None:
        self.demand: dict[str, int] = {}
        self.gpu_ids: list[int] = []
        self.placement_group = b""
        self.capture_children = False
        #: the group that children go to; empty: none
        self.captured = b""
        #: told when that changes, as what was worked out for it holds no more
        self.on_captured: Callable[[], None] = _nothing
        self.actor_spec: Any = None
        self.actor: Any = None
        #: what its output is marked with: the class, or what its ``repr`` says
        self.actor_name = ""
        self.incarnation = 0
        #: key of the runtime environment it was started with
        self.env = ""


#: The task this thread or coroutine runs; None in a driver.
current_task: ContextVar[InboxTask | None] = ContextVar("current_task", default=None)
worker_state = WorkerState()


def current_task_id() -> bytes | None:
    """Id of the running task; None in a driver."""
    task = current_task.get()
    return None if task is None else task.message.task_id
