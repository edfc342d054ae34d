"""Processes of this node: which there are, of which environment, in which state.

::

    starting -> idle <-> leased -> exiting -> gone
                  |----> actor  -------^
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from shoal._core.base.resources import Allocation

STARTING, IDLE, LEASED = "starting", "idle", "leased"
ACTOR, EXITING = "actor", "exiting"


#: A job, whose import path and folder its workers have, and an environment's key.
WorkerKind = tuple[bytes, str]


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
        "job",
        "lease",
        "pid",
        "started_at",
        "state",
        "worker_id",
    )

    def __init__(self, worker_id: bytes, job: bytes, env: str, now: float) -> None:
        self.worker_id = worker_id
        self.job = job
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
    def kind(self) -> WorkerKind:
        """What it can be used for."""
        return self.job, self.env

    @property
    def address(self) -> str:
        """Where other processes reach it."""
        return self.worker_id.hex()


class WorkerPool:
    """The node's workers, by id; idle ones by kind, last used first."""

    def __init__(self) -> None:
        self.workers: dict[bytes, PoolWorker] = {}
        self._idle: dict[WorkerKind, list[PoolWorker]] = {}

    def add(self, worker_id: bytes, kind: WorkerKind, now: float) -> PoolWorker:
        """A worker is being started."""
        worker = self.workers[worker_id] = PoolWorker(worker_id, *kind, now)
        return worker

    def became_idle(self, worker: PoolWorker, now: float) -> None:
        """A worker has nothing to do."""
        worker.state = IDLE
        worker.lease = None
        worker.idle_since = now
        self._idle.setdefault(worker.kind, []).append(worker)

    def take_idle(self, kind: WorkerKind) -> PoolWorker | None:
        """An idle worker of a kind: the one used last, its caches warm."""
        idle = self._idle.get(kind)
        while idle:
            worker = idle.pop()
            if worker.state == IDLE:
                return worker
        return None

    def starting_count(self, kind: WorkerKind | None = None) -> int:
        """How many are starting, of one kind or all."""
        return sum(
            worker.state == STARTING and (kind is None or worker.kind == kind)
            for worker in self.workers.values()
        )

    def remove(self, worker_id: bytes) -> PoolWorker | None:
        """A worker is gone."""
        worker = self.workers.pop(worker_id, None)
        if worker is not None and worker.state == IDLE:
            self._idle[worker.kind].remove(worker)
        return worker

    def retire(self, worker: PoolWorker) -> None:
        """A worker is asked to end: it is no longer given out."""
        if worker.state == IDLE:
            self._idle[worker.kind].remove(worker)
        worker.state = EXITING

    def longest_idle(
        self, since: float, keep: int, jobs: Collection[bytes]
    ) -> list[PoolWorker]:
        """Idle workers not used since ``since``.

        Of these ``jobs`` those beyond ``keep``, oldest first; of others, all.
        """
        idle = [worker for workers in self._idle.values() for worker in workers]
        over = [worker for worker in idle if worker.job not in jobs]
        idle = [worker for worker in idle if worker.job in jobs]
        idle.sort(key=lambda worker: worker.idle_since)
        spare = max(0, len(idle) - keep)
        return [one for one in over + idle[:spare] if one.idle_since <= since]

    def unused_of(self, job: bytes) -> list[PoolWorker]:
        """A job's workers that nobody has, but for their objects."""
        return [
            worker
            for worker in self.workers.values()
            if worker.job == job
            and (worker.state == IDLE or (worker.state == EXITING and worker.is_kept))
        ]

    def kept_since(self, since: float) -> list[PoolWorker]:
        """Workers that refused to end, no later than ``since``."""
        return [
            worker
            for worker in self.workers.values()
            if worker.is_kept and worker.idle_since <= since
        ]

    def is_ending(self, job: bytes) -> bool:
        """Whether processes of a job were told to end and have not yet."""
        return any(
            worker.job == job and worker.exit_cause for worker in self.workers.values()
        )
