"""The arena keeps its promises: no overlap, merging, warm reuse, a low mark."""

from __future__ import annotations

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
)

from shoal._core.store.arena import PAGE_ALIGNED_FROM_BYTES, PAGE_BYTES, Arena

MIB = 1 << 20


def taken(arena: Arena, size: int) -> int:
    offset = arena.allocate(size)
    assert offset is not None, f"no room for {size} bytes: {arena.holes()}"
    arena.check()
    return offset


@pytest.mark.parametrize("alignment", [0, 4, 48, 8192, -64])
def test_bad_alignment_is_refused(alignment: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        Arena(MIB, alignment)


def test_capacity_below_one_unit_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one unit"):
        Arena(63)


def test_capacity_is_rounded_down_to_the_alignment() -> None:
    arena = Arena(1000)
    assert arena.capacity == 960
    assert arena.largest_hole == 960
    assert taken(arena, 960) == 0
    assert arena.largest_hole == 0
    assert arena.holes() == []


def test_blocks_are_aligned_and_counted_as_reserved() -> None:
    arena = Arena(MIB)
    assert taken(arena, 1) == 0
    assert taken(arena, 65) == 64
    assert arena.used == 64 + 128
    assert arena.blocks() == [(0, 64), (64, 128)]


def test_zero_bytes_get_an_offset_of_their_own() -> None:
    arena = Arena(MIB)
    assert taken(arena, 0) != taken(arena, 0)


def test_negative_size_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        Arena(MIB).allocate(-1)


def test_large_blocks_start_on_a_page_and_leave_the_gap_usable() -> None:
    arena = Arena(MIB)
    taken(arena, 1)
    large = taken(arena, PAGE_ALIGNED_FROM_BYTES)
    assert large == PAGE_BYTES
    assert taken(arena, PAGE_BYTES - 64) == 64


def test_large_sizes_are_whole_pages() -> None:
    arena = Arena(MIB)
    taken(arena, PAGE_ALIGNED_FROM_BYTES + 1)
    assert arena.used == PAGE_ALIGNED_FROM_BYTES + PAGE_BYTES


def test_a_full_arena_says_none_and_changes_nothing() -> None:
    arena = Arena(MIB)
    taken(arena, MIB - PAGE_BYTES)
    before = arena.holes()
    assert arena.allocate(PAGE_BYTES + 1) is None
    assert arena.holes() == before
    assert taken(arena, PAGE_BYTES) == MIB - PAGE_BYTES


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (0, 2, 1), (1, 0, 2)])
def test_neighbours_merge_in_any_order(order: tuple[int, ...]) -> None:
    arena = Arena(MIB)
    offsets = [taken(arena, 1000) for _ in range(3)]
    taken(arena, 1000)
    for index in order:
        arena.free(offsets[index])
        arena.check()
    assert arena.holes()[0] == (0, 3 * 1024)


def test_freeing_twice_or_in_the_middle_is_refused() -> None:
    arena = Arena(MIB)
    offset = taken(arena, 1000)
    with pytest.raises(ValueError, match="no block starts at offset 64"):
        arena.free(offset + 64)
    assert arena.free(offset) == 1024
    with pytest.raises(ValueError, match="freed before"):
        arena.free(offset)


def test_the_last_freed_of_equal_holes_is_reused_first() -> None:
    arena = Arena(64 * MIB)
    offsets = []
    for _ in range(4):
        offsets.append(taken(arena, MIB))
        taken(arena, PAGE_ALIGNED_FROM_BYTES)  # keeps the holes apart
    for index in (1, 3, 0, 2):
        arena.free(offsets[index])
    assert [taken(arena, MIB) for _ in range(4)] == [
        offsets[index] for index in (2, 0, 3, 1)
    ]


def test_a_closely_fitting_hole_is_preferred_to_a_larger_one() -> None:
    arena = Arena(64 * MIB)
    small = taken(arena, MIB)
    taken(arena, 64)
    large = taken(arena, 8 * MIB)
    taken(arena, 64)
    arena.free(small)
    arena.free(large)
    assert taken(arena, MIB) == small


def test_warm_memory_is_preferred_to_untouched_memory() -> None:
    arena = Arena(1024 * MIB)
    first = taken(arena, 100 * MIB)
    taken(arena, 64)
    arena.free(first)
    mark = arena.high_water
    assert taken(arena, 3 * MIB) == first
    assert arena.high_water == mark


def test_the_warm_hole_below_the_frontier_is_extended() -> None:
    arena = Arena(1024 * MIB)
    first = taken(arena, 10 * MIB)
    arena.free(first)
    assert taken(arena, 15 * MIB) == first
    assert arena.high_water == 15 * MIB


def test_put_and_free_in_a_loop_touches_no_new_memory() -> None:
    arena = Arena(1024 * MIB)
    for _ in range(100):
        arena.free(taken(arena, 100 * MIB))
    assert arena.high_water == 100 * MIB


def test_a_fitting_hole_is_found_behind_many_that_do_not_fit() -> None:
    """The bounded look at recent holes must not turn into a false "full"."""
    arena = Arena(2 * MIB)
    fitting = taken(arena, 35 * 64)
    taken(arena, 64)
    slightly_small = []
    for _ in range(30):
        slightly_small.append(taken(arena, 32 * 64))  # a hole of the same bin
        taken(arena, 64)
    while arena.largest_hole:
        taken(arena, min(arena.largest_hole, PAGE_BYTES))
    for offset in (fitting, *slightly_small):
        arena.free(offset)
    assert taken(arena, 35 * 64) == fitting


def test_fragmentation_stays_bounded_under_random_churn() -> None:
    rng = random.Random(7)
    arena = Arena(4096 * MIB)
    live: list[int] = []
    most_used = 0
    for _ in range(20_000):
        live.append(taken_unchecked(arena, int(2 ** rng.uniform(7, 22))))
        most_used = max(most_used, arena.used)
        if len(live) > 300:
            arena.free(live.pop(rng.randrange(len(live))))
    arena.check()
    assert arena.high_water < 1.7 * most_used


def taken_unchecked(arena: Arena, size: int) -> int:
    offset = arena.allocate(size)
    assert offset is not None
    return offset


def test_holes_join_the_untouched_rest() -> None:
    arena = Arena(MIB)
    first = taken(arena, 1024)
    arena.free(first)
    assert arena.holes() == [(0, MIB)]
    assert arena.largest_hole == MIB


@pytest.mark.parametrize(
    "damage",
    [
        lambda arena: arena._holes.update({0: 128}),
        lambda arena: arena._hole_ends.clear(),
        lambda arena: arena._blocks.clear(),
        lambda arena: setattr(arena, "_filled_bins", 0),
        lambda arena: setattr(arena, "_used", 1),
        lambda arena: setattr(arena, "_frontier", 64),
    ],
)
def test_check_notices_damage(damage: object) -> None:
    arena = Arena(MIB)
    first = taken(arena, 64)
    taken(arena, 64)
    arena.free(first)
    assert callable(damage)
    damage(arena)
    with pytest.raises(AssertionError):
        arena.check()


class ArenaModel(RuleBasedStateMachine):
    """Random requests against a plain model: a list of the live ranges."""

    offsets: Bundle[int] = Bundle("offsets")

    def __init__(self) -> None:
        super().__init__()
        self.arena = Arena(64 * PAGE_BYTES)
        self.live: dict[int, int] = {}

    @rule(
        target=offsets,
        size=st.one_of(
            st.integers(0, 600),
            st.integers(0, 5 * PAGE_BYTES),
            st.integers(PAGE_ALIGNED_FROM_BYTES, 40 * PAGE_BYTES),
        ),
    )
    def allocate(self, size: int) -> object:
        room = [self.fits(size, hole) for hole in self.arena.holes()]
        offset = self.arena.allocate(size)
        if offset is None:
            assert not any(room), f"{size} bytes fit in {self.arena.holes()}"
            return multiple()
        assert any(room)
        unit = PAGE_BYTES if size >= PAGE_ALIGNED_FROM_BYTES else 64
        assert offset % unit == 0
        assert offset + size <= self.arena.capacity
        for other, other_size in self.live.items():
            assert offset + size <= other or other + other_size <= offset
        self.live[offset] = max(size, 1)
        return offset

    def fits(self, size: int, hole: tuple[int, int]) -> bool:
        start, length = hole
        unit = PAGE_BYTES if size >= PAGE_ALIGNED_FROM_BYTES else 64
        return length - (-start % unit) >= self.arena.reserved_size(size)

    @rule(offset=consumes(offsets))
    def free(self, offset: int) -> None:
        size = self.live.pop(offset)
        assert self.arena.free(offset) == self.arena.reserved_size(size)

    @invariant()
    def adds_up(self) -> None:
        self.arena.check()
        free_bytes = sum(size for _, size in self.arena.holes())
        assert free_bytes + self.arena.used == self.arena.capacity
        largest = max((size for _, size in self.arena.holes()), default=0)
        assert self.arena.largest_hole == largest

    def teardown(self) -> None:
        for offset in self.live:
            self.arena.free(offset)
        assert self.arena.holes() == [(0, self.arena.capacity)]
        self.arena.check()


TestArenaModel = ArenaModel.TestCase
TestArenaModel.settings = settings(
    max_examples=60, stateful_step_count=60, deadline=None
)
