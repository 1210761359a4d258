"""The lines of a job as they travel, on the disk: whoever runs the job appends them, whoever sends them follows.

The file is batches, each of them written at once:

    offset      8 bytes   how much of the job's console has been cut into lines by now
    state       1         bit 0: a part of the next line has been given out; bit 1: the console is over
    lines       4         how many frames follow
    size        4         how many bytes those have
    frames                Output messages, as they are sent

Numbers are little-endian. A worker that is killed leaves whole batches, and maybe the begin of one, which counts as none.
"""

import errno
import os
import struct
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Self

import trio
from attrs import define, evolve, field

from builder.framing import read_length
from builder.runtime.changes import Change
from builder_worker.console import START, Progress
from builder_worker.sandbox import SandboxError

MAX_AHEAD = 256 * 1024 * 1024
"""Bytes that wait to be sent at most. The job goes on beyond that, and its console stays as its supervisor has written
it: a job of short lines takes 40 times as much here."""

ROOM = 256 * 1024
"""Bytes that are kept on the disk for what is said last: a job may leave as much as there was."""

RETRY = 1.0
"""Seconds between attempts to write where there is no room on the disk."""

READ_SIZE = 256 * 1024
"""Bytes that are read at once, more for a batch that is larger."""

_HEADER = struct.Struct("<QBII")

_IS_BEGUN, _IS_OVER = 1, 2


@define(eq=False)
class LineSpool:
    """A file of lines, open for appending and following."""

    _file: int
    lines: int = 0
    size: int = 0
    """Bytes of all batches."""

    progress: Progress = START
    """How far the job's console has come; its time is not kept."""

    tail: int = 0
    """Lines that came after the job's console."""

    newest: int = 0
    """Where the last batch begins that another worker has written."""

    is_complete: bool = False
    """Whether no more lines will come."""

    _room: int | None = None
    _taken: int = 0
    _change: Change = field(factory=Change)

    @classmethod
    def create(cls, path: Path) -> Self:
        """Make the file. Raises OSError."""
        spool = cls(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        # where there is less, or it can't be kept, there is none
        with suppress(OSError), tempfile.TemporaryFile(dir=path.parent) as file:
            os.posix_fallocate(file.fileno(), 0, ROOM)
            spool._room = os.dup(file.fileno())
        return spool

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open what another worker has left, to follow it and to append to it. Raises OSError."""
        spool = cls(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        end = os.fstat(spool._file).st_size
        while len(header := os.pread(spool._file, _HEADER.size, spool.size)) == _HEADER.size:
            offset, state, lines, size = _HEADER.unpack(header)
            if spool.size + _HEADER.size + size > end:
                break
            spool.newest = spool.size
            spool.size += _HEADER.size + size
            spool.lines += lines
            spool.progress = Progress(offset=offset, is_begun=bool(state & _IS_BEGUN), is_over=bool(state & _IS_OVER))
            spool.tail += lines if spool.progress.is_over else 0
        os.ftruncate(spool._file, spool.size)  # or it would be taken for a batch behind a shorter one
        return spool

    async def append(self, frames: bytes, lines: int, progress: Progress | None = None) -> None:
        """Write a batch of at least one line; without ``progress``, of a line that is not from the job's console.

        Waits while too much is not sent yet, and while there is no room on the disk. Raises SandboxError for what else
        is wrong with that.
        """
        progress = progress or self.progress
        state = _IS_BEGUN * progress.is_begun | _IS_OVER * progress.is_over
        batch = _HEADER.pack(progress.offset, state, lines, len(frames)) + frames
        while self.size - self._taken > MAX_AHEAD:
            await self._change.next.wait()  # no deadline: who sends has its own
        while not self._write(batch):
            if self._room is not None:
                self._give_room()
            else:
                await trio.sleep(RETRY)  # nobody tells when there is room
        self.size += len(batch)
        self.lines += lines
        self.progress = progress
        self._change.announce()

    def _give_room(self) -> None:
        if self._room is not None:
            os.close(self._room)
            self._room = None

    def _write(self, batch: bytes) -> bool:
        """Write a batch behind all others; return whether there was room for it."""
        left, position = memoryview(batch), self.size
        try:
            while left:  # where one write takes only a part, the next one tells why
                written = os.pwrite(self._file, left, position)
                left, position = left[written:], position + written
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                return False
            raise SandboxError(f"the job's lines can't be written: {error.strerror}") from error
        return True

    def end_console(self) -> None:
        """Say that what is appended from now on does not come from the job's console."""
        self.progress = evolve(self.progress, is_over=True)

    def complete(self) -> None:
        """Say that no more lines will come."""
        self.is_complete = True
        self._change.announce()

    def follow(self, line: int) -> "Reader":
        """Return what reads from a line on; the first one is 0. Raises IndexError if there are fewer."""
        position, first = 0, 0
        while first < line:
            if position == self.size:
                raise IndexError(line)
            _, _, lines, size = self._header(position)
            if first + lines > line:
                break
            position, first = position + _HEADER.size + size, first + lines
        return Reader(self, position, line - first)

    def _header(self, position: int) -> tuple[int, int, int, int]:
        header: tuple[int, int, int, int] = _HEADER.unpack(os.pread(self._file, _HEADER.size, position))
        return header

    def read(self, position: int) -> tuple[bytes, int]:
        """Return the frames of some batches from one on, and where the next one begins. Raises OSError."""
        data = os.pread(self._file, min(READ_SIZE, self.size - position), position)
        found = []
        start = 0
        while len(data) - start > _HEADER.size:
            begin = start + _HEADER.size
            end = begin + _HEADER.unpack_from(data, start)[3]
            if end > len(data):
                break
            found.append(data[begin:end])
            start = end
        if not found and position < self.size:
            _, _, _, size = self._header(position)
            start = _HEADER.size + size
            found.append(os.pread(self._file, size, position + _HEADER.size))
        return b"".join(found), position + start

    async def wait_beyond(self, position: int) -> bool:
        """Wait until there is more than that; return False if there will not be. What is before it counts as sent."""
        self._taken = max(self._taken, position)
        self._change.announce()
        # no deadline: a job may be silent, up to the limit that its supervisor keeps
        while position == self.size and not self.is_complete:
            await self._change.next.wait()
        return position < self.size

    def close(self) -> None:
        """Close the file."""
        self._give_room()
        os.close(self._file)


@define(eq=False)
class Reader:
    """Reads a spool from a line on, while it grows."""

    _spool: LineSpool
    _position: int
    _skipped: int
    """Lines of the first batch that are not wanted."""

    async def next(self) -> bytes:
        """Return the next frames, whole ones, as soon as there are some; nothing when all are read and no more will come."""
        frames = b""
        while not frames:
            if not await self._spool.wait_beyond(self._position):
                return b""
            frames, self._position = self._spool.read(self._position)
            start = 0
            for _ in range(self._skipped):
                length, body = read_length(frames, start)
                start = body + length
            frames, self._skipped = frames[start:], 0
        return frames
