"""Every program of examples/seeds runs as it is and ends with the output it promises.

The scripts are run the way a person runs them, `python script.py` in a process of its
own, so this also shows automatic `init` on first use and the shutdown at exit. A script
without an expectation below fails the suite; so does an expectation without a script.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SEEDS = ROOT / "examples" / "seeds"
TIMEOUT_S = 60.0

pytestmark = pytest.mark.integration

# The last lines of what each script prints.
CLOSING_LINES: dict[str, list[str]] = {
    "api_connect": ["connection example done"],
    "api_error_info": ["1 error: True"],
    "api_get": ["{'key1': ['value']}", "[{'key1': ['value']}, {'key1': ['value']}]"],
    "api_num_return_vals": ["1", "2"],
    "api_put": ["1", "20 tasks done"],
    "api_remote_function": ["1", "2"],
    "api_start_and_stop": ["20.0 2.0"],
    "api_wait": ["2 1", "4 1"],
    "api_wait_loop": ["[1]"] * 100,
    "background_six_calls": [
        "a model of digits 1 {'some': 'thing'}",
        "1 finished, 1 running or not asked for",
    ],
    "first_look_cancel": ["finished by itself: False", "cancelled: True"],
    "first_look_counter": ["[1, 2, 3, 4, 5]", "another actor: 1"],
    "first_look_init": [
        "second init: RuntimeError",
        "True True",
        "init may be called once",
    ],
    "first_look_num_returns": ["[1, 2, 3]", "two values for three refs: True"],
    "first_look_objects": [
        "{'answer': 42}",
        "shared, so read-only: True",
        "timeout in seconds",
        "1 ready, 1 remaining",
    ],
    "first_look_remote_function": [
        "decorated wrapped",
        "a direct call: TypeError",
        "downstream: 13",
    ],
    "first_look_resources": ["placed on 6.0 CPUs", "7 CPUs of 6: not scheduled"],
    "framework_actor": ["result: 16"],
    "framework_actor_state": ["None", "2"],
    "framework_connect": ["connection examples done"],
    "framework_custom_resources": ["4", "f cannot be scheduled"],
    "framework_logging_actor": [
        "1 logging something from another process.",
        "2 logging something from a task.",
        "3 logging something from a task.",
    ],
    "framework_nested": ["ids: 4 values: [1, 1, 1, 1]", "values: [1, 1, 1, 1]"],
    "framework_put": ["22 sums, all zero: True"],
    "framework_regular_and_remote": ["regular: 4", "remote: 4"],
    "framework_remote_function": ["result: 16"],
    "framework_start_and_stop": ["8.0 CPUs", "running: False"],
    "framework_task_dependencies": ["1", "1"],
    "framework_wait": ["ready: [0.1]", "1 ready, 1 remaining"],
    "framework_wait_in_order": ["10 results, each within the total time: True"],
    "principles_init": ["started and stopped"],
    "principles_join": ["registration example done"],
    "principles_task": ["the task returned 4"],
    "principles_three_processes": ["driver, worker and actor agree"],
}

# Scripts that use a name of Ray's early days, and the name the warning must mention.
LEGACY_NAMES = {
    "api_error_info": "error_info",
    "api_num_return_vals": "num_return_vals",
    "framework_start_and_stop": "_redis_password",
}


def run_script(name: str) -> subprocess.CompletedProcess[str]:
    # The addresses would make the guarded scripts look for a cluster.
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("SHOAL_SEEDS_")
    }
    environment["PYTHONPATH"] = str(ROOT / "src")
    return subprocess.run(
        [sys.executable, str(SEEDS / f"{name}.py")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def test_every_script_has_an_expectation() -> None:
    scripts = {path.stem for path in SEEDS.glob("*.py")}
    assert scripts == set(CLOSING_LINES)


@pytest.mark.parametrize("name", sorted(CLOSING_LINES))
def test_script_runs_and_prints_its_result(name: str) -> None:
    result = run_script(name)
    assert result.returncode == 0, result.stdout + result.stderr
    expected = CLOSING_LINES[name]
    assert result.stdout.splitlines()[-len(expected) :] == expected, result.stderr
    if name in LEGACY_NAMES:
        assert "DeprecationWarning" in result.stderr
        assert LEGACY_NAMES[name] in result.stderr
    else:
        assert "Warning" not in result.stderr


def test_shell_examples_are_listed_and_not_run() -> None:
    result = subprocess.run(
        ["bash", str(SEEDS / "framework_bash_client.sh")],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "start_a_head" in result.stdout.split()
    assert "stop" in result.stdout.split()
