"""The metrics of a whole session as one text, and a page for Prometheus to read.

Theory: every process answers with a snapshot of its registry when it is asked (pull);
nothing is sent while nobody looks. Which process a line is of is in its labels
`Component`, `WorkerId` and `pid`; a sum over them is the program's total, and goes on
when workers end (see `shoal.metric_snapshots`).

Nothing is served unless `serve` is called, and then on this machine only unless it is
told otherwise: the page has no access control.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

import shoal
from shoal.util.metrics_registry import (
    DEFAULT_REGISTRY,
    ProcessSnapshot,
    render_text,
)

PREFIX = "ray_"
"""Before every name: the names that dashboards made for Ray look for."""


def export_text(
    snapshots: Iterable[ProcessSnapshot] | None = None, *, prefix: str = PREFIX
) -> str:
    """Write metrics in the Prometheus text format, version 0.0.4.

    Args:
        snapshots: of the processes to export. None means of all processes of the
            session; where no session runs, of this process, without labels of it.
        prefix: put before every name. The default is Ray's.

    Returns:
        The text, with a line feed at the end; empty if nothing was recorded.

    Raises:
        RaySystemError: the session was lost.

    Blocks: in a session until its processes have answered, up to 2 s.
    """
    if snapshots is None:
        snapshots = _all_snapshots()
    return render_text(snapshots, prefix)


def _all_snapshots() -> list[ProcessSnapshot]:
    if not shoal.is_initialized():
        return [ProcessSnapshot(DEFAULT_REGISTRY.snapshot())]
    return msgspec.convert(shoal.metric_snapshots(), list[ProcessSnapshot])


class _Collector:
    """Reads all processes anew whenever prometheus-client serves a page."""

    def __init__(self, parse: Callable[[str], Iterable[Any]]) -> None:
        self._parse = parse

    def collect(self) -> Iterable[Any]:
        """Every family of the session."""
        return self._parse(export_text())

    def describe(self) -> Iterable[Any]:
        """None is known beforehand: the names are those that get recorded."""
        return ()


def serve(port: int = 0, host: str = "127.0.0.1") -> tuple[int, Callable[[], None]]:
    """Serve what `export_text` says under ``/metrics``, for Prometheus to scrape.

    Args:
        port: to listen on; 0 takes a free one.
        host: address to listen on. Anyone who reaches it can read all metrics.

    Returns:
        The port, and a function that stops serving.

    Raises:
        ImportError: prometheus-client is not installed: ``shoal[metrics]`` has it.
        OSError: the address cannot be listened on.
    """
    try:  # an optional dependency
        from prometheus_client import (  # noqa: PLC0415
            CollectorRegistry,
            start_http_server,
        )
        from prometheus_client.parser import (  # noqa: PLC0415
            text_string_to_metric_families,
        )
    except ImportError as error:
        raise ImportError(
            "serve() needs the package prometheus-client: install 'shoal[metrics]', "
            "or serve the text of export_text() yourself."
        ) from error
    registry = CollectorRegistry()
    registry.register(_Collector(text_string_to_metric_families))
    server, thread = start_http_server(port, host, registry)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return server.server_port, stop
