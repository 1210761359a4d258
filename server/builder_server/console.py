"""The console of a build: a file in arrival order, whose bytes are what an observer is sent.

Every line is an Output message with its timestamp, in its frame. So an observer is served by copying, at its own pace
and from wherever it is, and the build never waits for one. A finished execution wants the lines newest first and
without the frames: ``copy_newest_first`` reads the file backwards in blocks.
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Self
from uuid import UUID

import trio
from attrs import define, field, frozen

from builder import der
from builder.errors import ProtocolError
from builder.execution import delta_of
from builder.framing import read_length
from builder.messages import Output
from builder.outputs import Outputs, TimedLines
from builder.runtime.changes import Change

FILE_NAME = "console"

BLOCK_SIZE = 1024 * 1024
"""Bytes of the file that are turned round in memory at once, and those of the lines that came together with the last."""

READ_SIZE = 64 * 1024
"""Bytes that an observer is sent at once: so much is held for each, and there can be 1500."""


MAX_LINE = Output.max_size - 64
"""Bytes of the longest line. It comes without a timestamp, and with one it must still fit into a message."""

CUT = b"[builder-server] the console is cut here, at "
"""How the line begins that stands for all that a limit has left out."""

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
    """Follows the lines of a console as they come. ``last`` is the time of the last one, in nanoseconds."""

    size: int = 0
    lines: int = 0
    last: int = 0
    encoded_length: int = 0
    blocks: list[int] = field(factory=list)

    def add(self, framed: int, count: int, encoded: int, last: int) -> None:
        """Note lines that came together: the bytes of their frames, and of their encoding in an execution."""
        if not self.blocks or self.size - self.blocks[-1] >= BLOCK_SIZE:
            self.blocks.append(self.size)
        self.size += framed
        self.lines += count
        self.last = last
        self.encoded_length += encoded

    def extent(self) -> Extent:
        return Extent(size=self.size, encoded_length=self.encoded_length, blocks=tuple(self.blocks))


class ConsoleWriter:
    """Appends lines to a console file. Observers may read what ``size`` says is there, and wait for ``changed``."""

    def __init__(self, file: BinaryIO, measure: _Measure) -> None:
        self._file = file
        self._measure = measure
        self._changed = Change()
        self.closed = False
        self.is_cut = False
        """Its last line is one that begins with ``CUT``; what comes is left out."""

    @classmethod
    def create(cls, path: Path) -> Self:
        """Create the file. Raises OSError."""
        return cls(path.open("xb", buffering=0), _Measure())

    @classmethod
    def reopen(cls, path: Path, uuid: UUID) -> Self:
        """Go on with the console of an earlier server, behind its last whole line. Raises OSError.

        It looks through all of it: see ``repair``.
        """
        measure = _repaired(path, uuid)
        found = cls(path.open("r+b" if path.exists() else "x+b", buffering=0), measure)
        last = last_lines(found._file.fileno(), uuid, measure.size, 1)
        found.is_cut = CUT in os.pread(found._file.fileno(), _LONGEST_BEGIN + len(CUT), last)
        return found

    async def append(self, lines: TimedLines) -> None:
        """Write lines that came together, in one go. Raises OSError, and then none of them is in the file."""
        await trio.to_thread.run_sync(_write_all, self._file, lines.frames, self._measure.size)
        self._measure.add(len(lines.frames), lines.count, lines.encoded, lines.last)
        self._changed.announce()

    def skip(self, lines: TimedLines) -> None:
        """Count lines that are left out, so that its worker does not send them again."""
        self._measure.lines += lines.count
        self._measure.last = lines.last

    @property
    def size(self) -> int:
        """Bytes that observers may read."""
        return self._measure.size

    @property
    def lines(self) -> int:
        """How many lines there are."""
        return self._measure.lines

    @property
    def last(self) -> int:
        """The time of the last line, in nanoseconds since the build began; 0 if there is none."""
        return self._measure.last

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
    file.seek(offset)  # behind what an earlier try has left, if it could not even be cut off
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

    A file that does not exist is an empty console. Raises OSError. It is for a thread of trio's, and ends when that is
    cancelled.
    """
    return _repaired(path, uuid).extent()


def _repaired(path: Path, uuid: UUID) -> _Measure:
    found = _Measure()
    with contextlib.suppress(FileNotFoundError), path.open("r+b") as file:
        # a crash of the machine may leave zeros at the end: what stands before them is the console
        for records, framed in _runs(file, Outputs(uuid)):
            found.add(framed, len(records), sum(map(len, records)), delta_of(records[-1]))
            trio.from_thread.check_cancelled()
        file.truncate(found.size)
    return found


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


def last_lines(descriptor: int, uuid: UUID, size: int, count: int) -> int:
    """Return where the last lines of a console begin that is whole up to ``size``. Raises OSError.

    It reads the file backwards as far as it must. Where messages begin there is told by the uuid in each; a line that has
    it too deceives nobody for more than itself, since what begins there must lead to the end, message by message.
    """
    end, left, window = size, count, BLOCK_SIZE
    while left > 0 and end > 0:
        start = max(0, end - window)
        begins = _begins(os.pread(descriptor, end - start, start), uuid, is_first=start == 0)
        if not begins:
            if start == 0:
                return 0  # it is damaged: all of it is shown
            window *= 2  # a line longer than a block
            continue
        if len(begins) >= left:
            return start + begins[-left]
        left -= len(begins)
        end, window = start + begins[0], BLOCK_SIZE
    return end


def line_from(descriptor: int, uuid: UUID, size: int, offset: int) -> int:
    """Return where the first line begins at an offset or behind it, in a console that is whole up to ``size``.

    That is where the last one ends if there is none. Raises OSError.
    """
    if offset <= 0:
        return 0
    window = _WINDOW
    while offset < size:
        data = os.pread(descriptor, min(window, size - offset), offset)
        is_cut = offset + len(data) < size
        if begins := _begins(data, uuid, is_first=False, is_cut=is_cut):
            return offset + begins[0]
        if not is_cut or window > 2 * Output.max_size:
            break  # within the last line, or what is there is none
        window *= 2
    return size


_WINDOW = 72 * 1024
"""Bytes in which messages must follow on each other. A line of our worker has 64 KiB: what is forged within one leads
to its end, and no further."""


def _begins(data: bytes, uuid: UUID, *, is_first: bool, is_cut: bool = False) -> list[int]:
    """Return where the messages begin that lead to the end of the data.

    ``is_first``: one begins with the data. ``is_cut``: the data may end within one.
    """
    marker = der.header(der.TEXT, 16) + uuid.bytes
    passed: set[int] = set()  # they do not lead there, so that none is looked at twice
    found = 0 if is_first else data.find(marker)
    while found >= 0:
        for begin in [0] if is_first else range(max(0, found - _BEFORE_UUID), found - _LEAST_BEFORE_UUID + 1):
            begins: list[int] = []
            offset = begin
            while offset < len(data) and offset not in passed and (end := _framed(data, offset, marker)) is not None:
                begins.append(offset)
                offset = end
            if begins and (offset == len(data) or (is_cut and offset > len(data))):
                return begins
            passed.update(begins)
        is_first, found = False, data.find(marker, found + 1)
    return []


_BEFORE_UUID = 8 + 2 * 5
"""Most bytes of a message before its uuid: the length of the frame, and two headers."""

_LEAST_BEFORE_UUID = 8 + 2 * 2


def _framed(data: bytes, start: int, marker: bytes) -> int | None:
    """Return where a message with that begin of its content ends, None if none begins there."""
    if len(data) - start < _LEAST_BEFORE_UUID or data[start + 8] != _TAG:
        return None
    length, body = read_length(data, start)
    try:
        inner = _content(data[body : body + _LONGEST_BEGIN], 0, _TAG, length)
        content = _content(data[body : body + _LONGEST_BEGIN], inner, der.SEQUENCE, length)
    except ProtocolError:
        return None
    return body + length if data.startswith(marker, body + content) else None


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


def copy_newest_first(path: Path, uuid: UUID, extent: Extent, target: BinaryIO) -> None:
    """Write the lines as an execution has them: newest first. Holds one block in memory. Raises OSError.

    It is for a thread of trio's, and ends when that is cancelled.
    """
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
            trio.from_thread.check_cancelled()
