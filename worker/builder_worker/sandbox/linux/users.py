"""Users of the host for jobs, when the worker is root: each sandbox has one of its own while it exists.

A lock on a file says that one is taken, also by another worker on this machine; the kernel drops it when its worker
dies.
"""

import os
from pathlib import Path

from attrs import frozen

from builder.runtime import files
from builder_worker.sandbox import SandboxError

LOCKS = Path("/run/builder-worker")
"""Only root can write here, so only root takes a user."""


@frozen(kw_only=True)
class JobUser:
    """A taken user: its number, which is its group's too, its place in the range, and the lock that keeps it."""

    uid: int
    index: int
    lock: int

    def release(self) -> None:
        """Let others take it."""
        os.close(self.lock)


def take(uids: range, *, shared: bool, locks: Path = LOCKS) -> JobUser:
    """Take a free user. With ``shared``, take the last one, together with others who share caches.

    Raises SandboxError if there is none, or the locks cannot be written.
    """
    try:
        locks.mkdir(mode=0o700, exist_ok=True)
        for index in range(len(uids) - 1, len(uids)) if shared else range(len(uids) - 1):
            lock = os.open(locks / f"uid-{uids[index]}", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            if files.lock(lock, shared=shared):
                return JobUser(uid=uids[index], index=index, lock=lock)
            os.close(lock)
    except OSError as error:
        raise SandboxError(f"cannot take a user for the job: {error}") from error
    raise SandboxError(f"all users for jobs, {uids[0]} to {uids[-1]}, are taken: have fewer --slots on this machine")
