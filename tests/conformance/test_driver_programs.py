"""Programs of their own: definitions of ``__main__``, automatic init, output, exit."""

import signal
import subprocess
import sys

import pytest
from conformance_impl import IMPL, PRELUDE, driver_environment, eventually

MAIN_PROGRAM = """
import dataclasses

ray.init(num_cpus=2, address="local", include_dashboard=False)

@dataclasses.dataclass
class Point:
    x: int

@ray.remote
def is_even(n):
    return True if n == 0 else ray.get(is_odd.remote(n - 1))

@ray.remote
def is_odd(n):
    return False if n == 0 else ray.get(is_even.remote(n - 1))

FACTOR = 3

def scale(value):
    return FACTOR * value

@ray.remote
def shift(point):
    assert isinstance(point, Point)
    return Point(scale(point.x))

@ray.remote
def version():
    return "old"

old = version.remote()

@ray.remote
def version():
    return "new"

print("even", ray.get(is_even.remote(5)))
print("point", ray.get(shift.remote(Point(2))) == Point(6))
print("versions", ray.get(old), ray.get(version.remote()))
"""


def test_definitions_of_the_main_script(run_driver):
    """In a script: mutual recursion, classes, globals and redefinition all work."""
    result = run_driver(MAIN_PROGRAM)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert "even False" in lines
    assert "point True" in lines
    assert "versions old new" in lines


AUTOMATIC = """
import os
@ray.remote
def one():
    return 1
assert not ray.is_initialized()
print("value", {expression})
assert ray.is_initialized()
"""


@pytest.mark.parametrize("expression", ["ray.get(one.remote())", "ray.get(ray.put(1))"])
def test_automatic_init(run_driver, expression):
    """The first remote call, or put, starts an instance by itself."""
    result = run_driver(AUTOMATIC.format(expression=expression), RAY_ADDRESS="local")
    assert result.returncode == 0, result.stderr
    assert "value 1" in result.stdout


# ---------------------------------------------------------------- the driver's end


def test_worker_output_reaches_the_driver(run_driver):
    """What a task prints appears in the driver, behind `(name pid=...)`."""
    result = run_driver(
        """
ray.init(num_cpus=2, address="local", include_dashboard=False)
@ray.remote
def talk():
    print("a line from a task")
ray.get(talk.remote())
ray.shutdown()
"""
    )
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if "a line from" in line]
    assert len(lines) == 1
    assert "(talk pid=" in lines[0]


def test_uncaught_error_of_the_driver(run_driver):
    """An uncaught task error ends the script with code 1 and the remote traceback."""
    result = run_driver(
        """
ray.init(num_cpus=2, address="local", include_dashboard=False)
@ray.remote
def broken():
    raise ValueError("seen on stderr")
ray.get(broken.remote())
"""
    )
    assert result.returncode == 1
    assert "ValueError: seen on stderr" in result.stderr
    assert "broken()" in result.stderr


def test_error_that_nobody_fetched(run_driver):
    """An error whose ref is dropped unfetched is told on the driver's stderr."""
    result = run_driver(
        """
ray.init(num_cpus=2, address="local", include_dashboard=False)
@ray.remote(num_returns=2)
def broken():
    raise ValueError("never fetched")
watched, dropped = broken.remote()
ray.wait([watched])
del dropped
ray.shutdown()
"""
    )
    assert result.returncode == 0, result.stderr
    assert "Unhandled error" in result.stderr
    assert "ValueError: never fetched" in result.stderr


def test_sigterm_ends_the_driver(tmp_path):
    """SIGTERM ends the driver through sys.exit: its exit code is the signal number."""
    script = tmp_path / "driver_program.py"
    ready = tmp_path / "ready"
    script.write_text(
        PRELUDE
        + f"""
import pathlib, time
ray.init(num_cpus=2, address="local", include_dashboard=False)
pathlib.Path({str(ready)!r}).touch()
time.sleep(60)
"""
    )
    process = subprocess.Popen([sys.executable, str(script)], env=driver_environment())
    try:
        eventually(ready.exists, 40, f"{IMPL} is up in the driver")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == signal.SIGTERM
    finally:
        process.kill()
        process.wait()
