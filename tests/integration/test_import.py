"""`import shoal` loads nothing that a first task does not need.

What is counted is modules, not milliseconds: a time would depend on the machine, and
every slow import has a name.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Optional dependencies, and modules of the standard library that take long to load.
UNWANTED = (
    "asyncio",
    "click",
    "concurrent.futures.process",
    "http",
    "joblib",
    "multiprocessing",
    "numpy",
    "pandas",
    "prometheus_client",
    "pyarrow",
    "rich",
    "scipy",
    "sklearn",
    "ssl",
    "unittest",
)

pytestmark = pytest.mark.integration

PROGRAM = """
import json, sys
before = set(sys.modules)
import shoal
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_import_loads_no_optional_or_slow_module() -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    loaded = json.loads(result.stdout)
    assert "shoal" in loaded
    assert [name for name in UNWANTED if name in loaded] == []
