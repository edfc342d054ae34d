"""Local mode: one submitted call, its arguments, what it runs, what it returns.

::

    waiting for its group --> waiting for arguments --> (in line at its actor)
             |                          |                        |
             +------ cancelled ---------+------------------------+--> running --> done

Does not: run (``local_execution.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sized
from functools import partial
from typing import TYPE_CHECKING, Any

from shoal._core.executor.inbox import InboxTask
from shoal._core.owner.calls import CallTemplate
from shoal._core.owner.references import FAILED, PENDING, Entry, References
from shoal._core.process.context import current_task
from shoal._core.process.execution import ActorExit
from shoal._core.process.local_place import LocalPlace, current_place
from shoal._core.serial.serializer import deserialize
from shoal.exceptions import ObjectLostError

if TYPE_CHECKING:
    from shoal._core.process.local_actors import LocalActor


class LocalArguments:
    """Pickled arguments, the refs they depend on, and what they keep alive.

    Args:
        payload: positional and keyword arguments, pickled; empty for none.
        deps: (place, object id) of the refs at top level.
        holds: ids of all refs in the arguments.
    """

    __slots__ = ("_deps", "_holds", "_payload", "missing", "on_complete")

    def __init__(
        self,
        payload: bytes,
        deps: list[tuple[int | str, bytes]] | None,
        holds: list[bytes] | None,
    ) -> None:
        self._payload = payload
        self._deps = deps or []
        self._holds = holds or []
        #: how many arguments are not there yet
        self.missing = 0
        #: called (under the lock) when the last of them comes
        self.on_complete: Callable[[], None] | None = None

    def hold(self, refs: References) -> None:
        """Keep what they need, and count what is missing (under the lock).

        Raises:
            ObjectLostError: a ref at top level is of a session that has ended.
        """
        entries = refs.entries
        for _place, object_id in self._deps:
            if object_id not in entries:
                raise ObjectLostError(object_id.hex(), None, "")
        # Refs deeper inside may be names of nothing, as handles of another session are.
        self._holds = [one for one in self._holds if one in entries]
        for object_id in self._holds:
            refs.hold(object_id)
        for _place, object_id in self._deps:
            entry = entries[object_id]
            if entry.state == PENDING:
                self.missing += 1
                entry.add_waiter(self)

    def arrived(self, _: Entry) -> None:
        """One that was missing is there."""
        self.missing -= 1
        if not self.missing and self.on_complete is not None:
            self.on_complete()

    def release(self, refs: References) -> None:
        """Keep nothing any more (under the lock)."""
        holds, self._holds = self._holds, []
        self.on_complete = None
        refs.release_all(holds)

    def first_failure(self, refs: References) -> bytes | None:
        """The error that an argument is, if one is."""
        for _place, object_id in self._deps:
            entry = refs.entries[object_id]
            if entry.state == FAILED:
                return entry.data  # type: ignore[no-any-return]
        return None

    def read(self, refs: References) -> tuple[Any, Any]:
        """New copies of the arguments, positional and by keyword."""
        args: Any = ()
        kwargs: Any = {}
        if self._payload:
            args, kwargs = deserialize(self._payload)
        if self._deps:
            args = list(args)
            for place, object_id in self._deps:
                value = deserialize(refs.entries[object_id].data)
                if isinstance(place, str):
                    kwargs[place] = value
                else:
                    args[place] = value
        return args, kwargs


class LocalCall:
    """One submitted task or actor call, until its last result is there."""

    __slots__ = (
        "__weakref__",
        "actor",
        "arguments",
        "attempt",
        "call",
        "caller",
        "entries",
        "is_cancelled",
        "is_done",
        "is_parked",
        "is_placed",
        "is_running",
        "label",
        "parent",
        "place",
        "reason",
        "retries",
        "runner",
        "stream",
        "task",
        "task_id",
    )

    def __init__(
        self, task_id: bytes, call: CallTemplate, arguments: LocalArguments, label: str
    ) -> None:
        self.task_id = task_id
        self.call = call
        self.arguments = arguments
        self.label = label
        self.retries = call.max_retries
        self.attempt = 0
        self.entries: list[Entry] = []
        self.stream: Any = None
        self.actor: LocalActor | None = None
        #: where a task is to run; an actor has a place of its own
        self.place: LocalPlace | None = None
        #: its resources may be had: its placement group is there, if it has one
        self.is_placed = True
        #: why it can never run; empty when it can
        self.reason = ""
        #: who submitted it: calls of one caller to one actor stay in order
        self.caller = current_place.get()
        outer = current_task.get()
        self.parent = None if outer is None else outer.message.task_id
        #: what the running attempt is known as in its context
        self.task: InboxTask | None = None
        #: cancels it while it runs, if something can
        self.runner: Callable[[], None] | None = None
        self.is_running = False
        self.is_cancelled = False
        self.is_done = False
        #: its generator waits for its consumer, and no thread is in it
        self.is_parked = False

    @property
    def is_lazy(self) -> bool:
        """Whether it goes on only when somebody runs it."""
        return self.stream is not None and self.stream.produce is not None

    def help_along(self, deadline: float | None) -> None:
        """Somebody waits for its end: run its generator, if it is one."""
        if self.stream is not None:
            self.stream.run_on(deadline)

    def explain(self) -> str:
        """What it waits for, for people."""
        if self.reason:
            return self.reason
        name = self.call.name
        if not self.is_placed:
            return f"task {name} waits for its placement group."
        if self.arguments.missing:
            return f"task {name} waits for {self.arguments.missing} of its arguments."
        if self.stream is not None and self.stream.must_pause:
            return f"task {name} waits until its items are taken (back-pressure)."
        if self.is_running:
            return f"task {name} runs."
        if self.actor is not None:
            return f"actor call {name} waits; {self.actor.explain()}."
        return f"task {name} is about to run."


def split_result(result: Any, returns: int) -> list[Any]:
    """The items of a result that should have ``returns`` of them."""
    if not returns:
        return []
    if hasattr(result, "__next__"):
        result = list(result)
    if not isinstance(result, Sized):
        raise TypeError(
            f"Task returned a {type(result).__name__}, but num_returns={returns}: "
            "return a list or tuple of that many objects."
        )
    if len(result) != returns:
        raise ValueError(
            f"Task returned {len(result)} objects, but num_returns={returns}."
        )
    return list(result)  # type: ignore[call-overload,no-any-return]


def method_of(name: str) -> Any:
    """A method of the actor whose place this is, or one that every actor has."""
    actor = current_place.get().actor
    if name == "__ray_call__":
        return partial(_call_with, actor)
    if name == "__ray_ready__":
        return _true
    if name == "__ray_terminate__":
        return _terminate
    return getattr(actor, name)


def _call_with(
    actor: object, function: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    return function(actor, *args, **kwargs)


def _true() -> bool:
    return True


def _terminate() -> None:
    raise ActorExit
