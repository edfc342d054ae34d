"""A worker process: forked warm, runs tasks one at a time, or is one actor."""

from __future__ import annotations

import os
import random
import socket
import sys
from pathlib import Path
from typing import Any

from shoal._core.base.object_ref import hooks
from shoal._core.io import interrupts
from shoal._core.io.logs import TaskStream
from shoal._core.io.peer_credentials import same_user
from shoal._core.process import session as sessions
from shoal._core.process.context import current_task, worker_state
from shoal._core.process.execution import Executor
from shoal._core.process.helping import Helper
from shoal._core.process.leaving import leave, worker_component
from shoal._core.process.metric_reports import report_metrics
from shoal._core.process.module_alias import alias_package
from shoal._core.process.peer import Peer
from shoal._core.process.root_logging import configure_root_logger
from shoal._core.wire.frame import PROTOCOL_VERSION, encode
from shoal._core.wire.node_messages import (
    Blocked,
    CollectEvents,
    CollectMetrics,
    EnvironmentFailed,
    ExitWorker,
    Hello,
    RetireRefused,
    StartActor,
)


def worker_main(request: dict[str, Any]) -> None:
    """Be a worker until told to leave.  Runs in a process just forked."""
    # Forked processes share the state of every random generator: part ways.
    random.seed()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(request["node_socket"])
    assert same_user(sock)
    peer = Peer(
        session_dir=request["session_dir"],
        worker_id=request["worker_id"],
        job_id=request["job_id"],
        arena_fd=request["arena_fd"],
        arena_bytes=request["arena_bytes"],
        name=f"worker {os.getpid()}",
    )
    worker = Worker(peer, request)
    peer.listen()  # before Hello: whoever is granted this worker connects at once
    sock.sendall(
        encode(
            Hello(
                PROTOCOL_VERSION,
                "worker",
                peer.worker_id,
                os.getpid(),
                peer.address,
            )
        )
    )
    peer.attach_node(sock)
    worker.run()


class Worker:
    """Composition of a worker process."""

    def __init__(self, peer: Peer, request: dict[str, Any]) -> None:
        self.peer = peer
        self.request = request
        self.executor = Executor(peer)
        peer.on_node_message = self._on_node_message
        peer.on_node_lost = lambda _reason: os._exit(1)
        peer.on_blocked = self._on_blocked
        peer.help = Helper(self.executor).help
        worker_state.env = request["env_key"]
        self._actor_start: StartActor | None = None
        self._is_told_to_exit = False

    def run(self) -> None:
        """Serve until told to leave."""
        peer = self.peer
        sys.stdout = TaskStream(1, self._name)
        sys.stderr = TaskStream(2, self._name)
        interrupts.install(self.executor.should_interrupt)
        peer.install_hooks()
        sys.path[:] = self.request["sys_path"]
        os.chdir(self.request["cwd"])
        self._join_session()
        if self.request["env"]:
            self._apply_environment()
        peer.engine.start_background()
        self.executor.serve()
        if self._actor_start is not None:
            self.executor.is_leaving = self._is_told_to_exit
            # It needs asyncio, which workers of tasks start sooner without.
            from shoal._core.process.actor import run_actor  # noqa: PLC0415

            run_actor(self.executor, self._actor_start)
        with peer.lock:
            self.executor.report_events()
            report_metrics(peer, worker_component())
            peer.engine.flush()
        leave(0)

    def _join_session(self) -> None:
        """Let the API of this process work as the session's facts say."""
        info = self.request["session"]
        if self.request["env"]:
            # What tasks here submit, and what they ask, starts from what they run in.
            info = {**info, "runtime_env": self.request["env"]}
        sessions.adopt_worker(self.peer, self.executor, info)
        if info["as_ray"]:
            alias_package("ray", "shoal")
        if info["logging"]:
            configure_root_logger(info["logging"])

    def _apply_environment(self) -> None:
        """Become what the runtime environment asks for, or say why not and leave."""
        # Only workers of an environment of their own need it.
        from shoal._core.io import runtime_env  # noqa: PLC0415

        request, peer = self.request, self.peer
        try:
            cache = Path(request["session_dir"], "environments")
            prepared = runtime_env.prepare(request["env"], cache)
            runtime_env.apply(prepared)
            if prepared.setup_hook:
                runtime_env.load_setup_hook(prepared.setup_hook)()
        except Exception as error:  # noqa: BLE001 - told to whoever asked for it
            reason = f"{type(error).__name__}: {error}"
            with peer.lock:
                peer.send_node(EnvironmentFailed(request["env_key"], reason))
                peer.engine.flush()
            leave(1)

    def _name(self) -> str:
        task = current_task.get()
        if worker_state.actor_spec is not None:
            return worker_state.actor_name
        return "" if task is None else (task.message.label or task.call.name)

    # -- under the engine's lock ---------------------------------------------------

    def _on_node_message(self, message: Any) -> None:
        if isinstance(message, StartActor):
            self._actor_start = message
            self._stop_serving()
        elif isinstance(message, ExitWorker):
            self._on_exit(message)
        elif isinstance(message, CollectEvents):
            self.executor.report_events(message.request)
        elif isinstance(message, CollectMetrics):
            report_metrics(self.peer, worker_component(), message.request)

    def _on_exit(self, message: ExitWorker) -> None:
        self.peer.drain_dropped()
        if worker_state.actor_spec is None and self._owns_live_objects():
            self.peer.send_node(RetireRefused())
            return
        self._is_told_to_exit = True
        self._stop_serving()

    def _owns_live_objects(self) -> bool:
        refs = self.peer.owner.refs
        return bool(hooks.dropped or refs.lent or self.peer.owner.tasks.pending) or any(
            entry.owner == self.peer.address for entry in refs.entries.values()
        )

    def _stop_serving(self) -> None:
        self.executor.is_leaving = True
        if self.executor.idle is not None:
            self.executor.idle.arrived()
        if self.executor.on_leave is not None:
            self.executor.on_leave()

    # -- a task waits ----------------------------------------------------------------

    def _on_blocked(self, blocked: bool) -> None:
        peer = self.peer
        with peer.lock:
            if blocked and worker_state.actor_spec is None:
                self.executor.give_back()
            peer.send_node(Blocked(blocked))
            peer.engine.flush()
