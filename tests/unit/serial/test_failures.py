"""Errors as payloads: text, cause, class and rules for what can't be carried."""

from __future__ import annotations

import pickle
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from shoal._core.serial import failures
from shoal._core.serial.failures import (
    decode_failure,
    dependency_failure,
    encode_failure,
)
from shoal.exceptions import (
    GetTimeoutError,
    RayError,
    RayTaskError,
    TaskCancelledError,
    UnserializableException,
    WorkerCrashedError,
)

HEADER = "\x1b[36mray::f()\x1b[39m (pid=7, ip=10.0.0.1)"


def raised(code: Callable[[], object]) -> BaseException:
    """What ``code`` raises, traceback included."""
    try:
        code()
    except BaseException as error:  # noqa: BLE001 - to be looked at
        return error
    raise AssertionError("nothing was raised")


def payload_of(code: Callable[[], object], name: str = "f") -> bytes:
    return encode_failure(raised(code), function_name=name, pid=7, ip="10.0.0.1")


def error_of(code: Callable[[], object], name: str = "f") -> Any:
    return decode_failure(payload_of(code, name))


class Plain(Exception):
    pass


class Locked(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class WithTwo(Exception):
    """Can be pickled and not rebuilt: its arguments are not those of its base."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(first)
        self.second = second


class Bomb(Exception):
    def __reduce__(self) -> Any:
        raise RuntimeError("not today")


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Quit(BaseException):
    pass


def boom() -> None:
    raise ValueError("boom")


class TestUserCode:
    def test_the_error_is_of_both_classes_and_tells_the_story(self) -> None:
        error = error_of(boom)
        assert isinstance(error, RayTaskError)
        assert isinstance(error, ValueError)
        assert repr(error.cause) == "ValueError('boom')"
        assert error.args == (error.cause,)
        lines = str(error).splitlines()
        assert lines[0] == HEADER
        assert lines[-1] == "ValueError: boom"
        assert 'raise ValueError("boom")' in str(error)
        assert (error.pid, error.ip, error.function_name) == (7, "10.0.0.1", "f")

    def test_each_reader_gets_an_error_of_its_own(self) -> None:
        payload = payload_of(boom)
        assert decode_failure(payload) is not decode_failure(memoryview(payload))

    @pytest.mark.parametrize("hide", [True, False])
    def test_frames_of_the_caller_and_above_can_be_left_out(self, hide: bool) -> None:
        def at_the_boundary() -> bytes:
            try:
                boom()
            except ValueError as error:
                frame = sys._getframe() if hide else None
                return encode_failure(
                    error, function_name="f", pid=7, ip="", hide_above=frame
                )
            raise AssertionError("boom did not raise")

        text = str(decode_failure(at_the_boundary()))
        assert ", in boom" in text
        assert (", in at_the_boundary" in text) is not hide

    def test_frames_of_shoal_are_left_out(self) -> None:
        text = str(error_of(lambda: failures.decode_failure(b"not a payload")))
        assert ", in <lambda>" in text
        assert "failures.py" not in text.replace("test_failures.py", "")

    def test_an_error_raised_by_shoal_alone_has_its_header_too(self) -> None:
        error = error_of(partial(decode_failure, b"not a payload"))
        assert str(error).startswith(HEADER)
        payload = encode_failure(ValueError("v"), function_name="f", pid=0, ip="")
        text = str(decode_failure(payload))
        assert text == "\x1b[36mray::f()\x1b[39m\nValueError: v"

    def test_an_actors_header_says_which(self) -> None:
        payload = encode_failure(
            raised(boom),
            function_name="A.m",
            pid=7,
            ip="10.0.0.1",
            actor_repr="A(me)",
            actor_id="ab" * 16,
        )
        assert str(decode_failure(payload)).startswith(
            "\x1b[36mray::A.m()\x1b[39m (pid=7, ip=10.0.0.1, "
            f"actor_id={'ab' * 16}, repr=A(me))\n"
        )

    def test_a_chain_is_told_from_the_first_error_on(self) -> None:
        def chained() -> None:
            try:
                boom()
            except ValueError as first:
                raise Plain("second") from first

        text = str(error_of(chained))
        assert text.count(HEADER) == 2
        assert "ValueError: boom\n\nThe above exception was the direct cause" in text
        assert text.splitlines()[-1].endswith("Plain: second")

    def test_a_context_is_told_unless_suppressed(self) -> None:
        def during() -> None:
            try:
                boom()
            except ValueError:
                raise Plain("second")  # noqa: B904 - the context is what is tested

        def instead() -> None:
            try:
                boom()
            except ValueError:
                raise Plain("second") from None

        assert "During handling" in str(error_of(during))
        assert "boom" not in str(error_of(instead)).replace("in boom", "")

    def test_groups_and_notes_are_told(self) -> None:
        def group() -> None:
            raise ExceptionGroup("several", [ValueError(1), KeyError("k")])

        def noted() -> None:
            error = ValueError("v")
            error.add_note("look there")
            raise error

        error = error_of(group)
        assert isinstance(error, ExceptionGroup)
        assert len(error.exceptions) == 2
        assert str(error).startswith(HEADER)
        assert "KeyError: 'k'" in str(error)
        error = error_of(noted)
        assert str(error).endswith("ValueError: v\nlook there")
        assert error.__notes__ == ["look there"]

    def test_errors_without_message_and_with_several_lines(self) -> None:
        def several() -> None:
            raise ValueError("one\ntwo")

        def none() -> None:
            raise ValueError

        assert str(error_of(several)).endswith("ValueError: one\ntwo")
        assert str(error_of(none)).endswith("\nValueError")

    def test_base_exceptions_are_carried(self) -> None:
        def leave() -> None:
            raise Quit("q")

        def bare() -> None:
            raise BaseException("b")

        assert isinstance(error_of(leave), Quit)
        assert type(error_of(bare)) is RayTaskError

    def test_deep_recursion_is_folded(self) -> None:
        def down() -> None:
            down()

        error = error_of(down)
        assert isinstance(error, RecursionError)
        assert "Previous line repeated" in str(error)


class TestWhatCannotBeCarried:
    @pytest.mark.parametrize("cls", [Locked, Bomb])
    def test_a_cause_that_cannot_be_pickled_is_described(
        self, cls: type[Exception]
    ) -> None:
        def fail() -> None:
            raise cls("what happened")

        error = error_of(fail)
        assert type(error) is RayTaskError
        assert type(error.cause) is RayError
        assert f"{cls.__qualname__} isn't serializable" in str(error.cause)
        assert "what happened" in str(error.cause)
        assert str(error).endswith(f"{cls.__qualname__}: what happened")

    def test_a_cause_that_cannot_be_rebuilt_is_found_by_the_reader(self) -> None:
        def fail() -> None:
            raise WithTwo(1, 2)

        error = error_of(fail)
        assert type(error) is UnserializableException
        assert HEADER in str(error)
        assert str(error).endswith("WithTwo: 1")
        assert "Rebuilding it raised TypeError" in error.__notes__[0]

    def test_a_cause_without_text_is_carried(self) -> None:
        def fail() -> None:
            raise Silent

        error = error_of(fail)
        assert isinstance(error, Silent)
        assert "str() failed" in str(error)

    def test_a_traceback_that_cannot_be_told_is_left_out(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(_story: object) -> None:
            raise OSError("no such file")

        monkeypatch.setattr(failures, "_hide_frames", refuse)
        text = str(error_of(boom))
        assert text.startswith(HEADER)
        assert "OSError: no such file" in text


class TestThroughSeveralTasks:
    def test_the_cause_stays_the_innermost_and_the_text_grows(self) -> None:
        inner = payload_of(boom, "inner")

        def outer() -> None:
            raise decode_failure(inner)

        error = error_of(outer, "outer")
        assert isinstance(error, ValueError)
        assert repr(error.cause) == "ValueError('boom')"
        text = str(error)
        assert text.index("ray::outer()") < text.index("ray::inner()")
        assert "shoal.exceptions.RayTaskError(ValueError): \x1b[36mray::inner" in text
        assert text.endswith("ValueError: boom")

    def test_an_error_of_the_system_raised_by_user_code_is_that_codes(self) -> None:
        def outer() -> None:
            raise GetTimeoutError("3 s")

        error = error_of(outer)
        assert isinstance(error, RayTaskError)
        assert isinstance(error, GetTimeoutError)
        assert str(error).startswith(HEADER)

    def test_an_error_of_the_system_that_nobody_raised_is_carried_as_it_is(
        self,
    ) -> None:
        for made in (WorkerCrashedError("signal 9"), TaskCancelledError("77")):
            payload = encode_failure(made, function_name="f", pid=0, ip="")
            error = decode_failure(payload)
            assert type(error) is type(made)
            assert str(error) == str(made)


class TestDependencies:
    def test_consumer_and_producer_are_told(self) -> None:
        producer = payload_of(boom, "producer")
        consumer = dependency_failure("consumer", producer)
        error: Any = decode_failure(consumer)
        assert isinstance(error, ValueError)
        assert repr(error.cause) == "ValueError('boom')"
        lines = str(error).splitlines()
        assert lines[0] == "\x1b[36mray::consumer()\x1b[39m"
        assert lines[1].strip() == (
            "At least one of the input arguments for this task could not be computed:"
        )
        assert lines[2].startswith("shoal.exceptions.RayTaskError: \x1b[36mray::produc")
        assert lines[-1] == "ValueError: boom"

    def test_several_steps(self) -> None:
        payload = payload_of(boom, "producer")
        for name in ("second", "third"):
            payload = dependency_failure(
                name, decode_failure(payload), pid=9, ip="10.0.0.2"
            )
        text = str(decode_failure(payload))
        assert text.count("could not be computed") == 2
        assert text.startswith("\x1b[36mray::third()\x1b[39m (pid=9, ip=10.0.0.2)\n")

    def test_a_producer_that_died(self) -> None:
        died = WorkerCrashedError("signal 9")
        error = decode_failure(dependency_failure("consumer", died))
        assert isinstance(error, RayTaskError)
        assert isinstance(error, WorkerCrashedError)
        assert "signal 9" in str(error)

    def test_a_producer_that_cannot_be_rebuilt(self) -> None:
        def fail() -> None:
            raise WithTwo(1, 2)

        error = decode_failure(dependency_failure("consumer", payload_of(fail)))
        assert isinstance(error, UnserializableException)
        assert str(error).endswith("WithTwo: 1")


def test_errors_can_be_sent_on() -> None:
    error = error_of(boom)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
