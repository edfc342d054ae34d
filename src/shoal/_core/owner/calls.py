"""Calls: what is the same for every task of a function, and one task's own record."""

from __future__ import annotations

from typing import Any

from shoal._core.owner.port import Link
from shoal._core.wire.worker_messages import Callable_, PushTask, Value

DYNAMIC, STREAMING = -1, -2

#: A window covers about this much work, so that a worker never waits for a refill
#: and no long task hides many others behind it.
WINDOW_TARGET_US = 4000
WINDOW_MAX = 256


class CallTemplate:
    """A function (or method) with its options: shared by all its tasks here."""

    __slots__ = ("definition", "max_retries", "name", "returns", "took_us", "window")

    def __init__(self, definition: Callable_, max_retries: int) -> None:
        self.definition = definition
        self.name = definition.name
        self.returns = definition.returns
        self.max_retries = max_retries
        #: smoothed run time; -1 until one has finished
        self.took_us = -1.0
        #: how many tasks to push ahead to one worker
        self.window = 1

    def learn(self, took_us: int) -> None:
        """Take a finished task's run time into account."""
        smoothed = self.took_us
        if smoothed < 0:
            smoothed = float(took_us)
        else:
            smoothed += (took_us - smoothed) * 0.1
        self.took_us = smoothed
        if self.definition.max_calls:  # a worker may end after any of its calls
            return
        window = int(WINDOW_TARGET_US / (smoothed + 5.0))
        self.window = 1 if window < 1 else min(window, WINDOW_MAX)


class TaskRecord:
    """One submitted task, from submission to its last reply."""

    __slots__ = (
        "actor",
        "args",
        "attempt",
        "call",
        "channel",
        "deps",
        "holds",
        "is_cancelled",
        "is_careful",
        "is_error_seen",
        "label",
        "missing",
        "parent",
        "retries",
        "returns",
        "sclass",
        "seq",
        "stream",
        "task_id",
    )

    def __init__(
        self, task_id: bytes, call: CallTemplate, args: bytes, sclass: Any
    ) -> None:
        self.task_id = task_id
        self.call = call
        self.args = args
        self.sclass = sclass
        self.returns: Any = ()
        self.retries = call.max_retries
        self.attempt = 0
        #: (place, object id) of top-level refs
        self.deps: list[tuple[int | str, bytes]] | None = None
        #: objects held until the last reply
        self.holds: list[bytes] | None = None
        self.missing = 0
        self.channel: Channel | None = None
        self.seq = 0
        self.is_cancelled = False
        #: pushed alone: a worker died with it in flight
        self.is_careful = False
        #: somebody has been given the error it ended in
        self.is_error_seen = False
        self.parent: bytes | None = None
        self.label = ""
        self.stream: Any = None
        self.actor: Any = None

    def arrived(self, _: object) -> None:
        """A dependency is there."""
        self.missing -= 1
        if self.missing == 0:
            self.sclass.owner.resolved.append(self)


class Channel:
    """The sending side of a connection to one executor."""

    __slots__ = (
        "address",
        "has_given_back",
        "inflight",
        "is_taking_back",
        "last_reply",
        "lease",
        "link",
        "numbers",
        "seq",
    )

    def __init__(self, address: str, link: Link) -> None:
        self.address = address
        self.link = link
        self.seq = 0
        self.inflight: dict[int, TaskRecord] = {}
        self.numbers: dict[CallTemplate, int] = {}
        self.lease: Any = None
        self.is_taking_back = False
        #: it gave tasks back and has answered none since: the one it runs takes long
        self.has_given_back = False
        self.last_reply = 0.0

    def number_of(self, call: CallTemplate) -> int:
        """The connection's number for a callable, defined on first use."""
        number = self.numbers.get(call)
        if number is None:
            number = self.numbers[call] = len(self.numbers) + 1
            one = call.definition
            self.link.send(
                Callable_(
                    number,
                    one.kind,
                    one.key,
                    one.name,
                    one.pickled,
                    one.method,
                    one.returns,
                    one.flush,
                    one.retry_exceptions,
                    one.group,
                    one.backpressure,
                    one.max_calls,
                    call.max_retries,
                )
            )
        return number

    def push(
        self,
        record: TaskRecord,
        deps: list[tuple[int | str, bytes, str, Value]] | None,
    ) -> None:
        """Queue a task for the executor."""
        number = self.numbers.get(record.call) or self.number_of(record.call)
        self.seq = seq = self.seq + 1
        self.inflight[seq] = record
        record.seq = seq
        record.channel = self
        self.link.send(
            PushTask(
                seq,
                number,
                record.task_id,
                record.args,
                deps,
                record.attempt,
                record.label,
            )
        )
