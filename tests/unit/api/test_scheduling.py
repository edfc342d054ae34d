"""Scheduling strategies: checked when made, equal by content, and they travel."""

import pickle

import pytest

from shoal._api.scheduling import wish_of
from shoal._core.base.labels import matches, parse_selector
from shoal._core.base.placement_wish import NodeAffinity, PlacementWish
from shoal.util import scheduling_strategies as public
from shoal.util.scheduling_strategies import (
    DoesNotExist,
    Exists,
    In,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    NotIn,
    PlacementGroupSchedulingStrategy,
)

NODE = "ab" * 28


class Group:
    """As much of a placement group as strategies look at."""

    bundle_count = 2

    def __eq__(self, other):
        return isinstance(other, Group)

    def __hash__(self):
        return 1


VALUES = [
    PlacementGroupSchedulingStrategy(Group(), 1, True),
    PlacementGroupSchedulingStrategy(None),
    NodeAffinitySchedulingStrategy(NODE, soft=False, _fail_on_unavailable=True),
    NodeAffinitySchedulingStrategy(NODE, True, _spill_on_unavailable=True),
    NodeLabelSchedulingStrategy({"zone": In("a", "b"), "os": Exists()}),
    NodeLabelSchedulingStrategy({}, soft={"disk": NotIn("slow"), "x": DoesNotExist()}),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_compare_hash_and_travel(value):
    copy = pickle.loads(pickle.dumps(value))
    assert copy == value
    assert hash(copy) == hash(value)
    assert [value == other for other in VALUES].count(True) == 1


def test_operators_are_not_each_other():
    assert In("a") == In("a")
    assert In("a") != NotIn("a")
    assert In("a") != "a"
    assert Exists() == Exists()
    assert Exists() != DoesNotExist()
    assert repr(NotIn("a", "b")) == "NotIn('a', 'b')"
    assert In("a", "b").values == ["a", "b"]


def test_public_path():
    for name in public.__all__:
        if isinstance(getattr(public, name), type):
            assert getattr(public, name).__module__ == public.__name__


def test_values_do_not_change():
    with pytest.raises(AttributeError):
        VALUES[2].soft = True


@pytest.mark.parametrize("node_id", ["zz", "ab", "", "z" * 56, "ab" * 17, 3])
def test_bad_node_ids(node_id):
    with pytest.raises(ValueError, match=r"Invalid node_id.*shoal\.nodes\(\)"):
        NodeAffinitySchedulingStrategy(node_id, soft=True)


def test_node_ids_may_be_id_objects_and_long_as_in_ray():
    assert NodeAffinitySchedulingStrategy(bytes(28), soft=True).node_id == "00" * 28
    assert NodeAffinitySchedulingStrategy("cd" * 28, soft=True).node_id == "cd" * 28


def test_flags_that_contradict_softness():
    with pytest.raises(ValueError, match="_spill_on_unavailable cannot be set"):
        NodeAffinitySchedulingStrategy(NODE, False, _spill_on_unavailable=True)
    with pytest.raises(ValueError, match="_fail_on_unavailable cannot be set"):
        NodeAffinitySchedulingStrategy(NODE, True, _fail_on_unavailable=True)
    with pytest.raises(TypeError, match="soft"):
        NodeAffinitySchedulingStrategy(NODE)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("group",), TypeError),
        ((Group(), "0"), TypeError),
        ((Group(), 0, 1), TypeError),
    ],
)
def test_bad_placement_group_strategies(arguments, error):
    with pytest.raises(error, match="placement_group"):
        PlacementGroupSchedulingStrategy(*arguments)


@pytest.mark.parametrize("operator", [In, NotIn])
def test_operators_need_texts(operator):
    with pytest.raises(ValueError, match="at least one value"):
        operator()
    with pytest.raises(ValueError, match="position 1"):
        operator("a", 1)


@pytest.mark.parametrize(
    "hard", [None, {}, [1], {"zone": "a"}, {1: In("a")}, {"zone": In}]
)
def test_bad_label_strategies(hard):
    with pytest.raises(ValueError, match="hard"):
        NodeLabelSchedulingStrategy(hard)


def test_soft_is_by_keyword_only():
    with pytest.raises(TypeError):
        NodeLabelSchedulingStrategy({"a": In("b")}, {"a": In("b")})


# ---------------------------------------------------------------------- wishes


def test_no_wish():
    group = PlacementGroupSchedulingStrategy(Group())
    for strategy in (None, "DEFAULT", group):
        assert wish_of(strategy) is None
    assert wish_of(None, {}, []) is None


def test_simple_wishes():
    assert wish_of("SPREAD") == PlacementWish(spread=True)
    assert wish_of(VALUES[2]) == PlacementWish(
        affinity=NodeAffinity(bytes.fromhex(NODE), False, False, True)
    )
    assert wish_of(VALUES[3]) == PlacementWish(
        affinity=NodeAffinity(bytes.fromhex(NODE), True, True, False)
    )
    with pytest.raises(ValueError, match="must be one of"):
        wish_of("EVERYWHERE")


def test_selectors_and_fallbacks_are_alternatives():
    wish = wish_of(None, {"zone": "a"}, [{"label_selector": {"zone": "b"}}])
    assert wish.alternatives == (
        parse_selector({"zone": "a"}),
        parse_selector({"zone": "b"}),
    )
    # Without a selector of its own, any node comes before the fallback.
    only = wish_of(None, None, [{"label_selector": {"zone": "b"}}])
    assert only.alternatives == ((), parse_selector({"zone": "b"}))


@pytest.mark.parametrize(
    ("operator", "accepted", "refused"),
    [
        (In("a", "b"), [{"zone": "a"}, {"zone": "b"}], [{}, {"zone": "c"}]),
        (NotIn("a"), [{}, {"zone": "c"}], [{"zone": "a"}]),
        (Exists(), [{"zone": ""}, {"zone": "a"}], [{}]),
        (DoesNotExist(), [{}], [{"zone": ""}]),
    ],
)
def test_label_operators(operator, accepted, refused):
    wish = wish_of(NodeLabelSchedulingStrategy({"zone": operator}))
    (selector,) = wish.alternatives
    assert all(matches(selector, labels) for labels in accepted)
    assert not any(matches(selector, labels) for labels in refused)
    soft = wish_of(NodeLabelSchedulingStrategy({}, soft={"zone": operator}))
    assert soft.preferred == selector


def test_hard_labels_hold_with_every_alternative():
    strategy = NodeLabelSchedulingStrategy({"os": In("linux")})
    wish = wish_of(strategy, {"zone": "a"}, [{"label_selector": {"zone": "b"}}])
    assert [matches(s, {"zone": "a", "os": "linux"}) for s in wish.alternatives] == [
        True,
        False,
    ]
    assert not any(matches(s, {"zone": "a"}) for s in wish.alternatives)
