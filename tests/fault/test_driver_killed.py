"""A driver that ends, in whatever phase and way, leaves nothing behind.

Nothing: no process of the session, no process that a task started, no shared memory,
no socket file, no directory; after a kill, within two seconds.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from tests.fault.conftest import Start
from tests.fault.programs import Program, eventually, is_running

pytestmark = pytest.mark.integration


def _has_process(program: Program) -> object:
    return program.processes()


def _has_directory(program: Program) -> object:
    return program.session_dirs()


def _has_socket(program: Program) -> object:
    return list(program.folder.glob("shoal-*/*/node.sock"))


def _has_worker(program: Program) -> object:
    return list(program.folder.glob("shoal-*/*/p/*"))


@pytest.mark.parametrize(
    "moment", [_has_process, _has_directory, _has_socket, _has_worker]
)
def test_killed_in_init(start: Start, moment: Callable[[Program], object]) -> None:
    program = start("ray.init(num_cpus=2); time.sleep(1000)")
    eventually(lambda: moment(program), "init got nowhere")
    program.check_nothing_left(program.kill())


PHASES = {
    "idle": """
        ray.init(num_cpus=2)
        say("ready")
        time.sleep(1000)
        """,
    "submit": """
        ray.init(num_cpus=2)
        f = ray.remote(lambda x: x)
        ray.get(f.remote(1))
        say("ready")
        while True:
            f.remote(1)
        """,
    "put": """
        ray.init(num_cpus=2)
        say("ready")
        while True:
            ray.put(bytes(5_000_000))
        """,
    "get of results from the store": """
        ray.init(num_cpus=2)
        f = ray.remote(lambda: bytes(1_000_000))
        ray.get(f.remote())
        say("ready")
        while True:
            ray.get([f.remote() for _ in range(4)])
        """,
    "actor calls": """
        ray.init(num_cpus=2)
        @ray.remote
        class A:
            def m(self):
                return 1
        actors = [A.remote() for _ in range(3)]
        ray.get([a.m.remote() for a in actors])
        say("ready")
        while True:
            ray.get([a.m.remote() for a in actors])
        """,
    "shutdown": """
        ray.init(num_cpus=2)
        f = ray.remote(lambda: time.sleep(1000))
        refs = [f.remote() for _ in range(10)]
        say("ready")
        ray.shutdown()
        time.sleep(1000)
        """,
}


@pytest.mark.parametrize("phase", PHASES)
def test_killed_while_it_works(start: Start, phase: str) -> None:
    program = start(PHASES[phase])
    program.expect("ready")
    assert program.what_is_left() or phase == "shutdown"
    program.check_nothing_left(program.kill())


BUSY = """
    ray.init(num_cpus=2)
    here = os.path.dirname(os.path.abspath(__file__))
    f = ray.remote(busy_with)
    ref = f.remote(here + "/task")
    A = ray.remote(type("A", (), {"m": lambda self, path: busy_with(path)}))
    actor = A.options(lifetime="detached", name="a").remote()
    called = actor.m.remote(here + "/actor")
    ray.get([ref, called])
    """


def _pids(program: Program, name: str) -> list[int]:
    path = program.folder / name
    eventually(path.exists, f"{name} never began")
    return [int(pid) for pid in path.read_text().split()]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_what_tasks_and_actors_started_ends_with_the_driver(
    start: Start, number: signal.Signals
) -> None:
    program = start(BUSY)
    pids = _pids(program, "task") + _pids(program, "actor")
    assert len(pids) == 4
    assert all(map(is_running, pids))
    program.check_nothing_left(program.kill(number))
    assert not any(map(is_running, pids))
    assert program.exit_code() != 0


def test_a_program_that_fails_ends_its_session(start: Start) -> None:
    program = start(
        """
        ray.init(num_cpus=2)
        ray.get(ray.remote(lambda: 1).remote())
        raise ValueError("as it may happen")
        """
    )
    assert program.exit_code() == 1
    # Its end is orderly, so there is nothing to wait for.
    assert program.what_is_left() == ""
    assert "ValueError: as it may happen" in program.errors()


def test_a_program_that_just_ends_ends_its_session(start: Start) -> None:
    program = start("ray.init(num_cpus=2); a = ray.put(1)")
    assert program.exit_code() == 0
    assert program.what_is_left() == ""
    assert program.errors() == ""


def test_os_exit_leaves_nothing(start: Start) -> None:
    program = start("ray.init(num_cpus=2); os._exit(3)")
    assert program.exit_code() == 3
    program.check_nothing_left()
