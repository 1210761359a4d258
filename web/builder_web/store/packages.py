"""The packages that builds were made with, by the opam-switch files that say so."""

from collections.abc import Iterable

import sqlalchemy as sa
from attrs import frozen
from sqlalchemy.dialects.sqlite import insert

from builder_web.opam.switch import SWITCH_NAME, Package
from builder_web.store.schema import artifact, file, installed, package, switch


@frozen(kw_only=True)
class Used:
    """A package, and the last artifact that says that a build was made with it."""

    package: Package
    artifact: int


def is_read(connection: sa.Connection, digest: bytes) -> bool:
    """Return whether the packages of a switch are known, by the SHA-256 of its file."""
    return connection.scalar(sa.select(switch.c.id).where(switch.c.sha256 == digest)) is not None


def unread(connection: sa.Connection, *, count: int) -> list[bytes]:
    """Return the SHA-256 of switches whose packages are not known yet, in the order in which they came."""
    paths = (file.c.path == SWITCH_NAME) | file.c.path.endswith(f"/{SWITCH_NAME}", autoescape=True)
    query = (
        sa.select(artifact.c.sha256)
        .select_from(file.join(artifact, artifact.c.id == file.c.artifact))
        .where(paths, artifact.c.sha256.not_in(sa.select(switch.c.sha256)))
        .group_by(artifact.c.sha256)
        .order_by(sa.func.min(artifact.c.id))
        .limit(count)
    )
    return list(connection.scalars(query))


def keep(connection: sa.Connection, digest: bytes, packages: Iterable[Package]) -> None:
    """Keep the packages of a switch."""
    if is_read(connection, digest):
        return
    switch_id = connection.scalar(sa.insert(switch).values(sha256=digest).returning(switch.c.id))
    rows = [{"name": one.name, "version": one.version} for one in packages]
    if not rows:
        return
    connection.execute(insert(package).on_conflict_do_nothing(), rows)
    found = sa.select(package.c.id, sa.literal(switch_id))
    found = found.where(package.c.name == sa.bindparam("name"), package.c.version == sa.bindparam("version"))
    connection.execute(sa.insert(installed).from_select(["package", "switch"], found), rows)


def find(connection: sa.Connection, text: str, *, count: int) -> list[Used]:
    """Return packages whose name and version, with a dot between, hold a text: those of that name first."""
    newest = sa.select(sa.func.max(artifact.c.id)).where(artifact.c.sha256 == switch.c.sha256).scalar_subquery()
    last = (
        sa.select(sa.func.max(newest))
        .select_from(installed.join(switch, switch.c.id == installed.c.switch))
        .where(installed.c.package == package.c.id)
        .scalar_subquery()
        .label("last")
    )
    whole = package.c.name + "." + package.c.version
    rank = sa.case((package.c.name == text, 0), (whole.startswith(text, autoescape=True), 1), else_=2)
    query = (
        sa.select(package.c.name, package.c.version, last)
        .where(whole.contains(text, autoescape=True), package.c.id.in_(sa.select(installed.c.package)))
        .order_by(rank, package.c.name, package.c.id.desc())
        .limit(count)
    )
    return [
        Used(package=Package(name=row.name, version=row.version), artifact=row.last)
        for row in connection.execute(query)
        if row.last is not None
    ]


def remove(connection: sa.Connection, digests: Iterable[bytes]) -> None:
    """Forget switches that no build has any more."""
    gone = sa.select(switch.c.id).where(switch.c.sha256.in_(list(digests)))
    connection.execute(sa.delete(installed).where(installed.c.switch.in_(gone)))
    connection.execute(sa.delete(switch).where(switch.c.id.in_(gone)))
