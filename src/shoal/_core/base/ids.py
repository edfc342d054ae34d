"""Identifiers: one type per kind of thing, derived from one another where that helps.

Layout (all lengths in bytes)::

    JobId     4
    WorkerId 16   any process that can own objects (driver or worker)
    NodeId   28
    ActorId  16   random
    TaskId   24 = counter (8, little endian) + owner tag (12) + JobId (4)
    ObjectId 28 = TaskId (24) + index (4, little endian; returns count from 1)

An owner makes ids without asking anybody: the tag is random per process, the counter
is its own.  This module is pure: randomness comes in as bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import NewType

JobId = NewType("JobId", bytes)
WorkerId = NewType("WorkerId", bytes)
NodeId = NewType("NodeId", bytes)
ActorId = NewType("ActorId", bytes)
TaskId = NewType("TaskId", bytes)
ObjectId = NewType("ObjectId", bytes)
PlacementGroupId = NewType("PlacementGroupId", bytes)

TASK_ID_BYTES = 24
OBJECT_ID_BYTES = 28
UNIQUE_ID_BYTES = 16
NODE_ID_BYTES = 28
OWNER_TAG_BYTES = 12
JOB_ID_BYTES = 4

#: Index of an object made by ``put``: far above any number of returns.
PUT_INDEX = (0xF5000001).to_bytes(4, "little")
FIRST_RETURN = (1).to_bytes(4, "little")
NIL_JOB = JobId(bytes(JOB_ID_BYTES))


def task_id_source(tag: bytes, job: JobId) -> Callable[[], TaskId]:
    """Return a function that makes the next task id of one owner.

    Args:
        tag: 12 random bytes that no other owner has.
        job: the job the owner works for.
    """
    if len(tag) != OWNER_TAG_BYTES or len(job) != JOB_ID_BYTES:
        raise ValueError(
            f"an owner tag has {OWNER_TAG_BYTES} bytes and a job id {JOB_ID_BYTES}; "
            f"got {len(tag)} and {len(job)}"
        )
    suffix = tag + job
    numbers = count(1)

    def next_task_id() -> TaskId:
        return TaskId(next(numbers).to_bytes(8, "little") + suffix)

    return next_task_id


def return_id(task: TaskId, index: int) -> ObjectId:
    """Id of the ``index``-th (from 0) object that ``task`` returns."""
    return ObjectId(task + (index + 1).to_bytes(4, "little"))


def task_of(object_id: ObjectId) -> TaskId:
    """The task that made an object."""
    return TaskId(object_id[:TASK_ID_BYTES])


def job_of(identifier: bytes) -> JobId:
    """The job a task or object id belongs to."""
    return JobId(identifier[TASK_ID_BYTES - JOB_ID_BYTES : TASK_ID_BYTES])
