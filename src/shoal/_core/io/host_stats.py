"""What this machine has: CPUs, memory, GPUs, name and address.

Theory.  What counts is what this process may use, not what is built in: CPUs by
affinity and by the quota of its control group, memory by the limit of that group
and of every group above it.  All of it stands in small files below /proc and /sys,
read here directly: importing a library for it would cost more than the start of the
node daemon can spare (reading takes about a millisecond).

Invariants: never more than the machine has, never fewer than one CPU; a file that is
missing or unreadable means "no limit from here", because containers hide many.

What it does not do: no sampling over time, no GPUs of other makers than NVIDIA, and
no library of a GPU is loaded (that takes seconds and memory on the device).
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = [
    "Gpu",
    "HostFacts",
    "Memory",
    "accelerator_type",
    "count_cpus",
    "detect_host",
    "find_gpus",
    "find_ip",
    "read_memory",
    "visible_gpus",
]

_NVIDIA_SMI_TIMEOUT_S: Final = 10.0
_ROOT: Final = Path("/")


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory that this process and its children may use, in bytes.

    Attributes:
        total: the machine's, or the limit of the control group if that is less.
        available: what can be taken now without swapping.
    """

    total: int
    available: int


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU.

    Attributes:
        device: how CUDA_VISIBLE_DEVICES names it: an index or a UUID.
        model: such as "NVIDIA H200"; empty when unknown.
        uuid: such as "GPU-8f2…"; empty when unknown.
    """

    device: str
    model: str = ""
    uuid: str = ""


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What `detect_host` found.

    Attributes:
        cpus: how many may be used at once; at least 1.
        memory: what this process may use.
        gpus: those that CUDA_VISIBLE_DEVICES lets through.
        accelerator: short name of the GPUs' model, such as "H200"; None without.
        hostname: the machine's name.
        ip: the address it would be reached by; 127.0.0.1 without a network.
    """

    cpus: int
    memory: Memory
    gpus: tuple[Gpu, ...]
    accelerator: str | None
    hostname: str
    ip: str


def detect_host(env: Mapping[str, str]) -> HostFacts:
    """Look at this machine; about a millisecond, no process started.

    Only where the NVIDIA driver shows no files and yet `nvidia-smi` is there, as in
    WSL, that program is asked, which can take a second.

    Args:
        env: the environment variables; CUDA_VISIBLE_DEVICES is read.
    """
    gpus = visible_gpus(find_gpus(), env.get("CUDA_VISIBLE_DEVICES"))
    return HostFacts(
        cpus=count_cpus(),
        memory=read_memory(),
        gpus=tuple(gpus),
        accelerator=accelerator_type(gpus[0].model) if gpus else None,
        hostname=socket.gethostname(),
        ip=find_ip(),
    )


# --------------------------------------------------------------------------- CPUs


def count_cpus(root: Path = _ROOT, affinity: int | None = None) -> int:
    """CPUs that this process may use at once: affinity and quota, at least 1.

    A quota of two and a half CPUs counts as two: a third worker would only make all
    of them wait for the next period.

    Args:
        root: where proc and sys are.
        affinity: how many CPUs the process may run on; None asks the kernel.
    """
    count = len(os.sched_getaffinity(0)) if affinity is None else affinity
    for folder in _groups(root, "cpu"):
        quota = _cpu_quota(folder)
        if quota is not None:
            count = min(count, int(quota))
    return max(1, count)


def _cpu_quota(folder: Path) -> float | None:
    both = _read(folder / "cpu.max").split()  # version 2: quota and period
    if not both:
        both = [
            _read(folder / "cpu.cfs_quota_us").strip(),
            _read(folder / "cpu.cfs_period_us").strip(),
        ]
    if len(both) != 2 or not all(part.isdigit() for part in both):
        return None  # "max", "-1" and missing files all mean no limit
    period = int(both[1])
    return int(both[0]) / period if period else None


# ------------------------------------------------------------------------- memory


def read_memory(root: Path = _ROOT) -> Memory:
    """Memory by /proc/meminfo and by the control groups.

    Pages of files that a group has read and no longer uses count as available: the
    kernel takes them back when somebody needs them.

    Raises:
        OSError: there is no /proc/meminfo, so this is not Linux.
    """
    facts = _numbers((root / "proc/meminfo").read_text())
    total = facts["MemTotal"] * 1024
    available = facts.get("MemAvailable", facts.get("MemFree", 0)) * 1024
    for folder in _groups(root, "memory"):
        limit_file, usage_file, idle = "memory.max", "memory.current", "inactive_file"
        if not (folder / limit_file).exists():
            limit_file, usage_file = "memory.limit_in_bytes", "memory.usage_in_bytes"
            idle = "total_inactive_file"
        limit = _read(folder / limit_file).strip()
        # Without a limit, version 1 shows a number near 2**63.
        if not limit.isdigit() or int(limit) >= total:
            continue
        total = int(limit)
        used = int(_read(folder / usage_file).strip() or 0)
        idle_bytes = _numbers(_read(folder / "memory.stat")).get(idle, 0)
        available = min(available, max(0, total - max(0, used - idle_bytes)))
    return Memory(total, min(available, total))


def _numbers(text: str) -> dict[str, int]:
    """Lines of the form `name 12` or `name: 12 kB`, as a dict."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        words = line.replace(":", " ").split()
        if len(words) >= 2 and words[1].isdigit():
            found[words[0]] = int(words[1])
    return found


# ----------------------------------------------------------------- control groups


def _groups(root: Path, controller: str) -> list[Path]:
    """Folders of this process's control group and of all above it, innermost first.

    Those of version 2 and, where the controller still lives there, of version 1.
    """
    folders: list[Path] = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        hierarchy, controllers, path = line.split(":", 2)
        if hierarchy == "0" and not controllers:
            mount = _mount_of(root, "cgroup2", None)
        elif controller in controllers.split(","):
            mount = _mount_of(root, "cgroup", controller)
        else:
            continue
        if mount is None:
            continue
        top, below = mount
        # In a container without a namespace of its own the path is the host's, and
        # what is mounted is only the part that begins at the container's group.
        relative = path.removeprefix(below) if path.startswith(below) else ""
        folder = top / relative.lstrip("/")
        while folder != top and top in folder.parents:
            folders.append(folder)
            folder = folder.parent
        folders.append(top)
    return folders


def _mount_of(root: Path, kind: str, controller: str | None) -> tuple[Path, str] | None:
    """(mount point, path of its root in the hierarchy) of a control-group tree."""
    for line in _read(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, about = before.split(), after.split()
        if len(fields) < 5 or len(about) < 3 or about[0] != kind:
            continue
        if controller is None or controller in about[2].split(","):
            return root / fields[4].lstrip("/"), fields[3].rstrip("/")
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        # Containers hide many of these files; none of them has to be there.
        return ""


# --------------------------------------------------------------------------- GPUs


def find_gpus(root: Path = _ROOT) -> list[Gpu]:
    """All NVIDIA GPUs of the machine that this process can open, by PCI address."""
    folder = root / "proc/driver/nvidia/gpus"
    if not folder.is_dir():
        return _ask_nvidia_smi() if root == _ROOT else []
    found: list[Gpu] = []
    for path in sorted(folder.iterdir()):
        facts = {}
        for line in _read(path / "information").splitlines():
            name, _, value = line.partition(":")
            facts[name.strip()] = value.strip()
        minor = facts.get("Device Minor")
        # A container may see the driver's files of a GPU that it was not given.
        if minor is not None and not (root / f"dev/nvidia{minor}").exists():
            continue
        uuid = facts.get("GPU UUID", "")
        found.append(Gpu(str(len(found)), facts.get("Model", ""), uuid))
    return found


def _ask_nvidia_smi() -> list[Gpu]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        answer = subprocess.run(
            [program, "-L"],
            capture_output=True,
            text=True,
            timeout=_NVIDIA_SMI_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        # The program is there and the driver is not, or hangs: no GPU to use.
        return []
    return parse_nvidia_smi(answer.stdout)


def parse_nvidia_smi(text: str) -> list[Gpu]:
    """The GPUs that `nvidia-smi -L` lists: `GPU 0: NVIDIA H200 (UUID: GPU-…)`."""
    return [
        Gpu(match[1], match[2], match[3])
        for match in re.finditer(
            r"^GPU (\d+): (.*?) \(UUID: (GPU-[^)]+)\)", text, re.MULTILINE
        )
    ]


def visible_gpus(gpus: list[Gpu], setting: str | None) -> list[Gpu]:
    """Those that CUDA_VISIBLE_DEVICES lets through, in its order and by its names.

    As CUDA reads it: None is all, empty is none, entries are indices or beginnings of
    UUIDs, and the first entry that names no GPU ends the list.  Parts of a GPU (MIG)
    are taken as they stand.
    """
    if setting is None:
        return gpus
    chosen: list[Gpu] = []
    for entry in (part.strip() for part in setting.split(",")):
        if entry.startswith("MIG-"):
            chosen.append(Gpu(entry, gpus[0].model if gpus else ""))
            continue
        matches = [
            gpu
            for gpu in gpus
            if gpu.device == entry
            or (entry.startswith("GPU-") and gpu.uuid.startswith(entry))
        ]
        if len(matches) != 1:
            break
        chosen.append(Gpu(entry, matches[0].model, matches[0].uuid))
    return chosen


_MAKERS_AND_LINES: Final = frozenset({"NVIDIA", "Tesla", "GeForce", "Quadro"})


def accelerator_type(model: str) -> str | None:
    """Short name of a GPU model: "NVIDIA A100-SXM4-40GB" is "A100"; None if unknown.

    A line that has no number of its own keeps the next word: "GeForce RTX 3090" is
    "RTX-3090".
    """
    words = [word for word in model.split() if word not in _MAKERS_AND_LINES]
    if not words:
        return None
    first = words[0].partition("-")[0]
    if not any(letter.isdigit() for letter in first) and len(words) > 1:
        return f"{first}-{words[1]}"
    return first


# ------------------------------------------------------------------------ address


def find_ip() -> str:
    """The address by which other machines would reach this one.

    Connecting a datagram socket sends nothing; it only makes the kernel choose the
    address that it would send from.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # TEST-NET-1 (RFC 5737): routed like any far address, owned by nobody.
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        address: str = probe.getsockname()[0]
        return address
