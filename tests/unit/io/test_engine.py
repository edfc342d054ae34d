"""The engine: connections, timers, and which thread serves them.

Real socket pairs, real threads; nothing here waits for time to pass unless that is what
it is about, and then milliseconds.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import pytest

from shoal._core.io.connection import Connection
from shoal._core.io.engine import HEARTBEAT_S, Engine, Waiter
from shoal._core.wire.frame import decoder, encode
from shoal._core.wire.worker_messages import PEER_MESSAGES, GetValue

DEADLINE_S = 10.0
decode = decoder(PEER_MESSAGES)


def message(name: str) -> GetValue:
    return GetValue(name.encode())


def frame(name: str) -> bytes:
    return encode(message(name))


def soon() -> float:
    return monotonic() + DEADLINE_S


def eventually(predicate: Callable[[], object], why: str) -> None:
    """Look until something is so."""
    end = soon()
    pause = threading.Event()
    while not predicate():
        assert monotonic() < end, why
        pause.wait(0.0005)


class Rig:
    """An engine, the far ends of its connections, and what happened."""

    def __init__(self) -> None:
        self.engine = Engine("test")
        self.arrived: list[str] = []
        self.closed: list[str] = []
        #: waits that end with the message of their name
        self.waits: dict[str, Waiter] = {}
        self._far: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def connect(self) -> tuple[Connection, socket.socket]:
        near, far = socket.socketpair()
        self._far.append(far)
        connection = self.engine.add(near, decode, self.on_message, self.on_close)
        far.settimeout(DEADLINE_S)
        return connection, far

    def on_message(self, connection: Connection, message: Any) -> None:
        name = message.object_id.decode()
        self.arrived.append(name)
        if name in self.waits:
            self.waits[name].arrived()

    def on_close(self, connection: Connection, reason: str) -> None:
        self.closed.append(reason)

    def waiter(self, name: str) -> Waiter:
        waiter = self.waits[name] = Waiter()
        return waiter

    def wait_in_thread(self, name: str) -> tuple[threading.Thread, list[bool]]:
        """Wait for a message in a thread of its own; its result comes in the list."""
        waiter, results = self.waiter(name), list[bool]()
        thread = self.run(lambda: results.append(self.engine.wait(waiter, soon())))
        return thread, results

    def run(self, target: Callable[[], object]) -> threading.Thread:
        thread = threading.Thread(target=target, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def leads(self) -> bool:
        return self.engine._lead.locked()

    def follow_count(self) -> int:
        return len(self.engine._followers)

    def end(self) -> None:
        self.engine.close()
        for thread in self._threads:
            join(thread)
        for connection in self.engine.connections():
            connection.sock.close()
        for far in self._far:
            far.close()


def join(thread: threading.Thread) -> None:
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


def receive(far: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += far.recv(1 << 20)
    return data


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.end()


# -- reading and writing ---------------------------------------------------------------


def test_messages_arrive_in_order(rig: Rig) -> None:
    _, far = rig.connect()
    far.sendall(frame("a") + frame("b") + frame("c")[:3])
    rig.engine.turn(1)
    assert rig.arrived == ["a", "b"]
    far.sendall(frame("c")[3:])
    rig.engine.turn(1)
    assert rig.arrived == ["a", "b", "c"]


def test_what_is_sent_leaves_at_the_end_of_the_turn(rig: Rig) -> None:
    connection, far = rig.connect()
    far.setblocking(False)
    for name in ("a", "b", "c"):
        connection.send(message(name))
    with pytest.raises(BlockingIOError):
        far.recv(100)
    rig.engine.turn(0)
    assert far.recv(100) == frame("a") + frame("b") + frame("c")


def test_answers_leave_in_the_turn_of_the_question(rig: Rig) -> None:
    connection, far = rig.connect()
    connection.on_message = lambda one, got: one.send(got)
    far.sendall(frame("a"))
    rig.engine.turn(1)
    assert far.recv(100) == frame("a")


def test_what_the_socket_does_not_take_goes_on_in_order(rig: Rig) -> None:
    connection, far = rig.connect()
    large = encode(GetValue(b"x" * (4 << 20)))
    connection.send_frame(large)
    rig.engine.flush()
    assert 0 < connection.unsent_bytes < len(large)
    connection.send(message("behind"))
    rig.engine.flush()
    data: list[bytes] = []
    expected = large + frame("behind")
    reader = rig.run(lambda: data.append(receive(far, len(expected))))
    end = soon()
    while connection.unsent_bytes:
        assert monotonic() < end
        rig.engine.turn(0.1)
    join(reader)
    assert data == [expected]
    connection.send(message("later"))
    rig.engine.flush()
    assert far.recv(100) == frame("later")


def test_a_hang_up_is_told_once(rig: Rig) -> None:
    connection, far = rig.connect()
    assert rig.engine.connections() == [connection]
    far.close()
    rig.engine.turn(1)
    connection.close("again")
    assert rig.closed == ["the other side hung up"]
    assert not connection.is_open
    assert rig.engine.connections() == []
    connection.send(message("a"))
    rig.engine.turn(0)  # what is sent to nobody is nothing


def test_last_words_are_heard_though_nothing_can_be_written(rig: Rig) -> None:
    connection, far = rig.connect()
    far.sendall(frame("last"))
    far.close()
    connection.send(message("a"))
    rig.engine.flush()
    assert rig.closed == []
    eventually(lambda: rig.engine.turn(0.1) or rig.closed, "it has hung up")
    assert rig.arrived == ["last"]
    assert len(rig.closed) == 1


def test_who_sends_no_frames_is_hung_up_on(rig: Rig) -> None:
    _, far = rig.connect()
    far.sendall(frame("a") + b"\x02\0\0\0\xc1\xc1")
    rig.engine.turn(1)
    (reason,) = rig.closed
    assert "holds no known message" in reason
    assert far.recv(100) == b""


def test_what_comes_behind_a_hang_up_of_ours_is_not_heard(rig: Rig) -> None:
    connection, far = rig.connect()

    def on_message(one: Connection, got: Any) -> None:
        rig.on_message(one, got)
        one.close("enough")

    connection.on_message = on_message
    far.sendall(frame("a") + frame("b"))
    rig.engine.turn(1)
    assert (rig.arrived, rig.closed) == (["a"], ["enough"])


def test_a_handler_that_raises_is_told_of_and_the_rest_goes_on(
    rig: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    connection, far = rig.connect()

    def on_message(one: Connection, got: Any) -> None:
        rig.on_message(one, got)
        if got.object_id == b"a":
            raise RuntimeError("a bug of ours")

    connection.on_message = on_message
    far.sendall(frame("a") + frame("b"))
    rig.engine.turn(1)
    assert rig.arrived == ["a", "b"]
    told = capsys.readouterr().err
    assert "shoal internal error in test" in told
    assert "a bug of ours" in told
    assert connection.is_open


def test_listening_sockets_and_other_descriptors(rig: Rig) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    accepted: list[socket.socket] = []
    rig.engine.listen(listener, accepted.append)
    reader, writer = os.pipe()
    events: list[int] = []
    rig.engine.add_reader(reader, events.append)
    try:
        with socket.create_connection(listener.getsockname()):
            rig.engine.turn(1)
            assert len(accepted) == 1
            accepted[0].close()
        os.write(writer, b"x")
        rig.engine.turn(1)
        assert len(events) == 1
        rig.engine.remove_reader(reader)
        rig.engine.remove_reader(reader)
        rig.engine.turn(0)
        assert len(events) == 1
    finally:
        rig.engine.remove_reader(listener.fileno())
        listener.close()
        os.close(reader)
        os.close(writer)


# -- timers ----------------------------------------------------------------------------


def test_timers_run_when_they_are_due_in_order(rig: Rig) -> None:
    ran: list[str] = []
    now = monotonic()
    rig.engine.call_at(now + 0.002, lambda: ran.append("second"))
    rig.engine.call_at(now + 0.001, lambda: ran.append("first"))
    rig.engine.call_at(now + 3600, lambda: ran.append("never"))
    waiter = Waiter()
    rig.engine.call_at(now + 0.003, waiter.arrived)
    assert rig.engine.wait(waiter, soon())
    assert monotonic() >= now + 0.003
    assert ran == ["first", "second"]


def test_timers_set_at_the_same_time_run_in_the_order_they_were_set(rig: Rig) -> None:
    ran: list[int] = []
    for number in range(5):
        rig.engine.call_at(0.0, lambda number=number: ran.append(number))  # type: ignore[misc]
    rig.engine.turn(0)
    assert ran == [0, 1, 2, 3, 4]


def test_a_timer_set_while_another_thread_polls_is_not_late(rig: Rig) -> None:
    thread, _ = rig.wait_in_thread("never")
    eventually(rig.leads, "the thread leads")
    waiter = Waiter()
    with rig.engine.lock:
        rig.engine.call_at(monotonic(), waiter.arrived)
    assert rig.engine.wait(waiter, soon())
    rig.engine.close()
    join(thread)


def test_a_timer_that_raises_is_told_of(
    rig: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise RuntimeError("a bug of ours")

    waiter = Waiter()
    rig.engine.call_at(0.0, fail)
    rig.engine.call_at(0.0, waiter.arrived)
    assert rig.engine.wait(waiter, soon())
    assert "a bug of ours" in capsys.readouterr().err


def test_whoever_holds_references_looks_now_and_then(rig: Rig) -> None:
    engine = rig.engine
    assert engine._timeout(None) == -1
    engine.wants_heartbeat = lambda: True
    assert engine._timeout(None) == HEARTBEAT_S
    assert engine._timeout(monotonic() + 100) == HEARTBEAT_S
    assert engine._timeout(monotonic() + 0.01) <= 0.01
    engine.call_at(monotonic() - 1, lambda: None)
    assert engine._timeout(None) == 0


# -- turns -----------------------------------------------------------------------------


def test_the_end_of_a_turn_is_told_and_what_it_sends_leaves(rig: Rig) -> None:
    connection, far = rig.connect()
    rig.engine.on_turn = lambda: connection.send(message("turn"))
    rig.engine.turn(0)
    assert far.recv(100) == frame("turn")


def test_callbacks_run_outside_of_the_lock_after_the_turn(
    rig: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[bool] = []

    def callback() -> None:
        def look() -> None:
            seen.append(rig.engine.lock.acquire(timeout=DEADLINE_S))
            rig.engine.lock.release()

        join(rig.run(look))
        raise ValueError("a user's callback")

    rig.engine.callbacks.append(callback)
    rig.engine.callbacks.append(lambda: seen.append(False))
    rig.engine.turn(0)
    assert seen == [True, False]
    assert "a user's callback" in capsys.readouterr().err


def test_poll_now_takes_in_what_has_arrived(rig: Rig) -> None:
    _, far = rig.connect()
    far.sendall(frame("a"))
    rig.engine.poll_now()
    assert rig.arrived == ["a"]


def test_poll_now_leaves_it_to_whoever_leads(rig: Rig) -> None:
    thread, _ = rig.wait_in_thread("a")
    _, far = rig.connect()
    eventually(rig.leads, "the thread leads")
    rig.engine.poll_now()
    far.sendall(frame("a"))
    join(thread)


# -- waiting ---------------------------------------------------------------------------


def test_a_wait_for_nothing_is_over(rig: Rig) -> None:
    assert rig.engine.wait(Waiter(0))


def test_a_thread_that_waits_serves_itself(rig: Rig) -> None:
    _, far = rig.connect()
    far.sendall(frame("a"))
    assert rig.engine.wait(rig.waiter("a"), soon())
    assert not rig.leads()


def test_a_wait_for_several_ends_with_the_last(rig: Rig) -> None:
    _, far = rig.connect()
    waiter = rig.waits["a"] = rig.waits["b"] = Waiter(2)
    far.sendall(frame("a"))
    assert not rig.engine.wait(waiter, monotonic() + 0.005)
    far.sendall(frame("b"))
    assert rig.engine.wait(waiter, soon())
    waiter.arrived()  # too many do no harm
    assert waiter.is_done


def test_a_wait_ends_at_its_deadline_with_what_is_there(rig: Rig) -> None:
    assert not rig.engine.wait(Waiter(), monotonic() + 0.005)
    _, far = rig.connect()
    far.sendall(frame("a"))
    assert rig.engine.wait(rig.waiter("a"), monotonic() - 1)


def test_a_follower_is_woken_by_who_leads(rig: Rig) -> None:
    _, far = rig.connect()
    leader, led = rig.wait_in_thread("a")
    eventually(rig.leads, "the first thread leads")
    follower, followed = rig.wait_in_thread("b")
    eventually(rig.follow_count, "the second thread follows")
    far.sendall(frame("b"))
    join(follower)
    assert followed == [True]
    assert rig.leads()
    assert led == []
    far.sendall(frame("a"))
    join(leader)
    assert led == [True]


def test_a_follower_leads_when_the_leader_leaves(rig: Rig) -> None:
    _, far = rig.connect()
    leader, _ = rig.wait_in_thread("a")
    eventually(rig.leads, "the first thread leads")
    follower, followed = rig.wait_in_thread("b")
    eventually(rig.follow_count, "the second thread follows")
    far.sendall(frame("a"))
    join(leader)
    eventually(lambda: rig.leads() and not rig.follow_count(), "the second leads")
    far.sendall(frame("b"))
    join(follower)
    assert followed == [True]


def test_the_next_follower_leads_when_the_first_is_done_as_well(rig: Rig) -> None:
    """Both waits end in one turn; who was to lead next has no reason to any more."""
    _, far = rig.connect()
    leader, _ = rig.wait_in_thread("a")
    eventually(rig.leads, "the first thread leads")
    second, _ = rig.wait_in_thread("b")
    eventually(lambda: rig.follow_count() == 1, "the second thread follows")
    third, result = rig.wait_in_thread("c")
    eventually(lambda: rig.follow_count() == 2, "the third thread follows")
    far.sendall(frame("a") + frame("b"))
    join(leader)
    join(second)
    far.sendall(frame("c"))
    join(third)
    assert result == [True]


def test_a_follower_gives_up_at_its_deadline(rig: Rig) -> None:
    thread, _ = rig.wait_in_thread("never")
    eventually(rig.leads, "the thread leads")
    assert not rig.engine.wait(Waiter(), monotonic() + 0.005)
    assert rig.follow_count() == 0
    rig.engine.close()
    join(thread)


def test_many_threads_wait_and_all_are_served(rig: Rig) -> None:
    _, far = rig.connect()
    names = [f"m{number}" for number in range(12)]
    waits = [rig.wait_in_thread(name) for name in names]
    eventually(lambda: rig.follow_count() == len(names) - 1, "all wait")
    for name in reversed(names):
        far.sendall(frame(name))
    for thread, results in waits:
        join(thread)
        assert results == [True]


def test_closing_ends_all_waits(rig: Rig) -> None:
    leader, led = rig.wait_in_thread("a")
    eventually(rig.leads, "the first thread leads")
    follower, followed = rig.wait_in_thread("b")
    eventually(rig.follow_count, "the second thread follows")
    rig.engine.close()
    rig.engine.close()
    join(leader)
    join(follower)
    assert led == followed == [False]
    assert rig.engine.is_closed
    assert not rig.engine.wait(Waiter(), soon())


# -- the background thread -------------------------------------------------------------


def test_messages_are_taken_in_while_nobody_waits(rig: Rig) -> None:
    connection, far = rig.connect()
    rig.engine.start_background()
    for name in ("a", "b"):
        far.sendall(frame(name))
        eventually(lambda name=name: name in rig.arrived, "it is taken in")  # type: ignore[misc]
    ran = threading.Event()
    with rig.engine.lock:
        rig.engine.call_at(monotonic(), ran.set)
    assert ran.wait(DEADLINE_S)
    with rig.engine.lock:
        connection.send(message("held back"))
    rig.engine.wake()
    assert far.recv(100) == frame("held back")


def test_a_thread_that_begins_to_wait_takes_over_from_the_background(rig: Rig) -> None:
    _, far = rig.connect()
    rig.engine.start_background()
    eventually(rig.leads, "the background thread leads")
    for name in ("a", "b", "c"):
        thread, results = rig.wait_in_thread(name)
        eventually(lambda: rig.leads() or rig.follow_count(), "it waits")
        far.sendall(frame(name))
        join(thread)
        assert results == [True]


def park_for_good(rig: Rig) -> None:
    eventually(lambda: rig.engine._is_parked_for_good, "the background thread sleeps")


def test_the_background_thread_wakes_when_a_long_leader_leaves(rig: Rig) -> None:
    _, far = rig.connect()
    thread, _ = rig.wait_in_thread("a")
    eventually(rig.leads, "the thread leads")
    rig.engine.start_background()
    park_for_good(rig)
    far.sendall(frame("a"))
    join(thread)
    far.sendall(frame("b"))
    eventually(lambda: "b" in rig.arrived, "the background thread takes it in")


def test_the_background_thread_wakes_when_all_who_wait_are_done_at_once(
    rig: Rig,
) -> None:
    """The leader leaves it to a follower, and that has no reason to lead any more."""
    _, far = rig.connect()
    leader, _ = rig.wait_in_thread("a")
    eventually(rig.leads, "the first thread leads")
    follower, _ = rig.wait_in_thread("b")
    eventually(rig.follow_count, "the second thread follows")
    rig.engine.start_background()
    park_for_good(rig)
    far.sendall(frame("a") + frame("b"))
    join(leader)
    join(follower)
    far.sendall(frame("c"))
    eventually(lambda: "c" in rig.arrived, "the background thread takes it in")


def test_an_event_loop_that_waits_is_served_by_the_background_thread(rig: Rig) -> None:
    _, far = rig.connect()
    rig.engine.start_background()
    rig.engine.async_waiters += 1
    rig.engine.hurry()
    eventually(rig.leads, "the background thread leads")
    far.sendall(frame("a"))
    eventually(lambda: "a" in rig.arrived, "it is taken in")
    assert rig.leads() or rig.engine.async_waiters == 1
    rig.engine.async_waiters -= 1


def test_closing_ends_the_background_thread(rig: Rig) -> None:
    rig.engine.start_background()
    thread = rig.engine._thread
    assert thread is not None
    rig.engine.close()
    assert not thread.is_alive()


# -- forks -----------------------------------------------------------------------------


def test_a_forked_child_gives_its_copies_up_and_the_parent_goes_on(rig: Rig) -> None:
    connection, far = rig.connect()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            far.close()
            rig.engine.abandon()
            is_over = rig.engine.is_closed and not connection.is_open
            status = 0 if is_over and not rig.engine.connections() else 2
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert status == 0
    far.sendall(frame("a"))
    assert rig.engine.wait(rig.waiter("a"), soon())
    connection.send(message("b"))
    rig.engine.flush()
    assert far.recv(100) == frame("b")
