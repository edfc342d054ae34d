"""The node's end of leases: requests wait in line, grants follow the resources.

Requests take turns: a request that was granted a worker goes to the end of the line,
so that several owners, and several kinds of task of one owner, share the node.  While
a request waits, owners are asked to return leases they do not use (``ReclaimLeases``).
"""

from __future__ import annotations

from typing import Any

from shoal._core.base.resources import Allocation, ResourceSet
from shoal._core.node.worker_pool import WorkerKind
from shoal._core.wire.control_messages import ActorSpec


class LeaseRequest:
    """One owner's standing request for workers of one kind."""

    __slots__ = (
        "actor",
        "asked_at",
        "client",
        "demand",
        "env",
        "granted",
        "incarnation",
        "is_delayed",
        "is_told",
        "job",
        "name",
        "number",
        "placement",
        "strategy",
        "wanted",
    )

    def __init__(
        self,
        client: bytes,
        job: bytes,
        number: int,
        demand: ResourceSet,
        env: str,
        wanted: int,
        name: str,
        asked_at: float,
        strategy: list[Any] | None = None,
    ) -> None:
        self.client = client
        self.job = job
        self.number = number
        self.demand = demand
        #: what must be free to be placed (actors: more than they hold)
        self.placement = demand
        self.env = env
        self.wanted = wanted
        self.granted = 0
        self.name = name
        self.asked_at = asked_at
        self.strategy = strategy
        #: the actor it is for; None for tasks
        self.actor: ActorSpec | None = None
        self.incarnation = 0
        #: the owner knows that it cannot be served now
        self.is_told = False
        #: the owner was asked to run what it waits for itself, if it can
        self.is_delayed = False

    @property
    def kind(self) -> WorkerKind:
        """The kind of worker that it asks for."""
        return self.job, self.env

    @property
    def key(self) -> tuple[bytes, int]:
        """What names the request."""
        return self.client, self.number


class NodeLease:
    """A worker given to an owner."""

    __slots__ = ("allocation", "client", "is_reclaimed", "number", "pool", "worker_id")

    def __init__(
        self,
        number: int,
        client: bytes,
        worker_id: bytes,
        allocation: Allocation,
        pool: Any,
    ) -> None:
        self.number = number
        self.client = client
        self.worker_id = worker_id
        self.allocation = allocation
        #: where the resources came from: the node, or a placement group's bundle
        self.pool = pool
        self.is_reclaimed = False


class LeaseLine:
    """Requests in the order in which they take turns."""

    def __init__(self) -> None:
        self._requests: dict[tuple[bytes, int], LeaseRequest] = {}

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Any:
        return iter(list(self._requests.values()))

    def put(self, request: LeaseRequest) -> LeaseRequest:
        """Enter a request, or change how many workers a standing one wants."""
        standing = self._requests.get(request.key)
        if standing is not None:
            standing.wanted = max(standing.wanted, standing.granted + request.wanted)
            return standing
        self._requests[request.key] = request
        return request

    def drop(self, key: tuple[bytes, int]) -> LeaseRequest | None:
        """Withdraw a request."""
        return self._requests.pop(key, None)

    def took_turn(self, request: LeaseRequest) -> None:
        """A request was granted a worker: it goes to the end, or is done."""
        request.granted += 1
        del self._requests[request.key]
        if request.granted < request.wanted:
            self._requests[request.key] = request

    def drop_client(self, client: bytes) -> None:
        """A process ended: its requests go."""
        for key in [key for key in self._requests if key[0] == client]:
            del self._requests[key]

    def drop_actor(self, actor_id: bytes) -> bool:
        """An actor needs no worker any more."""
        for key, request in list(self._requests.items()):
            if request.actor is not None and request.actor.actor_id == actor_id:
                del self._requests[key]
                return True
        return False
