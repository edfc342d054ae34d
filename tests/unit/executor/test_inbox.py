"""Tasks that arrived: begun in order, taken back from the end, cancelled, dropped."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal._core.executor.inbox import Inbox, InboxTask
from shoal._core.wire.worker_messages import FUNCTION, Callable_, PushTask

CALL = Callable_(1, FUNCTION, b"key", "f")
A, B = object(), object()


def arrive(inbox: Inbox, *numbers: int, link: object = A) -> list[InboxTask]:
    tasks = [
        InboxTask(link, PushTask(number, 1, b"task %d" % number, b""), CALL)
        for number in numbers
    ]
    for task in tasks:
        inbox.put(task)
    return tasks


def waiting(inbox: Inbox) -> list[int]:
    return [task.message.seq for task in inbox.waiting]


def test_tasks_begin_in_the_order_they_came_in() -> None:
    inbox = Inbox()
    first, second = arrive(inbox, 1, 2)
    assert not first.is_begun
    assert inbox.begin() is first
    assert first.is_begun
    assert not second.is_begun
    assert list(inbox.running) == [b"task 1"]
    assert inbox.begin() is second
    assert inbox.begin() is None
    inbox.finish(first)
    inbox.finish(first)
    assert list(inbox.running) == [b"task 2"]


def test_the_last_sent_are_given_back_first() -> None:
    inbox = Inbox()
    arrive(inbox, 1, 2, 3, 4)
    assert inbox.take_back(A, 2) == [3, 4]
    assert waiting(inbox) == [1, 2]
    assert inbox.take_back(A, 9) == [1, 2]
    assert inbox.take_back(A, 9) == []


def test_what_has_begun_is_not_given_back() -> None:
    inbox = Inbox()
    arrive(inbox, 1, 2)
    inbox.begin()
    assert inbox.take_back(A, 9) == [2]


def test_only_the_caller_that_asks_gets_its_own_back() -> None:
    inbox = Inbox()
    arrive(inbox, 1, 2)
    arrive(inbox, 3, 4, link=B)
    arrive(inbox, 5)
    assert inbox.take_back(A, 2) == [2, 5]
    assert waiting(inbox) == [1, 3, 4]
    assert inbox.take_back(object(), 9) == []
    assert waiting(inbox) == [1, 3, 4]


@given(st.lists(st.booleans(), max_size=12), st.integers(0, 14))
def test_giving_back_loses_and_moves_nothing(of_a: list[bool], count: int) -> None:
    inbox = Inbox()
    for number, is_of_a in enumerate(of_a):
        arrive(inbox, number, link=A if is_of_a else B)
    taken = inbox.take_back(A, count)
    ours = [number for number, is_of_a in enumerate(of_a) if is_of_a]
    assert taken == ours[len(ours) - min(count, len(ours)) :]
    assert waiting(inbox) == [n for n in range(len(of_a)) if n not in taken]


def test_a_task_is_found_whether_it_waits_or_runs() -> None:
    inbox = Inbox()
    first, second = arrive(inbox, 1, 2)
    inbox.begin()
    assert inbox.find(b"task 1") is first
    assert inbox.find(b"task 2") is second
    assert inbox.find(b"task 3") is None
    inbox.finish(first)
    assert inbox.find(b"task 1") is None


def test_a_cancelled_task_waits_no_more() -> None:
    inbox = Inbox()
    first, second = arrive(inbox, 1, 2)
    inbox.withdraw(first)
    assert inbox.begin() is second
    with pytest.raises(ValueError, match="not in"):
        inbox.withdraw(second)


def test_what_a_caller_sent_goes_with_it() -> None:
    inbox = Inbox()
    (first, _) = arrive(inbox, 1, 2)
    arrive(inbox, 3, link=B)
    inbox.begin()
    inbox.drop_link(A)
    assert waiting(inbox) == [3]
    assert inbox.find(b"task 1") is first  # it runs on
