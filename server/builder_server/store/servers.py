"""The servers that work on a database. Each function is a step.

All times are the database's: so it does not matter whose clock is right, and which of them was held up.
"""

import datetime as dt
from collections.abc import Collection
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from attrs import field, frozen
from sqlalchemy.ext.compiler import compiles

from builder.model import Instant, printable
from builder.runtime.database import StoreError
from builder_server.store import ownership
from builder_server.store.records import LeftBuild
from builder_server.store.schema import build, duty, server
from builder_server.store.waking import Woken

LEASE = dt.timedelta(seconds=15)
"""For how long a server counts as alive that has said so."""


class Fenced(StoreError):
    """The other servers have counted this one as dead. It writes nothing more until it is registered anew."""


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
class ServerIdentity:
    """What a server says of itself. ``address`` is where other servers reach it, HOST:PORT or unix:PATH.

    Whoever shows the ``token`` may relay. Each start has an ``incarnation`` of its own.
    """

    name: str
    incarnation: UUID
    address: str | None = None
    version: str
    token: str = field(repr=False)


@frozen(kw_only=True)
class ServerState(ServerIdentity):
    """A server that works on the database, or was last known to: ``now``, by the clock of the database.

    ``expires`` is when it is counted as dead, unless it says that it lives; None: it has its database for itself.
    ``crew`` is what its workers do, in JSON.
    """

    now: Instant
    started: Instant
    expires: Instant | None
    crew: str
    is_alive: bool
    keeps_schedule: bool


_KEEPER = sa.select(duty.c.server).where(duty.c.name == SCHEDULE).scalar_subquery()
_ALL = sa.select(
    server,
    NOW.label("now"),
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
            now=Instant(row.now),
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


def check_gone(connection: sa.Connection, name: str) -> None:
    """Raise StoreError if a server works on the database."""
    if connection.scalar(sa.select(server.c.name).where(server.c.name == name, server.c.expires >= NOW)):
        raise StoreError(f"the server {printable(name)} works on it: stop it first")


_ME = server.c.name == sa.bindparam("me"), server.c.incarnation == sa.bindparam("its")
_IS_THERE = sa.select(sa.literal(1)).where(*_ME)
_EXPIRES = NOW + sa.bindparam("lease", type_=sa.BigInteger)
_RENEW = sa.update(server).where(*_ME).values(expires=_EXPIRES)
_REMOVE = sa.delete(server).where(*_ME)
_SILENT = sa.select(server.c.name, server.c.expires).where(server.c.expires < NOW).order_by(server.c.name)
_REMOVE_DEAD = sa.delete(server).where(server.c.name.in_(sa.bindparam("dead", expanding=True)), server.c.expires < NOW)
_ADOPT = sa.update(build).where(build.c.state == "running", build.c.owner.is_(None)).values(owner=sa.bindparam("me"))
_NOTE_LOOK = sa.update(duty).where(duty.c.name == SCHEDULE).values(server=sa.bindparam("me"), looked=NOW)
_UNWATCHED = sa.select(NOW - duty.c.looked).where(duty.c.name == SCHEDULE)

_CHECKED = "checked"


def _lease() -> int:
    return LEASE // dt.timedelta(milliseconds=1)


def _key(me: ServerIdentity) -> dict[str, Any]:
    return {"me": me.name, "its": str(me.incarnation)}


def register(connection: sa.Connection, woken: Woken, me: ServerIdentity, *, has_lease: bool) -> None:
    """Note that a server works on the database from now on, in place of any that had its name; builds of no server are its."""
    connection.execute(sa.delete(server).where(server.c.name == me.name))
    connection.execute(
        sa.insert(server).values(
            name=me.name,
            incarnation=str(me.incarnation),
            address=me.address,
            version=me.version,
            started=NOW,
            expires=NOW + _lease() if has_lease else None,
            token=me.token,
        )
    )
    connection.execute(_ADOPT, {"me": me.name})
    woken.servers = True


def check(connection: sa.Connection, me: ServerIdentity) -> None:
    """Raise Fenced unless a server is still one of those that work on the database; once in a transaction will do.

    It is removed in a transaction beside which no other one writes: so what this one does was done before.
    """
    checked = connection.get_transaction(), me
    if connection.info.get(_CHECKED) != checked:
        if connection.scalar(_IS_THERE, _key(me)) is None:
            raise Fenced(f"the other servers have counted {me.name} as dead")
        connection.info[_CHECKED] = checked


def renew(connection: sa.Connection, me: ServerIdentity, crew: str | None) -> bool:
    """Note that a server lives; return False for one that was counted as dead.

    Its ``crew`` is what its workers do, None if that is what it was.
    """
    renewal = _RENEW if crew is None else _RENEW.values(crew=crew)
    return connection.execute(renewal, _key(me) | {"lease": _lease()}).rowcount == 1


def remove(connection: sa.Connection, woken: Woken, me: ServerIdentity) -> None:
    """Note that a server works on the database no more, if it still does."""
    connection.execute(_REMOVE, _key(me))
    woken.servers = True


def find_silent(connection: sa.Connection) -> tuple[Collection[tuple[str, int]], bool]:
    """Return the servers whose lease has run out, and when, and whether builds run whose server is gone."""
    return [(row.name, row.expires) for row in connection.execute(_SILENT)], ownership.has_left(connection)


def take_over(connection: sa.Connection, woken: Woken, me: str, dead: Collection[str]) -> tuple[LeftBuild, ...]:
    """Remove servers whose lease has run out, and have a server own what runs and is nobody's now."""
    if connection.execute(_REMOVE_DEAD, {"dead": list(dead)}).rowcount:
        woken.servers = True
    return ownership.take_over(connection, woken, me)


def note_look(connection: sa.Connection, me: ServerIdentity) -> None:
    """Note that a server looks for what is due."""
    if connection.execute(_NOTE_LOOK, {"me": me.name}).rowcount == 0:
        connection.execute(sa.insert(duty).values(name=SCHEDULE, server=me.name, looked=NOW))


def unwatched(connection: sa.Connection) -> float | None:
    """Return for how many seconds nobody has looked for what is due; None if nobody ever has."""
    ms: int | None = connection.scalar(_UNWATCHED)
    return None if ms is None else ms / 1000
