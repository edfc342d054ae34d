"""Local mode: the actors of the session, their names, and their way to a place.

Does not: run them (``local_actors.py``).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from shoal._core.base.object_ref import ObjectRef, counted_ref
from shoal._core.owner.references import ACTOR_SUFFIX
from shoal._core.process.local_actors import LocalActor
from shoal._core.process.local_calls import LocalArguments
from shoal._core.process.local_execution import LocalExecutor
from shoal._core.process.local_groups import LocalGroups
from shoal._core.process.local_peer import pack, start_thread
from shoal._core.process.native import Packed
from shoal._core.wire.control_messages import DEAD, ActorSpec
from shoal._core.wire.group_messages import CREATED, REMOVED
from shoal.exceptions import ActorAlreadyExistsError

GROUP_REMOVED = "its placement group was removed"
UNKNOWN = "it is not on record (its session ended)"


class LocalRegistry:
    """Every actor there was in the session; dead ones are kept without their state."""

    def __init__(self, executor: LocalExecutor, groups: LocalGroups) -> None:
        self.actors: dict[bytes, LocalActor] = {}
        #: (namespace, name) of the living
        self.names: dict[tuple[str, str], LocalActor] = {}
        self._executor = executor
        self._peer = executor.peer
        self._supply = executor.supply
        self._groups = groups
        groups.on_removed = self._on_group_removed
        self._peer.refs.on_actor_unreferenced = self._on_unreferenced

    # -- finding -------------------------------------------------------------------

    def find(self, name: str, namespace: str) -> LocalActor:
        """A living actor by its name.

        Raises:
            ValueError: there is none.
        """
        actor = self.names.get((namespace, name))
        if actor is None:
            raise ValueError(
                f"Failed to look up actor with name '{name}'. No living actor of that "
                f"name is in namespace '{namespace}'."
            )
        return actor

    def of(self, spec: ActorSpec) -> LocalActor:
        """The actor of a handle; a dead one if the handle is of another session."""
        actor = self.actors.get(spec.actor_id)
        if actor is None:
            actor = LocalActor(
                spec, self._executor, LocalArguments(b"", None, None), {}
            )
            actor.die(UNKNOWN)
        return actor

    # -- making --------------------------------------------------------------------

    def create(
        self,
        spec: ActorSpec,
        packed: Packed,
        env: dict[str, Any],
        *,
        get_if_exists: bool,
    ) -> tuple[ActorSpec, ObjectRef[Any] | None]:
        """Start an actor; returns its spec and its counted handle ref.

        Raises:
            ActorAlreadyExistsError: the name is taken.
        """
        key = (spec.namespace, spec.name)
        with self._peer.lock:
            existing = self.names.get(key)
            if existing is not None and get_if_exists:
                return existing.spec, None
            if existing is not None:
                raise ActorAlreadyExistsError(
                    f"The name '{spec.name}' is taken by a living actor in namespace "
                    f"'{spec.namespace}'. Choose another name, or pass "
                    "get_if_exists=True."
                )
            spec.owner = self._peer.address
            spec.job_id = self._peer.job_id
            arguments = LocalArguments(packed.payload, packed.deps, packed.holds)
            actor = LocalActor(spec, self._executor, arguments, env)
            actor.on_death = self._on_death
            self.actors[spec.actor_id] = actor
            if spec.name:
                self.names[key] = actor
            handle = self._handle_ref(spec)
        self._place(actor)
        return spec, handle

    def _handle_ref(self, spec: ActorSpec) -> ObjectRef[Any] | None:
        """The counted object that stands for an actor's handles."""
        if spec.detached:
            return None
        handle_id = spec.actor_id + ACTOR_SUFFIX
        value, _held = pack(None, "")
        self._peer.refs.complete(self._peer.refs.own(handle_id), value)
        return counted_ref(handle_id, self._peer.address)

    # -- placing -------------------------------------------------------------------

    def _place(self, actor: LocalActor) -> None:
        """Let an actor begin, now or when it can have what it needs."""
        spec = actor.spec
        actor.reason, is_final = self._supply.why_never(
            f"actor {spec.class_name}", spec.placement_demand, spec.strategy
        )
        if is_final:
            actor.die(actor.reason)
        elif actor.reason:
            self._peer.warn(actor.reason)
        elif self._has_place(actor):
            actor.begin()
        else:
            actor.reason = "the actor waits for what other actors or groups hold"
            with self._peer.lock:
                self._supply.settle(partial(self._try, actor))

    def _has_place(self, actor: LocalActor) -> bool:
        """Give an actor what it needs, if that can be had."""
        spec = actor.spec
        with self._peer.lock:
            if spec.placement_group:
                if self._groups.state_of(spec.placement_group) != CREATED:
                    return False
                demand = spec.running_demand
                actor.hold({}, self._groups.gpu_ids_of(spec.placement_group, demand))
                return True
            if not self._supply.has_room(spec.placement_demand):
                return False
            gpu_ids = self._supply.take(spec.running_demand, for_long=True)
            actor.hold(spec.running_demand, gpu_ids)
            return True

    def _try(self, actor: LocalActor) -> bool:
        """Let an actor begin if it has room (under the lock); True when settled."""
        group_id = actor.spec.placement_group
        if group_id and self._groups.state_of(group_id) == REMOVED:
            self._peer.later.append(partial(actor.die, GROUP_REMOVED))
            return True
        if actor.state == DEAD:
            return True
        if not self._has_place(actor):
            return False
        self._peer.later.append(partial(start_thread, actor.begin))
        return True

    # -- ends ----------------------------------------------------------------------

    def end_all(self, cause: str) -> None:
        """End every actor."""
        for actor in list(self.actors.values()):
            actor.die(cause)

    def _on_unreferenced(self, actor_id: bytes) -> None:
        """The last handle died (under the lock)."""
        actor = self.actors.get(actor_id)
        if actor is not None:
            self._peer.later.append(actor.leave)

    def _on_death(self, actor: LocalActor) -> None:
        """An actor died (under the lock): its name is free."""
        key = (actor.spec.namespace, actor.spec.name)
        if self.names.get(key) is actor:
            del self.names[key]

    def _on_group_removed(self, group_id: bytes) -> None:
        for actor in list(self.actors.values()):
            if actor.spec.placement_group == group_id:
                actor.die(GROUP_REMOVED)
