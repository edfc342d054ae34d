"""A second name for a package: ``import ray`` finds the modules of ``shoal``.

``alias_package("ray", "shoal")`` puts a finder before all others.  Asked for
``ray.util.queue``, it imports ``shoal.util.queue`` and hands out that very module, so
that there is one module object under two names: one set of classes, one session.

Invariants: ``sys.modules`` maps both names to the same object, and the module keeps its
own ``__name__`` and ``__spec__``, so what it defines is pickled under its own name and
can be read where no alias was made.

What it does not do: replace modules that were imported before.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


# The base classes of `importlib.abc` add nothing here, and take 8 ms to import.
class AliasFinder:
    """Finds the modules of one package under a second name.

    Args:
        alias: the second name, as ``ray``.
        package: the package's own name, as ``shoal``.
    """

    def __init__(self, alias: str, package: str) -> None:
        self.alias = alias
        self.package = package

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """The spec of an aliased module; None for others and for what is not there."""
        root, dot, rest = fullname.partition(".")
        if root != self.alias:
            return None
        real_name = f"{self.package}{dot}{rest}"
        real = importlib.util.find_spec(real_name)
        if real is None:
            return None
        loader: Any = _AliasLoader(real_name)
        spec = ModuleSpec(fullname, loader, origin=real.origin)
        spec.submodule_search_locations = real.submodule_search_locations
        return spec


class _AliasLoader:
    """Hands out a module that has another name."""

    def __init__(self, real_name: str) -> None:
        self._real_name = real_name
        self._real_spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module of that name, imported now if it was not."""
        module = importlib.import_module(self._real_name)
        self._real_spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Leave the module as it is."""
        # It has run already.  The import system put the alias's spec on it meanwhile.
        module.__spec__ = self._real_spec


def alias_package(alias: str, package: str) -> None:
    """Make ``import alias`` (and of its submodules) give ``package``'s modules.

    Doing it again changes nothing.

    Raises:
        RuntimeError: another package of the name ``alias`` is imported already.
    """
    if is_aliased(alias, package):
        return
    if alias in sys.modules:
        origin = getattr(sys.modules[alias], "__file__", None) or "somewhere"
        raise RuntimeError(
            f"the package {alias!r} is imported already, from {origin}: let {package} "
            "take its place before anything imports it."
        )
    sys.meta_path.insert(0, AliasFinder(alias, package))


def is_aliased(alias: str, package: str) -> bool:
    """Whether ``alias_package`` was called with these names in this process."""
    return any(
        isinstance(finder, AliasFinder)
        and (finder.alias, finder.package) == (alias, package)
        for finder in sys.meta_path
    )
