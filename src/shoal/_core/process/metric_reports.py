"""What the metrics of this process have recorded, as the node daemon is told it.

Metrics are kept by ``shoal.util.metrics``, which is above this layer and may never be
imported in a process.  So nothing here imports it: its registry is looked up among
the modules there are, and without it there is nothing to tell.  Its records have the
fields of ``MetricFamily`` of the wire and are sent as they are.

Bound: a process tells of at most REPORTED_SERIES_MAX series, so that a report fits
into a frame; families beyond that are left out, those declared last first.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from shoal._core.process.peer import Peer
from shoal._core.wire.node_messages import MetricsReport

REPORTED_SERIES_MAX = 50_000
_REGISTRY_MODULE = "shoal.util.metrics_registry"


def recorded_families() -> list[Any]:
    """What has been recorded in this process so far, without empty families."""
    module = sys.modules.get(_REGISTRY_MODULE)
    # Another thread may be in the middle of importing it.
    registry = getattr(module, "DEFAULT_REGISTRY", None)
    if registry is None:
        return []
    room = REPORTED_SERIES_MAX
    told = []
    for family in registry.snapshot():
        room -= len(family.series)
        if room < 0:
            break
        if family.series:
            told.append(family)
    return told


def report_metrics(peer: Peer, component: str, request: int = 0) -> None:
    """Tell the daemon what was recorded (under the lock).

    Args:
        peer: this process.
        component: what it is: driver, worker or actor.
        request: the one that is answered; 0 for last words.
    """
    families = recorded_families()
    # Of a process that never records anything, nobody needs last words.
    if request or families:
        peer.send_node(MetricsReport(request, component, os.getpid(), families))
