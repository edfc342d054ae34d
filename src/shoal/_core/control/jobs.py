"""Jobs of the cluster: what each driver's work needs to know, from joining on.

A job begins when its driver says hello and is over when that driver leaves or dies.
What a detached actor of it starts later still belongs to the job, so the record of a
job stays after its end; the oldest go first, but never one that an actor may need.

This table neither starts nor ends anything: the daemon's shell does, as it is told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shoal._core.base.ids import JOB_ID_BYTES, JobId

#: Jobs kept on record after their end.
OVER_KEPT_MAX = 1000


class Job:
    """One driver's work."""

    __slots__ = ("driver", "facts", "is_over", "job_id", "pid", "setup")

    def __init__(
        self, job_id: JobId, driver: bytes, pid: int, info: dict[str, Any]
    ) -> None:
        self.job_id = job_id
        self.driver = driver
        self.pid = pid
        #: what the API in every process of the job knows: namespace, runtime_env, …
        self.facts: dict[str, Any] = info["facts"]
        #: what a worker of it starts with: sys_path, cwd
        self.setup: dict[str, Any] = info["setup"]
        self.is_over = False


class ControlJobs:
    """The table of jobs."""

    def __init__(self, is_needed: Callable[[bytes], bool]) -> None:
        """``is_needed`` tells of a job that is over whether an actor of it lives."""
        self._is_needed = is_needed
        self._rows: dict[bytes, Job] = {}
        self._by_driver: dict[bytes, Job] = {}
        self._last_number = 0

    def begin(self, driver: bytes, pid: int, info: dict[str, Any]) -> Job:
        """A driver joined: its job gets the next number."""
        self._last_number += 1
        job_id = JobId(self._last_number.to_bytes(JOB_ID_BYTES, "little"))
        job = Job(job_id, driver, pid, info)
        self._rows[job_id] = self._by_driver[driver] = job
        return job

    def end(self, driver: bytes) -> Job | None:
        """A driver left; its job, unless that is over already."""
        job = self._by_driver.pop(driver, None)
        if job is not None:
            job.is_over = True
            self._forget_old()
        return job

    def _forget_old(self) -> None:
        over = [job for job in self._rows.values() if job.is_over]
        for job in over[: max(0, len(over) - OVER_KEPT_MAX)]:
            if not self._is_needed(job.job_id):
                del self._rows[job.job_id]

    def get(self, job_id: bytes) -> Job | None:
        """The job of an id, over or not."""
        return self._rows.get(job_id)
