"""The paths of all artifacts, for a search: kept beside the artifacts whatever program adds and removes these."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from builder_web.store.schema import artifact, file

_KEY: Any = sa.bindparam("key")
_columns = sa.select(artifact.c.filepath, artifact.c.id)
_ADD = sa.insert(file).from_select(["path", "artifact"], _columns.where(artifact.c.build == _KEY))


def add(connection: sa.Connection, build_id: int) -> None:
    """Note the artifacts of a build that was recorded just now."""
    connection.execute(_ADD, {"key": build_id})


def remove(connection: sa.Connection, build_ids: Sequence[int]) -> None:
    """Forget the artifacts of builds, which are still there."""
    gone = _columns.where(artifact.c.build.in_(build_ids))
    connection.execute(sa.delete(file).where(sa.tuple_(file.c.path, file.c.artifact).in_(gone)))


def catch_up(connection: sa.Connection) -> None:
    """Note what another program has added, and forget what it has removed: ids are never given twice."""
    last = connection.scalar(sa.select(sa.func.max(file.c.artifact))) or 0
    added = _columns.where(artifact.c.id > last).order_by(
        artifact.c.filepath, artifact.c.id
    )  # as they are kept: faster
    connection.execute(sa.insert(file).from_select(["path", "artifact"], added))
    known, there = (connection.scalar(sa.select(sa.func.count()).select_from(table)) for table in (file, artifact))
    if known != there:
        connection.execute(sa.delete(file).where(file.c.artifact.not_in(sa.select(artifact.c.id))))
