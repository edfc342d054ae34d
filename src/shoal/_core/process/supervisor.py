"""Starts a local session: its directory, its daemon, and this process's place in it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

from shoal._core.base.ids import NODE_ID_BYTES
from shoal._core.process.joining import (
    SESSION_PREFIX,
    LocalSession,
    absolute_sys_path,
    enter,
    runtime_root,
)
from shoal.exceptions import RaySystemError

_BOOT = (
    "import sys,json;c=json.load(open(sys.argv[1]+'/daemon.json'));"
    "sys.path[:]=c['sys_path'];"
    "from shoal._core.process.node_daemon import main;main(c,int(sys.argv[2]))"
)


def _make_runtime_root(temp_dir: str | None) -> str:
    """The directory of this user's sessions, mode 0700.

    Raises:
        PermissionError: it exists and belongs to somebody else.
    """
    root = runtime_root(temp_dir)
    os.makedirs(root, mode=0o700, exist_ok=True)
    owner = os.stat(root)
    if owner.st_uid != os.getuid() or owner.st_mode & 0o077:
        raise PermissionError(
            f"{root} must belong to this user with mode 0700, and it does not: "
            "somebody else made it. Remove it, or choose another with _temp_dir."
        )
    return root


def start_local(
    settings: dict[str, Any], job: dict[str, Any], temp_dir: str | None
) -> tuple[LocalSession, subprocess.Popen[bytes]]:
    """Start a daemon and connect this process to it as its first driver.

    Args:
        settings: what the daemon must know (resources, arena size, names, …).
        job: what this program is (``joining.describe_job``).

    Raises:
        RaySystemError: the daemon did not come up.
    """
    root = _make_runtime_root(temp_dir)
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    name = f"{SESSION_PREFIX}{stamp}_{os.getpid()}_"
    session_dir = tempfile.mkdtemp(prefix=name, dir=root)
    os.mkdir(f"{session_dir}/p", mode=0o700)
    os.mkdir(f"{session_dir}/logs", mode=0o700)
    config = {
        **settings,
        "session_dir": session_dir,
        "node_id": os.urandom(NODE_ID_BYTES).hex(),
        "driver_pid": os.getpid(),
        "sys_path": absolute_sys_path(),
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
    try:
        return enter(ours, session_dir, job), daemon
    except ConnectionError as error:
        daemon.kill()
        daemon.wait()
        with open(f"{session_dir}/logs/daemon.log", errors="replace") as log_text:
            tail = log_text.read()[-4000:]
        raise RaySystemError(
            RuntimeError(f"the node daemon did not start ({error}). It said:\n{tail}")
        ) from error
