"""Directories that a job has filled: walked and removed without following or trusting anything in them.

A path is walked component by component, each opened relative to the directory before it and never through a symbolic
link or into a mounted file system. One descriptor is open at a time, so that depth costs nothing; no path is ever
longer than a name.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from builder.errors import BuilderError

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PLACE = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

Identity = tuple[int, int]
"""Device and inode: what a file or directory is, wherever it is moved."""


class TreeChanged(BuilderError):
    """A directory or file is not what it was a moment ago, though nothing that could change it should be alive."""

    exit_code = 5


def identity(status: os.stat_result) -> Identity:
    """Return device and inode."""
    return status.st_dev, status.st_ino


def _mount(fd: int) -> int:
    """Return what tells mounts apart: the number of the mount, since a bind mount has the device of its source."""
    try:
        lines = Path(f"/proc/self/fdinfo/{fd}").read_text("ascii").splitlines()
    except FileNotFoundError:  # not Linux
        return os.fstat(fd).st_dev
    return next(int(line.split()[1]) for line in lines if line.startswith("mnt_id:"))


class Cursor:
    """A place in a tree, moved from directory to directory. A context manager; ``fd`` is the directory it is in."""

    def __init__(self, root: Path) -> None:
        self.fd = os.open(root, _DIRECTORY)
        self.root = os.fstat(self.fd)
        self._mount = _mount(self.fd)
        self._trail: list[tuple[bytes, Identity]] = []  # the names below the root, and what they are in

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.fd)

    @property
    def depth(self) -> int:
        """How many directories the cursor is below the root."""
        return len(self._trail)

    def path_of(self, name: bytes) -> bytes:
        """Return the path, below the root, of something in the current directory."""
        return b"/".join((*(above for above, _ in self._trail), name))

    def down(self, name: bytes) -> None:
        """Enter a directory. Raises OSError where it can't be opened, is none, or something is mounted on it."""
        here = identity(os.fstat(self.fd))
        below = os.open(name, _DIRECTORY, dir_fd=self.fd)
        if _mount(below) != self._mount:
            os.close(below)
            raise OSError(errno.EXDEV, "another file system is mounted there", os.fsdecode(name))
        self._replace(below)
        self._trail.append((name, here))

    def check_not_mounted(self) -> None:
        """Raise OSError if the root is not a directory like others, but something that is mounted, such as /."""
        above = os.open(b"..", _PLACE, dir_fd=self.fd)
        try:
            if _mount(above) != self._mount or identity(os.fstat(above)) == identity(self.root):
                raise OSError(errno.EBUSY, "a file system is mounted there")
        finally:
            os.close(above)

    def unlock(self, name: bytes) -> None:
        """Give the owner all rights to a directory, but not to what is mounted on it. Raises OSError."""
        place = os.open(name, _PLACE, dir_fd=self.fd)
        try:
            if _mount(place) != self._mount:
                return
            if os.chmod in os.supports_follow_symlinks:
                os.chmod(name, stat.S_IRWXU, dir_fd=self.fd, follow_symlinks=False)
            else:  # Linux, where this names what was opened, and nothing else
                Path(f"/proc/self/fd/{place}").chmod(stat.S_IRWXU)
        finally:
            os.close(place)

    def up(self) -> bytes:
        """Return to the directory above, and return the name of the one that was left."""
        name, parent = self._trail.pop()
        self._replace(os.open(b"..", _DIRECTORY, dir_fd=self.fd))
        if identity(os.fstat(self.fd)) != parent:
            raise TreeChanged("a directory was moved while its tree was walked")
        return name

    def move(self, parts: list[bytes]) -> None:
        """Go to the directory with these components below the root, the shortest way."""
        common = 0
        while common < min(len(parts), self.depth) and self._trail[common][0] == parts[common]:
            common += 1
        while self.depth > common:
            self.up()
        for name in parts[common:]:
            self.down(name)

    @contextmanager
    def open_file(self, name: bytes) -> Iterator[int]:
        """Open a file of the current directory for reading, and close it in the end. It never blocks."""
        fd = os.open(name, _FILE, dir_fd=self.fd)
        try:
            yield fd
        finally:
            os.close(fd)

    def _replace(self, fd: int) -> None:
        os.close(self.fd)
        self.fd = fd


MAX_HELD = 10_000
"""Names of directories still to be removed that are held at the top of a tree; deeper down fewer, so that no tree of
any shape makes a list of millions."""


def remove_tree(root: Path) -> None:
    """Remove a directory with everything in it, however deep or wide, and with directories that nobody may read.

    Raises OSError where something can't be removed, such as what is mounted on: what lies behind a bind mount is not
    the job's. Raises TreeChanged where the tree is changed meanwhile.
    """
    with Cursor(root) as cursor:
        cursor.check_not_mounted()
        levels = [_remove_files(cursor)]  # of each directory from the root to here, some of those in it
        while True:
            if levels[-1]:
                name = levels[-1].pop()
                _enter(cursor, name)
                levels.append(_remove_files(cursor))
            elif more := _remove_files(cursor):
                levels[-1] = more
            elif cursor.depth:
                levels.pop()
                name = cursor.up()
                os.rmdir(name, dir_fd=cursor.fd)
            else:
                break
    root.rmdir()


def _enter(cursor: Cursor, name: bytes) -> None:
    try:
        cursor.down(name)
    except PermissionError:
        cursor.unlock(name)
        cursor.down(name)


def _remove_files(cursor: Cursor) -> list[bytes]:
    """Remove what is no directory, up to a number of those that are; return the names of these."""
    os.fchmod(cursor.fd, stat.S_IRWXU)
    directories: list[bytes] = []
    most = max(1, MAX_HELD // (cursor.depth + 1))
    with os.scandir(cursor.fd) as entries:
        for entry in entries:
            name = os.fsencode(entry.name)
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(name, dir_fd=cursor.fd)
                continue
            directories.append(name)
            if len(directories) == most:
                break
    return directories
