"""Refs that arrive one by one: what a streaming task returns."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, Generic, NoReturn, TypeVar

from shoal._core.base.object_ref import ObjectRef

T_co = TypeVar("T_co", covariant=True)


class ObjectRefGenerator(Generic[T_co]):
    """Iterator over the refs of a generator task's items, sync or async.

    Each step waits until the producer has yielded the next item.  An exception in the
    producer comes out of ``get`` on the ref after the last good item; then iteration
    ends.  Dropping the generator frees the items not taken.

    Source: Ray's ``ObjectRefGenerator`` ("Dynamic generators", user guide).
    """

    def __init__(self, native: Any, record: Any, completion: ObjectRef[None]) -> None:
        self._native = native
        self._record = record
        self._completion = completion

    def __iter__(self) -> Iterator[ObjectRef[T_co]]:
        return self

    def __next__(self) -> ObjectRef[T_co]:
        ref: ObjectRef[T_co] | None = self._native.next_item(self._record, None)
        if ref is None:
            raise StopIteration
        return ref

    def __aiter__(self) -> AsyncIterator[ObjectRef[T_co]]:
        return self

    async def __anext__(self) -> ObjectRef[T_co]:
        await self._native.item_future(self._record)
        ref: ObjectRef[T_co] | None = self._native.next_item(self._record, None)
        if ref is None:
            raise StopAsyncIteration
        return ref

    def completed(self) -> ObjectRef[None]:
        """A ref that is ready when the task has ended (well or not)."""
        return self._completion

    def is_finished(self) -> bool:
        """Whether every item was taken and the task has ended."""
        return bool(self._record.stream.is_exhausted)

    def next_ready(self) -> bool:
        """Whether the next step needs no wait."""
        return bool(self._record.stream.is_next_ready)

    def task_id(self) -> Any:
        """The id of the task that yields."""
        return self._completion.task_id()

    def __del__(self) -> None:
        native = getattr(self, "_native", None)
        if native is not None:
            native.drop_stream(self._record)

    def __repr__(self) -> str:
        return f"ObjectRefGenerator({self._completion.hex()})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "An ObjectRefGenerator cannot be pickled or passed to a task: it belongs "
            "to the process that called the generator. Pass the refs it yields."
        )

    def send(self, _value: object) -> NoReturn:
        """Not possible: the producer runs elsewhere."""
        raise NotImplementedError("a remote generator takes no values")

    def throw(self, _value: object) -> NoReturn:
        """Not possible: the producer runs elsewhere."""
        raise NotImplementedError("a remote generator takes no exceptions")

    def close(self) -> NoReturn:
        """Not possible; drop the generator, or cancel it."""
        raise NotImplementedError("drop the generator, or use cancel")

    asend = send
    athrow = throw
    aclose = close
