"""Starts a local session: its daemon, and this process's place in it.

The daemon makes the session's directory itself, so that nothing is on disk that nobody
would clean up, whenever this process is killed.  What the daemon must know, and what it
says before it has a log file, travel in anonymous memory.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from typing import Any

from shoal._core.base.ids import NODE_ID_BYTES
from shoal._core.io.session_dirs import SESSION_PREFIX, make_root
from shoal._core.process.joining import (
    LocalSession,
    absolute_sys_path,
    enter,
    runtime_root,
)
from shoal.exceptions import RaySystemError

#: What the kernel takes as the path of a Unix socket, less the closing zero.
SOCKET_PATH_BYTES_MAX = 107
_BOOT = (
    "import sys,json;c=json.load(open(int(sys.argv[1])));"
    "sys.path[:]=c['sys_path'];"
    "from shoal._core.process.node_daemon import main;main(c,int(sys.argv[2]))"
)
_SHOWN_BYTES = 4000


def start_local(
    settings: dict[str, Any], job: dict[str, Any], temp_dir: str | None
) -> tuple[LocalSession, subprocess.Popen[bytes]]:
    """Start a daemon and connect this process to it as its first driver.

    Args:
        settings: what the daemon must know (resources, arena size, names, …).
        job: what this program is (``joining.describe_job``).

    Raises:
        PermissionError: the directory of sessions is not safely this user's.
        RaySystemError: the daemon did not come up.
        ValueError: the directory's name is too long for the sockets in it.
    """
    root = runtime_root(temp_dir)
    make_root(root)
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    name = f"{SESSION_PREFIX}{stamp}_{os.getpid()}_{os.urandom(4).hex()}"
    longest = f"{root}/{name}/p/{'0' * 16}"
    if len(os.fsencode(longest)) > SOCKET_PATH_BYTES_MAX:
        raise ValueError(
            f"{root} is too long a name for the sockets of a session: {longest} has "
            f"more than {SOCKET_PATH_BYTES_MAX} bytes. Choose a shorter place with "
            "init(_temp_dir=...) or TMPDIR."
        )
    config = {
        **settings,
        "session_dir": f"{root}/{name}",
        "node_id": os.urandom(NODE_ID_BYTES).hex(),
        "sys_path": absolute_sys_path(),
    }
    said = os.memfd_create("shoal-daemon-output")
    try:
        sock, daemon = _start_daemon(config, said)
        try:
            return enter(sock, config["session_dir"], job), daemon
        except ConnectionError as error:
            daemon.kill()
            daemon.wait()
            raise RaySystemError(
                RuntimeError(
                    f"the node daemon did not start ({error}). It said:\n"
                    f"{_what_it_said(said, config['session_dir'])}"
                )
            ) from error
        except BaseException:  # Ctrl-C: no session that nobody has a hold of
            daemon.kill()
            daemon.wait()
            raise
    finally:
        os.close(said)


def _start_daemon(
    config: dict[str, Any], said: int
) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    facts = os.memfd_create("shoal-daemon-config")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.write(facts, json.dumps(config).encode())
        os.lseek(facts, 0, os.SEEK_SET)
        inherited = (facts, theirs.fileno())
        daemon = subprocess.Popen(
            [sys.executable, "-S", "-c", _BOOT, *map(str, inherited)],
            pass_fds=inherited,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    finally:
        os.close(facts)
        theirs.close()
    return ours, daemon


def _what_it_said(said: int, session_dir: str) -> str:
    """The last words of a daemon, before and after it had a log file."""
    words = os.pread(said, os.fstat(said).st_size, 0)
    log = f"{session_dir}/logs/daemon.log"
    if os.path.exists(log):
        with open(log, "rb") as file:
            words += file.read()
    return words[-_SHOWN_BYTES:].decode(errors="replace")
