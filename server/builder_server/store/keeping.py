"""Which builds need not be kept any longer, the oldest first, a page at a time. Each function is a step.

What is to be uploaded, or could not be, is none of them, and what other servers have. A page begins behind a build, the last one of the page before: so
what stays for whatever reason is passed over once, and all pages together cost one way through an index.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from builder.model import Instant
from builder_server.store.ownership import IS_MINE
from builder_server.store.records import OldBuild
from builder_server.store.schema import build, skipped

PAGE = 100
"""Builds of a page."""

_HAS_ENDED = build.c.state != "running"
# a function, which no index knows: else all that may go would be found by its upload, and sorted for each page
_MAY_GO = sa.and_(_HAS_ENDED, IS_MINE, sa.func.coalesce(build.c.upload, "done") == "done")
_SHOWN = sa.select(build.c.uuid, build.c.name, build.c.started, build.c.size).where(_MAY_GO).limit(PAGE)
_OLDEST = _SHOWN.order_by(build.c.started, build.c.uuid)
_KEY = sa.bindparam("key", type_=build.c.uuid.type)
_AT = sa.bindparam("at", type_=build.c.started.type)
_BEHIND = _OLDEST.where(build.c.started >= _AT, sa.or_(build.c.started > _AT, build.c.uuid > _KEY))
_BEFORE = sa.bindparam("before", type_=build.c.started.type)
_OLDER = _BEHIND.where(build.c.started < _BEFORE, build.c.finished < _BEFORE)
# state by state, each a part of an index
_UNMEASURED = _SHOWN.where(build.c.state.in_(("finished", "lost")), build.c.size.is_(None))
_MEASURE = sa.update(build).where(build.c.uuid == sa.bindparam("measured")).values(size=sa.bindparam("bytes"))
_TOTAL = sa.select(sa.func.coalesce(sa.func.sum(build.c.size), 0)).where(_HAS_ENDED, IS_MINE)

# the names of jobs one after the other, so that what lies between two of them in the index is passed over
_names = (
    sa.select(sa.func.min(build.c.name).label("name"), sa.literal(1).label("number"))
    .where(build.c.name >= sa.bindparam("begin", type_=build.c.name.type))
    .cte("names", recursive=True)
)
_names = _names.union_all(
    sa.select(
        sa.select(sa.func.min(build.c.name)).where(build.c.name > _names.c.name).scalar_subquery(), _names.c.number + 1
    ).where(_names.c.name.is_not(None), _names.c.number < PAGE)
)
# by what the index has alone: so a job of a hundred thousand builds costs as many steps in it, and none of them is read
_OLDEST_KEPT = (
    sa.select(build.c.started)
    .where(build.c.name == _names.c.name)
    .order_by(build.c.started.desc())
    .limit(1)
    .offset(sa.bindparam("kept", type_=sa.Integer) - 1)
    .scalar_subquery()
)
_NAMES = sa.select(_names.c.name, _OLDEST_KEPT.label("at")).where(_names.c.name.is_not(None)).order_by(_names.c.name)
_BEYOND = _OLDEST.where(build.c.name == sa.bindparam("wanted"), build.c.started < _AT)


def _page(connection: sa.Connection, statement: sa.Select[Any], **values: object) -> list[OldBuild]:
    return [
        OldBuild(uuid=UUID(row.uuid), name=row.name, started=Instant(row.started), size=row.size or 0)
        for row in connection.execute(statement, values)
    ]


def _place(behind: OldBuild | None) -> dict[str, object]:
    return {"at": behind.started.ms, "key": str(behind.uuid)} if behind else {"at": -_LAST, "key": ""}


_LAST = 2**63 - 1


def unmeasured(connection: sa.Connection, me: str) -> list[OldBuild]:
    """Return builds of which it is not known how many bytes their files take."""
    return _page(connection, _UNMEASURED, me=me)


def measure(connection: sa.Connection, sizes: Mapping[UUID, int]) -> None:
    """Note how many bytes the files of builds take."""
    connection.execute(_MEASURE, [{"measured": str(uuid), "bytes": size} for uuid, size in sizes.items()])


def older_than(connection: sa.Connection, me: str, before: Instant, behind: OldBuild | None) -> list[OldBuild]:
    """Return builds that ended before a moment."""
    return _page(connection, _OLDER, me=me, before=before.ms, **_place(behind))


def beyond_count(connection: sa.Connection, me: str, most: int, behind: OldBuild | None) -> list[OldBuild]:
    """Return builds other than so many newest ones of each job, what runs among these; those before ``behind`` must be gone."""
    found: list[OldBuild] = []
    begin = behind.name if behind else ""
    names: Sequence[Any] = connection.execute(_NAMES, {"begin": begin, "kept": most}).all()
    while names:
        for name, at in names:
            if at is not None:
                found += _page(connection, _BEYOND, me=me, wanted=name, at=at)
            if len(found) >= PAGE:
                return found[:PAGE]
        names = connection.execute(_NAMES, {"begin": names[-1].name, "kept": most}).all()[1:]
    return found


def total(connection: sa.Connection, me: str) -> int:
    """Return how many bytes the builds take that have ended."""
    return int(connection.execute(_TOTAL, {"me": me}).scalar_one())


def oldest(connection: sa.Connection, me: str, behind: OldBuild | None) -> list[OldBuild]:
    """Return builds of any age."""
    return _page(connection, _BEHIND, me=me, **_place(behind))


def forget(connection: sa.Connection, me: str, uuids: Collection[UUID]) -> None:
    """Remove builds from the history; their files are gone."""
    connection.execute(sa.delete(build).where(build.c.uuid.in_([str(uuid) for uuid in uuids]), _MAY_GO), {"me": me})


def forget_skipped(connection: sa.Connection, before: Instant) -> None:
    """Forget runs that were left out before a moment."""
    connection.execute(sa.delete(skipped).where(skipped.c.due < before.ms))
