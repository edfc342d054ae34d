"""Tasks that start tasks: recursion, blocked gets, and ordinary Python inside."""

import multiprocessing
import os
import subprocess
import sys
import threading

import pytest
from conformance_impl import ray


@ray.remote
def identity(value):
    return value


@ray.remote
def fibonacci(number):
    if number < 2:
        return number
    return sum(ray.get([fibonacci.remote(number - 1), fibonacci.remote(number - 2)]))


@ray.remote
def descend(depth):
    return 0 if depth == 0 else 1 + ray.get(descend.remote(depth - 1))


@ray.remote
def descend_lazily(depth):
    """Return a ref instead of waiting for it."""
    return "bottom" if depth == 0 else descend_lazily.remote(depth - 1)


def test_task_starts_tasks(ray_session):
    """A task may submit tasks, put objects and wait for them."""

    @ray.remote
    def run():
        refs = [identity.remote(ray.put(number)) for number in range(5)]
        ready, rest = ray.wait(refs, num_returns=5)
        return len(ready), len(rest), ray.get(refs)

    assert ray.get(run.remote()) == (5, 0, [0, 1, 2, 3, 4])


def test_recursion_that_branches(ray_session):
    """A recursive function that fans out returns."""
    assert ray.get(fibonacci.remote(5)) == 5


def test_blocked_get_gives_its_cpu_back(ray_session):
    """Recursion deeper than there are CPUs ends: waiting tasks give up their CPU."""
    assert ray.get(descend.remote(8)) == 8


def test_blocked_wait_gives_its_cpu_back(ray_session):
    """The same with wait."""

    @ray.remote
    def descend_with_wait(depth):
        if depth == 0:
            return 0
        ref = descend_with_wait.remote(depth - 1)
        ray.wait([ref])
        return 1 + ray.get(ref)

    assert ray.get(descend_with_wait.remote(6)) == 6


@pytest.mark.beyond_ray(reason="Ray keeps a whole process per level, 200 of them")
def test_recursion_to_depth_200(ray_session):
    """Recursion to depth 200 ends without deadlock."""
    assert ray.get(descend.remote(200)) == 200


def test_recursion_by_refs(ray_session):
    """A function that returns the ref of its recursion is followed by the caller."""
    value, steps = ray.get(descend_lazily.remote(10)), 0
    while isinstance(value, ray.ObjectRef):
        value, steps = ray.get(value), steps + 1
    assert (value, steps) == ("bottom", 10)


def test_tasks_that_nobody_waits_for_still_run(ray_session, gate):
    """A task that ends before the tasks it started does not take them with it."""

    @ray.remote
    def start():
        open_gate.remote(gate)

    ray.get(start.remote())
    gate.wait()


@ray.remote
def open_gate(gate):
    gate.open()


def test_refs_handed_down_and_up(ray_session):
    """Refs travel down two levels of tasks and up again."""

    @ray.remote
    def lower(container):
        return [container[0], ray.put("from below")]

    @ray.remote
    def upper(container):
        return ray.get(lower.remote(container))

    assert ray.get(ray.get(upper.remote([ray.put("from above")]))) == [
        "from above",
        "from below",
    ]


def test_generator_read_inside_a_task(ray_session):
    """A task may read another task's stream."""

    @ray.remote
    def produce():
        for number in range(4):
            yield number * number

    @ray.remote
    def total():
        return sum(ray.get(ref) for ref in produce.remote())

    assert ray.get(total.remote()) == 14


def test_threads_inside_a_task(ray_session):
    """Threads of a task may submit and get."""

    @ray.remote
    def threaded():
        results = []

        def work(number):
            results.append(ray.get(identity.remote(number)))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sorted(results)

    assert ray.get(threaded.remote()) == [0, 1, 2, 3]


def test_task_runs_in_the_main_thread(ray_session):
    """User code of a task runs in its process's main thread."""

    @ray.remote
    def which():
        return threading.current_thread() is threading.main_thread()

    assert ray.get(which.remote())


def test_subprocess_inside_a_task(ray_session):
    """A task may run a program."""

    @ray.remote
    def run():
        command = [sys.executable, "-c", "print(6 * 7)"]
        return subprocess.run(command, capture_output=True, text=True).stdout

    assert ray.get(run.remote()) == "42\n"


def test_fork_inside_a_task(ray_session):
    """A task may fork; the child ends without hurting the worker."""

    @ray.remote
    def fork():
        child = os.fork()
        if child == 0:
            os._exit(7)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert ray.get([fork.remote(), fork.remote()]) == [7, 7]
    assert ray.get(identity.remote(1)) == 1


def double(number):
    return 2 * number


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing_inside_a_task(ray_session, method):
    """A task may use multiprocessing."""

    @ray.remote
    def run():
        with multiprocessing.get_context(method).Pool(2) as pool:
            return pool.map(double, range(4))

    assert ray.get(run.remote()) == [0, 2, 4, 6]
    assert ray.get(identity.remote(1)) == 1
