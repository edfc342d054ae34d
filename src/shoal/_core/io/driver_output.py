"""What workers print, shown in the driver: `(name pid=123) line`.

Theory.  Each line is shown whole and says who printed it.  Ordinary lines pass
through a `LogFolder`, one per stream.  A progress bar in motion (a line that its
writer means to overwrite) is the last line of a terminal and is redrawn in place
until an ordinary line moves it down; with several bars the one that moved last is
shown.  Where there is no terminal nothing can be overwritten, so of each bar one
state per `BAR_INTERVAL_S` is shown, as a line, and its last state in any case.

Invariants: every ordinary line is shown or counted in a folded one, in the order it
came; the terminal's last line is the bar or empty.

What it does not do: no clock, no threads: the caller brings lines and the time.
"""

from __future__ import annotations

import enum
import math
import os
from collections.abc import Callable
from typing import Final, TextIO

from shoal._core.policy.log_folding import LogFolder

__all__ = [
    "BAR_INTERVAL_S",
    "DriverOutput",
    "PrefixColor",
    "choose_prefix_color",
    "format_line",
    "format_prefix",
]

BAR_INTERVAL_S: Final = 5.0
"""Without a terminal: seconds between two states of one source's bar."""

_BARS_TRACKED_MAX: Final = 10_000
"""Sources whose bars are remembered; beyond it each may show one state too many."""

_RESET: Final = "\x1b[0m"
_CYAN: Final = "\x1b[36m"
# Cyan, yellow, magenta, green, blue, red, each plain and bright: readable on dark and
# on light grounds, unlike black and white.
_RAINBOW: Final = tuple(f"\x1b[{code}m" for code in (36, 33, 35, 32, 34, 31)) + tuple(
    f"\x1b[{code}m" for code in (96, 93, 95, 92, 94, 91)
)
_CLEAR_LINE: Final = "\r\x1b[K"


class PrefixColor(enum.Enum):
    """How the prefix of a line is coloured."""

    NONE = "none"
    CYAN = "cyan"
    RAINBOW = "rainbow"
    """Each process a colour of its own, as far as they reach."""


def choose_prefix_color(setting: str | None, *, is_terminal: bool) -> PrefixColor:
    """The colour asked for by SHOAL_COLOR_PREFIX or RAY_COLOR_PREFIX.

    Args:
        setting: "0" for none, "1" for one per process, anything else or None for
            cyan.
        is_terminal: where the lines are shown; a file or a pipe gets no colours
            unless "1" asked for them.
    """
    if setting == "0":
        return PrefixColor.NONE
    if setting == "1":
        return PrefixColor.RAINBOW
    return PrefixColor.CYAN if is_terminal else PrefixColor.NONE


def format_prefix(
    name: str, pid: int, ip: str | None = None, color: PrefixColor = PrefixColor.NONE
) -> str:
    """`(name pid=123) `, with `, ip=…` for a line of another node (ip given)."""
    where = f", ip={ip}" if ip else ""
    prefix = f"({name} pid={pid}{where})" if name else f"(pid={pid}{where})"
    if color is PrefixColor.CYAN:
        prefix = f"{_CYAN}{prefix}{_RESET}"
    elif color is PrefixColor.RAINBOW:
        prefix = f"{_RAINBOW[pid % len(_RAINBOW)]}{prefix}{_RESET}"
    return prefix + " "


def format_line(
    name: str,
    pid: int,
    line: str,
    ip: str | None = None,
    color: PrefixColor = PrefixColor.NONE,
) -> str:
    """One line of a worker as the driver shows it, without end of line."""
    return format_prefix(name, pid, ip, color) + line


class DriverOutput:
    """Shows the workers' lines on one of the driver's two streams.

    Args:
        stream: gives the stream to write to; asked each time, because programs and
            test runners replace `sys.stdout`.
        folder: folds identical lines of different workers; None shows all.
        color: of the prefixes.
        is_terminal: can lines be overwritten?
        with_prefix: put `(name pid=123) ` before each line.
    """

    __slots__ = (
        "_bar",
        "_bar_shown_at",
        "_bar_source",
        "_color",
        "_folder",
        "_is_terminal",
        "_stream",
        "_with_prefix",
        "broken",
    )

    def __init__(
        self,
        stream: Callable[[], TextIO],
        *,
        folder: LogFolder | None,
        color: PrefixColor = PrefixColor.NONE,
        is_terminal: bool = False,
        with_prefix: bool = True,
    ) -> None:
        self._stream = stream
        self._folder = folder
        self._color = color
        self._is_terminal = is_terminal
        self._with_prefix = with_prefix
        self._bar = ""  # what the terminal's last line shows; empty when no bar
        self._bar_source: tuple[int, str | None] | None = None
        self._bar_shown_at: dict[tuple[int, str | None], float] = {}
        self.broken: Exception | None = None
        """Why nothing is shown any more: the stream was closed; None while it works."""

    def show(
        self,
        name: str,
        pid: int,
        line: str,
        now: float,
        *,
        ip: str | None = None,
        is_overwritten: bool = False,
    ) -> None:
        """Show one line; `now` is monotonic seconds."""
        prefix = format_prefix(name, pid, ip, self._color) if self._with_prefix else ""
        if is_overwritten:
            self._show_bar((pid, ip), prefix, line, now)
            return
        source = (pid, ip)
        self._bar_shown_at.pop(source, None)
        if source == self._bar_source:
            # Its next line takes the bar's place: mostly it is the bar's last state.
            self._bar, self._bar_source = "", None
            self._write(_CLEAR_LINE)
        if self._folder is None:
            self._write_lines([prefix + line])
        else:
            self._write_lines(self._folder.add(source, line, now, prefix=prefix))

    def tick(self, now: float) -> None:
        """Show what was held back until now; call at `deadline`."""
        if self._folder is not None:
            self._write_lines(self._folder.flush(now))

    def deadline(self) -> float | None:
        """When to call `tick`; None when nothing is held back."""
        return None if self._folder is None else self._folder.deadline()

    def close(self) -> None:
        """Show all that is held back and leave the terminal on an empty line."""
        self.tick(math.inf)
        if self._bar:
            self._bar, self._bar_source = "", None
            self._write("\n")

    def _show_bar(
        self, source: tuple[int, str | None], prefix: str, line: str, now: float
    ) -> None:
        if self._is_terminal:
            self._bar, self._bar_source = self._fitting(prefix, line), source
            self._write(_CLEAR_LINE + self._bar)
            return
        shown_at = self._bar_shown_at.get(source)
        if shown_at is None:
            # A bar is worth a line only when it lasts: its first state waits.
            if len(self._bar_shown_at) >= _BARS_TRACKED_MAX:
                self._bar_shown_at.clear()
            self._bar_shown_at[source] = now
        elif now - shown_at >= BAR_INTERVAL_S:
            self._bar_shown_at[source] = now
            self._write_lines([prefix + line])

    def _fitting(self, prefix: str, line: str) -> str:
        """A line that wraps could not be overwritten, so it is cut to the width."""
        try:
            columns = os.get_terminal_size(self._stream().fileno()).columns
        except (OSError, ValueError):
            columns = 80
        escapes = 0
        if self._color is not PrefixColor.NONE and prefix:
            escapes = len(_CYAN) + len(_RESET)
        return prefix + line[: max(0, columns - 1 - (len(prefix) - escapes))]

    def _write_lines(self, lines: list[str]) -> None:
        if not lines:
            return
        text = "\n".join(lines) + "\n"
        if self._bar:
            text = _CLEAR_LINE + text + self._bar
        self._write(text)

    def _write(self, text: str) -> None:
        if self.broken is not None:
            return
        try:
            stream = self._stream()
            stream.write(text)
            stream.flush()
        except (OSError, ValueError) as error:
            # `program | head`, or a stream that the program closed: the program goes
            # on and may not even notice; there is just nobody to show lines to.
            self.broken = error
