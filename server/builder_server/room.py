"""Whether there is room on the disk for what a build leaves."""

import os
from pathlib import Path

MIN_ROOM = 64 * 1024 * 1024
"""Bytes that must be free before a job is handed out; of a small disk one part in a hundred."""

_SMALL_DISK_PART = 100


def room(path: Path) -> int:
    """Return how many bytes are free on the file system of a path beyond what must be. Raises OSError."""
    now = os.statvfs(path)
    return now.f_bavail * now.f_frsize - min(MIN_ROOM, now.f_blocks * now.f_frsize // _SMALL_DISK_PART)
