"""The value of a ``num_returns="dynamic"`` task: its refs, all at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shoal._core.base.object_ref import ObjectRef


class DynamicObjectRefGenerator:
    """Refs to the items a dynamic task yielded; iterable, with a length."""

    def __init__(self, refs: list[ObjectRef[Any]]) -> None:
        self._refs = refs

    def __iter__(self) -> Iterator[ObjectRef[Any]]:
        while self._refs:
            yield self._refs.pop(0)

    def __len__(self) -> int:
        return len(self._refs)
