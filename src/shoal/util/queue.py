"""A first-in, first-out queue that tasks and actors share.

Theory: the items live in one async actor, so a `put` or `get` that has to wait
is a suspended coroutine there, and any number of producers and consumers may
wait at once. A `Queue` is only a handle of that actor: a copy sent to a task
refers to the same items.

The non-blocking and batch calls run in the actor without an `await` in the
middle, which makes each of them atomic.

It does not survive its actor, and items taken by a consumer that then dies are
gone: delivery is at most once.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterable
from typing import Any

import shoal


class Empty(queue.Empty):
    """There was no item, or not enough of them, in the time allowed."""


class Full(queue.Full):
    """There was no room, or not enough of it, in the time allowed."""


class Queue:
    """A queue usable from every process of the cluster.

    Args:
        maxsize: how many items it holds; zero or less means any number.
        actor_options: options of the actor that holds the items, as for
            `.options()` of an actor class. For example `{"num_cpus": 1}`.

    `len(queue)` is the number of items. After `shutdown` every call raises
    AttributeError.

    Example:
        >>> queue = Queue(maxsize=100)  # doctest: +SKIP
        >>> queue.put("item")  # doctest: +SKIP
        >>> queue.get(timeout=1)  # doctest: +SKIP
        'item'
    """

    def __init__(
        self, maxsize: int = 0, actor_options: dict[str, Any] | None = None
    ) -> None:
        self.maxsize = maxsize
        self.actor: Any = (
            shoal.remote(_QueueActor).options(**(actor_options or {})).remote(maxsize)
        )

    def __len__(self) -> int:
        return self.size()

    def size(self) -> int:
        """How many items are in the queue."""
        count: int = shoal.get(self._live_actor().size.remote())
        return count

    def qsize(self) -> int:
        """How many items are in the queue."""
        return self.size()

    def empty(self) -> bool:
        """Whether there is no item."""
        return self.size() == 0

    def full(self) -> bool:
        """Whether there is no room for another item."""
        return 0 < self.maxsize <= self.size()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add an item, waiting for room.

        Args:
            item: any value that can be serialised.
            block: wait for room; False is the same as `put_nowait`.
            timeout: seconds to wait; None waits for as long as it takes.

        Raises:
            Full: there was no room in time.
            ValueError: timeout is negative.
        """
        if not block:
            self.put_nowait(item)
            return
        _check_timeout(timeout)
        shoal.get(self._live_actor().put.remote(item, timeout))

    async def put_async(
        self, item: Any, block: bool = True, timeout: float | None = None
    ) -> None:
        """As `put`, for use in a coroutine."""
        actor = self._live_actor()
        if block:
            _check_timeout(timeout)
            await actor.put.remote(item, timeout)
        elif not await actor.try_put.remote(item):
            raise Full

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the oldest item, waiting for one.

        Args:
            block: wait for an item; False is the same as `get_nowait`.
            timeout: seconds to wait; None waits for as long as it takes.

        Raises:
            Empty: there was no item in time.
            ValueError: timeout is negative.
        """
        if not block:
            return self.get_nowait()
        _check_timeout(timeout)
        return shoal.get(self._live_actor().get.remote(timeout))

    async def get_async(self, block: bool = True, timeout: float | None = None) -> Any:
        """As `get`, for use in a coroutine."""
        actor = self._live_actor()
        if block:
            _check_timeout(timeout)
            return await actor.get.remote(timeout)
        return _only(await actor.try_get.remote())

    def put_nowait(self, item: Any) -> None:
        """Add an item if there is room now.

        Raises:
            Full: there is no room.
        """
        if not shoal.get(self._live_actor().try_put.remote(item)):
            raise Full

    def put_nowait_batch(self, items: Iterable[Any]) -> None:
        """Add all items, in order, or none of them.

        Raises:
            Full: there is no room for all of them.
            TypeError: `items` is not iterable.
        """
        if not isinstance(items, Iterable):
            raise TypeError(
                f"items must be an iterable of items to add, got {type(items).__name__}"
            )
        shoal.get(self._live_actor().put_batch.remote(list(items)))

    def get_nowait(self) -> Any:
        """Take the oldest item if there is one now.

        Raises:
            Empty: there is none.
        """
        return _only(shoal.get(self._live_actor().try_get.remote()))

    def get_nowait_batch(self, num_items: int) -> list[Any]:
        """Take exactly `num_items` items, oldest first, or none.

        Raises:
            Empty: there are fewer.
            TypeError: num_items is not an int.
            ValueError: num_items is negative.
        """
        if not isinstance(num_items, int):
            raise TypeError(f"num_items must be an int, got {type(num_items).__name__}")
        if num_items < 0:
            raise ValueError(f"num_items must not be negative, got {num_items}")
        items: list[Any] = shoal.get(self._live_actor().get_batch.remote(num_items))
        return items

    def shutdown(self, force: bool = False, grace_period_s: float = 5) -> None:
        """End the actor that holds the items; they are lost.

        Args:
            force: end it at once, also when calls are under way.
            grace_period_s: seconds the actor has to finish calls under way
                before it is ended anyway. Unused with `force`.
        """
        actor, self.actor = self.actor, None
        if actor is None:
            return
        if not force:
            ended, _ = shoal.wait(
                [actor.__ray_terminate__.remote()], timeout=grace_period_s
            )
            if ended:
                return
        shoal.kill(actor, no_restart=True)

    def _live_actor(self) -> Any:
        if self.actor is None:
            raise AttributeError(
                "this Queue was shut down and has no actor any more; make a new Queue"
            )
        return self.actor


class _QueueActor:
    """Holds the items of one queue."""

    def __init__(self, maxsize: int) -> None:
        self._items: asyncio.Queue[Any] = asyncio.Queue(maxsize)

    async def size(self) -> int:
        return self._items.qsize()

    async def put(self, item: Any, timeout: float | None) -> None:
        # Tried first because wait_for with a timeout of 0 gives up before it starts.
        if await self.try_put(item):
            return
        try:
            await asyncio.wait_for(self._items.put(item), timeout)
        except TimeoutError:
            raise Full from None

    async def get(self, timeout: float | None) -> Any:
        if not self._items.empty():
            return self._items.get_nowait()
        try:
            return await asyncio.wait_for(self._items.get(), timeout)
        except TimeoutError:
            raise Empty from None

    async def try_put(self, item: Any) -> bool:
        """Whether there was room for the item."""
        if self._items.full():
            return False
        self._items.put_nowait(item)
        return True

    async def try_get(self) -> list[Any]:
        """The oldest item in a list, or an empty list."""
        return [] if self._items.empty() else [self._items.get_nowait()]

    async def put_batch(self, items: list[Any]) -> None:
        room = self._items.maxsize - self._items.qsize()
        if self._items.maxsize > 0 and room < len(items):
            raise Full(
                f"cannot add {len(items)} items to a queue that has room for {room} "
                f"(maxsize {self._items.maxsize})"
            )
        for item in items:
            self._items.put_nowait(item)

    async def get_batch(self, num_items: int) -> list[Any]:
        if self._items.qsize() < num_items:
            raise Empty(
                f"cannot take {num_items} items from a queue of {self._items.qsize()}"
            )
        return [self._items.get_nowait() for _ in range(num_items)]


def _only(items: list[Any]) -> Any:
    if not items:
        raise Empty
    return items[0]


def _check_timeout(timeout: float | None) -> None:
    if timeout is not None and timeout < 0:
        raise ValueError(f"timeout must not be negative, got {timeout}")
