"""The database of a server's directory moves to PostgreSQL, and back. Whether builder.sqlite3 is there says where it is.

So one rename is the move: until then the server goes on with the one it had, from then on with the copy.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from builder.runtime.files import sync_directory
from builder_server.names import COPIED, COPYING, DATABASE, ELSEWHERE, ONLY_SERVER
from builder_server.served import StartError, choose_name, is_elsewhere, note_elsewhere
from builder_server.store import copying

if TYPE_CHECKING:
    from builder.runtime.postgres import Location  # its library need not be there


def move_out(directory: Path, place: "Location", given: str | None) -> copying.Copied:
    """Move the database of a directory to PostgreSQL. ``given`` as in ``served.place_of``.

    Raises StartError, StoreError and OSError.
    """
    database = directory / DATABASE
    if is_elsewhere(directory):
        raise StartError(f"the database of {directory} is in PostgreSQL already: start the server with --database")
    if not database.is_file():
        raise StartError(f"there is no {DATABASE} in {directory} to copy: name the server's directory with --dir")
    name = choose_name(directory, given)
    copied = copying.copy(database, place, owner=ONLY_SERVER, becomes=name)
    note_elsewhere(directory, place, name)
    sync_directory(directory)
    database.replace(directory / COPIED)
    sync_directory(directory)
    return copied


def move_in(directory: Path, place: "Location", given: str | None) -> copying.Copied:
    """Move a database from PostgreSQL to the directory of one of its servers.

    ``given`` as in ``served.place_of``. Raises StartError, StoreError and OSError.
    """
    database, copy = directory / DATABASE, directory / COPYING
    if database.exists():
        raise StartError(f"there is a {DATABASE} in {directory}: move it away, or name another directory with --dir")
    name = choose_name(directory, given)
    _remove(copy)  # what was left where it was interrupted
    try:
        copied = copying.copy(place, copy, owner=name, becomes=ONLY_SERVER)
    except BaseException:
        _remove(copy)
        raise
    copy.rename(database)
    sync_directory(directory)
    (directory / ELSEWHERE).unlink(missing_ok=True)
    return copied


def _remove(database: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        database.with_name(f"{database.name}{suffix}").unlink(missing_ok=True)
