"""Sessions, markers and the leak check of the conformance tests.

One shared instance serves nearly all tests, because starting Ray takes seconds:
``ray_session`` starts it when it is not running and hands out the module.  A test
that needs other resources says ``@pytest.mark.cluster(num_gpus=2)``; tests are
ordered so that each set of arguments is started once.  A test that starts and stops
instances itself takes ``fresh_ray``.  After a failed test the shared instance is
started anew, so that one failure stays one failure.

``@pytest.mark.beyond_ray(reason=...)`` marks a promise that goes beyond Ray; such a
test is skipped on Ray, and the reason is obligatory.

On shoal only, every shutdown is followed by a leak check: no process that was
started on behalf of the tests may be left.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent))

# Ray: no dashboard token files in the home directory, no usage reports, no warning
# about accelerator variables.  They must be set before the package is imported.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.pop("RAY_ADDRESS", None)
# Workers unpickle what this folder's modules define by reference.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")])
)
# Every process started from here inherits this, whoever becomes its parent.
SESSION_MARK = ("SHOAL_CONFORMANCE_SESSION", uuid.uuid4().hex)
os.environ[SESSION_MARK[0]] = SESSION_MARK[1]

import conformance_impl  # noqa: E402
from conformance_impl import IS_RAY, Gate, Journal, eventually, ray  # noqa: E402

TEST_TIMEOUT_S = 60
SHUTDOWN_GRACE_S = 3.0
DEFAULT_CLUSTER: dict[str, Any] = {
    "address": "local",
    "num_cpus": 4,
    "object_store_memory": 300 * 1024 * 1024,
    "include_dashboard": False,
    "log_to_driver": False,
}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "beyond_ray(reason): a promise of shoal's own; skipped on Ray"
    )
    config.addinivalue_line(
        "markers", "cluster(**init): arguments of init for the shared instance"
    )
    if IS_RAY:
        # Ray's own warnings, on processes it leaves to the interpreter, are not ours.
        config.addinivalue_line("filterwarnings", "ignore")


def _cluster_arguments(item: pytest.Item) -> dict[str, Any]:
    arguments = dict(DEFAULT_CLUSTER)
    for marker in reversed(list(item.iter_markers("cluster"))):
        arguments.update(marker.kwargs)
    return arguments


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    ours = [item for item in items if here in item.path.parents]
    for item in ours:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TEST_TIMEOUT_S))
        marker = item.get_closest_marker("beyond_ray")
        if marker is None:
            continue
        reason = marker.kwargs.get("reason")
        if not reason:
            raise pytest.UsageError(f"{item.nodeid}: beyond_ray needs a reason=")
        if IS_RAY:
            item.add_marker(pytest.mark.skip(reason=f"beyond Ray: {reason}"))

    def start_key(item: pytest.Item) -> tuple[bool, bool, str]:
        """Shared instance first, then other clusters, then instances of their own."""
        names = getattr(item, "fixturenames", ())
        arguments = _cluster_arguments(item)
        return (
            "ray_session" not in names,
            arguments != DEFAULT_CLUSTER,
            repr(sorted(arguments.items(), key=lambda pair: pair[0])),
        )

    ordered = iter(sorted(ours, key=start_key))
    chosen = set(map(id, ours))
    items[:] = [next(ordered) if id(item) in chosen else item for item in items]


def _processes() -> set[psutil.Process]:
    """Processes that descend from this one or carry the mark, zombies left out."""
    found = set()
    descendants = set(psutil.Process().children(recursive=True))
    for process in descendants | set(psutil.process_iter()):
        if process.pid == os.getpid():
            continue
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            marked = process.environ().get(SESSION_MARK[0]) == SESSION_MARK[1]
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if marked or process in descendants:
            found.add(process)
    return found


class SharedInstance:
    """The one running instance, the arguments it was started with, and its end."""

    def __init__(self) -> None:
        self._arguments: dict[str, Any] | None = None
        self._before = _processes()
        self.suspect = False

    def ensure(self, arguments: dict[str, Any]) -> None:
        running = ray.is_initialized()
        if running and not self.suspect and self._arguments == arguments:
            return
        self.stop()
        ray.init(**arguments)
        self._arguments = arguments

    def stop(self) -> None:
        ray.shutdown()
        self._arguments = None
        self.suspect = False
        self.check_leaks()

    def check_leaks(self) -> None:
        """On shoal: no process is left; one that is gets ended and named."""
        if IS_RAY:
            return
        left: set[psutil.Process] = set()

        def none_left() -> bool:
            nonlocal left
            left = _processes() - self._before
            return not left

        try:
            eventually(none_left, SHUTDOWN_GRACE_S, "no process left after shutdown")
        except AssertionError as error:
            told = []
            for process in left:
                try:
                    told.append(f"{process.pid}: {' '.join(process.cmdline())}")
                    process.kill()
                except psutil.NoSuchProcess:
                    continue
            raise AssertionError(f"{error}; left: {told}") from None


@pytest.fixture(scope="session")
def _instance() -> Iterator[SharedInstance]:
    instance = SharedInstance()
    yield instance
    instance.stop()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome: Any = yield
    instance = getattr(item, "funcargs", {}).get("_instance")
    if outcome.get_result().failed and instance is not None:
        instance.suspect = True


@pytest.fixture
def ray_session(_instance: SharedInstance, request: pytest.FixtureRequest) -> Any:
    """The implementation, with the shared instance running (4 CPUs by default)."""
    _instance.ensure(_cluster_arguments(request.node))
    return ray


@pytest.fixture
def fresh_ray(_instance: SharedInstance) -> Iterator[Any]:
    """The implementation with nothing running; what the test starts is stopped."""
    _instance.stop()
    yield ray
    _instance.stop()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """A closed gate."""
    return Gate(str(tmp_path / "gate"))


@pytest.fixture
def new_gate(tmp_path: Path) -> Callable[[str], Gate]:
    """Make a closed gate by name."""
    return lambda name: Gate(str(tmp_path / f"gate-{name}"))


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """An empty journal."""
    return Journal(str(tmp_path / "journal"))


@pytest.fixture
def run_driver(tmp_path: Path) -> Callable[..., CompletedProcess[str]]:
    """Run a program text as a driver of its own: ``run_driver(source, **env)``."""

    def run(source: str, **options: Any) -> CompletedProcess[str]:
        return conformance_impl.run_driver(source, tmp_path, **options)

    return run
