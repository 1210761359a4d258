"""Whether there is room on the disk for what a build leaves."""

import os
from pathlib import Path

from attrs import frozen

MIN_FREE = 1024**3
"""Bytes that must be free before a job is handed out, unless the operator says how many; of a small disk one part in ten."""

_SMALL_DISK_FREE = 10

MIN_ROOM = 64 * 1024 * 1024
"""Bytes of which a build may not take the last: with less, the disk is full; of a small disk one part in a hundred."""

_SMALL_DISK_PART = 100

_MIN_FILES = 16
"""Files of a build: two directories, its console, its result before and after it is complete, and some to spare."""


@frozen
class Room:
    """The bytes that are free on a disk, and how many must be before a job is handed out."""

    free: int
    wanted: int

    @property
    def is_enough(self) -> bool:
        """Whether there is room for what a build leaves."""
        return self.free >= self.wanted


def look(path: Path, min_free: int | None = None) -> Room:
    """Return the room on the file system of a path; ``min_free`` is what the operator says. Raises OSError.

    Where no more files can be made nothing is free.
    """
    now = os.statvfs(path)
    wanted = min(MIN_FREE, _size(now) // _SMALL_DISK_FREE) if min_free is None else min_free
    has_files = not now.f_files or now.f_favail >= _MIN_FILES
    return Room(free=now.f_bavail * now.f_frsize if has_files else 0, wanted=wanted)


def is_filled_by(directory: Path) -> bool:
    """Return whether what is in a directory takes more than is left, and more than was there at least when a job began.

    Some room may be left, where a piece was too large for it. Raises OSError.
    """
    written = sum(path.stat().st_size for path in directory.iterdir())
    reserve = min(MIN_ROOM, _size(os.statvfs(directory)) // _SMALL_DISK_PART)
    return written >= max(look(directory).free - reserve, reserve)


def _size(disk: os.statvfs_result) -> int:
    return disk.f_blocks * disk.f_frsize
