"""Migrations by Alembic, run when a database is opened."""

from collections.abc import Callable

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError

from builder.runtime.database import StoreError


def upgrade(location: str) -> Callable[[sa.Connection], None]:
    """Return what brings a database to the newest version there is. It raises StoreError for one that is newer.

    ``location`` is where Alembic finds the migrations, such as "package:folder".
    """

    def prepare(connection: sa.Connection) -> None:
        config = Config()
        config.set_main_option("script_location", location)
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise StoreError(f"is it of a newer version? {error}") from error

    return prepare
