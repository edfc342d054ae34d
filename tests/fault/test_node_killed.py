"""The node daemon or the fork server is killed: the session ends, and says so.

Whatever waits is told within two seconds, nothing of the session is left, and the
program can begin another one.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from contextlib import suppress

import psutil
import pytest

from tests.fault.conftest import Start
from tests.fault.programs import GONE_S, Program, eventually, is_running

pytestmark = pytest.mark.integration

SETUP = """
ray.init(num_cpus=2, object_store_memory=200_000_000)

@ray.remote
def forever():
    time.sleep(1000)

@ray.remote(num_returns="streaming")
def stream():
    yield 1
    time.sleep(1000)

@ray.remote
class A:
    def m(self):
        return 1
    def forever(self):
        time.sleep(1000)

actor = A.remote()
ray.get(actor.m.remote())
small, large = ray.put(1), ray.put(bytes(1_000_000))
pending = forever.remote()
called = actor.forever.remote()
items = stream.options(num_cpus=0).remote()
ray.get(next(items))

def again(work):
    while True:
        work()

"""

WAITS = {
    "get of a task": "ray.get(pending)",
    "get of a call": "ray.get(called)",
    "get of many": "ray.get([small, pending, called])",
    "next item": "ray.get(next(items))",
    "future": "pending.future().result()",
    "await": """
        import asyncio
        async def wait():
            return await pending
        asyncio.run(wait())
        """,
    "wait": "ray.get(ray.wait([pending])[0])",
    "get in a thread": """
        from concurrent.futures import ThreadPoolExecutor
        pool = ThreadPoolExecutor(2)
        futures = [pool.submit(ray.get, pending), pool.submit(ray.get, called)]
        [future.result() for future in futures]
        """,
    "submitting": "again(lambda: forever.remote())",
    "calling": "again(lambda: actor.m.remote())",
    "putting": "again(lambda: ray.put(bytes(1_000_000)))",
    "asking": "again(ray.cluster_resources)",
}

AROUND = """
say("ready")
try:
{work}
except ray.exceptions.RaySystemError as error:
    assert "shutdown() and init()" in str(error), error
    say("told")
assert ray.get(small) == 1
for use in (lambda: forever.remote(), lambda: actor.m.remote(), ray.nodes):
    try:
        use()
    except ray.exceptions.RaySystemError:
        continue
    raise AssertionError(f"{{use}} did not raise")
say("good")
sys.stdin.readline()
ray.shutdown()
ray.init(num_cpus=1)
say(ray.get(ray.remote(lambda: "new").remote()))
"""


def _program(work: str) -> str:
    body = textwrap.indent(textwrap.dedent(work).strip("\n"), "    ")
    return SETUP + AROUND.format(work=body)


def _check_told_and_gone(
    program: Program, victim_of: Callable[[Program], psutil.Process]
) -> None:
    program.expect("ready")
    victim_of(program).kill()
    assert program.hear(GONE_S) == "told"
    program.expect("good")
    program.check_nothing_left()
    program.tell()
    program.expect("new")
    assert program.exit_code() == 0, program.errors()
    assert program.what_is_left() == ""


@pytest.mark.parametrize("wait", WAITS)
def test_daemon_killed(start: Start, wait: str) -> None:
    _check_told_and_gone(start(_program(WAITS[wait])), Program.daemon)


@pytest.mark.parametrize("wait", ["get of a task", "submitting", "putting"])
def test_fork_server_killed(start: Start, wait: str) -> None:
    _check_told_and_gone(start(_program(WAITS[wait])), Program.fork_server)


def test_the_reason_is_told(start: Start) -> None:
    program = start(
        """
        ray.init(num_cpus=1)
        ref = ray.remote(lambda: time.sleep(1000)).remote()
        say("ready")
        try:
            ray.get(ref)
        except ray.exceptions.RaySystemError as error:
            say("the fork server ended" in str(error), error)
        """
    )
    program.expect("ready")
    program.fork_server().kill()
    assert program.hear(GONE_S).startswith("True")
    assert program.exit_code() == 0, program.errors()


def test_what_tasks_started_ends_with_the_daemon(start: Start) -> None:
    program = start(
        """
        ray.init(num_cpus=2)
        path = os.path.dirname(os.path.abspath(__file__)) + "/task"
        ref = ray.remote(busy_with).remote(path)
        say("ready")
        time.sleep(1000)
        """
    )
    program.expect("ready")
    path = program.folder / "task"
    eventually(path.exists, "the task never began")
    pids = [int(pid) for pid in path.read_text().split()]
    assert all(map(is_running, pids))
    program.daemon().kill()
    program.check_nothing_left()
    assert not any(map(is_running, pids))


@pytest.mark.parametrize("victim", [Program.daemon, Program.fork_server])
def test_killed_in_shutdown(
    start: Start, victim: Callable[[Program], psutil.Process]
) -> None:
    program = start(
        """
        ray.init(num_cpus=2)
        refs = [ray.remote(lambda: time.sleep(1000)).remote() for _ in range(9)]
        say("ready")
        ray.shutdown()
        say("over")
        sys.stdin.readline()
        """
    )
    program.expect("ready")
    with suppress(psutil.NoSuchProcess, IndexError):  # the shutdown was faster
        victim(program).kill()
    assert program.hear(GONE_S) == "over"
    program.check_nothing_left()


def test_daemon_killed_in_init(start: Start) -> None:
    program = start(
        """
        try:
            ray.init(num_cpus=2)
            ray.get(ray.remote(lambda: 1).remote())
            time.sleep(1000)
        except ray.exceptions.RaySystemError as error:
            say("told")
            sys.stdin.readline()
        """
    )
    daemon = eventually(program.processes, "init started nothing")[0]
    daemon.kill()
    assert program.hear() == "told"
    program.check_nothing_left()
