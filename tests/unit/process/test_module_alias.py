"""A second name for a package gives the very same modules."""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shoal._core.process.module_alias import alias_package, is_aliased

REAL, ALIAS = "real_package_of_alias_tests", "alias_of_alias_tests"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package with submodules; the import system is as before afterwards."""
    folder = tmp_path / REAL
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").write_text("loaded = []\nVALUE = 1\n")
    (folder / "inner" / "__init__.py").write_text("")
    (folder / "inner" / "leaf.py").write_text(
        f"import {REAL}\n{REAL}.loaded.append(__name__)\nclass Thing:\n    pass\n"
    )
    (folder / "broken.py").write_text("import module_that_is_nowhere\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield folder
    for name in list(sys.modules):
        if name.partition(".")[0] in (REAL, ALIAS):
            del sys.modules[name]


def test_same_module_objects(package: Path) -> None:
    alias_package(ALIAS, REAL)
    aliased = importlib.import_module(ALIAS)
    leaf = importlib.import_module(f"{ALIAS}.inner.leaf")
    assert aliased is importlib.import_module(REAL)
    assert leaf is importlib.import_module(f"{REAL}.inner.leaf")
    assert aliased.inner.leaf is leaf
    assert aliased.loaded == [f"{REAL}.inner.leaf"], "each module runs once"


def test_modules_keep_their_own_names(package: Path) -> None:
    alias_package(ALIAS, REAL)
    leaf = importlib.import_module(f"{ALIAS}.inner.leaf")
    assert leaf.__name__ == f"{REAL}.inner.leaf"
    assert leaf.__spec__ is not None
    assert leaf.__spec__.name == f"{REAL}.inner.leaf"
    thing = leaf.Thing()
    assert ALIAS.encode() not in pickle.dumps(thing)


def test_modules_imported_before_are_the_same(package: Path) -> None:
    real = importlib.import_module(f"{REAL}.inner.leaf")
    alias_package(ALIAS, REAL)
    assert importlib.import_module(f"{ALIAS}.inner.leaf") is real


def test_what_is_not_there(package: Path) -> None:
    alias_package(ALIAS, REAL)
    with pytest.raises(ModuleNotFoundError, match=f"No module named '{ALIAS}.nothing'"):
        importlib.import_module(f"{ALIAS}.nothing")
    assert importlib.util.find_spec(f"{ALIAS}.nothing") is None
    assert importlib.util.find_spec(f"{ALIAS}.inner") is not None


def test_a_module_that_fails_says_why(package: Path) -> None:
    """The error is the module's own, and the second attempt fails alike."""
    alias_package(ALIAS, REAL)
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="module_that_is_nowhere"):
            importlib.import_module(f"{ALIAS}.broken")


def test_again_changes_nothing(package: Path) -> None:
    assert not is_aliased(ALIAS, REAL)
    alias_package(ALIAS, REAL)
    finders = list(sys.meta_path)
    importlib.import_module(ALIAS)
    alias_package(ALIAS, REAL)
    assert sys.meta_path == finders
    assert is_aliased(ALIAS, REAL)
    assert not is_aliased(ALIAS, "another")


def test_a_package_that_is_imported_already(package: Path, tmp_path: Path) -> None:
    (tmp_path / f"{ALIAS}.py").write_text("")
    importlib.import_module(ALIAS)
    with pytest.raises(RuntimeError, match=f"'{ALIAS}' is imported already, from"):
        alias_package(ALIAS, REAL)
    assert not is_aliased(ALIAS, REAL)
