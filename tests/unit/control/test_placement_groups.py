"""Placement groups: all bundles or none, whatever dies and in whatever order."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shoal._core.base.labels import parse_selector
from shoal._core.base.placement_wish import selector_to_list
from shoal._core.base.resources import ResourcePool, ResourceSet
from shoal._core.control import placement_groups
from shoal._core.control.placement_groups import ControlGroups
from shoal._core.node.bundles import NodeBundles
from shoal._core.policy.placement import NodeView
from shoal._core.wire.group_messages import (
    AwaitPlacementGroup,
    BundlesCommitted,
    BundlesPrepared,
    CommitBundles,
    CreatePlacementGroup,
    EndBundles,
    ListPlacementGroups,
    LookupPlacementGroup,
    PlacementGroupSpec,
    PrepareBundles,
    RemovePlacementGroup,
    ReturnBundles,
)
from shoal._core.wire.node_messages import DemandInfeasible, NodeReply

CLIENT, OTHER = b"c" * 16, b"d" * 16
JOB = b"job1"
ONE = 10_000


class FakeNode:
    """A node that reserves bundles and answers when told to."""

    def __init__(self, node_id: bytes, cpus: float, labels: dict[str, str]) -> None:
        self.node_id = node_id
        self.labels = labels
        self.pool = ResourcePool(ResourceSet({"CPU": cpus}))
        self.bundles = NodeBundles(self.pool)
        self.inbox: deque[object] = deque()

    def view(self) -> NodeView:
        return NodeView(self.node_id, self.pool.total, self.pool.available, self.labels)

    def handle(self, message: object) -> object | None:
        match message:
            case PrepareBundles():
                wanted = [
                    (index, ResourceSet.from_units(units))
                    for index, units in message.bundles
                ]
                ok = self.bundles.prepare(message.group_id, message.attempt, wanted)
                return BundlesPrepared(message.group_id, message.attempt, ok)
            case CommitBundles():
                self.bundles.commit(message.group_id, message.attempt)
                return BundlesCommitted(message.group_id, message.attempt)
            case ReturnBundles():
                self.bundles.give_back(message.group_id, message.attempt)
            case EndBundles():
                self.bundles.give_back(message.group_id)
        return None


class World:
    """A control table, its nodes, and the messages between them."""

    def __init__(self, *cpus: float, labels: list[dict[str, str]] | None = None):
        self.time = 0.0
        self.sent: list[tuple[bytes, object]] = []
        self.alive: dict[bytes, FakeNode] = {}
        #: answers on their way, per node, in order
        self.answers: dict[bytes, deque[object]] = {}
        self.table = ControlGroups(self)
        for position, amount in enumerate(cpus):
            self.join(bytes([position]) * 16, amount, (labels or [{}] * 9)[position])

    # port
    def send(self, client: bytes, message: object) -> None:
        self.sent.append((client, message))

    def send_to_node(self, node_id: bytes, message: object) -> None:
        if node_id in self.alive:
            self.alive[node_id].inbox.append(message)

    def nodes(self) -> list[NodeView]:
        return [node.view() for node in self.alive.values()]

    def now(self) -> float:
        return self.time

    # what happens
    def join(self, node_id: bytes, cpus: float, labels: dict[str, str]) -> FakeNode:
        node = self.alive[node_id] = FakeNode(node_id, cpus, labels)
        self.answers[node_id] = deque()
        return node

    def kill(self, node_id: bytes) -> None:
        del self.alive[node_id]
        self.answers[node_id].clear()
        self.table.on_node_gone(node_id)

    def node_step(self, node_id: bytes) -> None:
        """The node takes one message."""
        node = self.alive[node_id]
        answer = node.handle(node.inbox.popleft())
        if answer is not None:
            self.answers[node_id].append(answer)

    def table_step(self, node_id: bytes) -> None:
        """The table takes one answer of a node."""
        match self.answers[node_id].popleft():
            case BundlesPrepared() as prepared:
                self.table.on_prepared(node_id, prepared)
            case BundlesCommitted() as committed:
                self.table.on_committed(node_id, committed)

    def settle(self) -> None:
        """Deliver until all is said."""
        busy = True
        while busy:
            busy = False
            for node_id in list(self.alive):
                while node_id in self.alive and self.alive[node_id].inbox:
                    self.node_step(node_id)
                    busy = True
                while self.answers[node_id]:
                    self.table_step(node_id)
                    busy = True
        self.table.check()
        for node in self.alive.values():
            node.bundles.check()

    # what is asked
    def ask(self, message, client: bytes = CLIENT) -> None:
        assert self.table.on_request(client, message)

    def create(self, group: str, *cpus: float, strategy: str = "PACK", **more) -> bytes:
        spec = spec_of(group, *cpus, strategy=strategy, **more)
        self.ask(CreatePlacementGroup(1, spec))
        return spec.group_id

    def remove(self, group_id: bytes) -> None:
        self.ask(RemovePlacementGroup(2, group_id))

    # what is seen
    def state(self, group_id: bytes) -> str:
        return self.table.rows[group_id].state

    def where(self, group_id: bytes) -> list[int]:
        """The position of each bundle's node; -1 for none."""
        return [one[0] if one else -1 for one in self.table.rows[group_id].nodes]

    def replies(self, client: bytes = CLIENT) -> list[object]:
        return [
            one.result
            for to, one in self.sent
            if to == client and isinstance(one, NodeReply)
        ]

    def reserved(self) -> dict[tuple[str, int], tuple[bytes, bool]]:
        """(group, index) -> (node, committed) of every bundle on a node."""
        return {
            (one["placement_group_id"], one["index"]): (node_id, one["is_committed"])
            for node_id, node in self.alive.items()
            for one in node.bundles.describe()
        }

    def free(self) -> list[float]:
        return [
            node.pool.available.amount_of("CPU")
            for _, node in sorted(self.alive.items())
        ]


def spec_of(group: str, *cpus: float, strategy: str = "PACK", **more):
    return PlacementGroupSpec(
        group.encode().ljust(16, b"."),
        [{"CPU": int(amount * ONE)} for amount in cpus],
        strategy,
        more.pop("job_id", JOB),
        CLIENT.hex(),
        **more,
    )


def test_a_group_that_fits_is_created():
    world = World(4)
    group = world.create("g", 1, 2)
    assert world.state(group) == "PENDING"
    world.node_step(bytes(16))
    world.table_step(bytes(16))
    assert world.state(group) == "PREPARED"
    world.settle()
    assert world.state(group) == "CREATED"
    assert world.where(group) == [0, 0]
    assert world.free() == [1]
    assert world.replies() == [""]


def test_request_zero_is_not_answered():
    world = World(4)
    world.ask(CreatePlacementGroup(0, spec_of("g", 1)))
    world.settle()
    assert world.sent == []
    assert len(world.table.rows) == 1


def test_strategies_hold_across_nodes():
    world = World(2, 2, 2)
    spread = world.create("s", 1, 1, 1, strategy="STRICT_SPREAD")
    world.settle()
    assert sorted(world.where(spread)) == [0, 1, 2]
    packed = world.create("p", 0.5, 0.5, strategy="STRICT_PACK")
    world.settle()
    assert len(set(world.where(packed))) == 1


def test_one_node_that_cannot_prepare_undoes_the_others():
    world = World(2, 2)
    group = world.create("g", 2, 2)
    taken = world.alive[b"\1" * 16].pool.acquire(ResourceSet({"CPU": 1}))
    world.settle()
    assert world.state(group) == "PENDING"
    assert world.free() == [2, 1]
    world.alive[b"\1" * 16].pool.release(taken)
    assert world.table.on_room() is False  # it is being tried
    world.settle()
    assert world.state(group) == "CREATED"


def test_a_group_waits_for_room():
    world = World(2)
    first = world.create("a", 2)
    world.settle()
    second = world.create("b", 1)
    third = world.create("c", 1)
    world.settle()
    assert [world.state(one) for one in (second, third)] == ["PENDING"] * 2
    assert world.table.on_room() is True
    world.remove(first)
    world.settle()
    world.table.on_room()
    world.settle()
    assert [world.state(one) for one in (second, third)] == ["CREATED"] * 2
    assert world.table.on_room() is False


def test_groups_tried_together_do_not_count_on_the_same_room():
    world = World(1, 1)
    groups = [world.create("a", 1), world.create("b", 1)]
    world.settle()
    assert [world.state(one) for one in groups] == ["CREATED"] * 2
    assert sorted(world.where(groups[0]) + world.where(groups[1])) == [0, 1]


def test_a_hopeless_group_is_told_once_and_waits_for_a_node():
    world = World(2)
    group = world.create("g", 3)
    for _ in range(3):
        assert world.table.on_room() is False
    told = [one for _, one in world.sent if isinstance(one, DemandInfeasible)]
    assert len(told) == 1
    assert "3 CPU" in told[0].reason
    facts = placement_groups.describe(world.table.rows[group])
    assert facts["stats"]["scheduling_state"] == "INFEASIBLE"
    assert "3 CPU" in facts["reason"]
    world.join(b"\1" * 16, 4, {})
    world.table.on_node_joined()
    world.settle()
    assert world.where(group) == [1]


def test_waiters_hear_of_the_creation_or_the_end():
    world = World(1)
    first, second = world.create("a", 1), world.create("b", 1)
    world.ask(AwaitPlacementGroup(7, first), OTHER)
    world.ask(AwaitPlacementGroup(8, second), OTHER)
    assert world.replies(OTHER) == []
    world.settle()
    assert world.replies(OTHER) == ["CREATED"]
    world.remove(second)
    assert world.replies(OTHER) == ["CREATED", "REMOVED"]
    for group in (first, second, b"unknown"):
        world.ask(AwaitPlacementGroup(9, group), OTHER)
    assert world.replies(OTHER)[2:] == ["CREATED", "REMOVED", "REMOVED"]


def test_a_process_that_ended_waits_no_more():
    world = World(1)
    world.create("a", 1)
    world.settle()
    group = world.create("b", 1)
    world.ask(AwaitPlacementGroup(7, group), OTHER)
    world.table.on_client_gone(OTHER)
    world.remove(group)
    assert world.replies(OTHER) == []


def test_removing_gives_everything_back_and_may_be_repeated():
    world = World(2, 2)
    group = world.create("g", 2, 2)
    world.settle()
    for _ in range(2):
        world.remove(group)
        world.settle()
    assert world.state(group) == "REMOVED"
    assert world.table.is_gone(group)
    assert world.table.is_gone(b"never made")
    assert world.free() == [2, 2]
    world.remove(b"never made")
    assert world.replies() == ["", None, None, None]


def test_removing_while_nodes_prepare():
    world = World(2, 2)
    group = world.create("g", 2, 2)
    world.node_step(bytes(16))  # prepared there, not yet known
    world.remove(group)
    world.settle()
    assert world.free() == [2, 2]


def test_names_belong_to_a_namespace_and_to_one_living_group():
    world = World(4)
    group = world.create("a", 1, name="n", namespace="s")
    world.create("b", 1, name="n", namespace="s")
    world.create("c", 1, name="n", namespace="t")
    assert [bool(reply) for reply in world.replies()] == [False, True, False]
    assert "'n'" in str(world.replies()[1])
    world.ask(LookupPlacementGroup(3, "n", "s"), OTHER)
    world.remove(group)
    world.ask(LookupPlacementGroup(4, "n", "s"), OTHER)
    assert world.replies(OTHER) == [group, None]
    again = world.create("d", 1, name="n", namespace="s")
    world.ask(LookupPlacementGroup(5, "n", "s"), OTHER)
    assert world.replies(OTHER)[-1] == again


def test_listing():
    world = World(4)
    group = world.create("a", 1, 2, name="n")
    world.time = 0.5
    world.settle()
    world.create("b", 1)
    world.ask(ListPlacementGroups(3, group), OTHER)
    world.ask(ListPlacementGroups(4), OTHER)
    world.ask(ListPlacementGroups(5, b"unknown"), OTHER)
    one, everything, nothing = world.replies(OTHER)
    assert one == {
        group.hex(): {
            "placement_group_id": group.hex(),
            "name": "n",
            "bundles": {0: {"CPU": 1.0}, 1: {"CPU": 2.0}},
            "bundles_to_node_id": {0: "00" * 16, 1: "00" * 16},
            "strategy": "PACK",
            "state": "CREATED",
            "stats": {
                "end_to_end_creation_latency_ms": 500.0,
                "scheduling_latency_ms": 500.0,
                "scheduling_attempt": 1,
                "highest_retry_delay_ms": 0.0,
                "scheduling_state": "FINISHED",
            },
            "reason": "",
        }
    }
    assert len(everything) == 2
    assert nothing == {}


def test_labels_choose_nodes():
    world = World(2, 2, labels=[{"zone": "a"}, {"zone": "b"}])
    selectors = [
        selector_to_list(parse_selector({"zone": zone})) for zone in ("b", "a")
    ]
    group = world.create("g", 1, 1, selectors=selectors)
    world.settle()
    assert world.where(group) == [1, 0]


def test_all_bundles_in_one_domain():
    racks = [{"rack": "x"}, {"rack": "y"}, {"rack": "y"}, {}]
    world = World(1, 1, 1, 4, labels=racks)
    group = world.create("g", 1, 1, same_label="rack")
    world.settle()
    assert sorted(world.where(group)) == [1, 2]
    hopeless = world.create("h", 1, same_label="row")
    assert "'row'" in world.table.rows[hopeless].reason


def test_a_soft_target_is_preferred():
    world = World(2, 2)
    target = b"\1" * 16
    group = world.create("g", 1, strategy="STRICT_PACK", soft_target=target)
    world.settle()
    assert world.where(group) == [1]


def test_bundles_of_a_dead_node_are_placed_again():
    world = World(1, 1, 1)
    group = world.create("g", 1, 1, strategy="STRICT_SPREAD")
    world.settle()
    survivor, lost = world.where(group)
    world.kill(bytes([lost]) * 16)
    assert world.state(group) == "RESCHEDULING"
    world.settle()
    assert world.state(group) == "CREATED"
    assert world.where(group)[0] == survivor
    assert world.where(group)[1] not in (survivor, lost)


def test_rescheduling_waits_for_a_node_if_it_must():
    world = World(1, 1)
    group = world.create("g", 1, 1)
    world.settle()
    world.kill(b"\1" * 16)
    world.settle()
    assert world.state(group) == "RESCHEDULING"
    world.join(b"\2" * 16, 1, {})
    world.table.on_node_joined()
    world.settle()
    assert world.where(group) == [0, 2]


def test_a_strictly_packed_group_moves_as_a_whole():
    world = World(2, 2)
    group = world.create("g", 1, 1, strategy="STRICT_PACK")
    world.settle()
    (home,) = set(world.where(group))
    world.kill(bytes([home]) * 16)
    world.settle()
    assert world.where(group) == [1 - home] * 2


@pytest.mark.parametrize("steps", range(5))
def test_a_node_that_dies_in_each_phase(steps):
    """Node 1 dies after so many messages of its own."""
    world = World(1, 1, 1)
    group = world.create("g", 1, 1, strategy="STRICT_SPREAD")
    dying = b"\1" * 16
    for step in range(steps):
        for node_id in list(world.alive):
            if step % 2 == 0 and world.alive[node_id].inbox:
                world.node_step(node_id)
            elif step % 2 == 1 and world.answers[node_id]:
                world.table_step(node_id)
    world.kill(dying)
    world.settle()
    world.table.on_room()
    world.settle()
    assert world.state(group) == "CREATED"
    assert sorted(world.where(group)) == [0, 2]
    assert world.free() == [0, 0]


def test_groups_end_with_their_job_unless_detached():
    world = World(4)
    mine, kept = world.create("a", 1), world.create("b", 1, detached=True)
    other = world.create("c", 1, job_id=b"job2")
    world.settle()
    world.table.on_job_over(JOB)
    world.settle()
    states = [world.state(group) for group in (mine, kept, other)]
    assert states == ["REMOVED", "CREATED", "CREATED"]


def test_groups_of_an_actor_end_when_it_and_its_job_have():
    world = World(4)
    by_a, by_b = (world.create(one, 1, creator_actor=one.encode()) for one in "ab")
    world.settle()
    world.table.on_actor_over(b"a")
    assert world.state(by_a) == "CREATED"
    world.table.on_job_over(JOB)
    assert [world.state(one) for one in (by_a, by_b)] == ["REMOVED", "CREATED"]
    world.table.on_actor_over(b"b")
    assert world.state(by_b) == "REMOVED"


def test_removed_groups_are_kept_for_a_while(monkeypatch):
    monkeypatch.setattr(placement_groups, "REMOVED_KEPT_MAX", 2)
    world = World(4)
    for name in "abc":
        world.remove(world.create(name, 1))
    world.settle()
    assert [bytes(row)[:1] for row in world.table.rows] == [b"b", b"c"]


def test_late_answers_change_nothing():
    world = World(1)
    group = world.create("g", 1)
    world.settle()
    node = bytes(16)
    world.table.on_committed(node, BundlesCommitted(group, 1))
    world.table.on_prepared(node, BundlesPrepared(group, 0, False))
    world.table.on_prepared(node, BundlesPrepared(b"unknown", 1, True))
    world.settle()
    assert world.state(group) == "CREATED"
    assert world.free() == [0]


class AnyOrder(RuleBasedStateMachine):
    """Groups come and go, messages take their time, nodes die and join."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(3, 3)
        self.made = 0
        self.joined = 2

    @rule(
        cpus=st.lists(st.integers(1, 2), min_size=1, max_size=3),
        strategy=st.sampled_from(["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]),
    )
    def create(self, cpus: list[int], strategy: str) -> None:
        self.made += 1
        self.world.create(f"{self.made}", *cpus, strategy=strategy)

    @rule(choice=st.integers(0, 99))
    def remove(self, choice: int) -> None:
        rows = list(self.world.table.rows)
        if rows:
            self.world.remove(rows[choice % len(rows)])

    @rule(choice=st.integers(0, 9))
    def node_step(self, choice: int) -> None:
        ready = [key for key, node in self.world.alive.items() if node.inbox]
        if ready:
            self.world.node_step(ready[choice % len(ready)])

    @rule(choice=st.integers(0, 9))
    def table_step(self, choice: int) -> None:
        ready = [key for key, waiting in self.world.answers.items() if waiting]
        if ready:
            self.world.table_step(ready[choice % len(ready)])

    @rule()
    def room(self) -> None:
        self.world.table.on_room()

    @precondition(lambda self: len(self.world.alive) > 1)
    @rule(choice=st.integers(0, 9))
    def kill(self, choice: int) -> None:
        self.world.kill(list(self.world.alive)[choice % len(self.world.alive)])

    @precondition(lambda self: len(self.world.alive) < 4)
    @rule(cpus=st.integers(1, 4))
    def join(self, cpus: int) -> None:
        self.world.join(bytes([self.joined]) * 16, cpus, {})
        self.joined += 1
        self.world.table.on_node_joined()

    @invariant()
    def holds(self) -> None:
        self.world.table.check()
        for node in self.world.alive.values():
            node.bundles.check()
            node.pool.check()

    def teardown(self) -> None:
        world = self.world
        world.settle()
        for _ in range(self.made + 1):
            world.table.on_room()
            world.settle()
        # All or nothing: what is reserved is what the table says, and committed.
        expected = {
            (group.hex(), index): (node_id, True)
            for group, row in world.table.rows.items()
            if row.state != "REMOVED"
            for index, node_id in enumerate(row.nodes)
            if node_id
        }
        assert world.reserved() == expected
        for row in world.table.rows.values():
            assert row.state in ("PENDING", "CREATED", "RESCHEDULING", "REMOVED")
            assert row.state != "PENDING" or not any(row.nodes)
        for group in list(world.table.rows):
            world.remove(group)
        world.settle()
        for node in world.alive.values():
            assert node.pool.available == node.pool.total


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
