"""Packages written for Ray run on shoal: in the driver and in every worker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.integration

# A package of somebody else's, who has never heard of shoal.
THIRD_PARTY = {
    "__init__.py": """
        from thirdparty.pipeline import Counter, describe_worker, run, square

        __all__ = ["Counter", "describe_worker", "run", "square"]
        """,
    "pipeline.py": """
        import sys

        import ray
        import ray.util.queue as queues
        from ray import ObjectRef
        from ray.actor import ActorHandle
        from ray.exceptions import RayTaskError
        from ray.remote_function import RemoteFunction
        from ray.util import ActorPool
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


        @ray.remote
        def square(x):
            return x * x


        @ray.remote
        class Counter:
            def __init__(self, queue):
                self.queue = queue
                self.total = 0

            def add(self, amount):
                import ray.util.metrics

                self.total += amount
                self.queue.put(self.total)
                return self.total

            def fail(self):
                raise KeyError("on purpose")


        @ray.remote
        def describe_worker():
            import ray
            import ray.exceptions
            import ray.util
            import shoal

            return {
                "same": ray is shoal and ray.util is shoal.util,
                "name": ray.__name__,
                "modules": sys.modules["ray.exceptions"] is shoal.exceptions,
                "nested": ray.get(square.remote(5)),
            }


        def run():
            assert isinstance(square, RemoteFunction)
            assert NodeAffinitySchedulingStrategy("0" * 56, soft=True).soft
            refs = [square.options(num_cpus=0.5).remote(n) for n in range(4)]
            assert all(isinstance(ref, ObjectRef) for ref in refs)
            queue = queues.Queue()
            counters = [Counter.remote(queue) for _ in range(2)]
            assert all(isinstance(one, ActorHandle) for one in counters)
            pool = ActorPool(counters)
            totals = list(pool.map(lambda actor, n: actor.add.remote(n), [1, 2]))
            try:
                ray.get(counters[0].fail.remote())
            except RayTaskError as error:
                assert isinstance(error, KeyError)
            else:
                raise AssertionError("no error came")
            return ray.get(refs), totals, sorted(queue.get() for _ in range(2))
        """,
    "__main__.py": """
        import ray
        import thirdparty

        ray.init(num_cpus=2)
        print("as a module", ray.get(thirdparty.square.remote(6)))
        """,
}

PROGRAM = """\
{prologue}
import sys

import ray
import thirdparty

ray.init(num_cpus=2)


@ray.remote
def local(value):
    return ray.put is not None and value


print("arguments", sys.argv[1:])
print("run", thirdparty.run())
print("worker", ray.get(thirdparty.describe_worker.remote()))
print("local", ray.get(local.remote("here")), __name__, ray.__name__)
"""

EXPECTED = [
    "run ([0, 1, 4, 9], [1, 2], [1, 2])",
    "worker {'same': True, 'name': 'shoal', 'modules': True, 'nested': 25}",
    "local here __main__ shoal",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the package in it, from which programs are run."""
    package = tmp_path / "thirdparty"
    package.mkdir()
    for name, text in THIRD_PARTY.items():
        lines = [line.removeprefix("        ") for line in text.splitlines()]
        (package / name).write_text("\n".join(lines) + "\n")
    return tmp_path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "RAY_ADDRESS": "local"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_run_a_script(folder: Path) -> None:
    """`python -m shoal.as_ray script.py args`; the script's folder is imported from."""
    (folder / "program.py").write_text(PROGRAM.format(prologue=""))
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    done = run(elsewhere, "-m", "shoal.as_ray", "../program.py", "one", "--two")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines == ["arguments ['one', '--two']", *EXPECTED]


def test_install_in_a_program(folder: Path) -> None:
    """`install_as_ray()` first, then everything else."""
    prologue = "import shoal\nshoal.install_as_ray()"
    (folder / "program.py").write_text(PROGRAM.format(prologue=prologue))
    done = run(folder, "program.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1:] == EXPECTED


def test_run_a_module(folder: Path) -> None:
    """`python -m shoal.as_ray -m package`."""
    done = run(folder, "-m", "shoal.as_ray", "-m", "thirdparty")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["as a module 36"]


def test_not_in_sessions_that_did_not_ask(folder: Path) -> None:
    """Without it, workers know no `ray` of ours."""
    (folder / "program.py").write_text(
        "import sys\n"
        "import shoal\n"
        "shoal.init(num_cpus=1)\n"
        "@shoal.remote\n"
        "def known():\n"
        "    finders = [type(finder).__name__ for finder in sys.meta_path]\n"
        "    return 'ray' in sys.modules or 'AliasFinder' in finders\n"
        "print('known', shoal.get(known.remote()))\n"
    )
    done = run(folder, "program.py")
    assert done.stdout.splitlines() == ["known False"], done.stderr


def test_when_ray_is_imported_already(folder: Path) -> None:
    """Two packages cannot have one name: it is said, and where the other is."""
    (folder / "ray.py").write_text("")
    program = "import ray\nimport shoal\nshoal.install_as_ray()\n"
    (folder / "program.py").write_text(program)
    done = run(folder, "program.py")
    assert done.returncode == 1
    assert "'ray' is imported already" in done.stderr
    assert str(folder / "ray.py") in done.stderr


def test_a_ray_that_is_installed_is_not_used(folder: Path) -> None:
    """The alias goes before a `ray` that could be imported."""
    (folder / "ray.py").write_text("raise ImportError('the other ray')\n")
    done = run(folder, "-m", "shoal.as_ray", "-m", "thirdparty")
    assert done.stdout.splitlines() == ["as a module 36"], done.stderr


@pytest.mark.parametrize("arguments", [[], ["-m"], ["nowhere.py"]])
def test_wrong_command_lines(folder: Path, arguments: list[str]) -> None:
    done = run(folder, "-m", "shoal.as_ray", *arguments)
    assert done.returncode == 1
    assert "usage: python -m shoal.as_ray" in done.stderr


def test_errors_of_the_program_are_its_own(folder: Path) -> None:
    (folder / "program.py").write_text("import ray\nraise SystemExit(7)\n")
    assert run(folder, "-m", "shoal.as_ray", "program.py").returncode == 7
