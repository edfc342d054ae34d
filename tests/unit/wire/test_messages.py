"""Every message survives the wire, and its number is its own."""

from __future__ import annotations

from typing import Any, get_args, get_origin, get_type_hints

import msgspec
import pytest

from shoal._core.wire.control_messages import CONTROL_MESSAGES
from shoal._core.wire.frame import FrameReader, decoder, encode
from shoal._core.wire.group_messages import GROUP_REQUESTS
from shoal._core.wire.node_messages import NODE_MESSAGES
from shoal._core.wire.worker_messages import PEER_MESSAGES, Message

UNIONS: dict[str, Any] = {
    "peer": PEER_MESSAGES,
    "node": NODE_MESSAGES,
    "control": CONTROL_MESSAGES,
    "group": GROUP_REQUESTS,
}
TYPES = [(name, one) for name, union in UNIONS.items() for one in get_args(union)]


def example(hint: Any) -> Any:
    """A value of a type that is unlike its default."""
    simple = {int: 7, bytes: b"bytes", str: "text", bool: True, float: 0.5, Any: [1]}
    if hint in simple:
        return simple[hint]
    if hint is object:
        return "object"
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return filled(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is list:
        return [example(arguments[0])]
    if origin is dict:
        return {example(arguments[0]): example(arguments[1])}
    if origin is tuple:
        return tuple(map(example, arguments))
    return example(arguments[0])  # a union: the first alternative


def filled(kind: type[Any]) -> Any:
    hints = get_type_hints(kind)
    return kind(**{name: example(hints[name]) for name in kind.__struct_fields__})


@pytest.mark.parametrize(("union", "kind"), TYPES)
def test_a_message_arrives_as_it_was_sent(union: str, kind: type[Any]) -> None:
    message = filled(kind)
    reader = FrameReader(decoder(UNIONS[union]))
    assert reader.feed(encode(message)) == [message]


@pytest.mark.parametrize(("union", "kind"), TYPES)
def test_new_fields_have_defaults_so_that_old_senders_are_understood(
    union: str, kind: type[Any]
) -> None:
    """A message cut after its fields without default decodes to the defaults."""
    message = filled(kind)
    required = len(kind.__struct_fields__) - len(kind.__struct_defaults__)
    tag = kind.__struct_config__.tag
    values = [getattr(message, name) for name in kind.__struct_fields__[:required]]
    body = msgspec.msgpack.encode([tag, *values])
    frame = len(body).to_bytes(4, "little") + body
    (arrived,) = FrameReader(decoder(UNIONS[union])).feed(frame)
    assert type(arrived) is kind
    assert arrived == kind(*values)


def test_no_two_messages_share_a_number() -> None:
    kinds = list(dict.fromkeys(kind for _, kind in TYPES))
    tags = [kind.__struct_config__.tag for kind in kinds]
    assert len(set(tags)) == len(tags)


@pytest.mark.parametrize("name", ["peer", "node", "control"])
def test_every_message_of_a_module_is_in_its_union(name: str) -> None:
    kinds = get_args(UNIONS[name])
    module = {"peer": "worker", "node": "node", "control": "control"}[name]
    defined = [
        kind
        for kind in Message.__subclasses__()
        if kind.__module__ == f"shoal._core.wire.{module}_messages"
    ]
    assert set(defined) == set(kinds)
