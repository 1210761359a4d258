"""Migrations by Alembic, as steps of a database.

``location`` is where Alembic finds them, such as "package:folder".
"""

from collections.abc import Callable

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError

from builder.runtime.database import StoreError


def upgrade(location: str) -> Callable[[sa.Connection], None]:
    """Return what brings a database to the newest revision there is. It raises StoreError for one that is newer."""

    def step(connection: sa.Connection) -> None:
        try:
            command.upgrade(_config(connection, location), "head")
        except CommandError as error:
            raise StoreError(f"is it of a newer version? {error}") from error

    return step


def downgrade(location: str, revision: str) -> Callable[[sa.Connection], None]:
    """Return what brings a database back to a revision. It raises StoreError where there is no such way."""

    def step(connection: sa.Connection) -> None:
        try:
            command.downgrade(_config(connection, location), revision)
        except CommandError as error:
            raise StoreError(f"can't bring the database back to {revision}: {error}") from error

    return step


def _config(connection: sa.Connection, location: str) -> Config:
    config = Config()
    config.set_main_option("script_location", location)
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
