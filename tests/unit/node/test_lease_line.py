"""The line of lease requests: turns, growth, withdrawal."""

from __future__ import annotations

from shoal._core.base.resources import ResourceSet
from shoal._core.node.leases import LeaseLine, LeaseRequest
from shoal._core.wire.control_messages import ActorSpec

A, B = b"client a", b"client b"


def request(client: bytes, number: int, wanted: int = 1) -> LeaseRequest:
    demand = ResourceSet({"CPU": 1})
    return LeaseRequest(client, b"job1", number, demand, "env", wanted, "f", 0.0)


def order(line: LeaseLine) -> list[tuple[bytes, int]]:
    return [one.key for one in line]


def test_requests_are_known_by_client_and_number() -> None:
    line = LeaseLine()
    first = request(A, 1)
    assert line.put(first) is first
    line.put(request(A, 2))
    line.put(request(B, 1))
    assert order(line) == [(A, 1), (A, 2), (B, 1)]
    assert len(line) == 3
    assert first.kind == (b"job1", "env")


def test_a_standing_request_keeps_its_place_and_its_larger_wish() -> None:
    line = LeaseLine()
    first = line.put(request(A, 1, wanted=3))
    line.put(request(B, 1))
    assert line.put(request(A, 1, wanted=2)) is first
    assert first.wanted == 3
    line.put(request(A, 1, wanted=5))
    assert first.wanted == 5
    assert order(line) == [(A, 1), (B, 1)]


def test_the_wish_is_for_workers_still_to_come() -> None:
    line = LeaseLine()
    first = line.put(request(A, 1, wanted=2))
    line.took_turn(first)
    line.put(request(A, 1, wanted=2))
    assert (first.wanted, first.granted) == (3, 1)


def test_who_took_a_turn_goes_to_the_end_or_is_done() -> None:
    line = LeaseLine()
    first = line.put(request(A, 1, wanted=2))
    line.put(request(B, 1))
    line.took_turn(first)
    assert order(line) == [(B, 1), (A, 1)]
    line.took_turn(first)
    assert order(line) == [(B, 1)]


def test_the_line_may_change_while_it_is_walked() -> None:
    line = LeaseLine()
    for number in range(3):
        line.put(request(A, number))
    for one in line:
        line.took_turn(one)
    assert len(line) == 0


def test_requests_go_one_by_one_or_with_their_client() -> None:
    line = LeaseLine()
    for client in (A, B):
        for number in (1, 2):
            line.put(request(client, number))
    dropped = line.drop((A, 1))
    assert dropped is not None
    assert dropped.key == (A, 1)
    assert line.drop((A, 1)) is None
    line.drop_client(B)
    assert order(line) == [(A, 2)]


def test_an_actors_request_goes_by_its_actor() -> None:
    line = LeaseLine()
    line.put(request(A, 1))
    waiting = line.put(request(B, 1))
    waiting.actor = ActorSpec(b"actor", "", "C", b"", b"", b"", [], {}, {})
    assert not line.drop_actor(b"another")
    assert line.drop_actor(b"actor")
    assert order(line) == [(A, 1)]
