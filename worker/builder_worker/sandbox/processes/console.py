"""What a job writes, as its worker follows it: the file of its supervisor, and when each part of it was written."""

import os
import time
from contextlib import ExitStack
from pathlib import Path

import trio

from builder.runtime.changes import Change
from builder_worker.sandbox.processes import supervisor

READ_SIZE = 256 * 1024
"""Bytes of the console that are read at once."""


class ConsoleFile:
    """What a job writes, from the file to which its supervisor appends it, while that grows."""

    def __init__(self, directory: Path, *, is_new: bool = True) -> None:
        made = os.O_CREAT | os.O_EXCL if is_new else os.O_NOFOLLOW
        with ExitStack() as opened:
            self._file, self._times = (
                _open(directory / name, os.O_RDONLY | os.O_CLOEXEC | made, opened)
                for name in (supervisor.CONSOLE, supervisor.TIMES)
            )
            opened.pop_all()
        self._path = directory / supervisor.CONSOLE
        self._offset = 0
        self._entry = 0  # where the entry of the times stands that is in use
        self._change = Change()
        self._is_complete = False
        self.time = time.monotonic_ns()

    async def receive_some(self) -> bytes:
        """Return what was written since, all at one ``time``; empty when the job is over and all was read."""
        await trio.lowlevel.checkpoint()  # before the look: what was read is not lost when the caller is cancelled
        while True:
            changed = self._change.next
            is_complete = self._is_complete  # before the look at the file
            end, at = self._look_up()
            if data := os.pread(self._file, min(READ_SIZE, end - self._offset), self._offset):
                self._offset += len(data)
                self.time = at
            if data or is_complete:
                return data
            await changed.wait()  # no deadline: a job may be silent, up to the limit that its supervisor keeps

    def _look_up(self) -> tuple[int, int]:
        """Return up to where the next bytes were written at one time, and when. What has no entry yet is written now."""
        while len(entry := os.pread(self._times, 32, self._entry)) >= 16:
            at, end = int.from_bytes(entry[:8], "little"), int.from_bytes(entry[8:16], "little")
            if end > self._offset:
                return end, at
            if len(entry) < 32:  # the last one, which the supervisor may change
                break
            self._entry += 16
        return self._offset + READ_SIZE, time.monotonic_ns()

    def skip(self, offset: int) -> None:
        """Go on with the byte at that offset: what is before it was read by another worker."""
        self._offset = offset

    def cut_short(self) -> None:
        """Throw away what was not read, when the job is over: what was is to be written down, and there is no room. Raises
        OSError.
        """
        os.truncate(self._path, self._offset)

    def announce(self, *, complete: bool = False) -> None:
        """Tell that there may be more, or that there will be no more."""
        self._is_complete = self._is_complete or complete
        self._change.announce()

    @property
    def size(self) -> int:
        """Bytes that it takes on the disk."""
        return os.fstat(self._file).st_size

    def close(self) -> None:
        """Close the files."""
        os.close(self._file)
        os.close(self._times)


def _open(path: Path, flags: int, opened: ExitStack) -> int:
    descriptor = os.open(path, flags, 0o600)
    opened.callback(os.close, descriptor)
    return descriptor
