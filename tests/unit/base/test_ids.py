"""Identifiers: unique without asking, and readable from one another."""

from __future__ import annotations

import pytest

from shoal._core.base.ids import (
    FIRST_RETURN,
    JOB_ID_BYTES,
    NIL_JOB,
    OBJECT_ID_BYTES,
    OWNER_TAG_BYTES,
    PUT_INDEX,
    TASK_ID_BYTES,
    JobId,
    ObjectId,
    job_of,
    return_id,
    task_id_source,
    task_of,
)

TAG, OTHER_TAG = b"a" * OWNER_TAG_BYTES, b"b" * OWNER_TAG_BYTES
JOB = JobId(b"job1")


def test_the_lengths_add_up() -> None:
    assert len(JOB) == JOB_ID_BYTES
    assert 8 + OWNER_TAG_BYTES + JOB_ID_BYTES == TASK_ID_BYTES
    assert TASK_ID_BYTES + len(PUT_INDEX) == OBJECT_ID_BYTES
    assert bytes(4) == NIL_JOB


def test_task_ids_of_all_owners_differ() -> None:
    sources = [task_id_source(tag, JOB) for tag in (TAG, OTHER_TAG)]
    ids = [source() for source in sources for _ in range(1000)]
    assert len(set(ids)) == 2000
    assert {len(one) for one in ids} == {TASK_ID_BYTES}


def test_a_source_counts_from_one() -> None:
    source = task_id_source(TAG, JOB)
    assert source() == (1).to_bytes(8, "little") + TAG + JOB
    assert source() == (2).to_bytes(8, "little") + TAG + JOB


@pytest.mark.parametrize(("tag", "job"), [(b"short", JOB), (TAG, b"no job")])
def test_a_source_wants_a_tag_and_a_job_of_the_right_length(
    tag: bytes, job: bytes
) -> None:
    with pytest.raises(ValueError, match="an owner tag has 12 bytes and a job id 4"):
        task_id_source(tag, JobId(job))


def test_an_object_names_its_task_and_its_job() -> None:
    task = task_id_source(TAG, JOB)()
    first, second = return_id(task, 0), return_id(task, 1)
    assert first == task + FIRST_RETURN
    assert first != second
    assert len(first) == OBJECT_ID_BYTES
    assert task_of(first) == task_of(second) == task
    assert job_of(first) == job_of(task) == JOB


def test_a_put_is_no_return() -> None:
    task = task_id_source(TAG, JOB)()
    assert ObjectId(task + PUT_INDEX) not in [return_id(task, i) for i in range(1000)]
