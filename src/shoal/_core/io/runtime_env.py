"""Runtime environments made real: packed in the driver, applied in a worker.

Theory.  In the driver, `pack_environment` turns what is local in an environment
(folders, modules, functions) into plain data that can travel.  In a worker, right
after the fork, `prepare` unpacks what the environment names, or finds it unpacked, and
`apply` sets variables, working directory and import path.

Invariants: a packed environment holds text, lists and dicts only; `prepare` changes
nothing in its process, `apply` can't fail half-way for want of a file.

What it does not do: no installing of packages (pip, uv, conda), no containers; files
are the business of `packages`.
"""

from __future__ import annotations

import base64
import importlib
import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from shoal._core.base.environments import environment_key, expand_variables
from shoal.exceptions import RuntimeEnvSetupError

if TYPE_CHECKING:
    from shoal._core.io.packages import PackageRules

__all__ = [
    "CACHE_FOLDER",
    "PreparedEnv",
    "apply",
    "apply_environment",
    "load_setup_hook",
    "pack_environment",
    "prepare",
]

CACHE_FOLDER: Final = "runtime_resources"
"""Where a session keeps packages and unpacked files, below its own folder."""

_PICKLED: Final = "pickle:"


@dataclass(frozen=True, slots=True)
class PreparedEnv:
    """What a worker applies before it runs its first task.

    Attributes:
        env_vars: variables to set, expanded.
        sys_path_front: folders that go before all others on the import path.
        cwd: working directory; None leaves it as it is.
        setup_hook: what `load_setup_hook` takes; None when there is none.
        key: equal for environments that one worker can serve; "" for none.
    """

    env_vars: dict[str, str] = field(default_factory=dict)
    sys_path_front: list[str] = field(default_factory=list)
    cwd: str | None = None
    setup_hook: str | None = None
    key: str = ""


# ---------------------------------------------------------------- in the driver


def pack_environment(
    environment: Mapping[str, Any],
    cache_dir: Path,
    *,
    rules: PackageRules,
    pickle_function: Callable[[Callable[[], object]], bytes],
) -> dict[str, Any]:
    """Replace local folders, modules and functions by what can travel.

    Args:
        environment: as the user gave it, checked.
        cache_dir: of the session; packages are kept in `cache_dir/packages`.
        rules: what goes into a package.
        pickle_function: makes bytes of a setup hook.

    Returns:
        A new environment of plain data.

    Raises:
        RuntimeEnvSetupError: files that can't be read, or too many bytes of them.
    """
    packed = {name: value for name, value in environment.items() if value}
    excludes = list(packed.pop("excludes", ()))
    pack = _packages().pack
    if "working_dir" in packed:
        packed["working_dir"] = pack(
            packed["working_dir"],
            cache_dir,
            keeps_name=False,
            excludes=excludes,
            rules=rules,
        )
    if "py_modules" in packed:
        packed["py_modules"] = [
            pack(item, cache_dir, keeps_name=True, excludes=excludes, rules=rules)
            for item in packed["py_modules"]
        ]
    hook = packed.get("worker_process_setup_hook")
    if callable(hook):
        data = base64.b64encode(pickle_function(hook)).decode("ascii")
        packed["worker_process_setup_hook"] = _PICKLED + data
    return packed


# ----------------------------------------------------------------- in the worker


def prepare(
    environment: Mapping[str, Any],
    cache_dir: Path,
    present: Mapping[str, str] | None = None,
) -> PreparedEnv:
    """Unpack what the environment names and work out what to apply.

    What is unpacked already takes well under a millisecond.

    Args:
        environment: packed, of plain data.
        cache_dir: of the session; files go to `cache_dir/unpacked`.
        present: the variables that `${NAME}` refers to; None is this process's.

    Raises:
        RuntimeEnvSetupError: a package that is missing or broken, a full disk, or a
            kind of address that can't be fetched.
    """
    present = os.environ if present is None else present
    env_vars = expand_variables(environment.get("env_vars") or {}, present)
    sys_path_front: list[str] = []
    cwd = None
    if environment.get("working_dir"):
        cwd = str(_packages().unpack(environment["working_dir"], cache_dir))
        sys_path_front.append(cwd)
    for uri in environment.get("py_modules") or ():
        sys_path_front.append(str(_packages().unpack(uri, cache_dir)))
    # The interpreter has read PYTHONPATH long ago, so it is followed here.
    asked_path = env_vars.get("PYTHONPATH", "").split(os.pathsep)
    sys_path_front += [entry for entry in asked_path if entry]
    return PreparedEnv(
        env_vars=env_vars,
        sys_path_front=sys_path_front,
        cwd=cwd,
        setup_hook=environment.get("worker_process_setup_hook"),
        key=environment_key(environment),
    )


def apply(prepared: PreparedEnv) -> None:
    """Make this process, a fresh worker, what the environment asks for.

    The setup hook is not run: the worker does that when it can report errors.
    """
    os.environ.update(prepared.env_vars)
    if "TZ" in prepared.env_vars:
        time.tzset()
    if prepared.cwd is not None:
        os.chdir(prepared.cwd)
    front = prepared.sys_path_front
    sys.path[:] = [*front, *(entry for entry in sys.path if entry not in front)]
    importlib.invalidate_caches()


def apply_environment(environment: Mapping[str, Any], session_dir: str) -> None:
    """All of it in one step: prepare, apply, and run the setup hook.

    Args:
        environment: packed; an empty one changes nothing.
        session_dir: the session's folder; files are cached in `CACHE_FOLDER` of it.

    Raises:
        RuntimeEnvSetupError: what `prepare` raises, or the setup hook failed; its
            traceback is in the message.
    """
    if not environment:
        return
    prepared = prepare(environment, Path(session_dir, CACHE_FOLDER))
    apply(prepared)
    if prepared.setup_hook is None:
        return
    hook = load_setup_hook(prepared.setup_hook)
    try:
        hook()
    except Exception as error:
        raise RuntimeEnvSetupError(
            "worker_process_setup_hook raised an exception:\n"
            + "".join(traceback.format_exception(error))
        ) from error


def _packages() -> Any:
    """Imported when an environment names files: its imports take milliseconds.

    Most workers never need them, and each would wait for them.
    """
    from shoal._core.io import packages  # noqa: PLC0415

    return packages


def load_setup_hook(hook: str) -> Callable[[], object]:
    """The function that a packed environment names: pickled, or `module.function`.

    Raises:
        RuntimeEnvSetupError: it can't be loaded, or is no function.
    """
    try:
        if hook.startswith(_PICKLED):
            found = pickle.loads(base64.b64decode(hook[len(_PICKLED) :]))
        else:
            module, _, name = hook.rpartition(".")
            found = getattr(importlib.import_module(module), name)
    except Exception as error:
        raise RuntimeEnvSetupError(
            f"worker_process_setup_hook {hook[:100]!r} could not be loaded: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not callable(found):
        raise RuntimeEnvSetupError(
            f"worker_process_setup_hook {hook[:100]!r} is of type "
            f"{type(found).__name__} and cannot be called"
        )
    function: Callable[[], object] = found
    return function
