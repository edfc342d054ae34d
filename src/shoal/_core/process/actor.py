"""A worker that becomes an actor: construct, then serve calls in the right way.

A plain actor runs its calls on the main thread, in order.  A threaded one has a pool
per concurrency group; an async one runs everything on one event loop.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import perf_counter, time
from typing import Any

from shoal._core.base.object_ref import ObjectRef
from shoal._core.executor.inbox import InboxTask
from shoal._core.io.engine import Waiter
from shoal._core.owner.calls import STREAMING
from shoal._core.process.context import current_task, worker_state
from shoal._core.process.execution import (
    ActorExit,
    Executor,
    apply_resources,
    call_user,
)
from shoal._core.process.streaming import finish_stream, send_item
from shoal._core.serial import functions
from shoal._core.serial.failures import encode_failure
from shoal._core.serial.serializer import deserialize
from shoal._core.wire.control_messages import ActorSpec
from shoal._core.wire.node_messages import ActorStarted, StartActor
from shoal._core.wire.worker_messages import Callable_
from shoal.exceptions import TaskCancelledError

DEFAULT_GROUP = ""
#: what classes have that say nothing of themselves
_PLAIN_REPR: Any = object.__repr__


def run_actor(executor: Executor, start: StartActor) -> None:
    """Be an actor until told to leave."""
    spec = start.spec
    state = worker_state
    state.actor_spec = spec
    state.incarnation = start.incarnation
    state.actor_name = spec.class_name
    apply_resources(start.lease)
    runner = _runner_for(executor, spec)
    if not _construct(executor, spec, runner):
        executor.serve()  # until the daemon, told of the failure, says to leave
        return
    runner.serve()


def _runner_for(executor: Executor, spec: ActorSpec) -> Any:
    if spec.is_async:
        return _AsyncRunner(executor, spec)
    if spec.max_concurrency > 1 or spec.concurrency_groups:
        return _ThreadRunner(executor, spec)
    return _MainRunner(executor)


def _construct(executor: Executor, spec: ActorSpec, runner: Any) -> bool:
    """Run the constructor and report; False when it raised."""
    peer = executor.peer
    failure: bytes | None = None
    executor.function_of = partial(_method_of, executor)  # type: ignore[method-assign]
    try:
        cls = functions.load(spec.pickled_class)
        args, kwargs = _arguments(executor, spec)
        worker_state.actor = actor = runner.construct(cls, args, kwargs)
        if type(actor).__repr__ is not _PLAIN_REPR:
            worker_state.actor_name = repr(actor)
    except (SystemExit, ActorExit) as error:
        executor.leave_for_exit(None, error)
    except BaseException as error:  # noqa: BLE001 - its creator gets it
        failure = encode_failure(
            error,
            function_name=f"{spec.class_name}.__init__",
            pid=os.getpid(),
            ip="127.0.0.1",
            actor_repr=f"<{spec.class_name}>",
            actor_id=spec.actor_id.hex(),
        )
    with peer.lock:
        peer.send_node(ActorStarted(spec.actor_id, failure))
        peer.engine.flush()
    return failure is None


def _arguments(executor: Executor, spec: ActorSpec) -> tuple[Any, Any]:
    args: Any = ()
    kwargs: Any = {}
    if spec.args:
        args, kwargs = deserialize(spec.args)
    if spec.deps:
        args = list(args)
        for place, object_id, owner in spec.deps:
            value = executor.peer.get_one(ObjectRef(object_id, owner))
            if isinstance(place, str):
                kwargs[place] = value
            else:
                args[place] = value
    return args, kwargs


def _method_of(executor: Executor, call: Callable_) -> Any:
    """A method of the actor, or one of those every actor has."""
    name = call.method
    if name.startswith("__ray_"):
        return _BUILT_IN[name]
    return getattr(worker_state.actor, name)


def _ray_call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(worker_state.actor, *args, **kwargs)


def _ray_ready() -> bool:
    return True


def _ray_terminate() -> None:
    raise ActorExit


_BUILT_IN = {
    "__ray_call__": _ray_call,
    "__ray_ready__": _ray_ready,
    "__ray_terminate__": _ray_terminate,
}


class _MainRunner:
    """One call at a time, on the main thread."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def construct(self, cls: Any, args: Any, kwargs: Any) -> Any:
        """Make the instance."""
        return call_user(cls, args, kwargs)

    def serve(self) -> None:
        """Run calls until told to leave."""
        self._executor.serve()


class _ThreadRunner:
    """A pool of threads per concurrency group."""

    def __init__(self, executor: Executor, spec: ActorSpec) -> None:
        self._executor = executor
        groups = {DEFAULT_GROUP: spec.max_concurrency, **spec.concurrency_groups}
        self._pools = {
            name: ThreadPoolExecutor(size, thread_name_prefix=f"group-{name}")
            for name, size in groups.items()
        }
        self._left = Waiter(1)

    def construct(self, cls: Any, args: Any, kwargs: Any) -> Any:
        """Make the instance, then let calls in."""
        instance = call_user(cls, args, kwargs)
        worker_state.actor = instance
        with self._executor.peer.lock:
            waiting, self._executor.inbox.waiting = (
                self._executor.inbox.waiting,
                type(self._executor.inbox.waiting)(),
            )
            self._executor.on_task = self._dispatch
            for task in waiting:
                self._dispatch(task)
        return instance

    def _dispatch(self, task: InboxTask) -> None:
        pool = self._pools.get(task.call.group)
        if pool is None:
            self._executor.answer_failure(task, _no_group(task), 0)
            return
        self._executor.inbox.put(task)
        pool.submit(self._run, task)

    def _run(self, task: InboxTask) -> None:
        executor = self._executor
        with executor.peer.lock:
            if task not in executor.inbox.waiting:  # cancelled meanwhile
                return
            executor.inbox.waiting.remove(task)
            task.is_begun = True
            executor.inbox.running[task.message.task_id] = task
        executor.run(task)

    def serve(self) -> None:
        """Wait to be told to leave; the main thread leads the engine meanwhile."""
        executor = self._executor
        with executor.peer.lock:
            executor.idle = self._left
            if executor.is_leaving:
                self._left.arrived()
        executor.peer.engine.wait(self._left)
        for pool in self._pools.values():
            pool.shutdown(wait=True)


def _no_group(task: InboxTask) -> ValueError:
    return ValueError(
        f"The actor has no concurrency group {task.call.group!r}. Name it in "
        "@remote(concurrency_groups={...}) of the class."
    )


class _AsyncRunner:
    """Every call on one event loop; as many at once as its group allows."""

    def __init__(self, executor: Executor, spec: ActorSpec) -> None:
        self._executor = executor
        self._loop = asyncio.new_event_loop()
        sizes = {DEFAULT_GROUP: spec.max_concurrency, **spec.concurrency_groups}
        self._limits = {name: asyncio.Semaphore(size) for name, size in sizes.items()}
        self._tasks: set[asyncio.Task[None]] = set()
        executor.peer.engine.async_waiters += 1  # the background thread always leads

    def construct(self, cls: Any, args: Any, kwargs: Any) -> Any:
        """Make the instance on the loop, so that it may use it."""

        async def make() -> Any:
            return call_user(cls, args, kwargs)

        asyncio.set_event_loop(self._loop)
        worker_state.actor = instance = self._loop.run_until_complete(make())
        executor = self._executor
        with executor.peer.lock:
            waiting = list(executor.inbox.waiting)
            executor.inbox.waiting.clear()
            executor.on_task = self._dispatch
            executor.on_leave = self._stop
            for task in waiting:
                self._dispatch(task)
        return instance

    def _dispatch(self, task: InboxTask) -> None:
        self._executor.inbox.put(task)
        self._loop.call_soon_threadsafe(self._begin, task)

    def _begin(self, task: InboxTask) -> None:
        running = self._loop.create_task(self._run(task))
        self._tasks.add(running)
        running.add_done_callback(self._tasks.discard)

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)

    def serve(self) -> None:
        """Run the loop until told to leave."""
        with self._executor.peer.lock:
            if self._executor.is_leaving:
                return
        self._loop.run_forever()

    async def _run(self, task: InboxTask) -> None:
        executor = self._executor
        limit = self._limits.get(task.call.group)
        if limit is None:
            executor.answer_failure(task, _no_group(task), 0)
            return
        started = perf_counter()
        async with limit:
            with executor.peer.lock:
                if task not in executor.inbox.waiting:  # cancelled meanwhile
                    return
                executor.inbox.waiting.remove(task)
                task.is_begun = True
                executor.inbox.running[task.message.task_id] = task
                task.runner = _AsyncCancel(self._loop, asyncio.current_task())
            current_task.set(task)
            task.started_at = time()
            try:
                result = await self._call(task)
                if task.call.returns == STREAMING:
                    await _stream(executor, task, result, started)
                else:
                    executor.answer(task, result, started)
            except asyncio.CancelledError as cancelled:
                task.is_cancelled = True
                error = TaskCancelledError(task.message.task_id.hex())
                error = error.with_traceback(cancelled.__traceback__)
                executor.answer_failure(task, error, started)
            except BaseException as error:  # noqa: BLE001 - its caller gets it
                executor.on_error(task, error, started)

    async def _call(self, task: InboxTask) -> Any:
        executor = self._executor
        function = executor.function_of(task.call)
        message = task.message
        if message.deps and any(value.kind for *_, value in message.deps):
            args, kwargs = await self._loop.run_in_executor(
                None, executor.arguments_of, task
            )
        else:
            args, kwargs = executor.arguments_of(task)
        result = call_user(function, args, kwargs)
        if inspect.iscoroutine(result):
            result = await result
        return result


class _AsyncCancel:
    """Cancels the coroutine of a call, from any thread."""

    __slots__ = ("_loop", "_task")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any] | None
    ) -> None:
        self._loop = loop
        self._task = task

    def cancel(self) -> None:
        """Ask the loop to cancel it."""
        assert self._task is not None
        self._loop.call_soon_threadsafe(self._task.cancel)


async def _stream(
    executor: Executor, task: InboxTask, generator: Any, started: float
) -> None:
    """Iterate over a (sync or async) generator method, sending its items."""
    index = 0
    try:
        if hasattr(generator, "__anext__"):
            async for item in generator:
                send_item(executor, task, index, item)
                index += 1
                await _consumer(task, index)
                if task.is_dropped:
                    break
        else:
            for item in generator:
                send_item(executor, task, index, item)
                index += 1
                await _consumer(task, index)
                if task.is_dropped:
                    break
    except asyncio.CancelledError:
        task.is_cancelled = True
        error: BaseException = TaskCancelledError(task.message.task_id.hex())
        finish_stream(executor, task, index, started, error)
    except Exception as error:  # noqa: BLE001 - its consumer gets it
        finish_stream(executor, task, index, started, error)
    else:
        finish_stream(executor, task, index, started)


async def _consumer(task: InboxTask, sent: int) -> None:
    """Pause while the consumer is too far behind."""
    limit = task.call.backpressure
    while limit > 0 and sent - task.consumed >= limit and not task.is_dropped:
        await asyncio.sleep(0.005)
