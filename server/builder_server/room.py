"""Whether there is room on the disk for what a build leaves."""

import os
from pathlib import Path

MIN_ROOM = 64 * 1024 * 1024
"""Bytes that must be free before a job is handed out; of a small disk one part in a hundred."""

_SMALL_DISK_PART = 100

_MIN_FILES = 16
"""Files of a build: two directories, its console, its result before and after it is complete, and some to spare."""


def room(path: Path) -> int:
    """Return how many bytes are free on the file system of a path beyond what must be. Raises OSError.

    Where no more files can be made there is no room.
    """
    now = os.statvfs(path)
    if now.f_files and now.f_favail < _MIN_FILES:
        return -1
    return now.f_bavail * now.f_frsize - _reserve(now)


def is_filled_by(directory: Path) -> bool:
    """Return whether what is in a directory takes more than is left, and more than was there at least when a job began.

    Some room may be left, where a piece was too large for it. Raises OSError.
    """
    written = sum(path.stat().st_size for path in directory.iterdir())
    return written >= max(room(directory), _reserve(os.statvfs(directory)))


def _reserve(disk: os.statvfs_result) -> int:
    return min(MIN_ROOM, disk.f_blocks * disk.f_frsize // _SMALL_DISK_PART)
