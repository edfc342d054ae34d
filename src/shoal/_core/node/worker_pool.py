"""Processes of this node: which there are, of which environment, in which state.

::

    starting -> idle <-> leased -> exiting -> gone
                  |----> actor  -------^
"""

from __future__ import annotations

from typing import Any

from shoal._core.base.resources import Allocation

STARTING, IDLE, LEASED, ACTOR, EXITING = "starting", "idle", "leased", "actor", "exiting"


class PoolWorker:
    """One worker process."""

    __slots__ = (
        "allocation",
        "env",
        "exit_cause",
        "exit_intended",
        "idle_since",
        "is_blocked",
        "is_kept",
        "lease",
        "pid",
        "started_at",
        "state",
        "worker_id",
    )

    def __init__(self, worker_id: bytes, env: str, now: float) -> None:
        self.worker_id = worker_id
        self.env = env
        self.state = STARTING
        self.pid = 0
        self.lease: Any = None
        self.allocation: Allocation | None = None
        self.is_blocked = False
        self.idle_since = now
        self.started_at = now
        #: it refused to retire: it owns objects that are still held
        self.is_kept = False
        self.exit_cause = ""
        self.exit_intended = False

    @property
    def address(self) -> str:
        """Where other processes reach it."""
        return self.worker_id.hex()


class WorkerPool:
    """The node's workers, by id; idle ones by environment, last used first."""

    def __init__(self) -> None:
        self.workers: dict[bytes, PoolWorker] = {}
        self._idle: dict[str, list[PoolWorker]] = {}

    def add(self, worker_id: bytes, env: str, now: float) -> PoolWorker:
        """A worker is being started."""
        worker = self.workers[worker_id] = PoolWorker(worker_id, env, now)
        return worker

    def became_idle(self, worker: PoolWorker, now: float) -> None:
        """A worker has nothing to do."""
        worker.state = IDLE
        worker.lease = None
        worker.idle_since = now
        self._idle.setdefault(worker.env, []).append(worker)

    def take_idle(self, env: str) -> PoolWorker | None:
        """An idle worker of an environment: the one used last, its caches warm."""
        idle = self._idle.get(env)
        while idle:
            worker = idle.pop()
            if worker.state == IDLE:
                return worker
        return None

    def idle_count(self, env: str) -> int:
        """How many workers of an environment are idle."""
        return len(self._idle.get(env, ()))

    def starting_count(self, env: str | None = None) -> int:
        """How many are starting, of one environment or all."""
        return sum(
            worker.state == STARTING and (env is None or worker.env == env)
            for worker in self.workers.values()
        )

    def remove(self, worker_id: bytes) -> PoolWorker | None:
        """A worker is gone."""
        worker = self.workers.pop(worker_id, None)
        if worker is not None and worker.state == IDLE:
            self._idle[worker.env].remove(worker)
        return worker

    def retire(self, worker: PoolWorker) -> None:
        """A worker is asked to end: it is no longer given out."""
        if worker.state == IDLE:
            self._idle[worker.env].remove(worker)
        worker.state = EXITING

    def longest_idle(self, since: float, keep: int) -> list[PoolWorker]:
        """Idle workers beyond ``keep`` not used since ``since``, oldest first."""
        idle = [
            worker
            for workers in self._idle.values()
            for worker in workers
            if not worker.is_kept
        ]
        idle.sort(key=lambda worker: worker.idle_since)
        spare = max(0, len(idle) - keep)
        return [worker for worker in idle[:spare] if worker.idle_since <= since]
