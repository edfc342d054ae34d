"""What the owner machine asks of its shell: the only way out of the pure part."""

from __future__ import annotations

from typing import Any, Protocol


class Link(Protocol):
    """A connection to another process, as its sender sees it."""

    context: Any

    def send(self, message: object) -> None:
        """Queue a message for the other side."""

    def send_frame(self, frame: bytes) -> None:
        """Queue a message that is encoded already."""


class OwnerPort(Protocol):
    """Sends messages and asks for time; a shell or a simulator implements it."""

    #: address of this process
    address: str

    def link(self, address: str) -> Link | None:
        """The connection to a process, opened if need be; None when it is gone."""

    def send_node(self, message: object) -> None:
        """Queue a message for the node daemon (and the control store behind it)."""

    def now(self) -> float:
        """Monotonic seconds."""

    def call_at(self, when: float, action: Any) -> None:
        """Run ``action`` at about ``when``."""

    def warn(self, text: str) -> None:
        """Tell the user something, once."""
