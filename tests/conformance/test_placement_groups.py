"""Placement groups on one node: reserving, using, capturing, removing.

The claims are those of Ray's page on placement groups and of the reference pages of
``ray.util.placement_group`` and ``PlacementGroupSchedulingStrategy``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conformance_impl import Gate, eventually, ray, submodule

groups = submodule("util.placement_group")
InGroup = submodule("util.scheduling_strategies").PlacementGroupSchedulingStrategy
pytestmark = pytest.mark.usefixtures("ray_session")
WAIT_S = 20

Reserve = Callable[..., Any]


@pytest.fixture
def reserve() -> Iterator[Reserve]:
    """Make placement groups that are removed after the test, CPUs and all."""
    made: list[Any] = []
    wait_for_cpus(4)

    def make(bundles: list[dict[str, float]], **options: Any) -> Any:
        made.append(groups.placement_group(bundles, **options))
        return made[-1]

    yield make
    for group in made:
        groups.remove_placement_group(group)
    wait_for_cpus(4)


def wait_for_cpus(amount: float) -> None:
    eventually(
        lambda: ray.available_resources().get("CPU", 0.0) == pytest.approx(amount),
        WAIT_S,
        f"{amount} CPUs free",
    )


def state_of(group: Any) -> str:
    return groups.placement_group_table(group)["state"]


def runs(ref: Any, timeout_s: float = WAIT_S) -> bool:
    return bool(ray.wait([ref], timeout=timeout_s)[0])


@ray.remote
def where() -> tuple[str | None, str | None, dict[str, float]]:
    current = groups.get_current_placement_group()
    context = ray.get_runtime_context()
    return (
        current and current.id.hex(),
        context.get_placement_group_id(),
        context.get_assigned_resources(),
    )


@ray.remote
def where_is_child() -> str | None:
    return ray.get(where.remote())[0]


@ray.remote
class Member:
    def ping(self) -> str:
        return "pong"

    def where_is_child(self) -> str | None:
        return ray.get(where.remote())[0]


@ray.remote(max_retries=0)
def hold(entered: Gate, gate: Gate) -> str:
    entered.open()
    gate.wait()
    return "held"


def test_ready_and_wait(reserve: Reserve) -> None:
    """ready() resolves to the group itself, wait() says whether it is created."""
    group = reserve([{"CPU": 1}, {"CPU": 2}])
    assert ray.get(group.ready(), timeout=WAIT_S) == group
    assert group.wait(timeout_seconds=WAIT_S) is True
    assert group.bundle_count == 2
    assert group.bundle_specs == [{"CPU": 1.0}, {"CPU": 2.0}]
    assert not group.is_empty
    assert groups.PlacementGroup.empty().is_empty


def test_resources_are_reserved(reserve: Reserve) -> None:
    """A created group's bundles are taken from what is available, until removed."""
    group = reserve([{"CPU": 1}, {"CPU": 2}])
    assert group.wait(WAIT_S)
    wait_for_cpus(1)
    assert ray.cluster_resources()["CPU"] == 4.0
    groups.remove_placement_group(group)
    wait_for_cpus(4)


def test_group_that_does_not_fit_waits(reserve: Reserve) -> None:
    """A group larger than the node is pending; wait gives up, ready stays open."""
    group = reserve([{"CPU": 64}])
    assert group.wait(timeout_seconds=0.3) is False
    assert state_of(group) == "PENDING"
    assert not runs(group.ready(), 0.2)


def test_group_is_created_when_room_appears(reserve: Reserve) -> None:
    """A pending group is created when another one gives its resources back."""
    first = reserve([{"CPU": 3}])
    assert first.wait(WAIT_S)
    second = reserve([{"CPU": 3}])
    assert second.wait(timeout_seconds=0.3) is False
    groups.remove_placement_group(first)
    assert second.wait(WAIT_S)


def test_group_is_all_or_nothing(reserve: Reserve) -> None:
    """A group reserves all its bundles or none of them."""
    group = reserve([{"CPU": 2}, {"CPU": 64}])
    assert group.wait(timeout_seconds=0.3) is False
    wait_for_cpus(4)


def test_strict_spread_needs_a_node_for_each_bundle(reserve: Reserve) -> None:
    """On one node STRICT_SPREAD of two bundles pends, the other strategies succeed."""
    for strategy in ("PACK", "SPREAD", "STRICT_PACK"):
        group = reserve([{"CPU": 1}, {"CPU": 1}], strategy=strategy)
        assert group.wait(WAIT_S)
        assert groups.placement_group_table(group)["strategy"] == strategy
        groups.remove_placement_group(group)
    impossible = reserve([{"CPU": 1}, {"CPU": 1}], strategy="STRICT_SPREAD")
    assert impossible.wait(timeout_seconds=0.3) is False


def test_table(reserve: Reserve) -> None:
    """placement_group_table tells name, bundles, nodes, strategy and state."""
    group = reserve([{"CPU": 1}, {"CPU": 2}], name="tabled")
    assert group.wait(WAIT_S)
    row = groups.placement_group_table(group)
    node = ray.nodes()[0]["NodeID"]
    assert row["placement_group_id"] == group.id.hex()
    assert row["name"] == "tabled"
    assert row["bundles"] == {0: {"CPU": 1.0}, 1: {"CPU": 2.0}}
    assert row["bundles_to_node_id"] == {0: node, 1: node}
    assert (row["strategy"], row["state"]) == ("PACK", "CREATED")
    assert group.id.hex() in groups.placement_group_table()


def test_named_group(reserve: Reserve) -> None:
    """get_placement_group finds a group by name until it is removed."""
    group = reserve([{"CPU": 1}], name="by_name")
    assert group.wait(WAIT_S)
    found = groups.get_placement_group("by_name")
    assert found.id == group.id
    groups.remove_placement_group(group)
    eventually(lambda: state_of(group) == "REMOVED", WAIT_S)
    for name in ("by_name", "never_made", ""):
        with pytest.raises(ValueError, match="placement"):
            groups.get_placement_group(name)


def test_task_in_a_group(reserve: Reserve) -> None:
    """A task placed in a group uses its bundle and knows the group."""
    group = reserve([{"CPU": 1}, {"CPU": 2}])
    inside = where.options(scheduling_strategy=InGroup(group))
    name = group.id.hex()
    assert ray.get(inside.remote(), timeout=WAIT_S) == (name, name, {"CPU": 1.0})
    second = where.options(num_cpus=2, scheduling_strategy=InGroup(group, 1))
    assert ray.get(second.remote(), timeout=WAIT_S) == (name, name, {"CPU": 2.0})
    assert ray.get(where.remote(), timeout=WAIT_S) == (None, None, {"CPU": 1.0})
    assert groups.get_current_placement_group() is None


def test_group_passed_to_a_task(reserve: Reserve) -> None:
    """A placement group can be passed to a task, which may schedule into it."""

    @ray.remote(num_cpus=0)
    def use(group: Any) -> str:
        options = {"scheduling_strategy": InGroup(group)}
        return ray.get(where.options(**options).remote())[0]

    group = reserve([{"CPU": 1}])
    assert ray.get(use.remote(group), timeout=WAIT_S) == group.id.hex()


def test_tasks_of_a_bundle_wait_for_each_other(reserve: Reserve, new_gate: Any) -> None:
    """A bundle holds no more than it reserved although the node has room."""
    group = reserve([{"CPU": 1}])
    first, second, gate = new_gate("first"), new_gate("second"), new_gate("gate")
    inside = hold.options(scheduling_strategy=InGroup(group, 0))
    refs = [inside.remote(first, gate), inside.remote(second, gate)]
    eventually(lambda: first.is_open() or second.is_open(), WAIT_S)
    assert ray.wait(refs, timeout=0.3)[0] == []
    assert not (first.is_open() and second.is_open())
    gate.open()
    assert ray.get(refs, timeout=WAIT_S) == ["held", "held"]


def test_task_waits_for_its_group(reserve: Reserve) -> None:
    """A task may be submitted before its group is created; it waits for it."""
    first = reserve([{"CPU": 4}])
    assert first.wait(WAIT_S)
    second = reserve([{"CPU": 1}])
    ref = where.options(scheduling_strategy=InGroup(second)).remote()
    assert not runs(ref, 0.3)
    groups.remove_placement_group(first)
    assert ray.get(ref, timeout=WAIT_S)[0] == second.id.hex()


def test_children_are_captured_only_when_asked(reserve: Reserve) -> None:
    """Tasks of a task are outside its group unless capture_child_tasks is set."""
    group = reserve([{"CPU": 2}])
    plain = InGroup(group)
    capture = InGroup(group, placement_group_capture_child_tasks=True)
    child_of = where_is_child.options
    assert ray.get(child_of(scheduling_strategy=plain).remote()) is None
    assert ray.get(child_of(scheduling_strategy=capture).remote()) == group.id.hex()


def test_children_of_an_actor_are_captured(reserve: Reserve) -> None:
    """An actor in a group with capture places the tasks it submits there."""
    group = reserve([{"CPU": 2}])
    capture = InGroup(group, placement_group_capture_child_tasks=True)
    member = Member.options(scheduling_strategy=capture).remote()
    assert ray.get(member.where_is_child.remote(), timeout=WAIT_S) == group.id.hex()


def test_actor_in_a_group_ends_with_it(reserve: Reserve) -> None:
    """Removing a group kills its actors; their calls raise ActorDiedError."""
    group = reserve([{"CPU": 1}])
    options = {"num_cpus": 1, "scheduling_strategy": InGroup(group, 0)}
    member = Member.options(**options).remote()
    assert ray.get(member.ping.remote(), timeout=WAIT_S) == "pong"
    groups.remove_placement_group(group)
    with pytest.raises(ray.exceptions.ActorDiedError, match="placement group"):
        eventually(lambda: ray.get(member.ping.remote(), timeout=WAIT_S) is None)


def test_running_task_fails_with_its_group(reserve: Reserve, new_gate: Any) -> None:
    """Removing a group ends the tasks that run in it."""
    group = reserve([{"CPU": 1}])
    entered, gate = new_gate("entered"), new_gate("gate")
    ref = hold.options(scheduling_strategy=InGroup(group)).remote(entered, gate)
    eventually(entered.is_open, WAIT_S)
    groups.remove_placement_group(group)
    with pytest.raises(ray.exceptions.RayError):
        ray.get(ref, timeout=WAIT_S)


def test_removing_is_idempotent(reserve: Reserve) -> None:
    """A group may be removed again; it stays in the table as REMOVED."""
    group = reserve([{"CPU": 1}])
    assert group.wait(WAIT_S)
    for _ in range(2):
        assert groups.remove_placement_group(group) is None
    eventually(lambda: state_of(group) == "REMOVED", WAIT_S)


def test_equality_and_hash(reserve: Reserve) -> None:
    """Groups are equal by id, also after a round trip through a task."""

    @ray.remote(num_cpus=0)
    def back(group: Any) -> Any:
        return group

    one, two = reserve([{"CPU": 1}]), reserve([{"CPU": 1}])
    assert one.wait(WAIT_S)
    assert two.wait(WAIT_S)
    assert ray.get(back.remote(one)) == one
    assert {one, ray.get(back.remote(one))} == {one}
    assert one != two


@pytest.mark.parametrize(
    ("bundles", "options"),
    [
        ([], {}),
        ([{}], {}),
        ([{"CPU": 0}], {}),
        ({"CPU": 1}, {}),
        ([{"CPU": "one"}], {}),
        ([{"CPU": 1}], {"strategy": "SCATTER"}),
        ([{"CPU": 1}], {"lifetime": "forever"}),
        ([{"CPU": 1}], {"bundle_label_selector": [{}, {}]}),
    ],
    ids=str,
)
def test_bad_groups(bundles: Any, options: dict[str, Any]) -> None:
    """Bundles without resources, and unknown strategies, are ValueErrors at once."""
    with pytest.raises(ValueError, match=r"[Bb]undle|strategy|lifetime"):
        groups.placement_group(bundles, **options)


def test_bad_use_of_a_group(reserve: Reserve) -> None:
    """An index that isn't there, or a request no bundle can hold, is a ValueError."""
    group = reserve([{"CPU": 0.5}, {"CPU": 2}])
    small = reserve([{"CPU": 0.5}])
    assert group.wait(WAIT_S)
    assert small.wait(WAIT_S)
    bad = [
        {"scheduling_strategy": InGroup(group, 7)},
        {"num_cpus": 3, "scheduling_strategy": InGroup(group)},
        {"scheduling_strategy": InGroup(group), "placement_group": group},
    ]
    for options in bad:
        with pytest.raises(ValueError, match=r"[Pp]lacement group"):
            where.options(**options).remote()
    # A default actor needs one CPU to be placed although it then holds none.
    with pytest.raises(ValueError, match="CPU"):
        Member.options(scheduling_strategy=InGroup(small)).remote()


def test_old_spelling(reserve: Reserve) -> None:
    """placement_group= and placement_group_bundle_index= still place a task."""
    group = reserve([{"CPU": 1}])
    options = {"placement_group": group, "placement_group_bundle_index": 0}
    assert ray.get(where.options(**options).remote(), timeout=WAIT_S)[0] is not None
