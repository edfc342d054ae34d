"""Local mode: what a node daemon and a control store would tell, had there been any.

Does not: change anything.
"""

from __future__ import annotations

import socket
from typing import Any

import msgspec

from shoal._core.process.local_actors import LocalActor
from shoal._core.process.local_execution import LocalExecutor
from shoal._core.process.local_registry import LocalRegistry
from shoal._core.process.metric_reports import recorded_families
from shoal._core.process.node_metrics import process_labels


class LocalViews:
    """Answers to queries (``node_queries.py`` has those of a node)."""

    def __init__(
        self, executor: LocalExecutor, registry: LocalRegistry, node_name: str
    ) -> None:
        self._executor = executor
        self._peer = executor.peer
        self._supply = executor.supply
        self._registry = registry
        self._node_name = node_name

    def answer(self, what: str, argument: Any) -> Any:
        """A view by its name.

        Raises:
            ValueError: there is no such view in local mode.
        """
        with self._peer.lock:
            match what:
                case "total":
                    return self._supply.total.to_floats()
                case "available":
                    return self._supply.available()
                case "nodes":
                    return [self._describe_node()]
                case "named_actors":
                    keys = self._registry.names
                    return [key for key in keys if argument in (None, key[0])]
                case "actors":
                    actors = self._registry.actors.values()
                    return [self._describe_actor(actor) for actor in actors]
                case "events":
                    worker = [self._peer.worker_id.hex(), self._peer.pid]
                    return [[*worker, *event] for event in self._executor.events]
                case "metrics":
                    return [self._describe_metrics()]
                case "workers":
                    return []
                case "store":
                    return {}
                case "preload":
                    return None
        raise ValueError(
            f"local mode has no view {what!r}: it has no processes but this one"
        )

    def _describe_metrics(self) -> dict[str, Any]:
        labels = process_labels(self._peer.worker_id, "driver", self._peer.pid)
        return {"labels": labels, "families": msgspec.to_builtins(recorded_families())}

    def _describe_node(self) -> dict[str, Any]:
        return {
            "NodeID": self._supply.node_id.hex(),
            "Alive": True,
            "NodeManagerAddress": "127.0.0.1",
            "NodeManagerHostname": socket.gethostname(),
            "NodeManagerPort": 0,
            "ObjectManagerPort": 0,
            "ObjectStoreSocketName": "",
            "RayletSocketName": "",
            "MetricsExportPort": 0,
            "MetricsAgentPort": 0,
            "DashboardAgentListenPort": 0,
            "NodeName": self._node_name,
            "RuntimeEnvAgentPort": 0,
            "DeathReason": 0,
            "DeathReasonMessage": "",
            "alive": True,
            "Resources": self._supply.total.to_floats(),
            "Labels": dict(self._supply.labels),
        }

    def _describe_actor(self, actor: LocalActor) -> dict[str, Any]:
        spec = actor.spec
        return {
            "actor_id": spec.actor_id.hex(),
            "class_name": spec.class_name,
            "state": actor.state,
            "name": spec.name,
            "namespace": spec.namespace,
            "worker_id": self._peer.worker_id.hex(),
            "num_restarts": actor.restarts,
            "death_cause": actor.cause,
            "is_detached": spec.detached,
        }
