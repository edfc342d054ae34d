"""A session of the test's own, and programs that join it."""

from __future__ import annotations

import shutil
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import shoal as ray
from tests.integration.programs import Program


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
