"""Requests to the node daemon: each is sent with a number, and answered once.

Who asks may block (``ask``) or be called (``ask_later``).  An interrupt may end a wait
before its answer is there; the answer may bring something that must not be lost, such
as room in the store, so it is waited for by nobody and given back when it comes.

::

    ask ----------> waiting --answer--> returned
                       |
                       +--interrupt--> abandoned --answer--> given back

Invariant: a number is in the table from its sending until its answer has been used.
All methods but ``ask`` are called under the lock of the engine.

Does not: know what requests mean, but for those that must be given back.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count
from time import monotonic
from typing import Any

from shoal._core.io.engine import Engine, Waiter
from shoal._core.wire.control_messages import (
    ActorOutOfScope,
    ActorRegistered,
    CreateActor,
)
from shoal._core.wire.node_messages import (
    CreateObject,
    FreeObjects,
    NodeReply,
    ObjectCreated,
    ObjectPinned,
    PinObject,
    SealObject,
    UnpinObjects,
)
from shoal.exceptions import RaySystemError

#: The messages that answer a request.
ANSWERS = (ObjectCreated, ObjectPinned, NodeReply, ActorRegistered)


class _LateAnswer:
    """What is called, instead of a thread woken, when an answer is there."""

    __slots__ = ("arrived",)

    def __init__(self, arrived: Callable[[], None]) -> None:
        self.arrived = arrived


class NodeRequests:
    """What one process has asked its daemon and was not answered yet.

    Args:
        engine: serves the connection to the daemon.
        send: queues a message for it (under the lock).
        check_alive: raises RaySystemError when it is gone.
    """

    def __init__(
        self,
        engine: Engine,
        send: Callable[[object], None],
        check_alive: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._send = send
        self._check_alive = check_alive
        self._numbers = count(1)
        self._answers: dict[int, tuple[Waiter | _LateAnswer, list[Any]]] = {}

    def ask(self, make: Callable[[int], object], timeout: float | None = None) -> Any:
        """Send a request to the daemon and wait for its answer.

        Args:
            make: makes the message, given the request's number.
            timeout: seconds; None waits as long as it takes.

        Raises:
            RaySystemError: the daemon is gone, or did not answer in time.
        """
        engine = self._engine
        number = next(self._numbers)
        waiter, answer = Waiter(), list[Any]()
        with engine.lock:
            self._check_alive()
            self._answers[number] = waiter, answer
            request = make(number)
            self._send(request)
            engine.flush()
        deadline = None if timeout is None else monotonic() + timeout
        try:
            engine.wait(waiter, deadline)
        except BaseException:
            self._abandon(number, request, answer)
            raise
        self._answers.pop(number, None)
        if not answer:
            self._check_alive()
            raise RaySystemError(
                RuntimeError(f"the node daemon did not answer within {timeout} s")
            )
        return answer[0]

    def _abandon(self, number: int, request: object, answer: list[Any]) -> None:
        """An interrupt ended a wait: what the answer brings is given back."""

        def on_answer() -> None:
            self._answers.pop(number, None)
            if answer:
                self._give_back(request, answer[0])

        with self._engine.lock:
            if answer:
                on_answer()
            else:
                self._answers[number] = _LateAnswer(on_answer), answer

    def _give_back(self, request: object, answer: Any) -> None:
        if isinstance(answer, ObjectPinned):
            assert isinstance(request, PinObject)
            if answer.offset >= 0:
                self._send(UnpinObjects([request.object_id]))
        elif isinstance(answer, ObjectCreated):
            assert isinstance(request, CreateObject)
            if answer.offset >= 0:
                self.give_up_object(request.object_id)
        elif isinstance(answer, ActorRegistered) and isinstance(request, CreateActor):
            actor_id = request.spec.actor_id
            spec = answer.spec
            if spec is not None and spec.actor_id == actor_id:
                self._send(ActorOutOfScope(actor_id))

    def give_up_object(self, object_id: bytes) -> None:
        """Give up an object that is not written: one both freed and sealed goes."""
        self._send(FreeObjects([object_id]))
        self._send(SealObject(object_id))

    def ask_later(
        self, make: Callable[[int], object], on_answer: Callable[[Any], None]
    ) -> None:
        """Send a request; its answer goes to ``on_answer`` (both under the lock).

        ``on_answer`` gets None when the daemon ends meanwhile.

        Raises:
            RaySystemError: the daemon is gone already.
        """
        self._check_alive()
        number = next(self._numbers)
        answer = list[Any]()
        self._answers[number] = (
            _LateAnswer(partial(self._hand_on, number, answer, on_answer)),
            answer,
        )
        self._send(make(number))

    def _hand_on(
        self, number: int, answer: list[Any], on_answer: Callable[[Any], None]
    ) -> None:
        self._answers.pop(number, None)
        on_answer(answer[0] if answer else None)

    def on_answer(self, message: Any) -> None:
        """One of ``ANSWERS`` came."""
        waiting = self._answers.get(message.request)
        if waiting is not None:
            waiting[1].append(message)
            waiting[0].arrived()

    def on_node_lost(self) -> None:
        """No answer will come any more: wake whoever waits for one."""
        for waiter, _answer in list(self._answers.values()):
            waiter.arrived()
