"""Several programs on one session: they join, work side by side, leave and die."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import psutil
import pytest

import shoal as ray
from shoal._core.process.session import current
from shoal._core.wire.frame import FrameReader, decoder, encode
from shoal._core.wire.node_messages import Hello
from shoal._core.wire.worker_messages import ConnectionRefused

ROOT = Path(__file__).resolve().parents[2]
MEBIBYTE = 1024 * 1024

pytestmark = pytest.mark.integration

PREAMBLE = """
import os, sys
import numpy as np
import shoal as ray
from shoal.util import placement_group

def say(*words):
    print(*words, flush=True)

def wait():
    sys.stdin.readline()

"""


def eventually(holds: Callable[[], bool], why: str, timeout_s: float = 20) -> None:
    """Poll until something holds."""
    deadline = monotonic() + timeout_s
    while not holds():
        assert monotonic() < deadline, why
        sleep(0.01)


class Program:
    """Another program, which says lines and goes on when it is told to."""

    def __init__(self, source: str, cwd: Path | None = None, **variables: str) -> None:
        path = str(ROOT / "src")
        self.process = subprocess.Popen(
            [sys.executable, "-c", PREAMBLE + textwrap.dedent(source)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env=os.environ | {"PYTHONPATH": path} | variables,
        )

    def hear(self) -> str:
        """The next line that it says."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.finish()
        return line.strip()

    def go_on(self) -> None:
        """End its ``wait()``."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def finish(self) -> tuple[str, str]:
        """Wait for its end; what it said that nobody heard: output and errors."""
        return self.process.communicate(timeout=30)


@pytest.fixture
def temp_dir() -> Iterator[str]:
    """Where no other session is; short, as paths of sockets must be."""
    folder = tempfile.mkdtemp(prefix="s-")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def address(temp_dir: str) -> Iterator[str]:
    """A session of this process, with two CPUs; gives its address."""
    ray.shutdown()
    context = ray.init(num_cpus=2, _temp_dir=temp_dir)
    yield context.address_info["address"]
    ray.shutdown()


@pytest.fixture
def launch(temp_dir: str) -> Iterator[Callable[..., Program]]:
    """Start a program that starts and looks for sessions where this test does."""
    programs: list[Program] = []

    def start(source: str, **options: Any) -> Program:
        programs.append(Program(source, SHOAL_TMPDIR=temp_dir, **options))
        return programs[-1]

    yield start
    for program in programs:
        program.process.kill()
        program.process.communicate()


@pytest.fixture
def join(address: str, launch: Callable[..., Program]) -> Callable[..., Program]:
    """Start a program that joins the session."""

    def start(source: str, **options: Any) -> Program:
        joining = f"ray.init(address={address!r}, namespace='theirs')\n"
        return launch(joining + textwrap.dedent(source), **options)

    return start


def workers_of(job_id: str) -> list[dict[str, Any]]:
    return [one for one in current.session.query("workers") if one["job_id"] == job_id]


def stored_objects() -> int:
    return int(current.session.query("store")["object_count"])


@ray.remote
class Shelf:
    """Keeps what it is given, also refs."""

    def __init__(self) -> None:
        self.things: dict[str, Any] = {}

    def put(self, name: str, thing: Any) -> None:
        self.things[name] = thing

    def take(self, name: str) -> Any:
        return self.things.pop(name)


# ---------------------------------------------------------------------------- joining


def test_a_program_that_joins_has_a_job_of_its_own(
    join: Callable[..., Program], tmp_path: Path
) -> None:
    """Its workers have its import path, folder and namespace, and its results."""
    (tmp_path / "only_theirs.py").write_text("def triple(x):\n    return 3 * x\n")
    program = join(
        """
        import only_theirs

        @ray.remote
        def work(x):
            context = ray.get_runtime_context()
            return only_theirs.triple(x), os.getcwd(), context.namespace

        value, folder, namespace = ray.get(work.remote(5))
        say(value, folder, namespace, ray.get_runtime_context().get_job_id())
        say(ray.cluster_resources()["CPU"], ray.nodes()[0]["NodeID"])
        """,
        cwd=tmp_path,
    )
    context = ray.get_runtime_context()
    assert program.hear() == f"15 {tmp_path} theirs 02000000"
    assert program.hear() == f"2.0 {context.get_node_id()}"
    assert program.finish()[1] == ""
    assert context.get_job_id() == "01000000"
    assert context.namespace != "theirs"

    @ray.remote
    def where() -> str:
        return os.getcwd()

    assert ray.get(where.remote()) == os.getcwd()


@pytest.mark.parametrize(
    "variables", [{"address": "auto"}, {"SHOAL_ADDRESS": ""}, {"RAY_ADDRESS": ""}]
)
def test_other_ways_to_say_which_session(
    address: str, launch: Callable[..., Program], variables: dict[str, str]
) -> None:
    """``address="auto"`` and the environment's variables."""
    given = repr(variables.get("address"))
    names = {name: address for name in variables if name.isupper()}
    program = launch(f"say(ray.init({given}).address_info['address'])", **names)
    assert program.hear() == address
    assert program.finish()[1] == ""


@pytest.mark.parametrize("form", ["{}", "{}/", "{}/node.sock", "unix:{}/node.sock"])
def test_forms_of_the_address(
    address: str, launch: Callable[..., Program], form: str
) -> None:
    """The directory and the socket do as well."""
    path = form.format(address.removeprefix("unix:"))
    program = launch(f"say(ray.init({path!r}).address_info['address'])")
    assert program.hear() == address
    program.finish()


def test_auto_takes_the_newest_that_lives(
    address: str, launch: Callable[..., Program]
) -> None:
    """Ended sessions and older ones are passed over."""
    start = "say(ray.init(num_cpus=1).address_info['address'])\nwait()"
    newer = launch(start)
    newer_address = newer.hear()
    ended = launch(start, SHOAL_KEEP_SESSION_DIR="1")
    ended_address = ended.hear()
    ended.go_on()
    ended.finish()
    assert os.path.isdir(ended_address.removeprefix("unix:"))
    joining = "say(ray.init('auto').address_info['address'])"
    assert launch(joining).hear() == newer_address
    newer.go_on()
    newer.finish()
    assert launch(joining).hear() == address


def test_nothing_to_join(temp_dir: str) -> None:
    """ConnectionError, and no session in this process."""
    ray.shutdown()
    with pytest.raises(ConnectionError, match="Could not find a running session"):
        ray.init(address="auto", _temp_dir=temp_dir)
    with pytest.raises(ConnectionError, match="no session of this user runs there"):
        ray.init(address=f"unix:{temp_dir}/gone")
    assert not ray.is_initialized()


def test_what_the_node_has_is_not_for_a_joining_program(
    address: str, launch: Callable[..., Program]
) -> None:
    """ValueError for num_cpus and the like."""
    program = launch(
        f"""
        try:
            ray.init({address!r}, num_cpus=4)
        except ValueError as error:
            say(error)
        """
    )
    assert "num_cpus must not be given" in program.hear()
    program.finish()


def test_another_release_is_refused_and_told_why(address: str) -> None:
    """The daemon answers a Hello of another version with a refusal."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(f"{address.removeprefix('unix:')}/node.sock")
        sock.settimeout(10)
        sock.sendall(encode(Hello(99, "driver", bytes(16), os.getpid(), "00" * 16)))
        reader = FrameReader(decoder(ConnectionRefused))
        (refusal,) = reader.feed(sock.recv(1 << 16))
        assert "protocol" in refusal.reason
        assert sock.recv(1) == b""


# ----------------------------------------------------------------------- side by side


def test_output_goes_to_the_program_whose_task_it_is(
    join: Callable[..., Program], capfd: pytest.CaptureFixture[str]
) -> None:
    """Printed lines are seen in the driver of the job, and in no other."""

    @ray.remote
    def speak(text: str) -> None:
        sys.stdout.write(f"{text}\n")

    program = join(
        """
        @ray.remote
        def speak(text):
            print(text)

        ray.get(speak.remote("their words"))
        ray.shutdown()
        """
    )
    theirs, _ = program.finish()
    ray.get(speak.remote("our words"))
    ours = ""

    def is_heard() -> bool:
        nonlocal ours
        ours += capfd.readouterr().out
        return "our words" in ours

    eventually(is_heard, "our task's output did not come")
    assert "their words" in theirs
    assert "our words" not in theirs
    assert "their words" not in ours


def test_objects_pass_between_programs(join: Callable[..., Program]) -> None:
    """A ref, large or small, can be read in the other program."""
    shelf = Shelf.options(name="shelf", namespace="theirs").remote()
    ray.get(shelf.put.remote("large", [ray.put(np.arange(MEBIBYTE))]))
    ray.get(shelf.put.remote("small", [ray.put("a word")]))
    program = join(
        """
        shelf = ray.get_actor("shelf")
        (large,), (small,) = ray.get([shelf.take.remote(n) for n in ("large", "small")])
        say(ray.get(large).sum(), ray.get(small))
        ray.get(shelf.put.remote("back", [ray.put(np.ones(1 << 20))]))
        say("is put")
        wait()
        """
    )
    assert program.hear() == f"{np.arange(MEBIBYTE).sum()} a word"
    assert program.hear() == "is put"
    (back,) = ray.get(shelf.take.remote("back"))
    assert ray.get(back).sum() == MEBIBYTE


# ---------------------------------------------------------------------------- leaving

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
    owners = {one["worker_id"] for one in current.session.query("workers")}
    owners.add(current.session.peer.address)
    assert set(os.listdir(f"{session_dir}/p")) <= owners


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
