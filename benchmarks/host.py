"""Facts about the machine and the checkout, without which no figure means anything."""

import os
import platform
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def facts() -> dict[str, object]:
    """What to record beside the figures of a run."""
    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--", "src")),
        "cpu": _first_value("/proc/cpuinfo", "model name"),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_kib": int(_first_value("/proc/meminfo", "MemTotal").split()[0]),
        "kernel": platform.release(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def noise() -> dict[str, float]:
    """How busy the machine is just now, to be told apart from our own doing.

    Returns:
        The one-minute load, and the seconds of CPU that the host of a virtual machine
        has given to others since boot (compare two of them).
    """
    ticks = Path("/proc/stat").read_text().splitlines()[0].split()
    return {
        "load_1min": os.getloadavg()[0],
        "steal_s": int(ticks[8]) / os.sysconf("SC_CLK_TCK"),
    }


def _git(*arguments: str) -> str:
    """Output of a git command in the checkout, empty outside of one."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _first_value(path: str, key: str) -> str:
    """The value of the first `key : value` line of a file of the kernel's."""
    for line in Path(path).read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return "0"
