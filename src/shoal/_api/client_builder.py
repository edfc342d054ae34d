"""Connecting to a remote cluster through one port: Ray's names for it, which say no.

This version runs on one machine and has no cluster to connect to.
"""

from __future__ import annotations

from typing import NoReturn


class ClientBuilder:
    """Settings of a connection to a remote cluster.

    Raises:
        NotImplementedError: always.
    """

    def __init__(self, address: str | None = None) -> None:
        _refuse("ClientBuilder", address)


def client(
    address: str | None = None, _deprecation_warn_enabled: bool = True
) -> NoReturn:
    """A builder of a connection to a remote cluster.

    Raises:
        NotImplementedError: always.
    """
    _refuse("client", address)


def _refuse(name: str, address: str | None) -> NoReturn:
    raise NotImplementedError(
        f"{name}({address!r}) connects to a remote cluster, and this version runs on "
        "one machine: use init() for a session here."
    )
