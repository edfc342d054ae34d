"""What a program can ask about its cluster: nodes, resources, and the timeline.

The claims are those of the reference pages of ``ray.nodes``, ``ray.cluster_resources``,
``ray.available_resources`` and ``ray.timeline``.  How resources change while tasks run
is in test_resources.py.
"""

from __future__ import annotations

import ipaddress
import json
import time
from pathlib import Path
from typing import Any

import pytest
from conformance_impl import Gate, eventually, ray

pytestmark = pytest.mark.usefixtures("ray_session")
WAIT_S = 20
MICROSECONDS = 1e6


@ray.remote
class Traced:
    def method(self) -> None:
        pass


def events_of(name: str) -> list[dict[str, Any]]:
    """Events of the timeline that belong to the task or method of this name."""
    return [event for event in ray.timeline() if name in event["cat"]]


def test_nodes_agree_with_the_cluster() -> None:
    """The one node is alive, and its resources are those of the cluster."""
    (node,) = ray.nodes()
    assert node["Alive"] is True
    assert node["Resources"] == ray.cluster_resources()
    assert node["NodeID"] == ray.get_runtime_context().get_node_id()
    address = node["NodeManagerAddress"]
    assert ipaddress.ip_address(address)
    assert ray.cluster_resources()[f"node:{address}"] == 1.0
    assert ray.util.get_node_ip_address() == address


def test_state_is_the_same_from_a_task() -> None:
    """Tasks may ask for the state of the cluster as the driver does."""

    @ray.remote
    def ask() -> tuple[Any, Any]:
        return ray.nodes()[0]["NodeID"], ray.cluster_resources()

    assert ray.get(ask.remote()) == (ray.nodes()[0]["NodeID"], ray.cluster_resources())


def test_what_is_available_is_part_of_what_there_is() -> None:
    """available_resources never exceeds cluster_resources, idle they are equal."""
    total = ray.cluster_resources()
    for name, amount in ray.available_resources().items():
        assert 0 < amount <= total[name]
    eventually(lambda: ray.available_resources().get("CPU") == total["CPU"], WAIT_S)


def test_timeline_has_tasks_and_calls() -> None:
    """The timeline has an event for each task and actor call, in Chrome's format."""

    @ray.remote
    def plain() -> None:
        pass

    traced = Traced.remote()
    ray.get([plain.remote(), plain.options(name="renamed").remote()])
    ray.get(traced.method.remote())
    for name in ("plain", "renamed", "Traced.method"):
        events = eventually(lambda name=name: events_of(name), WAIT_S, name)
        for event in events:
            assert {"cat", "name", "pid", "tid", "ts", "ph"} <= set(event)


def test_timeline_is_in_microseconds(new_gate: Any) -> None:
    """ts is the wall clock and dur the length, both in microseconds."""

    @ray.remote
    def timed(entered: Gate, gate: Gate) -> None:
        entered.open()
        gate.wait()

    entered, gate = new_gate("entered"), new_gate("gate")
    before = time.time()
    ref = timed.remote(entered, gate)
    eventually(entered.is_open, WAIT_S)
    held_from = time.time()
    ray.wait([ref], timeout=0.3)
    held_s = time.time() - held_from
    gate.open()
    ray.get(ref)
    after = time.time()
    (event,) = eventually(lambda: events_of("timed"), WAIT_S)
    assert event["ph"] == "X"
    assert held_s <= event["dur"] / MICROSECONDS <= after - before
    assert before <= event["ts"] / MICROSECONDS <= after


def test_timeline_file(tmp_path: Path) -> None:
    """timeline(filename) writes the events as JSON and returns None."""

    @ray.remote
    def written() -> None:
        pass

    ray.get(written.remote())
    eventually(lambda: events_of("written"), WAIT_S)
    target = tmp_path / "timeline.json"
    assert ray.timeline(filename=str(target)) is None
    events = json.loads(target.read_text())
    assert any("written" in event["cat"] for event in events)


def test_failed_tasks_are_in_the_timeline() -> None:
    """A task that raised took time as well."""

    @ray.remote
    def failing() -> None:
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        ray.get(failing.remote())
    assert eventually(lambda: events_of("failing"), WAIT_S)
