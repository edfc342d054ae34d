"""Limits of the machine, read from made-up /proc and /sys trees."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from shoal._core.io import host_stats
from shoal._core.io.host_stats import (
    Gpu,
    Memory,
    accelerator_type,
    count_cpus,
    detect_host,
    find_gpus,
    find_ip,
    parse_nvidia_smi,
    read_memory,
    visible_gpus,
)

GIB = 1 << 30
V2_MOUNT = "30 23 0:26 {root} /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw\n"
V1_MOUNT = (
    "31 30 0:27 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "32 30 0:28 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def meminfo(total_gib: int, available_gib: int) -> str:
    return (
        f"MemTotal:       {total_gib << 20} kB\nMemFree:  1 kB\n"
        f"MemAvailable:   {available_gib << 20} kB\nHugePages_Total: 0\n"
    )


def v2(group: str, files: dict[str, str], mount_root: str = "/") -> dict[str, str]:
    return {
        "proc/meminfo": meminfo(64, 60),
        "proc/self/cgroup": f"0::{group}\n",
        "proc/self/mountinfo": V2_MOUNT.format(root=mount_root),
        **{f"sys/fs/cgroup/{name}": text for name, text in files.items()},
    }


def v1(group: str, files: dict[str, str], mount_root: str = "/") -> dict[str, str]:
    return {
        "proc/meminfo": meminfo(64, 60),
        "proc/self/cgroup": f"5:cpu,cpuacct:{group}\n4:memory:{group}\n1:pids:/x\n",
        "proc/self/mountinfo": V1_MOUNT.format(root=mount_root),
        **{f"sys/fs/cgroup/{name}": text for name, text in files.items()},
    }


NO_LIMIT = {"proc/meminfo": meminfo(64, 60)}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (NO_LIMIT, 16),
        (v2("/", {"cpu.max": "max 100000\n"}), 16),
        (v2("/", {"cpu.max": "250000 100000\n"}), 2),
        (v2("/", {"cpu.max": "50000 100000\n"}), 1),
        (v2("/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000"}), 3),
        (v2("/host/c1", {"cpu.max": "400000 100000"}, "/host/c1"), 4),
        (v2("/elsewhere", {"cpu.max": "400000 100000"}, "/host/c1"), 4),
        (v2("/", {"cpu.max": "garbage"}), 16),
        (
            v1(
                "/job",
                {
                    "cpu,cpuacct/job/cpu.cfs_quota_us": "200000\n",
                    "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
                },
            ),
            2,
        ),
        (
            v1(
                "/job",
                {
                    "cpu,cpuacct/job/cpu.cfs_quota_us": "-1\n",
                    "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
                },
            ),
            16,
        ),
    ],
)
def test_cpus_are_limited_by_the_quota_of_any_group(
    tmp_path: Path, files: dict[str, str], expected: int
) -> None:
    assert count_cpus(tree(tmp_path, files), affinity=16) == expected


def test_affinity_counts_when_it_is_less(tmp_path: Path) -> None:
    files = v2("/", {"cpu.max": "800000 100000\n"})
    assert count_cpus(tree(tmp_path, files), affinity=3) == 3
    assert count_cpus(tmp_path) <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (NO_LIMIT, Memory(64 * GIB, 60 * GIB)),
        (v2("/", {"memory.max": "max\n"}), Memory(64 * GIB, 60 * GIB)),
        (
            v2(
                "/",
                {
                    "memory.max": str(8 * GIB),
                    "memory.current": str(5 * GIB),
                    "memory.stat": f"anon 7\ninactive_file {2 * GIB}\n",
                },
            ),
            Memory(8 * GIB, 5 * GIB),
        ),
        (
            v2(
                "/a/b",
                {
                    "a/b/memory.max": str(8 * GIB),
                    "a/b/memory.current": str(1 * GIB),
                    "a/memory.max": str(4 * GIB),
                    "a/memory.current": str(3 * GIB),
                },
            ),
            Memory(4 * GIB, 1 * GIB),
        ),
        (
            v1(
                "/job",
                {
                    "memory/job/memory.limit_in_bytes": str(8 * GIB),
                    "memory/job/memory.usage_in_bytes": str(6 * GIB),
                    "memory/job/memory.stat": f"total_inactive_file {1 * GIB}\n",
                    "memory/memory.limit_in_bytes": "9223372036854771712\n",
                },
            ),
            Memory(8 * GIB, 3 * GIB),
        ),
        (
            v2("/", {"memory.max": str(GIB), "memory.current": str(3 * GIB)}),
            Memory(GIB, 0),
        ),
    ],
)
def test_memory_is_limited_by_the_innermost_and_all_outer_groups(
    tmp_path: Path, files: dict[str, str], expected: Memory
) -> None:
    assert read_memory(tree(tmp_path, files)) == expected


def test_available_memory_is_never_more_than_the_total(tmp_path: Path) -> None:
    files = v2("/", {"memory.max": str(GIB), "memory.current": "0"})
    assert read_memory(tree(tmp_path, files)) == Memory(GIB, GIB)


def gpu_tree(root: Path, models: list[str], *, devices: int) -> Path:
    for number, model in enumerate(models):
        tree(
            root,
            {
                f"proc/driver/nvidia/gpus/0000:{number:02d}:00.0/information": (
                    f"Model: \t\t {model}\nIRQ:   \t\t 1{number}\n"
                    f"GPU UUID: \t GPU-aa{number}\nDevice Minor: \t {number}\n"
                )
            },
        )
    tree(root, {f"dev/nvidia{number}": "" for number in range(devices)})
    return root


def test_gpus_are_read_from_the_driver(tmp_path: Path) -> None:
    root = gpu_tree(tmp_path, ["NVIDIA H200", "NVIDIA H200"], devices=2)
    assert find_gpus(root) == [
        Gpu("0", "NVIDIA H200", "GPU-aa0"),
        Gpu("1", "NVIDIA H200", "GPU-aa1"),
    ]


def test_gpus_that_cannot_be_opened_do_not_count(tmp_path: Path) -> None:
    root = gpu_tree(tmp_path, ["A", "B", "C"], devices=1)
    assert [gpu.model for gpu in find_gpus(root)] == ["A"]


def test_no_driver_means_no_gpu(tmp_path: Path) -> None:
    assert find_gpus(tmp_path) == []


def test_nvidia_smi_is_understood() -> None:
    text = (
        "GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-1)\n"
        "  MIG 3g.20gb Device 0: (UUID: MIG-2)\n"
        "GPU 1: Tesla T4 (UUID: GPU-3)\n"
    )
    assert parse_nvidia_smi(text) == [
        Gpu("0", "NVIDIA A100-SXM4-40GB", "GPU-1"),
        Gpu("1", "Tesla T4", "GPU-3"),
    ]
    assert parse_nvidia_smi("No devices were found\n") == []


@pytest.mark.parametrize(
    ("script", "expected"),
    [("echo 'GPU 0: X (UUID: GPU-1)'", [Gpu("0", "X", "GPU-1")]), ("exit 9", [])],
)
def test_nvidia_smi_is_asked_where_the_driver_shows_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    expected: list[Gpu],
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr(host_stats, "_ROOT", tmp_path)
    assert find_gpus(tmp_path) == expected
    program.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_gpus(tmp_path) == []


GPUS = [Gpu(str(n), "NVIDIA H200", f"GPU-aa{n}") for n in range(4)]


@pytest.mark.parametrize(
    ("setting", "devices"),
    [
        (None, ["0", "1", "2", "3"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("2,0", ["2", "0"]),
        (" 1 , 3 ", ["1", "3"]),
        ("0,7,1", ["0"]),
        ("GPU-aa2", ["GPU-aa2"]),
        ("GPU-aa", []),
        ("GPU-zz,1", []),
        ("MIG-77", ["MIG-77"]),
    ],
)
def test_cuda_visible_devices(setting: str | None, devices: list[str]) -> None:
    assert [gpu.device for gpu in visible_gpus(GPUS, setting)] == devices


def test_visible_gpus_keep_their_model() -> None:
    (gpu,) = visible_gpus(GPUS, "GPU-aa2")
    assert (gpu.model, gpu.uuid) == ("NVIDIA H200", "GPU-aa2")


@pytest.mark.parametrize(
    ("model", "short"),
    [
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("Tesla T4", "T4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA GeForce RTX 3090", "RTX-3090"),
        ("Quadro RTX 6000", "RTX-6000"),
        ("NVIDIA GB200", "GB200"),
        ("Graphics", "Graphics"),
        ("", None),
        ("NVIDIA", None),
    ],
)
def test_short_names_of_models(model: str, short: str | None) -> None:
    assert accelerator_type(model) == short


def test_without_a_network_the_address_is_loopback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Unreachable(socket.socket):
        def connect(self, address: object) -> None:
            raise OSError("network is unreachable")

    monkeypatch.setattr(socket, "socket", Unreachable)
    assert find_ip() == "127.0.0.1"


def test_this_machine() -> None:
    facts = detect_host({"CUDA_VISIBLE_DEVICES": ""})
    assert 1 <= facts.cpus <= (os.cpu_count() or 1)
    assert 0 < facts.memory.available <= facts.memory.total
    assert facts.gpus == ()
    assert facts.accelerator is None
    assert facts.hostname == socket.gethostname()
    socket.inet_aton(facts.ip)
