"""Bundles of one node: taken whole, used apart, given back once."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from shoal._core.base.resources import Allocation, ResourcePool, ResourceSet
from shoal._core.node.bundles import Bundle, NodeBundles

GROUP, OTHER = b"group", b"other"


def cpus(amount: float) -> ResourceSet:
    return ResourceSet({"CPU": amount})


@pytest.fixture
def pool() -> ResourcePool:
    return ResourcePool(ResourceSet({"CPU": 4, "GPU": 2}))


@pytest.fixture
def bundles(pool: ResourcePool) -> NodeBundles:
    return NodeBundles(pool)


def free_cpus(pool: ResourcePool) -> float:
    return pool.available.amount_of("CPU")


def hold(bundle: Bundle, amount: float) -> Allocation:
    allocation = bundle.pool.acquire(cpus(amount))
    assert allocation is not None
    return allocation


def test_prepared_bundles_are_taken_but_not_usable(bundles, pool):
    assert bundles.prepare(GROUP, 1, [(0, cpus(1)), (1, cpus(2))])
    assert free_cpus(pool) == 1
    assert bundles.usable(GROUP, 0) == []
    assert bundles.usable(GROUP, -1) == []
    bundles.check()


def test_committed_bundles_are_usable_by_index_or_any(bundles):
    bundles.prepare(GROUP, 1, [(1, cpus(2)), (0, cpus(1))])
    bundles.commit(GROUP, 1)
    assert [one.index for one in bundles.usable(GROUP, -1)] == [0, 1]
    assert [one.pool.total for one in bundles.usable(GROUP, 1)] == [cpus(2)]
    assert bundles.usable(GROUP, 2) == []
    assert bundles.usable(OTHER, -1) == []


def test_preparing_is_all_or_nothing(bundles, pool):
    assert not bundles.prepare(GROUP, 1, [(0, cpus(3)), (1, cpus(2))])
    assert free_cpus(pool) == 4
    assert pool.held_count == 0
    assert bundles.describe() == []
    assert bundles.prepare(GROUP, 2, [(0, cpus(3))])


def test_only_the_attempt_named_is_committed_or_given_back(bundles, pool):
    bundles.prepare(GROUP, 1, [(0, cpus(1))])
    bundles.commit(GROUP, 1)
    bundles.prepare(GROUP, 2, [(1, cpus(2))])
    assert [one.index for one in bundles.usable(GROUP, -1)] == [0]
    assert bundles.give_back(GROUP, 2) == []
    assert free_cpus(pool) == 3
    bundles.commit(GROUP, 2)
    assert [one.index for one in bundles.usable(GROUP, -1)] == [0]


def test_gpus_of_a_bundle_keep_their_numbers(bundles, pool):
    gpu = ResourceSet({"GPU": 1})
    first = pool.acquire(gpu)
    bundles.prepare(GROUP, 1, [(0, gpu)])
    bundles.commit(GROUP, 1)
    bundle = bundles.usable(GROUP, 0)[0]
    inside = bundle.pool.acquire(ResourceSet({"GPU": 0.5}))
    assert first.gpu_ids == [0]
    assert inside.gpu_ids == bundle.allocation.gpu_ids == [1]
    assert not bundle.pool.fits_now(gpu)


def test_a_bundle_in_use_ends_when_its_last_lease_does(bundles, pool):
    bundles.prepare(GROUP, 1, [(0, cpus(2)), (1, cpus(1))])
    bundles.commit(GROUP, 1)
    bundle = bundles.usable(GROUP, 0)[0]
    held = [hold(bundle, 1), hold(bundle, 0.5)]
    assert bundles.give_back(GROUP) == [bundle]
    assert free_cpus(pool) == 2
    assert bundles.usable(GROUP, -1) == []
    bundles.check()
    for allocation, free in zip(held, [2, 4], strict=True):
        bundle.pool.release(allocation)
        bundles.settle()
        assert free_cpus(pool) == free
    bundles.check()


def test_a_group_may_come_back_while_its_old_bundle_ends(bundles, pool):
    bundles.prepare(GROUP, 1, [(0, cpus(2))])
    bundles.commit(GROUP, 1)
    old = bundles.usable(GROUP, 0)[0]
    held = hold(old, 1)
    bundles.give_back(GROUP)
    assert bundles.prepare(GROUP, 2, [(0, cpus(2))])
    bundles.commit(GROUP, 2)
    assert bundles.usable(GROUP, 0)[0] is not old
    old.pool.release(held)
    bundles.settle()
    assert free_cpus(pool) == 2


def test_giving_back_what_is_not_there(bundles):
    assert bundles.give_back(GROUP) == []
    assert bundles.give_back(GROUP, 3) == []
    bundles.commit(GROUP, 3)


def test_description(bundles):
    bundles.prepare(GROUP, 1, [(0, cpus(2))])
    bundles.commit(GROUP, 1)
    hold(bundles.usable(GROUP, 0)[0], 0.5)
    assert bundles.describe() == [
        {
            "placement_group_id": GROUP.hex(),
            "index": 0,
            "resources": {"CPU": 2.0},
            "available": {"CPU": 1.5},
            "is_committed": True,
        }
    ]


class AnyOrder(RuleBasedStateMachine):
    """Groups and leases in any order: nothing is lost, nothing given twice."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = ResourcePool(cpus(8))
        self.bundles = NodeBundles(self.pool)
        self.attempt = 0
        self.leases: list[tuple[Bundle, Allocation]] = []

    @rule(
        group=st.sampled_from([GROUP, OTHER]),
        sizes=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    )
    def prepare(self, group: bytes, sizes: list[int]) -> None:
        taken = {one["index"] for one in self.bundles.describe()}
        self.attempt += 1
        wanted = [
            (index, cpus(size))
            for index, size in enumerate(sizes, 3 * self.attempt)
            if index not in taken
        ]
        before = free_cpus(self.pool)
        taken_now = (
            sum(sizes) if self.bundles.prepare(group, self.attempt, wanted) else 0
        )
        assert free_cpus(self.pool) == before - taken_now

    @rule(group=st.sampled_from([GROUP, OTHER]), back=st.integers(0, 2))
    def commit(self, group: bytes, back: int) -> None:
        self.bundles.commit(group, self.attempt - back)

    @rule(group=st.sampled_from([GROUP, OTHER]), back=st.integers(-1, 2))
    def give_back(self, group: bytes, back: int) -> None:
        self.bundles.give_back(group, None if back < 0 else self.attempt - back)

    @rule(group=st.sampled_from([GROUP, OTHER]), size=st.integers(1, 2))
    def lease(self, group: bytes, size: int) -> None:
        for bundle in self.bundles.usable(group, -1):
            allocation = bundle.pool.acquire(cpus(size))
            if allocation is not None:
                self.leases.append((bundle, allocation))
                return

    @rule(choice=st.integers(0, 10))
    def release(self, choice: int) -> None:
        if self.leases:
            bundle, allocation = self.leases.pop(choice % len(self.leases))
            bundle.pool.release(allocation)
            self.bundles.settle()

    @invariant()
    def holds(self) -> None:
        self.bundles.check()
        self.pool.check()

    def teardown(self) -> None:
        for bundle, allocation in self.leases:
            bundle.pool.release(allocation)
        self.bundles.give_back(GROUP)
        self.bundles.give_back(OTHER)
        assert free_cpus(self.pool) == 8
        assert self.pool.held_count == 0


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
