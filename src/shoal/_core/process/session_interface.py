"""What the public API asks of a session, whichever of the four kinds it is.

* **native**: a driver or worker of a cluster (``native.py``);
* **local mode**: everything in one process, for debuggers (``local_mode.py``);
* **client**: one port of a remote head;
* **an existing Ray cluster**: through Ray's own package.

The last two are not here yet.  The API itself only turns options into templates,
specs and queues, and hands them on; what it gets back and does not look into
(``sclass``, ``record``, ``calls``) is each session's own business.

Source: ``ARCHITECTURE``, "Processes".
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from shoal._core.base.object_ref import ObjectRef
from shoal._core.owner.calls import CallTemplate
from shoal._core.wire.control_messages import ActorSpec

if TYPE_CHECKING:
    from shoal._core.process.native import Packed


class SessionPeer(Protocol):
    """This process in the session."""

    job_id: bytes
    worker_id: bytes

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """Held by whoever looks at what runs."""


class SessionInterface(Protocol):
    """The operations of a session.

    Those that return refs return them at once.  ``args`` and ``kwargs`` are the
    user's; what they hold is kept until the call has ended.
    """

    @property
    def peer(self) -> SessionPeer:
        """Ids of this process."""

    @property
    def executor(self) -> Any:
        """What runs tasks in this process; None in a driver that runs none."""

    @property
    def info(self) -> dict[str, Any]:
        """Facts of the session as the present code should see them: ``namespace``,
        ``runtime_env``, ``node_id``, ``session_dir``, ``labels``, …
        """

    @property
    def groups(self) -> Any:
        """Requests about placement groups (``groups.py`` documents them)."""

    @property
    def is_worker(self) -> bool:
        """Whether the present code is a task's or an actor's."""

    @property
    def namespace(self) -> str:
        """Where the present code's names of actors are, unless it says otherwise."""

    # -- tasks -------------------------------------------------------------------

    def environment(self, key: str, env: dict[str, Any]) -> str:
        """Make a runtime environment known under a key; returns the key."""

    def scheduling_class(
        self, demand: dict[str, int], env: str, strategy: list[Any] | None
    ) -> Any:
        """The queue for tasks of one kind.

        Args:
            demand: resources, in units.
            env: key of a runtime environment; empty for none.
            strategy: where to run, as the wire has it; None: anywhere.
        """

    def submit(
        self,
        call: CallTemplate,
        sclass: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        label: str = "",
    ) -> Any:
        """Submit a task.

        Returns:
            Its ref; a list of refs for 0 or several returns; (record, ref of the end)
            for a stream.

        Raises:
            TypeError: an argument cannot be serialised.
        """

    def cancel(self, ref: ObjectRef[Any], *, force: bool, recursive: bool) -> None:
        """Cancel what makes an object, if that is not there yet.

        Raises:
            ValueError: ``force`` on an actor call.
        """

    # -- streams -----------------------------------------------------------------

    def next_item(self, record: Any, timeout: float | None) -> ObjectRef[Any] | None:
        """The next item of a stream; None at its end, or when ``timeout`` (s) is up."""

    async def item_future(self, record: Any) -> None:
        """Wait on the running loop until ``next_item`` needs no wait."""

    def drop_stream(self, record: Any) -> None:
        """Nobody takes further items; called in destructors, takes no lock."""

    # -- objects -----------------------------------------------------------------

    def put(self, value: object) -> ObjectRef[Any]:
        """Store a value as it is now.

        Raises:
            TypeError: it cannot be serialised.
        """

    def get_one(self, ref: ObjectRef[Any], timeout: float | None = None) -> Any:
        """The value of a ref; ``timeout`` in seconds, None or negative for ever.

        Raises:
            GetTimeoutError: it is not there in time.
            RayTaskError: it is an error.
        """

    def get_many(
        self, refs: Sequence[ObjectRef[Any]], timeout: float | None = None
    ) -> list[Any]:
        """The values of refs, in order; raises as ``get_one``."""

    def wait(
        self, refs: list[Any], num_returns: int, timeout: float | None, fetch: bool
    ) -> tuple[list[Any], list[Any]]:
        """Up to ``num_returns`` ready refs or generators, and the others.

        Raises:
            TypeError: something in the list is neither.
            ValueError: one is there twice.
        """

    # -- actors ------------------------------------------------------------------

    def new_actor_id(self) -> bytes:
        """A fresh actor id."""

    def pack_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Packed:
        """A constructor's arguments, for ``create_actor``.

        Raises:
            TypeError: one cannot be serialised.
        """

    def create_actor(
        self, spec: ActorSpec, packed: Packed, *, get_if_exists: bool
    ) -> tuple[ActorSpec, ObjectRef[Any] | None]:
        """Start an actor, or find the one of that name.

        Returns:
            Its spec, and the ref that counts as a hold of it (None when it is detached
            or was there before).

        Raises:
            ActorAlreadyExistsError: the name is taken.
        """

    def lookup_actor(self, name: str, namespace: str) -> ActorSpec:
        """Find a named actor.

        Raises:
            ValueError: there is none.
        """

    def actor_calls(self, spec: ActorSpec) -> Any:
        """This process's end of the calls to an actor."""

    def call_actor(
        self,
        calls: Any,
        call: CallTemplate,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        handle: ObjectRef[Any] | None,
        limit: int = -1,
    ) -> Any:
        """Call a method; returns as ``submit``.

        Args:
            calls: from ``actor_calls``.
            call: the method.
            args: by position.
            kwargs: by keyword.
            handle: kept until the call has ended; None for weak handles.
            limit: how many calls may be pending; negative: any number.

        Raises:
            PendingCallsLimitExceeded: so many are.
            TypeError: an argument cannot be serialised.
        """

    def kill_actor(self, actor_id: bytes, *, no_restart: bool) -> None:
        """End an actor at once."""

    def is_actor_dead(self, actor_id: bytes) -> bool:
        """Whether an actor is known to be dead."""

    # -- views -------------------------------------------------------------------

    def query(self, what: str, argument: Any = None) -> Any:
        """A view of the cluster: ``nodes``, ``total``, ``available``, …"""
