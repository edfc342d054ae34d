"""The node daemon's decisions: who gets a worker, who lends, who ends.

A scripted node: the test says what clients and processes do, and compares what the
machine says, as text and in order.  What a test did not expect fails it at its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from shoal._core.base.resources import ResourceSet
from shoal._core.node import machine as machine_module
from shoal._core.node.machine import DELAY_S, IDLE_RETIRE_S, NodeMachine
from shoal._core.node.worker_pool import EXITING, IDLE, LEASED, STARTING
from shoal._core.wire import node_messages as node
from shoal._core.wire.control_messages import ActorSpec
from shoal._core.wire.node_messages import (
    Blocked,
    CancelLeaseRequest,
    CreateObject,
    EnvironmentFailed,
    ExitQuery,
    FreeObjects,
    KillWorker,
    NodeQuery,
    PinObject,
    RequestLease,
    RetireRefused,
    ReturnLease,
    SealObject,
    SetupEnvironment,
    UnpinObjects,
    WorkerExiting,
)

JOB = b"job1"
DRIVER, OTHER = b"driver", b"other"
ACTOR = b"an actor's id 16"


def worker(number: int) -> bytes:
    """The id of the worker that was started as this one."""
    return b"w%d" % number


class Stage:
    """The port of a node machine, and the machine."""

    def __init__(self, cpus: int = 2, **resources: float) -> None:
        self.said: list[str] = []
        self.time = 100.0
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self._ids = count(1)
        #: actors that need no worker any more
        self.unneeded: dict[bytes, None] = {}
        #: placement groups wait for room
        self.groups_wait = False
        total = ResourceSet({"CPU": cpus, **resources})
        self.machine = NodeMachine(self, total, 1 << 20)
        for driver in (DRIVER, OTHER):
            self.machine.on_driver_joined(driver, JOB)

    # -- the port ----------------------------------------------------------------

    def send(self, client: bytes, message: object) -> None:
        self.said.append(f"{client.decode()}: {_text(message)}")

    def broadcast(self, message: object) -> None:
        self.said.append(f"all: {_text(message)}")

    def start_worker(self, worker_id: bytes, env: dict[str, Any]) -> None:
        self.said.append(f"start {worker_id.decode()}" + f" {env}" * bool(env))

    def kill(self, pid: int) -> None:
        self.said.append(f"kill {pid}")

    def call_at(self, when: float, action: Callable[[], None]) -> None:
        self.timers.append((when, action))

    def new_id(self) -> bytes:
        return worker(next(self._ids))

    def now(self) -> float:
        return self.time

    def actor_placed(self, actor_id: bytes, worker_id: bytes) -> bool:
        self.said.append(f"placed in {worker_id.decode()}")
        return actor_id not in self.unneeded

    def actor_waits(self, actor_id: bytes, reason: str) -> None:
        self.said.append("actor waits")

    def actor_unplaceable(self, actor_id: bytes, reason: str, kind: str) -> None:
        self.said.append(f"actor refused: {kind}, {reason}")

    def offer_room(self) -> bool:
        return self.groups_wait

    def is_group_gone(self, group_id: bytes) -> bool:
        return False

    # -- the script --------------------------------------------------------------

    def says(self) -> list[str]:
        said, self.said = self.said, []
        return said

    def hears(self, client: bytes, *messages: object) -> None:
        for message in messages:
            assert self.machine.on_message(client, message)
            self.machine.check()

    def ask(
        self,
        number: int,
        wanted: int = 1,
        *,
        cpus: float = 1,
        client: bytes = DRIVER,
        env: str = "",
        **demand: float,
    ) -> None:
        """Request workers."""
        units = ResourceSet({"CPU": cpus, **demand}).to_units()
        self.hears(client, RequestLease(number, units, env, wanted, "f"))

    def comes_up(self, *numbers: int) -> None:
        """Workers that were started say hello."""
        for number in numbers:
            assert self.machine.on_worker_ready(worker(number), 1000 + number)
            self.machine.check()

    def dies(self, number: int, status: int | None = -9) -> None:
        assert self.machine.on_worker_gone(worker(number), status)
        self.machine.check()

    def state(self, number: int) -> str:
        return self.machine.workers.workers[worker(number)].state

    def pass_time(self, seconds: float) -> None:
        self.time += seconds
        due = [timer for timer in self.timers if timer[0] <= self.time]
        self.timers = [timer for timer in self.timers if timer[0] > self.time]
        for _, action in due:
            action()
            self.machine.check()

    def free_cpus(self) -> float:
        return self.machine.pool.available.amount_of("CPU")


def _text(message: Any) -> str:
    match message:
        case node.LeaseGranted():
            gpus = f" gpus {message.gpu_ids}" if message.gpu_ids else ""
            address = bytes.fromhex(message.address).decode()
            return f"lease {message.lease} for {message.request} on {address}{gpus}"
        case node.LeaseRefused():
            return f"refused {message.request}: {message.kind}, {message.reason}"
        case node.DemandInfeasible():
            return f"infeasible {message.request}: {message.reason}"
        case node.LeaseDelayed():
            return f"delayed {message.request}"
        case node.ReclaimLeases():
            return "others wait"
        case node.WorkerGone():
            intended = " as intended" if message.intended else ""
            return f"{message.worker_id.decode()} {message.cause}{intended}"
        case node.ExitWorker():
            return f"exit, {message.reason}"
        case node.StartActor():
            return f"be actor {message.spec.class_name}, life {message.incarnation}"
        case node.ObjectCreated():
            return f"write {message.request} at {message.offset}{message.reason[:9]}"
        case node.ObjectPinned():
            return f"read {message.request} at {message.offset}"
    raise AssertionError(message)


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    assert stage.says() == []


def leased(stage: Stage, *, number: int = 1, **how: Any) -> None:
    """Lease 1 on w1 for a request of the driver."""
    stage.ask(number, **how)
    stage.comes_up(1)
    assert stage.says() == ["start w1", f"driver: lease 1 for {number} on w1"]


def spec(
    *, placement: float = 1, running: float = 0, env: str = "", **how: Any
) -> ActorSpec:
    units = [{"CPU": int(cpus * 10_000)} for cpus in (placement, running)]
    return ActorSpec(
        ACTOR, "00", "Counter", b"", b"", b"", [], *units, env=env, job_id=JOB, **how
    )


# -- requests and grants -------------------------------------------------------------


def test_a_request_starts_a_worker_and_is_granted_it(stage: Stage) -> None:
    stage.ask(1)
    assert stage.says() == ["start w1"]
    assert stage.free_cpus() == 2
    stage.comes_up(1)
    assert stage.says() == ["driver: lease 1 for 1 on w1"]
    assert stage.free_cpus() == 1
    assert stage.state(1) == LEASED


def test_a_worker_that_comes_back_is_used_again(stage: Stage) -> None:
    leased(stage)
    stage.hears(DRIVER, ReturnLease(1))
    assert stage.state(1) == IDLE
    stage.ask(2)
    assert stage.says() == ["driver: lease 2 for 2 on w1"]


def test_as_many_workers_start_as_the_resources_would_let_run(stage: Stage) -> None:
    stage.ask(1, wanted=10)
    assert stage.says() == ["start w1", "start w2"]
    stage.ask(1, wanted=10)
    assert stage.says() == []
    stage.comes_up(1, 2)
    assert stage.says() == [
        "driver: lease 1 for 1 on w1",
        "driver: others wait",
        "driver: lease 2 for 1 on w2",
        "driver: others wait",
    ]


def test_tasks_without_demand_start_a_few_workers_at_a_time(stage: Stage) -> None:
    stage.ask(1, wanted=100, cpus=0)
    assert stage.says() == [f"start w{number}" for number in (1, 2, 3, 4)]
    stage.comes_up(1)
    assert stage.says() == [
        "driver: lease 1 for 1 on w1",
        "start w5",
        "driver: others wait",
    ]


def test_requests_take_turns(stage: Stage) -> None:
    """Who was granted a worker goes to the end of the line."""
    stage.ask(1, wanted=3, cpus=2)
    stage.ask(1, wanted=2, cpus=2, client=OTHER)
    stage.ask(2, wanted=1, cpus=2)
    stage.comes_up(1)
    granted = []
    for lease, client in enumerate((DRIVER, OTHER, DRIVER, DRIVER, OTHER, DRIVER), 1):
        granted += [line for line in stage.says() if "lease" in line]
        stage.hears(client, ReturnLease(lease))
    assert granted == [
        "driver: lease 1 for 1 on w1",
        "other: lease 2 for 1 on w1",
        "driver: lease 3 for 2 on w1",
        "driver: lease 4 for 1 on w1",
        "other: lease 5 for 1 on w1",
        "driver: lease 6 for 1 on w1",
    ]
    stage.says()


def test_what_fits_goes_past_what_does_not(stage: Stage) -> None:
    leased(stage)
    stage.ask(2, cpus=2)
    assert stage.says() == ["driver: others wait"]
    stage.ask(3, client=OTHER)
    assert stage.says() == ["start w2"]
    stage.comes_up(2)
    assert stage.says() == ["other: lease 2 for 3 on w2", "other: others wait"]


def test_who_holds_leases_is_told_once_that_others_wait(stage: Stage) -> None:
    leased(stage, cpus=2)
    stage.ask(1, client=OTHER)
    assert stage.says() == ["driver: others wait"]
    stage.ask(2, client=OTHER)
    assert stage.says() == []
    stage.hears(DRIVER, ReturnLease(1))
    assert stage.says()[0] == "other: lease 2 for 1 on w1"


def test_placement_groups_that_wait_make_leases_come_back(stage: Stage) -> None:
    leased(stage)
    stage.groups_wait = True
    stage.machine.schedule()
    assert stage.says() == ["driver: others wait"]


def test_a_standing_request_may_grow(stage: Stage) -> None:
    stage.ask(1, wanted=1)
    stage.ask(1, wanted=2)
    stage.comes_up(1, 2)
    assert [line for line in stage.says() if "lease" in line] == [
        "driver: lease 1 for 1 on w1",
        "driver: lease 2 for 1 on w2",
    ]


def test_a_withdrawn_request_is_granted_nothing(stage: Stage) -> None:
    stage.ask(1)
    stage.hears(DRIVER, CancelLeaseRequest(1))
    stage.comes_up(1)
    assert stage.says() == ["start w1"]
    assert stage.state(1) == IDLE


def test_instances_of_gpus_are_named() -> None:
    stage = Stage(cpus=2, GPU=2)
    stage.ask(1, GPU=1)
    stage.ask(2, GPU=1)
    stage.comes_up(1, 2)
    assert [line for line in stage.says() if "lease" in line] == [
        "driver: lease 1 for 1 on w1 gpus [0]",
        "driver: lease 2 for 2 on w2 gpus [1]",
    ]


def test_a_lease_is_returned_by_who_holds_it_only(stage: Stage) -> None:
    leased(stage)
    stage.hears(OTHER, ReturnLease(1))
    stage.hears(DRIVER, ReturnLease(99))
    assert stage.free_cpus() == 1
    stage.hears(DRIVER, ReturnLease(1), ReturnLease(1))
    assert stage.free_cpus() == 2


def test_messages_for_others_are_not_taken(stage: Stage) -> None:
    assert not stage.machine.on_message(DRIVER, NodeQuery(1, "nodes"))


def test_a_client_that_is_leaving_asks_in_vain(stage: Stage) -> None:
    stage.ask(1, client=b"nobody")


# -- what no node can run --------------------------------------------------------------


def test_what_can_never_fit_is_told_once_and_waits(stage: Stage) -> None:
    stage.ask(1, cpus=3)
    (said,) = stage.says()
    assert said.startswith("driver: infeasible 1: The task f cannot be scheduled")
    assert "3 CPU" in said
    assert "2 CPU" in said
    stage.ask(1, wanted=2, cpus=3)
    assert stage.says() == []
    assert len(stage.machine.line) == 1


def test_an_infeasible_request_holds_up_nobody(stage: Stage) -> None:
    stage.ask(1, cpus=3)
    stage.says()
    leased(stage, number=2)


def test_an_actor_that_can_never_fit_is_told_to_the_control_store(
    stage: Stage,
) -> None:
    stage.machine.place_actor(spec(placement=5), 0)
    assert stage.says() == ["actor waits"]


# -- blocked workers -------------------------------------------------------------------


def test_a_worker_that_waits_lends_its_cpus(stage: Stage) -> None:
    leased(stage, cpus=2)
    stage.ask(2, client=worker(1), cpus=2)
    assert stage.says() == ["driver: others wait"]
    stage.hears(worker(1), Blocked(True))
    assert stage.says() == ["start w2"]
    stage.comes_up(2)
    assert stage.says() == ["w1: lease 2 for 2 on w2"]
    assert stage.free_cpus() == 0
    # It goes on although its CPUs are lent: a debt, until the other is done.
    stage.hears(worker(1), Blocked(False))
    assert stage.machine.pool.debt_of("CPU") == 2
    stage.hears(worker(1), ReturnLease(2))
    assert stage.machine.pool.debt_of("CPU") == 0
    assert stage.free_cpus() == 0


def test_saying_it_twice_lends_once(stage: Stage) -> None:
    leased(stage)
    stage.hears(worker(1), Blocked(True), Blocked(True))
    assert stage.free_cpus() == 2
    stage.hears(worker(1), Blocked(False), Blocked(False))
    assert stage.free_cpus() == 1


def test_who_has_no_lease_lends_nothing(stage: Stage) -> None:
    stage.hears(DRIVER, Blocked(True))
    leased(stage)
    stage.hears(DRIVER, ReturnLease(1))
    stage.hears(worker(1), Blocked(True), Blocked(False))
    assert stage.free_cpus() == 2


def test_a_return_may_overtake_the_workers_word_that_it_goes_on(stage: Stage) -> None:
    """The two travel on different connections."""
    leased(stage)
    stage.ask(2, wanted=2)
    stage.says()
    stage.hears(worker(1), Blocked(True))
    stage.comes_up(2)
    stage.says()
    stage.hears(DRIVER, ReturnLease(1))  # and w1 is granted again at once
    assert "driver: lease 3 for 2 on w1" in stage.says()
    stage.hears(worker(1), Blocked(False))
    assert stage.free_cpus() == 0
    assert stage.machine.blocked_count == 0
    stage.hears(worker(1), Blocked(True))
    assert stage.free_cpus() == 1
    stage.hears(worker(1), Blocked(False))


def test_a_blocked_worker_that_dies_leaves_the_books_right(stage: Stage) -> None:
    leased(stage)
    stage.hears(worker(1), Blocked(True))
    assert stage.machine.blocked_count == 1
    stage.dies(1)
    assert (stage.free_cpus(), stage.machine.blocked_count) == (2, 0)
    stage.says()


def test_beyond_many_blocked_workers_new_ones_start_slowly(stage: Stage) -> None:
    """A task that waits for its own child is asked to run it itself first."""
    limit = stage.machine._blocked_max
    stage.ask(1, wanted=limit)
    for number in range(1, limit + 1):
        stage.comes_up(number)
        stage.hears(worker(number), Blocked(True))
    stage.says()
    stage.ask(1, client=OTHER)
    assert stage.says() == ["other: delayed 1", "driver: others wait"]
    stage.ask(1, client=OTHER)
    stage.pass_time(DELAY_S / 2)
    assert stage.says() == []
    stage.pass_time(DELAY_S)
    assert stage.says() == [f"start w{limit + 1}"]


def test_actors_are_not_held_back(stage: Stage) -> None:
    stage.machine.blocked_count = stage.machine._blocked_max
    stage.machine.place_actor(spec(), 0)
    assert stage.says() == ["start w1"]


# -- ends of workers -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        (-9, "was killed by signal 9"),
        (3, "exited unexpectedly with code 3"),
        (None, "ended unexpectedly"),
    ],
)
def test_an_end_is_told_to_all_and_frees_what_it_held(
    stage: Stage, status: int | None, cause: str
) -> None:
    leased(stage)
    stage.dies(1, status)
    assert stage.says() == [f"all: w1 {cause}"]
    assert stage.free_cpus() == 2
    assert not stage.machine.leases
    assert stage.machine.on_worker_gone(worker(1), status) is None


def test_a_worker_that_died_is_replaced_while_somebody_waits(stage: Stage) -> None:
    stage.ask(1)
    stage.says()
    stage.dies(1)
    assert stage.says() == ["all: w1 was killed by signal 9", "start w2"]


def test_workers_that_run_for_a_dead_owner_are_killed(stage: Stage) -> None:
    leased(stage)
    stage.ask(5, client=worker(1))
    stage.comes_up(2)
    stage.ask(6, client=worker(1))
    stage.says()
    stage.dies(1)
    assert stage.says() == ["kill 1002", "all: w1 was killed by signal 9"]
    assert len(stage.machine.line) == 0
    stage.dies(2)
    cause = "was ended because the owner of its task died"
    assert stage.says() == [f"all: w2 {cause} as intended"]
    assert stage.free_cpus() == 2


def test_a_driver_that_leaves_takes_its_workers_with_it(stage: Stage) -> None:
    stage.machine.on_driver_joined(b"third", b"job3")
    stage.ask(1, client=b"third")
    stage.ask(2, client=b"third")
    stage.comes_up(1, 2)
    stage.hears(b"third", ReturnLease(2))
    stage.ask(3, client=b"third", cpus=2)
    stage.says()
    stage.machine.on_driver_gone(b"third", 7, "it hung up")
    assert stage.says() == [
        "kill 1002",
        "kill 1001",
        "all: third it hung up as intended",
    ]
    assert len(stage.machine.line) == 0
    stage.dies(1)
    stage.dies(2)
    assert stage.free_cpus() == 2
    stage.says()


def test_a_worker_is_killed_for_who_leased_it_only(stage: Stage) -> None:
    leased(stage)
    stage.hears(OTHER, KillWorker(1))
    stage.hears(DRIVER, KillWorker(99))
    assert stage.says() == []
    stage.hears(DRIVER, KillWorker(1))
    assert stage.says() == ["kill 1001"]
    stage.hears(DRIVER, ReturnLease(1))  # it is not given to anybody else
    assert stage.state(1) == EXITING
    stage.dies(1)
    assert stage.says() == ["all: w1 was killed to cancel its task"]


def test_a_worker_may_say_why_it_ends(stage: Stage) -> None:
    leased(stage)
    stage.hears(worker(1), WorkerExiting("left by itself", True))
    stage.dies(1, 0)
    assert stage.says() == ["all: w1 left by itself as intended"]


def test_how_a_worker_ended_can_be_asked(stage: Stage) -> None:
    leased(stage)
    stage.hears(DRIVER, ExitQuery(worker(1)))
    assert stage.says() == []  # it lives: the news of its end will answer
    stage.dies(1)
    stage.says()
    stage.hears(OTHER, ExitQuery(worker(1)), ExitQuery(worker(77)))
    assert stage.says() == [
        "other: w1 was killed by signal 9",
        "other: w77 ended long ago, cause unknown",
    ]


def test_ends_are_remembered_within_a_bound(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_module, "GONE_KEPT_MAX", 1)
    stage.ask(1, wanted=2)
    stage.comes_up(1, 2)
    stage.dies(1)
    stage.dies(2)
    assert list(stage.machine.gone) == [worker(2)]
    stage.says()


def test_who_was_not_started_here_is_not_expected(stage: Stage) -> None:
    assert not stage.machine.on_worker_ready(b"stranger", 1)
    leased(stage)
    assert not stage.machine.on_worker_ready(worker(1), 1)


def test_the_fork_server_says_which_process_a_worker_is(stage: Stage) -> None:
    stage.ask(1)
    stage.machine.on_worker_forked(worker(1), 55)
    stage.machine.on_worker_forked(b"stranger", 56)
    assert stage.machine.workers.workers[worker(1)].pid == 55
    stage.says()


# -- workers that are not needed -------------------------------------------------------


def test_a_worker_that_ran_its_last_task_is_asked_to_leave(stage: Stage) -> None:
    leased(stage)
    stage.hears(DRIVER, ReturnLease(1, retire=True))
    assert stage.says() == ["w1: exit, it has run its last task"]
    assert stage.free_cpus() == 2
    stage.ask(2)
    assert stage.says() == ["start w2"]
    stage.dies(1, 0)
    assert stage.says() == ["all: w1 it has run its last task as intended"]


def test_idle_workers_beyond_the_cpus_are_ended_after_a_while(stage: Stage) -> None:
    stage.machine.prestart(JOB, 3)
    stage.comes_up(3, 1, 2)
    stage.says()
    stage.machine.retire_idle()
    assert stage.says() == []
    stage.pass_time(IDLE_RETIRE_S)
    stage.machine.retire_idle()
    assert stage.says() == ["w3: exit, it was idle"]
    stage.machine.retire_idle()
    assert stage.says() == []


def test_a_worker_whose_objects_are_held_stays_and_is_asked_again(
    stage: Stage,
) -> None:
    stage.machine.prestart(JOB, 3)
    stage.comes_up(1, 2, 3)
    stage.pass_time(IDLE_RETIRE_S)
    stage.machine.retire_idle()
    stage.says()
    stage.hears(worker(1), RetireRefused())
    stage.hears(worker(2), RetireRefused())  # it was not asked
    assert stage.state(2) == IDLE
    stage.machine.retire_idle()
    assert stage.says() == []
    stage.pass_time(IDLE_RETIRE_S)
    stage.machine.retire_idle()
    assert stage.says() == ["w1: exit, its objects are no longer held"]
    stage.dies(1, 0)
    assert stage.says() == ["all: w1 its objects are no longer held as intended"]


def test_workers_are_listed(stage: Stage) -> None:
    stage.ask(1)
    stage.says()
    assert stage.machine.describe_workers() == [
        {
            "worker_id": worker(1).hex(),
            "pid": 0,
            "state": STARTING,
            "job_id": JOB.hex(),
            "env": "",
            "is_blocked": False,
        }
    ]


# -- environments ----------------------------------------------------------------------


def test_workers_are_kept_by_environment(stage: Stage) -> None:
    stage.hears(DRIVER, SetupEnvironment("e", {"env_vars": {}}))
    stage.ask(1)
    stage.ask(2, env="e")
    assert stage.says() == ["start w1", "start w2 {'env_vars': {}}"]
    stage.comes_up(2, 1)
    assert stage.says() == [
        "driver: lease 1 for 2 on w2",
        "driver: others wait",
        "driver: lease 2 for 1 on w1",
    ]


def test_an_environment_that_cannot_be_made_refuses_what_waits_for_it(
    stage: Stage,
) -> None:
    stage.hears(DRIVER, SetupEnvironment("e", {"pip": ["x"]}))
    stage.ask(1, env="e")
    stage.ask(2, client=OTHER, env="e")
    stage.machine.place_actor(spec(env="e"), 0)
    stage.ask(3)
    stage.says()
    stage.hears(worker(1), EnvironmentFailed("e", "no such thing"))
    assert stage.says() == [
        "driver: refused 1: environment, no such thing",
        "other: refused 2: environment, no such thing",
        "actor refused: environment, no such thing",
    ]
    assert stage.state(1) == EXITING
    assert [request.number for request in stage.machine.line] == [3]


# -- actors ----------------------------------------------------------------------------


def test_an_actor_needs_more_to_be_placed_than_it_holds(stage: Stage) -> None:
    leased(stage, cpus=2)
    stage.machine.place_actor(spec(), 0)
    assert stage.says() == ["driver: others wait"]
    stage.hears(DRIVER, ReturnLease(1))
    assert stage.says() == ["placed in w1", "w1: be actor Counter, life 0"]
    assert stage.free_cpus() == 2


def test_an_actor_that_is_over_before_it_is_placed_frees_its_worker(
    stage: Stage,
) -> None:
    stage.unneeded[ACTOR] = None
    stage.machine.place_actor(spec(running=1), 0)
    stage.comes_up(1)
    assert stage.says() == ["start w1", "placed in w1"]
    assert (stage.state(1), stage.free_cpus()) == (IDLE, 2)


def test_an_actor_that_waits_may_be_withdrawn(stage: Stage) -> None:
    stage.machine.place_actor(spec(), 0)
    stage.machine.unplace_actor(ACTOR)
    stage.machine.unplace_actor(ACTOR)
    stage.comes_up(1)
    assert stage.says() == ["start w1"]


def test_holders_of_actors_are_not_asked_for_them(stage: Stage) -> None:
    stage.machine.place_actor(spec(running=2), 0)
    stage.comes_up(1)
    stage.says()
    stage.ask(1)
    assert stage.says() == []


@pytest.mark.parametrize("graceful", [True, False])
def test_an_actor_is_ended_gently_or_at_once(stage: Stage, graceful: bool) -> None:
    stage.machine.place_actor(spec(running=1), 3)
    stage.comes_up(1)
    stage.says()
    stage.machine.end_worker(worker(1), graceful=graceful, reason="no handle is left")
    assert stage.says() == ["w1: exit, no handle is left" if graceful else "kill 1001"]
    stage.machine.end_worker(worker(9), graceful=graceful, reason="it is gone")
    stage.dies(1)
    assert stage.says() == ["all: w1 no handle is left"]
    assert stage.free_cpus() == 2


# -- objects ---------------------------------------------------------------------------


def test_objects_are_written_read_and_freed(stage: Stage) -> None:
    owner = DRIVER.hex()
    stage.hears(DRIVER, CreateObject(1, b"x", 100, owner), SealObject(b"x"))
    stage.hears(OTHER, PinObject(2, b"x"))
    stage.hears(DRIVER, FreeObjects([b"x"]))
    stage.hears(OTHER, PinObject(3, b"x"), UnpinObjects([b"x"]))
    assert stage.says() == [
        "driver: write 1 at 0",
        "other: read 2 at 0",
        "other: read 3 at -1",
    ]
    assert stage.machine.objects.describe()["object_count"] == 0


def test_what_a_dead_worker_owned_is_freed(stage: Stage) -> None:
    leased(stage)
    owner = worker(1).hex()
    stage.hears(DRIVER, CreateObject(1, b"x", 100, owner), SealObject(b"x"))
    stage.dies(1)
    assert stage.machine.objects.describe()["object_count"] == 0
    stage.says()
