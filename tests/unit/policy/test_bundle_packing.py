"""Placing bundles: each strategy keeps its promise, and finds what there is."""

from collections import Counter
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal._core.base.labels import parse_selector
from shoal._core.base.resources import NO_RESOURCES, ResourceSet
from shoal._core.policy.bundle_packing import place_bundles
from shoal._core.policy.placement import NodeView, Verdict

STRATEGIES = ["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]


def node(key, cpus, used=0, labels=None, **more):
    total = ResourceSet({"CPU": cpus, **more})
    return NodeView(
        bytes([key]), total, total.subtract(ResourceSet({"CPU": used})), labels or {}
    )


def cpus(*amounts):
    return [ResourceSet({"CPU": amount}) for amount in amounts]


def nodes_of(placement):
    assert placement.verdict is Verdict.NOW, placement.reason
    return [key[0] for key in placement.node_ids]


def test_pack_uses_one_node_if_one_will_do():
    nodes = [node(1, 2), node(2, 4), node(3, 2)]
    assert nodes_of(place_bundles(cpus(1, 1, 2), "PACK", nodes)) == [2, 2, 2]


def test_pack_uses_few_nodes_otherwise():
    nodes = [node(1, 1), node(2, 3), node(3, 2)]
    placed = nodes_of(place_bundles(cpus(1, 1, 1, 1), "PACK", nodes))
    assert Counter(placed)[2] == 3


def test_pack_goes_back_when_stuck():
    # Greedy puts the first 3 where the 4 would have to go.
    nodes = [node(1, 6), node(2, 5)]
    placed = nodes_of(place_bundles(cpus(3, 2, 3, 3), "PACK", nodes))
    assert sorted(placed) == [1, 1, 2, 2]


def test_spread_uses_as_many_nodes_as_there_are():
    nodes = [node(1, 8), node(2, 8), node(3, 8)]
    placed = nodes_of(place_bundles(cpus(1, 1, 1, 1), "SPREAD", nodes))
    assert sorted(Counter(placed).values()) == [1, 1, 2]


def test_spread_is_content_with_one_node():
    assert nodes_of(place_bundles(cpus(1, 1), "SPREAD", [node(1, 2)])) == [1, 1]


def test_strict_pack_takes_the_fullest_node_that_will_do():
    nodes = [node(1, 8), node(2, 8, used=5), node(3, 8, used=7)]
    assert nodes_of(place_bundles(cpus(1, 1), "STRICT_PACK", nodes)) == [2, 2]
    target = place_bundles(cpus(1, 1), "STRICT_PACK", nodes, soft_target=bytes([1]))
    assert nodes_of(target) == [1, 1]
    elsewhere = place_bundles(cpus(1, 1), "STRICT_PACK", nodes, soft_target=bytes([3]))
    assert nodes_of(elsewhere) == [2, 2]


def test_strict_spread_gives_each_its_own():
    nodes = [node(1, 8), node(2, 1), node(3, 2)]
    placed = nodes_of(place_bundles(cpus(1, 1, 2), "STRICT_SPREAD", nodes))
    assert sorted(placed) == [1, 2, 3]


def test_labels_of_each_bundle():
    nodes = [node(1, 4, labels={"zone": "x"}), node(2, 4, labels={"zone": "y"})]
    selectors = [parse_selector({"zone": "y"}), parse_selector({"zone": "x"})]
    placed = place_bundles(cpus(1, 1), "PACK", nodes, selectors=selectors)
    assert nodes_of(placed) == [2, 1]
    never = place_bundles(cpus(1, 1), "STRICT_PACK", nodes, selectors=selectors)
    assert never.verdict is Verdict.NEVER


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_busy_cluster_means_later(strategy):
    nodes = [node(1, 2, used=2), node(2, 2, used=2)]
    placement = place_bundles(cpus(1, 1), strategy, nodes)
    assert placement.verdict is Verdict.LATER
    assert placement.node_ids == ()
    assert "free" in placement.reason


@pytest.mark.parametrize(
    ("bundles", "strategy", "reason"),
    [
        (cpus(1, 5), "PACK", "Bundle 1 needs 5 CPU"),
        (cpus(3, 3), "STRICT_PACK", "together need 6 CPU on one node"),
        (cpus(1, 1, 1), "STRICT_SPREAD", "3 bundles need a node of their own"),
        (cpus(3, 3, 3), "PACK", "together need 9 CPU; no division over the 2 nodes"),
    ],
)
def test_what_can_never_be_placed_says_why(bundles, strategy, reason):
    placement = place_bundles(bundles, strategy, [node(1, 4), node(2, 4)])
    assert placement.verdict is Verdict.NEVER
    assert reason in placement.reason


def test_no_node():
    placement = place_bundles(cpus(1), "PACK", [])
    assert placement.verdict is Verdict.NEVER
    assert placement.reason == "No node is alive."


def test_a_hopeless_search_ends():
    # 30 bundles that just don't fit on 15 nodes: the exact answer takes ages.
    nodes = [node(key, 10) for key in range(15)]
    placement = place_bundles(cpus(*[5.1] * 16, *[4.5] * 14), "SPREAD", nodes)
    assert placement.verdict is Verdict.NEVER


def test_groups_may_be_large():
    nodes = [node(key, 50) for key in range(40)]
    placed = nodes_of(place_bundles(cpus(*[1] * 1500), "PACK", nodes))
    assert max(Counter(placed).values()) == 50


def possible(bundles, strategy, nodes):
    """By trying every way there is."""
    for way in product(range(len(nodes)), repeat=len(bundles)):
        if strategy == "STRICT_PACK" and len(set(way)) > 1:
            continue
        if strategy == "STRICT_SPREAD" and len(set(way)) < len(way):
            continue
        if keeps_within(bundles, way, [view.available for view in nodes]):
            return True
    return False


def keeps_within(bundles, way, rooms):
    sums = dict.fromkeys(way, NO_RESOURCES)
    for bundle, place in zip(bundles, way, strict=True):
        sums[place] = sums[place].add(bundle)
    return all(total.fits_in(rooms[place]) for place, total in sums.items())


AMOUNTS = st.fixed_dictionaries(
    {"CPU": st.integers(0, 4)}, optional={"GPU": st.integers(0, 2)}
)


@given(
    st.lists(AMOUNTS.map(ResourceSet), min_size=1, max_size=4),
    st.sampled_from(STRATEGIES),
    st.lists(AMOUNTS.map(ResourceSet), min_size=1, max_size=3),
)
def test_it_finds_a_placement_exactly_if_there_is_one(bundles, strategy, rooms):
    nodes = [NodeView(bytes([key]), room, room) for key, room in enumerate(rooms)]
    placement = place_bundles(bundles, strategy, nodes)
    assert (placement.verdict is Verdict.NOW) is possible(bundles, strategy, nodes)
    if placement.verdict is Verdict.NOW:
        way = [key[0] for key in placement.node_ids]
        assert keeps_within(bundles, way, rooms)
        if strategy == "STRICT_PACK":
            assert len(set(way)) == 1
        if strategy == "STRICT_SPREAD":
            assert len(set(way)) == len(way)
    else:
        assert placement.reason
