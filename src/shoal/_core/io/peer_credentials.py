"""Who is at the other end of a Unix socket, as the kernel says (Linux)."""

from __future__ import annotations

import os
import socket
import struct

_CREDENTIALS = struct.Struct("3i")


def _credentials(sock: socket.socket) -> tuple[int, int, int]:
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(data)
    return pid, uid, gid


def same_user(sock: socket.socket) -> bool:
    """Whether the process at the other end belongs to this user (or to root)."""
    return _credentials(sock)[1] in (os.getuid(), 0)


def process_of(sock: socket.socket) -> int:
    """Id of the process that connected, or made the socket pair."""
    return _credentials(sock)[0]
