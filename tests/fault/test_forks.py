"""Processes that user code makes: forked, spawned, with pools, by data loaders.

A forked child shares its parent's sockets and memory map.  It may do with data what it
likes, but not speak for its parent; using the API says so, and its end ends nothing.
"""

from __future__ import annotations

import importlib.util

import pytest

from tests.fault.conftest import Start
from tests.fault.programs import GONE_S, PREAMBLE, Program, eventually

pytestmark = pytest.mark.integration

#: Programs that spawn import themselves again, so they keep to the custom.
GUARDED = PREAMBLE + "import multiprocessing\n"


def _ends_well(program: Program) -> None:
    assert program.exit_code(60) == 0, program.errors()
    assert program.errors() == ""
    program.check_nothing_left()


IN_FORK = """
    import numpy as np
    ray.init(num_cpus=2)

    @ray.remote
    def f(x=1):
        return x

    @ray.remote
    class A:
        def m(self):
            return 1

    actor = A.remote()
    array = ray.get(ray.put(np.arange(1_000_000)))
    ref = f.remote(5)
    assert ray.get([ref, actor.m.remote()]) == [5, 1]

    def as_child(work):
        pid = os.fork()
        if pid == 0:
            work()
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    """


def test_a_forked_child_is_told(start: Start) -> None:
    program = start(
        IN_FORK
        + """
    def child():
        assert not ray.is_initialized()
        uses = [
            lambda: ray.get(ref),
            lambda: ray.wait([ref]),
            lambda: ray.put(1),
            lambda: f.remote(),
            lambda: actor.m.remote(),
            lambda: A.remote(),
            lambda: ref.future(),
            lambda: ray.cluster_resources(),
        ]
        for use in uses:
            try:
                use()
            except (RuntimeError, ray.exceptions.RaySystemError) as error:
                assert "session" in str(error), error
            else:
                raise AssertionError(use)
        try:
            ray.put(1)
        except RuntimeError as error:
            say(error)
        assert array.sum() == 499_999_500_000  # data stays good

    assert as_child(child) == 0
    assert ray.get([f.remote(2), actor.m.remote()]) == [2, 1]
    say("done")
    """
    )
    text = program.hear()
    assert "forked" in text
    assert "init()" in text
    program.expect("done")
    _ends_well(program)


@pytest.mark.parametrize("way", ["sys.exit(0)", "os._exit(0)", "os.abort()"])
def test_the_end_of_a_child_ends_nothing(start: Start, way: str) -> None:
    program = start(
        IN_FORK
        + f"""
    for _ in range(3):
        as_child(lambda: {way})
        assert ray.get([f.remote(2), actor.m.remote()]) == [2, 1]
    say("done")
    """
    )
    program.expect("done")
    _ends_well(program)


def test_a_child_can_have_a_session_of_its_own(start: Start) -> None:
    program = start(
        IN_FORK
        + """
    def child():
        ray.init(num_cpus=1)
        assert ray.get(f.remote(3)) == 3
        assert ray.cluster_resources()["CPU"] == 1
        ray.shutdown()
        ray.init(address=address)
        assert ray.cluster_resources()["CPU"] == 2
        ray.shutdown()

    address = ray.get_runtime_context().gcs_address
    assert as_child(child) == 0
    assert ray.get([f.remote(2), actor.m.remote()]) == [2, 1]
    say("done")
    """
    )
    program.expect("done")
    _ends_well(program)


def test_fork_while_threads_are_at_work(start: Start) -> None:
    program = start(
        IN_FORK
        + """
    stop = False

    def work():
        while not stop:
            assert ray.get([f.remote(i) for i in range(20)]) == [*range(20)]
            ray.get(ray.put(bytes(200_000)))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()

    def child():
        try:
            ray.get(ref)
        except RuntimeError:
            os._exit(7)

    assert [as_child(child) for _ in range(25)] == [7] * 25
    stop = True
    for thread in threads:
        thread.join()
    say("done")
    """
    )
    program.expect("done")
    _ends_well(program)


def test_a_child_is_ended_by_a_signal_however_early(start: Start) -> None:
    program = start(
        IN_FORK
        + """
    for number in [signal.SIGTERM, signal.SIGINT] * 100:
        pid = os.fork()
        if pid == 0:
            try:
                time.sleep(1000)
            except KeyboardInterrupt:
                os.kill(os.getpid(), signal.SIGKILL)
        os.kill(pid, number)
        assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    say("done")
    """
    )
    program.expect("done")
    _ends_well(program)


def test_a_child_that_lives_on_keeps_nothing_open(start: Start) -> None:
    program = start(
        IN_FORK
        + """
    if os.fork() == 0:
        os.setsid()
        say(os.getpid())
        time.sleep(1000)
    time.sleep(1000)
    """
    )
    child = int(program.hear())
    program.kill()

    def is_over() -> bool:
        left = {one.pid for one in program.processes()}
        return left == {child} and not program.session_dirs()

    eventually(is_over, f"more is left than {child}:\n{program.what_is_left()}", GONE_S)


#: Workers have another ``__main__`` than the program, as pools there notice.
SQUARES = {
    "squares": """
    def square(x):
        return x * x
    """
}

POOLS = """
    from squares import square

    def pools():
        results = []
        for method in ("fork", "spawn", "forkserver"):
            with multiprocessing.get_context(method).Pool(2) as pool:
                results += pool.map(square, [1, 2, 3])
        return results

    if __name__ == "__main__":
        ray.init(num_cpus=2)
    """


def test_multiprocessing_in_the_driver(start: Start) -> None:
    program = start(
        POOLS
        + """
        assert ray.get(ray.remote(square).remote(3)) == 9
        assert pools() == [1, 4, 9] * 3
        assert ray.get(ray.remote(square).remote(4)) == 16
    """,
        preamble=GUARDED,
        modules=SQUARES,
    )
    _ends_well(program)


def test_multiprocessing_in_a_task_and_an_actor(start: Start) -> None:
    program = start(
        POOLS
        + """
        def in_task():
            results = pools()
            return results + [ray.get(ray.remote(square).remote(4))]

        class Pools:
            def run(self):
                return in_task()

        actor = ray.remote(Pools).remote()
        refs = [ray.remote(in_task).remote(), actor.run.remote()]
        assert ray.get(refs, timeout=50) == [[1, 4, 9] * 3 + [16]] * 2
    """,
        preamble=GUARDED,
        modules=SQUARES,
    )
    _ends_well(program)


def test_a_process_pool_executor_in_a_task(start: Start) -> None:
    program = start(
        """
    from concurrent.futures import ProcessPoolExecutor
    from squares import square

    def run():
        with ProcessPoolExecutor(2) as pool:
            return list(pool.map(square, range(4)))

    if __name__ == "__main__":
        ray.init(num_cpus=2)
        assert ray.get(ray.remote(run).remote(), timeout=50) == [0, 1, 4, 9]
        assert run() == [0, 1, 4, 9]
    """,
        preamble=GUARDED,
        modules=SQUARES,
    )
    _ends_well(program)


def test_subprocesses_with_code_run_in_the_child(start: Start) -> None:
    program = start(
        IN_FORK
        + """
    def run():
        return subprocess.run(
            ["sh", "-c", "echo out"],
            preexec_fn=os.setsid,
            stdout=subprocess.PIPE,
            check=True,
        ).stdout

    assert run() == b"out\\n"
    assert ray.get(ray.remote(run).remote()) == b"out\\n"
    """
    )
    _ends_well(program)


LOADER = {
    "squares": """
    import torch
    from torch.utils.data import DataLoader, Dataset

    class Squares(Dataset):
        def __init__(self, numbers):
            self.numbers = numbers
        def __len__(self):
            return len(self.numbers)
        def __getitem__(self, i):
            return torch.tensor(float(self.numbers[i]) ** 2)

    def load(numbers, method):
        loader = DataLoader(
            Squares(numbers),
            batch_size=10,
            num_workers=2,
            multiprocessing_context=method,
        )
        return sum(float(batch.sum()) for _ in range(2) for batch in loader)
    """
}


@pytest.mark.fault
@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="needs PyTorch, which is large: pip install torch",
)
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_data_loader_with_workers(start: Start, method: str) -> None:
    program = start(
        f"""
    if __name__ == "__main__":
        import numpy as np
        from squares import load
        ray.init(num_cpus=2)
        numbers = np.arange(100)
        expected = 2.0 * float((numbers**2).sum())
        # Stored, so that the loader's processes read shared memory.
        large = ray.put(np.resize(numbers, 100_000))
        stored = ray.remote(lambda array: load(array[:100], {method!r})).remote(large)
        assert ray.get(stored, timeout=100) == expected
        assert load(ray.get(large)[:100], {method!r}) == expected
        given = ray.remote(load).remote(numbers, {method!r})
        assert ray.get(given, timeout=100) == expected
    """,
        preamble=GUARDED,
        modules=LOADER,
    )
    _ends_well(program)
