"""Tasks and actors in other languages: Ray's names for them, which say no.

Workers run Python only.  The names are here so that a program that asks gets told,
and not only that a name is missing.
"""

from __future__ import annotations

import enum
from typing import NoReturn


class Language(enum.IntEnum):
    """Languages of tasks and actors in Ray; here there are workers in Python only."""

    PYTHON = 0
    JAVA = 1
    CPP = 2


def _refuse(what: str) -> NoReturn:
    raise NotImplementedError(
        f"{what} needs workers in another language, and there are none but Python's: "
        "call the code through a Python binding, or as a subprocess."
    )


def java_function(class_name: str, function_name: str) -> NoReturn:
    """A static Java method as a remote function.

    Raises:
        NotImplementedError: always.
    """
    _refuse(f"java_function({class_name!r}, {function_name!r})")


def java_actor_class(class_name: str) -> NoReturn:
    """A Java class as an actor class.

    Raises:
        NotImplementedError: always.
    """
    _refuse(f"java_actor_class({class_name!r})")


def cpp_function(function_name: str) -> NoReturn:
    """A C++ function as a remote function.

    Raises:
        NotImplementedError: always.
    """
    _refuse(f"cpp_function({function_name!r})")
