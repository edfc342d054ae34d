"""Which node a request goes to, and what is said when there is none."""

from hypothesis import given
from hypothesis import strategies as st

from shoal._core.base.labels import ABSENT, LabelCondition, matches, parse_selector
from shoal._core.base.placement_wish import NO_WISH, NodeAffinity, PlacementWish
from shoal._core.base.resources import NO_RESOURCES, ResourceSet
from shoal._core.policy.placement import NodeView, Verdict, choose_node, why_never

ONE_CPU = ResourceSet({"CPU": 1})
A, B, C = b"\xaa" * 4, b"\xbb" * 4, b"\xcc" * 4


def node(node_id, *, free, total=8, local=False, labels=None, **more):
    return NodeView(
        node_id,
        ResourceSet({"CPU": total, **more}),
        ResourceSet({"CPU": free, **more}),
        labels or {},
        local,
    )


def chosen(*nodes, request=ONE_CPU, wish=NO_WISH, **more):
    placement = choose_node(request, nodes, wish, **more)
    return placement.verdict, placement.node_id


# --------------------------------------------------------------------- default


def test_the_local_node_is_filled_to_half_first():
    assert chosen(node(A, free=8), node(B, free=5, local=True)) == (Verdict.NOW, B)


def test_over_half_the_next_node_begins():
    assert chosen(node(A, free=8), node(B, free=4, local=True)) == (Verdict.NOW, A)


def test_all_over_half_the_least_used_is_taken():
    assert chosen(node(A, free=2), node(B, free=3), node(C, free=1)) == (Verdict.NOW, B)


def test_equal_nodes_by_lowest_id():
    assert chosen(node(B, free=8), node(A, free=8)) == (Verdict.NOW, A)


def test_the_scarcest_resource_counts():
    request = ResourceSet({"CPU": 1, "custom": 3})
    tight, roomy = node(A, free=8, custom=4), node(B, free=4, custom=10)
    assert chosen(tight, roomy, request=request)[1] == B


def test_pack_until_moves_the_border():
    nodes = node(A, free=8), node(B, free=4, local=True)
    assert chosen(*nodes, pack_until=0.9)[1] == B


def test_nodes_with_gpus_are_kept_for_those_who_ask():
    nodes = node(A, free=8, local=True, GPU=1), node(B, free=1)
    assert chosen(*nodes)[1] == B
    assert chosen(*nodes, request=ResourceSet({"CPU": 1, "GPU": 1}))[1] == A


def test_nothing_asked_fits_on_a_full_node():
    assert chosen(node(A, free=0), request=NO_RESOURCES) == (Verdict.NOW, A)


def test_a_busy_cluster_means_later_and_says_what_is_free():
    placement = choose_node(ONE_CPU, [node(A, free=0.5)])
    assert (placement.verdict, placement.node_id) == (Verdict.LATER, A)
    assert placement.reason == "It needs 1 CPU; node aaaaaaaa has 0.5 CPU free."


def test_what_no_node_has_is_never():
    request = ResourceSet({"CPU": 9, "TPU": 1})
    placement = choose_node(request, [node(B, free=8), node(A, free=0, total=4)])
    assert (placement.verdict, placement.node_id) == (Verdict.NEVER, None)
    assert placement.reason == (
        "It needs 9 CPU, 1 TPU, but node aaaaaaaa has 4 CPU, 0 TPU; "
        "node bbbbbbbb has 8 CPU, 0 TPU."
    )


def test_reasons_stay_short():
    assert why_never(ONE_CPU, []) == "It needs 1 CPU, but no node is alive."
    many = [node(bytes([i]) * 4, free=0, total=0) for i in range(8)]
    reason = why_never(ONE_CPU, many)
    assert reason.count(" has ") == 5
    assert reason.endswith("3 more nodes do not fit either.")


# ---------------------------------------------------------------------- spread


def test_spread_takes_nodes_in_turn():
    nodes = [node(A, free=8, local=True), node(B, free=1), node(C, free=5)]
    wish = PlacementWish(spread=True)
    last, seen = b"", []
    for _ in range(4):
        last = choose_node(ONE_CPU, nodes, wish, last_chosen=last).node_id
        seen.append(last)
    assert seen == [A, B, C, A]


def test_spread_skips_busy_nodes():
    nodes = node(A, free=8), node(B, free=0), node(C, free=5)
    assert chosen(*nodes, wish=PlacementWish(spread=True), last_chosen=A)[1] == C


# -------------------------------------------------------------------- affinity


def affinity(node_id, **flags):
    return PlacementWish(affinity=NodeAffinity(node_id, **flags))


def test_affinity_goes_there():
    nodes = node(A, free=8, local=True), node(B, free=1)
    assert chosen(*nodes, wish=affinity(B, soft=False)) == (Verdict.NOW, B)
    assert chosen(*nodes, wish=affinity(B, soft=True)) == (Verdict.NOW, B)


def test_affinity_waits_for_a_busy_node():
    nodes = node(A, free=8, local=True), node(B, free=0)
    assert chosen(*nodes, wish=affinity(B, soft=False)) == (Verdict.LATER, B)
    assert chosen(*nodes, wish=affinity(B, soft=True)) == (Verdict.LATER, B)


def test_affinity_may_spill_or_fail_instead_of_waiting():
    nodes = node(A, free=8, local=True), node(B, free=0)
    spill = affinity(B, soft=True, spill_if_busy=True)
    fail = affinity(B, soft=False, fail_if_busy=True)
    assert chosen(*nodes, wish=spill) == (Verdict.NOW, A)
    assert chosen(*nodes, wish=fail) == (Verdict.NEVER, None)


def test_affinity_to_a_dead_node():
    alive = node(A, free=8)
    assert chosen(alive, wish=affinity(B, soft=True)) == (Verdict.NOW, A)
    placement = choose_node(ONE_CPU, [alive], affinity(B, soft=False))
    assert placement.verdict is Verdict.NEVER
    assert "node bbbbbbbb, which is dead or unknown" in placement.reason


def test_affinity_to_a_node_that_is_too_small():
    nodes = node(A, free=8), node(B, free=1, total=1)
    request = ResourceSet({"CPU": 2})
    assert chosen(*nodes, request=request, wish=affinity(B, soft=True))[1] == A
    placement = choose_node(request, nodes, affinity(B, soft=False))
    assert placement.verdict is Verdict.NEVER
    assert "node bbbbbbbb has 1 CPU" in placement.reason


# ---------------------------------------------------------------------- labels


def labelled(*alternatives, preferred=()):
    return PlacementWish(
        alternatives=tuple(parse_selector(selector) for selector in alternatives),
        preferred=preferred,
    )


def test_labels_filter_the_nodes():
    nodes = node(A, free=8, labels={"zone": "x"}), node(B, free=1, labels={"zone": "y"})
    assert chosen(*nodes, wish=labelled({"zone": "y"})) == (Verdict.NOW, B)
    placement = choose_node(ONE_CPU, nodes, labelled({"zone": "z"}))
    assert placement.verdict is Verdict.NEVER
    assert "on a node with labels {zone: z}" in placement.reason
    assert "{'zone': 'x'}" in placement.reason


def test_fallbacks_are_tried_in_order():
    nodes = node(A, free=8, labels={"zone": "x"}), node(B, free=0, labels={"zone": "y"})
    assert chosen(*nodes, wish=labelled({"zone": "y"}, {"zone": "x"})) == (
        Verdict.NOW,
        A,
    )
    assert chosen(nodes[1], wish=labelled({"zone": "q"}, {"zone": "y"})) == (
        Verdict.LATER,
        B,
    )


def test_preferred_labels_are_only_preferred():
    fast = (("disk", LabelCondition((ABSENT,), negated=True)),)
    nodes = node(A, free=8, local=True), node(B, free=1, labels={"disk": "fast"})
    assert chosen(*nodes, wish=PlacementWish(preferred=fast)) == (Verdict.NOW, B)
    assert chosen(nodes[0], wish=PlacementWish(preferred=fast)) == (Verdict.NOW, A)


# ------------------------------------------------------------------ in general

NODES = st.lists(
    st.builds(
        lambda key, total, used, zone, local: NodeView(
            bytes([key]),
            ResourceSet({"CPU": total}),
            ResourceSet({"CPU": max(0, total - used)}),
            {"zone": zone},
            local,
        ),
        st.integers(0, 255),
        st.integers(0, 6),
        st.integers(0, 6),
        st.sampled_from("xyz"),
        st.booleans(),
    ),
    max_size=6,
    unique_by=lambda view: view.node_id,
)
WISHES = st.builds(
    PlacementWish,
    st.booleans(),
    st.none() | st.builds(NodeAffinity, st.binary(max_size=1), st.booleans()),
    st.lists(
        st.sampled_from("xyzq").map(lambda zone: parse_selector({"zone": zone})),
        max_size=2,
    ).map(tuple),
)


@given(NODES, WISHES, st.integers(0, 7))
def test_the_verdict_is_true(nodes, wish, cpus):
    request = ResourceSet({"CPU": cpus})
    placement = choose_node(request, nodes, wish)
    assert choose_node(request, nodes[::-1], wish) == placement
    if placement.verdict is Verdict.NEVER:
        assert placement.node_id is None
        assert placement.reason
        if wish.affinity is None:
            assert not any(
                request.fits_in(view.total)
                and any(matches(sel, view.labels) for sel in wish.alternatives or [()])
                for view in nodes
            )
        return
    (view,) = [view for view in nodes if view.node_id == placement.node_id]
    assert request.fits_in(view.total)
    assert request.fits_in(view.available) is (placement.verdict is Verdict.NOW)
