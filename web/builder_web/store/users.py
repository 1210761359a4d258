"""Who may upload."""

from typing import Any

import sqlalchemy as sa

from builder_web.errors import Exists, Unknown
from builder_web.store.records import Password, User
from builder_web.store.schema import access, build, job, user

_find = sa.select(user).where(user.c.username == sa.bindparam("name"))


def find(connection: sa.Connection, name: str) -> User | None:
    """Return a user by name."""
    row = connection.execute(_find, {"name": name}).one_or_none()
    return None if row is None else _record(row)


def everyone(connection: sa.Connection) -> list[User]:
    """Return all users by their names."""
    return [_record(row) for row in connection.execute(sa.select(user).order_by(user.c.username))]


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


def allowed(connection: sa.Connection, who: User) -> list[str]:
    """Return the jobs on the access list of a user."""
    query = sa.select(job.c.name).select_from(access.join(job, job.c.id == access.c.job)).where(access.c.user == who.id)
    return sorted(connection.scalars(query))


def add(connection: sa.Connection, name: str, password: Password, *, restricted: bool) -> None:
    """Add a user. Raises Exists."""
    if find(connection, name) is not None:
        raise Exists(f"there is a user {name!r} already; change it with: builder-db user-update {name}")
    connection.execute(sa.insert(user).values(username=name, restricted=restricted, **_columns(password)))


def update(connection: sa.Connection, name: str, password: Password | None, *, restricted: bool | None) -> None:
    """Give a user another password, or other rights; None leaves what it has. Raises Unknown."""
    values: dict[str, Any] = {} if restricted is None else {"restricted": restricted}
    if password is not None:
        values |= _columns(password)
    known = _known(connection, name)
    if values:
        connection.execute(sa.update(user).where(user.c.id == known.id).values(**values))


def remove(connection: sa.Connection, name: str) -> None:
    """Remove a user. Raises Unknown, and Exists if it has uploaded builds, which must have an owner."""
    known = _known(connection, name)
    if connection.scalar(sa.select(build.c.id).where(build.c.user == known.id).limit(1)) is not None:
        raise Exists(
            f"{name!r} has uploaded builds, which need their user; lock it out with: builder-db user-disable {name}"
        )
    connection.execute(sa.delete(access).where(access.c.user == known.id))
    connection.execute(sa.delete(user).where(user.c.id == known.id))


def allow(connection: sa.Connection, name: str, job_name: str) -> None:
    """Put a job on the access list of a user. Raises Unknown; that it is there already is no fault."""
    known, job_id = _known(connection, name), _job_id(connection, job_name)
    if not connection.scalar(sa.select(access.c.id).where(access.c.user == known.id, access.c.job == job_id)):
        connection.execute(sa.insert(access).values(user=known.id, job=job_id))


def forbid(connection: sa.Connection, name: str, job_name: str) -> None:
    """Take a job from the access list of a user. Raises Unknown."""
    known, job_id = _known(connection, name), _job_id(connection, job_name)
    gone = connection.execute(sa.delete(access).where(access.c.user == known.id, access.c.job == job_id))
    if not gone.rowcount:
        raise Unknown(f"{job_name!r} is not on the access list of {name!r}")


def _known(connection: sa.Connection, name: str) -> User:
    found = find(connection, name)
    if found is None:
        raise Unknown(f"there is no user {name!r}; builder-db user-list names all")
    return found


def _job_id(connection: sa.Connection, name: str) -> int:
    found = connection.scalar(sa.select(job.c.id).where(job.c.name == name))
    if found is None:
        raise Unknown(f"there is no job {name!r}: it begins to exist with its first build")
    return int(found)


def _record(row: sa.Row[Any]) -> User:
    return User(**{**row._mapping, "restricted": bool(row.restricted)})  # noqa: SLF001 - the name is SQLAlchemy's


def _columns(password: Password) -> dict[str, Any]:
    return {
        "password_hash": password.hash,
        "password_salt": password.salt,
        "scrypt_n": password.n,
        "scrypt_r": password.r,
        "scrypt_p": password.p,
    }
