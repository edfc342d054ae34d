"""What there is and what goes on: nodes, resources, actors, timeline, metrics, errors.

None of these starts a session: without one there is no state to be asked for.

Source of names and forms: Ray's API reference (``ray.nodes`` and its neighbours) and,
for the deprecated ones, its releases 0.x.
"""

from __future__ import annotations

import json
import warnings
from typing import Any, Literal, overload

from shoal._api.runtime_context import get_runtime_context
from shoal._api.session import Session, running_session
from shoal._core.process.context import worker_state
from shoal.exceptions import RaySystemError

_MICROSECONDS = 1e6


def _session() -> Session:
    session = running_session()
    if session is None:
        raise RaySystemError(
            RuntimeError("no session runs, so it has no state: call init() first.")
        )
    return session


# ------------------------------------------------------------------ nodes, resources


def nodes() -> list[dict[str, Any]]:
    """One dict per node, with Ray's keys: ``NodeID``, ``Alive``, ``Resources``, …

    Raises:
        RaySystemError: no session runs.

    Blocks: for one round trip to the node daemon.
    """
    rows: list[dict[str, Any]] = _session().native.query("nodes")
    for row in rows:
        row["Labels"] = {"ray.io/node-id": row["NodeID"], **row["Labels"]}
    return rows


def cluster_resources() -> dict[str, float]:
    """How much of each resource there is; memory in bytes.

    Raises:
        RaySystemError: no session runs.

    Blocks: for one round trip to the node daemon.
    """
    total: dict[str, float] = _session().native.query("total")
    return total


def available_resources() -> dict[str, float]:
    """How much of each resource nobody holds now; what is used up is left out.

    Raises:
        RaySystemError: no session runs.

    Blocks: for one round trip to the node daemon.
    """
    available: dict[str, float] = _session().native.query("available")
    return available


def get_gpu_ids() -> list[int] | list[str]:
    """Ids of the GPUs that the running task or actor may use; none in a driver.

    Whole numbers, or text where ``CUDA_VISIBLE_DEVICES`` named them so.
    """
    return list(worker_state.gpu_ids)


# --------------------------------------------------------------------------- actors


@overload
def list_named_actors(all_namespaces: Literal[False] = False) -> list[str]: ...
@overload
def list_named_actors(all_namespaces: Literal[True]) -> list[dict[str, str]]: ...
@overload
def list_named_actors(all_namespaces: bool) -> list[str] | list[dict[str, str]]: ...
def list_named_actors(
    all_namespaces: bool = False,
) -> list[str] | list[dict[str, str]]:
    """Names of the living actors that have one.

    Args:
        all_namespaces: those of every namespace, each as a dict of ``name`` and
            ``namespace``; by default the names in the caller's own.

    Raises:
        RaySystemError: no session runs.
    """
    native = _session().native
    wanted = None if all_namespaces else native.namespace
    found = native.query("named_actors", wanted)
    if all_namespaces:
        return [{"name": name, "namespace": namespace} for namespace, name in found]
    return [name for _namespace, name in found]


# ------------------------------------------------------------------------- timeline


@overload
def timeline(filename: None = None) -> list[dict[str, Any]]: ...
@overload
def timeline(filename: str) -> None: ...
def timeline(filename: str | None = None) -> list[dict[str, Any]] | None:
    """When each finished task and actor call ran, and where.

    The form is Chrome's trace format, as complete events (``"ph": "X"``): times in
    microseconds, one row per worker.  https://ui.perfetto.dev and chrome://tracing
    open the file.

    Args:
        filename: where to write it as JSON; by default it is returned.

    Returns:
        The events; None if they went to a file.

    Raises:
        RaySystemError: no session runs.

    Source: "Trace Event Format", Google, 2016.
    """
    events = [_trace_event(*row) for row in _session().native.query("events")]
    if filename is None:
        return events
    with open(filename, "w") as file:
        json.dump(events, file)
    return None


def _trace_event(
    worker_id: str,
    pid: int,
    name: str,
    task_id: bytes,
    started_s: float,
    duration_s: float,
    details: dict[str, str],
) -> dict[str, Any]:
    return {
        "cat": f"task::{name}",
        "name": name,
        # As in Ray, a row of the picture is a worker, and rows are grouped by node.
        "pid": "127.0.0.1",
        "tid": f"worker:{worker_id}",
        "ts": started_s * _MICROSECONDS,
        "dur": duration_s * _MICROSECONDS,
        "ph": "X",
        "cname": "generic_work",
        "args": {"name": name, "task_id": task_id.hex(), "pid": pid, **details},
    }


# -------------------------------------------------------------------------- metrics


def metric_snapshots() -> list[dict[str, Any]]:
    """What the metrics of every process of the session have recorded so far.

    Not in Ray, which exports metrics through its agents only.
    ``shoal.util.metrics.export_text`` writes all of it in the form of Prometheus.

    Returns:
        Per process that recorded something a dict of ``labels``, which say which one
        it is (``Component``: driver, worker or actor; ``WorkerId``; ``pid``), and
        ``families``: for each metric ``name``, ``kind``, ``description``,
        ``boundaries`` and ``series``, and in each of these ``labels`` (pairs),
        ``value`` and ``bucket_counts``.  Counters and histograms of processes that
        ended are added up in one with ``Component`` "ended"; of one that was killed,
        or crashed, as they were when last asked for.  A process tells of at most
        50,000 series.

    Raises:
        RaySystemError: no session runs.

    Blocks: until every process has answered, up to 2 s; of one that has not, what it
    said before stands.
    """
    snapshots: list[dict[str, Any]] = _session().native.query("metrics")
    return snapshots


# ------------------------------------------------------------------------ old names


def error_info() -> list[dict[str, Any]]:
    """Deprecated: the errors of this driver's tasks so far, oldest first.

    Each is a dict of ``type`` (class of the error), ``message`` (with the remote
    traceback), ``timestamp`` (seconds since the epoch), ``function``, ``task_id`` and
    ``job_id``.  Only the last 1,000 are kept.

    Raises:
        RaySystemError: no session runs.
        RuntimeError: in a worker: what its tasks raise goes to who submitted them.
    """
    warnings.warn(
        "error_info() is deprecated: an error is raised where its result is got. Use "
        "get().",
        DeprecationWarning,
        stacklevel=2,
    )
    driver = _session().driver
    if driver is None:
        raise RuntimeError(
            "error_info() lists the errors of a driver's tasks; this is a worker."
        )
    errors: list[dict[str, Any]] = driver.describe_errors()
    return errors


def get_resource_ids() -> dict[str, float]:
    """Deprecated: what the running task or actor holds; empty in a driver."""
    warnings.warn(
        "get_resource_ids() is deprecated: use "
        "get_runtime_context().get_assigned_resources().",
        DeprecationWarning,
        stacklevel=2,
    )
    if not _session().native.is_worker:
        return {}
    return get_runtime_context().get_assigned_resources()
