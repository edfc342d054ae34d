"""Interrupts raise where nothing is half done, and nowhere else."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from types import FrameType
from typing import Any

import pytest

from shoal._core.io import interrupts
from shoal._core.io.engine import Engine, Waiter

DEADLINE_S = 10.0

#: Stands for shoal's own code: functions whose module name says so.
_OURS: dict[str, Any] = {"__name__": "shoal._core.somewhere"}
exec(
    """
def plain(action):
    return action()

def marked(action):
    return action()
""",
    _OURS,
)
plain: Callable[[Callable[[], Any]], Any] = _OURS["plain"]
marked: Callable[[Callable[[], Any]], Any] = _OURS["marked"]


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """Leave the process's signal handling as it was."""
    before = signal.getsignal(signal.SIGINT)
    yield
    end_timers()
    interrupts.pending.clear()
    interrupts._interrupts.should_raise = bool
    interrupts._interrupts._is_resent = False
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def wanted() -> None:
    """Interrupts are wanted."""
    interrupts.install(lambda: True)


@pytest.fixture(autouse=True)
def mark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "_interruptible", set(interrupts._interruptible))
    interrupts.interruptible(marked)


def end_timers() -> None:
    """Let timers that were set run out; what they send arrives before we go on."""
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(DEADLINE_S)


def frame() -> FrameType:
    return sys._getframe(1)


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def run_until_interrupted(after: Callable[[], None]) -> None:
    """A user's program at work, after a call of ours."""
    plain(after)
    end = monotonic() + DEADLINE_S
    while monotonic() < end:
        pass
    raise AssertionError("nobody interrupted it")


# -- where it is safe ------------------------------------------------------------------


def test_user_code_is_safe() -> None:
    assert interrupts.is_safe(frame())
    assert interrupts.is_safe(None)


def test_our_code_is_not_nor_what_it_calls() -> None:
    assert not plain(lambda: interrupts.is_safe(frame()))


def test_user_code_called_by_a_marked_function_is() -> None:
    assert marked(lambda: interrupts.is_safe(frame()))
    assert plain(lambda: marked(lambda: interrupts.is_safe(frame())))


def test_our_code_called_by_user_code_is_not() -> None:
    """The innermost function of ours decides."""
    assert not marked(lambda: plain(lambda: interrupts.is_safe(frame())))


def test_the_waits_of_the_engine_are_marked() -> None:
    assert Engine._poll.__code__ in interrupts._interruptible
    assert Engine._sleep.__code__ in interrupts._interruptible
    assert Engine.turn.__code__ not in interrupts._interruptible


# -- raising ---------------------------------------------------------------------------


@pytest.mark.usefixtures("wanted")
def test_an_interrupt_in_user_code_raises() -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert not interrupts.pending


def test_an_interrupt_that_nobody_wants_is_forgotten() -> None:
    interrupts.install(lambda: False)
    interrupt()
    plain(interrupt)
    assert not interrupts.pending


@pytest.mark.usefixtures("wanted")
def test_in_our_code_it_waits_for_a_place_where_it_may_raise() -> None:
    done: list[str] = []

    def update() -> None:
        interrupt()
        assert interrupts.pending
        done.append("the update is whole")
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()

    plain(update)
    assert done
    assert not interrupts.pending


@pytest.mark.usefixtures("wanted")
def test_one_interrupt_raises_once() -> None:
    """The timer that was to send it again finds that it has been raised."""

    def update() -> None:
        interrupt()
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()

    plain(update)
    end_timers()
    assert not interrupts.pending


@pytest.mark.usefixtures("wanted")
def test_a_program_that_went_back_to_its_own_code_is_interrupted_there() -> None:
    with pytest.raises(KeyboardInterrupt):
        run_until_interrupted(after=interrupt)
    end_timers()
    assert not interrupts.pending


@pytest.mark.usefixtures("wanted")
def test_it_is_sent_again_until_our_code_is_done() -> None:
    def long_update() -> None:
        interrupt()
        first = interrupts._interrupts._timer_is_set
        end = monotonic() + 5 * interrupts.RETRY_S
        while monotonic() < end:
            pass
        assert first
        assert interrupts.pending

    with pytest.raises(KeyboardInterrupt):
        run_until_interrupted(after=long_update)


def test_whether_it_is_wanted_is_asked_when_it_would_raise() -> None:
    """The task it was for may have ended meanwhile."""
    is_running = [True]
    interrupts.install(lambda: bool(is_running))

    def update() -> None:
        interrupt()
        is_running.clear()
        interrupts.check()

    plain(update)
    assert not interrupts.pending


@pytest.mark.usefixtures("wanted")
def test_other_threads_are_not_interrupted() -> None:
    interrupts.pending.append(None)
    raised: list[BaseException] = []

    def look() -> None:
        try:
            interrupts.check()
        except BaseException as error:  # noqa: BLE001 - looked at below
            raised.append(error)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join(DEADLINE_S)
    assert raised == []
    assert interrupts.pending
    with pytest.raises(KeyboardInterrupt):
        interrupts.check()


# -- waits -----------------------------------------------------------------------------


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine("test")
    yield engine
    engine.close()


def wait_until_interrupted(engine: Engine, sender: Callable[[], object]) -> None:
    sender()
    engine.wait(Waiter(), monotonic() + DEADLINE_S)


@pytest.mark.usefixtures("wanted")
def test_a_wait_is_interrupted_and_the_engine_is_good_for_the_next(
    engine: Engine,
) -> None:
    sender = threading.Timer(0.005, interrupts.interrupt_main_thread)
    with pytest.raises(KeyboardInterrupt):
        wait_until_interrupted(engine, sender.start)
    assert not engine._lead.locked()
    waiter = Waiter()
    engine.call_at(0.0, waiter.arrived)
    assert engine.wait(waiter, monotonic() + DEADLINE_S)


@pytest.mark.usefixtures("wanted")
def test_a_follower_is_interrupted(engine: Engine) -> None:
    other = Waiter()
    leader = threading.Thread(
        target=engine.wait, args=(other, monotonic() + DEADLINE_S)
    )
    leader.start()
    sender = threading.Timer(0.005, interrupts.interrupt_main_thread)
    with pytest.raises(KeyboardInterrupt):
        wait_until_interrupted(engine, sender.start)
    assert engine._followers == []
    with engine.lock:
        engine.call_at(0.0, other.arrived)
    leader.join(DEADLINE_S)
    assert other.is_done


@pytest.mark.usefixtures("wanted")
def test_an_interrupt_that_is_pending_ends_the_next_wait(engine: Engine) -> None:
    with pytest.raises(KeyboardInterrupt):
        wait_until_interrupted(engine, lambda: plain(interrupt))


# -- beginning and end -----------------------------------------------------------------


@pytest.mark.usefixtures("wanted")
def test_the_signal_is_given_back() -> None:
    interrupts.uninstall()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("wanted")
def test_somebody_elses_handler_is_left_alone() -> None:
    def theirs(_signal: int, _frame: FrameType | None) -> None:
        return

    signal.signal(signal.SIGINT, theirs)
    interrupts.uninstall()
    assert signal.getsignal(signal.SIGINT) is theirs
