"""A virtual environment for each peer, made when it is first needed.

Versions are pinned, so that two runs compare the same peers. What an environment holds
already is not installed again; shoal itself is built from the checkout and installed
anew for every run, as a user would have it (not editable).

An interpreter that is named on the command line is used as it is; for shoal the
checkout's `src` is then put on its path.
"""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.catalogue import DASK, FLOOR, FUTURES, LOKY, MP_POOL, RAY, SHOAL
from benchmarks.host import ROOT

REPORT = "report"
"""The environment that draws the chart; it is no peer."""

_NUMPY = "numpy==2.4.6"
_POOLS = ("loky==3.7.0", _NUMPY)

PINS: dict[str, tuple[str, ...]] = {
    SHOAL: (_NUMPY,),
    # The bare package, without the dashboard that ray[default] would start as well:
    # the choice that favours Ray in memory and start-up.
    RAY: ("ray==2.60.0", _NUMPY),
    DASK: ("distributed==2026.8.0", "dask==2026.8.0", _NUMPY),
    "pools": _POOLS,
    REPORT: ("matplotlib==3.11.2",),
}

_SHARED_FOLDER = dict.fromkeys((FUTURES, MP_POOL, LOKY, FLOOR), "pools")

_MODULES = {
    SHOAL: "shoal",
    RAY: "ray",
    DASK: "distributed",
    FUTURES: "concurrent.futures",
    MP_POOL: "multiprocessing",
    LOKY: "loky",
    FLOOR: "numpy",
    REPORT: "matplotlib",
}


class PeerUnavailable(Exception):
    """A peer can't be measured here; the text is the reason, in one line."""


@dataclass(frozen=True)
class Interpreter:
    """A Python that can import a peer."""

    python: Path
    search_path: tuple[Path, ...]
    """Folders for PYTHONPATH, with which also the peer's workers find their code."""
    versions: Mapping[str, str]
    """Of Python and of the distribution that holds the peer, where it has one."""

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """The variables to start it with."""
        return _variables(self.search_path) | dict(extra or {})


def find(peer: str, venvs: Path, chosen: Mapping[str, Path]) -> Interpreter:
    """The interpreter of a peer, made ready and seen to import it.

    Args:
        peer: a name of the catalogue, or REPORT.
        venvs: folder of the virtual environments.
        chosen: interpreters named by the user, by peer.

    Raises:
        PeerUnavailable: it can't be installed or imported.
    """
    if peer in chosen:
        python = chosen[peer]
        search_path = (ROOT, ROOT / "src") if peer == SHOAL else (ROOT,)
    else:
        python = _prepared(peer, venvs)
        search_path = (ROOT,)
    return Interpreter(python, search_path, _probe(peer, python, search_path))


def _prepared(peer: str, venvs: Path) -> Path:
    """Make or complete the environment of a peer; returns its interpreter."""
    name = _SHARED_FOLDER.get(peer, peer)
    folder = venvs / name
    python = folder / "bin" / "python"
    if not python.exists():
        _announce(f"making {folder}")
        _run([sys.executable, "-m", "venv", str(folder)], "can't make it")
    missing = _missing(python, _requirements(name))
    if missing:
        _announce(f"installing {', '.join(missing)} into {folder}")
        _pip(python, *missing)
    if name == SHOAL:
        _announce(f"installing the checkout into {folder}")
        _pip(python, "--force-reinstall", "--no-deps", str(ROOT))
    return python


def _requirements(name: str) -> tuple[str, ...]:
    """The pins of an environment and, for shoal, what its package asks for."""
    if name != SHOAL:
        return PINS[name]
    project = ROOT / "pyproject.toml"
    if not project.exists():
        raise PeerUnavailable(f"{project} does not exist")
    declared = tomllib.loads(project.read_text())["project"].get("dependencies", [])
    return (*PINS[name], *declared)


def _missing(python: Path, requirements: tuple[str, ...]) -> list[str]:
    """The requirements that are not there; ranges are left to pip to judge."""
    code = (
        "import importlib.metadata as m, json;"
        "found = {(d.name or '').lower(): d.version for d in m.distributions()};"
        "print(json.dumps(found))"
    )
    installed = json.loads(_run([str(python), "-c", code], "can't run it"))
    return [
        requirement
        for requirement in requirements
        if installed.get(requirement.partition("==")[0].lower())
        != requirement.partition("==")[2]
    ]


def _pip(python: Path, *arguments: str) -> None:
    """pip install, quietly."""
    _run(
        [str(python), "-m", "pip", "install", "--quiet", *arguments],
        "pip install failed",
    )


def _probe(peer: str, python: Path, search_path: tuple[Path, ...]) -> dict[str, str]:
    """Import the peer once; returns versions.

    This also compiles its modules and warms the file cache, so that the first
    start-up measured is like the later ones.
    """
    code = (
        "import importlib, importlib.metadata as m, json, platform, sys\n"
        "importlib.import_module(sys.argv[1])\n"
        "found = m.packages_distributions().get(sys.argv[1].split('.')[0], [])\n"
        "versions = {name: m.version(name) for name in found}\n"
        "print(json.dumps(versions | {'python': platform.python_version()}))\n"
    )
    output = _run(
        [str(python), "-c", code, _MODULES[peer]],
        f"{_MODULES[peer]} can't be imported",
        search_path,
    )
    versions: dict[str, str] = json.loads(output.splitlines()[-1])
    return versions


def _run(command: list[str], complaint: str, search_path: tuple[Path, ...] = ()) -> str:
    """Output of a command; its last words as the reason when it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=_variables(search_path)
        )
    except OSError as error:
        raise PeerUnavailable(f"{command[0]}: {complaint}: {error}") from error
    if done.returncode != 0:
        last_words = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise PeerUnavailable(f"{command[0]}: {complaint}: {' '.join(last_words)}")
    return done.stdout


def _variables(search_path: tuple[Path, ...]) -> dict[str, str]:
    """Our own environment with another PYTHONPATH, or none."""
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    if search_path:
        variables["PYTHONPATH"] = os.pathsep.join(map(str, search_path))
    return variables


def _announce(text: str) -> None:
    """Tell what takes long."""
    sys.stderr.write(f"  {text}\n")
