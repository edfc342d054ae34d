"""The node daemon's decisions as one machine: who runs where, and what lives here.

Messages of clients (drivers and workers) and events of processes come in; answers,
grants, starts and kills go out through the port.  On one machine the control store's
tables live beside it and are called directly with the same messages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from shoal._core.base.resources import ResourcePool, ResourceSet
from shoal._core.node.bundles import Bundle, NodeBundles
from shoal._core.node.destinations import GROUP_REMOVED, Destinations, removed_text
from shoal._core.node.leases import LeaseLine, LeaseRequest, NodeLease
from shoal._core.node.local_objects import LocalObjects
from shoal._core.node.port import NodePort
from shoal._core.node.worker_pool import (
    ACTOR,
    EXITING,
    IDLE,
    LEASED,
    STARTING,
    PoolWorker,
    WorkerKind,
    WorkerPool,
)
from shoal._core.wire.control_messages import ActorSpec
from shoal._core.wire.group_messages import (
    BundlesCommitted,
    BundlesPrepared,
    CommitBundles,
    EndBundles,
    PrepareBundles,
    ReturnBundles,
)
from shoal._core.wire.node_messages import (
    Blocked,
    CancelLeaseRequest,
    CreateObject,
    DemandInfeasible,
    EnvironmentFailed,
    ExitQuery,
    ExitWorker,
    FreeObjects,
    KillWorker,
    LeaseDelayed,
    LeaseGranted,
    LeaseRefused,
    PinObject,
    ReclaimLeases,
    RequestLease,
    RetireRefused,
    ReturnLease,
    SealObject,
    SetupEnvironment,
    StartActor,
    UnpinObjects,
    UseLeaseBody,
    WorkerExiting,
    WorkerGone,
)

#: Idle workers beyond the number of CPUs are ended after this long.
IDLE_RETIRE_S = 2.0
#: How long a request is held back once many workers wait in ``get``.
DELAY_S = 0.25
#: Ends of workers kept for those who ask later.
GONE_KEPT_MAX = 1000
ACTOR_CLIENT = b""


class NodeMachine:
    """Local scheduler, worker pool and object store of one node."""

    def __init__(
        self,
        port: NodePort,
        resources: ResourceSet,
        arena_bytes: int,
        node_id: bytes = b"",
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self._port = port
        self.pool = ResourcePool(resources)
        self.bundles = NodeBundles(self.pool)
        self.destinations = Destinations(
            self.pool, self.bundles, node_id, labels or {}, port.is_group_gone
        )
        self.workers = WorkerPool()
        self.objects = LocalObjects(port, arena_bytes)
        self.line = LeaseLine()
        self.leases: dict[int, NodeLease] = {}
        #: the job of each driver that is here
        self.drivers: dict[bytes, bytes] = {}
        self.environments: dict[str, dict[str, Any]] = {"": {}}
        self.gone: dict[bytes, WorkerGone] = {}
        self._lease_numbers = count(1)
        self._actor_requests = count(1)
        cpus = resources.amount_of("CPU")
        self.cpu_count = max(1, int(cpus))
        #: workers whose task waits in get; beyond the maximum new ones start slowly
        self.blocked_count = 0
        self._blocked_max = max(8, 4 * self.cpu_count)
        self._handlers: dict[type, Callable[[bytes, Any], None]] = {
            RequestLease: self._on_request_lease,
            CancelLeaseRequest: self._on_cancel_request,
            ReturnLease: self._on_return_lease,
            Blocked: self._on_blocked,
            KillWorker: self._on_kill_worker,
            ExitQuery: self._on_exit_query,
            WorkerExiting: self._on_exiting,
            RetireRefused: self._on_retire_refused,
            SetupEnvironment: self._on_setup_environment,
            EnvironmentFailed: self._on_environment_failed,
            CreateObject: self.objects.on_create,
            SealObject: self._on_seal,
            PinObject: self.objects.on_pin,
            UnpinObjects: self._on_unpin,
            FreeObjects: self._on_free,
        }

    def on_message(self, client: bytes, message: Any) -> bool:
        """A client's message; False when it is not for the node."""
        handler = self._handlers.get(type(message))
        if handler is None:
            return False
        handler(client, message)
        return True

    # -- drivers -----------------------------------------------------------------

    def on_driver_joined(self, driver: bytes, job: bytes) -> None:
        """A driver said hello."""
        self.drivers[driver] = job

    def prestart(self, job: bytes, number: int) -> None:
        """Fork workers that the driver will want soon."""
        for _ in range(number):
            self.start_worker((job, ""))

    def on_driver_gone(self, driver: bytes, pid: int, cause: str) -> None:
        """A driver left: what it leased ends, and what waits for its job."""
        job = self.drivers.pop(driver)
        for worker in self.workers.unused_of(job):
            self.workers.retire(worker)
            worker.exit_cause = "its job is over"
            worker.exit_intended = True
            self._port.kill(worker.pid)
        self._client_gone(WorkerGone(driver, pid, None, True, cause))

    def _job_of(self, client: bytes) -> bytes | None:
        worker = self.workers.workers.get(client)
        return self.drivers.get(client) if worker is None else worker.job

    # -- leases ------------------------------------------------------------------

    def _on_request_lease(self, client: bytes, message: RequestLease) -> None:
        job = self._job_of(client)
        if job is None:  # it is leaving
            return
        request = LeaseRequest(
            client,
            job,
            message.request,
            ResourceSet.from_units(message.demand),
            message.env,
            message.backlog,
            message.name,
            self._port.now(),
            message.strategy,
        )
        standing = self.line.put(request)
        if not self._tell_if_infeasible(standing):
            self.schedule()

    def _tell_if_infeasible(self, request: LeaseRequest) -> bool:
        """Refuse what can never be served; say once why something waits for long."""
        destination = self.destinations.of(request)
        if destination.refusal:
            self.line.drop(request.key)
            self._refuse(request, destination.refusal, destination.reason)
            return True
        if destination.pool is not None or not destination.reason:
            return False
        if not request.is_told:
            request.is_told = True
            if request.actor is not None:
                self._port.actor_waits(request.actor.actor_id, destination.reason)
            else:
                told = DemandInfeasible(request.number, destination.reason)
                self._port.send(request.client, told)
        return True

    def _refuse(self, request: LeaseRequest, kind: str, reason: str) -> None:
        if request.actor is not None:
            self._port.actor_unplaceable(request.actor.actor_id, reason, kind)
        else:
            self._port.send(request.client, LeaseRefused(request.number, kind, reason))

    def _on_cancel_request(self, client: bytes, message: CancelLeaseRequest) -> None:
        self.line.drop((client, message.request))

    def _on_return_lease(self, client: bytes, message: ReturnLease) -> None:
        lease = self.leases.get(message.lease)
        if lease is None or lease.client != client:
            return
        worker = self.workers.workers.get(lease.worker_id)
        self._end_lease(lease)
        if worker is not None and worker.state == LEASED:
            if message.retire:
                self._ask_to_exit(worker, "it has run its last task")
            elif worker.exit_cause:  # it is being killed
                self.workers.retire(worker)
            else:
                self.workers.became_idle(worker, self._port.now())
        self.schedule()

    def _end_lease(self, lease: NodeLease) -> None:
        del self.leases[lease.number]
        lease.pool.release(lease.allocation)
        worker = self.workers.workers.get(lease.worker_id)
        if worker is not None and worker.is_blocked:
            # Its word that it waits no longer is behind its owner's return.
            worker.is_blocked = False
            self.blocked_count -= 1
        self.bundles.settle()

    def schedule(self) -> None:
        """Grant what can be granted; start workers for what could be."""
        # Placement groups come first: single leases would never leave them room.
        waits = self._port.offer_room()
        starts: dict[WorkerKind, int] = {}
        for request in self.line:
            pool = self.destinations.of(request).pool
            if pool is None:
                continue
            while request.granted < request.wanted:
                if not pool.fits_now(request.placement):
                    waits = True
                    break
                worker = self.workers.take_idle(request.kind)
                if worker is None:
                    if not self._delays(request):
                        missing = _count_fitting(pool, request)
                        starts[request.kind] = starts.get(request.kind, 0) + missing
                    waits = True
                    break
                self._grant(request, worker, pool)
        self._start_workers(starts)
        if waits:
            self._reclaim()

    def _delays(self, request: LeaseRequest) -> bool:
        """Whether to hold back a new process: many wait in ``get`` already.

        A deep recursion would otherwise take a process for each level.  The owner is
        told, and a task that waits for its own child runs it on its own stack.  After
        a while the process is started all the same: not everyone who waits can help.
        """
        if request.actor is not None or self.blocked_count < self._blocked_max:
            return False
        now = self._port.now()
        if not request.is_delayed:
            request.is_delayed = True
            request.asked_at = now
            self._port.send(request.client, LeaseDelayed(request.number))
            self._port.call_at(now + DELAY_S, self.schedule)
        return now < request.asked_at + DELAY_S

    def _start_workers(self, starts: dict[WorkerKind, int]) -> None:
        """Start as many workers as resources would let run, a few at a time."""
        for kind, wanted in starts.items():
            starting = self.workers.starting_count()
            room = max(2, 2 * self.cpu_count) - starting
            fresh = min(wanted - self.workers.starting_count(kind), room)
            for _ in range(fresh):
                self.start_worker(kind)

    def start_worker(self, kind: WorkerKind) -> None:
        """Fork a worker for an environment of a job."""
        worker_id = self._port.new_id()
        worker = self.workers.add(worker_id, kind, self._port.now())
        self._port.start_worker(worker_id, self.environments[worker.env])

    def _grant(
        self, request: LeaseRequest, worker: PoolWorker, pool: ResourcePool
    ) -> None:
        allocation = pool.acquire(request.demand)
        assert allocation is not None, "placement covers demand"
        self.line.took_turn(request)
        lease = NodeLease(
            next(self._lease_numbers),
            request.client,
            worker.worker_id,
            allocation,
            pool,
        )
        self.leases[lease.number] = lease
        worker.lease = lease
        worker.allocation = allocation
        if request.actor is not None:
            self._start_actor(request, worker, lease)
            return
        worker.state = LEASED
        self._port.send(
            request.client,
            LeaseGranted(
                request.number,
                lease.number,
                worker.worker_id,
                worker.address,
                request.demand.to_units(),
                allocation.gpu_ids,
            ),
        )

    def _reclaim(self) -> None:
        """Others wait: ask every holder once to return what it does not use."""
        told: dict[bytes, None] = {}
        for lease in self.leases.values():
            if not lease.is_reclaimed and lease.client != ACTOR_CLIENT:
                lease.is_reclaimed = True
                told[lease.client] = None
        for client in told:
            self._port.send(client, ReclaimLeases())

    def _on_blocked(self, client: bytes, message: Blocked) -> None:
        worker = self.workers.workers.get(client)
        if worker is None or worker.lease is None:
            return
        if message.blocked == worker.is_blocked:
            return
        worker.is_blocked = message.blocked
        self.blocked_count += 1 if message.blocked else -1
        lease: NodeLease = worker.lease
        if message.blocked:
            lease.pool.pause(lease.allocation)
            self.schedule()
        else:
            lease.pool.resume(lease.allocation)

    def _on_kill_worker(self, client: bytes, message: KillWorker) -> None:
        lease = self.leases.get(message.lease)
        if lease is not None and lease.client == client:
            worker = self.workers.workers[lease.worker_id]
            worker.exit_cause = "was killed to cancel its task"
            self._port.kill(worker.pid)

    # -- placement groups --------------------------------------------------------

    def on_prepare_bundles(self, message: PrepareBundles) -> BundlesPrepared:
        """The control store wants resources taken aside for a group."""
        bundles = [
            (index, ResourceSet.from_units(units)) for index, units in message.bundles
        ]
        ok = self.bundles.prepare(message.group_id, message.attempt, bundles)
        return BundlesPrepared(message.group_id, message.attempt, ok)

    def on_commit_bundles(self, message: CommitBundles) -> BundlesCommitted:
        """They are a group's from now on: leases may draw on them."""
        self.bundles.commit(message.group_id, message.attempt)
        return BundlesCommitted(message.group_id, message.attempt)

    def on_return_bundles(self, message: ReturnBundles) -> None:
        """The attempt failed elsewhere."""
        self._end_leases(self.bundles.give_back(message.group_id, message.attempt))

    def on_end_bundles(self, message: EndBundles) -> None:
        """The group is removed: what runs in it ends, what waits for it fails."""
        group_id = message.group_id
        self._end_leases(self.bundles.give_back(group_id))
        for request in self.line:
            strategy = request.strategy
            if strategy is not None and strategy[:2] == ["pg", group_id]:
                self.line.drop(request.key)
                self._refuse(request, GROUP_REMOVED, removed_text(group_id))

    def _end_leases(self, bundles: list[Bundle]) -> None:
        pools = [bundle.pool for bundle in bundles]
        for lease in self.leases.values():
            if any(lease.pool is pool for pool in pools):
                worker = self.workers.workers[lease.worker_id]
                worker.exit_cause = "was ended because its placement group was removed"
                worker.exit_intended = True
                self._port.kill(worker.pid)

    # -- environments ------------------------------------------------------------

    def _on_setup_environment(self, _: bytes, message: SetupEnvironment) -> None:
        self.environments[message.key] = message.env

    def _on_environment_failed(self, client: bytes, message: EnvironmentFailed) -> None:
        worker = self.workers.workers.get(client)
        if worker is not None:
            self.workers.retire(worker)
        for request in self.line:
            if request.env == message.key:
                self.line.drop(request.key)
                self._refuse(request, "environment", message.reason)

    # -- actors ------------------------------------------------------------------

    def place_actor(self, spec: ActorSpec, incarnation: int) -> None:
        """Find a worker for an actor."""
        request = LeaseRequest(
            ACTOR_CLIENT,
            spec.job_id,
            next(self._actor_requests),
            ResourceSet.from_units(spec.running_demand),
            spec.env,
            1,
            spec.class_name,
            self._port.now(),
            spec.strategy,
        )
        request.placement = ResourceSet.from_units(spec.placement_demand)
        request.actor = spec
        request.incarnation = incarnation
        self.line.put(request)
        if not self._tell_if_infeasible(request):
            self.schedule()

    def unplace_actor(self, actor_id: bytes) -> None:
        """An actor that waits for a worker needs none any more."""
        self.line.drop_actor(actor_id)

    def _start_actor(
        self, request: LeaseRequest, worker: PoolWorker, lease: NodeLease
    ) -> None:
        spec = request.actor
        assert spec is not None
        worker.state = ACTOR
        if not self._port.actor_placed(spec.actor_id, worker.worker_id):
            self._end_lease(lease)
            self.workers.became_idle(worker, self._port.now())
            return
        self._port.send(
            worker.worker_id,
            StartActor(
                spec,
                UseLeaseBody(
                    request.demand.to_units(),
                    lease.allocation.gpu_ids,
                    spec.placement_group,
                    spec.capture_children,
                ),
                request.incarnation,
            ),
        )

    # -- processes ---------------------------------------------------------------

    def on_worker_ready(self, worker_id: bytes, pid: int) -> bool:
        """A forked worker said hello; False when nobody expects it."""
        worker = self.workers.workers.get(worker_id)
        if worker is None or worker.state != STARTING:
            return False
        worker.pid = pid
        self.workers.became_idle(worker, self._port.now())
        self.schedule()
        return True

    def on_worker_forked(self, worker_id: bytes, pid: int) -> None:
        """The fork server says which process a worker is."""
        worker = self.workers.workers.get(worker_id)
        if worker is not None:
            worker.pid = pid

    def end_worker(self, worker_id: bytes, *, graceful: bool, reason: str) -> None:
        """End an actor's process (or a worker's)."""
        worker = self.workers.workers.get(worker_id)
        if worker is None:
            return
        worker.exit_cause = reason
        if graceful:
            self._port.send(worker_id, ExitWorker(graceful=True, reason=reason))
        elif worker.pid:
            self._port.kill(worker.pid)

    def _ask_to_exit(self, worker: PoolWorker, reason: str) -> None:
        self.workers.retire(worker)
        worker.is_kept = False
        worker.exit_cause = reason
        worker.exit_intended = True
        self._port.send(worker.worker_id, ExitWorker(graceful=True, reason=reason))

    def _on_retire_refused(self, client: bytes, _: RetireRefused) -> None:
        worker = self.workers.workers.get(client)
        if worker is not None and worker.state == EXITING:
            worker.is_kept = True
            worker.idle_since = self._port.now()
            worker.exit_cause = ""
            worker.exit_intended = False

    def _on_exiting(self, client: bytes, message: WorkerExiting) -> None:
        worker = self.workers.workers.get(client)
        if worker is not None:
            worker.exit_cause = message.reason
            worker.exit_intended = message.intended

    def on_worker_gone(self, worker_id: bytes, status: int | None) -> WorkerGone | None:
        """A worker's process ended with this wait status; tells everybody."""
        worker = self.workers.remove(worker_id)
        if worker is None:
            return None
        if worker.is_blocked:
            self.blocked_count -= 1
        lease: NodeLease | None = worker.lease
        if lease is not None and lease.number in self.leases:
            self._end_lease(lease)
        gone = WorkerGone(
            worker_id,
            worker.pid,
            status,
            worker.exit_intended,
            worker.exit_cause or _how_it_ended(status),
        )
        self._client_gone(gone)
        return gone

    def _remember(self, gone: WorkerGone) -> None:
        self.gone[gone.worker_id] = gone
        if len(self.gone) > GONE_KEPT_MAX:
            del self.gone[next(iter(self.gone))]

    def _client_gone(self, gone: WorkerGone) -> None:
        self._remember(gone)
        client = gone.worker_id
        self.line.drop_client(client)
        self.objects.on_client_gone(client)
        for lease in [one for one in self.leases.values() if one.client == client]:
            # The worker may run a task of the dead owner: it cannot be given on.
            worker = self.workers.workers[lease.worker_id]
            worker.exit_cause = "was ended because the owner of its task died"
            worker.exit_intended = True
            self._port.kill(worker.pid)
        self._port.broadcast(gone)
        self.schedule()

    def _on_exit_query(self, client: bytes, message: ExitQuery) -> None:
        gone = self.gone.get(message.worker_id)
        if gone is None and self._job_of(message.worker_id) is None:
            gone = WorkerGone(
                message.worker_id, 0, None, False, "ended long ago, cause unknown"
            )
        if gone is not None:
            self._port.send(client, gone)
        # Otherwise it is ending: the broadcast of its end will answer.

    def retire_idle(self) -> None:
        """End workers nobody has used for a while, beyond one for each CPU."""
        since = self._port.now() - IDLE_RETIRE_S
        jobs = self.drivers.values()
        for worker in self.workers.longest_idle(since, self.cpu_count, jobs):
            self._ask_to_exit(worker, "it was idle")
        for worker in self.workers.kept_since(since):
            self._ask_to_exit(worker, "its objects are no longer held")

    # -- objects -----------------------------------------------------------------

    def _on_seal(self, client: bytes, message: SealObject) -> None:
        self.objects.on_seal(client, message.object_id)

    def _on_unpin(self, client: bytes, message: UnpinObjects) -> None:
        self.objects.on_unpin(client, message.object_ids)

    def _on_free(self, _: bytes, message: FreeObjects) -> None:
        self.objects.on_free(message.object_ids)

    # -- views -------------------------------------------------------------------

    def describe_workers(self) -> list[dict[str, Any]]:
        """Every worker, for the state API."""
        return [
            {
                "worker_id": worker.worker_id.hex(),
                "pid": worker.pid,
                "state": worker.state,
                "job_id": worker.job.hex(),
                "env": worker.env,
                "is_blocked": worker.is_blocked,
            }
            for worker in self.workers.workers.values()
        ]

    def check(self) -> None:
        """Assert what must always hold."""
        self.pool.check()
        self.bundles.check()
        self.objects.table.check()
        for worker in self.workers.workers.values():
            is_leased = worker.lease is not None and worker.lease.number in self.leases
            assert is_leased == (worker.state in (LEASED, ACTOR)), worker.state
            assert worker.state in (STARTING, IDLE, LEASED, ACTOR, EXITING)


def _count_fitting(pool: ResourcePool, request: LeaseRequest) -> int:
    """How many of a request's workers the free resources would let run now."""
    count = request.wanted - request.granted
    free = pool.available.to_units()
    for name, units in request.placement.items():
        count = min(count, free.get(name, 0) // units)
    return count


def _how_it_ended(status: int | None) -> str:
    if status is None:
        return "ended unexpectedly"
    if status < 0:
        return f"was killed by signal {-status}"
    return f"exited unexpectedly with code {status}"
