"""Iterate over results in the order in which they become ready.

Theory: a round waits for one ref, then takes at once whatever else is ready, up
to a chunk. The first result of a round is therefore never held back for the
sake of the chunk, and a backlog of ready results still costs one wait and one
get per chunk, not per result.

Invariant of `map_unordered`: at most `backpressure_size` submitted results have
not yet been handed to the caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import shoal


def as_completed(
    refs: Iterable[Any],
    *,
    chunk_size: int = 10,
    yield_obj_refs: bool = False,
    **wait_kwargs: Any,
) -> Iterator[Any]:
    """Yield the values of `refs`, the ready ones first.

    Blocks: yes, while no ref is ready.

    Args:
        refs: distinct object refs.
        chunk_size: how many ready values to fetch together, at most.
        yield_obj_refs: yield the refs instead of their values.
        wait_kwargs: further keyword arguments of `shoal.wait`. A `timeout` only
            sets how often the wait is repeated: the iterator ends when every
            ref is ready.

    Raises:
        ValueError: chunk_size is below 1, or `num_returns` was given.
        Whatever a task raised, at the point where its value is due.
    """
    _check_wait_kwargs(wait_kwargs)
    _check_at_least_one("chunk_size", chunk_size)
    return _as_completed(list(refs), chunk_size, yield_obj_refs, wait_kwargs)


def map_unordered(
    fn: Any,
    items: Iterable[Any],
    *,
    backpressure_size: int | None = 100,
    chunk_size: int = 10,
    yield_obj_refs: bool = False,
    **wait_kwargs: Any,
) -> Iterator[Any]:
    """Call `fn.remote(item)` for every item; yield results as they become ready.

    Items are taken from `items` only as fast as results are consumed, so it may
    be endless.

    Blocks: yes, while no result is ready.

    Args:
        fn: a remote function, or a method of an actor.
        items: one call is made for each.
        backpressure_size: how many results may be outstanding or not yet
            consumed; None submits all items at once.
        chunk_size: how many ready values to fetch together, at most.
        yield_obj_refs: yield object refs instead of values.
        wait_kwargs: further keyword arguments of `shoal.wait`.

    Raises:
        ValueError: a size is below 1, or `num_returns` was given.
        AttributeError: `fn` has no `.remote`.
        Whatever a call raised, at the point where its value is due.
    """
    _check_wait_kwargs(wait_kwargs)
    _check_at_least_one("chunk_size", chunk_size)
    if backpressure_size is not None:
        _check_at_least_one("backpressure_size", backpressure_size)
    return _map_unordered(
        fn.remote,
        iter(items),
        backpressure_size,
        chunk_size,
        yield_obj_refs,
        wait_kwargs,
    )


def _as_completed(
    pending: list[Any],
    chunk_size: int,
    yield_obj_refs: bool,
    wait_kwargs: dict[str, Any],
) -> Iterator[Any]:
    while pending:
        ready, pending = _wait_for_chunk(pending, chunk_size, wait_kwargs)
        yield from ready if yield_obj_refs else shoal.get(ready)


def _map_unordered(
    submit: Any,
    items: Iterator[Any],
    backpressure_size: int | None,
    chunk_size: int,
    yield_obj_refs: bool,
    wait_kwargs: dict[str, Any],
) -> Iterator[Any]:
    pending = [submit(item) for item in islice(items, backpressure_size)]
    while pending:
        ready, pending = _wait_for_chunk(pending, chunk_size, wait_kwargs)
        for result in ready if yield_obj_refs else shoal.get(ready):
            yield result
            # One consumed, one submitted: the bound holds while others of this
            # chunk still wait for the caller.
            pending.extend(submit(item) for item in islice(items, 1))


def _wait_for_chunk(
    pending: list[Any], chunk_size: int, wait_kwargs: dict[str, Any]
) -> tuple[list[Any], list[Any]]:
    """Wait for one ref, then take up to `chunk_size` that are ready by now."""
    ready, _ = shoal.wait(pending, num_returns=1, **wait_kwargs)
    if not ready:
        return [], pending
    count = min(chunk_size, len(pending))
    return shoal.wait(pending, num_returns=count, **{**wait_kwargs, "timeout": 0})


def _check_wait_kwargs(wait_kwargs: dict[str, Any]) -> None:
    if "num_returns" in wait_kwargs:
        raise ValueError(
            "num_returns is not accepted: it would set how many refs are waited for "
            "at a time, which is what chunk_size is for"
        )


def _check_at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} must be >= 1, got {value}")
