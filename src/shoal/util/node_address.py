"""Which address, and which cloud instance, this node has."""

from __future__ import annotations

import os
import socket

import shoal

# Any address outside would do: a UDP socket that is connected sends nothing,
# it only picks the interface that a packet would leave by.
_ADDRESS_OUTSIDE = "8.8.8.8:53"
_LOOPBACK = "127.0.0.1"


def get_node_ip_address(address: str | None = None) -> str:
    """The IP address by which this node reaches others.

    Args:
        address: `host:port` that the node should be seen from; by default some
            address on the internet. Nothing is sent to it.

    Returns:
        The address of the outgoing interface; `127.0.0.1` on a machine without
        a network.

    Raises:
        ValueError: `address` is not of the form `host:port`.
    """
    if address is None and shoal.is_initialized():
        known: str = shoal.nodes()[0]["NodeManagerAddress"]
        return known
    host, separator, port = (address or _ADDRESS_OUTSIDE).rpartition(":")
    if not separator or not port.isdigit():
        raise ValueError(f"address must have the form host:port, got {address!r}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, int(port)))
        except OSError:
            return _LOOPBACK
        outgoing: str = probe.getsockname()[0]
    return outgoing


def get_node_instance_id() -> str:
    """The cloud provider's id of this node, from RAY_CLOUD_INSTANCE_ID; or ""."""
    return os.environ.get("RAY_CLOUD_INSTANCE_ID", "")
