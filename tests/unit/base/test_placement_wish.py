"""Wishes: they travel as lists and can be keys."""

import msgspec

from shoal._core.base.labels import parse_selector
from shoal._core.base.placement_wish import NO_WISH, NodeAffinity, PlacementWish

FULL = PlacementWish(
    spread=True,
    affinity=NodeAffinity(b"node", soft=True, spill_if_busy=True),
    alternatives=(parse_selector({"zone": "in(a,b)"}), parse_selector({"os": "!x"})),
    preferred=parse_selector({"disk": "fast"}),
)


def test_wishes_survive_a_message():
    for wish in (NO_WISH, FULL):
        decoded = msgspec.msgpack.decode(msgspec.msgpack.encode(wish.to_list()))
        assert PlacementWish.from_list(decoded) == wish


def test_equal_wishes_are_the_same_key():
    assert len({FULL, PlacementWish.from_list(FULL.to_list()), NO_WISH}) == 2
