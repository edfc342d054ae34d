"""What the node machine asks of its shell: the only way out of the pure part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class NodePort(Protocol):
    """What the machine asks of the daemon's shell."""

    def send(self, client: bytes, message: object) -> None:
        """Send to a process."""

    def broadcast(self, message: object) -> None:
        """Send to every process of the node."""

    def start_worker(self, worker_id: bytes, env: dict[str, Any]) -> None:
        """Fork a worker."""

    def kill(self, pid: int) -> None:
        """End a process at once."""

    def call_at(self, when: float, action: Callable[[], None]) -> None:
        """Run ``action`` at about ``when``."""

    def new_id(self) -> bytes:
        """16 random bytes."""

    def now(self) -> float:
        """Monotonic seconds."""

    def actor_placed(self, actor_id: bytes, worker_id: bytes) -> bool:
        """Tell the control store; False when the actor needs no worker any more."""

    def actor_waits(self, actor_id: bytes, reason: str) -> None:
        """Tell the control store that no node there is can hold it."""

    def actor_unplaceable(self, actor_id: bytes, reason: str, kind: str) -> None:
        """Tell the control store."""

    def offer_room(self) -> bool:
        """Let placement groups reserve what is free; True if some wait for more."""

    def is_group_gone(self, group_id: bytes) -> bool:
        """Ask the control store whether a placement group is removed."""
