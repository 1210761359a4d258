"""Data directories are opened here: only those of schema version 18, and nothing is changed in any other."""

import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa

from builder.runtime.grouping import LOCK_TIMEOUT
from builder.runtime.sqlite import SQLite
from builder_web.errors import NotOurs
from builder_web.store import names, schema, summaries


def check(path: Path) -> None:
    """Raise NotOurs unless the file is a database of a builder-web of our schema version."""
    if not path.exists():
        raise NotOurs(
            f"there is no {path}; make one with: builder-db migrate --datadir {shlex.quote(str(path.parent))}"
        )
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.Error as error:
        raise NotOurs(f"can't read {path}: {error}") from error
    if application != schema.APPLICATION_ID:
        raise NotOurs(f"{path} is no database of builder-web: its application_id is {application}")
    if version < schema.SCHEMA_VERSION:
        raise NotOurs(
            f"{path} has schema version {version}; bring it to {schema.SCHEMA_VERSION} with the original's "
            "builder-migrations, then start again"
        )
    if version > schema.SCHEMA_VERSION:
        raise NotOurs(
            f"{path} has schema version {version}, newer than {schema.SCHEMA_VERSION}, which this program knows: "
            "use a newer builder-web"
        )


def create(connection: sa.Connection) -> None:
    """Make the tables of the original in an empty database."""
    for statement in schema.ORIGINAL:
        connection.exec_driver_sql(statement)
    connection.exec_driver_sql(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    connection.exec_driver_sql(f"PRAGMA user_version = {schema.SCHEMA_VERSION}")


def prepare(connection: sa.Connection) -> None:
    """Make our own tables, and make anew what builds of another program may have changed."""
    inspector = sa.inspect(connection)
    if inspector.has_table(schema.form.name):
        version = connection.scalar(sa.select(schema.form.c.version))
        if version != schema.OUR_VERSION:
            for name in inspector.get_table_names():
                if name.startswith("web_") and name not in schema.kept.tables:
                    connection.exec_driver_sql(f'DROP TABLE "{name}"')
    schema.ours.create_all(connection)
    schema.kept.create_all(connection)
    if connection.scalar(sa.select(schema.form.c.version)) is None:
        connection.execute(sa.insert(schema.form).values(version=schema.OUR_VERSION))
    summaries.catch_up(connection)
    names.catch_up(connection)


def open_database(path: Path) -> SQLite:
    """Return the database of a data directory. Raises NotOurs and StoreError."""
    check(path)
    return SQLite(path, prepare=prepare)


@contextmanager
def writing(path: Path, *, new: bool = False) -> Iterator[sa.Connection]:
    """One transaction that writes, for a program that does one thing. Raises NotOurs; SQLAlchemyError as it comes.

    All tables are there, our own too. With ``new`` those of the original are made as well.
    """
    if not new:
        check(path)
    with _transaction(sa.URL.create("sqlite", database=str(path)), begin="BEGIN IMMEDIATE") as connection:
        if new:
            create(connection)
        prepare(connection)
        yield connection


@contextmanager
def reading(path: Path) -> Iterator[sa.Connection]:
    """One transaction that sees one moment, and keeps nobody from writing. Raises NotOurs; SQLAlchemyError as it comes."""
    check(path)
    query = {"mode": "ro", "uri": "true"}
    url = sa.URL.create("sqlite", database=f"file:{quote(str(path.absolute()))}", query=query)
    with _transaction(url, begin="BEGIN") as connection:
        yield connection


@contextmanager
def _transaction(url: sa.URL, *, begin: str) -> Iterator[sa.Connection]:
    engine = sa.create_engine(url, connect_args={"timeout": LOCK_TIMEOUT})
    sa.event.listen(engine, "connect", _configure)
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def _configure(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")
