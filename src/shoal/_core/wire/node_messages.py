"""What is said to and by a node daemon.

Requests carry ``request``, a number the asker chose; the answer repeats it.  Demands
are resource amounts in units of 1/10000.
"""

from __future__ import annotations

from typing import Any

import msgspec

from shoal._core.wire.control_messages import ActorSpec
from shoal._core.wire.worker_messages import Message


class Hello(Message, tag=101):
    """First frame of a client (driver or worker) to its node daemon.

    ``info`` of a driver is what its job is: ``facts`` for the API in its processes,
    ``setup`` of its workers, and whether it shows their output (``log_to_driver``).
    """

    version: int
    role: str
    worker_id: bytes
    pid: int
    address: str
    token: bytes = b""
    info: dict[str, Any] = {}


class Welcome(Message, tag=102):
    """The daemon's answer to a driver; the next byte carries the arena's descriptor.

    ``session`` is what the API knows: the facts of its job and of the node.
    """

    node_id: bytes
    job_id: bytes
    arena_bytes: int
    session: dict[str, Any]


class RequestLease(Message, tag=103):
    """Ask for the use of one worker.  ``backlog`` is how many tasks wait for it."""

    request: int
    demand: dict[str, int]
    env: str
    backlog: int
    name: str
    strategy: list[Any] | None = None
    depth: int = 0


class CancelLeaseRequest(Message, tag=104):
    """The asker needs no further worker for this request."""

    request: int


class LeaseGranted(Message, tag=105):
    """The worker at ``address`` is yours until you return it or it dies."""

    request: int
    lease: int
    worker_id: bytes
    address: str
    demand: dict[str, int]
    gpu_ids: list[int]


class LeaseRefused(Message, tag=106):
    """The request can never be served as it stands; ``reason`` is for people."""

    request: int
    kind: str
    reason: str


class ReturnLease(Message, tag=107):
    """The owner is done with a worker; ``retire`` asks that it not be reused."""

    lease: int
    retire: bool = False


class ReclaimLeases(Message, tag=108):
    """Others wait: return the leases you are not using."""


class DemandInfeasible(Message, tag=109):
    """No node has what this request asks; it is kept in case one joins.

    ``request`` is 0 for an actor or a placement group, which its owner asked of the
    control store.
    """

    request: int
    reason: str


class LeaseDelayed(Message, tag=110):
    """Enough workers exist; run awaited children yourself if you can."""

    request: int


class Blocked(Message, tag=111):
    """The worker's task waits in ``get``: its CPUs may be lent out."""

    blocked: bool


class WorkerGone(Message, tag=112):
    """A process of this node ended; ``cause`` says how, for people."""

    worker_id: bytes
    pid: int
    exit_code: int | None
    intended: bool
    cause: str
    oom: bool = False


class ExitQuery(Message, tag=113):
    """Tell me how this worker ended, once you know (answered by WorkerGone)."""

    worker_id: bytes


class CreateObject(Message, tag=114):
    """Reserve room for an object."""

    request: int
    object_id: bytes
    size: int
    owner: str


class ObjectCreated(Message, tag=115):
    """Where to write; ``offset`` is -1 when there is no room (``reason`` says why)."""

    request: int
    offset: int
    reason: str = ""


class SealObject(Message, tag=116):
    """The bytes are written; readers may map them."""

    object_id: bytes


class PinObject(Message, tag=117):
    """I am about to read this object: keep its memory where it is."""

    request: int
    object_id: bytes


class ObjectPinned(Message, tag=118):
    """Where the object lies; ``offset`` is -1 when it is not here."""

    request: int
    offset: int
    size: int


class UnpinObjects(Message, tag=119):
    """I read these no longer."""

    object_ids: list[bytes]


class FreeObjects(Message, tag=120):
    """Their owner needs these no longer."""

    object_ids: list[bytes]


class UseLeaseBody(msgspec.Struct, array_like=True):
    """The resources an actor holds for life."""

    demand: dict[str, int]
    gpu_ids: list[int]
    placement_group: bytes = b""
    capture_children: bool = False


class StartActor(Message, tag=121):
    """Daemon to worker: become this actor."""

    spec: ActorSpec
    lease: UseLeaseBody
    incarnation: int


class ActorStarted(Message, tag=122):
    """Worker to daemon: the constructor returned, or ``failure`` took its place."""

    actor_id: bytes
    failure: bytes | None = None


class ExitWorker(Message, tag=123):
    """Daemon to worker: end now (``graceful``: after what is queued)."""

    graceful: bool
    reason: str


class WorkerExiting(Message, tag=124):
    """Worker to daemon: I am about to end on purpose."""

    reason: str
    intended: bool


class RetireRefused(Message, tag=125):
    """Worker to daemon: objects I own are still held; I stay."""


class LogLines(Message, tag=126):
    """Output of a worker: (name, pid, is standard error, line, ends with CR)."""

    lines: list[tuple[str, int, bool, str, bool]]


class CollectEvents(Message, tag=127):
    """Send me the records of tasks that ran in your process."""

    request: int


class EventsCollected(Message, tag=128):
    """Answer to CollectEvents: (name, task id, start s, duration s, arguments)."""

    request: int
    events: list[tuple[str, bytes, float, float, dict[str, str]]]


class NodeQuery(Message, tag=129):
    """Ask for a view of the node or the control store (resources, nodes, …)."""

    request: int
    what: str
    argument: Any = None


class NodeReply(Message, tag=130):
    """Answer to NodeQuery."""

    request: int
    result: Any


class ShutdownSession(Message, tag=131):
    """The driver leaves: end all that belongs to it, and hang up when that is done.

    From the driver that started the session: end the session.
    """

    reason: str


class SetupEnvironment(Message, tag=132):
    """A client describes a runtime environment it will ask workers for by key."""

    key: str
    env: dict[str, Any]


class KillWorker(Message, tag=133):
    """End a leased worker at once (``cancel`` with force)."""

    lease: int


class MetricSeries(msgspec.Struct):
    """One combination of tag values of a metric.  ``value`` is a counter's count, a
    gauge's level or a histogram's sum; only the last has ``bucket_counts``.
    """

    labels: list[tuple[str, str]]
    value: float
    bucket_counts: list[int]


class MetricFamily(msgspec.Struct):
    """A metric with all its series; its kind is counter, gauge or histogram."""

    name: str
    kind: str
    description: str
    boundaries: list[float]
    series: list[MetricSeries]


class MetricsReport(Message, tag=134):
    """Answer to CollectMetrics, and last words (``request`` 0) of a process that ends.

    All that it recorded since it began; ``component``: driver, worker or actor.
    """

    request: int
    component: str
    pid: int
    families: list[MetricFamily]


class EnvironmentFailed(Message, tag=135):
    """Worker to daemon: the runtime environment could not be made."""

    key: str
    reason: str


class CollectMetrics(Message, tag=136):
    """Send me what the metrics of your process have recorded."""

    request: int


NODE_MESSAGES = (
    Hello
    | Welcome
    | RequestLease
    | CancelLeaseRequest
    | LeaseGranted
    | LeaseRefused
    | ReturnLease
    | ReclaimLeases
    | DemandInfeasible
    | LeaseDelayed
    | Blocked
    | WorkerGone
    | ExitQuery
    | CreateObject
    | ObjectCreated
    | SealObject
    | PinObject
    | ObjectPinned
    | UnpinObjects
    | FreeObjects
    | StartActor
    | ActorStarted
    | ExitWorker
    | WorkerExiting
    | RetireRefused
    | LogLines
    | CollectEvents
    | EventsCollected
    | NodeQuery
    | NodeReply
    | ShutdownSession
    | SetupEnvironment
    | KillWorker
    | MetricsReport
    | EnvironmentFailed
    | CollectMetrics
)
