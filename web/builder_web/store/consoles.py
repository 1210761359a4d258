"""Where the lines of consoles are."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from builder_web.console_index import ConsoleIndex
from builder_web.store.schema import build, console

_BUILD: Any = sa.bindparam("key")
_FIND = sa.select(console.c.lines).where(console.c.build == _BUILD)
_KEEP = insert(console).values(build=_BUILD, lines=sa.bindparam("lines")).on_conflict_do_nothing()

_UNKNOWN = (
    sa.select(build.c.id, build.c.console)
    .where(build.c.id > _BUILD, build.c.id.not_in(sa.select(console.c.build)))
    .order_by(build.c.id)
    .limit(sa.bindparam("count"))
)


def find(connection: sa.Connection, build_id: int) -> ConsoleIndex | None:
    """Return the index of a build's console, if it was made."""
    data = connection.scalar(_FIND, {"key": build_id})
    return ConsoleIndex.from_bytes(data) if data is not None else None


def keep(connection: sa.Connection, build_id: int, index: ConsoleIndex) -> None:
    """Keep the index of a build's console."""
    connection.execute(_KEEP, {"key": build_id, "lines": index.to_bytes()})


def unknown(connection: sa.Connection, *, after: int, count: int) -> dict[int, str]:
    """Return the consoles of builds that have no index yet, by the ids of these, from the id after that one on."""
    rows = connection.execute(_UNKNOWN, {"key": after, "count": count})
    return {row.id: row.console for row in rows}
