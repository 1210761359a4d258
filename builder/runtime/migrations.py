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


def newest(location: str) -> str:
    """Return the newest revision there is."""
    found = _scripts(location).get_current_head()
    assert found, "there are migrations"
    return found


def current(connection: sa.Connection) -> str | None:
    """Return the revision of a database, which need not be known here; None: it has none."""
    return MigrationContext.configure(connection).get_current_revision()


def migrate(location: str, revision: str) -> Callable[[sa.Connection], None]:
    """Return what brings a database to a revision, be it newer or older than its own.

    It raises StoreError for a database whose own revision is not known.
    """

    def step(connection: sa.Connection) -> None:
        revisions = [each.revision for each in _scripts(location).walk_revisions()]  # the newest first
        now = current(connection)
        if now is not None and now not in revisions:
            raise StoreError(
                f"a newer version has written it (revision {now}, this one knows up to {revisions[0]}): install that, or let "
                f"it bring the database back with its 'migrate --to {revisions[0]}'"
            )
        is_back = now is not None and revision in revisions and revisions.index(revision) > revisions.index(now)
        config = _config(location)
        config.attributes["connection"] = connection
        (command.downgrade if is_back else command.upgrade)(config, revision)

    return step


def _scripts(location: str) -> ScriptDirectory:
    return ScriptDirectory.from_config(_config(location))


def _config(location: str) -> Config:
    config = Config()
    config.set_main_option("script_location", location)
    config.set_main_option("path_separator", "os")
    return config
