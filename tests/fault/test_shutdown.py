"""``shutdown``: soon, whatever runs, and nothing is kept from session to session."""

from __future__ import annotations

import pytest

from tests.fault.conftest import Start

pytestmark = pytest.mark.integration

#: What is promised: a session ends within this time, whatever it is doing.
SHUTDOWN_S = 1.0

WORK = {
    "nothing": "pass",
    "tasks": "refs = [forever.remote() for _ in range(20)]",
    "many tasks": "refs = [f.remote(i) for i in range(50_000)]",
    "actors": """
        actors = [A.remote() for _ in range(10)]
        ray.get([a.m.remote() for a in actors])
        calls = [a.forever.remote() for a in actors]
        """,
    "asynchronous and threaded actors": """
        actors = [Async.remote(), A.options(max_concurrency=5).remote()]
        ray.get([a.m.remote() for a in actors])
        calls = [a.forever.remote() for a in actors for _ in range(5)]
        """,
    "a detached actor": """
        a = A.options(lifetime="detached", name="a").remote()
        ray.get(a.m.remote())
        """,
    "nested tasks": "ref = nested.remote(6)",
    "a stream": "items = stream.remote(); next(items)",
    "stubborn tasks": "refs = [stubborn.remote() for _ in range(3)]",
    "large objects": "kept = [ray.put(bytes(20_000_000)) for _ in range(8)]",
    "arrays still in use": """
        import numpy as np
        array = ray.get(ray.put(np.ones(1_000_000)))
        """,
    "gets in threads": """
        def get():
            try:
                ray.get(forever.remote())
            except ray.exceptions.RaySystemError as error:
                told.append(str(error))
        threads = [threading.Thread(target=get) for _ in range(3)]
        [thread.start() for thread in threads]
        while not all(waits(thread) for thread in threads):
            time.sleep(0.01)
        """,
    "futures": """
        futures = [forever.remote().future() for _ in range(3)]
        """,
}

AROUND = """
ray.init(num_cpus=4, object_store_memory=300_000_000)
told, threads, futures, array = [], [], [], None

@ray.remote
def f(x):
    return x

@ray.remote
def forever():
    time.sleep(1000)

@ray.remote
def nested(depth):
    return ray.get(nested.remote(depth - 1)) if depth else time.sleep(1000)

@ray.remote
def stubborn():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        try:
            time.sleep(1000)
        except BaseException:
            continue

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

@ray.remote
class Async:
    async def m(self):
        return 1
    async def forever(self):
        import asyncio
        await asyncio.sleep(1000)

def waits(thread):
    frame = sys._current_frames().get(thread.ident)
    return frame is not None and frame.f_code.co_filename.endswith("engine.py")

ray.get(f.remote(1))
{work}
began = time.monotonic()
ray.shutdown()
say(time.monotonic() - began)
for thread in threads:
    thread.join(5)
assert len(told) == len(threads), told
assert all("shut down" in text for text in told), told
for future in futures:
    assert isinstance(future.exception(5), ray.exceptions.RaySystemError)
assert array is None or array.sum() == 1_000_000
say("done")
sys.stdin.readline()
"""


@pytest.mark.parametrize("work", WORK)
def test_shutdown_is_prompt_and_leaves_nothing(start: Start, work: str) -> None:
    import textwrap

    program = start(AROUND.format(work=textwrap.dedent(WORK[work])))
    took = float(program.hear())
    assert took < SHUTDOWN_S
    assert program.what_is_left() == ""
    program.expect("done")
    program.tell()
    assert program.exit_code() == 0, program.errors()


def test_twenty_sessions_leave_nothing_in_their_program(start: Start) -> None:
    program = start(
        """
        import gc
        import numpy as np
        import psutil

        f = ray.remote(lambda x: x)

        @ray.remote
        class A:
            def m(self, x):
                return x

        def use():
            ray.init(num_cpus=2, object_store_memory=100_000_000)
            actor = A.remote()
            array = ray.get(ray.put(np.ones(1_000_000)))
            assert ray.get(f.remote(array)).sum() == 1_000_000
            assert ray.get(actor.m.remote(ray.put(1))) == 1
            assert f.remote(2).future().result(10) == 2
            ray.shutdown()

        def held():
            gc.collect()
            me = psutil.Process()
            maps = [one.path for one in me.memory_maps() if "memfd" in one.path]
            children = len(me.children(recursive=True))
            return me.num_fds(), threading.active_count(), children, len(maps)

        use()
        before = held()
        for _ in range(20):
            use()
        assert held() == before, (before, held())
        assert before[1:] == (1, 0, 0), before
        """
    )
    assert program.exit_code(60) == 0, program.errors()
    assert program.what_is_left() == ""
