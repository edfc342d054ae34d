"""Local mode: runs calls in this process, with what a worker would make of them.

A call is run as a worker runs it: arguments and results are pickled, so that nothing
is shared; a failed argument fails the call; exceptions become ``RayTaskError``; retries
are made.  It runs on the thread that submitted it, in a context of its own (context
variables do not leak), in the place of its task or actor.

What differs, because there is no process to lose:

* Ctrl-C, or leaving the debugger, ends the running task as cancelled *and* goes on up
  to the program: whoever sits at the terminal means all of it.
* ``sys.exit`` in a task counts as the crash of its worker; ``os._exit`` ends it all.
* A task that runs on another thread cannot be interrupted; its ref says that it is
  cancelled as soon as it is.

Does not: decide when a call of an actor runs (``local_actors.py``).
"""

from __future__ import annotations

import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextvars import Context
from functools import partial
from time import perf_counter, time
from typing import TYPE_CHECKING, Any

from shoal._core.base.generators import DynamicObjectRefGenerator
from shoal._core.base.object_ref import ObjectRef, counted_ref
from shoal._core.executor.inbox import Inbox, InboxTask
from shoal._core.io import interrupts
from shoal._core.owner.calls import DYNAMIC, STREAMING
from shoal._core.process.context import current_task
from shoal._core.process.execution import ActorExit, call_user
from shoal._core.process.local_calls import LocalCall, method_of, split_result
from shoal._core.process.local_peer import (
    LocalPeer,
    failure_value,
    pack,
    start_thread,
)
from shoal._core.process.local_place import (
    LocalPlace,
    current_place,
    make_room_on_stack,
    surroundings,
)
from shoal._core.process.local_streams import END, LocalStream, next_of
from shoal._core.process.local_supply import LocalSupply
from shoal._core.serial import functions
from shoal._core.serial.failures import (
    decode_failure,
    dependency_failure,
    encode_failure,
)
from shoal._core.serial.serializer import deserialize
from shoal._core.wire.worker_messages import ERROR, Callable_, PushTask, Value
from shoal.exceptions import TaskCancelledError, WorkerCrashedError

if TYPE_CHECKING:
    pass

EVENTS_KEPT_MAX = 10_000
ERRORS_KEPT_MAX = 1_000

_NOTHING = pack(None, "")[0]
_AGAIN = object()


class LocalExecutor:
    """Runs calls, and keeps the table of those that are not done."""

    def __init__(self, peer: LocalPeer, supply: LocalSupply) -> None:
        self.peer = peer
        self.supply = supply
        #: always empty: here the context says what runs, and nothing needs a guess
        self.inbox = Inbox()
        self.pending: dict[bytes, LocalCall] = {}
        #: (name, task id, start, seconds, details), for the timeline
        self.events: deque[tuple[str, bytes, float, float, dict[str, str]]] = deque(
            maxlen=EVENTS_KEPT_MAX
        )
        #: (when, function, task id, payload), for ``error_info``
        self._errors: deque[tuple[float, str, bytes, bytes]] = deque(
            maxlen=ERRORS_KEPT_MAX
        )
        self._functions: dict[bytes, Any] = {}
        self._usual_limit = sys.getrecursionlimit()

    def close(self) -> None:
        """Undo what running tasks inside tasks changed in the process."""
        sys.setrecursionlimit(self._usual_limit)

    # -- entering and leaving the table --------------------------------------------

    def enter(self, call: LocalCall) -> list[ObjectRef[Any]]:
        """Note a new call (under the lock); returns the refs of its results."""
        refs = self.peer.refs
        call.arguments.hold(refs)
        returns = call.call.returns
        if returns == STREAMING:
            backpressure = call.call.definition.backpressure
            call.stream = LocalStream(call.task_id, backpressure, self.peer.lock)
            call.stream.on_pause = partial(self._on_pause, call)
        for index in range(returns if returns >= 0 else 1):
            object_id = call.task_id + (index + 1).to_bytes(4, "little")
            call.entries.append(refs.own(object_id, call))
        self.pending[call.task_id] = call
        address = self.peer.address
        return [counted_ref(entry.object_id, address) for entry in call.entries]

    def submit(self, call: LocalCall) -> None:
        """Run a task on this thread, if it waits for nothing."""
        if call.is_placed and not call.arguments.missing:
            self._run_task(call)

    def on_ready(self, call: LocalCall) -> None:
        """What a task waited for is there (under the lock): run it elsewhere."""
        if call.is_placed and not call.arguments.missing:
            run = partial(self._run_task, call)
            self.peer.later.append(partial(start_thread, run))

    def finish(self, call: LocalCall, values: list[Value]) -> None:
        """Enter a call's results; the first to say how it ended is right."""
        with self.peer.lock:
            if call.is_done:
                return
            call.is_done = True
            del self.pending[call.task_id]
            for entry, value in zip(call.entries, values, strict=True):
                entry.record = None
                self.peer.refs.complete(entry, value)
            call.arguments.release(self.peer.refs)
            # Freeing a generator runs user code, which is better done below.
            generator = None
            if call.stream is not None:
                generator, call.stream.produce = call.stream.produce, None
                if not call.stream.is_running:
                    self._on_pause(call)
        del generator

    def _on_pause(self, call: LocalCall) -> None:
        """No thread is in a stream's generator; if it is done, its actor is free."""
        if call.is_done and call.is_parked and call.actor is not None:
            call.actor.released(call)

    def fail(self, call: LocalCall, error: Value) -> None:
        """End a call with an error for each of its results."""
        with self.peer.lock:
            if call.is_done:
                return
            self._errors.append((time(), call.call.name, call.task_id, error.data))
            if call.stream is None:
                self.finish(call, [error] * len(call.entries))
                return
            self.push_item(call, error)
            self.end_stream(call)

    def fail_with(self, call: LocalCall, error: BaseException) -> None:
        """End a call with an error that no code of its own raised."""
        self.fail(call, failure_value(error, call.call.name))

    # -- running -------------------------------------------------------------------

    def _run_task(self, call: LocalCall) -> None:
        place = call.place
        assert place is not None
        # What runs in a placement group draws on what the group holds.
        held = {} if place.placement_group else place.demand
        with self.peer.lock:
            if call.is_done:
                return
            call.is_running = True
            gpu_ids = self.supply.take(held, for_long=False)
            place.gpu_ids = place.gpu_ids or gpu_ids
        try:
            self.run(call, place, Context())
        finally:
            with self.peer.lock:
                self.supply.give(held, gpu_ids, for_long=False)

    def run(self, call: LocalCall, place: LocalPlace, context: Context) -> None:
        """Run a call on this thread to its end; a lazy stream, to its beginning."""
        if current_task.get() is not None:
            make_room_on_stack(self._usual_limit)
        context.run(current_place.set, place)
        iterator: Any = _AGAIN
        while iterator is _AGAIN:
            iterator = context.run(self._attempt, call, place)
        if iterator is not None:
            # Not before the context is left, which every step enters.
            self._park(call, iterator, place, context)
            # As elsewhere, a generator begins when it is called.
            call.stream.pull()

    def begin(self, call: LocalCall) -> None:
        """A new attempt begins, in the present context."""
        message = PushTask(0, 0, call.task_id, b"", None, call.attempt, call.label)
        call.task = InboxTask(None, message, call.call.definition)
        current_task.set(call.task)

    def _attempt(self, call: LocalCall, place: LocalPlace) -> Any:
        """Run a call once.

        Returns:
            None when it is done; ``_AGAIN``; or the iterator of a lazy stream.
        """
        self.begin(call)
        started_at, started = time(), perf_counter()
        try:
            failed = call.arguments.first_failure(self.peer.refs)
            if failed is not None:
                data = dependency_failure(call.call.name, failed)
                self.fail(call, Value(ERROR, data))
                return None
            function = self.function_of(call.call.definition)
            args, kwargs = call.arguments.read(self.peer.refs)
            with surroundings(place):
                result = call_user(function, args, kwargs)
            args = kwargs = None  # what they hold must die before the reply
            if call.stream is None:
                self.answer(call, result)
            elif call.actor is not None and call.actor.pushes_streams:
                self._push_all(call, iter(result))
            else:
                return iter(result)
        except BaseException as error:  # noqa: BLE001 - it is raised where it is got
            return _AGAIN if self.on_error(call, error) else None
        finally:
            self.record(call, started_at, perf_counter() - started)
        return None

    def record(self, call: LocalCall, started_at: float, took: float) -> None:
        """Note when a call ran, for the timeline."""
        name = call.label or call.call.name
        self.events.append((name, call.task_id, started_at, took, {}))

    def function_of(self, call: Callable_) -> Any:
        """The callable to run: a method of the place's actor, or a function."""
        if call.method:
            return method_of(call.method)
        function = self._functions.get(call.key)
        if function is None:
            assert call.pickled is not None
            function = self._functions[call.key] = functions.load(call.pickled)
        return function

    # -- results -------------------------------------------------------------------

    def answer(self, call: LocalCall, result: Any) -> None:
        """Enter what a call returned."""
        returns, name = call.call.returns, call.call.name
        if returns == DYNAMIC:
            packed = [pack(self._dynamic(call, result), name)]
        elif returns == 1:
            packed = [pack(result, name)]
        else:
            packed = [pack(item, name) for item in split_result(result, returns)]
        del result
        self.finish(call, [value for value, _held in packed])

    def _dynamic(self, call: LocalCall, generator: Any) -> DynamicObjectRefGenerator:
        """``num_returns="dynamic"``: enter all items; a value that refers to them."""
        return DynamicObjectRefGenerator(
            [
                self._enter_item(call, index, item)
                for index, item in enumerate(generator)
            ]
        )

    def _enter_item(self, call: LocalCall, index: int, item: Any) -> ObjectRef[Any]:
        value, _held = pack(item, call.call.name)
        object_id = call.task_id + (index + 2).to_bytes(4, "little")
        with self.peer.lock:
            self.peer.refs.complete(self.peer.refs.own(object_id), value)
        return counted_ref(object_id, self.peer.address)

    # -- streams -------------------------------------------------------------------

    def _park(
        self,
        call: LocalCall,
        iterator: Iterator[Any],
        place: LocalPlace,
        context: Context,
    ) -> None:
        """Leave a generator to its consumer."""
        with self.peer.lock:
            if call.is_done or call.stream.is_dropped:
                self.end_stream(call)
                return
            call.is_parked = True
            call.stream.produce = partial(
                context.run, self._produce, call, iterator, place
            )

    def _produce(
        self, call: LocalCall, iterator: Iterator[Any], place: LocalPlace
    ) -> None:
        """Run a generator to its next item (in its own context)."""
        try:
            with surroundings(place):
                item = next_of(iterator)
            if item is END:
                self.end_stream(call)
            else:
                value, _held = pack(item, call.call.name)
                self.push_item(call, value)
        except BaseException as error:  # noqa: BLE001 - it is raised where it is got
            call.retries = 0  # items were given out: the stream cannot begin anew
            self.on_error(call, error)

    def _push_all(self, call: LocalCall, iterator: Iterator[Any]) -> None:
        """Run a generator to its end on this thread."""
        stream = call.stream
        while not (call.is_done or stream.is_dropped):
            item = next_of(iterator)
            if item is END:
                break
            value, _held = pack(item, call.call.name)
            self.push_item(call, value)
            self.peer.wait_until(
                lambda: not stream.must_pause or stream.is_dropped or call.is_done, None
            )
        self.end_stream(call)

    def push_item(self, call: LocalCall, value: Value) -> None:
        """Give an item to the stream's consumer."""
        stream = call.stream
        with self.peer.lock:
            if stream.is_dropped or call.is_done:
                return
            index = stream.sent
            entry = self.peer.refs.own(stream.item_id(index))
            self.peer.refs.complete(entry, value)
            stream.add(index)

    def end_stream(self, call: LocalCall) -> None:
        """No more items will come."""
        with self.peer.lock:
            if not call.is_done:
                call.stream.finish(call.stream.sent)
                self.finish(call, [_NOTHING])

    def drop_stream(self, call: LocalCall) -> None:
        """Nobody takes further items."""
        with self.peer.lock:
            stream = call.stream
            stream.is_dropped = True
            items, stream.arrived = list(stream.arrived.values()), {}
            self.peer.refs.release_all(items)
            if call.is_parked:
                self.end_stream(call)

    # -- errors --------------------------------------------------------------------

    def on_error(self, call: LocalCall, error: BaseException) -> bool:
        """A call raised; True when it is to be run again.

        Raises:
            KeyboardInterrupt, bdb.BdbQuit: ``error``, for the program to end on.
        """
        from_terminal = is_from_the_terminal(error)
        if from_terminal or isinstance(error, KeyboardInterrupt):
            cancelled = TaskCancelledError(call.task_id.hex())
            cancelled = cancelled.with_traceback(error.__traceback__)
            self.fail(call, self.failure_of(call, cancelled))
            if from_terminal and threading.current_thread() is threading.main_thread():
                raise error
            return False
        if isinstance(error, (SystemExit, ActorExit)):
            return self._on_exit(call, error)
        if call.retries and not call.is_cancelled and _is_wanted(call, error):
            call.retries -= 1
            call.attempt += 1
            return True
        self.fail(call, self.failure_of(call, error))
        return False

    def _on_exit(self, call: LocalCall, error: BaseException) -> bool:
        """``sys.exit`` or ``exit_actor``: the end of the worker that is not there."""
        if call.actor is not None:
            call.actor.exit()
            return False
        if call.retries:
            call.retries -= 1
            call.attempt += 1
            return True
        code = getattr(error, "code", None)
        text = (
            f"Task {call.call.name} ({call.task_id.hex()}) called sys.exit({code!r}), "
            f"which ends a worker. Attempts made: {call.attempt + 1}."
        )
        self.fail_with(call, WorkerCrashedError(text))
        return False

    def failure_of(self, call: LocalCall, error: BaseException) -> Value:
        """What user code raised, as a value."""
        actor = call.actor
        data = encode_failure(
            error,
            function_name=call.call.name,
            pid=self.peer.pid,
            ip="127.0.0.1",
            actor_repr=None if actor is None else actor.place.actor_name,
            actor_id=None if actor is None else actor.spec.actor_id.hex(),
        )
        return Value(ERROR, data)

    def describe_errors(self) -> list[dict[str, Any]]:
        """The last errors of tasks and actor calls, oldest first."""
        described = []
        for when, function, task_id, payload in list(self._errors):
            error = decode_failure(payload)
            described.append(
                {
                    "type": type(error).__name__,
                    "message": str(error),
                    "timestamp": when,
                    "function": function,
                    "task_id": task_id.hex(),
                    "job_id": self.peer.job_id.hex(),
                }
            )
        return described

    # -- cancelling ----------------------------------------------------------------

    def cancel(self, call: LocalCall, *, recursive: bool) -> None:
        """Cancel a call, and with ``recursive`` what it submitted."""
        with self.peer.lock:
            if call.is_done:
                return
            call.is_cancelled = True
            if call.task is not None:
                call.task.is_cancelled = True
            children = [
                one for one in self.pending.values() if one.parent == call.task_id
            ]
            if call.runner is not None:
                call.runner()
            else:
                if call.actor is not None:
                    call.actor.withdraw(call)
                self.fail_with(call, TaskCancelledError(call.task_id.hex()))
        if recursive:
            for child in children:
                self.cancel(child, recursive=True)


def is_from_the_terminal(error: BaseException) -> bool:
    """Whether whoever sits at the keyboard wants the program to stop."""
    debugger = sys.modules.get("bdb")
    if debugger is not None and isinstance(error, debugger.BdbQuit):
        return True
    if not isinstance(error, KeyboardInterrupt):
        return False
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        return True  # it leaves no trace: better stop once too often
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    raised_in = step.tb_frame.f_globals.get("__name__") if step is not None else ""
    return raised_in == interrupts.__name__


def _is_wanted(call: LocalCall, error: BaseException) -> bool:
    """Whether ``retry_exceptions`` has this error."""
    packed = call.call.definition.retry_exceptions
    if packed is None:
        return False
    wanted: Any = deserialize(packed)
    return isinstance(error, Exception if wanted is True else wanted)
