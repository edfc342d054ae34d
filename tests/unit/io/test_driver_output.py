"""Workers' lines in the driver: prefixes, folding, bars."""

from __future__ import annotations

import io

import pytest

from shoal._core.io.driver_output import (
    BAR_INTERVAL_S,
    DriverOutput,
    PrefixColor,
    choose_prefix_color,
    format_line,
)
from shoal._core.policy.log_folding import LogFolder


def test_the_prefix_names_task_and_process() -> None:
    assert format_line("f", 12, "hello") == "(f pid=12) hello"
    assert format_line("f", 12, "hello", ip="10.0.0.2") == (
        "(f pid=12, ip=10.0.0.2) hello"
    )
    assert format_line("", 12, "hello") == "(pid=12) hello"


def test_only_the_prefix_is_coloured() -> None:
    assert format_line("f", 1, "x", color=PrefixColor.CYAN) == (
        "\x1b[36m(f pid=1)\x1b[0m x"
    )
    rainbow = {
        format_line("f", pid, "", color=PrefixColor.RAINBOW)[:5] for pid in (1, 2)
    }
    assert len(rainbow) == 2


@pytest.mark.parametrize(
    ("setting", "is_terminal", "expected"),
    [
        (None, True, PrefixColor.CYAN),
        (None, False, PrefixColor.NONE),
        ("0", True, PrefixColor.NONE),
        ("1", True, PrefixColor.RAINBOW),
        ("1", False, PrefixColor.RAINBOW),
    ],
)
def test_the_colour_follows_setting_and_terminal(
    setting: str | None, is_terminal: bool, expected: PrefixColor
) -> None:
    assert choose_prefix_color(setting, is_terminal=is_terminal) is expected


def output(**options: object) -> tuple[DriverOutput, io.StringIO]:
    stream = io.StringIO()
    made = DriverOutput(
        lambda: stream,
        **{"folder": None, **options},  # type: ignore[arg-type]
    )
    return made, stream


def test_lines_are_shown_in_order_and_can_go_without_prefix() -> None:
    shown, stream = output()
    shown.show("f", 1, "a", 0.0)
    shown.show("g", 2, "b", 0.0, ip="h")
    assert stream.getvalue() == "(f pid=1) a\n(g pid=2, ip=h) b\n"
    assert shown.deadline() is None
    plain, stream = output(with_prefix=False)
    plain.show("f", 1, "a", 0.0)
    assert stream.getvalue() == "a\n"


def test_identical_lines_are_folded_until_the_tick() -> None:
    shown, stream = output(folder=LogFolder())
    for pid in (1, 2, 3):
        shown.show("f", pid, "hot", 0.0)
    assert stream.getvalue() == "(f pid=1) hot\n"
    assert shown.deadline() == 5.0
    shown.tick(5.0)
    assert "(f pid=3) hot [repeated 2x across cluster]" in stream.getvalue()


def test_closing_shows_what_is_held() -> None:
    shown, stream = output(folder=LogFolder())
    for pid in (1, 2, 3):
        shown.show("f", pid, "hot", 0.0)
    shown.close()
    assert "[repeated 2x" in stream.getvalue()


def screen(text: str) -> list[str]:
    """What a terminal shows: carriage returns and "clear to end of line" applied."""
    rows = [""]
    for part in text.replace("\n", "\0\n\0").split("\0"):
        if part == "\n":
            rows.append("")
        else:
            rows[-1] = (rows[-1] + part).split("\r\x1b[K")[-1]
    return rows


def test_a_bar_moves_in_place_and_below_the_lines() -> None:
    shown, stream = output(is_terminal=True)
    shown.show("f", 1, " 10%", 0.0, is_overwritten=True)
    assert screen(stream.getvalue()) == ["(f pid=1)  10%"]
    shown.show("g", 2, "line", 0.0)
    shown.show("f", 1, " 20%", 0.0, is_overwritten=True)
    assert screen(stream.getvalue()) == ["(g pid=2) line", "(f pid=1)  20%"]
    shown.show("f", 1, "100%", 0.0)
    assert screen(stream.getvalue()) == ["(g pid=2) line", "(f pid=1) 100%", ""]


def test_a_bar_is_cut_to_the_width_of_the_terminal() -> None:
    for color in (PrefixColor.NONE, PrefixColor.CYAN):
        shown, stream = output(is_terminal=True, color=color)
        shown.show("f", 1, "#" * 200, 0.0, is_overwritten=True)
        assert stream.getvalue().count("#") == 79 - len("(f pid=1) ")


def test_closing_leaves_an_unfinished_bar_standing() -> None:
    shown, stream = output(is_terminal=True)
    shown.show("f", 1, "10%", 0.0, is_overwritten=True)
    shown.close()
    shown.close()
    assert screen(stream.getvalue()) == ["(f pid=1) 10%", ""]


def test_without_a_terminal_a_bar_says_little_but_its_end() -> None:
    shown, stream = output()
    for tenth in range(100):
        shown.show("f", 1, f"{tenth}%", tenth / 10, is_overwritten=True)
    shown.show("f", 1, "100%", 10.0)
    assert stream.getvalue() == "(f pid=1) 50%\n(f pid=1) 100%\n"
    assert BAR_INTERVAL_S == 5.0


def test_a_closed_stream_ends_the_showing_and_nothing_else() -> None:
    shown, stream = output()
    stream.close()
    shown.show("f", 1, "a", 0.0)
    assert isinstance(shown.broken, ValueError)
    shown.show("f", 1, "b", 0.0)
