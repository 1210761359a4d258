"""The servers that work on a database. Each function is a step.

All times are the database's: so it does not matter whose clock is right, and which of them was held up.
"""

import datetime as dt
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from attrs import field, frozen
from sqlalchemy.ext.compiler import compiles

from builder.model import Instant
from builder.runtime.database import StoreError
from builder_server.store.schema import duty, server

LEASE = dt.timedelta(seconds=15)
"""For how long a server counts as alive that has said so."""

SCHEDULE = "schedule"
"""The duty of whoever queues what is due."""


class _Now(sa.sql.functions.FunctionElement[int]):
    """The time by the clock of the database, at which a statement is run; a transaction may have begun long before."""

    type = sa.BigInteger()
    inherit_cache = True


@compiles(_Now, "sqlite")
def _by_sqlite(_element: _Now, _compiler: Any, **_options: object) -> str:
    return "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"


@compiles(_Now, "postgresql")
def _by_postgresql(_element: _Now, _compiler: Any, **_options: object) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)"


NOW = _Now()


@frozen(kw_only=True)
class Identity:
    """What a server says of itself. ``address`` is where other servers reach it, HOST:PORT or unix:PATH.

    Whoever shows the ``token`` may relay. Each start has an ``incarnation`` of its own.
    """

    name: str
    incarnation: UUID
    address: str | None = None
    version: str
    token: str = field(repr=False)


@frozen(kw_only=True)
class ServerState(Identity):
    """A server that works on the database, or was last known to: by the clock of the database.

    ``expires`` is when it is counted as dead, unless it says that it lives; None: it has its database for itself.
    ``crew`` is what its workers do, in JSON.
    """

    started: Instant
    expires: Instant | None
    crew: str
    is_alive: bool
    keeps_schedule: bool


_KEEPER = sa.select(duty.c.server).where(duty.c.name == SCHEDULE).scalar_subquery()
_ALL = sa.select(
    server,
    # without a lease it is whoever has the database
    sa.func.coalesce(server.c.expires >= NOW, sa.bindparam("unless_leased", type_=sa.Boolean)).label("is_alive"),
    sa.func.coalesce(server.c.name == _KEEPER, sa.false()).label("keeps_schedule"),
).order_by(server.c.name)


def find(connection: sa.Connection, *, is_shared: bool) -> tuple[ServerState, ...]:
    """Return the servers of a database by their names; ``is_shared``: there may be several."""
    return tuple(
        ServerState(
            name=row.name,
            incarnation=UUID(row.incarnation),
            address=row.address,
            version=row.version,
            started=Instant(row.started),
            expires=None if row.expires is None else Instant(row.expires),
            token=row.token,
            crew=row.crew,
            is_alive=bool(row.is_alive),
            keeps_schedule=bool(row.keeps_schedule),
        )
        for row in connection.execute(_ALL, {"unless_leased": not is_shared})
    )


def check_idle(connection: sa.Connection) -> None:
    """Raise StoreError if a server works on a database that several may share; forget those that are counted as dead.

    A dead one that wakes up finds that it was, and looks whether it may come back. The database may be of a revision of before
    there could be several.
    """
    if not sa.inspect(connection).has_table(server.name):
        return
    if alive := connection.scalars(
        sa.select(server.c.name).where(server.c.expires >= NOW).order_by(server.c.name)
    ).all():
        raise StoreError(f"a server works on it, {' and '.join(alive)}: stop it first")
    connection.execute(sa.delete(server))


def register(connection: sa.Connection, me: Identity, *, is_shared: bool) -> None:
    """Note that a server works on the database from now on. Raises StoreError where another one has that name, and lives."""
    others = {each.name: each for each in find(connection, is_shared=is_shared)}
    there = others.get(me.name)
    if is_shared and there is not None and there.is_alive:
        where = f" at {there.address}" if there.address else ""
        raise StoreError(f"a server called {me.name} works on it already{where}: give each its own --name")
    connection.execute(sa.delete(server).where(server.c.name == me.name))
    connection.execute(
        sa.insert(server).values(
            name=me.name,
            incarnation=str(me.incarnation),
            address=me.address,
            version=me.version,
            started=NOW,
            expires=NOW + LEASE // dt.timedelta(milliseconds=1) if is_shared else None,
            token=me.token,
        )
    )


def remove(connection: sa.Connection, me: Identity) -> None:
    """Note that a server works on the database no more, if it still does."""
    connection.execute(sa.delete(server).where(server.c.name == me.name, server.c.incarnation == str(me.incarnation)))
