"""Calls to one actor from this process: order, restarts, limits.

Calls leave in the order they were made.  On an ordered actor a call whose arguments
are not there holds up those behind it; an out-of-order actor (async, threaded, or
asked for) takes them as they become ready.  While the actor starts or restarts, calls
wait here.  A call that was sent and not answered when the actor died may have run: it
is sent again only if ``max_task_retries`` allows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from shoal._core.owner.calls import Channel, TaskRecord
from shoal._core.owner.tasks import Tasks
from shoal._core.serial.failures import decode_failure
from shoal._core.wire.control_messages import (
    ALIVE,
    DEAD,
    PENDING,
    RESTARTING,
    ActorUpdate,
)
from shoal.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    ActorUnschedulableError,
    RayTaskError,
    RuntimeEnvSetupError,
    TaskCancelledError,
)


class ActorCalls:
    """The sending end of one actor handle's calls in this process."""

    __slots__ = (
        "_channel_to",
        "_tasks",
        "actor_id",
        "cause",
        "channel",
        "class_name",
        "failure",
        "holds",
        "incarnation",
        "is_killed",
        "init_failed",
        "is_ordered",
        "owner",
        "queue",
        "state",
        "unplaceable",
    )

    def __init__(
        self,
        actor_id: bytes,
        class_name: str,
        *,
        is_ordered: bool,
        tasks: Tasks,
        channel_to: Callable[[str], Channel | None],
    ) -> None:
        self.actor_id = actor_id
        self.class_name = class_name
        self.is_ordered = is_ordered
        self._tasks = tasks
        self._channel_to = channel_to
        self.state = PENDING
        self.incarnation = -1
        self.cause = ""
        self.failure: bytes | None = None
        self.init_failed = False
        self.unplaceable = ""
        self.channel: Channel | None = None
        self.queue: deque[TaskRecord] = deque()
        #: records report here when their arguments have come
        self.owner = tasks
        #: creation arguments, held while the actor may be remade
        self.holds: list[bytes] = []
        #: killed by this process: later calls wait here for the news of its death
        self.is_killed = False

    @property
    def waiting_count(self) -> int:
        """Calls made and not answered."""
        inflight = 0 if self.channel is None else len(self.channel.inflight)
        return len(self.queue) + inflight

    # -- sending -----------------------------------------------------------------

    def append(self, record: TaskRecord) -> None:
        """A new call, in its place (before its arguments are there)."""
        self.queue.append(record)

    def on_resolved(self, record: TaskRecord) -> None:
        """A call's arguments are there (or it was put back to be sent again)."""
        channel = self._open_channel()
        if channel is not None and self.queue and self.queue[0] is record:
            self.queue.popleft()
            self._tasks.push(channel, record)
            if self.queue:
                self.pump()
        else:
            self.pump()

    def on_cancelled(self, record: TaskRecord) -> None:
        """A call that waits here was cancelled."""
        if record in self.queue:
            self.queue.remove(record)
        self.pump()

    def pump(self) -> None:
        """Send what may be sent."""
        if self.state == DEAD:
            while self.queue:
                self._tasks.fail(self.queue.popleft(), self.death())
            return
        channel = self._open_channel()
        if channel is None:
            return
        if self.is_ordered:
            while self.queue and not self.queue[0].missing:
                self._tasks.push(channel, self.queue.popleft())
            return
        waiting = [record for record in self.queue if record.missing]
        ready = [record for record in self.queue if not record.missing]
        self.queue = deque(waiting)
        for record in ready:
            self._tasks.push(channel, record)

    def _open_channel(self) -> Channel | None:
        """Where calls can be sent now; None while they have to wait here."""
        # A process that hung up keeps its channel until its end is judged.
        is_open = self.state == ALIVE and not self.is_killed
        return self.channel if is_open else None

    # -- life --------------------------------------------------------------------

    def on_update(self, update: ActorUpdate) -> None:
        """The control store says how the actor is."""
        if update.incarnation < self.incarnation:
            return
        self.state = update.state
        self.cause = update.cause
        self.failure = update.failure
        self.init_failed = update.init_failed
        self.unplaceable = update.unplaceable
        if update.state == ALIVE:
            if self.channel is None or update.incarnation > self.incarnation:
                self._settle_unanswered()
                self.incarnation = update.incarnation
                self.channel = self._channel_to(update.address)
                if self.channel is not None:
                    self.channel.lease = None
            self.pump()
        elif update.state == DEAD:
            self._settle_unanswered()
            self.channel = None
            self.pump()
            self._tasks._refs.release_all(self.holds)
            self.holds = []
        elif update.state == RESTARTING:
            self._settle_unanswered()
            self.channel = None

    def on_link_lost(self) -> None:
        """The actor's process hung up; the control store will say what it means."""
        if self.channel is not None and self.state == ALIVE:
            self.state = RESTARTING

    def _settle_unanswered(self) -> None:
        """Calls in flight when the actor died: send again, or fail."""
        channel = self.channel
        if channel is None or not channel.inflight:
            return
        records = [
            record for record in channel.inflight.values() if record.actor is self
        ]
        for record in records:
            channel.inflight.pop(record.seq, None)
        again = []
        for record in records:
            self._tasks.free_partial_results(record)
            if record.is_cancelled:
                self._tasks.fail(record, TaskCancelledError(record.task_id.hex()))
            elif self.state != DEAD and record.retries != 0:
                record.retries -= 1
                record.attempt += 1
                record.channel = None
                again.append(record)
            elif self.state == DEAD:
                self._tasks.fail(record, self.death())
            else:
                self._tasks.fail(record, self._unavailable(record))
        self.queue.extendleft(reversed(again))

    def death(self) -> Exception:
        """Why no call can be answered any more."""
        actor_id = self.actor_id.hex()
        if self.failure is not None:
            cause = decode_failure(self.failure)
            if isinstance(cause, RayTaskError):
                return ActorDiedError(cause, actor_id=actor_id)
            return ActorDiedError(f"its constructor failed: {cause}", actor_id=actor_id)
        if self.unplaceable == "unschedulable":
            return ActorUnschedulableError(self.cause)
        if self.unplaceable == "environment":
            return RuntimeEnvSetupError(self.cause)
        text = (
            f"The actor {self.class_name}({actor_id}) is dead: "
            f"{(self.cause or 'its process ended').rstrip('.')}."
        )
        return ActorDiedError(text, actor_id=actor_id)

    def _unavailable(self, record: TaskRecord) -> Exception:
        text = (
            f"{self.cause or 'its process ended'} while the call {record.call.name} "
            "was in flight; set max_task_retries to have such calls sent again"
        )
        return ActorUnavailableError(text, self.actor_id)

    def describe(self) -> dict[str, Any]:
        """State, for people."""
        return {
            "state": self.state,
            "queued": len(self.queue),
            "incarnation": self.incarnation,
        }
