"""Views of the node and of the control store, for the state API and for people."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any

from shoal._core.base.resources import ResourceSet
from shoal._core.process.node_metrics import NodeMetrics
from shoal._core.wire.node_messages import (
    CollectEvents,
    CollectMetrics,
    EventsCollected,
    MetricsReport,
    NodeQuery,
    NodeReply,
)

if TYPE_CHECKING:
    from shoal._core.process.node_daemon import NodeDaemon


#: Records of finished tasks that are kept, the last ones.
EVENTS_KEPT_MAX = 100_000
#: A process that does not answer for so long is not waited for: what it said before
#: stands.
GATHERING_TIMEOUT_S = 2.0


class _Gathering:
    """Answers of processes that one query collects."""

    __slots__ = ("asker", "missing", "number", "result")

    def __init__(
        self,
        asker: bytes,
        number: int,
        missing: dict[bytes, None],
        result: Callable[[], Any],
    ) -> None:
        self.asker = asker
        self.number = number
        self.missing = missing
        #: gives the answer, once nothing is missing
        self.result = result


class NodeQueries:
    """Answers to NodeQuery."""

    def __init__(self, daemon: NodeDaemon) -> None:
        self._daemon = daemon
        self._gatherings: dict[int, _Gathering] = {}
        #: askers number their requests each for itself
        self._gathering_numbers = count(1)
        self._events: deque[list[Any]] = deque(maxlen=EVENTS_KEPT_MAX)
        self._metrics = NodeMetrics()

    def on_query(self, client: bytes, message: NodeQuery) -> None:
        """Answer, at once or when those have that must be asked."""
        clients = self._daemon.clients
        if message.what == "events":
            known = self._daemon.machine.workers.workers
            workers = [one for one in clients if one in known]
            gathering = _Gathering(
                client,
                message.request,
                dict.fromkeys(workers),
                lambda: list(self._events),
            )
            self._gather(gathering, CollectEvents)
        elif message.what == "metrics":
            gathering = _Gathering(
                client,
                message.request,
                dict.fromkeys(clients),
                self._metrics.snapshots,
            )
            self._gather(gathering, CollectMetrics)
        else:
            answer = getattr(self, f"_query_{message.what}")(message.argument)
            self._daemon.send(client, NodeReply(message.request, answer))

    # -- tables ----------------------------------------------------------------------

    def _query_total(self, _: Any) -> dict[str, float]:
        return self._with_node(self._daemon.machine.pool.total)

    def _query_available(self, _: Any) -> dict[str, float]:
        return self._with_node(self._daemon.machine.pool.available)

    def _with_node(self, resources: ResourceSet) -> dict[str, float]:
        floats = resources.to_floats()
        return {name: amount for name, amount in floats.items() if amount}

    def _query_nodes(self, _: Any) -> list[dict[str, Any]]:
        daemon = self._daemon
        config = daemon.config
        return [
            {
                "NodeID": config["node_id"],
                "Alive": True,
                "NodeManagerAddress": "127.0.0.1",
                "NodeManagerHostname": socket.gethostname(),
                "NodeManagerPort": 0,
                "ObjectManagerPort": 0,
                "ObjectStoreSocketName": f"{daemon.session_dir}/node.sock",
                "RayletSocketName": f"{daemon.session_dir}/node.sock",
                "MetricsExportPort": 0,
                "MetricsAgentPort": 0,
                "DashboardAgentListenPort": 0,
                "NodeName": config["node_name"],
                "RuntimeEnvAgentPort": 0,
                "DeathReason": 0,
                "DeathReasonMessage": "",
                "alive": True,
                "Resources": self._query_total(None),
                "Labels": config["labels"],
            }
        ]

    def _query_named_actors(self, namespace: str | None) -> list[tuple[str, str]]:
        return self._daemon.control.named(namespace)

    def _query_actors(self, _: Any) -> list[dict[str, Any]]:
        return self._daemon.control.describe()

    def _query_workers(self, _: Any) -> list[dict[str, Any]]:
        return self._daemon.machine.describe_workers()

    def _query_store(self, _: Any) -> dict[str, Any]:
        return self._daemon.machine.objects.describe()

    def _query_preload(self, modules: list[str]) -> None:
        self._daemon.preload(modules)

    # -- what processes are asked for ------------------------------------------------

    def _gather(self, gathering: _Gathering, ask: Callable[[int], object]) -> None:
        daemon = self._daemon
        number = next(self._gathering_numbers)
        self._gatherings[number] = gathering
        for client in gathering.missing:
            daemon.send(client, ask(number))
        self._answer_if_complete(number)
        daemon.engine.call_at(
            daemon.now() + GATHERING_TIMEOUT_S, lambda: self._answer(number)
        )

    def on_events(self, client: bytes, message: EventsCollected) -> None:
        """A worker's records came."""
        worker = self._daemon.machine.workers.workers.get(client)
        pid = 0 if worker is None else worker.pid
        self._events += [[client.hex(), pid, *event] for event in message.events]
        self._on_answer(client, message.request)

    def on_metrics(self, client: bytes, message: MetricsReport) -> None:
        """A process's metrics came."""
        self._metrics.on_report(client, message)
        self._on_answer(client, message.request)

    def _on_answer(self, client: bytes, number: int) -> None:
        gathering = self._gatherings.get(number)
        if gathering is not None:
            gathering.missing.pop(client, None)
            self._answer_if_complete(number)

    def on_client_gone(self, client: bytes) -> None:
        """A process ended: it answers no more."""
        self._metrics.on_client_gone(client)
        for number, gathering in list(self._gatherings.items()):
            if client in gathering.missing:
                del gathering.missing[client]
                self._answer_if_complete(number)

    def _answer_if_complete(self, number: int) -> None:
        if not self._gatherings[number].missing:
            self._answer(number)

    def _answer(self, number: int) -> None:
        gathering = self._gatherings.pop(number, None)
        if gathering is not None:
            reply = NodeReply(gathering.number, gathering.result())
            self._daemon.send(gathering.asker, reply)
