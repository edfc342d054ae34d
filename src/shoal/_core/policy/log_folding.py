"""Show once what many workers print at the same time.

Theory.  A hundred workers that print the same warning flood the driver's terminal.
The first of the identical lines is shown at once, and from then on a window of a
few seconds is open for that text: the same line from other sources is held back and
counted, and when the window ends the last of them is shown with their number.

What is never folded: lines that differ in anything, numbers included, because the
number is often the point ("step 7 loss 0.3"); and repeats of one source, because a
loop that prints a line five times means five lines.  Both together: the n-th time
a source prints a line is held back when some line of that text was shown n times.

Invariants: every line added is shown now, or counted in a later "repeated" line;
windows are kept in the order of their opening; memory is bounded by
`LINES_TRACKED_MAX` texts of `FOLDED_LENGTH_MAX` characters.

What it does not do: it reads no clock and prints nothing; it does not choose prefixes.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass, field

__all__ = ["FOLDED_LENGTH_MAX", "LINES_TRACKED_MAX", "LogFolder"]

LINES_TRACKED_MAX = 2000
"""Texts with an open window; at the limit the oldest window is closed early."""

FOLDED_LENGTH_MAX = 4096
"""Longer lines, in characters, are shown as they come: they are rarely the same."""


@dataclass(slots=True)
class _Window:
    """What happened to one text since it was first shown.

    Attributes:
        end_s: when the window closes.
        shown: how often the text was shown.
        seen: how often each source printed it.
        held: how many lines wait to be shown as one.
        held_prefix: the prefix of the last of them; empty when none is held.
    """

    end_s: float
    shown: int = 0
    seen: dict[Hashable, int] = field(default_factory=dict)
    held: int = 0
    held_prefix: str = ""


class LogFolder:
    """Folds identical lines of different sources; one per output stream.

    Args:
        window_s: how long after the first of them identical lines are held back,
            in seconds.
        never_fold: regular expression; lines in which it is found are always shown.
        drop: regular expression; lines in which it is found are never shown.

    Raises:
        ValueError: a negative window, or an expression that cannot be compiled.
    """

    __slots__ = (
        "_drop",
        "_has_explained",
        "_held_lines",
        "_never_fold",
        "_window_s",
        "_windows",
    )

    def __init__(
        self,
        window_s: float = 5.0,
        *,
        never_fold: str | None = None,
        drop: str | None = None,
    ) -> None:
        if window_s < 0:
            raise ValueError(f"window_s must be 0 or more seconds, not {window_s}")
        self._window_s = window_s
        self._never_fold = _compiled("never_fold", never_fold)
        self._drop = _compiled("drop", drop)
        self._windows: dict[str, _Window] = {}
        self._held_lines = 0
        self._has_explained = False

    def add(
        self, source: Hashable, line: str, now: float, *, prefix: str = ""
    ) -> list[str]:
        """Take in one line and return the lines to show now, in order.

        Args:
            source: who printed it; lines of equal sources are never folded together.
            line: the text, without prefix and without its end of line.
            now: monotonic seconds.
            prefix: put before the line when it is shown; plays no part in folding.
        """
        shown = self.flush(now)
        if self._drop is not None and self._drop.search(line):
            return shown
        if not self._is_foldable(line):
            shown.append(prefix + line)
            return shown
        window = self._windows.get(line)
        if window is None:
            if len(self._windows) >= LINES_TRACKED_MAX:
                shown += self._close(next(iter(self._windows)))
            window = self._windows[line] = _Window(end_s=now + self._window_s)
        seen = window.seen[source] = window.seen.get(source, 0) + 1
        if seen > window.shown:
            window.shown += 1
            shown.append(prefix + line)
        else:
            window.held += 1
            window.held_prefix = prefix
            self._held_lines += 1
        return shown

    def flush(self, now: float) -> list[str]:
        """Close the windows that ended by `now`; `math.inf` closes all of them."""
        shown: list[str] = []
        while self._windows:
            line, window = next(iter(self._windows.items()))
            if window.end_s > now:
                break
            shown += self._close(line)
        return shown

    def deadline(self) -> float | None:
        """When to call `flush` next; None when no line is held back."""
        if not self._held_lines:
            return None
        return next(iter(self._windows.values())).end_s

    def _is_foldable(self, line: str) -> bool:
        return (
            self._window_s > 0
            and len(line) <= FOLDED_LENGTH_MAX
            and not line.isspace()
            and line != ""
            and (self._never_fold is None or not self._never_fold.search(line))
        )

    def _close(self, line: str) -> list[str]:
        window = self._windows.pop(line)
        if not window.held:
            return []
        self._held_lines -= window.held
        if window.held == 1:
            # One line stands for itself: saying "repeated 1x" would take more room.
            return [window.held_prefix + line]
        text = f"{window.held_prefix}{line} [repeated {window.held}x across cluster]"
        if not self._has_explained:
            self._has_explained = True
            text += (
                f" (a line that several workers print within {self._window_s:g} s is "
                "shown once; set SHOAL_DEDUP_LOGS=0 or RAY_DEDUP_LOGS=0 to see all)"
            )
        return [text]


def _compiled(option: str, pattern: str | None) -> re.Pattern[str] | None:
    if pattern is None:
        return None
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"{option} must be a regular expression, but {pattern!r} is none: {error}"
        ) from error
