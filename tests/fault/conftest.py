"""Programs that are started for a test and ended after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.fault.programs import Program

Start = Callable[..., Program]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts driver programs; see ``Program`` for the arguments."""
    programs: list[Program] = []

    def begin(source: str, **options: object) -> Program:
        program = Program(source, **options)  # type: ignore[arg-type]
        programs.append(program)
        return program

    yield begin
    for program in programs:
        program.close()
