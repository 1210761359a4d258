"""Who may upload."""

import sqlalchemy as sa

from builder_web.store.records import User
from builder_web.store.schema import access, job, user


def find(connection: sa.Connection, name: str) -> User | None:
    """Return a user by name."""
    row = connection.execute(sa.select(user).where(user.c.username == name)).one_or_none()
    return None if row is None else User(**{**row._mapping, "restricted": bool(row.restricted)})


def may_upload(connection: sa.Connection, who: User, job_name: str) -> bool:
    """Return whether a user may upload builds of a job."""
    if not who.restricted:
        return True
    query = (
        sa.select(access.c.id)
        .select_from(access.join(job, job.c.id == access.c.job))
        .where(access.c.user == who.id, job.c.name == job_name)
    )
    return connection.scalar(query) is not None
