"""The owner's end of leases: ask, fill, take back, return, per scheduling class.

Tasks with the same demand, environment and strategy share a *scheduling class*: one
queue, and leases on workers that serve it.  An idle worker gets a task at once; a busy
one is refilled when half of its window has come back, in one send.  Leases nobody
needs go back after ``IDLE_RETURN_S``, or at once when the daemon says others wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any

from shoal._core.owner.calls import Channel, TaskRecord
from shoal._core.owner.port import OwnerPort
from shoal._core.wire.node_messages import (
    CancelLeaseRequest,
    LeaseGranted,
    RequestLease,
    ReturnLease,
)
from shoal._core.wire.worker_messages import TakeBack, UseLease

IDLE_RETURN_S = 0.1
#: How long a lease with work is kept once others wait for its resources.
QUANTUM_S = 0.05
#: A worker silent for this long with tasks behind the running one gives them back.
STALL_S = 0.02
BACKLOG_TOLD_MAX = 1024


class OwnerLease:
    """The right to push tasks to one worker."""

    __slots__ = ("channel", "gpu_ids", "idle_since", "number", "return_by", "sclass")

    def __init__(self, number: int, channel: Channel, sclass: SchedulingClass) -> None:
        self.number = number
        self.channel = channel
        self.sclass = sclass
        self.idle_since = 0.0
        #: others wait: take no new work after this time
        self.return_by: float | None = None


class SchedulingClass:
    """Tasks that any lease of the class can run."""

    __slots__ = (
        "asked",
        "demand",
        "env",
        "is_delayed",
        "leases",
        "owner",
        "queue",
        "reason",
        "request",
        "strategy",
    )

    def __init__(
        self,
        demand: dict[str, int],
        env: str,
        strategy: list[Any] | None,
        owner: Any,
    ) -> None:
        self.demand = demand
        self.env = env
        self.strategy = strategy
        self.queue: deque[TaskRecord] = deque()
        self.leases: dict[int, OwnerLease] = {}
        self.request: int | None = None
        #: grants still to come on the open request
        self.asked = 0
        #: why the daemon cannot serve it now, for people
        self.reason = ""
        self.is_delayed = False
        #: the task table that serves it (records report to it)
        self.owner = owner


class OwnerLeases:
    """All scheduling classes and leases of one process."""

    def __init__(
        self,
        port: OwnerPort,
        channel_to: Callable[[str], Channel | None],
        push: Callable[[Channel, TaskRecord], bool],
    ) -> None:
        self._port = port
        self._channel_to = channel_to
        self._push = push
        self._requests = count(1)
        self._by_request: dict[int, SchedulingClass] = {}
        self._classes: dict[tuple[Any, ...], SchedulingClass] = {}
        self.leases: dict[int, OwnerLease] = {}
        #: how long the timer that is set was set for; None when none is
        self._timer_delay: float | None = None
        self._timer_due = 0.0
        self.depth = 0

    def sclass(
        self,
        demand: dict[str, int],
        env: str,
        strategy: list[Any] | None,
        owner: Any,
    ) -> SchedulingClass:
        """The class of tasks with this demand, environment and strategy."""
        key = (tuple(sorted(demand.items())), env, repr(strategy))
        found = self._classes.get(key)
        if found is None:
            found = SchedulingClass(demand, env, strategy, owner)
            self._classes[key] = found
        return found

    # -- filling -----------------------------------------------------------------

    def enqueue(self, record: TaskRecord) -> None:
        """A task is ready to run."""
        sclass = record.sclass
        if not sclass.queue:
            for lease in sclass.leases.values():
                if not lease.channel.inflight and lease.return_by is None:
                    self._push(lease.channel, record)
                    return
        sclass.queue.append(record)
        self._ask(sclass)

    def pump(self, sclass: SchedulingClass) -> None:
        """Fill every lease of a class as far as its window allows."""
        for lease in list(sclass.leases.values()):
            if not sclass.queue:
                return
            self.refill(lease)
        if sclass.queue:
            self._ask(sclass)

    def refill(self, lease: OwnerLease) -> None:
        """Push what the worker's window has room for, or note that it is idle."""
        sclass = lease.sclass
        queue = sclass.queue
        inflight = lease.channel.inflight
        loaded = len(inflight)
        if not queue:
            if not loaded:
                self._became_idle(lease)
            return
        if loaded and lease.channel.has_given_back:
            return  # they would wait behind the same task again
        if lease.return_by is not None and self._port.now() >= lease.return_by:
            if not loaded:
                self._return(lease)
                self._ask(sclass)
            return
        first = queue[0]
        window = 1 if first.is_careful else first.call.window
        if loaded > window >> 1:
            return
        share = -(-len(queue) // len(sclass.leases))
        room = min(window - loaded, share)
        while room > 0 and queue:
            record = queue[0]
            if loaded and (record.is_careful or record.call.window <= loaded):
                break
            queue.popleft()
            if self._push(lease.channel, record):
                room -= 1
                loaded += 1
                if record.is_careful:
                    break
        if loaded > 1:
            self._set_timer(STALL_S)
        elif not loaded and not queue:  # all had failed: their arguments had
            self._became_idle(lease)
        if queue and sclass.request is None:
            self._ask(sclass)

    def _became_idle(self, lease: OwnerLease) -> None:
        if lease.return_by is not None:
            self._return(lease)
            return
        lease.idle_since = self._port.now()
        self._take_back_for_idle(lease)
        self._set_timer(IDLE_RETURN_S)

    def _take_back_for_idle(self, idle: OwnerLease) -> None:
        """A worker has nothing to do: relieve the one with the most ahead of it."""
        busiest: Channel | None = None
        for lease in idle.sclass.leases.values():
            channel = lease.channel
            if channel.is_taking_back or len(channel.inflight) < 2:
                continue
            if busiest is None or len(channel.inflight) > len(busiest.inflight):
                busiest = channel
        if busiest is None:
            return
        waiting = len(busiest.inflight)
        head = next(iter(busiest.inflight.values())).call
        if head.took_us < 0 or head.took_us * waiting > 1000:
            busiest.is_taking_back = True
            busiest.link.send(TakeBack(max(1, waiting // 2)))

    # -- asking ------------------------------------------------------------------

    def _ask(self, sclass: SchedulingClass) -> None:
        backlog = min(len(sclass.queue), BACKLOG_TOLD_MAX)
        if sclass.request is None:
            sclass.request = next(self._requests)
            self._by_request[sclass.request] = sclass
        elif backlog < 2 * sclass.asked:
            return
        sclass.asked = backlog
        self._port.send_node(
            RequestLease(
                sclass.request,
                sclass.demand,
                sclass.env,
                backlog,
                sclass.queue[0].call.name,
                sclass.strategy,
                self.depth,
            )
        )

    def _close_request(self, sclass: SchedulingClass) -> None:
        if sclass.request is not None:
            self._by_request.pop(sclass.request, None)
            sclass.request = None
            sclass.asked = 0
            sclass.reason = ""
            sclass.is_delayed = False

    def class_of_request(self, request: int) -> SchedulingClass | None:
        """The class that made a request; None when it was withdrawn."""
        return self._by_request.get(request)

    def withdraw(self, sclass: SchedulingClass) -> None:
        """Nothing waits any more: take an open request back."""
        if sclass.request is not None and not sclass.queue:
            self._port.send_node(CancelLeaseRequest(sclass.request))
            self._close_request(sclass)

    def on_granted(self, message: LeaseGranted) -> None:
        """A worker is ours."""
        sclass = self._by_request.get(message.request)
        if sclass is None:
            self._port.send_node(ReturnLease(message.lease))
            return
        sclass.reason = ""
        sclass.is_delayed = False
        sclass.asked -= 1
        if sclass.asked <= 0:
            self._close_request(sclass)
        channel = self._channel_to(message.address)
        if channel is None:  # the worker died before we reached it
            self._port.send_node(ReturnLease(message.lease, retire=True))
            if sclass.queue:
                self._ask(sclass)
            return
        lease = OwnerLease(message.lease, channel, sclass)
        channel.lease = lease
        sclass.leases[message.lease] = lease
        self.leases[message.lease] = lease
        capture = sclass.strategy
        channel.link.send(
            UseLease(
                message.lease,
                message.demand,
                message.gpu_ids,
                capture[1] if capture and capture[0] == "pg" else b"",
                bool(capture and capture[0] == "pg" and capture[3]),
            )
        )
        self.refill(lease)

    # -- giving back -------------------------------------------------------------

    def _return(self, lease: OwnerLease, *, retire: bool = False) -> None:
        self.forget(lease)
        self._port.send_node(ReturnLease(lease.number, retire))

    def forget(self, lease: OwnerLease) -> None:
        """The lease is over (returned, or its worker died)."""
        self.leases.pop(lease.number, None)
        lease.sclass.leases.pop(lease.number, None)
        if lease.channel.lease is lease:
            lease.channel.lease = None

    def retire(self, lease: OwnerLease) -> None:
        """The worker takes no further task: give it back for good."""
        self._return(lease, retire=True)
        if lease.sclass.queue:
            self._ask(lease.sclass)

    def on_reclaim(self) -> None:
        """Others wait: return idle leases now, busy ones after a quantum."""
        now = self._port.now()
        for lease in list(self.leases.values()):
            if not lease.channel.inflight and not lease.sclass.queue:
                self._return(lease)
            elif lease.return_by is None:
                lease.return_by = now + QUANTUM_S

    def abandon(self) -> None:
        """The session is over: forget what waits for workers, and the workers."""
        for sclass in self._classes.values():
            sclass.queue.clear()
            self._close_request(sclass)
        for lease in list(self.leases.values()):
            lease.channel.inflight.clear()
            self.forget(lease)

    def _set_timer(self, delay: float) -> None:
        if self._timer_delay is None or delay < self._timer_delay:
            self._timer_delay = delay
            self._timer_due = self._port.now() + delay
            self._port.call_at(self._timer_due, self._on_timer)

    def _on_timer(self) -> None:
        now = self._port.now()
        if self._timer_delay is None or now < self._timer_due - 0.001:
            return  # a shorter one took its place
        self._timer_delay = None
        delay: float | None = None
        for lease in list(self.leases.values()):
            channel = lease.channel
            if not channel.inflight:
                if not lease.sclass.queue:
                    left = lease.idle_since + IDLE_RETURN_S - now
                    if left <= 0.001:
                        self._return(lease)
                        continue
                    delay = left if delay is None else min(delay, left)
            elif len(channel.inflight) > 1:
                self._relieve_stalled(channel, now)
                delay = STALL_S if delay is None else min(delay, STALL_S)
        for sclass in self._classes.values():
            if not sclass.queue:
                self.withdraw(sclass)
        if delay is not None:
            self._set_timer(delay)

    def _relieve_stalled(self, channel: Channel, now: float) -> None:
        """The running task takes long: what waits behind it goes elsewhere."""
        if now - channel.last_reply > STALL_S and not channel.is_taking_back:
            channel.is_taking_back = True
            channel.link.send(TakeBack(len(channel.inflight)))

    def describe(self) -> dict[str, Any]:
        """Counts, for people and tests."""
        return {
            "leases": len(self.leases),
            "queued": sum(len(one.queue) for one in self._classes.values()),
        }
