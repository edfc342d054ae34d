"""The stage of owner playbooks: what a test did not expect fails it at its end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.owner.scripted import Stage


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    assert stage.says() == []
    assert stage.warnings == []
