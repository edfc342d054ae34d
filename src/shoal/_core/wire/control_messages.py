"""What is said to and by the control store.

On one machine the store runs inside the daemon's process and these travel over the
same connection as the node's messages; in a cluster the daemon passes them on.
"""

from __future__ import annotations

from shoal._core.wire.worker_messages import Message

#: Life of an actor (control/actors.py draws the table).
PENDING, ALIVE, RESTARTING, DEAD = "PENDING_CREATION", "ALIVE", "RESTARTING", "DEAD"


class ActorSpec(Message, tag=201):
    """Everything needed to make, find and remake an actor."""

    actor_id: bytes
    owner: str
    class_name: str
    class_key: bytes
    pickled_class: bytes
    args: bytes
    deps: list[tuple[int | str, bytes, str]]
    placement_demand: dict[str, int]
    running_demand: dict[str, int]
    env: str = ""
    name: str = ""
    namespace: str = ""
    detached: bool = False
    max_restarts: int = 0
    max_task_retries: int = 0
    max_concurrency: int = 1
    concurrency_groups: dict[str, int] = {}
    is_async: bool = False
    out_of_order: bool = False
    max_pending_calls: int = -1
    methods: dict[str, list[object]] = {}
    strategy: list[object] | None = None
    placement_group: bytes = b""
    capture_children: bool = False
    job_id: bytes = b""
    backpressure: int = -1


class CreateActor(Message, tag=202):
    """Register an actor and start it; answered by ActorRegistered."""

    request: int
    spec: ActorSpec
    get_if_exists: bool = False


class ActorRegistered(Message, tag=203):
    """The actor is on record (or an existing one of that name, or a refusal)."""

    request: int
    spec: ActorSpec | None
    error: str = ""


class WatchActor(Message, tag=204):
    """Tell me the state of this actor now and at each change."""

    actor_id: bytes


class ActorUpdate(Message, tag=205):
    """State of an actor.  ``incarnation`` counts its restarts.

    ``unplaceable`` is the kind of refusal (as in LeaseRefused) of an actor that is dead
    because no worker could be had for it.
    """

    actor_id: bytes
    state: str
    address: str
    incarnation: int
    cause: str = ""
    failure: bytes | None = None
    init_failed: bool = False
    unplaceable: str = ""


class KillActor(Message, tag=206):
    """End an actor at once."""

    actor_id: bytes
    no_restart: bool
    reason: str


class ActorOutOfScope(Message, tag=207):
    """No handle is left anywhere: let the actor end when it is done."""

    actor_id: bytes


class LookupActor(Message, tag=208):
    """Find a named actor; answered by ActorRegistered."""

    request: int
    name: str
    namespace: str


class PutFunctions(Message, tag=209):
    """Record exported functions: (key, pickled)."""

    functions: list[tuple[bytes, bytes]]


CONTROL_MESSAGES = (
    ActorSpec
    | CreateActor
    | ActorRegistered
    | WatchActor
    | ActorUpdate
    | KillActor
    | ActorOutOfScope
    | LookupActor
    | PutFunctions
)
