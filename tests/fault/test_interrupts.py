"""Ctrl-C: a wait ends at once, and the session is as good as before.

A terminal sends SIGINT to the whole process group; other programs send it to the
driver alone.  Workers and daemon are in kernel sessions of their own and see neither.
"""

from __future__ import annotations

import signal
from time import monotonic

import pytest

from tests.fault.conftest import Start
from tests.fault.programs import Program, eventually

pytestmark = pytest.mark.integration

PROMPT_S = 0.2

SETUP = """
import numpy as np
ray.init(num_cpus=2, object_store_memory=500_000_000)

@ray.remote
def f(x=1):
    return x

@ray.remote
def forever():
    time.sleep(1000)

@ray.remote
class A:
    def m(self):
        return 1

actor = A.remote()
ray.get([f.remote(), actor.m.remote()])
pending = forever.remote()
large = np.zeros(150_000_000, dtype=np.uint8)

def again(what):
    while True:
        what()

def say_when_at_work():
    main = threading.main_thread().ident
    def run():
        while True:
            frame = sys._current_frames()[main]
            while frame is not None:
                if frame.f_code.co_name == "work":
                    return say("ready")
                frame = frame.f_back
            time.sleep(0.001)
    threading.Thread(target=run, daemon=True).start()

"""

WORK = {
    "get": "ray.get(pending)",
    "wait": "ray.wait([pending])",
    "submitting": "again(lambda: f.remote())",
    "submitting large arguments": "again(lambda: f.remote(large[:20_000_000]))",
    "calling": "again(lambda: actor.m.remote())",
    "one by one": "again(lambda: ray.get(f.remote()))",
    "putting": "again(lambda: ray.put(1))",
    "putting much": "again(lambda: ray.put(large))",
    "getting": "ref = ray.put(1); again(lambda: ray.get(ref))",
    "own code": "while True: pass",
}

AROUND = """
def work():
    {work}

for _ in range(2):
    say_when_at_work()
    try:
        work()
    except KeyboardInterrupt:
        say("interrupted")
    assert ray.get([f.remote(2), actor.m.remote()], timeout=10) == [2, 1]
    ref = ray.put(large)
    assert ray.get(ref).nbytes == large.nbytes
    del ref
say("good")
ray.get(pending)
"""


@pytest.mark.parametrize("work", WORK)
def test_interrupt(start: Start, work: str) -> None:
    program = start(SETUP + AROUND.format(work=WORK[work]))
    took = []
    for press in (program.press_ctrl_c, lambda: program.kill(signal.SIGINT)):
        program.expect("ready")
        began = press()
        program.expect("interrupted")
        took.append(monotonic() - began)
    # A machine busy with other things may be slow once.
    assert min(took) < PROMPT_S, took
    assert max(took) < 5 * PROMPT_S, took
    program.expect("good")
    # One that nobody catches ends the program, in order.
    program.press_ctrl_c()
    assert program.exit_code(2) == -signal.SIGINT
    program.check_nothing_left()
    assert "KeyboardInterrupt" in program.errors()


def _is_unharmed(program: Program) -> None:
    program.expect("done")
    assert program.exit_code() == 0, program.errors()


def test_a_task_runs_on(start: Start) -> None:
    program = start(
        """
        ray.init(num_cpus=1)
        path = os.path.dirname(os.path.abspath(__file__))

        @ray.remote(max_retries=0)
        def slow():
            open(path + "/begun", "w").close()
            while not os.path.exists(path + "/go"):
                time.sleep(0.01)
            return os.getpid()

        ref = slow.remote()
        while not os.path.exists(path + "/begun"):
            time.sleep(0.01)
        try:
            say("ready")
            ray.get(ref)
        except KeyboardInterrupt:
            open(path + "/go", "w").close()
        assert ray.get(ref) > 0
        say("done")
        """
    )
    program.expect("ready")
    program.press_ctrl_c()
    _is_unharmed(program)


def test_the_program_handles_signals_itself(start: Start) -> None:
    program = start(
        """
        signal.signal(signal.SIGINT, lambda *_: say("mine"))
        ray.init(num_cpus=1)
        ref = ray.remote(lambda: sys.stdin.readline() or 1).remote()
        say("ready")
        ray.get(ref)
        ray.wait([ray.remote(lambda: time.sleep(1000)).remote()], timeout=0.3)
        ray.shutdown()
        say("done")
        """
    )
    program.expect("ready")
    program.press_ctrl_c()
    program.expect("mine")
    _is_unharmed(program)


def test_interrupts_do_not_pile_up(start: Start) -> None:
    program = start(
        """
        ray.init(num_cpus=2)
        f = ray.remote(lambda: 1)
        caught = 0
        while caught < 20:
            try:
                say("ready")
                while True:
                    ray.get([f.remote() for _ in range(50)])
            except KeyboardInterrupt:
                caught += 1
        try:
            ray.get(ray.remote(lambda: time.sleep(1000)).remote(), timeout=0.3)
        except ray.exceptions.GetTimeoutError:
            say("done")
        """
    )
    for _ in range(20):
        program.expect("ready")
        program.press_ctrl_c()
    _is_unharmed(program)


def test_in_init(start: Start) -> None:
    program = start(
        """
        try:
            say("ready")
            while True:
                ray.init(num_cpus=2)
                ray.shutdown()
        except KeyboardInterrupt:
            say("interrupted")
        sys.stdin.readline()
        ray.shutdown()
        ray.init(num_cpus=2)
        assert ray.get(ray.remote(lambda: 1).remote()) == 1
        say("done")
        """
    )
    program.expect("ready")
    eventually(program.session_dirs, "init got nowhere")
    program.press_ctrl_c()
    program.expect("interrupted")
    program.tell()
    _is_unharmed(program)
    program.check_nothing_left()


def test_signals_after_shutdown_and_in_children_are_as_ever(start: Start) -> None:
    program = start(
        """
        def handlers():
            return signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

        before = handlers()
        ray.init(num_cpus=1)
        assert handlers() != before
        pid = os.fork()
        if pid == 0:
            os._exit(handlers() != before)
        assert os.waitpid(pid, 0)[1] == 0
        ray.shutdown()
        assert handlers() == before
        say("done")
        """
    )
    _is_unharmed(program)
