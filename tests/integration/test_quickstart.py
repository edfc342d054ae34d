"""The quickstart, with a small grid, finds the same in parallel as in one process."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = (
    "environment set-up",
    "imports",
    "load the digits",
    "search, one process",
    "shoal.init",
    "start the logging actor",
    "put the data",
    "search, shoal",
    "collect the log",
    "shoal.shutdown",
)

pytestmark = pytest.mark.integration


def test_quickstart_with_a_small_grid() -> None:
    result = subprocess.run(
        [
            sys.executable,
            str(ROOT / "examples" / "quickstart.py"),
            "--fast",
            f"--make-began-at={time.time()}",
        ],
        # Wide enough that no line of the tables is broken.
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    for part in PARTS:
        assert part in result.stdout
    assert "18/18" in result.stdout
    assert "The logging actor has 18 messages" in result.stdout
    assert "best parameters" in result.stdout
    assert "speed-up over one process" in result.stdout
