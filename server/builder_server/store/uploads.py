"""Which executions are to be uploaded, and how far that is. Each function is a step."""

from uuid import UUID

import sqlalchemy as sa

from builder_server.store.records import Build, to_build
from builder_server.store.schema import build


def in_state(connection: sa.Connection, state: str) -> tuple[Build, ...]:
    """Return the builds whose upload is in that state, oldest first."""
    rows = connection.execute(sa.select(build).where(build.c.upload == state).order_by(build.c.finished))
    return tuple(to_build(row) for row in rows)


def set_state(connection: sa.Connection, uuid: UUID, state: str) -> None:
    """Record how far the upload of a build is."""
    connection.execute(sa.update(build).where(build.c.uuid == str(uuid)).values(upload=state))
