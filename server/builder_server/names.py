"""Which names may become files of the data directory."""

from builder.model import check_name

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
