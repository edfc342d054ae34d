"""What the node of a new session has: as the user says, else as found on the machine.

Sizes are bytes, CPUs and GPUs are counts.  What the user leaves open comes from
``io.host_stats``, which looks at cgroups too: in a container, the machine is what the
container may use.

Does not: check what the user says (the API has), start anything.
"""

from __future__ import annotations

import os
from typing import Any

from shoal._core.io.host_stats import detect_host

#: Of the memory that is free when the session starts.
OBJECT_STORE_FRACTION = 0.3
OBJECT_STORE_MAX_BYTES = 200 * 10**9
PAGE_BYTES = 4096


def node_settings(
    *,
    num_cpus: float | None,
    num_gpus: float | None,
    memory_bytes: int | None,
    object_store_bytes: int | None,
    resources: dict[str, float],
    labels: dict[str, str],
    name: str | None,
) -> dict[str, Any]:
    """What the daemon of a new session is told of its node; None: find it out."""
    host = detect_host(os.environ)
    arena = object_store_bytes or min(
        int(host.memory.available * OBJECT_STORE_FRACTION), OBJECT_STORE_MAX_BYTES
    )
    arena -= arena % PAGE_BYTES
    cpus = host.cpus if num_cpus is None else num_cpus
    total: dict[str, float] = {
        "CPU": cpus,
        "GPU": len(host.gpus) if num_gpus is None else num_gpus,
        "memory": memory_bytes or max(0, host.memory.available - arena),
        "object_store_memory": arena,
        "node:127.0.0.1": 1.0,
        "node:__internal_head__": 1.0,
        **resources,
    }
    if host.accelerator:
        total[f"accelerator_type:{host.accelerator}"] = 1.0
    return {
        "resources": {name: amount for name, amount in total.items() if amount},
        "arena_bytes": arena,
        "prestart": max(1, min(int(cpus), host.cpus)),
        "node_name": name or "127.0.0.1",
        "labels": labels,
    }
