"""The table of jobs."""

from __future__ import annotations

from typing import Any

from shoal._core.control import jobs
from shoal._core.control.jobs import ControlJobs

INFO: dict[str, Any] = {"facts": {"namespace": "a"}, "setup": {"cwd": "/"}}


def nobody(_job_id: bytes) -> bool:
    return False


def test_jobs_are_numbered() -> None:
    """Each driver gets the next number, also after others have left."""
    table = ControlJobs(nobody)
    first = table.begin(b"driver 1", 10, INFO)
    table.end(b"driver 1")
    second = table.begin(b"driver 2", 11, INFO)
    assert (first.job_id, second.job_id) == (b"\1\0\0\0", b"\2\0\0\0")
    assert (second.pid, second.facts, second.setup) == (11, *INFO.values())


def test_a_job_is_over_once() -> None:
    """Its record stays: a detached actor of it may be restarted."""
    table = ControlJobs(nobody)
    job = table.begin(b"driver", 10, INFO)
    assert not job.is_over
    assert table.end(b"driver") is job
    assert job.is_over
    assert table.end(b"driver") is None
    assert table.get(job.job_id) is job


def test_old_jobs_are_forgotten_unless_an_actor_needs_them(monkeypatch: Any) -> None:
    """The oldest that are over go first; running ones stay."""
    monkeypatch.setattr(jobs, "OVER_KEPT_MAX", 1)
    needed: set[bytes] = set()
    table = ControlJobs(needed.__contains__)
    running = table.begin(b"running", 1, INFO)
    kept = table.begin(b"kept", 2, INFO)
    needed.add(kept.job_id)
    table.end(b"kept")
    old = table.begin(b"old", 3, INFO)
    table.end(b"old")
    assert table.get(old.job_id) is old
    last = table.begin(b"last", 4, INFO)
    table.end(b"last")
    on_record = [table.get(job.job_id) for job in (running, kept, old, last)]
    assert on_record == [running, kept, None, last]
