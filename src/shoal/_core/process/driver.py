"""The driver's side of a local session: its peer, its output, its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic, time
from typing import Any, TextIO

from shoal._core.io import interrupts
from shoal._core.io.driver_output import DriverOutput, choose_prefix_color
from shoal._core.io.engine import Waiter
from shoal._core.io.process_watch import remove_tree
from shoal._core.policy.log_folding import LogFolder
from shoal._core.process.joining import LocalSession
from shoal._core.process.metric_reports import report_metrics
from shoal._core.serial.failures import decode_failure
from shoal._core.wire.node_messages import CollectMetrics, LogLines, ShutdownSession
from shoal.exceptions import RayTaskError

END_TIMEOUT_S = 5.0
ERRORS_KEPT_MAX = 1000


class Driver:
    """Composition of a driver process."""

    def __init__(
        self, local: LocalSession, daemon: subprocess.Popen[bytes] | None
    ) -> None:
        """``daemon`` is the session's, if this driver started it."""
        self.local = local
        self._daemon = daemon
        self.peer = local.peer
        #: the last errors of its tasks: (when, function, task, payload)
        self._errors: deque[tuple[float, str, bytes, bytes]] = deque(
            maxlen=ERRORS_KEPT_MAX
        )
        self.peer.owner.tasks.on_failed = self._on_failed
        if os.environ.get("RAY_IGNORE_UNHANDLED_ERRORS", "0") == "0":
            self.peer.owner.refs.on_unseen_error = self._on_unseen_error
        self.peer.on_node_message = self._on_node_message
        # Lines of a logging config say themselves where they come from.
        plain = local.facts["logging"] is not None
        self._streams = {
            False: _output(lambda: sys.stdout, plain=plain),
            True: _output(lambda: sys.stderr, plain=plain),
        }
        self._timer_is_set = False

    def start(self) -> None:
        """Begin to serve."""
        self.peer.listen()
        self.peer.install_hooks()
        self.peer.engine.start_background()
        self._take_signals()

    def _take_signals(self) -> None:
        """Have Ctrl-C end a wait at once, and SIGTERM end the program in order.

        A program that handles these signals itself is left alone.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            interrupts.install(lambda: True)
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _exit_in_order)

    def give_back_signals(self) -> None:
        """Have signals do again what they do in any program."""
        if threading.current_thread() is not threading.main_thread():
            return
        interrupts.uninstall()
        if signal.getsignal(signal.SIGTERM) is _exit_in_order:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _on_failed(self, record: Any, value: Any) -> None:
        """A task ended in an error (under the lock)."""
        self._errors.append((time(), record.call.name, record.task_id, value.data))

    def _on_unseen_error(self, record: Any, payload: bytes) -> None:
        """The last ref to an error died, and nobody got it (under the lock)."""
        if not record.is_cancelled:
            self.peer.engine.callbacks.append(partial(_show_unhandled, payload))

    def describe_errors(self) -> list[dict[str, Any]]:
        """The last errors of this driver's tasks, oldest first."""
        with self.peer.lock:
            errors = list(self._errors)
        described = []
        for when, function, task_id, payload in errors:
            error = decode_failure(payload)
            described.append(
                {
                    "type": type(error).__name__,
                    "message": str(error),
                    "timestamp": when,
                    "function": function,
                    "task_id": task_id.hex(),
                    "job_id": self.peer.job_id.hex(),
                }
            )
        return described

    def _on_node_message(self, message: Any) -> None:
        if isinstance(message, LogLines):
            self.peer.engine.callbacks.append(lambda: self._show(message))
        elif isinstance(message, CollectMetrics):
            report_metrics(self.peer, "driver", message.request)
        elif isinstance(message, ShutdownSession):
            self.peer.lost_reason = self.peer.lost_reason or message.reason

    def _show(self, message: LogLines) -> None:
        now = monotonic()
        for name, pid, is_error, text, overwritten in message.lines:
            stream = self._streams[is_error]
            stream.show(name, pid, text, now, is_overwritten=overwritten)
        self._set_timer()

    def _set_timer(self) -> None:
        deadlines = [stream.deadline() for stream in self._streams.values()]
        due = [deadline for deadline in deadlines if deadline is not None]
        if due and not self._timer_is_set:
            self._timer_is_set = True
            with self.peer.lock:
                self.peer.call_at(min(due), self._on_timer)

    def _on_timer(self) -> None:
        self._timer_is_set = False
        self.peer.engine.callbacks.append(self._tick)

    def _tick(self) -> None:
        now = monotonic()
        for stream in self._streams.values():
            stream.tick(now)
        self._set_timer()

    def stop(self) -> None:
        """Leave; the session ends with the driver that started it."""
        with self.peer.lock:
            self.peer.drain_dropped()
        peer = self.peer
        peer.is_leaving = True
        if self._daemon is not None:
            self._end_session(self._daemon)
        else:
            self._leave_session()
        peer.engine.poll_now()
        peer.lost_reason = peer.lost_reason or "the session was shut down"
        for stream in self._streams.values():
            stream.close()
        peer.close()
        os.close(peer.arena.fd)
        self.give_back_signals()
        if self._daemon is not None and not os.environ.get("SHOAL_KEEP_SESSION_DIR"):
            remove_tree(self.local.session_dir)

    def _end_session(self, daemon: subprocess.Popen[bytes]) -> None:
        with self.peer.lock:
            self.peer.send_node(ShutdownSession("the driver shut down"))
            self.peer.engine.flush()
        try:
            daemon.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def _leave_session(self) -> None:
        """The daemon hangs up when all that ends with this job has ended."""
        peer, waiter = self.peer, Waiter()
        with peer.lock:
            if peer.lost_reason:
                return
            peer.on_node_lost = waiter.arrived
            report_metrics(peer, "driver")
            peer.send_node(ShutdownSession("the driver shut down"))
            peer.engine.flush()
        peer.engine.wait(waiter, monotonic() + END_TIMEOUT_S)


def _exit_in_order(number: int, _frame: object) -> None:
    sys.exit(number)


def _show_unhandled(payload: bytes) -> None:
    """Tell of an error of user code that no part of the program took notice of."""
    error = decode_failure(payload)
    if isinstance(error, RayTaskError):
        sys.stderr.write(
            "Unhandled error (suppress with 'RAY_IGNORE_UNHANDLED_ERRORS=1'): "
            f"{error}\n"
        )
        sys.stderr.flush()


def _output(stream: Callable[[], TextIO], *, plain: bool) -> DriverOutput:
    env = os.environ
    is_terminal = stream().isatty()
    setting = env.get("SHOAL_COLOR_PREFIX", env.get("RAY_COLOR_PREFIX"))
    folds = env.get("SHOAL_DEDUP_LOGS", env.get("RAY_DEDUP_LOGS", "1")) != "0"
    plain = plain or env.get("RAY_DISABLE_WORKER_LOG_PREFIX", "0") == "1"
    return DriverOutput(
        stream,
        folder=LogFolder() if folds else None,
        color=choose_prefix_color(setting, is_terminal=is_terminal),
        is_terminal=is_terminal,
        with_prefix=not plain,
    )
