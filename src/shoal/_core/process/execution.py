"""Runs tasks: arguments in, user code, result or error out.

One :class:`Executor` per worker.  It takes messages from callers (under the engine's
lock), and gives tasks to a *runner*: the main thread, a pool of threads, or an event
loop (``process/runners.py``).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from time import monotonic, perf_counter, time
from typing import Any

from shoal._core.executor.inbox import Inbox, InboxTask
from shoal._core.io.connection import Connection
from shoal._core.io.engine import Waiter
from shoal._core.io.interrupts import interrupt_main_thread, interruptible
from shoal._core.owner.calls import DYNAMIC, STREAMING
from shoal._core.process.context import current_task, worker_state
from shoal._core.process.leaving import exit_worker
from shoal._core.process.peer import Peer
from shoal._core.process.streaming import dynamic_values, run_stream
from shoal._core.serial import functions
from shoal._core.serial.failures import encode_failure
from shoal._core.serial.serializer import deserialize
from shoal._core.wire.node_messages import EventsCollected
from shoal._core.wire.worker_messages import (
    ERROR,
    METHOD,
    Callable_,
    CancelTask,
    PushTask,
    StreamAck,
    StreamDropped,
    TakeBack,
    TaskDone,
    TaskResult,
    TasksReturned,
    UseLease,
    Value,
)
from shoal.exceptions import RayError, TaskCancelledError

#: Replies are held back at most this long while more tasks wait.
HOLD_REPLIES_S = 0.001
EVENTS_KEPT_MAX = 10_000


class ActorExit(BaseException):
    """Raised by ``exit_actor`` to leave the running method."""


class Executor:
    """What one worker runs."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.inbox = Inbox()
        self.idle: Waiter | None = None
        self.on_task: Callable[[InboxTask], None] = self._to_main
        self.is_leaving = False
        #: stops the event loop of an async actor
        self.on_leave: Callable[[], None] | None = None
        self._functions: dict[bytes, Any] = {}
        self._calls_made: dict[bytes, int] = {}
        self._last_flush = 0.0
        self.events: list[tuple[str, bytes, float, float, dict[str, str]]] = []
        #: the task the main thread runs user code of, and whether to interrupt it
        self.in_user_code: InboxTask | None = None
        self.interrupt: InboxTask | None = None
        self._handlers: dict[type, Callable[[Connection, Any], None]] = {
            PushTask: self._on_push,
            Callable_: self._on_callable,
            UseLease: self._on_use_lease,
            TakeBack: self._on_take_back,
            CancelTask: self._on_cancel,
            StreamAck: self._on_stream_ack,
            StreamDropped: self._on_stream_dropped,
        }
        peer.on_execute = self._on_message
        peer.owner.refs.arrivals = _arrivals

    # -- messages (under the engine's lock) ----------------------------------------

    def _on_message(self, connection: Connection, message: Any) -> None:
        handler = self._handlers.get(type(message))
        if handler is not None:
            handler(connection, message)

    def _on_push(self, connection: Connection, message: PushTask) -> None:
        link = connection.context
        task = InboxTask(connection, message, link.callables[message.number])
        task.lease = link.lease
        self.on_task(task)

    def _to_main(self, task: InboxTask) -> None:
        self.inbox.put(task)
        if self.idle is not None:
            self.idle.arrived()

    def _on_callable(self, connection: Connection, message: Callable_) -> None:
        connection.context.callables[message.number] = message

    def _on_use_lease(self, connection: Connection, message: UseLease) -> None:
        connection.context.lease = message

    def _on_take_back(self, connection: Connection, message: TakeBack) -> None:
        connection.send(TasksReturned(self.inbox.take_back(connection, message.count)))

    def give_back(self) -> None:
        """The running task waits: what is queued behind it can run elsewhere."""
        links = {id(task.link): task.link for task in self.inbox.waiting}
        for link in links.values():
            seqs = self.inbox.take_back(link, len(self.inbox.waiting))
            link.send(TasksReturned(seqs))

    def _on_cancel(self, connection: Connection, message: CancelTask) -> None:
        if message.recursive:
            self.peer.owner.tasks.cancel_children(message.task_id)
        task = self.inbox.find(message.task_id)
        if task is None:
            return
        task.is_cancelled = True
        if not task.is_begun:
            self.inbox.withdraw(task)
            error = TaskCancelledError(message.task_id.hex())
            self.answer_failure(task, error, 0)
        elif isinstance(task.runner, Waiter):
            task.runner.arrived()  # a producer that waits for its consumer
        elif task.runner is not None:
            task.runner.cancel()
        elif task.call.kind == METHOD:
            # A method is not interrupted: the actor's state would be anybody's guess.
            # It runs to its end (and can ask is_canceled), but nobody waits for it.
            error = TaskCancelledError(task.message.task_id.hex())
            self.answer_failure(task, error, 0)
        elif self.in_user_code is task:
            self.interrupt = task
            interrupt_main_thread()

    def should_interrupt(self) -> bool:
        """Whether a signal that arrives now is for the task that runs now."""
        wanted = self.interrupt
        return wanted is not None and wanted is self.in_user_code

    def _on_stream_ack(self, _: Connection, message: StreamAck) -> None:
        task = self.inbox.find(message.task_id)
        if task is not None:
            task.consumed = max(task.consumed, message.consumed)
            if isinstance(task.runner, Waiter):
                task.runner.arrived()

    def _on_stream_dropped(self, _: Connection, message: StreamDropped) -> None:
        task = self.inbox.find(message.task_id)
        if task is not None:
            task.is_dropped = True
            if isinstance(task.runner, Waiter):
                task.runner.arrived()

    # -- the main thread -----------------------------------------------------------

    def serve(self) -> None:
        """Run tasks in this thread until told to leave."""
        peer = self.peer
        while True:
            with peer.lock:
                task = self.inbox.begin()
                if task is None:
                    peer.drain_dropped()
                    if self.is_leaving:
                        return
                    self.idle = waiter = Waiter(1)
                    if peer.engine.dirty:
                        peer.engine.flush()
            if task is None:
                peer.engine.wait(waiter)
                self.idle = None
                if peer.engine.is_closed:
                    return
            else:
                self.run(task)

    def run(self, task: InboxTask) -> None:
        """Run one task in this thread and answer it."""
        token = current_task.set(task)
        outer = self.in_user_code  # a task that helps runs another on its stack
        started = perf_counter()
        task.started_at = time()
        try:
            try:
                self._apply_lease(task)
                function = self.function_of(task.call)
                args, kwargs = self.arguments_of(task)
                self.in_user_code = task
                if task.is_cancelled:  # while its arguments were fetched
                    raise TaskCancelledError(task.message.task_id.hex())
                result = call_user(function, args, kwargs)
                if task.call.returns == STREAMING:
                    run_stream(self, task, result, started)
                    return
            finally:
                self.in_user_code = outer
                self.interrupt = None
                # What the arguments hold must die before the reply.
                args = kwargs = None
            if task.is_cancelled and task.call.kind == METHOD:
                raise TaskCancelledError(task.message.task_id.hex())
            self.answer(task, result, started)
        except BaseException as error:  # noqa: BLE001 - its caller gets it
            self.on_error(task, error, started)
        finally:
            current_task.reset(token)

    def _apply_lease(self, task: InboxTask) -> None:
        lease = task.lease
        state = worker_state
        if lease is None or state.actor_spec is not None:
            return
        if lease.gpu_ids != state.gpu_ids or lease.demand is not state.demand:
            apply_resources(lease)

    def function_of(self, call: Callable_) -> Any:
        """The callable to run: a method of the actor, or an unpickled function."""
        if call.kind == METHOD:
            return getattr(worker_state.actor, call.method)
        function = self._functions.get(call.key)
        if function is None:
            assert call.pickled is not None
            function = self._functions[call.key] = functions.load(call.pickled)
        return function

    def arguments_of(self, task: InboxTask) -> tuple[Any, Any]:
        """The task's arguments, refs at top level replaced by their values."""
        message = task.message
        args: Any = ()
        kwargs: Any = {}
        if message.args:
            args, kwargs = deserialize(message.args)
        if message.deps:
            args = list(args)
            for place, object_id, _owner, value in message.deps:
                resolved = self.peer.value_of_dep(object_id, value)
                if isinstance(place, str):
                    kwargs[place] = resolved
                else:
                    args[place] = resolved
        return args, kwargs

    # -- answers -------------------------------------------------------------------

    def answer(self, task: InboxTask, result: Any, started: float) -> None:
        """Send a task's result to its owner."""
        returns = task.call.returns
        receiver = task.link.context.address
        task_id = task.message.task_id
        if isinstance(result, RayError):
            values = [
                Value(
                    ERROR,
                    encode_failure(
                        result,
                        function_name=task.call.name,
                        pid=os.getpid(),
                        ip="127.0.0.1",
                    ),
                )
            ]
        elif returns == 1:
            value, is_plain = self.peer.pack(result, task_id + b"\1\0\0\0", receiver)
            del result
            if is_plain and not task.arrivals and not task.call.max_calls:
                took = int((perf_counter() - started) * 1e6)
                self._send(task, TaskDone(task.message.seq, value.data, took))
                return
            values = [value]
        elif returns == DYNAMIC:
            values = dynamic_values(self.peer, task, result, receiver)
        else:
            values = self._split(task, result, returns, receiver)
        self.reply(task, values, started)

    def _split(
        self, task: InboxTask, result: Any, returns: int, receiver: str
    ) -> list[Value]:
        if returns == 0:
            return []
        if hasattr(result, "__next__"):
            result = list(result)
        try:
            given = len(result)
        except TypeError:
            raise TypeError(
                f"Task returned a {type(result).__name__}, but num_returns={returns}: "
                "return a list or tuple of that many objects."
            ) from None
        if given != returns:
            raise ValueError(
                f"Task returned {given} objects, but num_returns={returns}."
            )
        return [
            self.peer.pack(
                item, task.message.task_id + (i + 1).to_bytes(4, "little"), receiver
            )[0]
            for i, item in enumerate(result)
        ]

    def reply(
        self,
        task: InboxTask,
        values: list[Value],
        started: float,
        *,
        retry: bool = False,
        stream_length: int = -1,
        retiring: bool = False,
    ) -> None:
        """Send the general reply."""
        took = int((perf_counter() - started) * 1e6) if started else 0
        with self.peer.lock:
            self.peer.drain_dropped()
            borrowed = None
            if task.arrivals:
                borrowed = self.peer.owner.refs.still_borrowed(task.arrivals)
        message = TaskResult(
            task.message.seq,
            values,
            took,
            borrowed,
            retry,
            task.is_cancelled,
            stream_length,
            retiring or self._has_run_enough(task.call),
        )
        self._send(task, message)

    def _has_run_enough(self, call: Callable_) -> bool:
        if not call.max_calls:
            return False
        made = self._calls_made[call.key] = self._calls_made.get(call.key, 0) + 1
        return made >= call.max_calls

    def _send(self, task: InboxTask, message: object) -> None:
        now = monotonic()
        with self.peer.lock:
            if task.is_answered:
                self.inbox.finish(task)
                return
            task.is_answered = True
            self.inbox.finish(task)
            task.link.send(message)
            self._record(task)
            if (
                not self.inbox.waiting
                or task.call.flush
                or now - self._last_flush > HOLD_REPLIES_S
            ):
                self._last_flush = now
                self.peer.engine.flush()

    def _record(self, task: InboxTask) -> None:
        events = self.events
        if len(events) >= EVENTS_KEPT_MAX:
            del events[: EVENTS_KEPT_MAX // 2]
        started = task.started_at
        if started:
            name = task.message.label or task.call.name
            took = time() - started
            events.append((name, task.message.task_id, started, took, {}))

    def report_events(self, request: int = 0) -> None:
        """Tell the daemon what ran here since it was last told (under the lock)."""
        events, self.events = self.events, []
        self.peer.send_node(EventsCollected(request, events))

    def on_error(self, task: InboxTask, error: BaseException, started: float) -> None:
        """A task raised: answer with the error, or leave if it says so."""
        if isinstance(error, KeyboardInterrupt) and (
            task.is_cancelled or task.call.kind != METHOD
        ):
            error = TaskCancelledError(task.message.task_id.hex()).with_traceback(
                error.__traceback__
            )
        if isinstance(error, (SystemExit, ActorExit)):
            self.leave_for_exit(task, error)
        retry = self._is_retryable(task, error)
        self.answer_failure(task, error, started, retry=retry)

    def leave_for_exit(self, task: InboxTask | None, error: BaseException) -> None:
        """``sys.exit`` or ``exit_actor`` in user code ends the process."""
        exit_worker(self, error)

    def _is_retryable(self, task: InboxTask, error: BaseException) -> bool:
        wanted = task.call.retry_exceptions
        if not wanted or task.is_cancelled:
            return False
        kinds = deserialize(wanted)
        if kinds is True:
            return isinstance(error, Exception)
        return isinstance(error, tuple(kinds))

    def answer_failure(
        self,
        task: InboxTask,
        error: BaseException,
        started: float,
        *,
        retry: bool = False,
    ) -> None:
        """Answer a task with an error."""
        self.reply(task, [self.failure_value(task, error)], started, retry=retry)

    def failure_value(self, task: InboxTask, error: BaseException) -> Value:
        """An error of user code (or of the system) as a value."""
        spec = worker_state.actor_spec
        return Value(
            ERROR,
            encode_failure(
                error,
                function_name=task.call.name,
                pid=os.getpid(),
                ip="127.0.0.1",
                actor_repr=worker_state.actor_name if spec is not None else None,
                actor_id=spec.actor_id.hex() if spec is not None else None,
            ),
        )


def call_user(function: Any, args: Any, kwargs: Any) -> Any:
    """Call user code: the boundary that interrupts may cross."""
    return function(*args, **kwargs)


interruptible(call_user)


def _arrivals() -> list[bytes] | None:
    task = current_task.get()
    return None if task is None else task.arrivals


def apply_resources(lease: Any) -> None:
    """Make the resources of a lease those of this process."""
    state = worker_state
    if lease.gpu_ids != state.gpu_ids:
        if lease.gpu_ids:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, lease.gpu_ids))
        else:
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    if "OMP_NUM_THREADS" not in _users_environment:
        threads = max(1, lease.demand.get("CPU", 0) // 10_000)
        os.environ["OMP_NUM_THREADS"] = str(threads)
    state.demand = lease.demand
    state.gpu_ids = lease.gpu_ids
    state.placement_group = lease.placement_group
    state.capture_children = lease.capture_children
    captured = lease.placement_group if lease.capture_children else b""
    if captured != state.captured:
        state.captured = captured
        state.on_captured()


_users_environment = dict(os.environ)
assert sys.version_info >= (3, 11)
