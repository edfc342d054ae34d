"""Actors of the cluster: registration, names, placement, restart, death.

::

    PENDING_CREATION --started--> ALIVE --process ended--> RESTARTING --started--> ALIVE
          |                         |                          |
          +---- constructor raised, killed, out of scope, no restarts left ----> DEAD

Every actor carries an *incarnation*, counted from 0 with each start, so that news of an
old process is told from news of the present one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from shoal._core.wire.control_messages import (
    ALIVE,
    DEAD,
    PENDING,
    RESTARTING,
    ActorRegistered,
    ActorSpec,
    ActorUpdate,
    CreateActor,
    KillActor,
    LookupActor,
)
from shoal._core.wire.node_messages import DemandInfeasible

#: Dead actors kept for people to look at; the oldest go first.
DEAD_KEPT_MAX = 10_000
#: How long the news of an actor's creation may be behind its first handle.
REGISTRATION_GRACE_S = 1.0


class ActorPort(Protocol):
    """What the table asks of its surroundings."""

    def send(self, client: bytes, message: object) -> None:
        """Send to a process."""

    def place(self, spec: ActorSpec, incarnation: int) -> None:
        """Find a node and a worker for an actor."""

    def unplace(self, actor_id: bytes) -> None:
        """An actor that waits for a worker needs none any more."""

    def end_worker(self, worker_id: bytes, *, graceful: bool, reason: str) -> None:
        """End the process of an actor."""

    def actor_over(self, actor_id: bytes) -> None:
        """An actor is dead for good."""

    def now(self) -> float:
        """Monotonic seconds."""

    def call_at(self, when: float, action: Callable[[], None]) -> None:
        """Run ``action`` at about ``when``."""


class ActorRow:
    """One actor."""

    __slots__ = (
        "cause",
        "failure",
        "incarnation",
        "init_failed",
        "is_ending",
        "restarts",
        "spec",
        "state",
        "unplaceable",
        "waits_for",
        "watchers",
        "worker_id",
    )

    def __init__(self, spec: ActorSpec) -> None:
        self.spec = spec
        self.state = PENDING
        self.incarnation = 0
        self.restarts = 0
        self.worker_id = b""
        self.cause = ""
        self.failure: bytes | None = None
        self.init_failed = False
        #: the kind of refusal, when no node can ever hold it
        self.unplaceable = ""
        #: why no node there is can hold it, for people; empty while one can
        self.waits_for = ""
        #: no restart, whatever ends it
        self.is_ending = False
        self.watchers: dict[bytes, None] = {}

    def update(self) -> ActorUpdate:
        """Its state as a message."""
        return ActorUpdate(
            self.spec.actor_id,
            self.state,
            self.worker_id.hex(),
            self.incarnation,
            self.cause or self.waits_for,
            self.failure,
            self.init_failed,
            self.unplaceable,
        )


class ControlActors:
    """The table of actors and their names."""

    def __init__(self, port: ActorPort) -> None:
        self._port = port
        self.rows: dict[bytes, ActorRow] = {}
        self._names: dict[tuple[str, str], bytes] = {}
        self._by_worker: dict[bytes, bytes] = {}
        self._dead: dict[bytes, None] = {}
        #: actors asked about before they were registered -> who asked
        self._early: dict[bytes, dict[bytes, None]] = {}

    # -- registration ------------------------------------------------------------

    def on_create(self, client: bytes, message: CreateActor) -> None:
        """A process wants an actor."""
        spec = message.spec
        key = (spec.namespace, spec.name)
        if spec.name and key in self._names:
            existing = self.rows[self._names[key]]
            if message.get_if_exists:
                reply = ActorRegistered(message.request, existing.spec)
            else:
                where = f"namespace '{spec.namespace}'"
                reply = ActorRegistered(
                    message.request,
                    None,
                    f"The name '{spec.name}' is taken by a living actor in {where}. "
                    "Choose another name, or pass get_if_exists=True.",
                )
            self._port.send(client, reply)
            return
        row = self.rows[spec.actor_id] = ActorRow(spec)
        for watcher in self._early.pop(spec.actor_id, ()):
            row.watchers[watcher] = None
            self._port.send(watcher, row.update())
        if spec.name:
            self._names[key] = spec.actor_id
        self._port.send(client, ActorRegistered(message.request, spec))
        self._port.place(spec, 0)
        row.watchers[client] = None

    def on_lookup(self, client: bytes, message: LookupActor) -> None:
        """A process looks for a named actor."""
        actor_id = self._names.get((message.namespace, message.name))
        spec = self.rows[actor_id].spec if actor_id is not None else None
        error = ""
        if spec is None:
            error = (
                f"Failed to look up actor with name '{message.name}'. No living actor "
                f"of that name is in namespace '{message.namespace}'."
            )
        self._port.send(client, ActorRegistered(message.request, spec, error))

    def named(self, namespace: str | None) -> list[tuple[str, str]]:
        """(namespace, name) of every living named actor, of one namespace or all."""
        return [key for key in self._names if namespace is None or key[0] == namespace]

    def on_watch(self, client: bytes, actor_id: bytes) -> None:
        """A process wants to know how an actor is, now and from now on."""
        row = self.rows.get(actor_id)
        if row is None:
            # A handle may travel faster than the news of its actor's creation.
            self._early.setdefault(actor_id, {})[client] = None
            self._port.call_at(
                self._port.now() + REGISTRATION_GRACE_S,
                lambda: self._give_up_on(actor_id),
            )
            return
        row.watchers[client] = None
        self._port.send(client, row.update())

    def _give_up_on(self, actor_id: bytes) -> None:
        cause = "it is not on record (its session ended, or it died long ago)"
        for client in self._early.pop(actor_id, ()):
            self._port.send(client, ActorUpdate(actor_id, DEAD, "", 1 << 30, cause))

    # -- life --------------------------------------------------------------------

    def on_placed(self, actor_id: bytes, worker_id: bytes) -> bool:
        """A worker was chosen; False when the actor needs none any more."""
        row = self.rows.get(actor_id)
        if row is None or row.state == DEAD:
            return False
        row.worker_id = worker_id
        row.waits_for = ""
        self._by_worker[worker_id] = actor_id
        return True

    def on_started(
        self, actor_id: bytes, worker_id: bytes, failure: bytes | None
    ) -> None:
        """The constructor returned or raised."""
        row = self.rows.get(actor_id)
        if row is None or row.worker_id != worker_id or row.state == DEAD:
            return
        if failure is not None:
            row.failure = failure
            row.init_failed = True
            row.is_ending = True
            self._die(row, "its constructor raised an exception")
            self._port.end_worker(worker_id, graceful=True, reason=row.cause)
            return
        row.state = ALIVE
        self._tell(row)

    def on_waiting(self, actor_id: bytes, reason: str) -> None:
        """No node there is can hold the actor; it waits for one that joins."""
        row = self.rows.get(actor_id)
        if row is not None and row.state != DEAD:
            row.waits_for = reason
            owner = bytes.fromhex(row.spec.owner)
            self._port.send(owner, DemandInfeasible(0, reason))
            self._tell(row)

    def on_unplaceable(self, actor_id: bytes, reason: str, kind: str) -> None:
        """The actor can never be placed."""
        row = self.rows.get(actor_id)
        if row is not None and row.state != DEAD:
            row.unplaceable = kind
            self._die(row, reason)

    def on_worker_gone(self, worker_id: bytes, cause: str, *, intended: bool) -> None:
        """A process ended; if it was an actor's, restart the actor or bury it."""
        actor_id = self._by_worker.pop(worker_id, None)
        row = self.rows.get(actor_id) if actor_id is not None else None
        if row is None or row.worker_id != worker_id or row.state == DEAD:
            return
        if not row.cause:
            row.cause = cause
        left = row.spec.max_restarts
        if row.is_ending or intended or (left >= 0 and row.restarts >= left):
            self._die(row, row.cause)
            return
        row.restarts += 1
        row.incarnation += 1
        row.state = RESTARTING
        self._tell(row)
        row.cause = ""
        self._port.place(row.spec, row.incarnation)

    def on_kill(self, message: KillActor) -> None:
        """``kill``: end the process at once."""
        row = self.rows.get(message.actor_id)
        if row is None or row.state == DEAD:
            return
        row.is_ending = row.is_ending or message.no_restart
        self._end(row, message.reason, graceful=False)

    def on_out_of_scope(self, actor_id: bytes) -> None:
        """No handle is left."""
        row = self.rows.get(actor_id)
        if row is None or row.state == DEAD or row.spec.detached:
            return
        row.is_ending = True
        self._end(row, "all handles to it went out of scope", graceful=True)

    def on_owner_gone(self, owner: str, cause: str) -> None:
        """The process that made actors ended: its actors end, unless detached."""
        for row in list(self.rows.values()):
            spec = row.spec
            if spec.owner == owner and not spec.detached and row.state != DEAD:
                row.is_ending = True
                self._end(row, f"the process that owns it ended ({cause})")

    def has_living(self, job_id: bytes) -> bool:
        """Whether an actor of a job lives, or will."""
        return any(
            row.spec.job_id == job_id and row.state != DEAD
            for row in self.rows.values()
        )

    def on_client_gone(self, client: bytes) -> None:
        """A process ended: tell it nothing more."""
        for row in self.rows.values():
            row.watchers.pop(client, None)

    def _end(self, row: ActorRow, cause: str, *, graceful: bool = False) -> None:
        row.cause = cause
        if not row.worker_id or row.worker_id not in self._by_worker:
            self._port.unplace(row.spec.actor_id)
            self._die(row, cause)
            return
        self._port.end_worker(row.worker_id, graceful=graceful, reason=cause)

    def _die(self, row: ActorRow, cause: str) -> None:
        row.state = DEAD
        row.cause = cause
        key = (row.spec.namespace, row.spec.name)
        if self._names.get(key) == row.spec.actor_id:
            del self._names[key]
        self._dead[row.spec.actor_id] = None
        if len(self._dead) > DEAD_KEPT_MAX:
            oldest = next(iter(self._dead))
            del self._dead[oldest], self.rows[oldest]
        self._tell(row)
        self._port.actor_over(row.spec.actor_id)

    def _tell(self, row: ActorRow) -> None:
        update = row.update()
        for client in row.watchers:
            self._port.send(client, update)

    # -- views -------------------------------------------------------------------

    def describe(self) -> list[dict[str, Any]]:
        """Every actor on record, for the state API."""
        return [
            {
                "actor_id": row.spec.actor_id.hex(),
                "class_name": row.spec.class_name,
                "state": row.state,
                "name": row.spec.name,
                "namespace": row.spec.namespace,
                "worker_id": row.worker_id.hex(),
                "num_restarts": row.restarts,
                "death_cause": row.cause,
                "is_detached": row.spec.detached,
            }
            for row in self.rows.values()
        ]

    def check(self) -> None:
        """Assert what must always hold."""
        for key, actor_id in self._names.items():
            row = self.rows[actor_id]
            assert (row.spec.namespace, row.spec.name) == key
            assert row.state != DEAD
