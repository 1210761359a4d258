"""Which names may become files of the data directory."""

import hashlib
import re

from builder.errors import InvalidName
from builder.model import MAX_NAME_BYTES, check_name, raw
from builder_server.errors import CommandRefused

DATABASE = "builder.sqlite3"
ELSEWHERE = "builder.postgres"
COPIED = f"{DATABASE}.copied"
"""What a database is called once PostgreSQL has a copy of it."""
COPYING = f"{DATABASE}.copying"
"""A copy that is not complete."""
ONLY_SERVER = "main"
"""The name of the server that has a database for itself."""

LOCK = "lock"
STATE = "state"
IMPORTED_STATE = "state.imported"
KEYS = "builder.keys"
KEY_SUFFIX = ".pem"
REVOKED = "builder.crl"
"""The newest lists of revoked certificates that were seen, in PEM."""

RESERVED = frozenset(
    {
        DATABASE,
        *(f"{DATABASE}{suffix}" for suffix in ("-wal", "-shm", "-journal", ".part")),
        COPIED,
        *(f"{COPYING}{suffix}" for suffix in ("", "-wal", "-shm", "-journal")),
        ELSEWHERE,
        LOCK,
        STATE,
        IMPORTED_STATE,
        KEYS,
        REVOKED,
        f".{REVOKED}.part",
    }
)
"""The server's own files and directories, which lie beside the directories of the jobs."""


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


_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,127}")


def check_package(package: str) -> None:
    """Raise InvalidName unless this can be an opam package, with or without a version: it becomes part of a script."""
    if not _PACKAGE.fullmatch(package):
        raise InvalidName("invalid opam package: it must be NAME or NAME.VERSION, of letters, digits and ._+~-")


def known(name: str, failure: str) -> str:
    """Return a name that may be in the database; one that never can be is as unknown as any other."""
    try:
        check_name(name, what="name")
    except InvalidName as error:
        raise CommandRefused(failure) from error
    return name
