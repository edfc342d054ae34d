"""Floods are folded, and nothing else is."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal._core.policy.log_folding import (
    FOLDED_LENGTH_MAX,
    LINES_TRACKED_MAX,
    LogFolder,
)


def test_the_first_line_is_shown_at_once_and_the_others_as_one() -> None:
    folder = LogFolder()
    assert folder.add("w1", "hot", 0.0, prefix="(1) ") == ["(1) hot"]
    assert folder.deadline() is None
    for number in range(2, 6):
        assert folder.add(f"w{number}", "hot", 1.0, prefix=f"({number}) ") == []
    assert folder.deadline() == 5.0
    assert folder.flush(4.9) == []
    (told,) = folder.flush(5.0)
    assert told.startswith("(5) hot [repeated 4x across cluster] (")
    assert "SHOAL_DEDUP_LOGS=0" in told
    assert "RAY_DEDUP_LOGS=0" in told
    assert folder.deadline() is None


def test_the_explanation_comes_once() -> None:
    folder = LogFolder()
    for start in (0.0, 10.0):
        for source in "abc":
            folder.add(source, "hot", start)
        told = folder.flush(start + 5.0)
    assert told == ["hot [repeated 2x across cluster]"]


def test_a_window_that_ended_is_shown_before_the_new_line() -> None:
    folder = LogFolder()
    for source in "abc":
        folder.add(source, "old", 0.0)
    told = folder.add("a", "new", 6.0)
    assert told[0].startswith("old [repeated 2x")
    assert told[1:] == ["new"]


def test_the_same_text_opens_a_new_window_after_the_old_one() -> None:
    folder = LogFolder()
    assert folder.add("a", "x", 0.0) == ["x"]
    assert folder.add("b", "x", 5.0) == ["x"]


def test_a_single_held_line_is_shown_as_it_is() -> None:
    folder = LogFolder()
    folder.add("a", "x", 0.0, prefix="(a) ")
    folder.add("b", "x", 0.0, prefix="(b) ")
    assert folder.flush(math.inf) == ["(b) x"]


def test_numbers_tell_lines_apart() -> None:
    folder = LogFolder()
    lines = [f"step {number}" for number in range(20)]
    shown = [text for n, line in enumerate(lines) for text in folder.add(n, line, 0.0)]
    assert shown == lines


def test_repeats_of_one_source_are_all_shown() -> None:
    folder = LogFolder()
    assert [folder.add("a", "x", 0.0) for _ in range(4)] == [["x"]] * 4
    assert folder.deadline() is None


def test_the_nth_line_of_another_source_folds_with_the_nth_of_the_first() -> None:
    folder = LogFolder()
    for _ in range(3):
        folder.add("a", "x", 0.0)
    assert [folder.add("b", "x", 0.0) for _ in range(4)] == [[], [], [], ["x"]]
    assert folder.flush(5.0)[0].startswith("x [repeated 3x")


@pytest.mark.parametrize("line", ["", "   ", "\t", "y" * (FOLDED_LENGTH_MAX + 1)])
def test_blank_and_very_long_lines_are_not_folded(line: str) -> None:
    folder = LogFolder()
    assert folder.add("a", line, 0.0) == [line]
    assert folder.add("b", line, 0.0) == [line]


def test_a_window_of_zero_folds_nothing() -> None:
    folder = LogFolder(0.0)
    assert [folder.add(source, "x", 0.0) for source in "ab"] == [["x"], ["x"]]


def test_expressions_choose_what_is_never_folded_and_what_is_dropped() -> None:
    folder = LogFolder(never_fold="epoch", drop="^DEBUG")
    assert folder.add("a", "epoch done", 0.0) == ["epoch done"]
    assert folder.add("b", "epoch done", 0.0) == ["epoch done"]
    assert folder.add("a", "DEBUG x", 0.0) == []
    assert folder.flush(math.inf) == []


@pytest.mark.parametrize("option", ["never_fold", "drop"])
def test_a_bad_expression_is_named(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} must be a regular expression"):
        LogFolder(**{option: "("})  # type: ignore[arg-type]


def test_a_negative_window_is_refused() -> None:
    with pytest.raises(ValueError, match="window_s"):
        LogFolder(-1.0)


def test_memory_is_bounded_and_the_oldest_goes_first() -> None:
    folder = LogFolder()
    for source in "abc":
        folder.add(source, "first", 0.0)
    for number in range(LINES_TRACKED_MAX - 1):
        assert folder.add("a", f"line {number}", 0.0) == [f"line {number}"]
    told = folder.add("a", "one more", 0.0)
    assert told[0].startswith("first [repeated 2x")
    assert told[1] == "one more"


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.sampled_from(["x", "y", "z"]),
            st.floats(0, 3, allow_nan=False),
        ),
        max_size=60,
    )
)
def test_no_line_is_lost(lines: list[tuple[int, str, float]]) -> None:
    folder = LogFolder()
    shown: list[str] = []
    now = 0.0
    for source, line, pause in lines:
        now += pause
        shown += folder.add(source, line, now)
    shown += folder.flush(math.inf)
    assert folder.deadline() is None
    for text in "xyz":
        told = 0
        for line in shown:
            if line == text:
                told += 1
            elif line.startswith(f"{text} [repeated "):
                told += int(line.split("repeated ")[1].split("x")[0])
        assert told == sum(1 for _, line, _ in lines if line == text)
