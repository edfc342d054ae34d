"""Progress bars: what they write, and when."""

from __future__ import annotations

import re

import pytest

from shoal.experimental.tqdm_ray import safe_print, tqdm


def written(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


def test_iterating(capsys: pytest.CaptureFixture[str]) -> None:
    """A bar passes on what it follows, counts it and ends its line."""
    bar = tqdm([1, 2, 3], desc="rows", flush_interval_s=0)
    assert list(bar) == [1, 2, 3]
    assert (bar.n, bar.total) == (3, 3)
    text = written(capsys)
    assert re.search(r"rows: 100%\|#{20}\| 3/3 \[.*it/s\]\n$", text)
    assert text.count("\r") == 3, "one drawing for each step, written over"


def test_unknown_total(capsys: pytest.CaptureFixture[str]) -> None:
    bar = tqdm(iter("ab"), unit="row")
    assert bar.total is None
    assert list(bar) == ["a", "b"]
    assert "2row [" in written(capsys)


def test_steps_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    with tqdm(total=4, flush_interval_s=0) as bar:
        bar.update(3)
        bar.set_description("late")
        bar.refresh()
        assert "late:  75%|" in written(capsys)
    assert "late:  75%|" in written(capsys)
    bar.close()
    assert written(capsys) == "", "the second close draws nothing"


def test_drawings_are_not_more_frequent_than_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bar = tqdm(total=1000, flush_interval_s=3600)
    bar.refresh()
    written(capsys)
    for _ in range(1000):
        bar.update()
    assert written(capsys) == ""
    assert bar.n == 1000


def test_more_steps_than_the_total(capsys: pytest.CaptureFixture[str]) -> None:
    bar = tqdm(total=2, flush_interval_s=0)
    bar.update(5)
    assert "100%|####################| 5/2" in written(capsys)


def test_nothing_to_iterate_over() -> None:
    with pytest.raises(TypeError, match="follows no iterable"):
        list(tqdm(total=1))


def test_safe_print(capsys: pytest.CaptureFixture[str]) -> None:
    safe_print("a", 1, sep="-")
    assert capsys.readouterr().out == "a-1\n"
