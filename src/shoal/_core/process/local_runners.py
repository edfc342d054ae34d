"""Local mode: where an actor's calls run, once their turn has come.

* a plain actor: on the thread that finds that it is their turn;
* a threaded actor: on threads of its concurrency groups;
* an async actor: on an event loop in a thread of its own.

Does not: decide whose turn it is (``local_actors.py``).
"""

from __future__ import annotations

import asyncio
import inspect
from contextvars import Context
from functools import partial
from queue import SimpleQueue
from time import perf_counter, time
from typing import TYPE_CHECKING, Any, Protocol

from shoal._core.process.execution import call_user
from shoal._core.process.local_calls import LocalCall
from shoal._core.process.local_execution import LocalExecutor
from shoal._core.process.local_peer import pack, post, start_thread
from shoal._core.serial.failures import dependency_failure
from shoal._core.wire.worker_messages import ERROR, Value
from shoal.exceptions import TaskCancelledError

if TYPE_CHECKING:
    from shoal._core.process.local_actors import LocalActor


class ActorRunner(Protocol):
    """Where an actor's calls run."""

    def construct(self) -> None:
        """Run the actor's constructor, then let calls in."""

    def launch(self, call: LocalCall) -> None:
        """Run a call whose turn it is."""

    def wake(self) -> None:
        """Run what is in line; called where no user code may run."""

    def stop(self) -> None:
        """The actor is dead."""


def runner_for(actor: LocalActor, executor: LocalExecutor) -> ActorRunner:
    """The runner for an actor's kind."""
    if actor.spec.is_async:
        return _LoopRunner(actor, executor)
    if actor.pushes_streams:
        return _ThreadRunner(actor, executor)
    return _HereRunner(actor, executor)


class _HereRunner:
    """One call at a time, on the thread that finds its turn has come."""

    def __init__(self, actor: LocalActor, executor: LocalExecutor) -> None:
        self._actor = actor
        self._executor = executor
        self._context = actor.context
        self._place = actor.place

    def construct(self) -> None:
        """Run the constructor here."""
        self._context.run(self._actor.construct)
        self._actor.open()

    def launch(self, call: LocalCall) -> None:
        """Run a call here."""
        try:
            self._executor.run(call, self._place, self._context)
        finally:
            with self._executor.peer.lock:
                if not call.is_parked:
                    self._actor.released(call)

    def wake(self) -> None:
        """Run what is in line on a thread of its own."""
        start_thread(self._actor.pump)

    def stop(self) -> None:
        """Nothing runs between calls."""


class _ThreadRunner:
    """Threads, as many per concurrency group as it has places.

    They stay until the actor's end, as programs keep things in thread-local storage.
    """

    def __init__(self, actor: LocalActor, executor: LocalExecutor) -> None:
        self._actor = actor
        self._executor = executor
        self._context = actor.context
        self._place = actor.place
        #: calls for the threads of each group; None ends a thread
        self._given: dict[str, SimpleQueue[LocalCall | None]] = {}
        self._idle: dict[str, int] = {}
        self._thread_count = 0

    def construct(self) -> None:
        """Run the constructor here."""
        self._context.run(self._actor.construct)
        self._actor.open()

    def launch(self, call: LocalCall) -> None:
        """Give the call to a thread of its group, a new one if all are busy."""
        group = call.call.definition.group
        with self._executor.peer.lock:
            given = self._given.setdefault(group, SimpleQueue())
            if self._idle.get(group, 0):
                self._idle[group] -= 1
            else:
                self._thread_count += 1
                start_thread(partial(self._serve, group, given))
            given.put(call)

    def _serve(self, group: str, given: SimpleQueue[LocalCall | None]) -> None:
        while (call := given.get()) is not None:
            if not call.is_done:
                self._executor.run(call, self._place, self._context.copy())
            with self._executor.peer.lock:
                self._idle[group] = self._idle.get(group, 0) + 1
                self._actor.released(call)
            del call

    def wake(self) -> None:
        """Start what is in line."""
        self._actor.pump()

    def stop(self) -> None:
        """Threads end with their calls."""
        for given in self._given.values():
            for _ in range(self._thread_count):
                given.put(None)


class _LoopRunner:
    """Coroutines on one event loop."""

    def __init__(self, actor: LocalActor, executor: LocalExecutor) -> None:
        self._actor = actor
        self._executor = executor
        self._context = actor.context
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        start_thread(self._serve)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        for task in list(self._tasks):
            task.cancel()
        self._loop.run_until_complete(
            asyncio.gather(*self._tasks, return_exceptions=True)
        )
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def construct(self) -> None:
        """Run the constructor on the loop, so that it may use it."""

        async def construct() -> None:
            self._actor.construct()
            self._actor.open()

        post(self._loop, lambda: self._begin(construct(), self._context))

    def launch(self, call: LocalCall) -> None:
        """Begin the call's coroutine."""
        post(self._loop, partial(self._begin_call, call))

    def _begin_call(self, call: LocalCall) -> None:
        task = self._begin(self._run(call), self._context.copy())
        call.runner = partial(post, self._loop, task.cancel)
        task.add_done_callback(partial(self._end_call, call))

    def _begin(self, coroutine: Any, context: Context) -> asyncio.Task[None]:
        task = self._loop.create_task(coroutine, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _end_call(self, call: LocalCall, task: asyncio.Task[None]) -> None:
        if task.cancelled():  # before its first step
            cancelled = TaskCancelledError(call.task_id.hex())
            self._executor.fail_with(call, cancelled)
        with self._executor.peer.lock:
            self._actor.released(call)

    def wake(self) -> None:
        """Begin what is in line."""
        self._actor.pump()

    def stop(self) -> None:
        """End the loop and what runs on it."""
        post(self._loop, self._loop.stop)

    async def _run(self, call: LocalCall) -> None:
        executor = self._executor
        started_at, started = time(), perf_counter()
        try:
            while not call.is_done and await self._attempt(call):
                continue
        finally:
            executor.record(call, started_at, perf_counter() - started)

    async def _attempt(self, call: LocalCall) -> bool:
        """Run a call once; True when it is to be run again."""
        executor = self._executor
        refs = executor.peer.refs
        executor.begin(call)
        try:
            failed = call.arguments.first_failure(refs)
            if failed is not None:
                data = dependency_failure(call.call.name, failed)
                executor.fail(call, Value(ERROR, data))
                return False
            args, kwargs = call.arguments.read(refs)
            function = executor.function_of(call.call.definition)
            result = call_user(function, args, kwargs)
            args = kwargs = None  # what they hold must die before the reply
            if inspect.iscoroutine(result):
                result = await result
            if call.stream is None:
                executor.answer(call, result)
            else:
                await self._push_all(call, result)
        except asyncio.CancelledError as error:
            cancelled = TaskCancelledError(call.task_id.hex())
            cancelled = cancelled.with_traceback(error.__traceback__)
            executor.fail(call, executor.failure_of(call, cancelled))
        except BaseException as error:  # noqa: BLE001 - it is raised where it is got
            return executor.on_error(call, error)
        return False

    async def _push_all(self, call: LocalCall, generator: Any) -> None:
        """Run a (sync or async) generator to its end."""
        items = generator if hasattr(generator, "__anext__") else _as_async(generator)
        stream = call.stream
        async for item in items:
            value, _held = pack(item, call.call.name)
            self._executor.push_item(call, value)
            while stream.must_pause and not (stream.is_dropped or call.is_done):
                await asyncio.sleep(0.005)
            if stream.is_dropped or call.is_done:
                break
        self._executor.end_stream(call)


async def _as_async(generator: Any) -> Any:
    for item in generator:
        yield item
