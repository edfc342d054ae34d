"""Leases inside placement groups: granted from bundles, ended with their group."""

from __future__ import annotations

from itertools import count

import pytest

from shoal._core.base.resources import ResourceSet
from shoal._core.node.machine import NodeMachine
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
    LeaseGranted,
    LeaseRefused,
    RequestLease,
    ReturnLease,
    StartActor,
)

OWNER = b"o" * 16
JOB = b"job1"
GROUP = b"g" * 16
ONE = 10_000


class Port:
    """Keeps what the machine says; workers are ready when the test says so."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, object]] = []
        self.started: list[bytes] = []
        self.killed: list[int] = []
        self.unplaceable: list[tuple[bytes, str]] = []
        self.gone: set[bytes] = set()
        self.waits = False
        self.offers = 0
        self._ids = count(1)

    def send(self, client, message):
        self.sent.append((client, message))

    def broadcast(self, message):
        self.sent.append((b"all", message))

    def start_worker(self, worker_id, env):
        self.started.append(worker_id)

    def kill(self, pid):
        self.killed.append(pid)

    def call_at(self, when, action):
        raise AssertionError("no request is delayed here")

    def new_id(self):
        return bytes([next(self._ids)]) * 16

    def now(self):
        return 0.0

    def actor_placed(self, actor_id, worker_id):
        return True

    def actor_waits(self, actor_id, reason):
        raise AssertionError(reason)

    def actor_unplaceable(self, actor_id, reason, kind):
        self.unplaceable.append((actor_id, kind))

    def offer_room(self):
        self.offers += 1
        return self.waits

    def is_group_gone(self, group_id):
        return group_id in self.gone

    def said(self, kind):
        return [message for _, message in self.sent if isinstance(message, kind)]


class Node:
    """A node of 4 CPUs whose workers come up at once."""

    def __init__(self) -> None:
        self.port = Port()
        self.machine = NodeMachine(self.port, ResourceSet({"CPU": 4}), 1 << 20)
        self.machine.on_driver_joined(OWNER, JOB)
        self.pids = count(100)

    def reserve(self, *cpus: float, attempt: int = 1) -> None:
        bundles = [(i, {"CPU": int(one * ONE)}) for i, one in enumerate(cpus)]
        prepare = PrepareBundles(GROUP, attempt, bundles)
        answer = self.machine.on_prepare_bundles(prepare)
        assert answer == BundlesPrepared(GROUP, attempt, True)
        commit = CommitBundles(GROUP, attempt)
        answer = self.machine.on_commit_bundles(commit)
        assert answer == BundlesCommitted(GROUP, attempt)

    def ask(self, number: int, cpus: float, index: int = -1) -> None:
        strategy = ["pg", GROUP, index, False]
        demand = {"CPU": int(cpus * ONE)}
        request = RequestLease(number, demand, "", 1, "f", strategy)
        assert self.machine.on_message(OWNER, request)
        self.start_workers()

    def start_workers(self) -> None:
        while self.port.started:
            worker_id = self.port.started.pop(0)
            assert self.machine.on_worker_ready(worker_id, next(self.pids))

    @property
    def granted(self) -> list[int]:
        return [one.request for one in self.port.said(LeaseGranted)]

    @property
    def refused(self) -> list[tuple[int, str]]:
        return [(one.request, one.kind) for one in self.port.said(LeaseRefused)]

    def free(self) -> float:
        return self.machine.pool.available.amount_of("CPU")


@pytest.fixture
def node() -> Node:
    return Node()


def test_leases_of_a_group_draw_on_its_bundles(node):
    node.reserve(1, 1)
    assert node.free() == 2
    for number in (1, 2, 3):
        node.ask(number, 1)
    assert node.granted == [1, 2]
    assert node.free() == 2
    lease = node.port.said(LeaseGranted)[0]
    node.machine.on_message(OWNER, ReturnLease(lease.lease))
    assert node.granted == [1, 2, 3]
    node.machine.check()


def test_requests_wait_for_their_group(node):
    node.ask(1, 1)
    assert (node.granted, node.refused) == ([], [])
    node.reserve(1)
    node.machine.schedule()
    node.start_workers()
    assert node.granted == [1]


def test_groups_are_offered_room_before_leases_are_granted(node):
    node.ask(1, 1)
    assert node.port.offers > 0


def test_the_end_of_a_group_ends_what_runs_and_what_waits(node):
    node.reserve(1)
    node.ask(1, 1)
    node.ask(2, 1)
    node.machine.on_end_bundles(EndBundles(GROUP))
    assert node.refused == [(2, "placement_group")]
    assert node.port.killed == [100]
    # Its resources are the group's until the process is gone.
    assert node.free() == 3
    (grant,) = node.port.said(LeaseGranted)
    gone = node.machine.on_worker_gone(grant.worker_id, -9)
    assert gone.intended
    assert "placement group" in gone.cause
    assert node.free() == 4
    node.machine.check()


def test_a_lease_returned_while_its_worker_is_killed_frees_no_worker(node):
    node.reserve(1)
    node.ask(1, 1)
    node.machine.on_end_bundles(EndBundles(GROUP))
    (grant,) = node.port.said(LeaseGranted)
    node.machine.on_message(OWNER, ReturnLease(grant.lease))
    assert node.free() == 4
    assert node.machine.workers.take_idle((JOB, "")) is None
    node.machine.on_worker_gone(grant.worker_id, -9)
    node.machine.check()


def test_requests_for_a_removed_group_are_refused_at_once(node):
    node.port.gone.add(GROUP)
    node.ask(1, 1)
    assert node.refused == [(1, "placement_group")]


def test_a_failed_attempt_is_given_back(node):
    node.reserve(1, attempt=3)
    node.machine.on_return_bundles(ReturnBundles(GROUP, 2))
    assert node.free() == 3
    node.machine.on_return_bundles(ReturnBundles(GROUP, 3))
    assert node.free() == 4


def actor(actor_id: bytes) -> ActorSpec:
    return ActorSpec(
        actor_id,
        OWNER.hex(),
        "A",
        b"",
        b"",
        b"",
        [],
        placement_demand={"CPU": ONE},
        running_demand={},
        strategy=["pg", GROUP, 0, True],
        placement_group=GROUP,
        capture_children=True,
        job_id=JOB,
    )


def test_actors_live_and_end_with_their_group(node):
    node.reserve(1)
    first, second, third = b"1" * 16, b"2" * 16, b"3" * 16
    node.machine.place_actor(actor(first), 0)
    node.start_workers()
    (start,) = node.port.said(StartActor)
    assert (start.lease.placement_group, start.lease.capture_children) == (GROUP, True)
    assert node.machine.bundles.usable(GROUP, 0)[0].pool.held_count == 1
    busy = node.machine.bundles.usable(GROUP, 0)[0].pool.acquire(
        ResourceSet({"CPU": 1})
    )
    node.machine.place_actor(actor(second), 0)
    node.machine.on_end_bundles(EndBundles(GROUP))
    node.port.gone.add(GROUP)
    node.machine.place_actor(actor(third), 0)
    assert node.port.killed == [100]
    assert node.port.unplaceable == [
        (second, "placement_group"),
        (third, "placement_group"),
    ]
    assert busy is not None
