"""Which server has a build: it owns the attempt while that runs, and the files are on its disk afterwards.

Each function is a step, or a part of one. What bears no server's name is of before there could be several: it belongs to
whichever asks.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from builder.model import Instant
from builder_server.store.records import Holder, LeftBuild
from builder_server.store.schema import build, left_behind, server, upload
from builder_server.store.waking import Woken

ME = sa.bindparam("me", type_=build.c.owner.type)
"""The name of the server that asks, to be handed to statements with IS_MINE."""

IS_MINE = sa.func.coalesce(build.c.owner, ME) == ME

_LEFT = (
    build.c.uuid, build.c.name, build.c.platform, build.c.started, build.c.worker, build.c.worker_name,
    build.c.secret_sha256, build.c.time_limit, build.c.max_silent, build.c.ended_by,
)  # fmt: skip
_RUNS = build.c.state == "running"
_COUNTS = sa.select(build.c.owner, sa.func.count().label("number")).where(_RUNS).group_by(build.c.owner)
_MINE = sa.select(*_LEFT).where(_RUNS, IS_MINE).order_by(build.c.started)
_IS_CLAIMED = (
    build.c.uuid == sa.bindparam("claimed"),
    _RUNS,
    build.c.ended_by.is_(None),
    build.c.secret_sha256 == sa.bindparam("shown", type_=build.c.secret_sha256.type),
)
_IS_LEFT = _RUNS, ~sa.exists().where(server.c.name == build.c.owner)
_HAS_LEFT = sa.select(sa.literal(1)).where(*_IS_LEFT).limit(1)
_IS_NOTED = sa.exists().where(left_behind.c.build == build.c.uuid, left_behind.c.server == build.c.owner)
_LEFT_BEHIND = (
    sa.select(left_behind.c.build, left_behind.c.name)
    .where(left_behind.c.server == ME)
    .where(~sa.exists().where(build.c.uuid == left_behind.c.build, IS_MINE))
)
_FORGET = sa.delete(left_behind).where(
    left_behind.c.server == ME, left_behind.c.build.in_(sa.bindparam("gone", expanding=True))
)
_IS_MINE = sa.select(sa.literal(1)).where(build.c.uuid == sa.bindparam("wanted"), _RUNS, IS_MINE)
_ASK_END = (
    sa.update(build)
    .where(build.c.uuid.in_(sa.bindparam("wanted", expanding=True)), _RUNS, ~IS_MINE, build.c.ended_by.is_(None))
    .values(ended_by=sa.bindparam("by"))
    .returning(build.c.uuid)
)


def _left(row: Any) -> LeftBuild:
    return LeftBuild(
        uuid=UUID(row.uuid),
        name=row.name,
        platform=row.platform,
        started=Instant(row.started),
        holder=Holder(address=row.worker or "", name=row.worker_name, secret_sha256=row.secret_sha256),
        time_limit=row.time_limit,
        max_silent=row.max_silent,
        cancelled_by=row.ended_by,
    )


def running(connection: sa.Connection, me: str) -> tuple[LeftBuild, ...]:
    """Return the builds of a server that are recorded as running, the oldest first."""
    return tuple(map(_left, connection.execute(_MINE, {"me": me})))


def count(connection: sa.Connection) -> dict[str, int]:
    """Return how many builds run, by their owners."""
    return {row.owner: row.number for row in connection.execute(_COUNTS) if row.owner is not None}


def runs_here(connection: sa.Connection, me: str, uuid: UUID) -> bool:
    """Return whether a build runs, and is that server's."""
    return connection.scalar(_IS_MINE, {"me": me, "wanted": str(uuid)}) is not None


def left_behind_by(connection: sa.Connection, me: str) -> dict[UUID, str]:
    """Return the builds that have moved from a server whose files may still be there, with the names of their jobs."""
    return {UUID(row.build): row.name for row in connection.execute(_LEFT_BEHIND, {"me": me})}


def forget_left_behind(connection: sa.Connection, me: str, uuids: Collection[UUID]) -> None:
    """Note that a server has no files any more of builds that have moved."""
    connection.execute(_FORGET, {"me": me, "gone": [str(uuid) for uuid in uuids]})


_HAS_ENDED = build.c.state != "running"
_ABSENT = (
    sa.select(build.c.owner, sa.func.count().label("number"))
    .where(_HAS_ENDED, build.c.owner.is_not(None), ~sa.exists().where(server.c.name == build.c.owner))
    .group_by(build.c.owner)
    .order_by(build.c.owner)
)
_ITS = _HAS_ENDED, build.c.owner == sa.bindparam("its")
_NO_UPLOADS = sa.delete(upload).where(upload.c.build.in_(sa.select(build.c.uuid).where(*_ITS)))
_NOBODYS = (
    sa.update(build)
    .where(*_ITS)
    .values(
        owner=None,
        upload=sa.case((build.c.upload.in_(("uploaded", "done")), "done")),
        provenance=sa.case((build.c.provenance == "signed", "signed")),
    )
)


def absent(connection: sa.Connection) -> dict[str, int]:
    """Return the servers that have files of builds, and do not work on the database now, and of how many."""
    return {row.owner: row.number for row in connection.execute(_ABSENT)}


def give_up(connection: sa.Connection, name: str) -> int:
    """Have builds that ended at a server that is gone be nobody's; return how many.

    Nothing of them is uploaded or signed any more, and any server removes them in time. What runs is taken over.
    """
    connection.execute(_NO_UPLOADS, {"its": name})
    connection.execute(sa.delete(left_behind).where(left_behind.c.server == name))
    return connection.execute(_NOBODYS, {"its": name}).rowcount


class _Moving:
    """Moves builds that meet a condition to a server, and notes what they leave behind at the others."""

    def __init__(self, *where: sa.ColumnElement[bool]) -> None:
        others = sa.select(build.c.uuid, build.c.owner, build.c.name).where(*where, ~IS_MINE, ~_IS_NOTED)
        self._note = sa.insert(left_behind).from_select(("build", "server", "name"), others)
        self._move = sa.update(build).where(*where).values(owner=ME).returning(*_LEFT)

    def run(self, connection: sa.Connection, woken: Woken, values: Mapping[str, object]) -> tuple[LeftBuild, ...]:
        """Return the builds."""
        connection.execute(self._note, values)
        moved = tuple(map(_left, connection.execute(self._move, values)))
        woken.moved.update(each.uuid for each in moved)
        return moved


_CLAIM = _Moving(*_IS_CLAIMED)
_TAKE_OVER = _Moving(*_IS_LEFT)


def while_mine(connection: sa.Connection, me: str, uuid: UUID, step: Callable[[sa.Connection], None]) -> None:
    """Do a step that concerns a build that runs, unless that is another server's by now."""
    if runs_here(connection, me, uuid):
        step(connection)


def claim(connection: sa.Connection, woken: Woken, me: str, uuid: UUID, secret_sha256: bytes) -> LeftBuild | None:
    """Make a build that runs a server's own, for the worker that shows its secret; None where there is none to be had.

    One that was cancelled stays where it is, for its end to be recorded.
    """
    moved = _CLAIM.run(connection, woken, {"me": me, "claimed": str(uuid), "shown": secret_sha256})
    return moved[0] if moved else None


def has_left(connection: sa.Connection) -> bool:
    """Return whether builds run whose server is gone."""
    return connection.scalar(_HAS_LEFT) is not None


def take_over(connection: sa.Connection, woken: Woken, me: str) -> tuple[LeftBuild, ...]:
    """Make builds that run a server's own whose server is gone; return them."""
    return _TAKE_OVER.run(connection, woken, {"me": me})


def ask_end(connection: sa.Connection, woken: Woken, me: str, uuids: Collection[UUID], by: str) -> None:
    """Note who has cancelled builds that run at other servers, which are told."""
    wanted = {"me": me, "wanted": [str(uuid) for uuid in uuids], "by": by}
    woken.cancelled.update((UUID(uuid), by) for uuid in connection.scalars(_ASK_END, wanted))
