"""Which executions are to be uploaded, and how far that is. Each function is a step."""

from collections.abc import Collection
from uuid import UUID

import sqlalchemy as sa

from builder_server.store import builds
from builder_server.store.records import Build
from builder_server.store.schema import build

PAGE = 100
"""Builds that are looked up at once."""


def oldest_pending(connection: sa.Connection, under_way: Collection[UUID]) -> Build | None:
    """Return the build that has waited for its upload for longest, other than those."""
    found = (
        sa.select(build.c.uuid)
        .where(build.c.upload == "pending", build.c.uuid.not_in([str(uuid) for uuid in under_way]))
        .order_by(build.c.finished)
        .limit(1)
    )
    uuid = connection.scalar(found)
    return None if uuid is None else builds.find(connection, UUID(uuid))


def uploaded(connection: sa.Connection, after: UUID | None) -> tuple[UUID, ...]:
    """Return the next builds, by their uuids, that were uploaded and whose files are still to be removed."""
    found = sa.select(build.c.uuid).where(build.c.upload == "uploaded").order_by(build.c.uuid).limit(PAGE)
    if after is not None:
        found = found.where(build.c.uuid > str(after))
    return tuple(UUID(uuid) for uuid in connection.scalars(found))


def set_state(connection: sa.Connection, uuid: UUID, state: str) -> None:
    """Record how far the upload of a build is; what it takes on the disk is another then."""
    connection.execute(sa.update(build).where(build.c.uuid == str(uuid)).values(upload=state, size=None))
