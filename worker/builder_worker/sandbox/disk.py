"""How much is written on a disk, and how much is left of it."""

import contextlib
import itertools
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

import trio
from attrs import frozen

from builder_worker.sandbox.processes import tools

MAX_RESERVE = 512 * 1024 * 1024
"""Bytes of a disk that jobs leave to others; of a small one less."""

_RESERVED_PART = 50
"""The reserve of a small disk is one part in so many."""

MAX_DESCRIPTORS = 100_000
"""Open files of a job that are looked at each time, 0.2 s: it can have a thousand times more."""

_AS_ROOT = ("unshare", "--user", "--map-root-user")
"""Runs a plain user's program as root over this user's own files: a job may have closed its directories to all."""

_BLOCK = 512
"""Bytes in a block of st_blocks, whatever the file system's blocks are (POSIX, <sys/stat.h>)."""


@frozen(kw_only=True)
class Space:
    """What is free on a file system, and what jobs leave free: bytes, and files where their number is bounded."""

    free: int
    reserve: int
    files_free: int
    files_reserve: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """Look at the file system of a path. Raises OSError."""
        now = os.statvfs(path)
        return cls(
            free=now.f_bavail * now.f_frsize,
            reserve=min(MAX_RESERVE, now.f_blocks * now.f_frsize // _RESERVED_PART),
            files_free=now.f_favail,
            files_reserve=now.f_files // _RESERVED_PART,
        )

    @property
    def is_low(self) -> bool:
        """Whether more is taken than jobs should."""
        return self.free < self.reserve or self.files_free < self.files_reserve


async def measure(directory: Path, processes: Iterable[int]) -> int:
    """Return the bytes of all files in a directory, and of those that are deleted and that these processes keep open.

    Raises OSError if the directory is not there.
    """
    return await _size(directory) + await trio.to_thread.run_sync(_deleted_size, directory, processes)


async def _size(directory: Path) -> int:
    # du walks trees of any depth. What vanishes meanwhile makes it fail, but it still prints the sum.
    sum_up = ("du", "-skx", "--", str(directory))
    as_root = [_AS_ROOT] if sys.platform == "linux" and os.geteuid() else []
    for prefix in (*as_root, ()):  # user namespaces may be forbidden
        with contextlib.suppress(OSError):  # nor may there be room for one more process at the moment
            done = await trio.run_process(
                [*prefix, *sum_up], env=tools.ENVIRONMENT, check=False, capture_stdout=True, capture_stderr=True
            )
            if done.stdout:
                return int(done.stdout.split(b"\t")[0]) * 1024
    return 0


def _deleted_size(directory: Path, processes: Iterable[int]) -> int:
    device = directory.stat().st_dev
    sizes: dict[int, int] = {}  # by inode, for many may have the same file open
    for descriptor in itertools.islice(_descriptors(processes), MAX_DESCRIPTORS):
        with contextlib.suppress(OSError):  # it was closed meanwhile
            status = descriptor.stat()
            if status.st_dev == device and status.st_nlink == 0:
                sizes[status.st_ino] = status.st_blocks * _BLOCK
    return sum(sizes.values())


def _descriptors(processes: Iterable[int]) -> Iterator[os.DirEntry[str]]:
    for pid in processes:
        with contextlib.suppress(OSError):  # the process is gone, or became another user's
            yield from os.scandir(f"/proc/{pid}/fd")
