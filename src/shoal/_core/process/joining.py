"""How a driver enters a local session: the one it has started, or one that runs.

A driver says ``Hello`` with what its job is; the daemon answers with ``Welcome`` and,
in the byte after that, the arena's descriptor.  Until then the socket is a blocking
one, served by nobody else.

An *address* of a session is ``unix:`` and its directory; the path of the directory or
of the socket in it does as well.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from dataclasses import dataclass
from typing import Any

from shoal._core.base.ids import UNIQUE_ID_BYTES
from shoal._core.io.peer_credentials import same_user
from shoal._core.io.session_dirs import SESSION_PREFIX
from shoal._core.process.peer import Peer
from shoal._core.wire.frame import PROTOCOL_VERSION, FrameReader, decoder, encode
from shoal._core.wire.node_messages import Hello, Welcome
from shoal._core.wire.worker_messages import ConnectionRefused

START_TIMEOUT_S = 60.0
ADDRESS_PREFIX = "unix:"
_SOCKET = "node.sock"
_decode = decoder(Welcome | ConnectionRefused)


@dataclass(slots=True)
class LocalSession:
    """A session of this machine as one of its drivers has it."""

    peer: Peer
    session_dir: str
    node_id: bytes
    #: what the API knows of the session and of this driver's job
    facts: dict[str, Any]

    @property
    def address(self) -> str:
        """What another program says to join."""
        return ADDRESS_PREFIX + self.session_dir


def describe_job(facts: dict[str, Any], *, log_to_driver: bool) -> dict[str, Any]:
    """This program as a job: what its workers start with, what their API knows."""
    return {
        "facts": facts,
        "setup": {"sys_path": absolute_sys_path(), "cwd": os.getcwd()},
        "log_to_driver": log_to_driver,
    }


def absolute_sys_path() -> list[str]:
    """The import path as workers need it: they run in processes of their own."""
    path = [os.path.abspath(one) if one else os.getcwd() for one in sys.path]
    main = sys.modules.get("__main__")
    script = getattr(main, "__file__", None)
    if script:
        folder = os.path.dirname(os.path.abspath(script))
        if folder not in path:
            path.insert(0, folder)
    package_root = os.path.dirname(os.path.dirname(os.path.dirname(_package_dir())))
    if package_root not in path:
        path.append(package_root)
    return path


def _package_dir() -> str:
    return os.path.dirname(os.path.abspath(__file__))


def runtime_root(temp_dir: str | None) -> str:
    """The directory of this user's sessions; it may not be there yet."""
    return os.path.join(temp_dir or tempfile.gettempdir(), f"shoal-{os.getuid()}")


def join_session(address: str, job: dict[str, Any]) -> LocalSession:
    """Enter the session at an address as one more driver.

    Raises:
        ConnectionError: no session runs there, or it does not take this driver.
    """
    session_dir = session_dir_of(address)
    sock = _connect(session_dir)
    if sock is None:
        raise ConnectionError(
            f"Could not connect to {address!r}: no session of this user runs there "
            "(any more). Leave address out to start a new one."
        )
    return enter(sock, session_dir, job)


def join_newest(temp_dir: str | None, job: dict[str, Any]) -> LocalSession:
    """Enter this user's session that was started last, of those that still run.

    Raises:
        ConnectionError: none runs, or it does not take this driver.
    """
    for session_dir in _newest_first(runtime_root(temp_dir)):
        sock = _connect(session_dir)
        if sock is not None:
            return enter(sock, session_dir, job)
    raise ConnectionError(
        "Could not find a running session of this user to connect to. Leave address "
        "out, or use address='local', to start one on this machine."
    )


def session_dir_of(address: str) -> str:
    """The directory that an address speaks of."""
    path = address.removeprefix(ADDRESS_PREFIX).rstrip("/")
    return os.path.dirname(path) if os.path.basename(path) == _SOCKET else path


def _newest_first(root: str) -> list[str]:
    """Directories of sessions, dead ones included."""
    found: list[tuple[int, str]] = []
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                if entry.name.startswith(SESSION_PREFIX):
                    found.append((_started_at(entry.path), entry.path))
    except FileNotFoundError:  # this user never started one
        return []
    return [path for _, path in sorted(found, reverse=True)]


def _started_at(session_dir: str) -> int:
    try:
        return os.stat(f"{session_dir}/{_SOCKET}").st_mtime_ns
    except FileNotFoundError:  # it is just being made, or removed
        return 0


def _connect(session_dir: str) -> socket.socket | None:
    """A connection to a session's daemon; None when this user has none there."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(f"{session_dir}/{_SOCKET}")
    except OSError:
        sock.close()
        return None
    if not same_user(sock):
        sock.close()
        return None
    return sock


def enter(sock: socket.socket, session_dir: str, job: dict[str, Any]) -> LocalSession:
    """Become a driver of the session whose daemon is at the other end.

    Raises:
        ConnectionError: the daemon hung up, did not answer, or refuses this driver.
    """
    worker_id = os.urandom(UNIQUE_ID_BYTES)
    hello = Hello(
        PROTOCOL_VERSION,
        "driver",
        worker_id,
        os.getpid(),
        worker_id.hex(),
        info=job,
    )
    sock.settimeout(START_TIMEOUT_S)
    try:
        sock.sendall(encode(hello))
        welcome = _receive_welcome(sock)
        _, fds, _, _ = socket.recv_fds(sock, 1, 1)
    except (OSError, EOFError) as error:
        sock.close()
        raise ConnectionError(
            f"the node daemon of {session_dir} does not take this driver: {error}"
        ) from error
    peer = Peer(
        session_dir=session_dir,
        worker_id=worker_id,
        job_id=welcome.job_id,
        arena_fd=fds[0],
        arena_bytes=welcome.arena_bytes,
        name="driver",
        node_socket=sock,
    )
    return LocalSession(peer, session_dir, welcome.node_id, welcome.session)


def _receive_welcome(sock: socket.socket) -> Welcome:
    """Read exactly one frame: the byte after it carries a descriptor."""
    reader = FrameReader(_decode)
    header = _receive_exactly(sock, 4)
    body = _receive_exactly(sock, int.from_bytes(header, "little"))
    (answer,) = reader.feed(header + body)
    if isinstance(answer, ConnectionRefused):
        raise ConnectionError(answer.reason)
    assert isinstance(answer, Welcome), answer
    return answer


def _receive_exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise EOFError("it hung up")
        data += more
    return data
