"""Frames: an 8-byte big-endian length, then exactly one DER value. Bytes in, frames out, no I/O.

Rules kept here:
1. A frame is refused by its header alone (length and tag), before any of its body is stored.
2. What is buffered is at most one frame of a kind that is expected, and what one ``feed`` brought beyond it.
3. A message of a kind that is streamed is never buffered: its body is handed on in pieces.
"""

import struct
from collections.abc import Callable, Collection
from typing import TypeVar

from attrs import frozen

from builder import codec, der
from builder.errors import FrameTooLarge, ProtocolError, RemoteProtocolError, SpeaksTls
from builder.messages import Kind

T = TypeVar("T")

_LENGTH = struct.Struct(">Q")

_BULK = 128 * 1024
"""Most bytes that are taken in bulk at once: two of the longest lines of our own worker."""


def frame(body: bytes) -> bytes:
    """Return the frame of an encoded message, to be sent in one write."""
    return _LENGTH.pack(len(body)) + body


def frame_header(length: int) -> bytes:
    """Return what precedes a body of that many bytes."""
    return _LENGTH.pack(length)


def read_length(data: bytes, offset: int) -> tuple[int, int]:
    """Return the length of the body of a frame that begins there, and where the body begins."""
    (length,) = _LENGTH.unpack_from(data, offset)
    return length, offset + _LENGTH.size


@frozen(kw_only=True)
class Frame:
    """A whole frame's body."""

    body: bytes


@frozen(kw_only=True)
class StreamedFrame:
    """The begin of a streamed message with a body of ``length`` bytes, to be taken with ``FrameReader.read_body``."""

    kind: Kind
    length: int


_TLS = (b"\x15\x03", b"\x16\x03")
"""The begin of a record with an alert or a handshake (RFC 8446, section 5.1): no frame is as long as it would be."""


class FrameReader:
    """Cuts a stream of bytes into frames."""

    __slots__ = ("_awaited", "_body_left", "_buffer", "_piece")  # a server has thousands

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._piece = b""  # of a body, when all before it was returned: it is returned as it came, without a copy
        self._body_left = 0
        self._awaited = 0

    def feed(self, data: bytes | bytearray) -> None:
        """Append what came from the peer."""
        if not self.held and len(data) <= self._body_left:
            self._piece = bytes(data)
        else:
            self._buffer += self._piece
            self._buffer += data
            self._piece = b""

    @property
    def held(self) -> int:
        """Bytes that have come and were not returned yet."""
        return len(self._buffer) + len(self._piece)

    @property
    def awaited(self) -> int:
        """Size of the frame that ``next_frame`` could not return yet, 0 if it has not seen how long that is."""
        return self._awaited

    @property
    def in_frame(self) -> bool:
        """True while a frame has begun and not ended: an end of the stream now cuts it off."""
        return bool(self._buffer) or self._body_left > 0

    def next_frame(self, expected: Collection[Kind]) -> Frame | StreamedFrame | None:
        """Return the next frame, or None while bytes are missing.

        Raises ProtocolError for a frame that can't be a message or is larger than its kind may be, SpeaksTls for one of those, and
        RemoteProtocolError for a kind that is not ``expected`` now, as soon as its length and tag are there.
        """
        if self._body_left:
            raise AssertionError("the body of a streamed message must be read first")
        self._awaited = 0
        if self._buffer.startswith(_TLS):
            raise SpeaksTls("the other side speaks TLS, and this one does not")
        if len(self._buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer)
        if length < 2:
            raise ProtocolError("a frame that is too short for any message")
        tag = der.read_tag(self._buffer, _LENGTH.size)
        if tag is None:
            return None
        _, kind = codec.kind_of(tag[0])
        if kind not in expected:
            names = " or ".join(sorted(kind.__name__ for kind in expected)) or "nothing"
            raise RemoteProtocolError(f"expected {names}, got {kind.__name__}")
        if length > kind.max_size:
            raise FrameTooLarge(f"{kind.__name__} of {length} bytes, more than the {kind.max_size} allowed")
        if kind.streamed:
            del self._buffer[: _LENGTH.size]
            self._body_left = length
            return StreamedFrame(kind=kind, length=length)
        end = _LENGTH.size + length
        if len(self._buffer) < end:
            self._awaited = end
            return None
        body = bytes(memoryview(self._buffer)[_LENGTH.size : end])
        del self._buffer[:end]
        return Frame(body=body)

    def take(self, cut: Callable[[bytes], tuple[list[T], int]]) -> list[T]:
        """Return what ``cut`` makes of whole frames at the front of what has come; it tells where they end.

        It leaves all else to ``next_frame``, and what the frames must be is its own affair.
        """
        if len(self._buffer) < self._awaited:
            return []
        found, end = cut(bytes(memoryview(self._buffer)[:_BULK]))
        if end:
            self._awaited = 0
            del self._buffer[:end]
        return found

    def read_body(self) -> bytes:
        """Return what has arrived of a streamed frame's body, empty while more must be fed or when it is complete."""
        if self._piece:
            data, self._piece = self._piece, b""
        else:
            data = bytes(memoryview(self._buffer)[: self._body_left])
            del self._buffer[: len(data)]
        self._body_left -= len(data)
        return data

    @property
    def body_left(self) -> int:
        """Bytes of the streamed frame that ``read_body`` has not returned yet."""
        return self._body_left
