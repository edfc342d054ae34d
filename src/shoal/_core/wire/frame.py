"""Frames: a length and a message; from bytes to messages and back.

A frame is a 4-byte little-endian length followed by that many bytes of MessagePack.
Several frames may share one send.  A length above the limit ends the connection before
a byte of the body is read: nobody can make us allocate what we would not send.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

#: What the messages of this release mean; both ends of a connection must agree.
PROTOCOL_VERSION = 1
#: Largest frame accepted.  Values above the inline limit travel through the store.
MAX_FRAME_BYTES = 256 * 1024 * 1024

#: What decoding raises, besides its own errors, for text that is no UTF-8, strange keys
#: and endless nesting.
_NO_MESSAGE = (msgspec.MsgspecError, ValueError, TypeError, RecursionError)
_encoder = msgspec.msgpack.Encoder()
_encode_into = _encoder.encode_into


class FrameError(Exception):
    """The other side sent bytes that are no frame of this protocol."""


def encode(message: object) -> bytes:
    """One frame holding ``message``."""
    body = _encoder.encode(message)
    return len(body).to_bytes(4, "little") + body


class FrameReader:
    """Collects bytes and hands out the complete messages in them."""

    __slots__ = ("_buffer", "_decode", "_limit")

    def __init__(
        self, decode: Callable[[Any], Any], limit: int = MAX_FRAME_BYTES
    ) -> None:
        self._buffer = bytearray()
        self._decode = decode
        self._limit = limit

    def feed(self, data: bytes) -> list[Any]:
        """Take in received bytes; return the messages completed by them.

        Raises:
            FrameError: a frame over the size limit, or a body that is no message.
        """
        buffer = self._buffer
        if buffer:
            buffer += data
            whole: bytes | bytearray = buffer
        else:
            whole = data
        messages: list[Any] = []
        start, end = 0, len(whole)
        decode = self._decode
        view = memoryview(whole)
        try:
            while end - start >= 4:
                length = int.from_bytes(view[start : start + 4], "little")
                if length > self._limit:
                    raise FrameError(
                        f"a frame of {length} bytes exceeds the limit of {self._limit}"
                    )
                stop = start + 4 + length
                if stop > end:
                    break
                messages.append(decode(view[start + 4 : stop]))
                start = stop
        except _NO_MESSAGE as error:
            raise FrameError(f"a frame holds no known message: {error}") from error
        finally:
            view.release()
        if whole is buffer:
            del buffer[:start]
        elif start < end:
            buffer += data[start:]
        return messages


def decoder(messages: Any) -> Callable[[Any], Any]:
    """The decoding function for a union of message types."""
    decode: Callable[[Any], Any] = msgspec.msgpack.Decoder(messages).decode
    return decode
