"""Which names may become files of the data directory."""

import hashlib

from builder.model import MAX_NAME_BYTES, check_name, raw

DATABASE = "builder.sqlite3"
LOCK = "lock"
STATE = "state"
IMPORTED_STATE = "state.imported"

RESERVED = frozenset(
    {DATABASE, *(f"{DATABASE}{suffix}" for suffix in ("-wal", "-shm", "-journal")), LOCK, STATE, IMPORTED_STATE}
)
"""The server's own files, which lie beside the directories of the jobs."""


def check_job_name(name: str) -> None:
    """Raise InvalidName unless a job may be called so."""
    check_name(name, what="job name", reserved=RESERVED)


def check_platform_name(name: str) -> None:
    """Raise InvalidName unless a platform may be called so."""
    check_name(name, what="platform name", reserved=RESERVED)


def directory_name(job: str) -> str:
    """Return how the directory of a job is called: its name, or where that is too long for one, its begin and a digest."""
    encoded = raw(job)
    if len(encoded) <= MAX_NAME_BYTES:
        return job
    digest = hashlib.sha256(encoded).hexdigest()
    return encoded[: MAX_NAME_BYTES - len(digest) - 1].decode("utf-8", "ignore") + "~" + digest
