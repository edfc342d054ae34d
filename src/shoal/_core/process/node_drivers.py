"""The drivers of this node's session: their jobs, their output, what ends with them.

One of them, the *founder*, may have started the daemon, which then ends with it; the
others come and go.  When one leaves or dies, its job is over: the workers that it
leased, its requests, objects, borrowed refs, placement groups and actors end, but for
detached actors and what these have made.

A driver that says that it leaves is let go (by hanging up) when the processes that end
with it have ended, so that it still shows what they said last.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

from shoal._core.control.jobs import ControlJobs, Job
from shoal._core.io.connection import Connection
from shoal._core.io.peer_credentials import process_of
from shoal._core.process.worker_output import OutputLine
from shoal._core.wire.node_messages import Hello, LogLines, ShutdownSession, Welcome

if TYPE_CHECKING:
    from shoal._core.process.node_daemon import NodeDaemon


class _DriverLink:
    """What the daemon keeps with a driver's connection."""

    __slots__ = ("connection", "is_leaving", "job", "pidfd", "wants_output")

    def __init__(self, connection: Connection, job: Job, *, wants_output: bool) -> None:
        self.connection = connection
        self.job = job
        self.wants_output = wants_output
        self.pidfd: int | None = None
        #: it asked to go, and waits for the last words of its processes
        self.is_leaving = False


class LocalDrivers:
    """The table of jobs, and the way to the drivers there are."""

    def __init__(self, daemon: NodeDaemon) -> None:
        self._daemon = daemon
        self._jobs = ControlJobs(daemon.control.has_living)
        #: by the id of the driver
        self._links: dict[bytes, _DriverLink] = {}

    # -- joining ---------------------------------------------------------------------

    def greet(self, connection: Connection, message: Hello) -> Job:
        """A driver said hello: its job begins."""
        daemon, driver = self._daemon, message.worker_id
        pid = process_of(connection.sock)
        job = self._jobs.begin(driver, pid, message.info)
        wants_output = bool(message.info["log_to_driver"])
        link = _DriverLink(connection, job, wants_output=wants_output)
        self._links[driver] = link
        daemon.machine.on_driver_joined(driver, job.job_id)
        self._watch(link)
        connection.send(
            Welcome(
                daemon.node_id,
                job.job_id,
                daemon.config["arena_bytes"],
                self.facts_of(job),
            )
        )
        connection.flush()
        if connection.is_open:
            self._hand_over_arena(connection)
        return job

    def _hand_over_arena(self, connection: Connection) -> None:
        try:
            socket.send_fds(connection.sock, [b"\0"], [self._daemon.arena_fd])
        except OSError as error:
            connection.close(f"cannot hand over the arena: {error}")

    def _watch(self, link: _DriverLink) -> None:
        """Notice its end also when a child of it keeps the connection open."""
        if not link.job.pid:  # the kernel can't name it: it lives in another container
            return
        try:
            link.pidfd = os.pidfd_open(link.job.pid)
        except ProcessLookupError:
            link.connection.close("the driver ended")
            return
        self._daemon.engine.add_reader(
            link.pidfd, lambda _: link.connection.close("the driver ended")
        )

    def facts_of(self, job: Job) -> dict[str, Any]:
        """What the API in the processes of a job knows of job and session."""
        config = self._daemon.config
        return {
            **job.facts,
            "session_dir": config["session_dir"],
            "node_id": config["node_id"],
            "labels": config["labels"],
        }

    def worker_setup(self, job_id: bytes) -> dict[str, Any]:
        """What the fork server is told of the job that a worker is for."""
        job = self._jobs.get(job_id)
        assert job is not None, "a job is on record while it can need workers"
        return {"job_id": job_id, "session": self.facts_of(job), **job.setup}

    # -- output ----------------------------------------------------------------------

    def show(self, worker_id: bytes, lines: list[OutputLine]) -> None:
        """Pass lines of a worker on to the driver of its job, if that is there."""
        worker = self._daemon.machine.workers.workers.get(worker_id)
        job = self._jobs.get(worker.job) if worker is not None else None
        link = self._links.get(job.driver) if job is not None else None
        if link is not None and link.wants_output:
            link.connection.send(LogLines(lines))

    # -- leaving ---------------------------------------------------------------------

    def say_farewell(self, reason: str) -> None:
        """The session ends: tell every driver why, before it is hung up on."""
        for link in self._links.values():
            link.connection.send(ShutdownSession(reason))

    def on_leave(self, driver: bytes) -> None:
        """A driver says that it leaves."""
        link = self._links.get(driver)
        if link is None:
            return
        link.is_leaving = True
        # It hears of nothing any more, and what it still says does not matter.
        link.connection.on_message = _ignore
        self._end(driver, "its program called shutdown or ended")
        self.release_leaving()

    def on_closed(self, driver: bytes) -> bool:
        """A driver's connection is closed; False when it is no driver's."""
        link = self._links.pop(driver, None)
        if link is None:
            return False
        if link.pidfd is not None:
            self._daemon.engine.remove_reader(link.pidfd)
            os.close(link.pidfd)
        self._end(driver, "the process ended or hung up")
        return True

    def _end(self, driver: bytes, cause: str) -> None:
        job = self._jobs.end(driver)
        if job is None:
            return
        daemon = self._daemon
        daemon.clients.pop(driver, None)
        daemon.machine.on_driver_gone(driver, job.pid, cause)
        daemon.on_client_ended(driver, cause)
        daemon.groups.on_job_over(job.job_id)

    def release_leaving(self) -> None:
        """Let those go whose processes have all ended."""
        workers = self._daemon.machine.workers
        for link in list(self._links.values()):
            if link.is_leaving and not workers.is_ending(link.job.job_id):
                link.connection.flush()
                link.connection.close("all that ends with it has ended")


def _ignore(_connection: Connection, _message: object) -> None:
    return
