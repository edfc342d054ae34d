"""Packages: the files of a folder as one zip, named by their contents.

Theory.  A worker needs the files of a runtime environment as they were when the
program started.  So a folder becomes one zip file named by the hash of its contents:
the same files are packed, kept and unpacked once, and a name never means two things.
It is not compressed: packing and unpacking on one machine would only get slower.

Invariants: a package under its name is complete, because it is written elsewhere and
linked; a folder of unpacked files as well, because it is renamed, and one process
unpacks at a time, by a file lock that ends with the process.  Nothing is unpacked
outside its folder.

What it does not do: it downloads nothing and deletes nothing; the cache goes with its
session.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import IO, Final
from urllib.parse import unquote, urlsplit

from shoal._core.policy.ignore_rules import IgnoreRules
from shoal.exceptions import RuntimeEnvSetupError

__all__ = ["PackageRules", "pack", "unpack"]

_PACKAGE_PREFIX: Final = "gcs://_shoal_pkg_"
_IGNORE_FILES: Final = (".gitignore", ".rayignore")
_TAR_ENDINGS: Final = (".tar.gz", ".tgz", ".tar.xz", ".tar")
_ZIP_ENDINGS: Final = (".zip", ".whl", ".jar")
_COPY_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class PackageRules:
    """What goes into a package.

    Attributes:
        max_bytes: of the files of one package together.
        use_gitignore: leave out what `.gitignore` files leave out; `.rayignore`
            files, in the same format, always count.
        default_excludes: patterns that are left out everywhere.
    """

    max_bytes: int = 512 << 20
    use_gitignore: bool = True
    default_excludes: tuple[str, ...] = (".git", ".venv", "venv", "__pycache__")

    @classmethod
    def from_env(cls, env: Mapping[str, str], max_bytes: int) -> PackageRules:
        """The rules by the environment variables that Ray has for them.

        `RUNTIME_ENV_IGNORE_GITIGNORE=1` and
        `OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES=a,b`, behind `SHOAL_` or `RAY_`.
        """

        def variable(name: str) -> str | None:
            return env.get(f"SHOAL_{name}", env.get(f"RAY_{name}"))

        excludes = variable("OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES")
        rules = cls(
            max_bytes=max_bytes,
            use_gitignore=variable("RUNTIME_ENV_IGNORE_GITIGNORE") != "1",
        )
        if excludes is None:
            return rules
        return cls(
            max_bytes=max_bytes,
            use_gitignore=rules.use_gitignore,
            default_excludes=tuple(part for part in excludes.split(",") if part),
        )


def pack(
    item: str | os.PathLike[str] | ModuleType,
    cache_dir: Path,
    *,
    keeps_name: bool,
    excludes: Sequence[str] = (),
    rules: PackageRules,
) -> str:
    """Pack a folder, file, archive or module; returns the address of the package.

    Args:
        item: what to pack; a text with "://" in it is an address already and stays.
        cache_dir: of the session; packages are kept in `cache_dir/packages`.
        keeps_name: a folder is packed with its own name on top, so that a module
            can be imported by it, and not only its contents.
        excludes: patterns, as in a `.gitignore` file, of what to leave out.
        rules: what else is left out, and how much a package may hold.

    Raises:
        RuntimeEnvSetupError: files that can't be read, or too many bytes of them.
    """
    if isinstance(item, ModuleType):
        item = _module_path(item)
    text = os.fspath(item)
    if "://" in text:
        return text
    path = Path(text).expanduser().resolve()
    try:
        if path.is_file() and path.name.endswith((*_ZIP_ENDINGS, *_TAR_ENDINGS)):
            with tempfile.TemporaryDirectory(prefix="shoal-archive-") as unpacked:
                _unpack_archive(path, Path(unpacked), rules.max_bytes)
                # An archive was put together on purpose: nothing more is left out.
                files = list(_walk(Path(unpacked), [], []))
                return _write_package(files, cache_dir, rules, path)
        if path.is_file():
            return _write_package([(path.name, path)], cache_dir, rules, path)
        names = [
            name for name in _IGNORE_FILES if rules.use_gitignore or name[1] == "r"
        ]
        patterns = [*rules.default_excludes, *excludes]
        top = f"{path.name}/" if keeps_name else ""
        files = [(top + name, file) for name, file in _walk(path, patterns, names)]
        return _write_package(files, cache_dir, rules, path)
    except (OSError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise RuntimeEnvSetupError(
            f"{path} could not be packed: {type(error).__name__}: {error}"
        ) from error


def _module_path(module: ModuleType) -> str:
    paths = list(getattr(module, "__path__", ()))
    if len(paths) > 1:
        raise RuntimeEnvSetupError(
            f"module {module.__name__} is spread over {len(paths)} folders; give the "
            "folder to pack instead"
        )
    path = paths[0] if paths else getattr(module, "__file__", None)
    if path is None:
        raise RuntimeEnvSetupError(
            f"module {module.__name__} has no files, so it cannot be packed"
        )
    return str(path)


def _walk(
    top: Path, patterns: Sequence[str], ignore_files: Sequence[str]
) -> Iterator[tuple[str, Path]]:
    """(name with slashes, path) of the files below `top` that are not left out.

    Links are followed, except into a folder that is being walked.
    """
    everywhere = IgnoreRules(patterns)

    def walk(
        folder: Path,
        name: str,
        rules: list[tuple[int, list[IgnoreRules]]],
        above: frozenset[str],
    ) -> Iterator[tuple[str, Path]]:
        real = os.path.realpath(folder)
        if real in above:
            return
        here = [
            IgnoreRules((folder / file).read_text("utf-8", "replace").splitlines())
            for file in ignore_files
            if (folder / file).is_file()
        ]
        rules = [*rules, (len(name), here)]
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            path, is_folder = name + entry.name, entry.is_dir()
            if everywhere.decide(path, is_folder=is_folder) or _is_left_out(
                path, is_folder, rules
            ):
                continue
            if is_folder:
                yield from walk(Path(entry), path + "/", rules, above | {real})
            elif entry.is_file():
                yield path, Path(entry)

    yield from walk(top, "", [], frozenset())


def _is_left_out(
    path: str, is_folder: bool, rules: list[tuple[int, list[IgnoreRules]]]
) -> bool:
    """Ask the ignore files of each kind, the closest first."""
    kinds_decided: set[int] = set()
    for prefix_length, files in reversed(rules):
        for kind, file in enumerate(files):
            decision = file.decide(path[prefix_length:], is_folder=is_folder)
            if decision is None or kind in kinds_decided:
                continue
            if decision:
                return True
            kinds_decided.add(kind)
    return False


def _write_package(
    files: list[tuple[str, Path]], cache_dir: Path, rules: PackageRules, what: Path
) -> str:
    """Write the files as one package; returns its address."""
    sizes = [(path.stat().st_size, name) for name, path in files]
    _check_size(sizes, rules.max_bytes, what)
    folder = cache_dir / "packages"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    digest = hashlib.blake2b(digest_size=16)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".part-") as part:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
            for name, path in files:
                executable = bool(path.stat().st_mode & stat.S_IXUSR)
                digest.update(f"{name}\0{executable:d}\0".encode("utf-8", "replace"))
                size = _add_file(archive, name, path, executable, digest.update)
                # Behind the content, since a file may grow while it is read.
                digest.update(f"\0{size}\0".encode())
        part.flush()
        target = folder / f"{digest.hexdigest()}.zip"
        if not target.exists():
            # A link, because the temporary file removes its own name when closed.
            _link_once(Path(part.name), target)
    return f"{_PACKAGE_PREFIX}{digest.hexdigest()}.zip"


def _link_once(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileExistsError:
        return  # another driver packed the same files in the same moment


def _add_file(
    archive: zipfile.ZipFile,
    name: str,
    path: Path,
    executable: bool,
    update: Callable[[bytes], object],
) -> int:
    entry = zipfile.ZipInfo(name)  # dated 1980, so that equal files pack equally
    entry.external_attr = (0o100755 if executable else 0o100644) << 16
    entry.file_size = path.stat().st_size
    size = 0
    with path.open("rb") as source, archive.open(entry, "w") as target:
        while data := source.read(_COPY_BYTES):
            update(data)
            target.write(data)
            size += len(data)
    return size


def _check_size(sizes: list[tuple[int, str]], max_bytes: int, what: Path) -> None:
    total = sum(size for size, _ in sizes)
    if total <= max_bytes:
        return
    largest = ", ".join(
        f"{name} ({size / 2**20:.1f} MiB)" for size, name in sorted(sizes)[:-4:-1]
    )
    raise RuntimeEnvSetupError(
        f"{what} has {total / 2**20:.1f} MiB in {len(sizes)} files, and a package may "
        f"have {max_bytes / 2**20:.1f} MiB. The largest are {largest}. Leave files out "
        "with runtime_env's 'excludes' or a .gitignore file."
    )


def unpack(uri: str, cache_dir: Path) -> Path:
    """The folder with the files of a package, unpacked now if nobody has yet.

    Args:
        uri: what `pack` returned, or the file:// address of an archive.
        cache_dir: of the session; files go to `cache_dir/unpacked`.

    Raises:
        RuntimeEnvSetupError: a package that is missing or broken, a full disk, or a
            kind of address that can't be fetched.
    """
    archive, name = _archive_of(uri, cache_dir)
    folder = cache_dir / "unpacked" / name
    if folder.is_dir():
        return folder
    try:
        with _locked(cache_dir / "locks" / f"{name}.lock"):
            if not folder.is_dir():
                _unpack_whole(archive, folder, is_ours=uri.startswith(_PACKAGE_PREFIX))
    except (OSError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise RuntimeEnvSetupError(
            f"package {uri} could not be unpacked: {type(error).__name__}: {error}"
        ) from error
    return folder


def _archive_of(uri: str, cache_dir: Path) -> tuple[Path, str]:
    """(archive file, name of its folder) of an address."""
    if uri.startswith(_PACKAGE_PREFIX):
        name = uri[len(_PACKAGE_PREFIX) :].removesuffix(".zip")
        if not name.isalnum():
            raise RuntimeEnvSetupError(f"{uri!r} is not the address of a package")
        return cache_dir / "packages" / f"{name}.zip", name
    parts = urlsplit(uri)
    if parts.scheme != "file":
        raise RuntimeEnvSetupError(
            f"{uri!r} cannot be fetched: only file:// addresses can. Download it and "
            "give its path to shoal.init(runtime_env=...)."
        )
    path = Path(unquote(parts.path))
    try:
        facts = path.stat()
    except OSError as error:
        raise RuntimeEnvSetupError(f"{uri!r} cannot be read: {error}") from error
    version = f"{path}\0{facts.st_mtime_ns}\0{facts.st_size}"
    return path, hashlib.blake2b(version.encode(), digest_size=16).hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _unpack_whole(archive: Path, folder: Path, *, is_ours: bool) -> None:
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".part-") as part:
        target = Path(part) / "files"
        target.mkdir()
        _unpack_archive(archive, target, None)
        inside = list(target.iterdir())
        # Archives at an address have, by custom, one folder that holds all the rest.
        if not is_ours and len(inside) == 1 and inside[0].is_dir():
            target = inside[0]
        target.rename(folder)


def _unpack_archive(archive: Path, target: Path, max_bytes: int | None) -> None:
    if archive.name.endswith(_TAR_ENDINGS):
        with tarfile.open(archive) as tar:
            members = [member for member in tar if member.isfile()]
            _check_members([(m.size, m.name) for m in members], max_bytes, archive)
            for member in members:
                source = tar.extractfile(member)
                if source is not None:
                    with source:
                        _write_member(target, member.name, member.mode, source)
        return
    with zipfile.ZipFile(archive) as packed:
        infos = [info for info in packed.infolist() if not info.is_dir()]
        _check_members([(i.file_size, i.filename) for i in infos], max_bytes, archive)
        for info in infos:
            with packed.open(info) as source:
                _write_member(target, info.filename, info.external_attr >> 16, source)


def _check_members(
    sizes: list[tuple[int, str]], max_bytes: int | None, archive: Path
) -> None:
    for _, name in sizes:
        if name.startswith("/") or ".." in name.split("/"):
            raise RuntimeEnvSetupError(
                f"{archive} has a file {name!r}, which is outside of the archive"
            )
    if max_bytes is not None:
        _check_size(sizes, max_bytes, archive)


def _write_member(target: Path, name: str, mode: int, source: IO[bytes]) -> None:
    path = target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        shutil.copyfileobj(source, file, _COPY_BYTES)
    if mode & stat.S_IXUSR:
        path.chmod(0o755)
