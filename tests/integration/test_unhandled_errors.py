"""Errors that nobody got are told of on the driver's standard error, others are not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.integration

PROLOGUE = """
import os, time
import shoal as ray

ray.init(num_cpus=2)


@ray.remote(max_retries=0)
def broken(text="lost", seconds=0):
    time.sleep(seconds)
    raise ValueError(text)


@ray.remote
def use(value):
    return value


@ray.remote
def look(refs):
    try:
        ray.get(refs)
    except ValueError:
        return "seen"


@ray.remote(max_retries=0)
def crash():
    os._exit(1)

"""

DROPPED = {
    "dropped before it failed": "broken.remote('lost', 0.2)\nray.get(use.remote(1))\n"
    "ray.get(use.options(num_cpus=2).remote(1))",
    "waited for and dropped": "ref = broken.remote()\nray.wait([ref])\ndel ref",
    "of several returns, none got": (
        "refs = broken.options(num_returns=3).remote()\nray.wait(refs)\ndel refs"
    ),
}

TAKEN = {
    "got": "ref = broken.remote()\ntry: ray.get(ref)\nexcept ValueError: pass\ndel ref",
    "one of two returns got": (
        "one, two = broken.options(num_returns=2).remote()\n"
        "try: ray.get(one)\nexcept ValueError: pass\ndel one, two"
    ),
    "cancelled": (
        "ref = broken.remote('x', 30)\nray.cancel(ref)\nray.wait([ref])\ndel ref"
    ),
    "got by a worker": (
        "ref = broken.remote()\nassert ray.get(look.remote([ref])) == 'seen'\ndel ref"
    ),
    "no user's error": "ref = crash.remote()\nray.wait([ref])\ndel ref",
    "still held": "ref = broken.remote()\nray.wait([ref])",
}


def stderr_of(tmp_path: Path, program: str, **variables: str) -> str:
    script = tmp_path / "program.py"
    script.write_text(PROLOGUE + program + "\nray.shutdown()\n")
    done = subprocess.run(
        [sys.executable, str(script)],
        env=os.environ
        | {"PYTHONPATH": str(ROOT / "src"), "RAY_ADDRESS": "local"}
        | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("program", DROPPED.values(), ids=DROPPED)
def test_told_once(tmp_path: Path, program: str) -> None:
    said = stderr_of(tmp_path, program)
    assert said.count("Unhandled error (suppress with") == 1
    assert "ValueError: lost" in said


@pytest.mark.parametrize("program", TAKEN.values(), ids=TAKEN)
def test_not_told(tmp_path: Path, program: str) -> None:
    assert "Unhandled error" not in stderr_of(tmp_path, program)


def test_an_argument_that_failed_is_told_by_its_consumer(tmp_path: Path) -> None:
    """The consumer's error holds the producer's, so one of them is enough."""
    program = "ref = use.remote(broken.remote())\nray.wait([ref])\ndel ref"
    assert stderr_of(tmp_path, program).count("Unhandled error") == 1


def test_suppressed(tmp_path: Path) -> None:
    program = DROPPED["waited for and dropped"]
    said = stderr_of(tmp_path, program, RAY_IGNORE_UNHANDLED_ERRORS="1")
    assert "Unhandled error" not in said
