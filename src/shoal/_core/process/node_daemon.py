"""The node daemon's process: node machine, control store and their sockets.

Started by a driver (``supervisor.start_local``) with one end of a socket pair as its
first client.  It forks the fork server before it has anything to inherit, then serves
one event loop.  It never unpickles anything.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec

from shoal._core.base.ids import UNIQUE_ID_BYTES
from shoal._core.base.labels import RESERVED_PREFIX
from shoal._core.base.resources import ResourceSet
from shoal._core.control.actors import ControlActors
from shoal._core.io.connection import Connection
from shoal._core.io.engine import Engine
from shoal._core.io.fork_server import serve
from shoal._core.io.peer_credentials import same_user
from shoal._core.io.process_watch import (
    adopt_orphans,
    kill,
    kill_descendants,
    remove_tree,
)
from shoal._core.io.session_dirs import make_session_dir
from shoal._core.io.shared_memory import create_arena
from shoal._core.node.machine import NodeMachine
from shoal._core.process.node_drivers import LocalDrivers
from shoal._core.process.node_groups import LocalGroups
from shoal._core.process.node_queries import NodeQueries
from shoal._core.process.worker_output import OutputLine, WorkerOutput
from shoal._core.store.object_table import StoreError
from shoal._core.wire.control_messages import (
    ActorOutOfScope,
    ActorSpec,
    CreateActor,
    KillActor,
    LookupActor,
    PutFunctions,
    WatchActor,
)
from shoal._core.wire.frame import PROTOCOL_VERSION, decoder
from shoal._core.wire.group_messages import GROUP_REQUESTS
from shoal._core.wire.node_messages import (
    NODE_MESSAGES,
    ActorStarted,
    EventsCollected,
    Hello,
    MetricsReport,
    NodeQuery,
    ShutdownSession,
)
from shoal._core.wire.worker_messages import ConnectionRefused

HOUSEKEEPING_S = 0.5
_decode = decoder(
    NODE_MESSAGES
    | GROUP_REQUESTS
    | CreateActor
    | WatchActor
    | KillActor
    | ActorOutOfScope
    | LookupActor
    | PutFunctions
)


def main(config: dict[str, Any], driver_fd: int) -> None:
    """Run the daemon of a local session until its driver leaves."""
    make_session_dir(config["session_dir"])
    _speak_to_log(config["session_dir"])
    arena_fd = create_arena(config["arena_bytes"])
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    daemon = os.getpid()
    if os.fork() == 0:
        ours.close()
        os.close(driver_fd)
        _become_fork_server(theirs, config, daemon)
    theirs.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    adopt_orphans()
    NodeDaemon(config, arena_fd, ours, driver_fd).run()


def _speak_to_log(session_dir: str) -> None:
    """From here on what this process and the fork server print is in a file."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    log = os.open(f"{session_dir}/logs/daemon.log", flags, mode=0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def _become_fork_server(
    requests: socket.socket, config: dict[str, Any], daemon: int
) -> None:
    # The daemon skips site for a fast start; user code expects what it sets up.
    import site  # noqa: PLC0415

    site.main()
    sys.path[:] = config["sys_path"]
    # The daemon itself must not load what opens pickles.
    from shoal._core.process.worker import worker_main  # noqa: PLC0415

    serve(requests, config["session_dir"], daemon, worker_main)


class NodeDaemon:
    """The shell: connections, processes and time around the machines."""

    def __init__(
        self,
        config: dict[str, Any],
        arena_fd: int,
        fork_server: socket.socket,
        driver_fd: int,
    ) -> None:
        self.config = config
        self.session_dir: str = config["session_dir"]
        self.arena_fd = arena_fd
        self.node_id = bytes.fromhex(config["node_id"])
        self.engine = Engine("node daemon")
        self.clients: dict[bytes, Connection] = {}
        #: the driver that started this daemon: the session ends with it
        self.founder: Connection | None = None
        self.is_leaving = False
        resources = ResourceSet(config["resources"])
        self.groups = LocalGroups(self)
        self.machine = NodeMachine(
            self,
            resources,
            config["arena_bytes"],
            self.node_id,
            {f"{RESERVED_PREFIX}node-id": config["node_id"], **config["labels"]},
        )
        self.control = ControlActors(self)
        self.drivers = LocalDrivers(self)
        self.output = WorkerOutput(self.engine, f"{self.session_dir}/logs", self.log)
        self.queries = NodeQueries(self)
        self.functions: dict[bytes, bytes] = {}
        self._pids: dict[int, bytes] = {}
        self._fork_server = fork_server
        self.engine.add_reader(fork_server.fileno(), self._on_fork_server)
        self._listen()
        self.founder = self._serve_client(socket.socket(fileno=driver_fd))

    # -- start and end -------------------------------------------------------------

    def _listen(self) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(f"{self.session_dir}/node.sock")
        listener.listen(256)
        self.engine.listen(listener, self._accept)
        self._listener = listener

    def _accept(self, sock: socket.socket) -> None:
        if same_user(sock):
            self._serve_client(sock)
        else:
            sock.close()

    def _serve_client(self, sock: socket.socket) -> Connection:
        return self.engine.add(sock, _decode, self._on_message, self._on_closed)

    def run(self) -> None:
        """Serve until the founder leaves."""
        self._housekeeping()
        engine = self.engine
        while not self.is_leaving:
            engine.turn(engine._timeout(None))
        self._end()

    def _housekeeping(self) -> None:
        self.machine.retire_idle()
        self.output.tick(monotonic())
        self.engine.call_at(monotonic() + HOUSEKEEPING_S, self._housekeeping)

    def _leave(self, reason: str) -> None:
        self.is_leaving = True
        self.drivers.say_farewell(reason)

    def _end(self) -> None:
        """End every process of the session, pass on their last words, clean up."""
        kill_descendants(os.getpid())
        self.output.drain()
        with self.engine.lock:
            self.engine.flush()
        if not os.environ.get("SHOAL_KEEP_SESSION_DIR"):
            remove_tree(self.session_dir)
        os._exit(0)

    # -- clients -------------------------------------------------------------------

    def _on_message(self, connection: Connection, message: Any) -> None:
        client: bytes | None = connection.context
        if client is None:
            if isinstance(message, Hello):
                self._greet(connection, message)
            else:
                self._refuse(connection, "the first message must be Hello")
        else:
            try:
                if not self.machine.on_message(client, message):
                    self._on_other(client, message)
            except StoreError as error:
                # A client that breaks the store's rules hurts only itself.
                connection.close(str(error))

    def _greet(self, connection: Connection, message: Hello) -> None:
        worker_id = message.worker_id
        if message.version != PROTOCOL_VERSION:
            self._refuse(
                connection,
                f"it speaks protocol {PROTOCOL_VERSION}, and this process "
                f"{message.version}: both must run the same release",
            )
            return
        if worker_id in self.clients:
            self._refuse(connection, "a process of that id is connected already")
            return
        connection.context = worker_id
        self.clients[worker_id] = connection  # first: it may get work at once
        if message.role == "driver":
            job = self.drivers.greet(connection, message)
            if connection is self.founder:
                self.machine.prestart(job.job_id, self.config["prestart"])
        elif not self.machine.on_worker_ready(worker_id, message.pid):
            connection.close("no such worker was started")

    def _refuse(self, connection: Connection, reason: str) -> None:
        connection.send(ConnectionRefused(reason))
        connection.flush()
        connection.close(reason)

    def _on_other(self, client: bytes, message: Any) -> None:
        control = self.control
        if self.groups.on_request(client, message):
            return
        match message:
            case CreateActor():
                control.on_create(client, message)
            case WatchActor():
                control.on_watch(client, message.actor_id)
            case ActorStarted():
                control.on_started(message.actor_id, client, message.failure)
            case KillActor():
                control.on_kill(message)
            case ActorOutOfScope():
                control.on_out_of_scope(message.actor_id)
            case LookupActor():
                control.on_lookup(client, message)
            case PutFunctions():
                self.functions.update(message.functions)
            case NodeQuery():
                self.queries.on_query(client, message)
            case EventsCollected():
                self.queries.on_events(client, message)
            case MetricsReport():
                self.queries.on_metrics(client, message)
            case ShutdownSession():
                if self.clients[client] is self.founder:
                    self._leave(message.reason)
                else:
                    self.drivers.on_leave(client)

    def _on_closed(self, connection: Connection, reason: str) -> None:
        client: bytes | None = connection.context
        if connection is self.founder:
            self._leave("the driver that started the session hung up")
            return
        if client is None or self.drivers.on_closed(client):
            return
        self.clients.pop(client, None)
        # Its exit status comes from the fork server.  A worker that hung up and does
        # not end is stuck in something it should not be.
        worker = self.machine.workers.workers.get(client)
        if worker is not None and worker.pid:
            pid = worker.pid
            self.engine.call_at(monotonic() + 2.0, lambda: self._end_stuck(client, pid))

    def _end_stuck(self, worker_id: bytes, pid: int) -> None:
        if worker_id in self.machine.workers.workers:
            kill(pid)

    # -- ports of the machines -----------------------------------------------------

    def send(self, client: bytes, message: object) -> None:
        """Send to a process of this node."""
        connection = self.clients.get(client)
        if connection is not None:
            connection.send(message)

    def broadcast(self, message: object) -> None:
        """Send to every process of this node."""
        for connection in self.clients.values():
            connection.send(message)

    def now(self) -> float:
        """Monotonic seconds."""
        return monotonic()

    def call_at(self, when: float, action: Callable[[], None]) -> None:
        """Run ``action`` at about ``when``."""
        self.engine.call_at(when, action)

    def new_id(self) -> bytes:
        """16 random bytes."""
        return os.urandom(UNIQUE_ID_BYTES)

    def kill(self, pid: int) -> None:
        """End a process at once."""
        if pid:
            kill(pid)

    def start_worker(self, worker_id: bytes, env: dict[str, Any]) -> None:
        """Ask the fork server for a worker."""
        worker = self.machine.workers.workers[worker_id]
        write_ends = self.output.open(worker_id)
        request = {
            "worker_id": worker_id,
            "node_socket": f"{self.session_dir}/node.sock",
            "session_dir": self.session_dir,
            "arena_fd": self.arena_fd,
            "arena_bytes": self.config["arena_bytes"],
            "env": env,
            "env_key": worker.env,
            **self.drivers.worker_setup(worker.job),
        }
        socket.send_fds(
            self._fork_server, [msgspec.msgpack.encode(request)], write_ends
        )
        for fd in write_ends:
            os.close(fd)

    def place(self, spec: ActorSpec, incarnation: int) -> None:
        """The control store wants an actor placed."""
        self.machine.place_actor(spec, incarnation)

    def unplace(self, actor_id: bytes) -> None:
        """It needs no worker any more."""
        self.machine.unplace_actor(actor_id)

    def end_worker(self, worker_id: bytes, *, graceful: bool, reason: str) -> None:
        """The control store ends an actor's process."""
        self.machine.end_worker(worker_id, graceful=graceful, reason=reason)

    def actor_placed(self, actor_id: bytes, worker_id: bytes) -> bool:
        """The node chose a worker for an actor."""
        return self.control.on_placed(actor_id, worker_id)

    def actor_waits(self, actor_id: bytes, reason: str) -> None:
        """No node there is can hold it."""
        self.control.on_waiting(actor_id, reason)

    def actor_unplaceable(self, actor_id: bytes, reason: str, kind: str) -> None:
        """The node can never place it."""
        self.control.on_unplaceable(actor_id, reason, kind)

    def offer_room(self) -> bool:
        """Resources may be free: placement groups reserve theirs."""
        return self.groups.offer_room()

    def actor_over(self, actor_id: bytes) -> None:
        """An actor is dead for good."""
        self.groups.on_actor_over(actor_id)

    def is_group_gone(self, group_id: bytes) -> bool:
        """Whether a placement group is removed."""
        return self.groups.table.is_gone(group_id)

    # -- processes -----------------------------------------------------------------

    def _on_fork_server(self, _: int) -> None:
        data = self._fork_server.recv(1 << 16)
        if not data:
            # Workers die with it, and nothing can be started: the session is over.
            self._leave("the fork server ended")
            return
        first, second = msgspec.msgpack.decode(data)
        if isinstance(first, bytes):
            self._pids[second] = first
            self.machine.on_worker_forked(first, second)
            self.output.know_pid(first, second)
        else:
            worker_id = self._pids.pop(first, None)
            if worker_id is not None:
                self._on_exit(worker_id, second)

    def _on_exit(self, worker_id: bytes, status: int) -> None:
        connection = self.clients.pop(worker_id, None)
        if connection is not None:
            # What it said last is still in the socket, and may explain its end.
            self.engine.turn(0)
            connection.context = None
            connection.close("the process ended")
        self.output.close(worker_id)
        gone = self.machine.on_worker_gone(worker_id, status)
        if gone is not None:
            self.control.on_worker_gone(worker_id, gone.cause, intended=gone.intended)
            self.on_client_ended(worker_id, gone.cause)
        self.drivers.release_leaving()

    def on_client_ended(self, client: bytes, cause: str) -> None:
        """A driver or worker ended: what is kept for it goes."""
        # It removes its socket itself, unless it was killed.
        Path(self.session_dir, "p", client.hex()[:16]).unlink(missing_ok=True)
        self.control.on_owner_gone(client.hex(), cause)
        self.control.on_client_gone(client)
        self.groups.table.on_client_gone(client)
        self.queries.on_client_gone(client)

    def log(self, worker_id: bytes, lines: list[OutputLine]) -> None:
        """Pass lines of a worker on to the driver of its job."""
        self.drivers.show(worker_id, lines)

    def preload(self, modules: list[str]) -> None:
        """Have the fork server import modules that workers will want."""
        self._fork_server.send(msgspec.msgpack.encode({"preload": modules}))
