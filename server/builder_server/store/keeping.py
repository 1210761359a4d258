"""Which builds need not be kept any longer, the oldest first, a page at a time. Each function is a step.

What is to be uploaded, or could not be, is none of them.
"""

from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from builder.model import Instant
from builder_server.store.records import OldBuild
from builder_server.store.schema import build, skipped

PAGE = 100
"""Builds of a page."""

_HAS_ENDED = build.c.state != "running"
_MAY_GO = sa.and_(_HAS_ENDED, sa.or_(build.c.upload.is_(None), build.c.upload == "done"))
_OLDEST = sa.select(build.c.uuid, build.c.name, build.c.size).where(_MAY_GO).order_by(build.c.started).limit(PAGE)
_BEFORE = sa.bindparam("before", type_=build.c.started.type)
_OLDER = _OLDEST.where(build.c.started < _BEFORE, build.c.finished < _BEFORE)
_OF_JOB = _OLDEST.where(build.c.name == sa.bindparam("wanted"))
_NUMEROUS = (
    sa.select(build.c.name, sa.func.count())
    .where(_HAS_ENDED)
    .group_by(build.c.name)
    .having(sa.func.count() > sa.bindparam("most"))
)
_UNMEASURED = _OLDEST.where(build.c.size.is_(None))
_MEASURE = sa.update(build).where(build.c.uuid == sa.bindparam("measured")).values(size=sa.bindparam("bytes"))
_TOTAL = sa.select(sa.func.coalesce(sa.func.sum(build.c.size), 0)).where(_HAS_ENDED)


def _page(connection: sa.Connection, statement: sa.Select[Any], **values: object) -> list[OldBuild]:
    return [
        OldBuild(uuid=UUID(uuid), name=name, size=size or 0)
        for uuid, name, size in connection.execute(statement, values)
    ]


def unmeasured(connection: sa.Connection) -> list[OldBuild]:
    """Return builds of which it is not known how many bytes their files take."""
    return _page(connection, _UNMEASURED)


def measure(connection: sa.Connection, sizes: Mapping[UUID, int]) -> None:
    """Note how many bytes the files of builds take."""
    connection.execute(_MEASURE, [{"measured": str(uuid), "bytes": size} for uuid, size in sizes.items()])


def older_than(connection: sa.Connection, before: Instant) -> list[OldBuild]:
    """Return builds that ended before a moment."""
    return _page(connection, _OLDER, before=before.ms)


def beyond_count(connection: sa.Connection, most: int) -> list[OldBuild]:
    """Return builds of the jobs that have more than so many."""
    found: list[OldBuild] = []
    for name, count in connection.execute(_NUMEROUS, {"most": most}).all():
        found += _page(connection, _OF_JOB, wanted=name)[: count - most]
        if len(found) >= PAGE:
            break
    return found


def beyond_bytes(connection: sa.Connection, most: int) -> list[OldBuild]:
    """Return builds without which the others take no more than so many bytes, or some of these."""
    excess = int(connection.execute(_TOTAL).scalar_one()) - most
    found: list[OldBuild] = []
    for oldest in _page(connection, _OLDEST) if excess > 0 else ():
        if excess <= 0:
            break
        found.append(oldest)
        excess -= oldest.size
    return found


def forget(connection: sa.Connection, uuids: Collection[UUID]) -> None:
    """Remove builds from the history; their files are gone."""
    connection.execute(sa.delete(build).where(build.c.uuid.in_([str(uuid) for uuid in uuids]), _MAY_GO))


def forget_skipped(connection: sa.Connection, before: Instant) -> None:
    """Forget runs that were left out before a moment."""
    connection.execute(sa.delete(skipped).where(skipped.c.due < before.ms))
