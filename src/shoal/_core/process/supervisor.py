"""Starts a local session: its directory, its daemon, and this process's place in it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import Any

from shoal._core.base.ids import JOB_ID_BYTES, UNIQUE_ID_BYTES
from shoal._core.process.peer import PROTOCOL_VERSION, Peer, decode_node
from shoal._core.wire.frame import FrameReader, encode
from shoal._core.wire.node_messages import Hello, Welcome
from shoal.exceptions import RaySystemError

START_TIMEOUT_S = 60.0
_BOOT = (
    "import sys,json;c=json.load(open(sys.argv[1]+'/daemon.json'));"
    "sys.path[:]=c['sys_path'];"
    "from shoal._core.process.node_daemon import main;main(c,int(sys.argv[2]))"
)


@dataclass(slots=True)
class LocalSession:
    """A session that this process started."""

    peer: Peer
    daemon: subprocess.Popen[bytes]
    session_dir: str
    node_id: bytes
    job_id: bytes
    config: dict[str, Any]


def runtime_root(temp_dir: str | None) -> str:
    """The directory of this user's sessions, mode 0700.

    Raises:
        PermissionError: it exists and belongs to somebody else.
    """
    root = os.path.join(temp_dir or tempfile.gettempdir(), f"shoal-{os.getuid()}")
    os.makedirs(root, mode=0o700, exist_ok=True)
    owner = os.stat(root)
    if owner.st_uid != os.getuid() or owner.st_mode & 0o077:
        raise PermissionError(
            f"{root} must belong to this user with mode 0700, and it does not: "
            "somebody else made it. Remove it, or choose another with _temp_dir."
        )
    return root


def start_local(settings: dict[str, Any], temp_dir: str | None) -> LocalSession:
    """Start a daemon and connect this process to it as its driver.

    Args:
        settings: what the daemon must know (resources, arena size, names, …).

    Raises:
        RaySystemError: the daemon did not come up.
    """
    root = runtime_root(temp_dir)
    name = time.strftime("session_%Y-%m-%d_%H-%M-%S") + f"_{os.getpid()}"
    session_dir = tempfile.mkdtemp(prefix=name + "_", dir=root)
    os.mkdir(f"{session_dir}/p", mode=0o700)
    os.mkdir(f"{session_dir}/logs", mode=0o700)
    job_id = (1).to_bytes(JOB_ID_BYTES, "little")
    node_id = os.urandom(UNIQUE_ID_BYTES)
    config = {
        **settings,
        "session_dir": session_dir,
        "node_id": node_id.hex(),
        "job_id": job_id.hex(),
        "driver_pid": os.getpid(),
        "sys_path": _absolute_sys_path(),
        "cwd": os.getcwd(),
    }
    config["session"] = {
        **settings["session"],
        "session_dir": session_dir,
        "node_id": node_id.hex(),
    }
    with open(f"{session_dir}/daemon.json", "w") as file:
        json.dump(config, file)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with theirs, open(f"{session_dir}/logs/daemon.log", "wb") as log:
        daemon = subprocess.Popen(
            [sys.executable, "-S", "-c", _BOOT, session_dir, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    peer = _connect(ours, daemon, session_dir, job_id)
    return LocalSession(peer, daemon, session_dir, node_id, job_id, config)


def _absolute_sys_path() -> list[str]:
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


def _connect(
    sock: socket.socket,
    daemon: subprocess.Popen[bytes],
    session_dir: str,
    job_id: bytes,
) -> Peer:
    worker_id = os.urandom(UNIQUE_ID_BYTES)
    hello = Hello(
        PROTOCOL_VERSION, "driver", worker_id, os.getpid(), worker_id.hex()
    )
    sock.settimeout(START_TIMEOUT_S)
    try:
        sock.sendall(encode(hello))
        welcome = _receive_welcome(sock)
        _, fds, _, _ = socket.recv_fds(sock, 1, 1)
    except (OSError, EOFError) as error:
        daemon.kill()
        daemon.wait()
        with open(f"{session_dir}/logs/daemon.log", errors="replace") as log:
            tail = log.read()[-4000:]
        raise RaySystemError(
            RuntimeError(f"the node daemon did not start ({error}). It said:\n{tail}")
        ) from error
    return Peer(
        session_dir=session_dir,
        worker_id=worker_id,
        job_id=job_id,
        arena_fd=fds[0],
        arena_bytes=welcome.arena_bytes,
        name="driver",
        node_socket=sock,
    )


def _receive_welcome(sock: socket.socket) -> Welcome:
    """Read exactly one frame: the byte after it carries a descriptor."""
    reader = FrameReader(decode_node)
    header = _receive_exactly(sock, 4)
    body = _receive_exactly(sock, int.from_bytes(header, "little"))
    (welcome,) = reader.feed(header + body)
    assert isinstance(welcome, Welcome), welcome
    return welcome


def _receive_exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise EOFError("it hung up")
        data += more
    return data
