"""Migrations by Alembic, as steps of a database.

``location`` is where Alembic finds them, such as "package:folder".
"""

from collections.abc import Callable

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from builder.runtime.database import StoreError


def upgrade(location: str) -> Callable[[sa.Connection], None]:
    """Return what brings a database to the newest revision there is. It raises StoreError for one that is newer."""
    return migrate(location, "head")


def migrate(location: str, revision: str) -> Callable[[sa.Connection], None]:
    """Return what brings a database to a revision, be it newer or older than its own.

    It raises StoreError for a database whose own revision is not known.
    """

    def step(connection: sa.Connection) -> None:
        config = _config(connection, location)
        revisions = [each.revision for each in ScriptDirectory.from_config(config).walk_revisions()]  # the newest first
        now = MigrationContext.configure(connection).get_current_revision()
        if now is not None and now not in revisions:
            raise StoreError(
                f"a newer version has written it (revision {now}, this one knows up to {revisions[0]}): install that, or let "
                f"it bring the database back with its 'migrate --to {revisions[0]}'"
            )
        is_back = now is not None and revision in revisions and revisions.index(revision) > revisions.index(now)
        (command.downgrade if is_back else command.upgrade)(config, revision)

    return step


def _config(connection: sa.Connection, location: str) -> Config:
    config = Config()
    config.set_main_option("script_location", location)
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
