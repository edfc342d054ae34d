"""Progress bars that tasks and actors can draw: ``tqdm_ray.tqdm``.

A bar is one line on standard error that is written over and over.  In a worker the line
goes to the driver as all output does, marked as one that is overwritten, and the driver
keeps it apart from ordinary lines.

What it does not do: keep several bars of one process in places of their own;
``position`` is accepted and has no effect.

Source of the interface: Ray's ``ray.experimental.tqdm_ray``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sized
from time import monotonic
from typing import Any, Final

FLUSH_INTERVAL_S: Final = 0.1
"""How often a bar that moves is drawn, unless it is told otherwise."""

_BAR_CHARACTERS: Final = 20


class tqdm:
    """A progress bar.

    Args:
        iterable: what the bar follows when it is iterated over.
        desc: text in front of the bar.
        total: how many steps there are; the length of ``iterable`` if that has one;
            None draws a count without a bar.
        unit: what a step is called; "it".
        position: accepted for the sake of the interface.
        flush_interval_s: seconds between two drawings; 0.1.

    Example::

        for row in tqdm(rows, desc="rows"):
            handle(row)
    """

    def __init__(
        self,
        iterable: Iterable[Any] | None = None,
        desc: str | None = None,
        total: int | None = None,
        unit: str | None = None,
        position: int | None = None,
        flush_interval_s: float | None = None,
    ) -> None:
        self._iterable = iterable
        self._desc = desc or ""
        self._unit = unit or "it"
        self._interval_s = (
            FLUSH_INTERVAL_S if flush_interval_s is None else flush_interval_s
        )
        if total is None and isinstance(iterable, Sized):
            total = len(iterable)
        self.total = total
        self.n = 0
        self._started_at = monotonic()
        self._drawn_at = 0.0
        self._is_closed = False

    def update(self, n: int = 1) -> None:
        """Move on by ``n`` steps."""
        self.n += n
        now = monotonic()
        if now - self._drawn_at >= self._interval_s:
            self._draw(now, "\r")

    def set_description(self, desc: str) -> None:
        """Change the text in front of the bar."""
        self._desc = desc

    def refresh(self) -> None:
        """Draw now."""
        self._draw(monotonic(), "\r")

    def close(self) -> None:
        """Draw for the last time, and leave the line; a second time does nothing."""
        if not self._is_closed:
            self._is_closed = True
            self._draw(monotonic(), "\n")

    def _draw(self, now: float, end: str) -> None:
        self._drawn_at = now
        elapsed_s = now - self._started_at
        rate = self.n / elapsed_s if elapsed_s > 0 else 0.0
        label = f"{self._desc}: " if self._desc else ""
        speed = f"[{elapsed_s:.1f}s, {rate:.2f}{self._unit}/s]"
        if self.total:
            part = min(self.n / self.total, 1.0)
            bar = "#" * int(part * _BAR_CHARACTERS)
            text = (
                f"{label}{part:4.0%}|{bar:<{_BAR_CHARACTERS}}| {self.n}/{self.total} "
                f"{speed}"
            )
        else:
            text = f"{label}{self.n}{self._unit} {speed}"
        sys.stderr.write(text + end)
        sys.stderr.flush()

    def __iter__(self) -> Iterator[Any]:
        if self._iterable is None:
            raise TypeError(
                "this bar follows no iterable: give it one, or call update()."
            )
        for item in self._iterable:
            yield item
            self.update()
        self.close()

    def __enter__(self) -> tqdm:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def safe_print(*args: object, **options: Any) -> None:
    """``print``; lines and bars do not get in each other's way in any case."""
    print(*args, **options)  # noqa: T201 - printing is what it is for
