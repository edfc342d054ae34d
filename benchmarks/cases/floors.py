"""The floor of each case: what the machine and the interpreter allow at best.

Each floor does with bare means what a case can't do without: a round trip between
processes, a stream of small messages, a copy of memory, a fork. It does none of the
work that makes a system useful, so no system reaches it; a ratio to the floor tells
how much of the machine is left to the user.
"""

import mmap
import multiprocessing
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy

from benchmarks import processes
from benchmarks.cases.measure import Session, duration, median, rate
from benchmarks.cases.objects import LARGE_BYTES, SMALL

MESSAGE = b"m" * 100
FRAME_HEADER = struct.Struct("<I")
WINDOW = 1_000
ACTORS = 100
PINGPONG_CASES = ("task_sync", "actor_sync", "async_actor_sync")
STREAM_CASES = (
    "task_async_1k",
    "task_async_100k",
    "task_submitters",
    "actor_async",
    "actor_threaded",
    "actor_n_n",
    "actor_args",
    "async_actor_async",
)


def fork_child(body: Callable[[], None]) -> int:
    """Run a function in a forked process, which ends after it; returns its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            body()
        finally:
            os._exit(0)
    return pid


def pause_forever() -> None:
    """A child that does nothing until it is killed."""
    while True:
        signal.pause()


def end_children(pids: list[int]) -> None:
    """Kill and reap."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        os.waitpid(pid, 0)


def with_echo_child(
    echo: Callable[[socket.socket], None], body: Callable[[socket.socket], float]
) -> float:
    """Measure over a Unix socket pair whose other end is in a forked process."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        ours.close()
        echo(theirs)

    pid = fork_child(serve)
    theirs.close()
    try:
        return body(ours)
    finally:
        ours.close()
        os.waitpid(pid, 0)


def echo_bytes(connection: socket.socket) -> None:
    """Send back whatever arrives until the other end closes."""
    while chunk := connection.recv(65536):
        connection.sendall(chunk)


def pingpong_rate(seconds: float) -> float:
    """Round trips per second over a Unix socket, 100 bytes each way."""

    def body(connection: socket.socket) -> float:
        def round_trip() -> None:
            connection.sendall(MESSAGE)
            connection.recv(4096)

        return rate(round_trip, seconds)

    return with_echo_child(echo_bytes, body)


def frames_in(buffer: bytearray) -> list[bytes]:
    """Take all complete frames from the front of the buffer."""
    frames = []
    position = 0
    while len(buffer) - position >= FRAME_HEADER.size:
        (size,) = FRAME_HEADER.unpack_from(buffer, position)
        end = position + FRAME_HEADER.size + size
        if end > len(buffer):
            break
        frames.append(bytes(buffer[position + FRAME_HEADER.size : end]))
        position = end
    del buffer[:position]
    return frames


def framed(message: bytes) -> bytes:
    """One message with its length before it."""
    return FRAME_HEADER.pack(len(message)) + message


def echo_frames(connection: socket.socket) -> None:
    """Answer each frame by one frame, all that arrived together in one send."""
    buffer = bytearray()
    while chunk := connection.recv(65536):
        buffer += chunk
        connection.sendall(b"".join([framed(frame) for frame in frames_in(buffer)]))


def stream_rate(seconds: float) -> float:
    """Framed messages of 100 bytes, 1,000 at once, each answered, per second."""

    def body(connection: socket.socket) -> float:
        def window() -> None:
            connection.sendall(b"".join([framed(MESSAGE) for _ in range(WINDOW)]))
            buffer = bytearray()
            answered = 0
            while answered < WINDOW:
                buffer += connection.recv(65536)
                answered += len(frames_in(buffer))

        return WINDOW * rate(window, seconds)

    return with_echo_child(echo_frames, body)


def pipe_rate(seconds: float) -> float:
    """Round trips per second over multiprocessing.Pipe, 100 bytes each way."""
    ours, theirs = multiprocessing.Pipe()

    def serve() -> None:
        ours.close()
        try:
            while True:
                theirs.send(theirs.recv())
        except EOFError:
            return

    pid = fork_child(serve)
    theirs.close()

    def round_trip() -> None:
        ours.send(MESSAGE)
        ours.recv()

    try:
        return rate(round_trip, seconds)
    finally:
        ours.close()
        os.waitpid(pid, 0)


def put_rate(seconds: float) -> float:
    """Pickle a small value and keep it under a fresh number, per second."""
    kept: dict[int, bytes] = {}
    dumps = pickle.dumps

    def put() -> None:
        kept[len(kept)] = dumps(SMALL, 5)

    return rate(put, seconds, batch=100)


def get_rate(seconds: float) -> float:
    """Look a small value up and unpickle it, per second."""
    kept = {number: pickle.dumps(SMALL, 5) for number in range(1_000)}
    loads = pickle.loads
    return rate(lambda: loads(kept[500]), seconds, batch=100)


def copy_rate() -> float:
    """GB/s of copying 100 MB into memory that has been touched before."""
    source = numpy.ones(LARGE_BYTES // 8)
    target = numpy.zeros_like(source)
    for _ in range(3):
        numpy.copyto(target, source)
    times = [duration(lambda: numpy.copyto(target, source)) for _ in range(10)]
    return LARGE_BYTES / median(times) / 1e9


def view_latency_ms() -> float:
    """Milliseconds to make an array over memory that is mapped already."""
    with mmap.mmap(-1, LARGE_BYTES) as memory:
        times = [duration(lambda: numpy.frombuffer(memory)) for _ in range(100)]
    return median(times) * 1e3


def unpickle_ids_rate(seconds: float) -> float:
    """Lists of 10,000 ids of 28 bytes unpickled per second."""
    pickled = pickle.dumps([os.urandom(28) for _ in range(10_000)], 5)
    return rate(lambda: pickle.loads(pickled), seconds)


def fork_duration(count: int) -> float:
    """Seconds to fork so many interpreters and hear a byte from each."""
    reader, writer = os.pipe()

    def report_and_pause() -> None:
        os.write(writer, b"x")
        pause_forever()

    start = time.perf_counter()
    pids = [fork_child(report_and_pause) for _ in range(count)]
    heard = 0
    while heard < count:
        heard += len(os.read(reader, count))
    elapsed = time.perf_counter() - start
    end_children(pids)
    os.close(reader)
    os.close(writer)
    return elapsed


def interpreter_start() -> float:
    """Seconds from starting an interpreter to its first statement."""
    times = []
    for _ in range(5):
        spawned_at = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", "import time; print(time.monotonic())"],
            capture_output=True,
            check=True,
        )
        times.append(float(done.stdout) - spawned_at)
    return median(times)


def end_duration(cpus: int) -> float:
    """Seconds to kill and reap one idle child per CPU."""
    pids = [fork_child(pause_forever) for _ in range(cpus)]
    return duration(lambda: end_children(pids))


def idle_megabytes(cpus: int) -> float:
    """Memory that one forked, idle interpreter per CPU adds."""
    bare = processes.pss_bytes(os.getpid())
    pids = [fork_child(pause_forever) for _ in range(cpus)]
    added = sum(map(processes.pss_bytes, [os.getpid(), *pids])) - bare
    end_children(pids)
    return added / 1e6


class _Pending:
    """The least that stands for a task: an object that knows its id."""

    __slots__ = ("task_id",)

    def __init__(self, task_id: bytes) -> None:
        self.task_id = task_id


def pending_bytes(count: int) -> float:
    """Bytes per entry of a table of so many objects under 16-byte ids."""
    before = processes.rss_bytes()
    table: dict[bytes, Any] = {}
    for number in range(count):
        task_id = number.to_bytes(16)
        table[task_id] = _Pending(task_id)
    return (processes.rss_bytes() - before) / count


def main() -> None:
    """Measure every floor that was asked for."""
    session = Session()
    seconds, cpus = session.seconds, session.cpus
    # Forks first, while this process is small: they copy its page tables.
    session.take("actors_100", lambda: fork_duration(session.scaled(ACTORS, 8)))
    session.take("shutdown_gone", lambda: end_duration(cpus))
    session.take("first_result", interpreter_start)
    session.take("idle_pss", lambda: idle_megabytes(cpus))
    session.take("idle_processes", lambda: cpus + 1)
    session.take("idle_worker_threads", lambda: 1)
    session.take("pending_bytes", lambda: pending_bytes(session.scaled(10**6, 10**5)))
    _take_shared_floors(session)
    session.take("pipe_pingpong", lambda: pipe_rate(seconds))
    session.take("put_small", lambda: put_rate(seconds))
    session.take("get_small", lambda: get_rate(seconds))
    session.take("put_100mb", copy_rate)
    session.take("get_read_100mb", copy_rate)
    session.take("get_100mb_ms", view_latency_ms)
    session.take("ref_10k", lambda: unpickle_ids_rate(seconds))


def _take_shared_floors(session: Session) -> None:
    """Measure ping-pong and stream once each for all the cases they are the floor of.

    The figures of one round thus have one and the same floor.
    """
    if session.is_wanted(*PINGPONG_CASES):
        round_trips = pingpong_rate(3 * session.seconds)
        for key in PINGPONG_CASES:
            session.take(key, lambda: round_trips)
    if session.is_wanted(*STREAM_CASES, "wait_1k"):
        messages = stream_rate(3 * session.seconds)
        for key in STREAM_CASES:
            session.take(key, lambda: messages)
        session.take("wait_1k", lambda: messages / session.scaled(1_000, 100))


if __name__ == "__main__":
    main()
