"""Nothing is freed while anybody holds it, and everything is freed in the end.

Several processes, each with the owner machine of the real system, are wired by links
that keep the order of each direction and nothing else: which link delivers next is
drawn by chance, so messages of different processes overtake one another freely.  The
processes put objects (inline and in the store, with refs inside), pass refs as task
arguments (alone and inside values), return and yield them, nest tasks, keep refs
beyond a task, drop them, and are killed.

What is simplified: a process that is killed has its last messages delivered before
anybody hears of its end (a local socket keeps them), and the processes that run its
tasks are killed with it (the node does so).  Refs that were arguments of such tasks are
not checked any more: who lent them is dead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from shoal._core.owner.calls import STREAMING, CallTemplate, Channel, TaskRecord
from shoal._core.owner.machine import Owner
from shoal._core.owner.references import (
    FAILED,
    PENDING,
    READY_INLINE,
    READY_STORED,
)
from shoal._core.wire.control_messages import ALIVE, DEAD, ActorUpdate
from shoal._core.wire.frame import FrameReader, decoder, encode
from shoal._core.wire.node_messages import FreeObjects, WorkerGone
from shoal._core.wire.worker_messages import (
    IN_STORE,
    INLINE,
    METHOD,
    PEER_MESSAGES,
    Callable_,
    PushTask,
    StreamAck,
    StreamDropped,
    StreamItem,
    TaskDone,
    TaskResult,
    Value,
)

Ref = tuple[bytes, str]

_decode = decoder(PEER_MESSAGES)


def payload(refs: list[Ref]) -> bytes:
    """A value that is nothing but the refs inside it."""
    return msgspec.msgpack.encode(refs)


def refs_in(data: bytes) -> list[Ref]:
    return msgspec.msgpack.decode(data, type=list[tuple[bytes, str]])


class Link:
    """One direction between two processes."""

    context = None

    def __init__(self) -> None:
        self.queue: deque[Any] = deque()

    def send(self, message: object) -> None:
        # Through the wire's form, so that the two ends share no state.
        (arrived,) = FrameReader(_decode).feed(encode(message))
        self.queue.append(arrived)

    def send_frame(self, frame: bytes) -> None:
        raise AssertionError("not used here")


@dataclass(eq=False)
class Running:
    """A task that runs in a process."""

    caller: str
    message: PushTask
    is_stream: bool
    frame: list[Ref] = field(default_factory=list)
    arrivals: list[bytes] = field(default_factory=list)
    yielded: int = 0


class Process:
    """One process: the real owner machine, and the simplest executor."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.address = number.to_bytes(16, "big").hex()
        self.owner = Owner(self)
        self.refs = self.owner.refs
        self.refs.arrivals = self._arrivals
        self.running: list[Running] = []
        self.now_running: Running | None = None
        #: refs kept beyond tasks: a driver's variables, an actor's state
        self.kept: list[Ref] = []
        #: records of streams this process consumes
        self.streams: list[TaskRecord] = []
        self._callables: dict[tuple[str, int], Callable_] = {}

    def _arrivals(self) -> list[bytes] | None:
        task = self.now_running
        return None if task is None else task.arrivals

    # -- the port ----------------------------------------------------------------

    def link(self, address: str) -> Link | None:
        link = self.world.link(self.address, address)
        if link is not None and address not in self.owner.channels:
            self.owner.channels[address] = Channel(address, link)
        return link

    def send_node(self, message: object) -> None:
        if isinstance(message, FreeObjects):
            for object_id in message.object_ids:
                self.world.store.pop(object_id, None)

    def now(self) -> float:
        return 0.0

    def call_at(self, when: float, action: Any) -> None:
        raise AssertionError("no leases here, so no timers")

    def warn(self, text: str) -> None:
        return

    # -- what programs do --------------------------------------------------------

    def scope(self, task: Running | None) -> list[Ref]:
        """Where the program's refs are: in a task's frame, or kept."""
        return self.kept if task is None else task.frame

    def rebuild(self, refs: list[Ref], task: Running | None) -> None:
        self.now_running = task
        for object_id, owner in refs:
            self.refs.on_rebuilt(object_id, owner)
            self.scope(task).append((object_id, owner))
        self.now_running = None

    def put(self, inner: list[Ref], task: Running | None, *, stored: bool) -> None:
        object_id = self.world.new_object_id()
        entry = self.refs.own(object_id)
        if inner:
            entry.inner = [ref[0] for ref in inner]
            for ref in inner:
                self.refs.hold(ref[0])
        if stored:
            self.world.store[object_id] = payload(inner)
            entry.state = READY_STORED
            entry.data = bytes(8)
        else:
            entry.state = READY_INLINE
            entry.data = payload(inner)
        self.world.inside[object_id] = list(inner)
        self.scope(task).append((object_id, self.address))

    def get(self, ref: Ref, task: Running | None) -> None:
        entry = self.refs.entries[ref[0]]
        if entry.state == PENDING:
            self.refs.fetch(entry)
        if entry.state in (PENDING, FAILED):
            return
        data = entry.data if entry.state == READY_INLINE else self.world.store[ref[0]]
        self.rebuild(refs_in(data), task)

    def call(
        self,
        target: str,
        deps: list[Ref],
        nested: list[Ref],
        task: Running | None,
        *,
        is_stream: bool = False,
    ) -> None:
        actor_id = bytes.fromhex(target)
        calls = self.owner.actor(actor_id, "A", is_ordered=False)
        if calls.incarnation < 0:
            calls.on_update(ActorUpdate(actor_id, ALIVE, target, 0))
        template = self.world.stream_call if is_stream else self.world.call
        task_id = self.world.new_object_id()[:24]
        record = TaskRecord(task_id, template, payload(nested), calls)
        record.actor = calls
        record.deps = [(place, ref[0]) for place, ref in enumerate(deps)] or None
        record.holds = [ref[0] for ref in deps + nested] or None
        entry = self.owner.tasks.submit(record)
        self.scope(task).append((entry.object_id, self.address))
        if is_stream:
            self.streams.append(record)

    def take(self, record: TaskRecord) -> None:
        object_id = self.owner.tasks.take_item(record)
        if object_id is not None:
            self.kept.append((object_id, self.address))

    def drop_stream(self, record: TaskRecord) -> None:
        self.streams.remove(record)
        self.owner.tasks.drop_stream(record)

    def drop(self, scope: list[Ref], index: int) -> None:
        self.refs.release(scope.pop(index)[0])

    # -- what executors do -------------------------------------------------------

    def receive(self, sender: str, message: Any) -> None:
        channel = self.owner.channel_to(sender)
        assert channel is not None
        if self.owner.on_peer(channel, message):
            self.owner.tasks.drain()
        elif isinstance(message, Callable_):
            self._callables[sender, message.number] = message
        elif isinstance(message, PushTask):
            self._begin(sender, message)
        else:
            assert isinstance(message, StreamAck | StreamDropped)

    def _begin(self, sender: str, message: PushTask) -> None:
        returns = self._callables[sender, message.number].returns
        task = Running(sender, message, returns == STREAMING)
        self.running.append(task)
        self.rebuild(refs_in(message.args), task)
        for _, object_id, _, value in message.deps or ():
            self.rebuild(refs_in(self._bytes_of(object_id, value)), task)

    def _bytes_of(self, object_id: bytes, value: Value) -> bytes:
        if value.kind == INLINE:
            return value.data
        if object_id in self.world.unsafe:
            return self.world.store.get(object_id, payload([]))
        return self.world.store[object_id]

    def _pack(
        self, task: Running, object_id: bytes, refs: list[Ref], stored: bool
    ) -> Value:
        self.world.inside[object_id] = list(refs)
        if refs:
            self.refs.hand_over(refs, task.caller)
        data = payload(refs)
        if stored:
            self.world.store[object_id] = data
            return Value(IN_STORE, bytes(8), len(data), refs or None)
        return Value(INLINE, data, len(data), refs or None)

    def yield_item(self, task: Running, refs: list[Ref], *, stored: bool) -> None:
        object_id = task.message.task_id + (task.yielded + 2).to_bytes(4, "little")
        value = self._pack(task, object_id, refs, stored)
        self._answer(task, StreamItem(task.message.seq, task.yielded, value))
        task.yielded += 1

    def finish(self, task: Running, returned: list[Ref], *, stored: bool) -> None:
        self.running.remove(task)
        object_id = task.message.task_id + b"\1\0\0\0"
        value = self._pack(task, object_id, returned, stored)
        while task.frame:
            self.drop(task.frame, -1)
        borrowed = None
        if task.arrivals:
            borrowed = self.refs.still_borrowed(task.arrivals)
        seq = task.message.seq
        if value.kind == INLINE and not returned and not task.arrivals:
            self._answer(task, TaskDone(seq, value.data, 1))
        else:
            length = task.yielded if task.is_stream else -1
            result = TaskResult(seq, [value], 1, borrowed, stream_length=length)
            self._answer(task, result)

    def _answer(self, task: Running, message: object) -> None:
        link = self.link(task.caller)
        if link is not None:
            link.send(message)


class World:
    """All processes and what is under way between them."""

    def __init__(self, process_count: int) -> None:
        self.call = _template(1)
        self.stream_call = _template(STREAMING)
        self._numbers = count(1)
        self._links: dict[tuple[str, str], Link] = {}
        self.store: dict[bytes, bytes] = {}
        #: object -> refs inside it, for ever
        self.inside: dict[bytes, list[Ref]] = {}
        #: objects whose lender died: nobody promises anything
        self.unsafe: dict[bytes, None] = {}
        self.living: dict[str, Process] = {}
        for number in range(1, process_count + 1):
            process = Process(self, number)
            self.living[process.address] = process

    def new_object_id(self) -> bytes:
        return next(self._numbers).to_bytes(24, "big") + b"\xf5\0\0\1"

    def link(self, source: str, target: str) -> Link | None:
        if target not in self.living:
            return None
        return self._links.setdefault((source, target), Link())

    def address(self, number: int) -> str:
        """The process of a number, from 0."""
        return (number + 1).to_bytes(16, "big").hex()

    def busy_links(self) -> list[tuple[str, str]]:
        return [key for key, link in self._links.items() if link.queue]

    def deliver(self, source: str, target: str) -> None:
        message = self._links[source, target].queue.popleft()
        if target in self.living:
            self.living[target].receive(source, message)

    def deliver_all(self) -> None:
        while busy := self.busy_links():
            self.deliver(*busy[0])

    def kill(self, address: str) -> None:
        doomed = self._doomed_with(address)
        if len(doomed) > len(self.living) - 2:
            return
        for one in doomed:
            self._distrust_arguments(self.living[one])
        while last := [link for link in self.busy_links() if link[0] in doomed]:
            self.deliver(*last[0])
        for one in doomed:
            del self.living[one]
        for one in doomed:
            for process in self.living.values():
                self._hear_of_end(process, one)

    def _doomed_with(self, address: str) -> list[str]:
        """The process and, on and on, those that run tasks of it."""
        doomed = [address]
        for one in doomed:
            for process in self.living.values():
                runs = any(task.caller == one for task in process.running)
                if runs and process.address not in doomed:
                    doomed.append(process.address)
        return doomed

    def _distrust_arguments(self, dead: Process) -> None:
        found = []
        for record in dead.owner.tasks.pending.values():
            found += record.holds or []
        while found:
            object_id = found.pop()
            if object_id not in self.unsafe:
                self.unsafe[object_id] = None
                found += [ref[0] for ref in self.inside.get(object_id, ())]

    def _hear_of_end(self, process: Process, dead: str) -> None:
        worker_id = bytes.fromhex(dead)
        process.owner.on_link_lost(dead)
        process.owner.on_node(WorkerGone(worker_id, 1, -9, False, "was killed"))
        process.owner.on_node(ActorUpdate(worker_id, DEAD, dead, 0, "was killed"))
        process.owner.tasks.drain()

    def check(self) -> None:
        for process in self.living.values():
            process.owner.check()
            scopes = [process.kept, *(task.frame for task in process.running)]
            for object_id, owner in (ref for scope in scopes for ref in scope):
                assert object_id in process.refs.entries, "a held ref is unknown"
                self._check_is_alive(object_id, owner)

    def _check_is_alive(self, object_id: bytes, owner: str) -> None:
        if owner not in self.living or object_id in self.unsafe:
            return
        entry = self.living[owner].refs.entries.get(object_id)
        assert entry is not None, f"{object_id.hex()} was freed while it was held"
        if entry.state == READY_STORED:
            assert object_id in self.store, "its bytes were freed while it was held"

    def wind_up(self) -> None:
        """Let every task end, drop every ref, deliver everything."""
        self.deliver_all()
        while any(process.running for process in self.living.values()):
            for process in list(self.living.values()):
                for task in list(process.running):
                    process.finish(task, [], stored=False)
            self.deliver_all()
        for process in self.living.values():
            for record in list(process.streams):
                process.drop_stream(record)
            while process.kept:
                process.drop(process.kept, -1)
        self.deliver_all()

    def check_is_empty(self) -> None:
        dead_owned = [
            object_id
            for object_id in self.store
            if not any(object_id in p.refs.entries for p in self.living.values())
        ]
        for process in self.living.values():
            assert not process.owner.tasks.pending
            assert not process.refs.entries, process.refs.entries
            assert not process.refs.lent, process.refs.lent
        if not self.unsafe and len(self.living) == PROCESS_COUNT:
            assert not dead_owned


def _template(returns: int) -> CallTemplate:
    return CallTemplate(Callable_(0, METHOD, b"k", "m", returns=returns), 0)


Program = tuple[Process, Running | None]

PROCESS_COUNT = 4
Pick = st.integers(0, 1 << 16)
Picks = st.lists(Pick, max_size=2)


def choose(pick: int, among: list[Any]) -> Any:
    return among[pick % len(among)]


def choose_some(picks: list[int], among: list[Any]) -> list[Any]:
    if not among:
        return []
    return list(dict.fromkeys(choose(pick, among) for pick in picks))


class Borrowing(RuleBasedStateMachine):
    """Programs and links at random; a rule that finds nothing to do does nothing."""

    @initialize()
    def begin(self) -> None:
        self.world = World(PROCESS_COUNT)

    def _programs(self) -> list[Program]:
        """Every place where code runs: outside of tasks, and in each task."""
        return [
            (process, task)
            for process in self.world.living.values()
            for task in (None, *process.running)
        ]

    def _holders(self) -> list[Program]:
        return [one for one in self._programs() if one[0].scope(one[1])]

    def _tasks(self) -> list[tuple[Process, Running]]:
        return [
            (process, task)
            for process in self.world.living.values()
            for task in process.running
        ]

    def _streams(self) -> list[tuple[Process, TaskRecord]]:
        return [
            (process, record)
            for process in self.world.living.values()
            for record in process.streams
        ]

    @rule(who=Pick, inner=Picks, stored=st.booleans())
    def put(self, who: int, inner: list[int], stored: bool) -> None:
        process, task = choose(who, self._programs())
        process.put(choose_some(inner, process.scope(task)), task, stored=stored)

    @rule(who=Pick, ref=Pick)
    def get(self, who: int, ref: int) -> None:
        if holders := self._holders():
            process, task = choose(who, holders)
            process.get(choose(ref, process.scope(task)), task)

    @rule(who=Pick, to=Pick, deps=Picks, nested=Picks, is_stream=st.booleans())
    def call(
        self, who: int, to: int, deps: list[int], nested: list[int], is_stream: bool
    ) -> None:
        process, task = choose(who, self._holders() or self._programs())
        others = [one for one in self.world.living if one != process.address]
        scope = process.scope(task)
        process.call(
            choose(to, others),
            choose_some(deps, scope),
            choose_some(nested, scope),
            task,
            is_stream=is_stream,
        )

    @rule(who=Pick, ref=Pick)
    def drop(self, who: int, ref: int) -> None:
        if holders := self._holders():
            process, task = choose(who, holders)
            scope = process.scope(task)
            process.drop(scope, ref % len(scope))

    @rule(who=Pick, ref=Pick)
    def keep_beyond_the_task(self, who: int, ref: int) -> None:
        if tasks := [one for one in self._tasks() if one[1].frame]:
            process, task = choose(who, tasks)
            process.kept.append(task.frame.pop(ref % len(task.frame)))

    @rule(who=Pick, refs=Picks, stored=st.booleans())
    def finish(self, who: int, refs: list[int], stored: bool) -> None:
        if tasks := self._tasks():
            process, task = choose(who, tasks)
            returned = [] if task.is_stream else choose_some(refs, task.frame)
            process.finish(task, returned, stored=stored)

    @rule(who=Pick, refs=Picks, stored=st.booleans())
    def yield_item(self, who: int, refs: list[int], stored: bool) -> None:
        if tasks := [one for one in self._tasks() if one[1].is_stream]:
            process, task = choose(who, tasks)
            process.yield_item(task, choose_some(refs, task.frame), stored=stored)

    @rule(who=Pick)
    def take_item(self, who: int) -> None:
        if streams := self._streams():
            process, record = choose(who, streams)
            process.take(record)

    @rule(who=Pick)
    def drop_stream(self, who: int) -> None:
        if streams := self._streams():
            process, record = choose(who, streams)
            process.drop_stream(record)

    @rule(picks=st.lists(Pick, min_size=1, max_size=6))
    def deliver(self, picks: list[int]) -> None:
        for pick in picks:
            if busy := self.world.busy_links():
                self.world.deliver(*choose(pick, busy))
                self.world.check()

    @rule(who=Pick, chance=st.integers(0, 3))
    def kill(self, who: int, chance: int) -> None:
        if not chance:
            self.world.kill(choose(who, list(self.world.living)))

    @invariant()
    def is_sound(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        self.world.wind_up()
        self.world.check_is_empty()


TestBorrowing = Borrowing.TestCase
TestBorrowing.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None
)


# -- short programs whose messages arrive in many orders -------------------------------

Step = Callable[[Process], bool]


def task_step(action: Callable[[Process, Running], None]) -> Step:
    """Do something in the task that runs in the process, once one does."""

    def step(process: Process) -> bool:
        if not process.running:
            return False
        action(process, process.running[0])
        return True

    return step


def put_and_lend(to: int) -> Step:
    """Put an object, have a task of another process hold it, and drop it."""

    def step(process: Process) -> bool:
        process.put([], None, stored=False)
        process.call(process.world.address(to), [], process.kept[:1], None)
        process.drop(process.kept, 0)
        return True

    return step


def pass_on(to: int, *, is_stream: bool = False) -> Step:
    """Call another process with the first ref of the task."""
    return task_step(
        lambda process, task: process.call(
            process.world.address(to), [], task.frame[:1], task, is_stream=is_stream
        )
    )


def keep_and_pass_on(to: int) -> Step:
    """Keep the ref, end the task, call another process with it, and drop it."""

    def step(process: Process) -> bool:
        if not process.running:
            return False
        keep_and_finish(process)
        process.call(process.world.address(to), [], process.kept[:1], None)
        process.drop(process.kept, 0)
        return True

    return step


@task_step
def keep_and_finish(process: Process, task: Running) -> None:
    process.kept.append(task.frame.pop(0))
    process.finish(task, [], stored=False)


@task_step
def finish(process: Process, task: Running) -> None:
    process.finish(task, [], stored=False)


def finish_when_answered(process: Process) -> bool:
    """End the task once the calls it made are done."""
    return not process.owner.tasks.pending and finish(process)


@task_step
def give_back(process: Process, task: Running) -> None:
    process.finish(task, task.frame[:1], stored=False)


@task_step
def yield_it_and_finish(process: Process, task: Running) -> None:
    process.yield_item(task, task.frame[:1], stored=False)
    process.finish(task, [], stored=False)


def take_item_and_get(process: Process) -> bool:
    """Take what another process yields, and keep the ref inside."""
    process.take(process.streams[0])
    if not process.kept:
        return False
    process.get(process.kept[0], None)
    return True


#: What each process does, step by step.
PROGRAMS: dict[str, list[list[Step]]] = {
    "an executor hands a loan on and keeps nothing": [
        [put_and_lend(1)],
        [keep_and_pass_on(2)],
        [pass_on(3), finish_when_answered],
        [keep_and_finish],
    ],
    "an executor returns a loan to a borrower": [
        [put_and_lend(1)],
        [keep_and_pass_on(2)],
        [give_back],
    ],
    "an executor is given its own loan back": [
        [put_and_lend(1)],
        [pass_on(2, is_stream=True), take_item_and_get, finish],
        [yield_it_and_finish],
    ],
    "a loan goes round": [
        [put_and_lend(1)],
        [pass_on(2), finish],
        [pass_on(3), finish],
        [pass_on(1), finish],
    ],
}


def advance(program: tuple[Process, list[Step]]) -> bool:
    """Do a process's next step, if it can be done yet."""
    process, steps = program
    if not steps or not steps[0](process):
        return False
    del steps[0]
    return True


def play(world: World, programs: list[tuple[Process, list[Step]]], seed: int) -> None:
    """Steps of programs and deliveries, in an order drawn by chance."""
    chance = Random(seed)
    while world.busy_links() or any(map(advance, programs)):
        which = chance.randrange(len(programs) + len(world.busy_links()))
        if which < len(programs):
            advance(programs[which])
        else:
            world.deliver(*world.busy_links()[which - len(programs)])
        world.check()


@pytest.mark.parametrize("name", PROGRAMS)
def test_any_order_of_delivery_is_safe(name: str) -> None:
    for seed in range(200):
        world = World(4)
        programs = [
            (world.living[world.address(number)], list(steps))
            for number, steps in enumerate(PROGRAMS[name])
        ]
        play(world, programs, seed)
        assert not any(steps for _, steps in programs), "the program is stuck"
        world.wind_up()
        world.check_is_empty()
