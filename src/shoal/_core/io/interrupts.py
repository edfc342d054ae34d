"""Ctrl-C and cancellation without breaking what they interrupt.

Python runs signal handlers in the main thread between any two bytecodes, also in the
middle of a state machine's update.  This handler looks where the main thread is: in
user code or in one of our waits, it raises; anywhere else inside shoal it comes back a
millisecond later, by which time the update is done.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

from shoal._core.io.engine import Engine

RETRY_S = 0.001
_PACKAGE = "shoal._"

_interruptible: set[CodeType] = set()


def interruptible(function: Callable[..., Any]) -> None:
    """Allow interrupts to raise in a function: it holds no lock and no half state."""
    _interruptible.add(function.__code__)


interruptible(Engine._poll)
interruptible(Engine._sleep)


def is_safe(frame: FrameType | None) -> bool:
    """Whether an exception may be raised where ``frame`` stands."""
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith(_PACKAGE):
            return frame.f_code in _interruptible
        frame = frame.f_back
    return True


def install(should_raise: Callable[[], bool]) -> None:
    """Handle SIGINT: raise KeyboardInterrupt when wanted, as soon as it is safe.

    Args:
        should_raise: asked at the moment of raising, in the main thread.
    """
    main = threading.main_thread().ident
    assert main is not None

    def again() -> None:
        signal.pthread_kill(main, signal.SIGINT)

    def handler(_signal: int, frame: FrameType | None) -> None:
        if not should_raise():
            return
        if is_safe(frame):
            raise KeyboardInterrupt
        timer = threading.Timer(RETRY_S, again)
        timer.daemon = True
        timer.start()

    signal.signal(signal.SIGINT, handler)


def interrupt_main_thread() -> None:
    """Send the main thread the signal that ``install`` handles."""
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGINT)
