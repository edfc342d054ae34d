"""What ends, and what does not, as one of a session's programs leaves or dies."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

import shoal as ray
from shoal._core.process.session import current
from tests.integration.programs import (
    Program,
    Shelf,
    eventually,
    stored_objects,
    workers_of,
)

MEBIBYTE = 1024 * 1024

pytestmark = pytest.mark.integration

WAYS_TO_GO = {
    "shutdown": "ray.shutdown()\nsay('has left')\nwait()",
    "end": "",
    "kill": "os.kill(os.getpid(), 9)",
}

BUSY = """
@ray.remote
class Counter:
    def process(self):
        return os.getpid()

@ray.remote
def block():
    import threading
    threading.Event().wait()

@ray.remote
def process():
    return os.getpid()

say(ray.get(process.remote()))
group = placement_group([{"CPU": 0.5}])
ray.get(group.ready())
passing = Counter.options(name="passing").remote()
lasting = Counter.options(name="lasting", lifetime="detached", max_restarts=1).remote()
say(*ray.get([passing.process.remote(), lasting.process.remote()]))
stored = ray.put(np.zeros(1 << 20))
blocked = block.remote()
waiting = [block.options(num_cpus=2).remote() for _ in range(3)]
say("is busy")
wait()
"""


@pytest.mark.parametrize("way", WAYS_TO_GO)
def test_what_ends_with_a_program(join: Callable[..., Program], way: str) -> None:
    """Workers, actors, requests, objects and groups; not detached actors."""
    program = join(BUSY + WAYS_TO_GO[way])
    worker = int(program.hear())
    passing, lasting = map(int, program.hear().split())
    assert program.hear() == "is busy"
    assert stored_objects() == 1
    program.go_on()
    if way == "shutdown":
        assert program.hear() == "has left"
        # It waits for the end of what it leaves.
        assert not psutil.pid_exists(worker)
        assert not psutil.pid_exists(passing)
    eventually(
        lambda: not (psutil.pid_exists(worker) or psutil.pid_exists(passing)),
        "processes of the program outlive it",
    )
    eventually(
        lambda: [one["pid"] for one in workers_of("02000000")] == [lasting],
        "workers of the program are kept",
    )
    eventually(lambda: stored_objects() == 0, "its object is kept")
    eventually(
        lambda: ray.available_resources().get("CPU") == 2,
        "its resources did not come back",
    )
    with pytest.raises(ValueError, match="passing"):
        ray.get_actor("passing", namespace="theirs")
    found = ray.get_actor("lasting", namespace="theirs")
    assert ray.get(found.process.remote()) == lasting
    session_dir = current.session.info["session_dir"]
    peer = current.session.peer
    living = [one["worker_id"] for one in current.session.query("workers")]
    sockets = {
        os.path.basename(peer.socket_path(address))
        for address in [*living, peer.address]
    }
    assert set(os.listdir(f"{session_dir}/p")) <= sockets


def test_idle_workers_of_a_program_end_as_it_leaves(
    join: Callable[..., Program],
) -> None:
    """They are of no use to others; shutdown returns when they have ended."""
    program = join(
        """
        ray.get(ray.remote(os.getpid).remote())
        say("is done")
        wait()
        ray.shutdown()
        say("has left")
        wait()
        """
    )
    assert program.hear() == "is done"
    eventually(
        lambda: [one["state"] for one in workers_of("02000000")] == ["idle"],
        "its worker is not given back",
    )
    program.go_on()
    assert program.hear() == "has left"
    assert workers_of("02000000") == []


def test_a_detached_actor_is_restarted_after_its_program(
    join: Callable[..., Program], tmp_path: Path
) -> None:
    """What its job needs is remembered: its class's module is found again."""
    (tmp_path / "its_module.py").write_text("VALUE = 42\n")
    program = join(
        """
        @ray.remote(max_restarts=1, max_task_retries=-1)
        class Reader:
            def read(self):
                import its_module
                return its_module.VALUE, os.getpid()

        @ray.remote(max_restarts=1, max_task_retries=-1)
        class Boss:
            def work(self):
                import its_module
                helper = ray.remote(lambda: its_module.VALUE)
                return ray.get(helper.remote()) + 1, os.getpid()

        one = Reader.options(name="reader", lifetime="detached").remote()
        two = Boss.options(name="boss", lifetime="detached").remote()
        ray.get([one.read.remote(), two.work.remote()])
        """,
        cwd=tmp_path,
    )
    assert program.finish()[1] == ""
    reader = ray.get_actor("reader", namespace="theirs")
    boss = ray.get_actor("boss", namespace="theirs")
    value, first = ray.get(reader.read.remote())
    psutil.Process(first).kill()
    again, second = ray.get(reader.read.remote())
    assert value == again == 42
    assert first != second
    assert ray.get(boss.work.remote())[0] == 43
    # The worker that it used is not kept for a program that is gone.
    eventually(lambda: len(workers_of("02000000")) == 2, "a worker of it is kept")


def test_death_is_noticed_though_a_child_keeps_the_connection(
    join: Callable[..., Program],
) -> None:
    """A forked child holds the socket open; the driver's job ends all the same."""
    program = join(
        """
        import time

        @ray.remote
        def process():
            return os.getpid()

        say(ray.get(process.remote()))
        child = os.fork()
        if child == 0:
            os.close(1), os.close(2)
            time.sleep(60)
            os._exit(0)
        say(child)
        wait()
        """
    )
    worker, child = int(program.hear()), int(program.hear())
    program.process.kill()
    try:
        eventually(lambda: not psutil.pid_exists(worker), "its worker outlives it")
        assert psutil.pid_exists(child)
    finally:
        psutil.Process(child).kill()


def test_an_object_of_a_program_that_is_gone(join: Callable[..., Program]) -> None:
    """Its refs raise OwnerDiedError in other programs."""
    shelf = Shelf.options(name="shelf", namespace="theirs").remote()
    program = join(
        """
        shelf = ray.get_actor("shelf")
        ray.get(shelf.put.remote("theirs", [ray.put(np.ones(1 << 20))]))
        say("is put")
        """
    )
    assert program.hear() == "is put"
    program.finish()
    (theirs,) = ray.get(shelf.take.remote("theirs"))
    with pytest.raises(ray.exceptions.OwnerDiedError):
        ray.get(theirs, timeout=20)


def test_a_dead_program_borrows_nothing(join: Callable[..., Program]) -> None:
    """What only it still held and read is freed."""
    shelf = Shelf.options(name="shelf", namespace="theirs").remote()
    mine = ray.put(np.ones(MEBIBYTE))
    ray.get(shelf.put.remote("mine", [mine]))
    program = join(
        """
        (borrowed,) = ray.get(ray.get_actor("shelf").take.remote("mine"))
        value = ray.get(borrowed)
        say("has it")
        wait()
        os.kill(os.getpid(), 9)
        """
    )
    assert program.hear() == "has it"
    del mine
    eventually(lambda: stored_objects() == 1, "the object is gone too early")
    program.go_on()
    eventually(lambda: stored_objects() == 0, "a dead borrower keeps an object")


def test_the_session_ends_with_the_program_that_started_it(
    launch: Callable[..., Program], temp_dir: str
) -> None:
    """Others are told; their shutdown works; nothing of the session is left."""
    founder = launch("say(ray.init(num_cpus=1).address_info['address'])\nwait()")
    address = founder.hear()
    other = launch(
        f"""
        ray.init({address!r})
        @ray.remote
        class Lasting:
            def process(self):
                return os.getpid()
        lasting = Lasting.options(name="a", lifetime="detached").remote()
        say(ray.get(lasting.process.remote()))
        wait()
        try:
            ray.get(ray.put(1))
            ray.cluster_resources()
        except ray.exceptions.RaySystemError as error:
            say(type(error).__name__)
        ray.shutdown()
        say(ray.is_initialized())
        """
    )
    lasting = int(other.hear())
    founder.go_on()
    founder.finish()
    eventually(lambda: not psutil.pid_exists(lasting), "an actor outlives its session")
    other.go_on()
    assert other.hear() == "RaySystemError"
    assert other.hear() == "False"
    assert other.finish()[1] == ""
    assert os.listdir(f"{temp_dir}/shoal-{os.getuid()}") == []
