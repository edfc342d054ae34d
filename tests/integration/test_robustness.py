"""One machine, used hard: memory that comes back, sessions that end, bad neighbours."""

from __future__ import annotations

import gc
import os
import socket
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import numpy as np
import pytest

import shoal as ray
from shoal._core.process.session import current
from shoal._core.wire.frame import PROTOCOL_VERSION, encode
from shoal._core.wire.node_messages import (
    FreeObjects,
    Hello,
    NodeQuery,
    ReturnLease,
    SealObject,
    UnpinObjects,
)
from shoal.exceptions import WorkerCrashedError
from tests.fault.programs import eventually, is_running

pytestmark = pytest.mark.integration

MEBIBYTE = 1024 * 1024
TIMEOUT_S = 30
#: What is promised: a dropped ref frees its memory within this time.
FREED_S = 1.0


@pytest.fixture(scope="module", autouse=True)
def _session() -> Iterator[None]:
    ray.shutdown()  # a session that tests before these share may still run
    ray.init(num_cpus=3, object_store_memory=300 * MEBIBYTE, log_to_driver=False)
    yield
    ray.shutdown()


def _store() -> dict[str, int]:
    store: dict[str, int] = current.session.query("store")
    return store


def _check_freed(began: float) -> None:
    eventually(
        lambda: not _store()["used_bytes"],
        f"not freed: {_store()}",
        FREED_S,
        since=began,
    )


def _large() -> Any:
    return np.ones(5 * MEBIBYTE, dtype=np.uint8)


@ray.remote
def make() -> Any:
    return _large()


@ray.remote
def make_ref() -> list[Any]:
    return [ray.put(_large())]


@ray.remote
class Keeper:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.kept: Any = None

    def keep(self, what: Any) -> int:
        self.kept = what
        return os.getpid()

    def make(self) -> Any:
        self.kept = [ray.put(_large())]
        return self.kept

    def drop(self) -> None:
        self.kept = None

    def read(self) -> int:
        return int(ray.get(self.kept[0]).nbytes)

    def drop_later(self) -> None:
        threading.Timer(0.05, self.drop).start()


@pytest.fixture
def keeper() -> Iterator[Any]:
    actor = Keeper.remote()
    ray.get(actor.drop.remote())
    yield actor
    ray.kill(actor)


# ------------------------------------------------- a dropped ref frees its memory


def test_the_driver_drops_what_it_put() -> None:
    ref = ray.put(_large())
    assert _store()["used_bytes"] >= 5 * MEBIBYTE
    del ref
    _check_freed(monotonic())


def test_the_driver_drops_a_result() -> None:
    ref = make.remote()
    assert ray.get(ref).nbytes == 5 * MEBIBYTE
    del ref
    _check_freed(monotonic())


def test_a_result_that_nobody_waits_for() -> None:
    ref = make.remote()
    del ref
    done = make.remote()
    ray.wait([done])
    del done
    _check_freed(monotonic())


def test_a_value_outlives_its_ref_as_long_as_it_is_used() -> None:
    ref = ray.put(_large())
    value = ray.get(ref)[100:200]
    del ref
    gc.collect()
    assert ray.get(make.remote()).nbytes
    assert _store()["used_bytes"] >= 5 * MEBIBYTE
    assert value.sum() == 100
    del value
    _check_freed(monotonic())


def test_a_ref_made_by_a_task() -> None:
    (ref,) = ray.get(make_ref.remote())
    assert ray.get(ref).nbytes == 5 * MEBIBYTE
    del ref
    _check_freed(monotonic())


def test_a_ref_inside_a_ref_inside_a_ref() -> None:
    inner = ray.put(_large())
    outer = ray.put([ray.put([inner])])
    del inner
    (middle,) = ray.get(outer)
    (inner,) = ray.get(middle)
    del outer, middle
    assert ray.get(inner).nbytes == 5 * MEBIBYTE
    del inner
    _check_freed(monotonic())


def test_an_actor_keeps_a_ref_and_drops_it(keeper: Any) -> None:
    ref = ray.put(_large())
    ray.get(keeper.keep.remote([ref]))
    del ref
    gc.collect()
    assert ray.get(keeper.read.remote()) == 5 * MEBIBYTE
    assert _store()["used_bytes"] >= 5 * MEBIBYTE
    ray.get(keeper.drop.remote())
    _check_freed(monotonic())


def test_an_idle_actor_drops_a_ref_in_a_thread(keeper: Any) -> None:
    ref = ray.put(_large())
    ray.get(keeper.keep.remote([ref]))
    del ref
    ray.get(keeper.drop_later.remote())
    _check_freed(monotonic() + 0.05)


def test_an_actor_drops_its_own_ref_first(keeper: Any) -> None:
    (ref,) = ray.get(keeper.make.remote())
    ray.get(keeper.drop.remote())
    assert ray.get(ref).nbytes == 5 * MEBIBYTE
    del ref
    _check_freed(monotonic())


def test_a_ref_goes_from_actor_to_actor(keeper: Any) -> None:
    other = Keeper.remote()
    (ref,) = ray.get(keeper.make.remote())
    ray.get(other.keep.remote([ref]))
    del ref
    ray.get(keeper.drop.remote())
    assert ray.get(other.read.remote()) == 5 * MEBIBYTE
    ray.get(other.drop.remote())
    _check_freed(monotonic())


def test_a_borrower_is_killed(keeper: Any) -> None:
    ref = ray.put(_large())
    ray.get(keeper.keep.remote([ref]))
    del ref
    ray.kill(keeper)
    _check_freed(monotonic())


def test_a_reader_is_killed(keeper: Any) -> None:
    ray.get(keeper.keep.remote(ray.put(_large())))
    ray.kill(keeper)
    _check_freed(monotonic())


def test_an_owner_is_killed(keeper: Any) -> None:
    ref = ray.get(keeper.make.remote())
    assert _store()["used_bytes"]
    ray.kill(keeper)
    _check_freed(monotonic())
    with pytest.raises(ray.exceptions.ObjectLostError):
        ray.get(ref[0], timeout=TIMEOUT_S)


def test_an_actor_goes_out_of_scope_with_its_refs() -> None:
    actor = Keeper.remote()
    ray.get(actor.keep.remote([ray.put(_large())]))
    del actor
    _check_freed(monotonic())


def test_a_stream_is_dropped_half_way() -> None:
    @ray.remote(num_returns="streaming")
    def stream() -> Any:
        for _ in range(5):
            yield _large()

    items = stream.remote()
    assert ray.get(next(items)).nbytes == 5 * MEBIBYTE
    del items
    gc.collect()
    _check_freed(monotonic())


def test_a_task_fails_with_large_arguments() -> None:
    @ray.remote(max_retries=0)
    def fail(array: Any) -> None:
        raise ValueError(array.nbytes)

    ref = fail.remote(_large())
    with pytest.raises(ValueError, match=str(5 * MEBIBYTE)):
        ray.get(ref)
    del ref
    gc.collect()
    _check_freed(monotonic())


def test_a_retired_workers_refs_stay_good() -> None:
    """Idle workers beyond one for each CPU are ended, unless refs need them."""

    @ray.remote(num_cpus=0)
    def hold_with_others(barrier: Any) -> tuple[Any, int]:
        ray.get(barrier.wait.remote())  # so that each has a worker of its own
        return ray.put(_large()), os.getpid()

    @ray.remote(num_cpus=0)
    class Barrier:
        def __init__(self, count: int) -> None:
            self._barrier = threading.Barrier(count)

        def wait(self) -> None:
            self._barrier.wait()

    count = 6
    barrier = Barrier.options(max_concurrency=count).remote(count)
    results = ray.get(
        [hold_with_others.remote(barrier) for _ in range(count)], timeout=TIMEOUT_S
    )
    pids = [pid for _, pid in results]
    assert len(set(pids)) == count

    def were_asked() -> bool:
        workers = current.session.query("workers")
        asked = [one for one in workers if one["state"] == "exiting"]
        return len([one for one in asked if one["pid"] in pids]) >= 3

    eventually(were_asked, "no idle worker was asked to end")
    for ref, _ in results:
        assert ray.get(ref, timeout=TIMEOUT_S).nbytes == 5 * MEBIBYTE
    assert all(map(is_running, pids))
    began = monotonic()
    del results, ref
    _check_freed(began)
    eventually(lambda: sum(map(is_running, pids)) <= 3, "idle workers stay")


# ----------------------------------------------------------------- bad neighbours


def _says_to_daemon(*words: bytes) -> Callable[[], None]:
    def speak() -> None:
        from shoal._core.process.session import current

        sock = current.session.peer.node.sock
        for word in words:
            sock.send(word)
        threading.Event().wait()

    return speak


@pytest.mark.parametrize(
    "words",
    [
        [b"\xff" * 100],
        [(1 << 31).to_bytes(4, "little")],
        [(3).to_bytes(4, "little") + b"abc"],
        [encode(SealObject(b"x" * 28))],
    ],
    ids=["noise", "size", "message", "seal"],
)
def test_nonsense_for_the_daemon_hurts_who_says_it(words: list[bytes]) -> None:
    other = Keeper.remote()
    pid = ray.get(other.keep.remote(1))
    speak = ray.remote(max_retries=0)(_says_to_daemon(*words))
    with pytest.raises(WorkerCrashedError):
        ray.get(speak.remote(), timeout=TIMEOUT_S)
    assert ray.get(other.keep.remote(2), timeout=TIMEOUT_S) == pid
    assert ray.get(make.remote(), timeout=TIMEOUT_S).nbytes == 5 * MEBIBYTE


def test_requests_without_sense_change_nothing() -> None:
    @ray.remote
    def speak() -> int:
        from shoal._core.process.session import current

        peer = current.session.peer
        with peer.lock:
            for number in (1, 2, 3, 10**9):
                peer.send_node(ReturnLease(number))
            peer.send_node(FreeObjects([b"x" * 28]))
            peer.send_node(UnpinObjects([b"x" * 28]))
            peer.send_node(NodeQuery(10**9, "nonsense"))
            peer.engine.flush()
        return 1

    other = Keeper.remote()
    pid = ray.get(other.keep.remote(1))
    assert ray.get(speak.remote(), timeout=TIMEOUT_S) == 1
    assert ray.get(other.keep.remote(2), timeout=TIMEOUT_S) == pid
    assert ray.get([make.remote() for _ in range(5)], timeout=TIMEOUT_S)


def _hung_up(sock: socket.socket) -> bool:
    sock.settimeout(TIMEOUT_S)
    try:
        while sock.recv(4096):
            continue
    except ConnectionResetError:
        return True
    return True


def _connect(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    return sock


def test_strangers_are_hung_up_on(keeper: Any) -> None:
    pid = ray.get(keeper.keep.remote(1))
    folder = current.session.peer.session_dir
    mine = current.session.peer.worker_id
    (actor,) = [
        bytes.fromhex(one["worker_id"])
        for one in current.session.query("workers")
        if one["pid"] == pid
    ]
    hellos = [
        Hello(PROTOCOL_VERSION, "worker", id_, os.getpid(), id_.hex())
        for id_ in (mine, actor, os.urandom(len(mine)))
    ]
    sayings = [b"\xff" * 50, encode(ReturnLease(1)), *map(encode, hellos)]
    for words in sayings:
        with _connect(f"{folder}/node.sock") as sock:
            sock.sendall(words)
            assert _hung_up(sock)
    for name in os.listdir(f"{folder}/p"):
        for words in sayings[:2]:
            with _connect(f"{folder}/p/{name}") as sock:
                sock.sendall(words)
                assert _hung_up(sock)
    assert ray.get(keeper.keep.remote(2), timeout=TIMEOUT_S) == pid
    assert ray.get(make.remote(), timeout=TIMEOUT_S).nbytes == 5 * MEBIBYTE
