"""The fork server: a warm, single-threaded process that forks workers in milliseconds.

It is forked from the daemon before the daemon has threads or sockets, imports what a
worker needs, and then answers one kind of request: fork a worker.  It is the parent of
all workers, reports their exit statuses, and dies with the daemon; should the daemon be
killed, it ends every descendant and removes the session's directory on its way out.

Protocol: one SOCK_SEQPACKET socket; requests are MessagePack maps with two descriptors
(the worker's standard output and error); reports are ``[worker id, pid]`` after a fork
and ``[pid, status]`` after an exit.
"""

from __future__ import annotations

import array
import gc
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any

import msgspec

from shoal._core.io.process_watch import (
    adopt_orphans,
    die_with_parent,
    kill_descendants,
    kill_orphans,
    remove_tree,
)

MAX_REQUEST_BYTES = 1 << 20
WorkerMain = Callable[[dict[str, Any]], None]


def serve(
    requests: socket.socket, session_dir: str, daemon: int, worker_main: WorkerMain
) -> None:
    """Fork workers on request until the daemon is gone.  Never returns."""
    adopt_orphans()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: _leave(session_dir))
    die_with_parent(daemon, signal.SIGTERM)
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    gc.collect()
    gc.freeze()
    poll = select.poll()
    poll.register(requests, select.POLLIN)
    poll.register(wake_read, select.POLLIN)
    workers = _Workers()
    is_wanted = True
    try:
        while is_wanted:
            for fd, _events in poll.poll():
                if fd == wake_read:
                    os.read(wake_read, 4096)
                    _report_exits(requests, workers)
                elif not _serve_one(
                    requests, worker_main, (wake_read, wake_write), workers
                ):
                    is_wanted = False
    except ConnectionError:  # the daemon ended while it was told something
        is_wanted = False
    finally:
        if is_wanted:
            traceback.print_exc()
        _leave(session_dir)


class _Workers:
    """Which children are workers, and what ended ones leave behind."""

    def __init__(self) -> None:
        self._alive: set[int] = set()
        #: a worker is the leader of a kernel session of the same number
        self._ended: set[int] = set()

    def began(self, pid: int) -> None:
        """A worker was forked."""
        self._alive.add(pid)
        self._ended.discard(pid)

    def ended(self, pid: int) -> None:
        """A child was reaped: a worker, or somebody's orphan."""
        if pid in self._alive:
            self._alive.remove(pid)
            self._ended.add(pid)

    def end_orphans(self) -> None:
        """What ended workers started goes with them."""
        if self._ended and not kill_orphans(self._ended):
            self._ended.clear()


def _leave(session_dir: str) -> None:
    """The daemon is gone: nothing of the session may stay."""
    kill_descendants(os.getpid())
    remove_tree(session_dir)
    os._exit(0)


def _report_exits(requests: socket.socket, workers: _Workers) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            pid = 0
        if pid == 0:
            workers.end_orphans()
            return
        workers.ended(pid)
        code = os.waitstatus_to_exitcode(status)
        requests.send(msgspec.msgpack.encode([pid, code]))


def _serve_one(
    requests: socket.socket,
    worker_main: WorkerMain,
    ours: tuple[int, int],
    workers: _Workers,
) -> bool:
    """Take one request; False when the daemon has hung up."""
    data, fds = _receive(requests)
    if not data:
        return False
    request = msgspec.msgpack.decode(data)
    if "preload" in request:
        _preload(request["preload"])
        return True
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become_worker(requests, fds, ours, parent, worker_main, request)
    workers.began(pid)
    for fd in fds:
        os.close(fd)
    requests.send(msgspec.msgpack.encode([request["worker_id"], pid]))
    return True


def _receive(requests: socket.socket) -> tuple[bytes, list[int]]:
    fds = array.array("i")
    data, ancillary, _flags, _address = requests.recvmsg(
        MAX_REQUEST_BYTES, socket.CMSG_LEN(2 * fds.itemsize)
    )
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    return data, list(fds)


def _preload(modules: list[str]) -> None:
    """Import what the driver has imported too, so that workers find it done."""
    for name in modules:
        try:
            __import__(name)
        except ImportError as error:
            sys.stderr.write(f"cannot preload {name}: {error}\n")
    gc.collect()
    gc.freeze()


def _become_worker(
    requests: socket.socket,
    fds: list[int],
    ours: tuple[int, int],
    parent: int,
    worker_main: WorkerMain,
    request: dict[str, Any],
) -> None:
    status = 1
    try:
        die_with_parent(parent)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        requests.close()
        for fd in ours:
            os.close(fd)
        os.dup2(fds[0], 1)
        os.dup2(fds[1], 2)
        for fd in fds:
            os.close(fd)
        worker_main(request)
        status = 0
    except BaseException as error:  # noqa: BLE001 - the process's last words
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        # The interpreter's own exit would run what the fork server registered.
        _flush(sys.stdout)
        _flush(sys.stderr)
        os._exit(status)


def _flush(stream: Any) -> None:
    try:
        stream.flush()
    except (OSError, ValueError):  # the daemon that reads it is gone
        return
