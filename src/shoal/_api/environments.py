"""Runtime environments as users write them: checked dicts.

Theory.  `RuntimeEnv` is a dict that checks each field when it is set, so that a
mistake is told where it was made and not when the first worker starts.  A plain dict
is as good wherever an environment is asked for: `checked_environment` makes the same
checks.

Invariants: a `RuntimeEnv` holds no field that is empty; every known field in it has
passed its check.

What it does not do: nothing is packed, sent or built here.

Source of the fields, defaults and errors: Ray's API reference, ``ray.runtime_env``.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Final, TypeGuard

from shoal.exceptions import RuntimeEnvSetupError

__all__ = ["RuntimeEnv", "RuntimeEnvConfig", "checked_environment"]

_logger = logging.getLogger("shoal")

_ARCHIVE_ENDINGS: Final = (".zip", ".whl", ".jar", ".tar.gz", ".tgz", ".tar.xz")
_INSTALLERS: Final = ("pip", "uv", "conda")
_LATER: Final[Mapping[str, str]] = {
    "pip": "Install the packages where the program runs; workers see them.",
    "uv": "Install the packages where the program runs; workers see them.",
    "conda": "Start the program in that environment; workers run in the same.",
    "container": "Start the program in that image; workers run in the same.",
    "image_uri": "Start the program in that image; workers run in the same.",
    "py_executable": "Start the program with that interpreter; workers run in it.",
    "nsight": "Run the program under the profiler instead.",
    "rocprof_sys": "Run the program under the profiler instead.",
    "java_jars": "There are no workers in Java.",
}
"""Fields of Ray that this version cannot serve, and what to do instead."""

_WITHOUT_EFFECT: Final = frozenset(
    {"_ray_release", "_ray_commit", "_inject_current_ray", "_nsight", "_rocprof_sys"}
)


class RuntimeEnvConfig(dict[str, Any]):
    """How an environment is set up.

    Args:
        setup_timeout_seconds: a setup that takes longer fails; -1 is no limit.
        eager_install: set up when the job starts, not with its first task.
        log_files: files that a setup may write its log to.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: a timeout that is neither above zero nor -1.
    """

    def __init__(
        self,
        setup_timeout_seconds: int = 600,
        eager_install: bool = True,
        log_files: list[str] | None = None,
    ) -> None:
        timeout: object = setup_timeout_seconds  # callers need not be typed
        if not isinstance(timeout, int) or isinstance(timeout, bool):
            raise TypeError(
                f"setup_timeout_seconds must be of type int, not {_type(timeout)}."
            )
        if timeout <= 0 and timeout != -1:
            raise ValueError(
                "setup_timeout_seconds must be greater than zero, or -1 for no limit, "
                f"not {timeout}."
            )
        if not isinstance(eager_install, bool):
            raise TypeError(
                f"eager_install must be of type bool, not {_type(eager_install)}."
            )
        if log_files is not None and not _is_list_of_text(log_files):
            raise TypeError(
                f"log_files must be a list of str or None, not {log_files!r}."
            )
        super().__init__(
            setup_timeout_seconds=timeout,
            eager_install=eager_install,
            log_files=list(log_files or ()),
        )

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> RuntimeEnvConfig:
        """The same from a dict; entries that mean nothing are told of and dropped."""
        known = {"setup_timeout_seconds", "eager_install", "log_files"}
        unknown = sorted(str(name) for name in given if name not in known)
        if unknown:
            _logger.warning(
                "The config of a runtime_env has no entries %s; they have no effect. "
                "It has %s.",
                unknown,
                sorted(known),
            )
        return cls(**{name: value for name, value in given.items() if name in known})

    def to_dict(self) -> dict[str, Any]:
        """A plain dict of the same entries."""
        return dict(self)


class RuntimeEnv(dict[str, Any]):
    """Files, variables and a setup function that workers get.

    Args:
        py_modules: folders, archives, modules or addresses that tasks can import.
        working_dir: folder, archive or address; workers start in a copy of it.
        env_vars: environment variables; `${NAME}` stands for the worker's own.
        worker_process_setup_hook: function without arguments, or its
            `module.function`, that each worker runs before its first task.
        excludes: patterns, as in a `.gitignore` file, of what not to pack.
        config: how to set it up, as a dict or `RuntimeEnvConfig`.
        _validate: False leaves the checks to those who use it.
        fields: anything else. Fields of Ray that cannot be served here (`pip`, `uv`,
            `conda`, `container`, `image_uri`, …) raise; names that nobody knows are
            kept, with a warning, and have no effect.

    Raises:
        TypeError: a field of the wrong type.
        ValueError: a folder that is not there, or fields that exclude each other.
        RuntimeEnvSetupError: a field that this version cannot serve.

    Example::

        shoal.init(runtime_env=RuntimeEnv(env_vars={"MODE": "test"}))
    """

    def __init__(
        self,
        *,
        py_modules: list[Any] | None = None,
        working_dir: str | os.PathLike[str] | None = None,
        env_vars: dict[str, str] | None = None,
        worker_process_setup_hook: Callable[[], object] | str | None = None,
        excludes: list[str] | None = None,
        config: dict[str, Any] | RuntimeEnvConfig | None = None,
        _validate: bool = True,
        **fields: Any,
    ) -> None:
        given = {
            "py_modules": py_modules,
            "working_dir": working_dir,
            "env_vars": env_vars,
            "worker_process_setup_hook": worker_process_setup_hook,
            "excludes": excludes,
            "config": config,
            **fields,
        }
        if _validate:
            super().__init__(checked_environment(given))
        else:
            super().__init__({k: v for k, v in given.items() if v is not None})

    def __setitem__(self, name: str, value: Any) -> None:
        """Set one field, checked; None takes it away."""
        if value is None:
            self.pop(name, None)
            return
        checked = checked_environment({**self, name: value})
        if name in checked:
            super().__setitem__(name, checked[name])
        else:
            self.pop(name, None)

    def set(self, name: str, value: Any) -> None:
        """Set one field, as `env[name] = value` does."""
        self[name] = value

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _rebuilt, (dict(self),)

    def to_dict(self) -> dict[str, Any]:
        """A plain dict of the same fields."""
        return dict(self)

    def serialize(self) -> str:
        """The fields as JSON, names in alphabetical order.

        Raises:
            TypeError: a field holds a function or a module.
        """
        return json.dumps(self, sort_keys=True)

    @classmethod
    def deserialize(cls, text: str) -> RuntimeEnv:
        """The environment that `serialize` made the text of."""
        return cls(_validate=False, **json.loads(text))

    def env_vars(self) -> dict[str, str]:
        """The environment variables; empty when there are none."""
        return dict(self.get("env_vars", {}))

    def working_dir(self) -> str | None:
        """The working directory; None when there is none."""
        return self.get("working_dir")

    def py_modules(self) -> list[Any]:
        """The modules; empty when there are none."""
        return list(self.get("py_modules", ()))

    def has_working_dir(self) -> bool:
        """Is there a working directory?"""
        return "working_dir" in self


def _rebuilt(fields: dict[str, Any]) -> RuntimeEnv:
    return RuntimeEnv(_validate=False, **fields)


def checked_environment(given: Mapping[str, Any]) -> dict[str, Any]:
    """A runtime environment without its empty fields, or an error that says why not.

    Args:
        given: as a user wrote it: `RuntimeEnv` or a plain dict.

    Raises:
        TypeError, ValueError, RuntimeEnvSetupError: as for `RuntimeEnv`.
    """
    asked = {
        name: value
        for name, value in given.items()
        # An empty list of packages asks for nothing; an empty text is a mistake.
        if value is not None and not (isinstance(value, list | dict) and not value)
    }
    installers = [name for name in _INSTALLERS if name in asked]
    if len(installers) > 1:
        raise ValueError(
            f"A runtime_env can have only one of {', '.join(_INSTALLERS)}, but has "
            f"{' and '.join(installers)}."
        )
    for name, value in asked.items():
        if name in _LATER:
            raise RuntimeEnvSetupError(
                f"The field {name!r} of a runtime_env comes with a later version of "
                f"shoal. {_LATER[name]}"
            )
        check = _CHECKS.get(name)
        if check is not None:
            asked[name] = check(value)
        elif name not in _WITHOUT_EFFECT:
            _logger.warning(
                "A runtime_env has no field %r; it has no effect. The fields are %s.",
                name,
                ", ".join(_CHECKS),
            )
    return asked


def _checked_working_dir(value: object) -> str:
    if not isinstance(value, str | os.PathLike):
        raise TypeError(
            f"'working_dir' of a runtime_env must be str, not {_type(value)}."
        )
    return _checked_location("working_dir", os.fspath(value), takes_files=False)


def _checked_py_modules(value: object) -> list[object]:
    if not isinstance(value, list | tuple):
        raise TypeError(
            "'py_modules' of a runtime_env must be a list of paths, addresses or "
            f"modules, not {_type(value)}."
        )
    checked: list[object] = []
    for item in value:
        if isinstance(item, ModuleType):
            checked.append(item)
        elif isinstance(item, str | os.PathLike):
            path = os.fspath(item)
            checked.append(_checked_location("py_modules", path, takes_files=True))
        else:
            raise TypeError(
                "'py_modules' of a runtime_env must hold paths, addresses or modules, "
                f"not {_type(item)}: {item!r}."
            )
    return checked


def _checked_location(field: str, location: str | bytes, *, takes_files: bool) -> str:
    text = os.fsdecode(location)
    if "://" in text:
        if not text.lower().endswith(_ARCHIVE_ENDINGS):
            raise ValueError(
                f"{text!r} in '{field}' of a runtime_env must be an archive: its "
                f"address must end with one of {', '.join(_ARCHIVE_ENDINGS)}."
            )
        return text
    path = os.path.expanduser(text)
    if os.path.isdir(path):
        return text
    if not os.path.isfile(path):
        raise ValueError(
            f"{text!r} in '{field}' of a runtime_env is not a valid path: there is no "
            f"such folder or file, seen from {os.getcwd()}."
        )
    endings = (*_ARCHIVE_ENDINGS, ".py") if takes_files else _ARCHIVE_ENDINGS
    if not path.lower().endswith(endings):
        raise ValueError(
            f"{text!r} in '{field}' of a runtime_env must be a folder or end with one "
            f"of {', '.join(endings)}."
        )
    return text


def _checked_env_vars(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise TypeError(
            "'env_vars' of a runtime_env must be a dict of str to str, not "
            f"{_type(value)}."
        )
    for name, text in value.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise TypeError(
                "'env_vars' of a runtime_env must be a dict of str to str, but has "
                f"{name!r}: {text!r}."
            )
        if not name or "=" in name or "\0" in name + text:
            raise ValueError(
                f"{name!r}: {text!r} in 'env_vars' of a runtime_env cannot be an "
                "environment variable: a name must not be empty nor hold '=', and "
                "neither may hold a null character."
            )
    return dict(value)


def _checked_hook(value: object) -> object:
    if isinstance(value, str):
        module, dot, name = value.rpartition(".")
        if value.startswith("pickle:") or (dot and module and name):
            return value
        raise ValueError(
            "'worker_process_setup_hook' of a runtime_env must be a function or its "
            f"'module.function', not {value!r}."
        )
    if not callable(value):
        raise TypeError(
            "'worker_process_setup_hook' of a runtime_env must be a function or its "
            f"'module.function', not {_type(value)}."
        )
    return value


def _checked_excludes(value: object) -> list[str]:
    if not _is_list_of_text(value):
        raise TypeError(
            f"'excludes' of a runtime_env must be a list of str, not {value!r}."
        )
    return value


def _checked_config(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(
            "'config' of a runtime_env must be a dict or RuntimeEnvConfig, not "
            f"{_type(value)}."
        )
    return dict(RuntimeEnvConfig.from_mapping(value))


_CHECKS: Final[Mapping[str, Callable[[object], object]]] = {
    "working_dir": _checked_working_dir,
    "py_modules": _checked_py_modules,
    "env_vars": _checked_env_vars,
    "worker_process_setup_hook": _checked_hook,
    "excludes": _checked_excludes,
    "config": _checked_config,
}


def _is_list_of_text(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _type(value: object) -> str:
    return type(value).__name__


for _public in (RuntimeEnv, RuntimeEnvConfig):
    _public.__module__ = "shoal.runtime_env"
