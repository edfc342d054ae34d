"""Local mode: actors, which are objects of this process with a line of calls each.

::

    PENDING --constructor returned--> ALIVE --kill, exit, no handle left--> DEAD
       |                                 |
       |                                 +-- killed with no_restart=False --> PENDING
       +-- constructor raised, killed --> DEAD

Calls wait in line until their arguments are there and their concurrency group has a
place free; those of one caller stay in order, unless the actor is one of those that
have no order (async, threaded, or asked for).  Three runners differ in where a call
then runs:

* a plain actor: on the thread that made the call, or, when the actor is busy, on the
  thread that runs it, after that;
* a threaded actor: on a thread per call;
* an async actor: on an event loop in a thread of its own.

A call that an actor makes to itself waits in line, as elsewhere: to ``get`` it inside
the call that made it waits for ever.

Does not: run user code under the lock, or look up names (``local_mode.py``).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import Any

from shoal._core.process.execution import ActorExit, call_user
from shoal._core.process.local_calls import LocalArguments, LocalCall
from shoal._core.process.local_execution import LocalExecutor, is_from_the_terminal
from shoal._core.process.local_peer import start_thread
from shoal._core.process.local_place import LocalPlace, current_place, surroundings
from shoal._core.process.local_runners import runner_for
from shoal._core.process.native import is_ordered
from shoal._core.serial import functions
from shoal._core.serial.failures import (
    decode_failure,
    dependency_failure,
    encode_failure,
)
from shoal._core.wire.control_messages import (
    ALIVE,
    DEAD,
    PENDING,
    ActorSpec,
)
from shoal.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    RayTaskError,
)

DEFAULT_GROUP = ""
#: what classes have that say nothing of themselves
_PLAIN_REPR: Any = object.__repr__

BY_ITS_OWN_WILL = "it exited by its own will (exit_actor or sys.exit in a method)"
OUT_OF_SCOPE = "all handles to it went out of scope"


class LocalActor:
    """One actor: what it is, how it is, and its line of calls."""

    def __init__(
        self,
        spec: ActorSpec,
        executor: LocalExecutor,
        arguments: LocalArguments,
        env: dict[str, Any],
    ) -> None:
        self.spec = spec
        self.state = PENDING
        self.restarts = 0
        self.cause = ""
        #: the constructor's exception
        self.failure: bytes | None = None
        #: what it waits for before it can begin, for people
        self.reason = ""
        self.env = env
        #: told (under the lock) of the death
        self.on_death: Callable[[LocalActor], None] = _ignore
        self._executor = executor
        self._peer = executor.peer
        self._arguments = arguments
        self._line: deque[LocalCall] = deque()
        self._running: dict[LocalCall, None] = {}
        self._sizes = {DEFAULT_GROUP: spec.max_concurrency, **spec.concurrency_groups}
        self._is_ordered = is_ordered(spec)
        self._is_leaving = False
        self._is_pumping = False
        self._is_constructing = False
        self._held: dict[str, int] = {}
        self._gpu_ids: list[int] = []
        self.pushes_streams = spec.max_concurrency > 1 or bool(spec.concurrency_groups)
        self._renew()

    def _renew(self) -> None:
        """A place, a context and a runner as for a new process."""
        self._free = dict(self._sizes)
        self.place = LocalPlace()
        self.place.runtime_env = self.env
        self.place.actor_spec = self.spec
        self.place.actor_name = self.spec.class_name
        self.place.demand = self.spec.running_demand
        self.place.gpu_ids = self._gpu_ids
        self.place.incarnation = self.restarts
        self.place.placement_group = self.spec.placement_group
        self.place.capture_children = self.spec.capture_children
        if self.spec.capture_children:
            self.place.captured = self.spec.placement_group
        self.context = Context()
        self.context.run(current_place.set, self.place)
        self._runner = runner_for(self, self._executor)

    # -- life ----------------------------------------------------------------------

    def hold(self, demand: dict[str, int], gpu_ids: list[int]) -> None:
        """It has these resources for life (under the lock)."""
        self._held = demand
        self._gpu_ids = self.place.gpu_ids = gpu_ids

    def begin(self) -> None:
        """Construct it, now or when the constructor's arguments have come."""
        with self._peer.lock:
            self.reason = ""
            self._arguments.on_complete = self._on_arguments
            self._arguments.hold(self._peer.refs)
            if self._arguments.missing:
                return
        self._runner.construct()

    def _on_arguments(self) -> None:
        self._peer.later.append(partial(start_thread, self._runner.construct))

    def construct(self) -> None:
        """Run the constructor (in the actor's context).

        Raises:
            KeyboardInterrupt, bdb.BdbQuit: the program is to end.
        """
        place = self.place
        refs = self._peer.refs
        name = f"{self.spec.class_name}.__init__"
        self._is_constructing = True
        try:
            failed = self._arguments.first_failure(refs)
            if failed is not None:
                raise decode_failure(dependency_failure(name, failed))
            cls = functions.load(self.spec.pickled_class)
            args, kwargs = self._arguments.read(refs)
            with surroundings(place):
                instance: Any = call_user(cls, args, kwargs)
                if type(instance).__repr__ is not _PLAIN_REPR:
                    place.actor_name = repr(instance)
        except (SystemExit, ActorExit):
            self.exit()
        except BaseException as error:  # noqa: BLE001 - the calls raise it
            self._fail_to_start(error, name)
        else:
            place.actor = instance
        finally:
            self._is_constructing = False

    def open(self) -> None:
        """Let calls in, if there is an instance now (outside of the actor's context,
        which the first call enters).
        """
        with self._peer.lock:
            if self.state == PENDING and self.place.actor is not None:
                self.state = ALIVE
                if self._is_leaving and not self._line:
                    self._peer.later.append(partial(self.die, OUT_OF_SCOPE))
            elif self.state == DEAD:
                self.place.actor = None
        self.pump()

    def _fail_to_start(self, error: BaseException, name: str) -> None:
        spec = self.spec
        failure = encode_failure(
            error,
            function_name=name,
            pid=self._peer.pid,
            ip="127.0.0.1",
            actor_repr=f"<{spec.class_name}>",
            actor_id=spec.actor_id.hex(),
        )
        self.die("its constructor raised an exception", failure)
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and is_from_the_terminal(error):
            raise error

    def exit(self) -> None:
        """Its own code asked for the end."""
        self.die(BY_ITS_OWN_WILL)

    def leave(self) -> None:
        """No handle is left: end when what was called is done."""
        with self._peer.lock:
            self._is_leaving = True
            if self._line or self._running or self._is_constructing:
                return
        self.die(OUT_OF_SCOPE)

    def kill(self, cause: str, *, no_restart: bool) -> None:
        """End it at once, or let it begin anew if it may."""
        allowed = self.spec.max_restarts
        if no_restart or (0 <= allowed <= self.restarts):
            self.die(cause)
        else:
            self._restart(cause)

    def die(self, cause: str, failure: bytes | None = None) -> None:
        """End it for good: calls that wait or run fail."""
        with self._peer.lock:
            if self.state == DEAD:
                return
            self.state = DEAD
            self.cause = cause
            self.failure = failure
            self.on_death(self)
            calls = [*self._line, *self._running]
            self._line.clear()
            for call in calls:
                self._executor.fail_with(call, self.death())
            self._executor.supply.give(self._held, self._gpu_ids, for_long=True)
            self._arguments.release(self._peer.refs)
            # Freeing the instance runs user code, which is better done below.
            instance, self.place.actor = self.place.actor, None
        self._runner.stop()
        del instance

    def _restart(self, cause: str) -> None:
        with self._peer.lock:
            if self.state == DEAD:
                return
            old_runner = self._runner
            self.state = PENDING
            self.restarts += 1
            for call in list(self._running):
                text = f"{cause} while the call {call.call.name} was in flight"
                error = ActorUnavailableError(text, self.spec.actor_id)
                self._executor.fail_with(call, error)
            self._running.clear()
            instance, self.place.actor = self.place.actor, None
            self._renew()
        old_runner.stop()
        del instance
        self._runner.construct()

    def death(self) -> ActorDiedError:
        """Why no call can be answered any more."""
        spec = self.spec
        actor_id = spec.actor_id.hex()
        if self.failure is None:
            text = f"The actor {spec.class_name}({actor_id}) is dead: {self.cause}."
            return ActorDiedError(text, actor_id=actor_id)
        cause = decode_failure(self.failure)
        if isinstance(cause, RayTaskError):
            return ActorDiedError(cause, actor_id=actor_id)
        return ActorDiedError(f"its constructor failed: {cause}", actor_id=actor_id)

    def explain(self) -> str:
        """How it is, for people."""
        if self.state == ALIVE:
            return f"the actor has {len(self._running)} other calls running"
        return self.reason or "the actor has not begun"

    # -- calls ---------------------------------------------------------------------

    @property
    def waiting_count(self) -> int:
        """Calls made and not answered."""
        return len(self._line) + len(self._running)

    def submit(self, call: LocalCall) -> None:
        """Put a call in line, and run what can be run."""
        with self._peer.lock:
            if self.state == DEAD:
                self._executor.fail_with(call, self.death())
                return
            if call.call.definition.group not in self._sizes:
                self._executor.fail_with(call, _no_group(call))
                return
            call.arguments.on_complete = self._on_call_ready
            self._line.append(call)
        self.pump()

    def _on_call_ready(self) -> None:
        """The arguments of a call in line have come (under the lock)."""
        self._peer.later.append(self._runner.wake)

    def withdraw(self, call: LocalCall) -> None:
        """A call was cancelled (under the lock)."""
        if call in self._line:
            self._line.remove(call)
            self._peer.later.append(self._runner.wake)

    def pump(self) -> None:
        """Run what can be run, and streams that others wait behind."""
        with self._peer.lock:
            if self._is_pumping:
                return
            self._is_pumping = True
        try:
            while (step := self._next_step()) is not None:
                step()
        except BaseException:
            with self._peer.lock:
                self._is_pumping = False
                if self._line:
                    self._peer.later.append(self._runner.wake)
            raise

    def _next_step(self) -> Callable[[], object] | None:
        """What to do next; None when nothing can be done, and nobody pumps any more."""
        with self._peer.lock:
            call = self._take_turn()
            if call is not None:
                return partial(self._runner.launch, call)
            for call in self._running if self._line else ():
                stream = call.stream
                if call.is_parked and stream.can_go_on and not stream.must_pause:
                    return stream.step  # type: ignore[no-any-return]
            self._is_pumping = False
            return None

    def _take_turn(self) -> LocalCall | None:
        """Take the call whose turn it is out of the line; None when there is none."""
        held_up: set[LocalPlace] = set()
        for call in self._line if self.state == ALIVE else ():
            group = call.call.definition.group
            if call.arguments.missing:
                if self._is_ordered:
                    held_up.add(call.caller)
            elif call.caller not in held_up and self._free[group] > 0:
                self._line.remove(call)
                self._free[group] -= 1
                self._running[call] = None
                call.is_running = True
                return call
        return None

    def released(self, call: LocalCall) -> None:
        """A call runs no more (under the lock)."""
        call.is_parked = False
        if call not in self._running:
            return
        del self._running[call]
        self._free[call.call.definition.group] += 1
        if self._line:
            if not self._is_pumping:
                self._peer.later.append(self._runner.wake)
        elif self._is_leaving and not self._running:
            self._peer.later.append(partial(self.die, OUT_OF_SCOPE))


def _ignore(_: object) -> None:
    return None


def _no_group(call: LocalCall) -> ValueError:
    return ValueError(
        f"The actor has no concurrency group {call.call.definition.group!r}. Name it "
        "in @remote(concurrency_groups={...}) of the class."
    )
