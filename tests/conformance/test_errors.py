"""Errors of tasks: their classes, what they carry, and how they travel on."""

import os
import signal
import sys
import threading

import pytest
from conformance_impl import ray

RayTaskError = ray.exceptions.RayTaskError


class Detailed(Exception):
    """An exception with an attribute, a default and its own constructor."""

    def __init__(self, code, detail="none"):
        super().__init__(code)
        self.code = code
        self.detail = detail


class Unpicklable(Exception):
    def __init__(self):
        super().__init__("holds a lock")
        self.lock = threading.Lock()


class Ununpicklable(Exception):
    """Pickles, but its class is then called with one argument too few."""

    def __init__(self, first, second):
        super().__init__(first)
        self.second = second


@ray.remote
def raise_made(make):
    raise make()


@ray.remote
def consume(*values):
    return values


def error_of(ref, expected=Exception):
    with pytest.raises(expected) as caught:
        ray.get(ref)
    return caught.value


# ---------------------------------------------------------------- dual exceptions


@pytest.mark.parametrize(
    "expected", [ValueError, RayTaskError, ray.exceptions.RayError]
)
def test_caught_as_its_own_class_and_as_task_error(ray_session, expected):
    """A task's exception is caught by its own class, RayTaskError and RayError."""
    error = error_of(raise_made.remote(lambda: ValueError("both")), expected)
    assert isinstance(error, ValueError)
    assert isinstance(error, RayTaskError)
    assert type(error).__name__ == "RayTaskError(ValueError)"


def test_cause_is_the_original(ray_session):
    """`.cause` is the exception that was raised, and `.args` holds just it."""
    error = error_of(raise_made.remote(lambda: ValueError("a", 2)))
    assert type(error.cause) is ValueError
    assert error.cause.args == ("a", 2)
    assert error.args == (error.cause,)


def test_attributes_of_the_original(ray_session):
    """Attributes of the user's exception are reachable on what is raised."""
    error = error_of(raise_made.remote(lambda: Detailed(7)), Detailed)
    assert (error.code, error.detail) == (7, "none")
    assert error.cause.code == 7


def test_text_has_header_and_remote_traceback(ray_session):
    """str() says function, pid and address, the remote lines, and the message."""

    @ray.remote
    def culprit():
        raise ValueError(f"in {os.getpid()}")

    error = error_of(culprit.remote())
    text = str(error)
    pid = error.cause.args[0].removeprefix("in ")
    assert "culprit()" in text
    assert f"pid={pid}" in text
    assert "ip=" in text
    assert "test_errors.py" in text
    assert text.rstrip().endswith(f"ValueError: in {pid}")


def test_subclass_relations_hold(ray_session):
    """A base class of the raised class catches it too."""
    error = error_of(raise_made.remote(lambda: FileNotFoundError(2, "none", "x")))
    assert isinstance(error, OSError)
    assert error.cause.errno == 2


def test_exception_group(ray_session):
    """An ExceptionGroup keeps its exceptions and works with `except*`."""
    group = ExceptionGroup("several", [ValueError(1), KeyError(2)])
    ref = raise_made.remote(lambda: group)
    assert [type(part) for part in error_of(ref).exceptions] == [ValueError, KeyError]
    seen = []
    try:
        ray.get(ref)
    except* KeyError as part:
        seen.append(part)
    except* ValueError:
        pass
    assert len(seen) == 1


@pytest.mark.parametrize("make", [lambda: Exception("x"), lambda: BaseException("x")])
def test_too_general_classes_stay_plain(ray_session, make):
    """Exception and non-Exception classes arrive as a plain RayTaskError."""
    error = error_of(raise_made.remote(make), RayTaskError)
    assert type(error) is RayTaskError
    assert error.cause.args == ("x",)
    assert "raise_made" in error.function_name
    assert error.traceback_str.rstrip().endswith("x")


@pytest.mark.parametrize("make", [lambda: StopIteration(3), lambda: AssertionError()])
def test_exceptions_with_a_meaning_to_python(ray_session, make):
    """StopIteration and AssertionError pass through like any other."""
    error = error_of(raise_made.remote(make), type(make()))
    assert isinstance(error, RayTaskError)


def test_keyboard_interrupt_counts_as_cancelled(ray_session):
    """A task that raises KeyboardInterrupt itself ends as cancelled."""
    error = error_of(raise_made.remote(KeyboardInterrupt))
    assert isinstance(error, RayTaskError)
    assert isinstance(error, ray.exceptions.TaskCancelledError)


def test_unpicklable_exception(ray_session):
    """An exception that cannot be pickled: RayTaskError whose cause describes it."""
    error = error_of(raise_made.remote(Unpicklable), RayTaskError)
    assert not isinstance(error, Unpicklable)
    assert isinstance(error.cause, ray.exceptions.RayError)
    assert "Unpicklable" in str(error)
    assert "holds a lock" in str(error)


def test_exception_that_cannot_be_unpickled(ray_session):
    """An exception that does not survive unpickling: UnserializableException."""
    ref = raise_made.remote(lambda: Ununpicklable("first", "second"))
    error = error_of(ref, ray.exceptions.UnserializableException)
    assert "Ununpicklable" in str(error)


def test_every_return_carries_the_error(ray_session):
    """With several returns, each ref raises."""
    for ref in raise_made.options(num_returns=3).remote(lambda: KeyError("k")):
        error_of(ref, KeyError)


def test_driver_goes_on_after_errors(ray_session):
    """Errors do not wear the session out."""
    refs = [raise_made.remote(lambda: ValueError("x")) for _ in range(50)]
    assert len(ray.wait(refs, num_returns=50)[0]) == 50
    assert ray.get(consume.remote(1)) == (1,)


# ---------------------------------------------------------------- how errors travel


def test_cause_chain_is_in_the_text(ray_session):
    """`raise ... from ...`: the text tells the first error and what came of it."""

    @ray.remote
    def convert():
        try:
            raise ZeroDivisionError("first")
        except ZeroDivisionError as error:
            raise ValueError("second") from error

    text = str(error_of(convert.remote(), ValueError))
    assert text.index("ZeroDivisionError: first") < text.index("ValueError: second")
    assert "direct cause" in text


def test_nested_get_shows_both_frames(ray_session):
    """An error that passes through an outer task names both tasks; cause: the first."""

    @ray.remote
    def outer():
        return ray.get(raise_made.remote(lambda: Detailed(3)))

    error = error_of(outer.remote(), Detailed)
    assert type(error.cause).__name__ == "Detailed"
    assert error.code == 3
    assert "outer()" in str(error)
    assert "raise_made()" in str(error)


def test_nested_error_can_be_handled_in_the_task(ray_session):
    """A task catches an inner task's error by its own class."""

    @ray.remote
    def careful():
        try:
            ray.get(raise_made.remote(lambda: KeyError("k")))
        except KeyError as error:
            return f"caught {error.cause!r}"

    assert ray.get(careful.remote()) == "caught KeyError('k')"


def test_failed_dependency(ray_session, journal):
    """A task with a failed argument does not run; its ref carries that error."""

    @ray.remote
    def consumer(value):
        journal.add("ran")

    bad = raise_made.remote(lambda: ValueError("producer broke"))
    error = error_of(consumer.remote(bad), ValueError)
    assert error.cause.args == ("producer broke",)
    assert "consumer()" in str(error)
    assert "raise_made()" in str(error)
    assert "input arguments" in str(error)
    assert journal.read() == []


def test_failed_dependency_through_a_chain(ray_session):
    """The error goes all the way down a chain, also by keyword."""

    @ray.remote
    def step(value=None):
        return value

    ref = raise_made.remote(lambda: Detailed(9))
    for _ in range(4):
        ref = step.remote(value=ref)
    assert error_of(ref, Detailed).code == 9


def test_nested_failed_ref_does_not_fail_the_task(ray_session):
    """A failed ref inside a container is the task's own business."""
    bad = raise_made.remote(lambda: ValueError("x"))
    assert ray.get(consume.remote([bad])) == ([bad],)


def test_returned_exception_is_a_value(ray_session):
    """An exception that a task returns is a value and is not raised."""

    @ray.remote
    def give():
        return ValueError("value")

    assert repr(ray.get(give.remote())) == repr(ValueError("value"))


def test_caught_error_that_is_returned_raises(ray_session):
    """A RayTaskError that a task returns is a stored RayError: get raises it."""

    @ray.remote
    def catch():
        try:
            ray.get(raise_made.remote(lambda: ValueError("inner")))
        except ValueError as error:
            return error

    error_of(catch.remote(), ValueError)


# ---------------------------------------------------------------- processes that end


@pytest.mark.parametrize(
    "end",
    [
        lambda: sys.exit(0),
        lambda: sys.exit("text"),
        lambda: os._exit(3),
        lambda: os.kill(os.getpid(), signal.SIGKILL),
    ],
    ids=["exit-0", "exit-text", "_exit", "sigkill"],
)
def test_end_of_the_worker(ray_session, end):
    """sys.exit, os._exit or a signal in a task: WorkerCrashedError after retries."""

    @ray.remote(max_retries=0)
    def leave():
        end()

    error = error_of(leave.remote(), ray.exceptions.WorkerCrashedError)
    assert not isinstance(error, RayTaskError)
    assert ray.get(consume.remote(1)) == (1,)


def test_crash_spoils_only_its_own_task(ray_session, gate):
    """Tasks on other workers do not notice a crash, and a dependent gets its error."""

    @ray.remote(max_retries=0)
    def crash():
        os._exit(1)

    @ray.remote
    def bystander():
        gate.wait()
        return "fine"

    beside = bystander.remote()
    bad = crash.remote()
    error_of(bad, ray.exceptions.WorkerCrashedError)
    error_of(consume.remote(bad), ray.exceptions.WorkerCrashedError)
    gate.open()
    assert ray.get(beside) == "fine"


# ---------------------------------------------------------------- serialisation errors


def test_result_that_cannot_be_serialised(ray_session):
    """A result that cannot be pickled fails the task with a TypeError."""

    @ray.remote
    def give():
        return {"guard": threading.Lock()}

    error = error_of(give.remote(), TypeError)
    assert isinstance(error, RayTaskError)
    assert "lock" in str(error)


def test_argument_that_cannot_be_serialised(ray_session):
    """An argument that cannot be pickled raises TypeError on the caller at once."""
    with pytest.raises(TypeError, match="lock") as caught:
        consume.remote(threading.Lock())
    assert not isinstance(caught.value, RayTaskError)


def test_function_that_cannot_be_serialised(ray_session):
    """A closure over something unpicklable raises TypeError, and names the function."""
    lock = threading.Lock()

    @ray.remote
    def guarded():
        return lock.locked()

    with pytest.raises(TypeError, match="guarded"):
        guarded.remote()


def test_argument_that_cannot_be_deserialised(ray_session):
    """An argument that fails to unpickle in the worker fails the task."""

    class Broken:
        def __reduce__(self):
            return int, ("nope",)

    error = error_of(consume.remote(Broken()), RayTaskError)
    assert "nope" in str(error)
