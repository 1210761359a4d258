"""All that a store has, copied to an empty one, of whatever kind both databases are."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from attrs import frozen

from builder.runtime.database import StoreError
from builder.runtime.migrations import current, newest, upgrade
from builder.runtime.sqlite import SQLite, alter
from builder_server.store import servers
from builder_server.store.schema import build, duty, metadata, program, server
from builder_server.store.store import MIGRATIONS

if TYPE_CHECKING:
    from builder.runtime.postgres import Location  # its library need not be there

TABLES = tuple(table for table in metadata.sorted_tables if table not in (server, duty, program))
"""What is copied, each behind what it refers to: who works on a database, and may, is no part of it."""

PAGE = 64
"""Rows that are held at once, each of which may have a script of 4 MiB."""

_UNHURRIED = ("statement_timeout", "idle_in_transaction_session_timeout")
"""What PostgreSQL would end: one side may wait long for the other."""


@frozen(kw_only=True)
class Copied:
    """How many ``rows`` a store has, and what ``others`` have built: servers that the target is not of, by their names."""

    rows: int
    others: tuple[str, ...]


def copy(source: "Path | Location", target: "Path | Location", *, owner: str, becomes: str) -> Copied:
    """Copy a store that no server uses to one that is empty. Raises StoreError.

    A file must not be there, a database in PostgreSQL must. The target has all of it in the end, or nothing. The server that is
    the ``owner`` of builds there has another name here; so has one of before there were names.
    """
    copied = Copied(rows=0, others=())

    def read(of: sa.Connection) -> None:
        _check_source(of)  # before the other one is opened, which would be named with what is wrong here
        _do_in(target, partial(fill, of))

    def fill(of: sa.Connection, to: sa.Connection) -> None:
        nonlocal copied
        rows = _copy(of, to, {owner: becomes, None: becomes})
        others = to.scalars(sa.select(build.c.owner).where(build.c.owner != becomes).distinct().order_by(build.c.owner))
        copied = Copied(rows=rows, others=tuple(others))

    _do_in(source, read)
    return copied


def _do_in(where: "Path | Location", step: Callable[[sa.Connection], None]) -> None:
    """Do a step in one transaction, in which no server writes; a file is made unless it is there."""
    if isinstance(where, Path):
        if where.exists():
            alter(where, step)
        else:
            SQLite(where, prepare=step).close()
        return
    from builder.runtime.postgres import PostgreSQL

    PostgreSQL(where, prepare=step).close()


def _copy(source: sa.Connection, target: sa.Connection, owners: Mapping[str | None, str]) -> int:
    for connection in filter(_is_postgresql, (source, target)):
        for setting in _UNHURRIED:
            connection.exec_driver_sql(f"SET LOCAL {setting} = 0")
    upgrade(MIGRATIONS)(target)
    servers.check_idle(target)
    for table in TABLES:
        if target.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first():
            raise StoreError(f"it isn't empty, there are rows in its table {table.name}: name one that has none")
    return sum(_copy_table(source, target, table, owners) for table in TABLES)


def _check_source(source: sa.Connection) -> None:
    found, known = current(source), newest(MIGRATIONS)
    if found is None:
        raise StoreError("there is nothing to copy: it has no tables")
    if found != known:
        raise StoreError(
            f"what is to be copied is at revision {found}, and this version knows {known}: start a server of this version with it "
            "once"
        )
    servers.check_idle(source)


def _copy_table(source: sa.Connection, target: sa.Connection, table: sa.Table, owners: Mapping[str | None, str]) -> int:
    read, written = _Digest(), _Digest()
    for index in table.indexes:  # to sort all at once takes less than to put each in its place
        index.drop(target)
    for page in _pages(source, table):
        rows = [dict(row) for row in page]
        for row in rows if table is build else ():
            row["owner"] = owners.get(row["owner"], row["owner"])
        read.add(rows)
        target.execute(sa.insert(table), rows)
    for index in table.indexes:
        index.create(target)
    for page in _pages(target, table):
        written.add(page)
    if written.value != read.value:
        raise StoreError(f"its table {table.name} is not what was read: {read} became {written}")
    if table.autoincrement_column is not None:
        _go_on(target, table, _last_id(source, table))
    return read.rows


class _Digest:
    """What a table has, in the order of its key."""

    def __init__(self) -> None:
        self.rows = 0
        self._hash = hashlib.sha256()

    def add(self, page: Sequence[Mapping[Any, Any]]) -> None:
        self.rows += len(page)
        for row in page:
            self._hash.update(repr(tuple(row.values())).encode())

    @property
    def value(self) -> tuple[int, str]:
        return self.rows, self._hash.hexdigest()

    def __str__(self) -> str:
        return f"{self.rows} rows ({self._hash.hexdigest()[:12]})"


def _pages(connection: sa.Connection, table: sa.Table) -> Iterator[Sequence[Mapping[Any, Any]]]:
    """Yield all rows in the order of their key, which is that of bytes in both databases."""
    query = sa.select(table).order_by(*table.primary_key)
    with connection.execute(query, execution_options={"yield_per": PAGE}) as found:
        yield from found.mappings().partitions()


# --- ids -----------------------------------------------------------------------------------------------------------


_GIVEN = sa.text("SELECT pg_sequence_last_value(CAST(:name AS regclass))")


def _is_postgresql(connection: sa.Connection) -> bool:
    return connection.dialect.name == "postgresql"


def _counts_by_itself(table: sa.Table) -> bool:
    """Return whether SQLite remembers which ids of a table were given, and does not just take the highest there is."""
    return bool(table.dialect_options["sqlite"]["autoincrement"])


def _last_id(connection: sa.Connection, table: sa.Table) -> int:
    """Return the highest id that was ever given, as far as that is known, or 0."""
    column = table.autoincrement_column
    highest = connection.scalar(sa.select(sa.func.max(column))) or 0
    given = None
    if _is_postgresql(connection):
        given = connection.scalar(_GIVEN, {"name": _sequence(connection, table)})
    elif _counts_by_itself(table):
        given = connection.scalar(sa.text("SELECT seq FROM sqlite_sequence WHERE name = :name"), {"name": table.name})
    return max(highest, given or 0)


def _go_on(connection: sa.Connection, table: sa.Table, last: int) -> None:
    """Have the next id be behind one that was given."""
    if not last:
        return
    if _is_postgresql(connection):
        connection.execute(sa.select(sa.func.setval(_sequence(connection, table), last)))
    elif _counts_by_itself(table):
        connection.execute(sa.text("DELETE FROM sqlite_sequence WHERE name = :name"), {"name": table.name})
        connection.execute(
            sa.text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :last)"),
            {"name": table.name, "last": last},
        )


def _sequence(connection: sa.Connection, table: sa.Table) -> str:
    assert table.autoincrement_column is not None, "its ids are counted"
    name = connection.scalar(sa.select(sa.func.pg_get_serial_sequence(table.name, table.autoincrement_column.name)))
    assert isinstance(name, str), "the column has a sequence of its own"
    return name
