"""Packing and preparing: what arrives in a worker is what the driver had."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import tarfile
import threading
import types
import zipfile
from pathlib import Path

import pytest

from shoal._core.io import packages
from shoal._core.io.packages import PackageRules, pack, unpack
from shoal._core.io.runtime_env import (
    CACHE_FOLDER,
    PreparedEnv,
    apply,
    apply_environment,
    load_setup_hook,
    pack_environment,
    prepare,
)
from shoal.exceptions import RuntimeEnvSetupError

RULES = PackageRules()


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def names(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    )


def packed_and_unpacked(
    item: object,
    cache: Path,
    *,
    keeps_name: bool = False,
    excludes: tuple[str, ...] = (),
    rules: PackageRules = RULES,
) -> Path:
    uri = pack(
        item,  # type: ignore[arg-type]
        cache,
        keeps_name=keeps_name,
        excludes=excludes,
        rules=rules,
    )
    return unpack(uri, cache)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def test_files_arrive_with_contents_and_executable_bits(
    source: Path, cache: Path
) -> None:
    tree(source, {"a.txt": "a", "sub/tool": "#!/bin/sh", "sub/deep/empty": ""})
    (source / "sub/tool").chmod(0o755)
    folder = packed_and_unpacked(source, cache)
    assert names(folder) == ["a.txt", "sub/deep/empty", "sub/tool"]
    assert (folder / "a.txt").read_text() == "a"
    assert os.access(folder / "sub/tool", os.X_OK)
    assert not os.access(folder / "a.txt", os.X_OK)


def test_what_is_left_out(source: Path, cache: Path) -> None:
    tree(
        source,
        {
            ".git/config": "",
            "venv/x": "",
            "sub/__pycache__/x.pyc": "",
            "data.csv": "",
            "sub/more.csv": "",
            ".gitignore": "ignored\nsub/keep*\n!sub/keepme\n*.tmp\n",
            "ignored": "",
            "sub/ignored": "",
            "sub/keep1": "",
            "sub/keepme": "",
            "sub/.gitignore": "!important.tmp\n",
            "sub/important.tmp": "",
            "sub/other.tmp": "",
            ".rayignore": "secret\n",
            "sub/secret": "",
            "main.py": "",
        },
    )
    folder = packed_and_unpacked(source, cache, excludes=("*.csv",))
    assert names(folder) == [
        ".gitignore",
        ".rayignore",
        "main.py",
        "sub/.gitignore",
        "sub/important.tmp",
        "sub/keepme",
    ]


def test_rules_by_environment_variables(source: Path, cache: Path) -> None:
    tree(
        source, {".gitignore": "a\n", "a": "", ".rayignore": "b\n", "b": "", "c/x": ""}
    )
    tree(source, {"venv/x": ""})
    rules = PackageRules.from_env(
        {
            "RAY_RUNTIME_ENV_IGNORE_GITIGNORE": "1",
            "SHOAL_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES": "c,",
        },
        1000,
    )
    assert rules.max_bytes == 1000
    folder = packed_and_unpacked(source, cache, rules=rules)
    assert names(folder) == [".gitignore", ".rayignore", "a", "venv/x"]
    assert PackageRules.from_env({}, 5) == PackageRules(max_bytes=5)


def test_links_are_followed_but_not_in_circles(source: Path, cache: Path) -> None:
    tree(source, {"sub/a": "a"})
    (source / "link").symlink_to("sub")
    (source / "sub/round").symlink_to("..")
    (source / "broken").symlink_to("nowhere")
    os.mkfifo(source / "pipe")
    assert names(packed_and_unpacked(source, cache)) == ["link/a", "sub/a"]


def test_equal_files_are_one_package_and_changed_ones_another(
    source: Path, cache: Path, tmp_path: Path
) -> None:
    tree(source, {"a": "1", "b": "2"})
    copy = tree(tmp_path / "copy", {"a": "1", "b": "2"})
    first = pack(source, cache, keeps_name=False, rules=RULES)
    assert pack(copy, cache, keeps_name=False, rules=RULES) == first
    assert len(list((cache / "packages").iterdir())) == 1
    different = [first]
    for change in ({"a": "3"}, {"a": "", "c": "3"}, {"a": "12", "b": ""}):
        different.append(pack(tree(copy, change), cache, keeps_name=False, rules=RULES))
    (copy / "a").chmod(0o755)
    different.append(pack(copy, cache, keeps_name=False, rules=RULES))
    assert len(set(different)) == 5


def test_a_package_that_is_too_large_names_the_largest_files(
    source: Path, cache: Path
) -> None:
    tree(source, {"small": "x", "huge.bin": "x" * 5000})
    rules = PackageRules(max_bytes=4000)
    with pytest.raises(RuntimeEnvSetupError, match=r"largest are huge\.bin.*excludes"):
        pack(source, cache, keeps_name=False, rules=rules)
    pack(source, cache, keeps_name=False, excludes=["huge.bin"], rules=rules)


def test_a_module_keeps_its_name(source: Path, cache: Path) -> None:
    tree(source, {"pkg/__init__.py": "", "pkg/part.py": "", "single.py": ""})
    folder = packed_and_unpacked(source / "pkg", cache, keeps_name=True)
    assert names(folder) == ["pkg/__init__.py", "pkg/part.py"]
    folder = packed_and_unpacked(source / "single.py", cache, keeps_name=True)
    assert names(folder) == ["single.py"]


def test_modules_are_packed_by_their_files(cache: Path) -> None:
    assert "json/decoder.py" in names(packed_and_unpacked(json, cache, keeps_name=True))
    folder = packed_and_unpacked(threading, cache, keeps_name=True)
    assert names(folder) == ["threading.py"]


def test_modules_without_one_place_are_refused(cache: Path) -> None:
    with pytest.raises(RuntimeEnvSetupError, match="module sys has no files"):
        pack(sys, cache, keeps_name=True, rules=RULES)
    spread = types.ModuleType("spread")
    spread.__path__ = ["/a", "/b"]
    with pytest.raises(RuntimeEnvSetupError, match="spread over 2 folders"):
        pack(spread, cache, keeps_name=True, rules=RULES)


def make_zip(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.mkdir("folder")
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def make_tar(path: Path, files: dict[str, str]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            member.mode = 0o755
            archive.addfile(member, io.BytesIO(text.encode()))
        link = tarfile.TarInfo("link")
        link.type = tarfile.SYMTYPE
        link.linkname = "/etc/passwd"
        archive.addfile(link)
    return path


def test_archives_of_this_machine_are_packed_as_they_are(
    tmp_path: Path, cache: Path
) -> None:
    files = {"a": "1", "__pycache__/kept": "2", ".gitignore": "a"}
    by_zip = packed_and_unpacked(make_zip(tmp_path / "x.zip", files), cache)
    assert names(by_zip) == [".gitignore", "__pycache__/kept", "a"]
    by_tar = packed_and_unpacked(make_tar(tmp_path / "x.tar.gz", files), cache)
    assert names(by_tar) == [".gitignore", "__pycache__/kept", "a"]
    assert os.access(by_tar / "a", os.X_OK)


@pytest.mark.parametrize("name", ["../out", "/out", "a/../../out"])
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_archives_that_reach_outside_are_refused(
    tmp_path: Path, cache: Path, name: str, make: object
) -> None:
    assert callable(make)
    archive = make(tmp_path / f"x{'.zip' if make is make_zip else '.tgz'}", {name: "x"})
    with pytest.raises(RuntimeEnvSetupError, match="outside of the archive"):
        pack(archive, cache, keeps_name=False, rules=RULES)
    with pytest.raises(RuntimeEnvSetupError, match="outside of the archive"):
        unpack(archive.as_uri(), cache)
    assert not (tmp_path / "out").exists()


def test_an_archive_may_not_swell(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", b"\0" * 2_000_000)
    assert path.stat().st_size < 10_000
    rules = PackageRules(max_bytes=1_000_000)
    with pytest.raises(RuntimeEnvSetupError, match="zeros"):
        pack(path, cache, keeps_name=False, rules=rules)


def test_an_archive_at_an_address_loses_its_single_top_folder(
    tmp_path: Path, cache: Path
) -> None:
    path = make_zip(tmp_path / "with space.zip", {"top/a": "1", "top/b/c": "2"})
    assert names(unpack(path.as_uri(), cache)) == ["a", "b/c"]
    before = unpack(path.as_uri(), cache)
    make_zip(path, {"top/a": "longer than before"})
    assert unpack(path.as_uri(), cache) != before


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("s3://bucket/x.zip", "only file://"),
        ("file:///not/there.zip", "cannot be read"),
        ("gcs://_shoal_pkg_../../etc.zip", "not the address"),
        ("gcs://_shoal_pkg_abc.zip", "could not be unpacked"),
    ],
)
def test_addresses_that_lead_nowhere(cache: Path, uri: str, told: str) -> None:
    with pytest.raises(RuntimeEnvSetupError, match=told):
        unpack(uri, cache)


def test_broken_archives_and_missing_folders_are_named(
    tmp_path: Path, cache: Path
) -> None:
    broken = tmp_path / "broken.zip"
    broken.write_text("no zip")
    with pytest.raises(RuntimeEnvSetupError, match=r"broken\.zip.*BadZipFile"):
        pack(broken, cache, keeps_name=False, rules=RULES)
    with pytest.raises(RuntimeEnvSetupError, match=r"gone.*FileNotFoundError"):
        pack(tmp_path / "gone", cache, keeps_name=False, rules=RULES)


def test_an_interrupted_unpacking_leaves_nothing_half_done(
    source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = pack(tree(source, {"a": "1", "b": "2"}), cache, keeps_name=False, rules=RULES)
    real = packages._write_member
    calls = []

    def failing(*args: object) -> None:
        calls.append(args)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(packages, "_write_member", failing)
    with pytest.raises(RuntimeEnvSetupError, match="No space left"):
        unpack(uri, cache)
    assert list((cache / "unpacked").iterdir()) == []
    assert names(unpack(uri, cache)) == ["a", "b"]


def test_many_processes_unpack_once(source: Path, cache: Path) -> None:
    tree(source, {f"f{number}": str(number) for number in range(50)})
    uri = pack(source, cache, keeps_name=False, rules=RULES)
    context = multiprocessing.get_context("fork")
    children = [
        context.Process(target=lambda: os._exit(len(names(unpack(uri, cache))) != 50))
        for _ in range(4)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
    assert [child.exitcode for child in children] == [0] * 4
    assert len(list((cache / "unpacked").iterdir())) == 1


# ------------------------------------------------------------------- environments


def packed(environment: dict[str, object], cache: Path) -> dict[str, object]:
    return pack_environment(
        environment, cache, rules=RULES, pickle_function=pickle.dumps
    )


def test_a_packed_environment_is_plain_data(
    tmp_path: Path, source: Path, cache: Path
) -> None:
    wheel = make_zip(tmp_path / "x.whl", {"x.py": ""})
    tree(source, {"a.py": "", "skip.csv": "", "mod/__init__.py": ""})
    result = packed(
        {
            "working_dir": str(source),
            "py_modules": [str(source / "mod"), wheel.as_uri()],
            "excludes": ["*.csv"],
            "env_vars": {"A": "1"},
            "worker_process_setup_hook": os.getpid,
            "config": None,
        },
        cache,
    )
    assert json.loads(json.dumps(result)) == result
    assert sorted(result) == [
        "env_vars",
        "py_modules",
        "worker_process_setup_hook",
        "working_dir",
    ]
    prepared = prepare(result, cache, {})
    assert prepared.cwd is not None
    assert names(Path(prepared.cwd)) == ["a.py", "mod/__init__.py"]


def test_packing_what_is_packed_changes_nothing(source: Path, cache: Path) -> None:
    once = packed({"working_dir": str(source), "env_vars": {"A": "1"}}, cache)
    assert packed(once, cache) == once


def test_prepare_says_what_to_apply(source: Path, cache: Path) -> None:
    tree(source, {"mod/__init__.py": ""})
    environment = packed(
        {
            "working_dir": str(source),
            "py_modules": [str(source / "mod")],
            "env_vars": {"P": "x:${PATH}", "PYTHONPATH": "/one::/two"},
            "worker_process_setup_hook": "package.setup",
        },
        cache,
    )
    prepared = prepare(environment, cache, {"PATH": "/bin"})
    assert prepared.env_vars == {"P": "x:/bin", "PYTHONPATH": "/one::/two"}
    assert prepared.cwd == prepared.sys_path_front[0]
    assert names(Path(prepared.sys_path_front[1])) == ["mod/__init__.py"]
    assert prepared.sys_path_front[2:] == ["/one", "/two"]
    assert prepared.setup_hook == "package.setup"
    assert prepared.key != ""
    assert prepare({}, cache) == PreparedEnv()


def test_apply_in_a_process_of_its_own(source: Path, cache: Path) -> None:
    """In a child, because it changes the process for good."""
    tree(source, {"mine.py": "VALUE = 'from the package'"})
    environment = packed(
        {"working_dir": str(source), "env_vars": {"A": "${HOME}!", "TZ": "UTC-3"}},
        cache,
    )
    program = (
        "import json, os, sys, time\n"
        "from pathlib import Path\n"
        "from shoal._core.io.runtime_env import apply, prepare\n"
        f"apply(prepare({environment!r}, Path({str(cache)!r})))\n"
        "import mine\n"
        "print(json.dumps([os.getcwd(), sys.path[0], os.environ['A'], mine.VALUE,"
        " time.timezone]))\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": os.pathsep.join(sys.path), "HOME": "/h"},
        capture_output=True,
        text=True,
        check=True,
    )
    cwd, first, variable, value, timezone = json.loads(answer.stdout)
    assert cwd == first == prepare(environment, cache).cwd
    assert (variable, value, timezone) == ("/h!", "from the package", -3 * 3600)


def test_nothing_to_apply_changes_nothing() -> None:
    before = (os.getcwd(), list(sys.path), dict(os.environ))
    apply(PreparedEnv())
    assert (os.getcwd(), list(sys.path), dict(os.environ)) == before


def test_setup_hooks_by_value_and_by_name(cache: Path) -> None:
    by_value = packed({"worker_process_setup_hook": os.getpid}, cache)
    hook = by_value["worker_process_setup_hook"]
    assert isinstance(hook, str)
    assert load_setup_hook(hook)() == os.getpid()
    assert load_setup_hook("os.getpid") is os.getpid


@pytest.mark.parametrize(
    ("hook", "told"),
    [
        ("no_such_module.f", "ModuleNotFoundError"),
        ("os.no_such_function", "AttributeError"),
        ("pickle:AAAA", "could not be loaded"),
        ("os.sep", "cannot be called"),
    ],
)
def test_hooks_that_cannot_be_loaded_say_why(hook: str, told: str) -> None:
    with pytest.raises(RuntimeEnvSetupError, match=told):
        load_setup_hook(hook)


def test_all_in_one_step(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("STEPS", "0")
    tree(
        source, {"setup_steps.py": "import os\ndef run():\n os.environ['STEPS'] += '1'"}
    )
    environment = packed(
        {
            "working_dir": str(source),
            "worker_process_setup_hook": "setup_steps.run",
        },
        tmp_path / CACHE_FOLDER,
    )
    apply_environment(environment, str(tmp_path))
    assert os.environ["STEPS"] == "01"
    assert names(Path.cwd()) == ["setup_steps.py"]
    apply_environment({}, "/not/there")
    apply_environment({"env_vars": {"STEPS": "2"}}, str(tmp_path))
    assert os.environ["STEPS"] == "2"


def test_a_hook_that_fails_shows_its_traceback(tmp_path: Path) -> None:
    environment = {"worker_process_setup_hook": "os.chdir"}
    with pytest.raises(RuntimeEnvSetupError, match=r"Traceback[\s\S]*TypeError: chdir"):
        apply_environment(environment, str(tmp_path))
