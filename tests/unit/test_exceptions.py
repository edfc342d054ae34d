"""The error tree: names, bases, texts, pickling, and joined classes."""

from __future__ import annotations

import copy
import gc
import inspect
import logging
import pickle
from dataclasses import dataclass
from typing import Any

import pytest

from shoal import exceptions
from shoal.exceptions import (
    ActorAlreadyExistsError,
    ActorDiedError,
    ActorHandleNotFoundError,
    ActorPlacementGroupRemoved,
    ActorUnavailableError,
    ActorUnschedulableError,
    AsyncioActorExit,
    AuthenticationError,
    CrossLanguageError,
    GetTimeoutError,
    InternalError,
    LocalRayletDiedError,
    NodeDiedError,
    ObjectFetchTimedOutError,
    ObjectFreedError,
    ObjectLostError,
    ObjectReconstructionFailedError,
    ObjectRefStreamEndOfStreamError,
    ObjectStoreFullError,
    OufOfBandObjectRefSerializationException,
    OutOfDiskError,
    OutOfMemoryError,
    OwnerDiedError,
    PendingCallsLimitExceeded,
    PlasmaObjectNotAvailable,
    RayActorError,
    RayCgraphCapacityExceeded,
    RayChannelError,
    RayChannelTimeoutError,
    RayDirectTransportError,
    RayError,
    RaySystemError,
    RayTaskError,
    ReferenceCountingAssertionError,
    RpcError,
    RuntimeEnvSetupError,
    StreamingGeneratorReplayInconsistentError,
    TaskCancelledError,
    TaskPlacementGroupRemoved,
    TaskUnschedulableError,
    UnserializableException,
    UserCodeException,
    WorkerCrashedError,
)

OBJECT = "ab" * 28
ACTOR = "cd" * 16

EXAMPLES: list[RayError] = [
    ActorAlreadyExistsError("the name a is taken"),
    ActorDiedError("it was killed", actor_id=ACTOR, preempted=True),
    ActorDiedError(RayTaskError("A.__init__", "trace", ValueError(1), actor_id=ACTOR)),
    ActorDiedError(),
    ActorHandleNotFoundError("another session"),
    ActorPlacementGroupRemoved(),
    ActorUnavailableError("its node is gone", bytes(16)),
    ActorUnavailableError(error_message="its node is gone", actor_id=None),
    ActorUnschedulableError("asks for 9 CPUs"),
    AsyncioActorExit(),
    AuthenticationError("no token"),
    CrossLanguageError("java.lang.Error"),
    GetTimeoutError("3 s"),
    InternalError("a lease was granted twice", ["asked", "granted"]),
    LocalRayletDiedError(),
    NodeDiedError("no heartbeat"),
    ObjectFetchTimedOutError(OBJECT, None, ""),
    ObjectFreedError(OBJECT, None, ""),
    ObjectLostError(OBJECT, b"address", "job.py:3"),
    ObjectReconstructionFailedError(OBJECT, "PUT"),
    ObjectReconstructionFailedError(OBJECT, reason_message="because", call_site="x:1"),
    ObjectRefStreamEndOfStreamError("no more"),
    ObjectStoreFullError("5 GiB asked, 1 GiB there"),
    OufOfBandObjectRefSerializationException("forbidden"),
    OutOfDiskError(),
    OutOfMemoryError("too much"),
    OwnerDiedError(OBJECT, None, ""),
    PendingCallsLimitExceeded("10 calls are waiting"),
    PlasmaObjectNotAvailable("gone"),
    RayActorError(ACTOR, "text", True, True),
    RayActorError(),
    RayCgraphCapacityExceeded("10"),
    RayChannelError("closed"),
    RayChannelTimeoutError("late"),
    RayDirectTransportError("no link"),
    RayError("plain"),
    RaySystemError(client_exc=ValueError(1), traceback_str="trace"),
    RayTaskError("f", "trace", KeyError("k"), "ray::f", 1, "10.0.0.1", "A(1)", ACTOR),
    ReferenceCountingAssertionError(OBJECT, None, ""),
    RpcError("refused", 14),
    RuntimeEnvSetupError("pip failed"),
    RuntimeEnvSetupError(),
    StreamingGeneratorReplayInconsistentError("3 items, then 2"),
    TaskCancelledError("01", error_message="by its parent"),
    TaskCancelledError(),
    TaskPlacementGroupRemoved(),
    TaskUnschedulableError("asks for 9 CPUs"),
    UnserializableException("trace"),
    UserCodeException("hook"),
    WorkerCrashedError("exit code 3"),
    WorkerCrashedError(),
]

# Class, direct bases: the contract that programs catch errors by.
TREE = {
    "ActorAlreadyExistsError": ["ValueError", "RayError"],
    "ActorDiedError": ["RayActorError"],
    "ActorHandleNotFoundError": ["ValueError", "RayError"],
    "ActorUnavailableError": ["RayActorError"],
    "GetTimeoutError": ["RayError", "TimeoutError"],
    "ObjectFetchTimedOutError": ["ObjectLostError"],
    "ObjectFreedError": ["ObjectLostError"],
    "ObjectReconstructionFailedError": ["ObjectLostError"],
    "OwnerDiedError": ["ObjectLostError"],
    "RayCgraphCapacityExceeded": ["RaySystemError"],
    "RayChannelError": ["RaySystemError"],
    "RayChannelTimeoutError": ["RayChannelError", "TimeoutError"],
    "RayDirectTransportError": ["RaySystemError"],
    "RayError": ["Exception"],
    "ReferenceCountingAssertionError": ["ObjectLostError", "AssertionError"],
    "StreamingGeneratorReplayInconsistentError": ["RaySystemError"],
}


def own_classes() -> list[type[RayError]]:
    return [
        cls
        for _, cls in inspect.getmembers(exceptions, inspect.isclass)
        if issubclass(cls, RayError)
    ]


@pytest.mark.parametrize("cls", own_classes(), ids=lambda cls: cls.__name__)
def test_each_class_has_the_bases_that_programs_catch_it_by(cls: type) -> None:
    expected = TREE.get(cls.__name__, ["RayError"])
    assert [base.__name__ for base in cls.__bases__] == expected


def test_each_class_has_an_example_and_a_line_in_the_tree() -> None:
    names = {cls.__name__ for cls in own_classes()}
    assert names == {type(example).__name__ for example in EXAMPLES}
    assert exceptions.__doc__ is not None
    assert [name for name in sorted(names) if name not in exceptions.__doc__] == []


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda e: type(e).__name__)
def test_pickling_keeps_class_text_arguments_and_attributes(error: RayError) -> None:
    copied = pickle.loads(pickle.dumps(error))
    assert type(copied) is type(error)
    assert str(copied) == str(error)
    assert repr(copied.args) == repr(error.args)
    assert repr(vars(copied)) == repr(vars(error))


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda e: type(e).__name__)
def test_each_text_says_something(error: RayError) -> None:
    # Two may be made without a word: their class says it all.
    silent = type(error) in (AsyncioActorExit, TaskCancelledError) and not error.args
    assert silent or len(str(error)) > 2


class TestTexts:
    def test_a_text_given_replaces_the_default(self) -> None:
        assert str(WorkerCrashedError()) == WorkerCrashedError._default_text
        assert str(WorkerCrashedError("signal 9")) == "signal 9"

    def test_cancelled_task_is_named(self) -> None:
        assert str(TaskCancelledError("77")) == "Task 77 was cancelled."
        assert str(TaskCancelledError("77", "by x")).endswith("cancelled. by x")

    def test_unschedulable(self) -> None:
        assert str(TaskUnschedulableError("m")) == "The task is not schedulable: m"
        assert str(ActorUnschedulableError("m")) == "The actor is not schedulable: m"

    def test_unavailable_actor_is_named_and_the_doubt_is_said(self) -> None:
        text = str(ActorUnavailableError("no route", b"\xab" * 16))
        assert "ab" * 16 in text
        assert "no route" in text
        assert "may have been executed" in text

    def test_lost_object_is_named_with_the_line_that_made_it(self) -> None:
        text = str(ObjectLostError(OBJECT, None, "job.py:3"))
        assert OBJECT in text
        assert "job.py:3" in text

    def test_reconstruction_reason_has_a_code_and_a_message(self) -> None:
        by_reason = str(ObjectReconstructionFailedError(OBJECT, "RETRIES_DISABLED"))
        assert "[OBJECT_UNRECONSTRUCTABLE_RETRIES_DISABLED]" in by_reason
        assert "max_retries=0" in by_reason
        assert str(ObjectReconstructionFailedError(OBJECT)).count("[UNKNOWN]") == 1

    def test_internal_error_tells_its_story(self) -> None:
        text = str(InternalError("twice", ["asked", "granted"]))
        assert text.splitlines()[1:] == ["  asked", "  granted"]

    def test_constructor_failure_carries_the_remote_traceback(self) -> None:
        cause = RayTaskError("A.__init__", "remote trace", ValueError(), actor_id=ACTOR)
        error = ActorDiedError.from_task_error(cause)
        assert "remote trace" in str(error)
        assert (error.actor_init_failed, error.preempted) == (True, False)
        assert error.actor_id == ACTOR


class Plain(Exception):
    def __init__(self, code: int, place: str) -> None:
        super().__init__(f"{code} at {place}")
        self.code = code
        self.pid = "the user's own pid"

    def double(self) -> int:
        return self.code * 2


class NewWithTwo(Exception):
    def __new__(cls, first: int, second: int) -> NewWithTwo:
        return super().__new__(cls, first, second)

    def __init__(self, first: int, second: int) -> None:
        super().__init__(first, second)


class Final(Exception):
    def __init_subclass__(cls, **_: Any) -> None:
        raise TypeError("no subclasses, please")


class Slotted(Exception):
    __slots__ = ("where",)

    def __init__(self, where: str) -> None:
        self.where = where


@dataclass(frozen=True)
class Frozen(Exception):
    size: int


class Unhashable(Exception):
    __hash__ = None  # type: ignore[assignment]


class Meta(type):
    pass


class WithMeta(Exception, metaclass=Meta):
    pass


class OwnReduce(Exception):
    def __reduce_ex__(self, protocol: Any) -> Any:
        return OwnReduce, ()


class Quit(BaseException):
    pass


def joined(cause: BaseException) -> Any:
    return RayTaskError("f", "remote trace", cause, pid=7).as_instanceof_cause()


JOINABLE = [
    ValueError("x", 2),
    Slotted("here"),
    Unhashable("u"),
    WithMeta("m"),
    OwnReduce(),
    KeyboardInterrupt(),
    SystemExit(3),
    Quit("q"),
    StopIteration(4),
    FileNotFoundError(2, "no", "file"),
    UnicodeDecodeError("utf8", b"ab", 0, 1, "r"),
    ExceptionGroup("g", [ValueError(1), KeyError("k")]),
    GetTimeoutError("late"),
    TaskCancelledError("77"),
]


class TestJoinedClass:
    @pytest.mark.parametrize("cause", JOINABLE, ids=lambda c: type(c).__name__)
    def test_is_both_and_survives_pickling(self, cause: BaseException) -> None:
        error = joined(cause)
        cls = type(error)
        assert isinstance(error, RayTaskError)
        assert isinstance(error, type(cause))
        assert cls.__mro__[:2] == (cls, RayTaskError)
        assert cls.__name__ == f"RayTaskError({type(cause).__name__})"
        assert cls.__qualname__ == cls.__name__
        assert cls.__module__ == "shoal.exceptions"
        assert error.cause is cause
        assert error.args == (cause,)
        assert str(error) == "remote trace"
        for copied in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
            assert type(copied) is cls
            assert str(copied) == "remote trace"
            assert type(copied.cause) is type(cause)
            assert copied.pid == 7

    def test_can_be_caught_by_either(self) -> None:
        with pytest.raises(Plain):
            raise joined(Plain(1, "home"))
        with pytest.raises(RayTaskError):
            raise joined(Plain(1, "home"))

    def test_attributes_and_methods_of_the_cause_come_first(self) -> None:
        error = joined(Plain(21, "home"))
        assert error.code == 21
        assert error.double() == 42
        assert error.pid == "the user's own pid"
        assert error.function_name == "f"
        with pytest.raises(AttributeError):
            _ = error.no_such_thing

    def test_what_builtin_exceptions_keep_in_c_is_copied(self) -> None:
        missing = joined(FileNotFoundError(2, "no", "file"))
        assert (missing.errno, missing.strerror, missing.filename) == (2, "no", "file")
        assert joined(SystemExit(3)).code == 3
        assert joined(StopIteration(4)).value == 4
        assert joined(AttributeError("x", name="size")).name == "size"

    def test_slots_of_the_cause_are_reachable(self) -> None:
        assert joined(Slotted("here")).where == "here"
        assert joined(Frozen(3)).size == 3

    def test_groups_can_be_split(self) -> None:
        seen = []
        try:
            raise joined(ExceptionGroup("g", [ValueError(1), KeyError("k")]))
        except* ValueError as group:
            seen.append(group.exceptions[0].args)
        except* KeyError as group:
            seen.append(group.exceptions[0].args)
        assert seen == [(1,), ("k",)]

    @pytest.mark.parametrize(
        "cause", [Exception("e"), BaseException("b"), RayError("r")]
    )
    def test_classes_it_is_of_already_are_not_joined(
        self, cause: BaseException
    ) -> None:
        error = RayTaskError("f", "trace", cause)
        assert error.as_instanceof_cause() is error
        assert error.make_dual_exception_instance() is not error

    @pytest.mark.parametrize(
        "cause",
        [Final("f"), NewWithTwo(1, 2), BaseExceptionGroup("g", [Quit()])],
        ids=lambda c: type(c).__name__,
    )
    def test_classes_that_refuse_are_left_with_a_warning(
        self, cause: BaseException, caplog: pytest.LogCaptureFixture
    ) -> None:
        error = RayTaskError("f", "trace", cause)
        with caplog.at_level(logging.WARNING, logger="shoal"):
            assert error.as_instanceof_cause() is error
        assert type(cause).__qualname__ in caplog.text
        assert error.cause is cause

    def test_a_half_made_instance_has_no_attributes(self) -> None:
        cls = type(joined(ValueError(1)))
        with pytest.raises(AttributeError, match="cause"):
            _ = cls.__new__(cls, RayTaskError("f", "trace", ValueError(1))).cause

    def test_one_class_per_cause_class_while_it_is_in_use(self) -> None:
        first, second = joined(Plain(1, "a")), joined(Plain(2, "b"))
        assert type(first) is type(second)

    def test_the_joined_class_goes_with_its_last_instance(self) -> None:
        class Local(Exception):
            pass

        error = joined(Local())
        key = id(Local)
        assert key in exceptions._dual_classes
        del error
        gc.collect()
        assert key not in exceptions._dual_classes


class TestOldNames:
    def test_an_old_name_is_todays_class_with_a_warning(self) -> None:
        with pytest.warns(DeprecationWarning, match="GetTimeoutError"):
            assert exceptions.RayTimeoutError is GetTimeoutError

    def test_an_unknown_name_is_an_attribute_error(self) -> None:
        with pytest.raises(AttributeError, match="NoSuchError"):
            _ = exceptions.NoSuchError
