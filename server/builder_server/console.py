"""The console of a build: a file in arrival order, whose bytes are what an observer is sent.

Every line is an Output message with its timestamp, in its frame. So an observer is served by copying, at its own pace
and from wherever it is, and the build never waits for one. A finished execution wants the lines newest first and
without the frames: ``copy_newest_first`` reads the file backwards in blocks.
"""

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

import trio
from attrs import define, field, frozen

from builder.errors import ProtocolError
from builder.messages import Output
from builder.outputs import Outputs

FILE_NAME = "console"

BLOCK_SIZE = 1024 * 1024
"""Bytes of the file that are turned round in memory at once, and those of the lines that came together with the last."""

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

    def add(self, framed: int, encoded: int) -> None:
        """Note lines that came together: the bytes of their frames, and of their encoding in an execution."""
        if not self.blocks or self.size - self.blocks[-1] >= BLOCK_SIZE:
            self.blocks.append(self.size)
        self.size += framed
        self.encoded_length += encoded

    def extent(self) -> Extent:
        return Extent(size=self.size, encoded_length=self.encoded_length, blocks=tuple(self.blocks))


class ConsoleWriter:
    """Appends lines to a new console file. Observers may read what ``size`` says is there."""

    def __init__(self, path: Path, uuid: UUID) -> None:
        """Create the file. Raises OSError."""
        self._file = path.open("xb", buffering=0)
        self._outputs = Outputs(uuid)
        self._measure = _Measure()

    async def append(self, lines: Sequence[bytes], timestamp: int) -> None:
        """Write lines that came together, in one go, with the nanoseconds since the start of the build.

        Raises OSError, and ProtocolError for a line that no observer could be sent. After an error none of them is in
        the file.
        """
        data = self._outputs.join(lines, timestamp)
        if len(data) > Output.max_size:
            longest = len(self._outputs.join([max(lines, key=len)], timestamp))
            if longest > Output.max_size:
                raise ProtocolError(f"a console line of {longest} bytes")
        await trio.to_thread.run_sync(_write_all, self._file, data, self._measure.size)
        self._measure.add(len(data), self._outputs.records_size(lines, timestamp))

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


def _read(file: BinaryIO, start: int, size: int) -> bytes:
    """Return so many bytes, or what there is."""
    pieces: list[bytes] = []
    while size > 0 and (piece := os.pread(file.fileno(), size, start)):
        pieces.append(piece)
        start += len(piece)
        size -= len(piece)
    return b"".join(pieces)


def _runs(file: BinaryIO, outputs: Outputs) -> Iterator[tuple[list[bytes], int]]:
    """Yield the records of a console, those of about a block together, and the size of their frames.

    It ends where the file does, or with what is no whole line.
    """
    start, size = 0, BLOCK_SIZE
    while data := _read(file, start, size):
        records, framed = outputs.records(data)
        if records:
            yield records, framed
            start, size = start + framed, BLOCK_SIZE
        elif len(data) < size or size > Output.max_size:
            return
        else:
            size *= 2  # a line longer than a block


def repair(path: Path, uuid: UUID) -> Extent:
    """Return the extent of a file whose writer is gone, after cutting off a last line that is not whole.

    A file that does not exist is an empty console. Raises OSError.
    """
    found = _Measure()
    with contextlib.suppress(FileNotFoundError), path.open("r+b") as file:
        # a crash of the machine may leave zeros at the end: what stands before them is the console
        for records, framed in _runs(file, Outputs(uuid)):
            found.add(framed, sum(map(len, records)))
        file.truncate(found.size)
    return found.extent()


def copy_newest_first(path: Path, uuid: UUID, extent: Extent, target: BinaryIO) -> None:
    """Write the lines as an execution has them: newest first. Holds one block in memory. Raises OSError."""
    if not extent.size:
        return
    outputs = Outputs(uuid)
    with path.open("rb") as file:
        end = extent.size
        for start in reversed(extent.blocks):
            records, framed = outputs.records(_read(file, start, end - start))
            if framed != end - start:
                raise OSError(errno.EIO, "the console has changed on the disk", str(path))
            records.reverse()
            target.write(b"".join(records))
            end = start
