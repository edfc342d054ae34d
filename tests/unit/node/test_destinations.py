"""Where a lease request goes at a node: a pool, nowhere yet, nowhere ever."""

from __future__ import annotations

import pytest

from shoal._core.base.labels import parse_selector
from shoal._core.base.placement_wish import NodeAffinity, PlacementWish
from shoal._core.base.resources import ResourcePool, ResourceSet
from shoal._core.node.bundles import NodeBundles
from shoal._core.node.destinations import GROUP_REMOVED, UNSCHEDULABLE, Destinations
from shoal._core.node.leases import LeaseRequest

HERE, ELSEWHERE = b"h" * 16, b"e" * 16
GROUP = b"g" * 16


class Node:
    """A node of 4 CPUs in zone north, and what it is asked for."""

    def __init__(self) -> None:
        self.pool = ResourcePool(ResourceSet({"CPU": 4}))
        self.bundles = NodeBundles(self.pool)
        self.gone: set[bytes] = set()
        self.destinations = Destinations(
            self.pool, self.bundles, HERE, {"zone": "north"}, self.gone.__contains__
        )

    def of(self, cpus: float, strategy=None):
        demand = ResourceSet({"CPU": cpus})
        request = LeaseRequest(
            client=b"client",
            job=b"job1",
            number=1,
            demand=demand,
            env="",
            wanted=1,
            name="f",
            asked_at=0.0,
            strategy=strategy,
        )
        return self.destinations.of(request)

    def with_wish(self, cpus: float, **wish):
        return self.of(cpus, ["wish", PlacementWish(**wish).to_list()])

    def reserve(self, *cpus: float) -> None:
        resources = [
            (index, ResourceSet({"CPU": amount})) for index, amount in enumerate(cpus)
        ]
        assert self.bundles.prepare(GROUP, 1, resources)
        self.bundles.commit(GROUP, 1)


@pytest.fixture
def node() -> Node:
    return Node()


def test_no_strategy_draws_on_the_node(node):
    assert node.of(4).pool is node.pool


def test_too_large_a_request_waits_for_a_reason(node):
    waits = node.of(5)
    assert (waits.pool, waits.refusal) == (None, "")
    assert "requires {5 CPU}" in waits.reason
    assert "{4 CPU} in all" in waits.reason


def test_a_group_that_is_not_there_yet_is_waited_for_in_silence(node):
    waits = node.of(1, ["pg", GROUP, -1, False])
    assert (waits.pool, waits.reason, waits.refusal) == (None, "", "")


def test_a_removed_group_refuses(node):
    node.gone.add(GROUP)
    refused = node.of(1, ["pg", GROUP, 0, False])
    assert refused.pool is None
    assert refused.refusal == GROUP_REMOVED
    assert GROUP.hex() in refused.reason


def test_a_bundle_is_chosen_by_index_or_because_it_has_room(node):
    node.reserve(1, 2)
    first, second = (one.pool for one in node.bundles.usable(GROUP, -1))
    assert node.of(1, ["pg", GROUP, 1, False]).pool is second
    assert node.of(1, ["pg", GROUP, -1, False]).pool is first
    assert node.of(2, ["pg", GROUP, -1, False]).pool is second
    first.acquire(first.total)
    assert node.of(1, ["pg", GROUP, -1, False]).pool is second
    second.acquire(second.total)
    assert node.of(1, ["pg", GROUP, -1, False]).pool is first


def test_a_bundle_that_is_too_small_says_so(node):
    node.reserve(1, 2)
    waits = node.of(2, ["pg", GROUP, 0, False])
    assert (waits.pool, waits.refusal) == (None, "")
    assert "{bundle 0: 1 CPU}" in waits.reason


def test_affinity(node):
    here, elsewhere = NodeAffinity(HERE, False), NodeAffinity(ELSEWHERE, False)
    assert node.with_wish(1, affinity=here).pool is node.pool
    refused = node.with_wish(1, affinity=elsewhere)
    assert refused.refusal == UNSCHEDULABLE
    assert "dead or unknown" in refused.reason
    assert node.with_wish(9, affinity=here).refusal == UNSCHEDULABLE
    soft = NodeAffinity(ELSEWHERE, True)
    assert node.with_wish(1, affinity=soft).pool is node.pool


def test_a_busy_node_refuses_only_those_who_will_not_wait(node):
    node.pool.acquire(node.pool.total)
    patient = NodeAffinity(HERE, False)
    hasty = NodeAffinity(HERE, False, fail_if_busy=True)
    assert node.with_wish(1, affinity=patient).pool is node.pool
    assert node.with_wish(1, affinity=hasty).refusal == UNSCHEDULABLE


def test_labels(node):
    north = parse_selector({"zone": "north"})
    south = parse_selector({"zone": "south"})
    assert node.with_wish(1, alternatives=(north,)).pool is node.pool
    assert node.with_wish(1, alternatives=(south, north)).pool is node.pool
    waits = node.with_wish(1, alternatives=(south,))
    assert (waits.pool, waits.refusal) == (None, "")
    assert "zone: south" in waits.reason


def test_view(node):
    node.reserve(1)
    view = node.destinations.view()
    assert (view.node_id, view.labels) == (HERE, {"zone": "north"})
    assert view.total.amount_of("CPU") == 4
    assert view.available.amount_of("CPU") == 3
