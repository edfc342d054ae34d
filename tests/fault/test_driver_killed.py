"""A driver that is killed, in every phase of its life, leaves nothing behind.

Nothing: no process of the session, no process that a task started, no shared memory,
no socket file, no directory; and that within two seconds.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from tests.fault.conftest import Start
from tests.fault.programs import Program, eventually, is_running

pytestmark = [pytest.mark.integration, pytest.mark.fault]

INIT = "ray.init(num_cpus=2)\n"


def _has_daemon(program: Program) -> object:
    return program.processes()


def _has_directory(program: Program) -> object:
    return program.session_dirs()


def _has_socket(program: Program) -> object:
    return list(program.folder.glob("shoal-*/*/node.sock"))


def _has_worker(program: Program) -> object:
    return list(program.folder.glob("shoal-*/*/p/*"))


@pytest.mark.parametrize(
    "moment", [_has_daemon, _has_directory, _has_socket, _has_worker]
)
def test_killed_in_init(start: Start, moment: Callable[[Program], object]) -> None:
    program = start(INIT + "time.sleep(1000)")
    eventually(lambda: moment(program), "init got nowhere")
    program.check_nothing_left(program.kill())


PHASES = {
    "idle": """
        say("ready")
        time.sleep(1000)
        """,
    "submit": """
        @ray.remote
        def f(x):
            return x
        ray.get(f.remote(1))
        say("ready")
        while True:
            f.remote(1)
        """,
    "run": """
        @ray.remote
        def f():
            time.sleep(1000)
        @ray.remote
        class A:
            def m(self):
                time.sleep(1000)
        a = A.remote()
        refs = [f.remote(), a.m.remote()]
        ray.get(a.__ray_ready__.options(concurrency_group="").remote) if False else None
        say("ready")
        time.sleep(1000)
        """,
    "put": """
        say("ready")
        while True:
            ray.put(bytes(5_000_000))
        """,
    "get": """
        @ray.remote
        def f():
            time.sleep(1000)
        ref = f.remote()
        threading.Thread(target=lambda: (time.sleep(0.1), say("ready"))).start()
        ray.get(ref)
        """,
    "shutdown": """
        @ray.remote
        def f():
            time.sleep(1000)
        refs = [f.remote() for _ in range(10)]
        say("ready")
        ray.shutdown()
        time.sleep(1000)
        """,
    "several gets": """
        @ray.remote
        def f():
            return bytes(1_000_000)
        ray.get(f.remote())
        say("ready")
        while True:
            ray.get([f.remote() for _ in range(4)])
        """,
}
PHASES["run"] = PHASES["run"].replace(
    'ray.get(a.__ray_ready__.options(concurrency_group="").remote) if False else None',
    "",
)


@pytest.mark.parametrize("phase", PHASES)
def test_killed_while_it_works(start: Start, phase: str) -> None:
    program = start(INIT + _plain(PHASES[phase]))
    program.expect("ready")
    program.check_nothing_left(program.kill())


def _plain(source: str) -> str:
    import textwrap

    return textwrap.dedent(source)
