"""What is done to the directory of a server that does not run."""

from pathlib import Path
from typing import TYPE_CHECKING

from builder.runtime.nurseries import plain_nursery
from builder_server import backups, relocation
from builder_server.importer import Imported, import_builds, import_state
from builder_server.served import check_owner, database_of, held, note_elsewhere, place_of
from builder_server.store import Store
from builder_server.store.copying import Copied

if TYPE_CHECKING:
    from builder.runtime.postgres import Location  # its library need not be there


def migrate(data_dir: Path, database: "Location | None", revision: str) -> None:
    """Bring the database of a server that does not run to a revision. Raises StartError and StoreError."""
    check_owner(data_dir)
    with held(data_dir):
        Store.migrate(database_of(data_dir, database), revision)


def restore(data_dir: Path, source: Path) -> None:
    """Bring a backup back to a directory in which no server runs. Raises StartError, StoreError and BackupFailed."""
    data_dir.mkdir(exist_ok=True)
    check_owner(data_dir)
    with held(data_dir):
        backups.read(data_dir, source)


def move(data_dir: Path, place: "Location", name: str | None, *, back: bool) -> Copied:
    """Move the database of a directory, in which no server runs, to PostgreSQL, or ``back``.

    Raises StartError and StoreError.
    """
    check_owner(data_dir)
    with held(data_dir):
        backups.check_whole(data_dir)
        return (relocation.move_in if back else relocation.move_out)(data_dir, place, name)


async def import_left(data_dir: Path, database: "Location | None", name: str | None, *, upload: bool) -> Imported:
    """Take over what the original has left in a directory in which no server runs.

    Raises StartError, StoreError and ImportFailed.
    """
    check_owner(data_dir)
    with held(data_dir):
        backups.check_whole(data_dir)
        store = Store.open(*place_of(data_dir, database, name))
        try:
            async with plain_nursery() as nursery:
                nursery.start_soon(store.run)
                await import_state(store, data_dir)  # only a new database takes it
                if database is not None:
                    note_elsewhere(data_dir, database, store.owner)
                found = await import_builds(store, data_dir, upload=upload)
                nursery.cancel_scope.cancel()
        finally:
            store.close()
    return found
