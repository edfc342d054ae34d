"""Allocate, free and merge ranges of a fixed span of shared memory.

Theory.  The first touch of a shared-memory page costs about ten times a later
one, because the kernel has to find and clear it.  So the arena keeps one
high-water mark, the *frontier*: every byte below it has been handed out before
and is warm, every byte above it has never been touched.  A request is served
from warm holes whenever one fits and moves the frontier only when none does.

Warm holes are kept in bins by size, eight bins per doubling, so a hole of the
bin above the request's own wastes at most an eighth.  Each bin is a dict in
order of freeing, its end being the memory that most likely still is in a cache.
A bitmap of non-empty bins makes the search a few integer operations.  Holes are
found by their start and by their end, so freeing merges with both neighbours
in constant time and two holes never touch.

Invariants (`check`): blocks and holes tile ``[0, frontier)`` exactly; no two holes
are neighbours; every hole is in the bin of its size; a request fails only when
no hole, nor the space at the frontier, can hold it.

What it does not do: it knows no owners, no pins and no memory, and it never gives
pages back to the kernel.
"""

from __future__ import annotations

from itertools import islice

__all__ = ["PAGE_ALIGNED_FROM_BYTES", "PAGE_BYTES", "Arena"]

PAGE_BYTES = 4096
"""Alignment and rounding of large blocks: the page size of every Linux we run on."""

PAGE_ALIGNED_FROM_BYTES = 16 * PAGE_BYTES
"""Blocks of this size and above are whole pages.  At 16 pages the rounding wastes
at most a sixteenth; below it, whole pages would waste too much."""

_RECENT_HOLES_LOOKED_AT = 8
"""How many holes of a bin that may or may not fit are tried before a larger bin."""


class Arena:
    """Ranges of ``[0, capacity)``, reused warm and last freed first.

    Args:
        capacity: size of the span in bytes; rounded down to the alignment.
        alignment: power of two from 8 to 4096, in bytes; offsets and reserved sizes
            are multiples of it.  The default, 64, is a cache line and what
            vectorised code wants of its arrays.

    Raises:
        ValueError: capacity below the alignment, or a bad alignment.
    """

    __slots__ = (
        "_alignment",
        "_bins",
        "_blocks",
        "_capacity",
        "_filled_bins",
        "_frontier",
        "_hole_ends",
        "_holes",
        "_unit_bits",
        "_used",
    )

    def __init__(self, capacity: int, alignment: int = 64) -> None:
        if not 8 <= alignment <= PAGE_BYTES or alignment & (alignment - 1):
            raise ValueError(
                f"alignment must be a power of two from 8 to {PAGE_BYTES} bytes, "
                f"not {alignment}"
            )
        if capacity < alignment:
            raise ValueError(
                f"an arena needs at least one unit of {alignment} bytes, "
                f"but its capacity is {capacity}"
            )
        self._alignment = alignment
        self._unit_bits = alignment.bit_length() - 1
        self._capacity = capacity & -alignment
        self._frontier = 0
        self._used = 0
        self._blocks: dict[int, int] = {}  # offset -> reserved size
        self._holes: dict[int, int] = {}  # offset -> size, below the frontier
        self._hole_ends: dict[int, int] = {}  # end -> offset of the same hole
        bin_count = self._bin_of(self._capacity) + 1
        self._bins: list[dict[int, None]] = [{} for _ in range(bin_count)]
        self._filled_bins = 0  # bit i is set when bin i holds something

    @property
    def capacity(self) -> int:
        """Bytes that can be handed out in all."""
        return self._capacity

    @property
    def used(self) -> int:
        """Bytes reserved now, rounding included."""
        return self._used

    @property
    def high_water(self) -> int:
        """Bytes ever handed out: an upper bound of the memory the kernel backs."""
        return self._frontier

    @property
    def largest_hole(self) -> int:
        """Size in bytes of the largest free range, warm and untouched taken together.

        A large request also needs a page boundary in it: up to `PAGE_BYTES` less
        the alignment may be lost to that.
        """
        virgin = self._capacity - self._frontier
        touching = self._hole_ends.get(self._frontier)
        if touching is not None:
            virgin += self._frontier - touching
        if not self._filled_bins:
            return virgin
        largest_bin = self._bins[self._filled_bins.bit_length() - 1]
        return max(virgin, max(self._holes[offset] for offset in largest_bin))

    def holes(self) -> list[tuple[int, int]]:
        """Free ranges as (offset, size) in address order, neighbours joined."""
        found = sorted(self._holes.items())
        if self._frontier < self._capacity:
            start = self._frontier
            if found and sum(found[-1]) == start:
                start = found.pop()[0]
            found.append((start, self._capacity - start))
        return found

    def blocks(self) -> list[tuple[int, int]]:
        """Reserved ranges as (offset, reserved size) in address order."""
        return sorted(self._blocks.items())

    def reserved_size(self, size: int) -> int:
        """Bytes that a request for `size` bytes takes out of the arena."""
        if size < 0:
            raise ValueError(f"a size in bytes cannot be negative: {size}")
        unit = PAGE_BYTES if size >= PAGE_ALIGNED_FROM_BYTES else self._alignment
        # Zero bytes take one unit, so that no two blocks share an offset.
        return (max(size, 1) + unit - 1) & -unit

    def allocate(self, size: int) -> int | None:
        """Reserve `size` bytes and return their offset, or None when nothing fits.

        The range may hold old bytes.  From `PAGE_ALIGNED_FROM_BYTES` on, the offset
        is a multiple of `PAGE_BYTES`, else of the alignment.

        Raises:
            ValueError: negative size.
        """
        reserved = self.reserved_size(size)
        unit = PAGE_BYTES if size >= PAGE_ALIGNED_FROM_BYTES else self._alignment
        hole = self._find_warm(reserved, unit, _RECENT_HOLES_LOOKED_AT)
        if hole is None and self._grow(reserved, unit):
            hole = self._hole_ends[self._frontier]
        if hole is None:
            hole = self._find_warm(reserved, unit, None)
        if hole is None:
            return None
        hole_size = self._take_hole(hole)
        offset = (hole + unit - 1) & -unit
        if offset > hole:
            self._add_hole(hole, offset - hole)
        rest = hole + hole_size - offset - reserved
        if rest:
            self._add_hole(offset + reserved, rest)
        self._blocks[offset] = reserved
        self._used += reserved
        return offset

    def free(self, offset: int) -> int:
        """Give the block at `offset` back; returns its reserved size in bytes.

        Raises:
            ValueError: no block starts at `offset`.
        """
        size = self._blocks.pop(offset, None)
        if size is None:
            raise ValueError(
                f"no block starts at offset {offset}: it was freed before or "
                "never handed out"
            )
        self._used -= size
        start, end = offset, offset + size
        left = self._hole_ends.get(start)
        if left is not None:
            self._take_hole(left)
            start = left
        if end in self._holes:
            end += self._take_hole(end)
        self._add_hole(start, end - start)
        return size

    def check(self) -> None:
        """Assert every invariant; linear in the number of blocks and holes."""
        ranges = sorted([*self._blocks.items(), *self._holes.items()])
        expected = 0
        previous_is_hole = False
        for offset, size in ranges:
            assert offset == expected, f"gap or overlap at {expected}: next is {offset}"
            assert size > 0, (offset, size)
            assert size % self._alignment == 0, (offset, size)
            is_hole = offset in self._holes
            assert not (is_hole and previous_is_hole), f"unmerged holes at {offset}"
            previous_is_hole = is_hole
            expected = offset + size
        assert expected == self._frontier <= self._capacity
        assert self._used == sum(self._blocks.values())
        ends = {offset + size: offset for offset, size in self._holes.items()}
        assert self._hole_ends == ends
        for offset, size in self._holes.items():
            assert offset in self._bins[self._bin_of(size)], (offset, size)
        assert sum(map(len, self._bins)) == len(self._holes)
        for index, members in enumerate(self._bins):
            assert bool(members) == bool(self._filled_bins >> index & 1), index

    def _bin_of(self, size: int) -> int:
        """The bin for `size` bytes: eight per doubling, exact below 16 units."""
        units = size >> self._unit_bits
        shift = units.bit_length() - 4
        return units if shift <= 0 else (shift << 3) + (units >> shift)

    def _find_warm(self, reserved: int, unit: int, look_at: int | None) -> int | None:
        """Offset of a hole that can hold the request, the closest bin first.

        Holes up to `sure` may be too small or lose too much to the page boundary, so
        at most `look_at` of each bin are tried; None tries them all.
        """
        sure = self._bin_of(reserved + unit - self._alignment) + 1
        index = self._bin_of(reserved)
        holes = self._holes
        while filled := self._filled_bins >> index:
            index += (filled & -filled).bit_length() - 1
            members = self._bins[index]
            if index >= sure:
                return next(reversed(members))
            for offset in islice(reversed(members), look_at):
                if holes[offset] - (-offset & (unit - 1)) >= reserved:
                    return offset
            index += 1
        return None

    def _grow(self, reserved: int, unit: int) -> bool:
        """Move the frontier so that the hole below it holds the request.

        The warm hole that ends at the frontier, if any, becomes the first part of
        the block, which keeps the mark as low as possible.
        """
        start = self._hole_ends.get(self._frontier, self._frontier)
        end = ((start + unit - 1) & -unit) + reserved
        if end > self._capacity:
            return False
        if start < self._frontier:
            self._take_hole(start)
        self._frontier = end
        self._add_hole(start, end - start)
        return True

    def _add_hole(self, offset: int, size: int) -> None:
        index = self._bin_of(size)
        self._holes[offset] = size
        self._hole_ends[offset + size] = offset
        self._bins[index][offset] = None
        self._filled_bins |= 1 << index

    def _take_hole(self, offset: int) -> int:
        size = self._holes.pop(offset)
        del self._hole_ends[offset + size]
        index = self._bin_of(size)
        members = self._bins[index]
        del members[offset]
        if not members:
            self._filled_bins &= ~(1 << index)
        return size
