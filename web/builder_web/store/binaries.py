"""What main binaries say of themselves."""

import sqlalchemy as sa

from builder_web.store.records import Build
from builder_web.store.schema import binary


def solo5(connection: sa.Connection, build: Build) -> str | None:
    """Return what the main binary of a build says, as JSON; None if it was not read yet."""
    if build.main_binary is None:
        return None
    return connection.scalar(sa.select(binary.c.solo5).where(binary.c.sha256 == build.main_binary.digest))
