"""Local mode: where code runs, when many tasks and actors share one process.

Elsewhere a process is a worker or an actor for its whole life, and ``worker_state``
says which.  Here each task and each actor has a *place* of its own, and a context
variable says in which place the present code runs.  While a local session runs,
``worker_state`` answers from that variable, so that whoever asks it (the runtime
context, ``exit_actor``) need not know of local mode.

Does not: run anything.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from shoal._core.base.environments import expand_variables
from shoal._core.process.context import WorkerState, worker_state

#: Room for the frames of shoal and of the code between two nested tasks.
_FRAMES_ROOM = 1000


class LocalPlace(WorkerState):
    """What the worker of a task or an actor would be, were there one."""

    def __init__(self) -> None:
        super().__init__()
        #: the runtime environment, merged; empty for none
        self.runtime_env: dict[str, Any] = {}
        #: whether this is the program itself, outside of tasks and actors
        self.is_driver = False


class _Process:
    """What user code finds around it at this moment."""

    def __init__(self) -> None:
        self.runtime_env: dict[str, Any] = {}
        self.captured = b""
        #: told of a change, after which options may mean something else
        self.on_change: Callable[[], None] = _nothing


def _nothing() -> None:
    return None


_process = _Process()
_driver = LocalPlace()
_driver.is_driver = True

#: The place of the present code.
current_place: ContextVar[LocalPlace] = ContextVar("current_place", default=_driver)


class _PlaceOfCaller(WorkerState):
    """``worker_state`` while a local session runs: the place of whoever asks."""

    def __getattribute__(self, name: str) -> Any:
        return getattr(current_place.get(), name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(current_place.get(), name, value)


def begin_places(runtime_env: dict[str, Any], on_change: Callable[[], None]) -> None:
    """Let ``worker_state`` answer for the place of the caller.

    Args:
        runtime_env: of the job, which is the driver's.
        on_change: called when code begins to run whose options mean something else.
    """
    _process.runtime_env = _driver.runtime_env = runtime_env
    _process.on_change = on_change
    object.__setattr__(worker_state, "__class__", _PlaceOfCaller)


def end_places() -> None:
    """Let ``worker_state`` answer for the process again."""
    object.__setattr__(worker_state, "__class__", WorkerState)
    _process.runtime_env = _driver.runtime_env = {}
    _process.on_change = _nothing


@contextmanager
def surroundings(place: LocalPlace) -> Iterator[None]:
    """Make the process look to user code as the worker of ``place`` would.

    Environment variables are set for as long as the code runs, for the whole process.
    A task has no running event loop, though its caller may have one.
    """
    outer = _process.runtime_env, _process.captured
    _enter(place.runtime_env, place.captured)
    try:
        with _environment(_variables(place)), _no_running_loop():
            yield
    finally:
        _enter(*outer)


def _enter(runtime_env: dict[str, Any], captured: bytes) -> None:
    """Note what the code that runs now inherits to what it submits."""
    if (runtime_env, captured) != (_process.runtime_env, _process.captured):
        _process.runtime_env, _process.captured = runtime_env, captured
        _process.on_change()


def _variables(place: LocalPlace) -> dict[str, str]:
    variables = expand_variables(place.runtime_env.get("env_vars") or {}, os.environ)
    if place.gpu_ids:
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, place.gpu_ids))
    return variables


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, text in before.items():
            if text is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = text


@contextmanager
def _no_running_loop() -> Iterator[None]:
    loop = asyncio._get_running_loop()
    if loop is None:
        yield
        return
    # From Python 3.12 on a thread's running task must step aside as well.
    swap = getattr(asyncio.tasks, "_swap_current_task", None)
    task = swap(loop, None) if swap is not None else None
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(loop)
        if swap is not None:
            swap(loop, task)


def make_room_on_stack(usual_limit: int) -> None:
    """Give a task inside a task the frames it would have in a worker of its own.

    Args:
        usual_limit: the recursion limit that the program runs with.
    """
    depth = 0
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        depth += 1
    needed = depth + usual_limit + _FRAMES_ROOM
    if needed > sys.getrecursionlimit():
        sys.setrecursionlimit(needed + _FRAMES_ROOM)
