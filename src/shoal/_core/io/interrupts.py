"""Ctrl-C and cancellation without breaking what they interrupt.

Python runs signal handlers in the main thread between any two bytecodes, also in the
middle of a state machine's update.  The handler of this module looks where the main
thread is.  In user code, or in one of the waits marked ``interruptible``, it raises.
Anywhere else inside shoal it only notes that an interrupt is *pending*, and

* operations look at ``pending`` where nothing is half done (as they begin, and before
  each wait), and call ``check``, which raises;
* a timer sends the signal again a millisecond later, for a program that has gone back
  to its own code meanwhile.

Invariants: nothing is raised outside those places; one interrupt raises once at most.

What it does not do: interrupt threads other than the main one (Python cannot).
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

RETRY_S = 0.001
_PACKAGE = "shoal._"

#: Not empty while an interrupt waits for a place where it may raise.  A list, because
#: its truth is the cheapest thing that a hot path can ask.
pending: list[None] = []

_interruptible: set[CodeType] = set()


class _Interrupts:
    """Whom interrupts are for; one instance per process."""

    def __init__(self) -> None:
        self.should_raise: Callable[[], bool] = bool
        self._is_resent = False
        self._timer_is_set = False

    def handle(self, _signal: int, frame: FrameType | None) -> None:
        """The signal handler: raise here, or leave it for later."""
        is_resent, self._is_resent = self._is_resent, False
        if not is_resent and not pending:
            pending.append(None)
        if not pending:  # ``check`` has raised it meanwhile
            return
        if not self.should_raise():
            pending.clear()
        elif is_safe(frame):
            pending.clear()
            raise KeyboardInterrupt
        elif not self._timer_is_set:
            self._timer_is_set = True
            timer = threading.Timer(RETRY_S, self._send_again)
            timer.daemon = True
            timer.start()

    def _send_again(self) -> None:
        self._timer_is_set = False
        if pending:
            self._is_resent = True
            interrupt_main_thread()


_interrupts = _Interrupts()


def interruptible(function: Callable[..., Any]) -> None:
    """Allow interrupts to raise in a function: it holds no lock and no half state."""
    _interruptible.add(function.__code__)


def is_safe(frame: FrameType | None) -> bool:
    """Whether an exception may be raised where ``frame`` stands."""
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith(_PACKAGE):
            return frame.f_code in _interruptible
        frame = frame.f_back
    return True


def check() -> None:
    """Raise the interrupt that is pending; call it where nothing is half done.

    Raises:
        KeyboardInterrupt: this is the main thread, and it is to be interrupted.
    """
    if threading.current_thread() is threading.main_thread():
        pending.clear()
        if _interrupts.should_raise():
            raise KeyboardInterrupt


def install(should_raise: Callable[[], bool]) -> None:
    """Handle SIGINT: raise KeyboardInterrupt when wanted, as soon as it is safe.

    Args:
        should_raise: asked at the moment of raising, in the main thread.
    """
    _interrupts.should_raise = should_raise
    signal.signal(signal.SIGINT, _interrupts.handle)


def uninstall() -> None:
    """Give SIGINT back to Python's own handler, unless somebody else has taken it."""
    if signal.getsignal(signal.SIGINT) == _interrupts.handle:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def interrupt_main_thread() -> None:
    """Send the main thread the signal that ``install`` handles."""
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGINT)
