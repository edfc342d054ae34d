"""Promises that go beyond Ray: reasons for a wait, old names, nothing left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
import uuid

import psutil
import pytest
from conformance_impl import PRELUDE, driver_environment, eventually, ray

START = 'ray.init(num_cpus=2, address="local", include_dashboard=False)\n'


@ray.remote
def identity(value):
    return value


# ---------------------------------------------------------------- reasons for a wait


@pytest.mark.beyond_ray(reason="Ray's message does not say why nothing comes")
def test_get_timeout_tells_what_can_never_be_placed(ray_session):
    """The timeout of get says what the task asks and what the cluster has."""
    ref = identity.options(num_cpus=77, resources={"unobtainium": 3}).remote(1)
    with pytest.raises(ray.exceptions.GetTimeoutError) as caught:
        ray.get(ref, timeout=0.5)
    text = str(caught.value)
    assert "identity" in text
    assert "77" in text
    assert "unobtainium" in text
    assert "4" in text.replace("77", "")
    ray.cancel(ref)


@pytest.mark.beyond_ray(reason="Ray warns after some ten seconds, by its autoscaler")
def test_warning_of_a_task_that_can_never_be_placed(run_driver):
    """Within two seconds the driver's stderr says what is asked and what there is."""
    result = run_driver(
        START
        + """
import sys, time
@ray.remote(num_cpus=77)
def never():
    pass
ref = never.remote()
ray.wait([ref], timeout=2.0)
print("two seconds are over", file=sys.stderr, flush=True)
ray.wait([ref], timeout=0.5)
"""
    )
    assert result.returncode == 0, result.stderr
    before, _, after = result.stderr.partition("two seconds are over")
    assert "never" in before
    assert "77" in before
    assert "77" not in after, "the warning is given once"


@pytest.mark.beyond_ray(
    reason="Ray returns from an interrupted get after up to a second"
)
def test_interrupted_get_leaves_the_session_usable(ray_session, gate):
    """Ctrl-C during get returns within 0.2 s (half a second allowed on a busy host)."""

    @ray.remote
    def held():
        gate.wait()
        return "late"

    ref = held.remote()
    sent = []

    def interrupt():
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.3, interrupt)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        ray.get(ref, timeout=30)
    returned = time.monotonic()
    timer.join()
    assert returned - sent[0] < 0.5
    assert ray.get(identity.remote(1)) == 1
    gate.open()
    assert ray.get(ref) == "late"


# ---------------------------------------------------------------- old names


@pytest.mark.beyond_ray(reason="Ray has dropped the names of its 0.x versions")
def test_num_return_vals(ray_session):
    """`num_return_vals` works as num_returns and warns, on tasks and methods."""
    with pytest.warns(DeprecationWarning, match="num_returns"):
        two = ray.remote(num_return_vals=2)(lambda: (1, 2))
    assert ray.get(two.remote()) == [1, 2]
    with pytest.warns(DeprecationWarning, match="num_returns"):

        @ray.remote
        class Pair:
            @ray.method(num_return_vals=2)
            def both(self):
                return 3, 4

    assert ray.get(Pair.remote().both.remote()) == [3, 4]


@pytest.mark.beyond_ray(reason="Ray has dropped the names of its 0.x versions")
def test_old_names_of_init(fresh_ray):
    """`redis_address` and `_redis_password` are accepted, each with a warning."""
    with (
        pytest.warns(DeprecationWarning, match="redis_address"),
        pytest.warns(DeprecationWarning, match="_redis_password"),
    ):
        ray.init(redis_address="local", num_cpus=1, _redis_password="old")
    assert ray.get(identity.remote(1)) == 1


@pytest.mark.beyond_ray(reason="Ray has dropped error_info()")
def test_error_info(fresh_ray):
    """`error_info()` is the list of the errors so far, and warns."""

    @ray.remote
    def broken():
        raise ValueError("for the list")

    ray.init(address="local", num_cpus=1)
    with pytest.warns(DeprecationWarning):
        assert ray.error_info() == []
    ray.wait([broken.remote()])

    def listed():
        with pytest.warns(DeprecationWarning):
            return ray.error_info()

    errors = eventually(listed, why="the error is listed")
    assert len(errors) == 1
    assert "for the list" in str(errors[0])


# ---------------------------------------------------------------- output


@pytest.mark.beyond_ray(reason="Ray folds lines that differ in numbers only")
def test_lines_that_differ_in_numbers_are_all_shown(run_driver):
    """Floods are folded only where lines are identical."""
    result = run_driver(
        START
        + """
@ray.remote
def report(number):
    print(f"loss is {number}")
ray.get([report.remote(number) for number in range(20)])
ray.shutdown()
"""
    )
    assert result.returncode == 0, result.stderr
    shown = {
        line.rpartition("loss is ")[2]
        for line in result.stdout.splitlines()
        if "loss is" in line
    }
    assert shown == {str(number) for number in range(20)}


# ---------------------------------------------------------------- drop-in

AS_RAY = """
import sys
{install}
import ray as other
from ray.exceptions import RayTaskError
from ray.util import ActorPool
assert other.get is {module}.get
other.init(num_cpus=2, address="local")
@other.remote
def inside():
    import ray
    import ray.util.queue
    return ray.__name__, ray.put is not None
print("inside", other.get(inside.remote())[1])
"""


@pytest.mark.beyond_ray(reason="stands in for Ray")
def test_install_as_ray(run_driver):
    """`install_as_ray()`: `import ray` is this package, in the driver and workers."""
    program = AS_RAY.format(install="ray.install_as_ray()", module="ray")
    result = run_driver(program)
    assert result.returncode == 0, result.stderr
    assert "inside True" in result.stdout


@pytest.mark.beyond_ray(reason="stands in for Ray")
def test_run_as_ray(tmp_path):
    """`python -m shoal.as_ray script.py args` runs a program that imports ray."""
    script = tmp_path / "program.py"
    script.write_text(AS_RAY.format(install="import shoal", module="shoal"))
    result = subprocess.run(
        [sys.executable, "-m", "shoal.as_ray", str(script), "argument"],
        capture_output=True,
        text=True,
        timeout=50,
        env=driver_environment(),
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "inside True" in result.stdout


# ---------------------------------------------------------------- nothing left behind


@pytest.mark.beyond_ray(reason="Ray's processes take seconds to notice, some stay")
def test_killed_driver_leaves_no_process(tmp_path):
    """After kill -9 of the driver all its processes are gone within two seconds."""
    mark = uuid.uuid4().hex
    ready = tmp_path / "ready"
    script = tmp_path / "driver_program.py"
    script.write_text(
        PRELUDE
        + START
        + f"""
import pathlib, subprocess, sys, time
@ray.remote
class Sitter:
    def sit(self):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        return 1
@ray.remote
def busy():
    pathlib.Path({str(ready)!r}).touch()
    time.sleep(60)
sitter = Sitter.remote()
ray.get(sitter.sit.remote())
ray.get(busy.remote())
"""
    )

    def marked():
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("CONFORMANCE_DRIVER") == mark:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    environment = driver_environment(CONFORMANCE_DRIVER=mark)
    driver = subprocess.Popen([sys.executable, str(script)], env=environment)
    try:
        eventually(ready.exists, 30, "the driver's task runs")
        assert len(marked()) > 1
        driver.kill()
        driver.wait()
        eventually(lambda: not marked(), 2, "nothing is left of the killed driver")
    finally:
        driver.kill()
        driver.wait()
        for process in marked():
            process.kill()
