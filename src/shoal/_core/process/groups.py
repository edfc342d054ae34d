"""Placement groups as a process that uses them sees them: make, await, find, remove.

One request per group waits at the control store however many threads and refs of this
process wait for it: a *watch*.  Its answer completes them all.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from shoal._core.base.ids import FIRST_RETURN, UNIQUE_ID_BYTES
from shoal._core.base.labels import LabelSelector
from shoal._core.base.object_ref import ObjectRef, counted_ref
from shoal._core.base.placement_wish import selector_to_list
from shoal._core.base.resources import ResourceSet
from shoal._core.io.engine import Waiter
from shoal._core.owner.references import Entry
from shoal._core.process.context import worker_state
from shoal._core.process.peer import Peer
from shoal._core.serial.failures import encode_failure
from shoal._core.serial.serializer import serialize
from shoal._core.wire.group_messages import (
    CREATED,
    AwaitPlacementGroup,
    CreatePlacementGroup,
    ListPlacementGroups,
    LookupPlacementGroup,
    PlacementGroupSpec,
    RemovePlacementGroup,
)
from shoal._core.wire.worker_messages import ERROR, INLINE, Value
from shoal.exceptions import RaySystemError, TaskPlacementGroupRemoved

ANSWER_TIMEOUT_S = 60.0


class _Watcher(Protocol):
    """Something that waits for a group."""

    def arrived(self) -> None:
        """Its state is known."""


class _Watch:
    """All that waits in this process for one group."""

    __slots__ = ("state", "watchers")

    def __init__(self) -> None:
        #: empty until the answer is there, and when it never comes
        self.state = ""
        self.watchers: list[_Watcher] = []


class _Promise:
    """Stands for the task that makes a ``ready()`` object; there is none.

    It has what explanations look at (``owner.calls.TaskRecord``): the object waits for
    no argument, actor or worker, but for the reason given.
    """

    __slots__ = (
        "actor",
        "call",
        "channel",
        "is_error_seen",
        "missing",
        "name",
        "reason",
        "sclass",
    )

    def __init__(self, group_id: bytes) -> None:
        self.name = f"placement group {group_id.hex()}"
        self.reason = f"{self.name} has not been placed yet."
        self.call = self.sclass = self
        self.missing = 0
        self.actor = self.channel = None
        #: that the group was removed is no error of a task, to be told unasked
        self.is_error_seen = True


class _Ready:
    """Completes a ``ready()`` object."""

    __slots__ = ("_data", "_entry", "_group_id", "_peer", "_watch")

    def __init__(
        self, peer: Peer, watch: _Watch, entry: Entry, group_id: bytes, data: bytes
    ) -> None:
        self._peer = peer
        self._watch = watch
        self._entry = entry
        self._group_id = group_id
        self._data = data

    def arrived(self) -> None:
        """The group is created, or never will be."""
        entry, state = self._entry, self._watch.state
        if state == CREATED:
            value = Value(INLINE, self._data)
        else:
            name = self._group_id.hex()
            error: Exception = TaskPlacementGroupRemoved(
                f"The placement group {name} has been removed."
            )
            if not state:
                error = RaySystemError(
                    f"the node daemon is gone, and with it placement group {name}"
                )
            failure = encode_failure(error, function_name="ready", pid=0, ip="")
            value = Value(ERROR, failure)
        self._peer.owner.refs.complete(entry, value)


class PlacementGroups:
    """A process's requests about placement groups."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._watches: dict[bytes, _Watch] = {}

    def create(
        self,
        bundles: Sequence[ResourceSet],
        strategy: str,
        *,
        name: str,
        namespace: str,
        detached: bool,
        selectors: Sequence[LabelSelector],
        same_label: str,
        soft_target: bytes,
    ) -> bytes:
        """Register a group; returns its id. It is placed when there is room.

        Without a name nothing can be refused, so no answer is waited for.

        Raises:
            RaySystemError: the name is taken.
        """
        peer, actor = self._peer, worker_state.actor_spec
        spec = PlacementGroupSpec(
            os.urandom(UNIQUE_ID_BYTES),
            [bundle.to_units() for bundle in bundles],
            strategy,
            peer.job_id,
            peer.address,
            b"" if actor is None else actor.actor_id,
            name,
            namespace,
            detached,
            [selector_to_list(selector) for selector in selectors],
            same_label,
            soft_target,
        )
        if not name:
            with peer.lock:
                peer._check_alive()
                peer.send_node(CreatePlacementGroup(0, spec))
                peer.engine.flush()
            return spec.group_id
        refusal = self._ask(lambda number: CreatePlacementGroup(number, spec))
        if refusal:
            raise RaySystemError(refusal)
        return spec.group_id

    def remove(self, group_id: bytes) -> None:
        """End a group and what runs in it; nothing if it has ended already."""
        self._ask(lambda number: RemovePlacementGroup(number, group_id))

    def find(self, name: str, namespace: str) -> bytes | None:
        """The id of a named group; None if there is none."""
        found: bytes | None = self._ask(
            lambda number: LookupPlacementGroup(number, name, namespace)
        )
        return found

    def table(self, group_id: bytes = b"") -> Mapping[str, dict[str, Any]]:
        """Facts about one group, or all, by hexadecimal id."""
        facts: Mapping[str, dict[str, Any]] = self._ask(
            lambda number: ListPlacementGroups(number, group_id)
        )
        return facts

    def wait(self, group_id: bytes, timeout: float | None) -> bool:
        """Block until a group is created (True) or removed, or time is up (False)."""
        peer = self._peer
        waiter = Waiter()
        with peer.lock:
            watch = self._watch(group_id)
            watch.watchers.append(waiter)
            peer.engine.flush()
        peer.block(waiter, timeout)
        with peer.lock:
            if waiter in watch.watchers:
                watch.watchers.remove(waiter)
        return watch.state == CREATED

    def ready(self, group_id: bytes, value: object) -> ObjectRef[Any]:
        """A ref that resolves to ``value`` once the group is created."""
        peer = self._peer
        object_id = peer.next_task_id() + FIRST_RETURN
        data = serialize(value).to_bytes()
        with peer.lock:
            entry = peer.owner.refs.own(object_id, _Promise(group_id))
            watch = self._watch(group_id)
            watch.watchers.append(_Ready(peer, watch, entry, group_id, data))
            peer.engine.flush()
        return counted_ref(object_id, peer.address)

    def _watch(self, group_id: bytes) -> _Watch:
        """The watch under way for a group, begun if there is none (under the lock)."""
        watch = self._watches.get(group_id)
        if watch is None:
            watch = self._watches[group_id] = _Watch()
            self._peer.ask_later(
                lambda number: AwaitPlacementGroup(number, group_id),
                lambda answer: self._on_answer(group_id, answer),
            )
        return watch

    def _on_answer(self, group_id: bytes, answer: Any) -> None:
        watch = self._watches.pop(group_id)
        watch.state = "" if answer is None else answer.result
        watchers, watch.watchers = watch.watchers, []
        for watcher in watchers:
            watcher.arrived()

    def _ask(self, make: Any) -> Any:
        return self._peer.ask(make, ANSWER_TIMEOUT_S).result
