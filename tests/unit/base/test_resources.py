"""Resource sets and pools: exact arithmetic, and nothing lost or given twice."""

import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shoal._core.base.resources import (
    NO_RESOURCES,
    Allocation,
    ResourcePool,
    ResourceSet,
    to_units,
)

NAMES = st.sampled_from(["CPU", "GPU", "memory", "custom"])
SETS = st.dictionaries(NAMES, st.integers(0, 50_000)).map(ResourceSet.from_units)


# ---------------------------------------------------------------------- sets


def test_quantities_are_exact_in_units_of_a_ten_thousandth():
    assert ResourceSet({"CPU": 0.1}).to_units() == {"CPU": 1_000}
    assert ResourceSet({"memory": 10**15}).to_units() == {"memory": 10**19}
    assert ResourceSet({"CPU": 0.5, "a": 2}).to_floats() == {"CPU": 0.5, "a": 2.0}


def test_ten_tenths_are_one():
    total = NO_RESOURCES
    for _ in range(10):
        total = total.add(ResourceSet({"CPU": 0.1}))
    assert total == ResourceSet({"CPU": 1})


def test_normal_form_makes_equal_sets_equal_keys():
    one, other = ResourceSet({"b": 1, "a": 2, "c": 0}), ResourceSet({"a": 2, "b": 1})
    assert one == other
    assert hash(one) == hash(other)
    assert list(one) == ["a", "b"]
    assert {one: "found"}[other] == "found"
    assert one != ResourceSet({"a": 2})
    assert one != {"a": 2, "b": 1}


def test_reading_a_set():
    request = ResourceSet({"CPU": 1.5})
    assert request.amount_of("CPU") == 1.5
    assert request.units_of("CPU") == 15_000
    assert request.amount_of("GPU") == request.units_of("GPU") == 0
    assert "CPU" in request
    assert "GPU" not in request
    assert len(request) == 1
    assert not NO_RESOURCES
    assert list(request.items()) == [("CPU", 15_000)]


def test_texts_for_people():
    assert str(ResourceSet({"CPU": 1, "GPU": 0.5})) == "1 CPU, 0.5 GPU"
    assert str(NO_RESOURCES) == "nothing"
    assert repr(ResourceSet({"CPU": 1})) == "ResourceSet({'CPU': 1.0})"


@pytest.mark.parametrize("amount", [-1, -0.00001, math.nan, math.inf])
def test_impossible_quantities_are_refused(amount):
    with pytest.raises(ValueError, match="quantity of resource CPU"):
        ResourceSet({"CPU": amount})


def test_too_fine_quantities_are_refused_and_others_rounded():
    with pytest.raises(ValueError, match=r"finest quantity is 0\.0001"):
        ResourceSet({"CPU": 0.00009})
    assert to_units("CPU", 0.0001) == 1
    assert to_units("CPU", 0.00016) == 2
    assert to_units("CPU", 0) == 0


def test_a_copied_message_does_not_reach_into_the_set():
    request = ResourceSet({"CPU": 1})
    request.to_units()["CPU"] = 7
    assert request == ResourceSet({"CPU": 1})


def test_negative_units_are_a_bug():
    with pytest.raises(AssertionError):
        ResourceSet.from_units({"CPU": -1})
    with pytest.raises(AssertionError, match="does not fit"):
        ResourceSet({"CPU": 1}).subtract(ResourceSet({"CPU": 2}))
    with pytest.raises(AssertionError):
        ResourceSet({"CPU": 1}).scaled(-1)


@given(SETS, SETS)
def test_adding_and_subtracting_are_inverse(one, other):
    total = one.add(other)
    assert total == other.add(one)
    assert one.fits_in(total)
    assert total.subtract(other) == one


@given(SETS, SETS)
def test_fitting_means_that_nothing_becomes_negative(request, room):
    names = [*request, *room]
    expected = all(request.units_of(name) <= room.units_of(name) for name in names)
    assert request.fits_in(room) is expected


@given(SETS, st.integers(0, 5))
def test_scaling_is_adding_up(one, count):
    total = NO_RESOURCES
    for _ in range(count):
        total = total.add(one)
    assert one.scaled(count) == total


@given(SETS)
def test_sets_travel(one):
    hash(one)
    copy = pickle.loads(pickle.dumps(one))
    assert copy == one
    assert hash(copy) == hash(one)
    assert ResourceSet.from_units(one.to_units()) == one
    assert "CPU" not in one.without("CPU")


# --------------------------------------------------------------------- pools


def pool_of(**amounts):
    return ResourcePool(ResourceSet(amounts))


def test_acquire_and_release():
    pool = pool_of(CPU=2)
    allocation = pool.acquire(ResourceSet({"CPU": 1.5}))
    assert allocation is not None
    assert pool.available == ResourceSet({"CPU": 0.5})
    assert pool.acquire(ResourceSet({"CPU": 1})) is None
    assert pool.acquire(ResourceSet({"unknown": 1})) is None
    assert pool.held_count == 1
    pool.release(allocation)
    assert pool.available == pool.total
    assert pool.held_count == 0


def test_releasing_twice_or_elsewhere_is_a_bug():
    pool, other = pool_of(CPU=2), pool_of(CPU=2)
    allocation = pool.acquire(ResourceSet({"CPU": 1}))
    assert other.acquire(ResourceSet({"CPU": 1})) is not None
    with pytest.raises(AssertionError, match="not held here"):
        other.release(allocation)
    pool.release(allocation)
    with pytest.raises(AssertionError, match="not held here"):
        pool.release(allocation)


def test_debt_reads_as_nothing_available_until_it_is_paid():
    pool = pool_of(CPU=1)
    running = pool.acquire(ResourceSet({"CPU": 1}))
    forced = pool.acquire_forced(ResourceSet({"CPU": 1}))
    assert pool.available == NO_RESOURCES
    assert pool.debt_of("CPU") == 1.0
    pool.release(running)
    assert pool.debt_of("CPU") == 0.0
    assert pool.available == NO_RESOURCES
    assert not pool.fits_now(ResourceSet({"CPU": 0.1}))
    pool.release(forced)
    assert pool.available == ResourceSet({"CPU": 1})
    pool.check()


def test_forcing_never_conjures_up_devices():
    pool = pool_of(CPU=1, GPU=1)
    with pytest.raises(AssertionError, match="GPU can't be given beyond"):
        pool.acquire_forced(ResourceSet({"GPU": 1}))


def test_a_blocked_holder_gives_back_its_cpu_only():
    pool = pool_of(CPU=1, custom=1)
    allocation = pool.acquire(ResourceSet({"CPU": 1, "custom": 1}))
    pool.pause(allocation)
    assert pool.available == ResourceSet({"CPU": 1})
    assert "paused" in repr(allocation)
    with pytest.raises(AssertionError, match="paused already"):
        pool.pause(allocation)
    child = pool.acquire(ResourceSet({"CPU": 1}))
    pool.resume(allocation)
    assert pool.debt_of("CPU") == 1.0
    with pytest.raises(AssertionError, match="not paused"):
        pool.resume(allocation)
    pool.release(child)
    pool.release(allocation)
    assert pool.available == pool.total


def test_a_holder_may_die_while_it_is_blocked():
    pool = pool_of(CPU=1, GPU=1)
    allocation = pool.acquire(ResourceSet({"CPU": 1, "GPU": 1}))
    pool.pause(allocation)
    pool.release(allocation)
    assert pool.available == pool.total
    pool.check()


def test_pausing_a_holder_without_cpu_changes_nothing():
    pool = pool_of(CPU=1)
    allocation = pool.acquire(NO_RESOURCES)
    pool.pause(allocation)
    pool.resume(allocation)
    assert pool.available == pool.total


def test_whole_gpus_are_the_lowest_free_ones():
    pool = pool_of(GPU=4)
    first = pool.acquire(ResourceSet({"GPU": 2}))
    second = pool.acquire(ResourceSet({"GPU": 1}))
    assert first.gpu_ids == [0, 1]
    assert second.gpu_ids == [2]
    pool.release(first)
    assert pool.acquire(ResourceSet({"GPU": 2})).gpu_ids == [0, 1]


def test_shares_of_a_gpu_lie_together():
    pool = pool_of(GPU=2)
    shares = [pool.acquire(ResourceSet({"GPU": 0.5})) for _ in range(3)]
    assert [share.gpu_ids for share in shares] == [[0], [0], [1]]
    assert pool.acquire(ResourceSet({"GPU": 1})) is None
    pool.release(shares[2])
    assert pool.acquire(ResourceSet({"GPU": 1})).gpu_ids == [1]


def test_what_is_free_in_pieces_is_not_one_device():
    pool = pool_of(GPU=2)
    halves = [pool.acquire(ResourceSet({"GPU": 0.6})) for _ in range(2)]
    assert [half.gpu_ids for half in halves] == [[0], [1]]
    assert pool.available == ResourceSet({"GPU": 0.8})
    assert not pool.fits_now(ResourceSet({"GPU": 0.8}))
    assert pool.acquire(ResourceSet({"GPU": 0.8})) is None
    assert pool.could_ever_fit(ResourceSet({"GPU": 0.8}))


def test_gpus_come_whole_or_as_one_share():
    with pytest.raises(ValueError, match="above 1 must be a whole number"):
        pool_of(GPU=2).acquire(ResourceSet({"GPU": 1.5}))
    with pytest.raises(ValueError, match="whole number of GPUs"):
        pool_of(GPU=1.5)


def test_a_bundle_hands_out_the_devices_it_was_given():
    node = pool_of(CPU=4, GPU=4)
    node.acquire(ResourceSet({"GPU": 2}))
    reserved = node.acquire(ResourceSet({"CPU": 2, "GPU": 1}))
    bundle = ResourcePool(reserved.request, reserved.shares)
    assert bundle.acquire(ResourceSet({"CPU": 1, "GPU": 0.5})).gpu_ids == [2]
    assert bundle.acquire(ResourceSet({"GPU": 1})) is None
    share = node.acquire(ResourceSet({"GPU": 0.5}))
    part = ResourcePool(share.request, share.shares)
    assert part.acquire(ResourceSet({"GPU": 0.5})).gpu_ids == share.gpu_ids
    assert not part.could_ever_fit(ResourceSet({"GPU": 1}))


REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "CPU": st.integers(0, 30_000),
        "GPU": st.sampled_from([1, 2_500, 5_000, 9_999, 10_000, 20_000]),
        "custom": st.integers(0, 100),
    },
).map(ResourceSet.from_units)


class PoolMachine(RuleBasedStateMachine):
    """Whatever is done to a pool, nothing is lost, and in the end it is whole."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = pool_of(CPU=4, GPU=3, custom=0.005)
        self.held: list[Allocation] = []

    @rule(request=REQUESTS)
    def acquire(self, request):
        could = self.pool.fits_now(request)
        allocation = self.pool.acquire(request)
        assert (allocation is not None) is could
        if allocation is not None:
            assert self.pool.could_ever_fit(request)
            assert sum(allocation.shares.get("GPU", {}).values()) == request.units_of(
                "GPU"
            )
            self.held.append(allocation)

    @rule(units=st.integers(1, 50_000))
    def force(self, units):
        request = ResourceSet.from_units({"CPU": units})
        self.held.append(self.pool.acquire_forced(request))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data):
        index = data.draw(st.integers(0, len(self.held) - 1))
        self.pool.release(self.held.pop(index))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def block_or_go_on(self, data):
        allocation = self.held[data.draw(st.integers(0, len(self.held) - 1))]
        if allocation.paused:
            self.pool.resume(allocation)
        else:
            self.pool.pause(allocation)

    @invariant()
    def nothing_lost(self):
        self.pool.check()
        assert self.pool.available.fits_in(self.pool.total)
        assert self.pool.held_count == len(self.held)

    def teardown(self):
        for allocation in self.held:
            self.pool.release(allocation)
        assert self.pool.available == self.pool.total
        self.pool.check()


TestPoolMachine = PoolMachine.TestCase
