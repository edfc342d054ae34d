"""Decide whether a message that should appear once may appear now.

One process-wide table of the keys seen so far. In the periodic mode it is
emptied once a minute, so that long-running programs repeat their warnings.

It does not print or log anything itself.
"""

from __future__ import annotations

import time

_PERIOD_S = 60.0


class MessageGate:
    """Lets each key through once, or once in every period."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._is_disabled = False
        self._is_periodic = False
        self._period_start = time.monotonic()

    def admits(self, key: str) -> bool:
        """Whether `key` comes for the first time (in this period)."""
        if self._is_disabled:
            return False
        now = time.monotonic()
        if self._is_periodic and now - self._period_start >= _PERIOD_S:
            self._seen.clear()
            self._period_start = now
        if key in self._seen:
            return False
        self._seen.add(key)
        return True

    def disable(self) -> None:
        """Let nothing through from now on."""
        self._is_disabled = True

    def enable_period(self) -> None:
        """Let each key through again in every period."""
        self._is_periodic = True


_gate = MessageGate()


def log_once(key: str) -> bool:
    """Whether a message should be logged: True the first time for a key.

    Args:
        key: names the message.

    Example:
        >>> [log_once("example-of-log-once") for _ in range(2)]
        [True, False]
    """
    return _gate.admits(key)


def disable_log_once_globally() -> None:
    """Make `log_once` return False from now on, in this process."""
    _gate.disable()


def enable_periodic_logging() -> None:
    """Make `log_once` return True once a minute for each key, in this process."""
    _gate.enable_period()
