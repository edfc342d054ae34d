"""Resource quantities: fixed-point sets of them, and a pool that hands them out.

Resources are logical: "CPU" 2 is a count that scheduling respects, not a limit that
the operating system enforces.

Theory: quantities are integers in units of 1/10000, so that giving 0.1 ten times and
taking it back ten times ends exactly where it began; floating point would leave a
remainder that one day refuses a task. A :class:`ResourceSet` is in normal form (names
sorted, no zeros), so equal sets compare, hash and print alike.

A :class:`ResourcePool` is one node's supply, or one bundle's. Besides counting, it
keeps track of *unit-instance* resources such as "GPU", where it matters which ones a
holder got: a share below one comes from a single instance, anything above one is a
whole number of free instances.

Invariants, asserted: a set never holds a negative quantity; total = available + held
for every name; an instance is never given out beyond its capacity; an allocation is
released once. ``available`` may go below zero inside (*debt*) only through
:meth:`ResourcePool.acquire_forced` and :meth:`ResourcePool.resume`; outside it reads
as 0 until the debt is paid, and nothing more is granted from it.

What it does not do: decide who gets resources (policy, leases), or know what a
placement group is; a bundle is a pool of its own over what was allocated for it.
"""

from collections.abc import ItemsView, Iterator, Mapping
from math import isfinite

UNITS_PER_ONE = 10_000
"""Resolution: one unit is 0.0001 of a resource."""

UNIT_INSTANCE_NAMES = ("GPU",)
"""Resources of which it matters which instances a holder has."""

_BOUND_WHILE_RUNNING = "CPU"
"""What a blocked worker gives back: the rest it still occupies while it waits."""


def to_units(name: str, amount: float) -> int:
    """Return ``amount`` of resource ``name`` in units of 1/10000, rounded.

    Raises:
        ValueError: if it is negative, not finite, or positive but below 0.0001.
    """
    if not isfinite(amount):
        raise ValueError(f"The quantity of resource {name} must be finite: {amount!r}.")
    if amount < 0:
        raise ValueError(
            f"The quantity of resource {name} cannot be negative: {amount!r}."
        )
    if 0 < amount < 1 / UNITS_PER_ONE:
        raise ValueError(
            f"The quantity of resource {name} is {amount!r}; the finest quantity is "
            f"{1 / UNITS_PER_ONE} (or exactly 0)."
        )
    return round(amount * UNITS_PER_ONE)


class ResourceSet:
    """An unchanging set of resource quantities, usable as a dictionary key.

    Args:
        amounts: name to quantity, in ones ("CPU": 0.5) or bytes ("memory").

    Raises:
        ValueError: if a quantity is negative, not finite or finer than 0.0001.
    """

    __slots__ = ("_hash", "_units")

    _units: dict[str, int]
    _hash: int | None

    def __init__(self, amounts: Mapping[str, float] | None = None) -> None:
        units = {}
        if amounts:
            for name in sorted(amounts):
                quantity = to_units(name, amounts[name])
                if quantity:
                    units[name] = quantity
        self._units = units
        self._hash = None

    @classmethod
    def from_units(cls, units: Mapping[str, int]) -> "ResourceSet":
        """Build a set from quantities that are already in units of 1/10000."""
        new = cls.__new__(cls)
        new._units = {name: units[name] for name in sorted(units) if units[name]}
        new._hash = None
        assert all(quantity > 0 for quantity in new._units.values()), units
        return new

    def to_units(self) -> dict[str, int]:
        """Return a copy of the quantities in units of 1/10000, for messages."""
        return dict(self._units)

    def to_floats(self) -> dict[str, float]:
        """Return the quantities as the user writes them: ones, and bytes."""
        return {
            name: quantity / UNITS_PER_ONE for name, quantity in self._units.items()
        }

    def items(self) -> ItemsView[str, int]:
        """Return the names and their quantities in units of 1/10000, sorted by name."""
        return self._units.items()

    def units_of(self, name: str) -> int:
        """Return the quantity of ``name`` in units of 1/10000, 0 if absent."""
        return self._units.get(name, 0)

    def amount_of(self, name: str) -> float:
        """Return the quantity of ``name`` in ones, 0.0 if absent."""
        return self._units.get(name, 0) / UNITS_PER_ONE

    def add(self, other: "ResourceSet") -> "ResourceSet":
        """Return the sum of both sets."""
        units = dict(self._units)
        for name, quantity in other._units.items():
            units[name] = units.get(name, 0) + quantity
        return ResourceSet.from_units(units)

    def subtract(self, other: "ResourceSet") -> "ResourceSet":
        """Return what is left when ``other``, which must fit, is taken away."""
        assert other.fits_in(self), f"{other} does not fit in {self}"
        units = dict(self._units)
        for name, quantity in other._units.items():
            units[name] -= quantity
        return ResourceSet.from_units(units)

    def scaled(self, count: int) -> "ResourceSet":
        """Return ``count`` times this set; ``count`` is at least 0."""
        assert count >= 0, count
        return ResourceSet.from_units(
            {name: quantity * count for name, quantity in self._units.items()}
        )

    def without(self, name: str) -> "ResourceSet":
        """Return this set with no ``name`` in it."""
        return ResourceSet.from_units(
            {other: units for other, units in self._units.items() if other != name}
        )

    def fits_in(self, room: "ResourceSet") -> bool:
        """Return whether every quantity is at most that of ``room``."""
        room_units = room._units
        for name, quantity in self._units.items():
            if room_units.get(name, 0) < quantity:
                return False
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self._units)

    def __len__(self) -> int:
        return len(self._units)

    def __contains__(self, name: object) -> bool:
        return name in self._units

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ResourceSet):
            return NotImplemented
        return self._units == other._units

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(tuple(self._units.items()))
        return self._hash

    def __reduce__(self) -> tuple[object, tuple[dict[str, int]]]:
        # The cached hash must not travel: string hashes differ between processes.
        return ResourceSet.from_units, (self._units,)

    def __str__(self) -> str:
        parts = [f"{amount:g} {name}" for name, amount in self.to_floats().items()]
        return ", ".join(parts) or "nothing"

    def __repr__(self) -> str:
        return f"ResourceSet({self.to_floats()!r})"


NO_RESOURCES = ResourceSet()
"""The empty set: a request that fits everywhere."""

Shares = dict[str, dict[int, int]]
"""Unit-instance resource → instance index → units of it."""


class Allocation:
    """What one holder has from one pool; made and ended by the pool only."""

    __slots__ = ("number", "paused", "request", "shares")

    number: int
    """Which allocation of its pool this is, counted from 1."""
    request: ResourceSet
    """What was asked for and given."""
    shares: Shares
    """Which instances it got; empty without unit-instance resources."""
    paused: bool
    """True while its CPU is given back because the holder is blocked."""

    def __init__(self, number: int, request: ResourceSet, shares: Shares) -> None:
        self.number = number
        self.request = request
        self.shares = shares
        self.paused = False

    @property
    def gpu_ids(self) -> list[int]:
        """The indices of the GPUs it has all or a share of, ascending."""
        return sorted(self.shares.get("GPU", ()))

    def __repr__(self) -> str:
        state = ", paused" if self.paused else ""
        return f"Allocation({self.number}, {self.request}, gpus {self.gpu_ids}{state})"


class ResourcePool:
    """A supply of resources, what of it is available, and who holds the rest.

    Args:
        total: the whole supply.
        shares: which instances the supply consists of, for a pool made of an
            allocation (``Allocation.shares``). By default indices 0, 1, … of each
            unit-instance resource, one whole each.

    Raises:
        ValueError: if ``shares`` is not given and a unit-instance resource is not a
            whole number.
    """

    __slots__ = ("_available", "_capacity", "_free", "_held", "_last_number", "total")

    total: ResourceSet
    """The whole supply, held or not."""

    def __init__(self, total: ResourceSet, shares: Shares | None = None) -> None:
        self.total = total
        self._available = total.to_units()
        self._capacity = _whole_instances(total) if shares is None else shares
        self._free = {name: dict(free) for name, free in self._capacity.items()}
        self._held: dict[int, Allocation] = {}
        self._last_number = 0
        self.check()

    @property
    def available(self) -> ResourceSet:
        """What can be granted now; a resource in debt counts as none."""
        return ResourceSet.from_units(
            {name: max(0, units) for name, units in self._available.items()}
        )

    @property
    def held_count(self) -> int:
        """How many allocations are not yet released."""
        return len(self._held)

    def debt_of(self, name: str) -> float:
        """Return how much of ``name`` is given out beyond the total, in ones."""
        return max(0, -self._available.get(name, 0)) / UNITS_PER_ONE

    def could_ever_fit(self, request: ResourceSet) -> bool:
        """Return whether the request would be granted if nothing else was held."""
        return (
            request.fits_in(self.total)
            and _choose_shares(request, self._capacity) is not None
        )

    def fits_now(self, request: ResourceSet) -> bool:
        """Return whether :meth:`acquire` would grant the request now."""
        return (
            self._counts_fit(request)
            and _choose_shares(request, self._free) is not None
        )

    def acquire(self, request: ResourceSet) -> Allocation | None:
        """Give out the whole request, or nothing and return None."""
        if not self._counts_fit(request):
            return None
        shares = _choose_shares(request, self._free)
        if shares is None:
            return None
        return self._give(request, shares)

    def acquire_forced(self, request: ResourceSet) -> Allocation:
        """Give out the request even beyond what there is, leaving a debt.

        For a holder that can't be made to wait any longer. Unit-instance resources
        can't be conjured up, so they must not be part of the request.
        """
        for name in request:
            assert name not in self._capacity, f"{name} can't be given beyond its total"
        return self._give(request, {})

    def release(self, allocation: Allocation) -> None:
        """Take back all that the allocation still holds; it ends here."""
        held = self._held.pop(allocation.number, None)
        assert held is allocation, f"{allocation} is not held here (released twice?)"
        if allocation.paused:
            self._take_back(allocation.request.without(_BOUND_WHILE_RUNNING))
        else:
            self._take_back(allocation.request)
        for name, shares in allocation.shares.items():
            free = self._free[name]
            for index, units in shares.items():
                free[index] += units
                assert free[index] <= self._capacity[name][index], allocation

    def pause(self, allocation: Allocation) -> None:
        """Take back the CPU of a holder that is blocked; it keeps everything else."""
        assert self._held.get(allocation.number) is allocation, allocation
        assert not allocation.paused, f"{allocation} is paused already"
        allocation.paused = True
        units = allocation.request.units_of(_BOUND_WHILE_RUNNING)
        if units:
            self._available[_BOUND_WHILE_RUNNING] += units

    def resume(self, allocation: Allocation) -> None:
        """Give the CPU back to a holder that runs again, as a debt if it must be."""
        assert self._held.get(allocation.number) is allocation, allocation
        assert allocation.paused, f"{allocation} is not paused"
        allocation.paused = False
        units = allocation.request.units_of(_BOUND_WHILE_RUNNING)
        if units:
            self._available[_BOUND_WHILE_RUNNING] -= units

    def check(self) -> None:
        """Assert every invariant; costs a pass over all that is held."""
        held = dict.fromkeys(self._available, 0)
        free = {name: dict(full) for name, full in self._capacity.items()}
        for allocation in self._held.values():
            for name, units in allocation.request.items():
                if not (allocation.paused and name == _BOUND_WHILE_RUNNING):
                    held[name] += units
            for name, shares in allocation.shares.items():
                for index, units in shares.items():
                    free[name][index] -= units
        for name, units in self._available.items():
            assert units + held[name] == self.total.units_of(name), (name, units, held)
        assert free == self._free, (free, self._free)
        for name, full in self._capacity.items():
            assert sum(full.values()) == self.total.units_of(name), (name, full)
            for index, units in self._free[name].items():
                assert 0 <= units <= full[index] <= UNITS_PER_ONE, (name, index, units)

    def _counts_fit(self, request: ResourceSet) -> bool:
        """Whether the plain quantities suffice, instances not looked at."""
        available = self._available
        for name, units in request.items():  # noqa: SIM110 - all() takes twice as long
            if available.get(name, 0) < units:
                return False
        return True

    def _give(self, request: ResourceSet, shares: Shares) -> Allocation:
        """Book the request and its shares as held."""
        available = self._available
        for name, units in request.items():
            available[name] = available.get(name, 0) - units
        for name, chosen in shares.items():
            for index, units in chosen.items():
                self._free[name][index] -= units
        self._last_number += 1
        allocation = Allocation(self._last_number, request, shares)
        self._held[allocation.number] = allocation
        return allocation

    def _take_back(self, returned: ResourceSet) -> None:
        """Book quantities as available again."""
        for name, units in returned.items():
            self._available[name] += units
            assert self._available[name] <= self.total.units_of(name), (name, returned)


def _whole_instances(total: ResourceSet) -> Shares:
    """Instances 0, 1, … for each unit-instance resource of a node."""
    instances = {}
    for name in UNIT_INSTANCE_NAMES:
        count, rest = divmod(total.units_of(name), UNITS_PER_ONE)
        if rest:
            raise ValueError(
                f"A node has a whole number of {name}s, not {total.amount_of(name):g}."
            )
        if count:
            instances[name] = dict.fromkeys(range(count), UNITS_PER_ONE)
    return instances


def _choose_shares(request: ResourceSet, free: Shares) -> Shares | None:
    """Pick instances for the request from what is free, or None if there are none."""
    chosen = {}
    for name in UNIT_INSTANCE_NAMES:
        units = request.units_of(name)
        if not units:
            continue
        picked = _pick(name, units, free.get(name, {}))
        if picked is None:
            return None
        chosen[name] = picked
    return chosen


def _pick(name: str, units: int, free: dict[int, int]) -> dict[int, int] | None:
    """Pick instances of one resource: a share of one, or several whole ones."""
    if units < UNITS_PER_ONE:
        # The fullest instance that has room, so that others stay whole.
        room = [(left, index) for index, left in free.items() if left >= units]
        return {min(room)[1]: units} if room else None
    count, rest = divmod(units, UNITS_PER_ONE)
    if rest:
        raise ValueError(
            f"A quantity of {name} above 1 must be a whole number, "
            f"not {units / UNITS_PER_ONE:g}."
        )
    whole = [index for index in sorted(free) if free[index] == UNITS_PER_ONE]
    return dict.fromkeys(whole[:count], UNITS_PER_ONE) if len(whole) >= count else None
