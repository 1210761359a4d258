"""Files and directories: made durable, and locked."""

import errno
import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def sync_directory(directory: Path) -> None:
    """Make the entries of a directory durable. Raises OSError."""
    descriptor = os.open(directory, _DIRECTORY & ~os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, data: bytes, mode: int) -> None:
    """Write a file that is durable and whole, or as it was before; whatever the umask, nobody ever reads it whom its mode
    does not let. Two must not write it at the same time. Raises OSError.
    """
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)  # what a crash has left
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
    part.replace(path)
    sync_directory(path.parent)


def remove_tree(path: Path) -> None:
    """Remove a file, or a directory with all that is in it, if it is there. Raises OSError."""
    with suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def remove_if_empty(directory: Path) -> None:
    """Remove a directory unless something is in it, or it is not there. Raises OSError."""
    try:
        directory.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
            raise


def lock(descriptor: int, *, shared: bool = False, wait: bool = False) -> bool:
    """Lock an open file or directory until it is closed; return False if others have it. Raises OSError.

    The kernel drops the lock when this process ends. With ``wait`` it blocks: for what others hold for a moment only.
    """
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def is_locked(path: Path) -> bool:
    """Return whether others have a lock on a directory; not so if it can't be looked at."""
    try:
        descriptor = lock_directory(path)
    except OSError:
        return False
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is None


def lock_directory(path: Path, *, shared: bool = False, wait: bool = False) -> int | None:
    """Return a descriptor that locks a directory until it is closed, or None if others have it. Raises OSError.

    ``wait`` as in ``lock``.
    """
    descriptor = os.open(path, _DIRECTORY)
    try:
        if lock(descriptor, shared=shared, wait=wait):
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
