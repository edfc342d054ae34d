"""Local mode: what its users come for, and what it promises beyond the conformance
tests (``tests/conformance/test_local_mode.py``): the caller's thread, nothing held too
long, streams that run when they are read, calls that wait, interrupts, ends.
"""

from __future__ import annotations

import asyncio
import bdb
import contextvars
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shoal
from shoal._api.session import running_session
from shoal.exceptions import (
    ActorAlreadyExistsError,
    ActorDiedError,
    GetTimeoutError,
    PendingCallsLimitExceeded,
    RaySystemError,
    RayTaskError,
    TaskCancelledError,
    TaskUnschedulableError,
    WorkerCrashedError,
)
from shoal.util.placement_group import placement_group, remove_placement_group
from shoal.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def session() -> Iterator[Any]:
    """A local session with four CPUs and two GPUs."""
    shoal.init(local_mode=True, num_cpus=4, num_gpus=2)
    running = running_session()
    assert running is not None
    yield running.native
    shoal.shutdown()


def eventually(predicate: Callable[[], object], why: str) -> None:
    deadline = time.monotonic() + 10
    while not predicate():
        assert time.monotonic() < deadline, why
        time.sleep(0.005)


@shoal.remote
def identity(value: Any) -> Any:
    return value


class Signal:
    """An actor whose calls wait for one another."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    async def wait(self, value: Any = None) -> Any:
        await self._event.wait()
        return value

    async def send(self) -> None:
        self._event.set()


class Log:
    """An actor that notes what it was told, in order."""

    def __init__(self) -> None:
        self.entries: list[Any] = []

    def add(self, entry: Any) -> int:
        self.entries.append(entry)
        return len(self.entries)

    def read(self) -> list[Any]:
        return self.entries

    def count(self, up_to: int) -> Iterator[int]:
        for number in range(up_to):
            self.entries.append(number)
            yield number


# ------------------------------------------------------------- the caller's thread


def test_tasks_and_plain_actors_run_on_the_callers_thread() -> None:
    here = threading.get_ident()
    where = shoal.remote(threading.get_ident)
    actor = shoal.remote(Log).remote()
    in_actor = actor.__ray_call__.remote(lambda _self: threading.get_ident())
    assert shoal.get([where.remote(), in_actor]) == [here, here]


def test_a_trace_function_sees_the_lines_of_tasks() -> None:
    """What debuggers and coverage are made of."""

    @shoal.remote
    def traced() -> str:
        word = "seen"
        return word

    lines: list[str] = []

    def trace(frame: Any, event: str, _argument: Any) -> Any:
        if frame.f_code.co_name == "traced" and event == "line":
            lines.append(frame.f_code.co_filename)
        return trace

    sys.settrace(trace)
    try:
        traced.remote()
    finally:
        sys.settrace(None)
    assert lines == [__file__, __file__]


def test_breakpoint_in_a_task(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        "import shoal\n"
        "shoal.init(local_mode=True)\n"
        "@shoal.remote\n"
        "def f(x):\n"
        "    y = x * 2\n"
        "    breakpoint()\n"
        "    return y\n"
        "print('result', shoal.get(f.remote(21)))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        input="p y\nup\np 'caller'\ncontinue\n",
        capture_output=True,
        text=True,
        timeout=40,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert "(Pdb) 42" in done.stdout
    assert "result 42" in done.stdout


def test_deep_recursion() -> None:
    """A task inside a task has the stack of a process of its own."""

    @shoal.remote
    def down(depth: int) -> int:
        if depth == 0:
            return 0
        below: int = shoal.get(down.remote(depth - 1))
        return below + 1

    limit = sys.getrecursionlimit()
    assert shoal.get(down.remote(250)) == 250
    shoal.shutdown()
    assert sys.getrecursionlimit() == limit


def test_context_variables_do_not_leak() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("v", default="none")

    @shoal.remote
    def change() -> str:
        before = variable.get()
        variable.set("task")
        return before

    variable.set("driver")
    # The variable is pickled by value with the function, so it is another one; what
    # matters is that the driver's context is untouched, whatever runs in it.
    with pytest.raises(TypeError):
        change.remote()

    @shoal.remote
    def precision() -> int:
        import decimal

        decimal.getcontext().prec += 7
        return decimal.getcontext().prec

    import decimal

    before = decimal.getcontext().prec
    assert shoal.get(precision.remote()) == before + 7
    assert decimal.getcontext().prec == before


def test_asyncio_run_in_a_task_of_an_async_driver() -> None:
    """As in a notebook: the caller has a running loop, the task has none."""

    @shoal.remote
    def run() -> int:
        return asyncio.run(asyncio.sleep(0, 5))

    async def drive() -> int:
        value = await run.remote()
        assert asyncio.current_task() is not None
        return value

    assert asyncio.run(drive()) == 5


# --------------------------------------------------------------------- references


def test_values_are_freed_when_the_last_ref_dies(session: Any) -> None:
    """At once, without another call of the API."""
    entries = session.peer.refs.entries
    before = len(entries)
    ref = shoal.put(np.zeros(1000))
    outer = shoal.put([ref])
    result = identity.remote([outer])
    assert len(entries) == before + 3
    del ref, outer
    assert len(entries) == before + 3  # the result holds them
    del result
    gc.collect()
    assert len(entries) == before


def test_arrays_outlive_their_refs() -> None:
    array = shoal.get(identity.remote(np.arange(10_000)))
    gc.collect()
    assert array.sum() == 49_995_000
    assert not array.flags.writeable


def test_pickled_behind_shoals_back_is_kept(session: Any) -> None:
    import pickle

    data = pickle.dumps(shoal.put("kept"))
    gc.collect()
    assert shoal.get(pickle.loads(data)) == "kept"


# -------------------------------------------------------------------- async actors


def test_a_thousand_waiting_calls() -> None:
    @shoal.remote
    class Barrier:
        def __init__(self, count: int) -> None:
            self.missing = count
            self.event = asyncio.Event()

        async def arrive(self, number: int) -> int:
            self.missing -= 1
            if not self.missing:
                self.event.set()
            await self.event.wait()
            return number

    barrier = Barrier.remote(1000)
    refs = [barrier.arrive.remote(number) for number in range(1000)]
    assert shoal.get(refs, timeout=30) == list(range(1000))


def test_tasks_wait_for_arguments_of_async_actors() -> None:
    waiting = shoal.remote(Signal).remote()
    late = waiting.wait.remote("late")
    consumer = identity.remote(late)
    assert shoal.wait([consumer], timeout=0.05) == ([], [consumer])
    with pytest.raises(GetTimeoutError, match="1 of its arguments"):
        shoal.get(consumer, timeout=0)
    shoal.get(waiting.send.remote())
    assert shoal.get(consumer, timeout=20) == "late"


def test_an_unfinished_argument_holds_up_an_ordered_actor() -> None:
    waiting = shoal.remote(Signal).remote()
    log = shoal.remote(Log).remote()
    first = log.add.remote(waiting.wait.remote("first"))
    second = log.add.remote("second")
    assert shoal.wait([second], timeout=0.05)[0] == []
    waiting.send.remote()
    assert shoal.get([first, second], timeout=20) == [1, 2]
    assert shoal.get(log.read.remote()) == ["first", "second"]


def test_an_unfinished_argument_of_a_constructor() -> None:
    waiting = shoal.remote(Signal).remote()

    @shoal.remote
    class Holder:
        def __init__(self, value: str) -> None:
            self.value = value

        def read(self) -> str:
            return self.value

    call = Holder.remote(waiting.wait.remote("built")).read.remote()
    assert shoal.wait([call], timeout=0.05)[0] == []
    waiting.send.remote()
    assert shoal.get(call, timeout=20) == "built"


def test_cancel_an_awaiting_call_and_a_waiting_one() -> None:
    waiting = shoal.remote(Signal).remote()
    running = waiting.wait.remote()
    consumer = identity.remote(running)
    queued = shoal.remote(Log).remote().add.remote(running)
    shoal.cancel(queued)
    with pytest.raises(TaskCancelledError):
        shoal.get(queued, timeout=20)
    shoal.cancel(running)
    with pytest.raises(TaskCancelledError):
        shoal.get(running, timeout=20)
    with pytest.raises(TaskCancelledError):
        shoal.get(consumer, timeout=20)
    with pytest.raises(ValueError, match="force"):
        shoal.cancel(waiting.wait.remote(), force=True)


def test_cancel_of_a_finished_task_changes_nothing() -> None:
    ref = identity.remote("done")
    shoal.cancel(ref)
    shoal.cancel(shoal.put(1))
    assert shoal.get(ref) == "done"


def test_threaded_actor_and_its_limit() -> None:
    @shoal.remote(max_concurrency=2)
    class Gate:
        def __init__(self) -> None:
            self.event = threading.Event()

        def wait(self) -> bool:
            return self.event.wait(20)

        def open(self) -> None:
            self.event.set()

    gate = Gate.remote()
    ref = gate.wait.remote()
    gate.open.remote()
    assert shoal.get(ref, timeout=20) is True


def test_max_pending_calls() -> None:
    waiting = shoal.remote(Signal).options(max_pending_calls=1).remote()
    ref = waiting.wait.remote()
    with pytest.raises(PendingCallsLimitExceeded):
        waiting.wait.remote()
    shoal.cancel(ref)


# ------------------------------------------------------------------------- streams


def test_a_stream_runs_when_it_is_read() -> None:
    log = shoal.remote(Log).options(name="stream-log").remote()

    @shoal.remote
    def for_ever() -> Iterator[int]:
        told = shoal.get_actor("stream-log")
        number = 0
        while True:
            told.add.remote(number)
            yield number
            number += 1

    stream = for_ever.remote()
    assert shoal.get(log.read.remote()) == [0]
    assert [shoal.get(next(stream)) for _ in range(3)] == [0, 1, 2]
    assert shoal.get(log.read.remote()) == [0, 1, 2]


def test_a_dropped_stream_is_closed(session: Any) -> None:
    log = shoal.remote(Log).options(name="close-log").remote()

    @shoal.remote
    def closing() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            shoal.get_actor("close-log").add.remote("closed")

    stream = closing.remote()
    del stream
    gc.collect()
    assert shoal.get(log.read.remote()) == ["closed"]
    assert not session.executor.pending


def test_a_later_call_runs_an_actors_stream_to_its_end() -> None:
    log = shoal.remote(Log).remote()
    stream = log.count.remote(4)
    assert shoal.get(log.read.remote(), timeout=20) == [0, 1, 2, 3]
    assert [shoal.get(ref) for ref in stream] == [0, 1, 2, 3]


def test_backpressure_holds_up_a_later_call() -> None:
    log = shoal.remote(Log).remote()
    stream = log.count.options(_generator_backpressure_num_objects=2).remote(4)
    later = log.read.remote()
    with pytest.raises(GetTimeoutError):
        shoal.get(later, timeout=0.05)
    assert [shoal.get(ref) for ref in stream] == [0, 1, 2, 3]
    assert shoal.get(later, timeout=20) == [0, 1, 2, 3]


def test_end_of_a_stream_and_an_error_in_it() -> None:
    @shoal.remote
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("in the middle")

    stream = broken.remote()
    assert shoal.get(stream.completed()) is None
    assert shoal.get(next(stream)) == 1
    with pytest.raises(ValueError, match="in the middle"):
        shoal.get(next(stream))
    assert stream.is_finished()
    with pytest.raises(StopIteration):
        next(stream)


def test_async_iteration_over_lazy_and_pushed_streams() -> None:
    @shoal.remote
    def numbers() -> Iterator[int]:
        yield from range(3)

    @shoal.remote
    class Source:
        async def numbers(self) -> Any:
            for number in range(3):
                await asyncio.sleep(0)
                yield number

    async def drive() -> list[int]:
        source: Any = Source.remote()
        stream: Any = numbers.remote()
        got = [await ref async for ref in stream]
        return got + [await ref async for ref in source.numbers.remote()]

    assert asyncio.run(drive()) == [0, 1, 2, 0, 1, 2]


def test_cancel_of_a_stream() -> None:
    @shoal.remote
    def for_ever() -> Iterator[int]:
        while True:
            yield 1

    stream = for_ever.remote()
    assert shoal.get(next(stream)) == 1
    shoal.cancel(stream)
    with pytest.raises(TaskCancelledError):
        shoal.get(next(stream))
    with pytest.raises(StopIteration):
        next(stream)


# -------------------------------------------------------------------------- errors


def test_chain_of_errors() -> None:
    @shoal.remote
    def inner() -> None:
        raise KeyError("innermost")

    @shoal.remote
    def outer() -> None:
        shoal.get(inner.remote())

    with pytest.raises(KeyError) as caught:
        shoal.get(outer.remote())
    assert isinstance(caught.value, RayTaskError)
    assert caught.value.cause.args == ("innermost",)
    text = str(caught.value)
    assert text.index("outer()") < text.index("inner()")
    assert "local_execution.py" not in text


def test_failed_dependency_says_whose_it_is() -> None:
    @shoal.remote
    def fail() -> None:
        raise ValueError("producer")

    with pytest.raises(ValueError, match="producer") as caught:
        shoal.get(identity.remote(fail.remote()))
    assert "could not be computed" in str(caught.value)


def test_sys_exit_is_the_crash_of_a_worker() -> None:
    log = shoal.remote(Log).options(name="exits").remote()

    @shoal.remote(max_retries=2)
    def leave() -> None:
        shoal.get_actor("exits").add.remote("try")
        sys.exit(3)

    with pytest.raises(WorkerCrashedError, match=r"sys\.exit\(3\)"):
        shoal.get(leave.remote())
    assert len(shoal.get(log.read.remote())) == 3


@pytest.mark.parametrize("how", ["ctrl-c", "debugger"])
def test_an_interrupt_goes_up_to_the_program(how: str) -> None:
    @shoal.remote
    def interrupted() -> None:
        if how == "debugger":
            raise bdb.BdbQuit
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(20)

    refs = []

    @shoal.remote
    def outer() -> None:
        refs.append(interrupted.remote())

    with pytest.raises((KeyboardInterrupt, bdb.BdbQuit)):
        outer.remote()
    assert shoal.get(identity.remote("usable")) == "usable"


def test_keyboard_interrupt_raised_by_a_task_is_its_own() -> None:
    @shoal.remote
    def pretend() -> None:
        raise KeyboardInterrupt

    with pytest.raises(TaskCancelledError):
        shoal.get(pretend.remote())


def test_ctrl_c_ends_a_wait() -> None:
    waiting = shoal.remote(Signal).remote()
    ref = waiting.wait.remote()
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        shoal.get(ref, timeout=20)
    timer.join()
    waiting.send.remote()
    assert shoal.get(ref, timeout=20) is None


# --------------------------------------------------------------------- actors' ends


def test_kill_and_exit_and_failed_constructor() -> None:
    @shoal.remote
    class Victim:
        def __init__(self, *, fail: bool = False) -> None:
            if fail:
                raise ValueError("no start")

        def leave(self) -> None:
            shoal.actor.exit_actor()

        def ping(self) -> str:
            return "pong"

    killed, left, stillborn = Victim.remote(), Victim.remote(), Victim.remote(fail=True)
    shoal.kill(killed)
    shoal.kill(killed)
    with pytest.raises(ActorDiedError, match="killed"):
        shoal.get(killed.ping.remote())
    with pytest.raises(ActorDiedError, match="exit_actor"):
        shoal.get(left.leave.remote())
    with pytest.raises(ActorDiedError):
        shoal.get(left.ping.remote())
    with pytest.raises(ActorDiedError, match="no start"):
        shoal.get(stillborn.ping.remote())


def test_kill_ends_calls_that_run() -> None:
    waiting = shoal.remote(Signal).remote()
    ref = waiting.wait.remote()
    shoal.kill(waiting)
    with pytest.raises(ActorDiedError):
        shoal.get(ref, timeout=20)


def test_restart_on_kill() -> None:
    log = shoal.remote(Log).options(max_restarts=1).remote()
    assert shoal.get(log.add.remote("lost")) == 1
    shoal.kill(log, no_restart=False)
    assert shoal.get(log.read.remote()) == []
    shoal.kill(log, no_restart=False)
    with pytest.raises(ActorDiedError):
        shoal.get(log.read.remote())


def test_an_actor_without_handles_ends() -> None:
    log = shoal.remote(Log).options(name="short-lived").remote()
    assert shoal.get_actor("short-lived") == log
    del log
    gc.collect()
    with pytest.raises(ValueError, match="short-lived"):
        shoal.get_actor("short-lived")
    assert shoal.get(shoal.remote(Log).remote().add.remote(1)) == 1


def test_names_and_namespaces() -> None:
    Actor = shoal.remote(Log)
    first = Actor.options(name="n", namespace="a", lifetime="detached").remote()
    Actor.options(name="n", namespace="b", lifetime="detached").remote()
    with pytest.raises(ActorAlreadyExistsError):
        Actor.options(name="n", namespace="a").remote()
    same = Actor.options(name="n", namespace="a", get_if_exists=True).remote()
    assert same == first
    del first, same
    gc.collect()
    assert shoal.get(shoal.get_actor("n", "b").read.remote()) == []
    with pytest.raises(ValueError, match="look up"):
        shoal.get_actor("n")


# -------------------------------------------------------------- resources, who am I


def test_what_can_never_run_stays_pending_and_says_so(
    capfd: pytest.CaptureFixture[str],
) -> None:
    big = identity.options(num_cpus=64)
    refs = [big.remote(1), big.remote(2)]
    told = capfd.readouterr().err
    assert told.count("64 CPU") == 1
    assert shoal.wait(refs, timeout=0.01) == ([], refs)
    with pytest.raises(GetTimeoutError, match="64 CPU"):
        shoal.get(refs[0], timeout=0.01)
    shoal.cancel(refs[0])
    with pytest.raises(TaskCancelledError):
        shoal.get(refs[0])
    actor = shoal.remote(Log).options(resources={"unobtainium": 1}).remote()
    with pytest.raises(GetTimeoutError, match="unobtainium"):
        shoal.get(actor.read.remote(), timeout=0.01)


def test_a_task_bound_to_another_node_fails() -> None:
    elsewhere = NodeAffinitySchedulingStrategy("ab" * 28, soft=False)
    with pytest.raises(TaskUnschedulableError):
        shoal.get(identity.options(scheduling_strategy=elsewhere).remote(1))
    anywhere = NodeAffinitySchedulingStrategy("ab" * 28, soft=True)
    assert shoal.get(identity.options(scheduling_strategy=anywhere).remote(1)) == 1


def test_actors_wait_for_each_others_resources() -> None:
    Actor = shoal.remote(num_gpus=1)(Log)

    def gpus(actor: Any) -> Any:
        return actor.__ray_call__.remote(lambda _self: shoal.get_gpu_ids())

    actors = [Actor.remote() for _ in range(3)]
    assert shoal.get([gpus(actors[0]), gpus(actors[1])]) == [[0], [1]]
    waiting = gpus(actors[2])
    with pytest.raises(GetTimeoutError, match="other actors"):
        shoal.get(waiting, timeout=0.01)
    shoal.kill(actors[0])
    assert shoal.get(waiting, timeout=20) == [0]


def test_available_resources() -> None:
    @shoal.remote(num_cpus=1)
    def inside() -> float:
        return shoal.available_resources()["CPU"]

    assert shoal.available_resources()["CPU"] == 4
    assert shoal.get(inside.remote()) == 3
    holder = shoal.remote(num_cpus=2)(Log).remote()
    assert shoal.available_resources()["CPU"] == 2
    shoal.kill(holder)
    assert shoal.available_resources()["CPU"] == 4


def test_placement_groups() -> None:
    group = placement_group([{"CPU": 3}])
    assert group.wait(1)
    strategy = PlacementGroupSchedulingStrategy(group)
    assert shoal.get(identity.options(scheduling_strategy=strategy).remote(1)) == 1
    second = placement_group([{"CPU": 3}])
    assert not second.wait(0.01)
    late = identity.options(
        scheduling_strategy=PlacementGroupSchedulingStrategy(second)
    ).remote("late")
    actor = shoal.remote(Log).options(num_cpus=1, scheduling_strategy=strategy).remote()
    remove_placement_group(group)
    assert shoal.get(late, timeout=20) == "late"
    with pytest.raises(ActorDiedError, match="placement group"):
        shoal.get(actor.read.remote())


def test_runtime_context() -> None:
    context = shoal.get_runtime_context()

    @shoal.remote(num_cpus=2)
    def task() -> dict[str, Any]:
        inside = shoal.get_runtime_context()
        return {
            "id": inside.get_task_id(),
            "name": inside.get_task_name(),
            "resources": inside.get_assigned_resources(),
            "actor": inside.get_actor_id(),
        }

    seen = shoal.get(task.options(name="named").remote())
    assert seen["name"] == "named"
    assert seen["resources"] == {"CPU": 2.0}
    assert seen["actor"] is None
    assert context.get_task_id() is None
    actor = shoal.remote(Log).options(name="me").remote()
    name = actor.__ray_call__.remote(
        lambda _self: shoal.get_runtime_context().get_actor_name()
    )
    assert shoal.get(name) == "me"
    with pytest.raises(AssertionError):
        context.get_assigned_resources()


def test_environment_variables() -> None:
    @shoal.remote
    def read(depth: int = 0) -> str | None:
        if depth:
            value: str | None = shoal.get(read.remote(depth - 1))
            return value
        return os.environ.get("SHOAL_LOCAL_TEST")

    with_variable = read.options(runtime_env={"env_vars": {"SHOAL_LOCAL_TEST": "yes"}})
    assert shoal.get(with_variable.remote()) == "yes"
    assert shoal.get(with_variable.remote(1)) == "yes"
    assert shoal.get(read.remote()) is None
    assert "SHOAL_LOCAL_TEST" not in os.environ


def test_views() -> None:
    identity.remote(1)
    (node,) = shoal.nodes()
    assert node["Alive"]
    assert shoal.cluster_resources()["GPU"] == 2
    assert "identity" in {event["name"] for event in shoal.timeline()}


# ---------------------------------------------------------------------- ends of all


def test_shutdown_wakes_who_waits(session: Any) -> None:
    waiting = shoal.remote(Signal).remote()
    never = identity.options(num_cpus=64).remote(1)
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            shoal.get(never)
        except RaySystemError as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    assert not shoal.get(waiting.send.remote(), timeout=20)
    shoal.shutdown()
    thread.join(20)
    assert len(errors) == 1
    shoal.init(local_mode=True)
    with pytest.raises(ActorDiedError):
        shoal.get(waiting.send.remote(), timeout=20)


def test_no_thread_is_left() -> None:
    actor = shoal.remote(Signal).remote()
    shoal.get(actor.send.remote())
    shoal.shutdown()
    eventually(
        lambda: not [t for t in threading.enumerate() if t.name == "shoal local"],
        "the threads of actors have ended",
    )


def test_fork_inside_a_session() -> None:
    waiting = shoal.remote(Signal).remote()
    shoal.get(waiting.send.remote())
    child = os.fork()
    if not child:
        # A copy of the session, of which the forking thread alone goes on.
        os._exit(7 if shoal.get(identity.remote(1)) == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
