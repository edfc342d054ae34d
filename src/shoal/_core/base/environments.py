"""Runtime environments as plain data: what they may hold, how two join, their key.

Theory.  A runtime environment is a dict that travels with jobs, tasks and actors.
Workers are kept by environment, so what matters of it has to have a *key*: equal keys
may share a worker.  A child's environment is its parent's with the child's fields in
their place, except that single environment variables are replaced one by one.

Invariants: the key of an environment that asks for nothing is the empty text; keys
depend only on the fields that change a worker.

What it does not do: no files, no building (`io.runtime_env`), no checks of what users
give (`_api.environments`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final

__all__ = [
    "WORKER_FIELDS",
    "environment_key",
    "expand_variables",
    "merge_environments",
]

WORKER_FIELDS: Final = (
    "env_vars",
    "working_dir",
    "py_modules",
    "worker_process_setup_hook",
)
"""The fields that a worker is built by, in the order they are applied."""


def merge_environments(
    parent: Mapping[str, Any] | None, child: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The environment of a task: its parent's or job's, overridden by its own.

    Args:
        parent: of the job, task or actor that submits; None is empty.
        child: what the options of the new task or actor say; None is empty.  A field
            whose value is None counts as not given.
    """
    merged = {name: value for name, value in (parent or {}).items() if value}
    for name, value in (child or {}).items():
        if value is None:
            continue
        if name == "env_vars":
            merged[name] = {**merged.get(name, {}), **value}
        else:
            merged[name] = value
    return merged


def environment_key(environment: Mapping[str, Any] | None) -> str:
    """Text that is equal when one worker can serve both; "" asks for nothing special.

    Args:
        environment: packed: plain text, lists and dicts only.

    Raises:
        TypeError: a field holds something else, such as a function.
    """
    asked = [
        (name, environment[name])
        for name in WORKER_FIELDS
        if environment and environment.get(name)
    ]
    if not asked:
        return ""
    # The order of variables is kept: a later one may refer to an earlier one.
    text = json.dumps(asked, ensure_ascii=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


_VARIABLE: Final = re.compile(r"\$(?:\{([^{}]*)\}|([A-Za-z_][A-Za-z0-9_]*))")


def expand_variables(
    asked: Mapping[str, str], present: Mapping[str, str]
) -> dict[str, str]:
    """The values of `asked` with `$NAME` and `${NAME}` replaced, in their order.

    Args:
        asked: variables to set; each sees the present ones and those before it.
        present: the variables of the worker.  One that is not there is empty text.
    """
    expanded: dict[str, str] = {}

    def value_of(match: re.Match[str]) -> str:
        name = match[1] if match[1] is not None else match[2]
        return expanded.get(name, present.get(name, ""))

    for name, text in asked.items():
        expanded[name] = _VARIABLE.sub(value_of, text)
    return expanded
