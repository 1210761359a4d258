"""The console of a build: a file in arrival order, whose bytes are what an observer is sent.

Every line is an Output message with its timestamp, in its frame. So an observer is served by copying, at its own pace
and from wherever it is, and the build never waits for one. A finished execution wants the lines newest first and
without the frames: ``copy_newest_first`` reads the file backwards in blocks.
"""

import contextlib
import os
from collections.abc import Iterator
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

FILE_NAME = "console"

BLOCK_SIZE = 1024 * 1024
"""Bytes of the file that are turned round in memory at once; a longer line is a block of its own."""

READ_SIZE = 64 * 1024
"""Bytes that an observer is sent at once: so much is held for each, and there can be 1500."""


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
    """Appends lines to a new console file. Observers may read what ``size`` says is there."""

    def __init__(self, path: Path, uuid: UUID) -> None:
        """Create the file. Raises OSError."""
        self._file = path.open("xb", buffering=0)
        self._uuid = uuid
        self._measure = _Measure()

    async def append(self, lines: list[ConsoleLine]) -> None:
        """Write lines in one go. Raises OSError, and ProtocolError for a line that no observer could be sent.

        After an error none of them is in the file.
        """
        frames = [frame(codec.encode(Output(uuid=self._uuid, line=line.line, timestamp=line.delta))) for line in lines]
        if (longest := max(map(len, frames))) > Output.max_size:
            raise ProtocolError(f"a console line of {longest} bytes")
        await trio.to_thread.run_sync(_write_all, self._file, b"".join(frames), self._measure.size)
        for framed, line in zip(frames, lines, strict=True):
            self._measure.add(len(framed), line)

    @property
    def size(self) -> int:
        """Bytes that observers may read."""
        return self._measure.size

    def extent(self) -> Extent:
        """Return what has been written."""
        return self._measure.extent()

    def clear(self) -> None:
        """Throw the lines away, to make room on a disk that is full. Whoever has read some of them reads no more."""
        self._file.truncate(0)
        self._measure = _Measure()

    def close(self) -> None:
        """Close the file."""
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
