"""What a driver is told: lines of a LoggingConfig, and the list of errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.integration

LOGGING = """
import logging
import shoal as ray

config = ray.LoggingConfig(encoding="{encoding}", log_level="INFO")
ray.init(num_cpus=2, logging_config=config)


@ray.remote
def work():
    logging.info("from the task")
    logging.debug("below the level")
    return ray.get_runtime_context().get_task_id()


@ray.remote
class Worker:
    def work(self):
        logging.getLogger("some.library").warning("from the actor")
        return ray.get_runtime_context().get_actor_id()


logging.info("from the driver")
print(ray.get(work.options(name="labelled").remote()))
print(ray.get(Worker.options(name="named").remote().work.remote()))
ray.shutdown()
"""

ERRORS = """
import json
import warnings
import shoal as ray

warnings.simplefilter("ignore", DeprecationWarning)
ray.init(num_cpus=1)


@ray.remote
def broken(text):
    raise ValueError(text)


@ray.remote
class Actor:
    def fail(self):
        raise KeyError("in an actor")


@ray.remote
def ask():
    return ray.error_info()


before = ray.error_info()
actor = Actor.remote()
refs = [broken.remote("first")]
ray.wait(refs)
refs.append(actor.fail.remote())
ray.wait(refs, num_returns=2)
try:
    ray.get(ask.remote())
except RuntimeError as error:
    refusal = str(error)
print(json.dumps([before, ray.error_info(), [r.task_id().hex() for r in refs]]))
print("this is a worker" in refusal)
"""


def run(tmp_path: Path, program: str) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "program_of_test.py"
    script.write_text(program)
    done = subprocess.run(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "RAY_ADDRESS": "local"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_json_lines_of_driver_task_and_actor(tmp_path: Path) -> None:
    """One object per line, which says where it comes from; no prefix before it."""
    done = run(tmp_path, LOGGING.format(encoding="JSON"))
    task_id, actor_id = done.stdout.split()
    said: dict[str, dict[str, Any]] = {}
    for line in done.stderr.splitlines():
        record = json.loads(line)
        said[record["message"]] = record
    assert set(said) == {"from the driver", "from the task", "from the actor"}
    driver, task = said["from the driver"], said["from the task"]
    actor = said["from the actor"]
    for record in said.values():
        assert {"asctime", "levelname", "filename", "lineno", "process"} <= set(record)
        assert record["job_id"] == driver["job_id"]
        assert record["node_id"] == driver["node_id"]
    assert driver["worker_id"] not in (task["worker_id"], actor["worker_id"])
    assert "task_id" not in driver
    assert (task["task_id"], task["task_name"]) == (task_id, "labelled")
    assert (actor["actor_id"], actor["actor_name"]) == (actor_id, "named")
    assert actor["task_name"] == "Worker.work"
    assert actor["levelname"] == "WARNING"


def test_text_lines(tmp_path: Path) -> None:
    done = run(tmp_path, LOGGING.format(encoding="TEXT"))
    task_id, _ = done.stdout.split()
    (line,) = [line for line in done.stderr.splitlines() if "from the task" in line]
    assert "INFO program_of_test.py:" in line
    assert f"task_id={task_id}" in line
    assert not line.startswith("(")


def test_error_info(tmp_path: Path) -> None:
    """Errors of tasks and actor calls, oldest first; asked for in the driver only."""
    listed, in_worker = run(tmp_path, ERRORS).stdout.splitlines()
    before, errors, task_ids = json.loads(listed)
    assert before == []
    first, second = errors[:2]
    assert [first["task_id"], second["task_id"]] == task_ids
    assert first["type"] == "RayTaskError(ValueError)"
    assert first["function"] == "broken"
    assert "ValueError: first" in first["message"]
    assert second["function"] == "Actor.fail"
    assert first["timestamp"] <= second["timestamp"]
    assert in_worker == "True"
