"""What servers have signed of builds: an envelope each, the first one that came. Each function is a step."""

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from builder_web.store.records import Build
from builder_web.store.schema import build, provenance

_FIND = sa.select(provenance.c.envelope).where(provenance.c.build == sa.bindparam("key"))
_EXISTS = sa.select(build.c.id).where(build.c.id == sa.bindparam("key"))


def find(connection: sa.Connection, this: Build) -> bytes | None:
    """Return the envelope of a build, if there is one."""
    return connection.scalar(_FIND, {"key": this.id})


def record(connection: sa.Connection, this: Build, envelope: bytes) -> bool:
    """Keep an envelope; return False, and change nothing, if the build has one, or has been removed."""
    if connection.scalar(_EXISTS, {"key": this.id}) is None:
        return False
    added = insert(provenance).values(build=this.id, envelope=envelope).on_conflict_do_nothing()
    return connection.execute(added).rowcount == 1
