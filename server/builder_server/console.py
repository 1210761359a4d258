"""The console of a build: a file in arrival order, whose bytes are what an observer is sent.

Every line is an Output message with its timestamp, in its frame. So an observer is served by copying, at its own pace
and from wherever it is, and the build never waits for one. A finished execution wants the lines newest first and
without the frames: ``copy_newest_first`` reads the file backwards in blocks.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

import trio
from attrs import define, field, frozen

from builder import codec, der
from builder.errors import ProtocolError
from builder.execution import console_line_of
from builder.framing import Frame, FrameReader, frame, read_length
from builder.messages import Output
from builder.model import ConsoleLine
from builder.runtime.changes import Change

FILE_NAME = "console"

BLOCK_SIZE = 1024 * 1024
"""Bytes of the file that are turned round in memory at once; a longer line is a block of its own."""

READ_SIZE = 64 * 1024
"""Bytes that an observer is sent at once: so much is held for each, and there can be 1500."""


MAX_LINE = Output.max_size - 64
"""Bytes of the longest line. It comes without a timestamp, and with one it must still fit into a message."""

_LONGEST_BEGIN = 64
"""Bytes that are enough to see how long the line of a message is."""


_TAG = der.context(Output.tag)


@frozen(kw_only=True)
class Extent:
    """What is in a console file: its bytes, the length of the lines as an execution encodes them, where blocks begin."""

    size: int
    encoded_length: int
    blocks: tuple[int, ...]


@define
class _Measure:
    """Follows the lines of a console as they come."""

    size: int = 0
    encoded_length: int = 0
    blocks: list[int] = field(factory=list)

    def add(self, framed: int, line: ConsoleLine) -> None:
        if not self.blocks or self.size - self.blocks[-1] >= BLOCK_SIZE:
            self.blocks.append(self.size)
        self.size += framed
        content = len(der.integer(line.delta)) + der.value_size(len(line.line))
        self.encoded_length += der.value_size(content)

    def extent(self) -> Extent:
        return Extent(size=self.size, encoded_length=self.encoded_length, blocks=tuple(self.blocks))


class ConsoleWriter:
    """Appends lines to a new console file. Observers may read what ``size`` says is there, and wait for ``changed``."""

    def __init__(self, path: Path, uuid: UUID) -> None:
        """Create the file. Raises OSError."""
        self._file = path.open("xb", buffering=0)
        self._uuid = uuid
        self._measure = _Measure()
        self._changed = Change()
        self.closed = False

    async def append(self, lines: Sequence[bytes], delta: int) -> None:
        """Write lines in one go, which came ``delta`` nanoseconds after the begin.

        Raises OSError, and then none of them is in the file.
        """
        frames = [frame(codec.encode(Output(uuid=self._uuid, line=line, timestamp=delta))) for line in lines]
        await trio.to_thread.run_sync(_write_all, self._file, b"".join(frames), self._measure.size)
        for framed, line in zip(frames, lines, strict=True):
            self._measure.add(len(framed), ConsoleLine(delta=delta, line=line))
        self._changed.announce()

    @property
    def size(self) -> int:
        """Bytes that observers may read."""
        return self._measure.size

    @property
    def changed(self) -> trio.Event:
        """The event that tells of more lines, or of the end."""
        return self._changed.next

    def extent(self) -> Extent:
        """Return what has been written."""
        return self._measure.extent()

    def clear(self) -> None:
        """Throw the lines away, to make room on a disk that is full. Whoever has read some of them reads no more."""
        self._file.truncate(0)
        self._measure = _Measure()

    def close(self) -> None:
        """Close the file, and tell the observers that no more comes."""
        self.closed = True
        self._changed.announce()
        with contextlib.suppress(OSError):  # every line was written, or its error told
            self._file.close()


def _write_all(file: BinaryIO, data: bytes, offset: int) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[file.write(view) :]
    except OSError:
        file.truncate(offset)  # half a line would spoil what observers are sent
        raise


def _lines(data: Iterator[bytes]) -> Iterator[tuple[int, ConsoleLine]]:
    """Yield each line with the size of its frame; what is cut off at the end is left out."""
    reader = FrameReader()
    for piece in data:
        reader.feed(piece)
        while (found := reader.next_frame((Output,))) is not None:
            assert isinstance(found, Frame)
            output = codec.decode(found.body)
            assert isinstance(output, Output)
            yield len(frame(found.body)), ConsoleLine(delta=output.timestamp or 0, line=output.line)


def _pieces(file: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    while start < end:
        piece = os.pread(file.fileno(), min(READ_SIZE, end - start), start)
        if not piece:
            return
        start += len(piece)
        yield piece


def repair(path: Path) -> Extent:
    """Return the extent of a file whose writer is gone, after cutting off a last line that is not whole.

    A file that does not exist is an empty console. Raises OSError.
    """
    found = _Measure()
    try:
        with path.open("r+b") as file:
            # a crash of the machine may leave zeros at the end: what stands before them is the console
            with contextlib.suppress(ProtocolError):
                for framed, line in _lines(_pieces(file, 0, os.fstat(file.fileno()).st_size)):
                    found.add(framed, line)
            file.truncate(found.size)
    except FileNotFoundError:
        pass
    return found.extent()


@define
class OldConsole:
    """Reads a console whose writer is gone, for an observer. Where a crash has cut it off, it ends with a whole message.

    Messages are passed by their lengths; the last one before the end, or before damage, is looked into.
    """

    _descriptor: int
    _size: int
    _offset: int = 0
    _whole: int = 0  # up to here all messages are whole
    _data: bytes = b""

    def read(self) -> bytes:
        """Return the next bytes, at most READ_SIZE, empty at the end. Raises OSError. It is for a thread."""
        self._data = os.pread(self._descriptor, READ_SIZE, self._offset)
        end = self._end_of_message(self._whole)
        while end is not None and self._whole < self._offset + len(self._data):
            following = self._end_of_message(end)
            if following is None and not self._is_whole(self._whole, end):
                break
            self._whole, end = end, following
        data = self._data[: self._whole - self._offset]
        self._offset += len(data)
        return data

    def _end_of_message(self, start: int) -> int | None:
        """Return where a message ends that begins there, as far as its header tells; None where none begins."""
        header = self._bytes(start, 9)
        if len(header) < 9 or header[8] != _TAG:
            return None
        length, _ = read_length(header, 0)
        end = start + 8 + length
        return end if length <= Output.max_size and end <= self._size else None

    def _is_whole(self, start: int, end: int) -> bool:
        """Return whether what is within a message has the lengths that it should have, up to its last byte."""
        try:
            head = self._bytes(start + 8, min(_LONGEST_BEGIN, end - start - 8))
            size = end - start - 8
            inner = _content(head, 0, _TAG, size)
            uuid = _content(head, inner, der.SEQUENCE, size)
            _, length, uuid_start = _header(head, uuid)
            _, length, line = _header(head, uuid_start + length)
            left = size - (line + length)
            last = self._bytes(end - left, left) if 0 < left <= _LONGEST_BEGIN else b""
            _content(last, 0, der.INTEGER, left)
        except ProtocolError:
            return False
        return True

    def _bytes(self, start: int, size: int) -> bytes:
        """Return bytes of the file, fewer at its end."""
        found = self._data[start - self._offset : start - self._offset + size] if start >= self._offset else b""
        return found if len(found) == size else os.pread(self._descriptor, size, start)


def _header(data: bytes, offset: int) -> tuple[int, int, int]:
    found = der.read_header(data, offset)
    if found is None:
        raise ProtocolError("cut off")
    return found


def _content(data: bytes, offset: int, tag: int, end: int) -> int:
    """Return where the content begins of an element with that tag that reaches up to ``end``."""
    found, length, start = _header(data, offset)
    if found != tag or start + length != end:
        raise ProtocolError("damaged")
    return start


def copy_newest_first(path: Path, extent: Extent, target: BinaryIO) -> None:
    """Write the lines as an execution has them: newest first. Holds one block in memory."""
    if not extent.size:
        return
    with path.open("rb") as file:
        end = extent.size
        for start in reversed(extent.blocks):
            lines = [console_line_of(body) for body in _bodies(b"".join(_pieces(file, start, end)))]
            target.write(b"".join(reversed(lines)))
            end = start


def _bodies(block: bytes) -> Iterator[bytes]:
    offset = 0
    while offset < len(block):
        length, body = read_length(block, offset)
        offset = body + length
        yield block[body:offset]
