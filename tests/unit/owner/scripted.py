"""An owner machine between a scripted node and scripted processes.

A playbook tells the owner what happens and compares what it says, as text and in
order.  What a test did not expect fails it at its end (the ``stage`` fixture).
Callables are described on each connection once; only their own test looks at that.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

from shoal._core.owner.calls import CallTemplate, Channel, TaskRecord
from shoal._core.owner.leases import SchedulingClass
from shoal._core.owner.machine import Owner
from shoal._core.owner.references import Entry
from shoal._core.serial.failures import encode_failure
from shoal._core.wire import control_messages as control
from shoal._core.wire import node_messages as node
from shoal._core.wire import worker_messages as peer
from shoal._core.wire.worker_messages import (
    ERROR,
    FUNCTION,
    Callable_,
    TaskDone,
    Value,
)

ME, W1, W2, W3 = (bytes([number]).hex() * 16 for number in range(4))
NAMES = {ME: "me", W1: "w1", W2: "w2", W3: "w3", "": "nobody"}
ONE_CPU = {"CPU": 10_000}


def failure(text: str) -> Value:
    """The error of a task that raised ValueError."""
    error = ValueError(text)
    return Value(ERROR, encode_failure(error, function_name="f", pid=1, ip=""))


class Link:
    """A connection to another process: notes what is sent."""

    context: Any = None

    def __init__(self, stage: Stage, address: str) -> None:
        self._stage = stage
        self._address = address

    def send(self, message: object) -> None:
        self._stage.said.append((NAMES[self._address], message))

    def send_frame(self, frame: bytes) -> None:
        raise AssertionError("the owner sends messages")


class Stage:
    """The port of an owner machine, and the machine."""

    address = ME

    def __init__(self) -> None:
        self.said: list[tuple[str, object]] = []
        self.warnings: list[str] = []
        self.time = 100.0
        self.timers: list[tuple[float, Callable[[], None]]] = []
        #: addresses that cannot be reached
        self.gone: dict[str, None] = {}
        self.labels: dict[bytes, str] = {}
        self.records: dict[str, TaskRecord] = {}
        self._links: dict[str, Link] = {}
        self._task_numbers = count(1)
        self.owner = Owner(self)
        self.refs = self.owner.refs
        self.tasks = self.owner.tasks
        self.leases = self.owner.leases

    # -- the port ----------------------------------------------------------------

    def link(self, address: str) -> Link | None:
        if address in self.gone:
            return None
        link = self._links.get(address)
        if link is None:
            link = self._links[address] = Link(self, address)
            # As a shell does: an open connection is one that messages come from.
            if address not in self.owner.channels:
                self.owner.channels[address] = Channel(address, link)
        return link

    def send_node(self, message: object) -> None:
        self.said.append(("node", message))

    def now(self) -> float:
        return self.time

    def call_at(self, when: float, action: Callable[[], None]) -> None:
        self.timers.append((when, action))

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    # -- the script --------------------------------------------------------------

    def says(self) -> list[str]:
        """All it said since the last look, without descriptions of callables."""
        said, self.said = self.said, []
        return [
            f"{to}: {self.text(message)}"
            for to, message in said
            if not isinstance(message, Callable_)
        ]

    def from_peer(self, address: str, *messages: object) -> None:
        """Messages of a process arrive together, as one turn."""
        channel = self.owner.channel_to(address)
        assert channel is not None
        for message in messages:
            assert self.owner.on_peer(channel, message)
        self.end_turn()

    def from_node(self, *messages: object) -> None:
        """Messages of the node daemon arrive together, as one turn."""
        for message in messages:
            assert self.owner.on_node(message)
        self.end_turn()

    def end_turn(self) -> None:
        self.tasks.drain()
        self.check()

    def check(self) -> None:
        """Invariants of the machine, and one of its parts together."""
        self.owner.check()
        for sclass in self.leases._classes.values():
            # Nothing waits without a request that will bring it a worker.
            assert not sclass.queue or sclass.request is not None
        for number, lease in self.leases.leases.items():
            assert lease.sclass.leases[number] is lease
            assert lease.channel.lease is lease

    def pass_time(self, seconds: float) -> None:
        """Let time pass; timers that fall due run at their times."""
        end = self.time + seconds
        while self.timers:
            self.timers.sort(key=lambda timer: timer[0])
            when, action = self.timers[0]
            if when > end + 1e-9:
                break
            del self.timers[0]
            self.time = max(self.time, when)
            action()
            self.end_turn()
        self.time = end

    # -- tasks -------------------------------------------------------------------

    def call(
        self, name: str = "f", *, returns: int = 1, retries: int = 0, **options: Any
    ) -> CallTemplate:
        """A function."""
        key = name.encode()
        definition = Callable_(0, FUNCTION, key, name, returns=returns, **options)
        return CallTemplate(definition, retries)

    def sclass(self, cpus: int = 1, env: str = "") -> SchedulingClass:
        """The queue of a kind of task."""
        demand = {"CPU": cpus * 10_000}
        return self.leases.sclass(demand, env, None, self.tasks)

    def make(
        self,
        label: str,
        call: CallTemplate | None = None,
        *,
        deps: list[bytes] | None = None,
        sclass: Any = None,
    ) -> TaskRecord:
        """A record of a new task."""
        task_id = next(self._task_numbers).to_bytes(8, "little") + bytes(16)
        template = call or self.call()
        record = TaskRecord(task_id, template, b"", sclass or self.sclass())
        record.label = label
        if deps:
            record.deps = list(enumerate(deps))
            record.holds = deps
        self.labels[task_id] = label
        self.records[label] = record
        return record

    def submit(self, label: str, call: CallTemplate | None = None, **how: Any) -> Any:
        """Submit a task; returns the entries of its results."""
        entries = self.tasks.submit(self.make(label, call, **how))
        self.end_turn()
        return entries

    def submit_many(self, first: int, last: int, call: CallTemplate) -> None:
        """Tasks t<first> to t<last>."""
        for number in range(first, last + 1):
            self.submit(f"t{number}", call)

    def grant(self, request: int, lease: int, address: str) -> None:
        """The node grants a worker."""
        worker = bytes.fromhex(address)
        self.from_node(node.LeaseGranted(request, lease, worker, address, ONE_CPU, []))

    def done(self, address: str, *labels: str, took_us: int = 1_000_000) -> None:
        """A worker answers tasks with plain values, one message after another."""
        seqs = [self.records[label].seq for label in labels]
        self.from_peer(address, *(TaskDone(seq, b"value", took_us) for seq in seqs))

    def seq(self, label: str) -> int:
        return self.records[label].seq

    def entry(self, label: str) -> Entry:
        """The (first) result of a task."""
        returns = self.records[label].returns
        return returns if isinstance(returns, Entry) else returns[0]

    # -- texts -------------------------------------------------------------------

    def name_of(self, object_id: bytes) -> str:
        """An object by the label of its task, and its number."""
        label = self.labels.get(object_id[:24])
        if label is None:
            return object_id.rstrip(b"\0").decode()
        return f"{label}.{int.from_bytes(object_id[24:], 'little')}"

    def text(self, message: Any) -> str:
        """A message in a few words."""
        words = _TEXTS.get(type(message))
        return repr(message) if words is None else words(self, message)

    def names(self, object_ids: list[bytes]) -> str:
        return " ".join(map(self.name_of, object_ids))


def _run(stage: Stage, message: peer.PushTask) -> str:
    given = " ".join(
        f"{stage.name_of(object_id)}={value.data.decode() or value.kind}"
        for _, object_id, _, value in message.deps or ()
    )
    given = f" with {given}" if given else ""
    attempt = f" again ({message.attempt})" if message.attempt else ""
    return f"run {message.label}{given}{attempt}"


_TEXTS: dict[type, Callable[[Stage, Any], str]] = {
    node.RequestLease: lambda _, m: f"ask {m.request} for {m.backlog}",
    node.CancelLeaseRequest: lambda _, m: f"withdraw {m.request}",
    node.ReturnLease: lambda _, m: f"return {m.lease}" + " for good" * m.retire,
    node.FreeObjects: lambda s, m: f"free {s.names(m.object_ids)}",
    node.KillWorker: lambda _, m: f"kill worker of {m.lease}",
    node.ExitQuery: lambda _, m: f"how did {NAMES[m.worker_id.hex()]} end",
    control.WatchActor: lambda _, m: f"watch {m.actor_id.decode()}",
    control.ActorOutOfScope: lambda _, m: f"drop actor {m.actor_id.decode()}",
    peer.UseLease: lambda _, m: f"use {m.lease}",
    peer.PushTask: _run,
    peer.TakeBack: lambda _, m: f"give back {m.count}",
    peer.CancelTask: lambda s, m: (
        f"cancel {s.labels[m.task_id]}" + " and children" * m.recursive
    ),
    peer.StreamAck: lambda s, m: f"taken {m.consumed} of {s.labels[m.task_id]}",
    peer.StreamDropped: lambda s, m: f"stop {s.labels[m.task_id]}",
    peer.GetValue: lambda s, m: f"get {s.name_of(m.object_id)}",
    peer.ValueReply: lambda s, m: (
        f"{s.name_of(m.object_id)} is "
        f"{m.value.data.decode() if m.value.kind == peer.INLINE else m.value.kind}"
    ),
    peer.BorrowAdded: lambda s, m: f"{NAMES[m.borrower]} holds {s.names(m.object_ids)}",
    peer.BorrowDropped: lambda s, m: (
        "drop " + " ".join(f"{s.name_of(key)}*{times}" for key, times in m.objects)
    ),
}
