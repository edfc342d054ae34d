"""Frames: whole, in pieces, and from somebody who does not speak the protocol."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shoal._core.wire.control_messages import CONTROL_MESSAGES
from shoal._core.wire.frame import FrameError, FrameReader, decoder, encode
from shoal._core.wire.node_messages import NODE_MESSAGES, Hello, NodeQuery, NodeReply
from shoal._core.wire.worker_messages import (
    PEER_MESSAGES,
    GetValue,
    PushTask,
    TaskDone,
    TaskResult,
    Value,
)

decode_peer = decoder(PEER_MESSAGES)
decode_node = decoder(NODE_MESSAGES | CONTROL_MESSAGES)

MESSAGES = [
    TaskDone(1, b"value", 20),
    PushTask(2, 3, b"t" * 24, b"args", [(0, b"o" * 28, "owner", Value(0, b"v"))]),
    PushTask(2, 3, b"t" * 24, b"args", [("name", b"o" * 28, "owner", Value(1))]),
    TaskResult(3, [Value(0, b"v", 1, [(b"o" * 28, "owner")])], 5, [(b"x", "y")]),
    GetValue(b"o" * 28),
]
STREAM = b"".join(map(encode, MESSAGES))


def feed_in_pieces(reader: FrameReader, data: bytes, sizes: list[int]) -> list[Any]:
    messages, start = [], 0
    for size in sizes:
        messages += reader.feed(data[start : start + size])
        start += size
    return messages + reader.feed(data[start:])


# -- good frames ---------------------------------------------------------------------


def test_a_frame_is_a_length_and_a_body() -> None:
    frame = encode(GetValue(b"id"))
    body = msgspec.msgpack.encode([13, b"id"])
    assert frame == len(body).to_bytes(4, "little") + body


def test_several_frames_may_come_in_one_piece() -> None:
    assert FrameReader(decode_peer).feed(STREAM) == MESSAGES


def test_a_frame_may_come_byte_by_byte() -> None:
    reader = FrameReader(decode_peer)
    arrived = [reader.feed(STREAM[i : i + 1]) for i in range(len(STREAM))]
    assert [one for some in arrived for one in some] == MESSAGES
    assert [len(some) for some in arrived].count(1) == len(MESSAGES)


@given(st.lists(st.integers(0, 40), max_size=20))
def test_pieces_of_any_size_make_the_same_messages(sizes: list[int]) -> None:
    assert feed_in_pieces(FrameReader(decode_peer), STREAM, sizes) == MESSAGES


def test_nothing_is_kept_between_whole_frames() -> None:
    reader = FrameReader(decode_peer)
    for _ in range(3):
        reader.feed(STREAM)
        assert not reader._buffer
        reader.feed(STREAM[:-1])
        assert len(reader._buffer) == len(encode(MESSAGES[-1])) - 1
        reader.feed(STREAM[-1:])


def test_messages_do_not_share_memory_with_what_was_received() -> None:
    received = bytearray(encode(TaskDone(1, b"value", 20)))
    (message,) = FrameReader(decode_peer).feed(bytes(received))
    reader = FrameReader(decode_peer)
    reader.feed(received[:5])
    (late,) = reader.feed(bytes(received[5:]))
    reader.feed(b"\xff" * 3)
    assert message.data == late.data == b"value"


# -- limits --------------------------------------------------------------------------


def test_a_length_above_the_limit_is_refused_before_its_body_comes() -> None:
    reader = FrameReader(decode_peer, limit=100)
    with pytest.raises(FrameError, match="101 bytes exceeds the limit of 100"):
        reader.feed((101).to_bytes(4, "little"))


def test_a_frame_of_exactly_the_limit_is_accepted() -> None:
    frame = encode(TaskDone(1, b"v" * 50, 20))
    limit = len(frame) - 4
    assert FrameReader(decode_peer, limit).feed(frame)
    with pytest.raises(FrameError):
        FrameReader(decode_peer, limit - 1).feed(frame)


def test_memory_is_bounded_by_what_was_received() -> None:
    """Neither a length nor a count inside the body makes us reserve room."""
    huge_list = b"\x93\x06\x01\xdd\xff\xff\xff\xff"  # a list of four thousand millions
    huge_bytes = b"\x93\x05\x01\xc6\xff\xff\xff\xff"
    huge_map = b"\x94\x82\x01\xdf\xff\xff\xff\xff"
    tracemalloc.start()
    try:
        reader = FrameReader(decode_peer)
        reader.feed((200 << 20).to_bytes(4, "little") + b"x" * 1000)
        for body in (huge_list, huge_bytes, huge_map, b"\xdd\xff\xff\xff\xff"):
            frame = len(body).to_bytes(4, "little") + body
            with pytest.raises(FrameError):
                FrameReader(decode_peer).feed(frame)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


# -- bad frames ----------------------------------------------------------------------


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "little") + body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",  # never used in MessagePack
        msgspec.msgpack.encode([255, b"no such message"]),
        msgspec.msgpack.encode([13]),  # a field is missing
        msgspec.msgpack.encode([13, "text for bytes"]),
        msgspec.msgpack.encode({"not": "an array"}),
        msgspec.msgpack.encode([13, b"id"]) + b"more",
        b"\x92\x0d\xc4\xff" + b"too short",
    ],
)
def test_a_body_that_is_no_message_is_refused(body: bytes) -> None:
    with pytest.raises(FrameError, match="holds no known message"):
        FrameReader(decode_peer).feed(framed(body))


@pytest.mark.parametrize("depth", [5000, 200_000])
def test_a_body_nested_without_end_is_refused(depth: int) -> None:
    body = b"\x93\xcc\x82\x01" + b"\x91" * depth + b"\xc0"
    with pytest.raises(FrameError, match="recursion"):
        FrameReader(decode_node).feed(framed(body))


def test_strange_keys_in_free_form_fields_are_refused_or_read() -> None:
    """Fields of type Any take what MessagePack has, and nothing takes us down."""
    for strange in (
        b"\x81\x81\x01\x02\x03",  # a map that has a map as key
        b"\x81\x91\x01\x02",  # a map that has a list as key
        b"\x81\xc0\x01",
        b"\xd6\xff\xff\xff\xff\xff",  # a time stamp
        b"\xc7\x0c\xff" + b"\xff" * 12,  # a time out of range
        b"\xc7\x01\x05\x00",  # an extension nobody knows
        b"\xa2\xff\xfe",  # text that is no UTF-8
    ):
        check_is_harmless(decode_node, framed(b"\x93\xcc\x82\x01" + strange))


def check_is_harmless(decode: Any, data: bytes) -> list[Any]:
    """Feed bytes to a reader: messages or FrameError, nothing else, nothing kept."""
    reader = FrameReader(decode, limit=1 << 16)
    try:
        messages = reader.feed(data)
    except FrameError:
        return []
    assert len(reader._buffer) <= len(data)
    return messages


@given(st.binary(max_size=200))
@example(b"\x05\0\0\0\xdd\xff\xff\xff\xff")
def test_noise_is_harmless(data: bytes) -> None:
    check_is_harmless(decode_peer, data)
    check_is_harmless(decode_node, data)


@given(st.binary(max_size=200))
def test_framed_noise_is_harmless(body: bytes) -> None:
    check_is_harmless(decode_peer, framed(body))
    check_is_harmless(decode_node, framed(body))


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner)
    ),
    max_leaves=12,
)


@given(tag=st.integers(0, 260), fields=st.lists(VALUES, max_size=8))
@settings(max_examples=120)
def test_well_formed_nonsense_is_harmless(tag: int, fields: list[Any]) -> None:
    body = msgspec.msgpack.encode([tag, *fields])
    for decode in (decode_peer, decode_node):
        for message in check_is_harmless(decode, framed(body)):
            assert FrameReader(decode).feed(encode(message))


@given(st.data())
@settings(max_examples=300)
def test_damaged_frames_are_harmless(data: st.DataObject) -> None:
    """Bytes changed, lost, doubled, swapped: what arrives is a message or an error."""
    whole = encode(Hello(1, "driver", b"w" * 16, 1, "a", b"t", {"k": [1, {"x": None}]}))
    whole += encode(NodeQuery(1, "nodes", {"a": [b"b"]})) + encode(NodeReply(2, [1.5]))
    damaged = bytearray(data.draw(st.sampled_from([STREAM, whole])))
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        kind = data.draw(st.sampled_from(["change", "lose", "double", "cut"]))
        if kind == "change":
            damaged[place] = data.draw(st.integers(0, 255))
        elif kind == "lose" and len(damaged) > 1:
            del damaged[place]
        elif kind == "double":
            damaged[place:place] = damaged[place : place + 8]
        elif place:
            del damaged[place:]
    check_is_harmless(decode_peer, bytes(damaged))
    check_is_harmless(decode_node, bytes(damaged))
