"""What shoal promises to reach, as data, and the judgement of a run against it.

Each target compares one figure of shoal with a limit: a plain number, a multiple of
what another column reached in the same figure, or a multiple of another figure of
shoal. Ratios are written the way the promise is: "at least 10 x Ray" for rates,
"under 0.08 x Ray" for times and sizes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks import catalogue
from benchmarks.catalogue import DASK, FLOOR, MP_POOL, RAY, SHOAL

Medians = Mapping[str, Mapping[str, float]]
"""figure key -> peer -> median."""


@dataclass(frozen=True)
class Target:
    """One promise about one figure."""

    figure: str
    bound: float
    """The multiple, or the limit itself when `peer` and `of` are empty."""
    peer: str = ""
    """The column that is multiplied; empty for shoal's own or a plain limit."""
    of: str = ""
    """The figure that is multiplied; empty for the same figure."""
    is_at_least: bool = True
    """False: the reached value must stay under the bound."""
    is_inclusive: bool = False
    """For upper bounds: "at most" instead of "under"."""


@dataclass(frozen=True)
class Verdict:
    """A target and what a run reached; `reached` is None when it can't be told."""

    target: Target
    reached: float | None

    @property
    def passed(self) -> bool | None:
        """Whether the promise is kept; None when something was not measured."""
        if self.reached is None:
            return None
        if self.target.is_at_least:
            return self.reached >= self.target.bound
        if self.target.is_inclusive:
            return self.reached <= self.target.bound
        return self.reached < self.target.bound


TARGETS = (
    Target("task_sync", 0.25, peer=FLOOR),
    Target("task_sync", 10, peer=RAY),
    Target("actor_sync", 0.25, peer=FLOOR),
    Target("actor_sync", 5, peer=RAY),
    Target("task_async_1k", 1, peer=MP_POOL),
    Target("task_async_1k", 25, peer=RAY),
    Target("task_async_100k", 1, peer=MP_POOL),
    Target("task_async_100k", 25, peer=RAY),
    Target("task_async_100k", 1, of="task_async_1k"),
    Target("actor_async", 10, peer=RAY),
    Target("put_small", 20, peer=RAY),
    Target("get_small", 20, peer=RAY),
    Target("put_100mb", 0.6, peer=FLOOR),
    Target("get_100mb_ms", 0.2, is_at_least=False),
    Target("wait_1k", 30, peer=RAY),
    Target("first_result", 0.08, peer=RAY, is_at_least=False),
    Target("first_result", 1, peer=DASK, is_at_least=False),
    Target("idle_pss", 0.10, peer=RAY, is_at_least=False),
    Target("idle_processes", 5, is_at_least=False, is_inclusive=True),
    Target("idle_worker_threads", 3, is_at_least=False, is_inclusive=True),
    Target("pending_returned", 1),
    Target("pending_bytes", 1500, is_at_least=False),
    Target("actors_100", 0.15, peer=RAY, is_at_least=False),
)


def judge(medians: Medians) -> list[Verdict]:
    """Hold every target against the medians of a run."""
    return [Verdict(target, _reached(target, medians)) for target in TARGETS]


def _reached(target: Target, medians: Medians) -> float | None:
    """Shoal's value in the unit of the bound: plain, or as a multiple."""
    ours = medians.get(target.figure, {}).get(SHOAL)
    if ours is None or not (target.peer or target.of):
        return ours
    theirs = medians.get(target.of or target.figure, {}).get(target.peer or SHOAL)
    return ours / theirs if theirs else None


def describe_bound(target: Target) -> str:
    """The promise in words, for the table of targets."""
    if target.is_at_least:
        word = "at least"
    else:
        word = "at most" if target.is_inclusive else "under"
    if target.peer:
        return f"{word} {target.bound:g} x {catalogue.PEER_TITLES[target.peer]}"
    if target.of:
        return f"{word} {target.bound:g} x {catalogue.FIGURES[target.of].title}"
    unit = catalogue.FIGURES[target.figure].unit
    return f"{word} {target.bound:g} {unit}".rstrip()
