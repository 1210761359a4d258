"""What is kept of the artifacts of builds: path, size and hash of each. Each function is a step, or a part of one."""

import hashlib
from collections.abc import Sequence
from uuid import UUID

import sqlalchemy as sa
from attrs import frozen

from builder.model import raw, text
from builder_server.store.records import StoredArtifact
from builder_server.store.schema import artifact, build

_OF = artifact.c.build == sa.bindparam("of")
_IN_ORDER = sa.select(artifact.c.path, artifact.c.size, artifact.c.sha256).where(_OF).order_by(artifact.c.path)
_PAGE = _IN_ORDER.where(artifact.c.path > sa.bindparam("after", type_=artifact.c.path.type)).limit(
    sa.bindparam("count")
)
_twin = sa.alias(artifact)
_DIFFERENT = (
    sa.select(artifact.c.path)
    .outerjoin(_twin, sa.and_(_twin.c.build == sa.bindparam("there"), _twin.c.path == artifact.c.path))
    .where(
        artifact.c.build == sa.bindparam("here"), sa.or_(_twin.c.sha256.is_(None), _twin.c.sha256 != artifact.c.sha256)
    )
    .order_by(artifact.c.path)
    .limit(1)
)
_FORGET = sa.delete(artifact).where(_OF)
_COMPARED_WITH = sa.select(build.c.check_of).where(build.c.uuid == sa.bindparam("of"))
_NOTE = sa.update(build).where(build.c.uuid == sa.bindparam("of"))


def add(connection: sa.Connection, uuid: UUID, found: Sequence[StoredArtifact]) -> None:
    """Keep some more artifacts of a running build."""
    values = [{"build": str(uuid), "path": raw(each.path), "size": each.size, "sha256": each.sha256} for each in found]
    connection.execute(sa.insert(artifact), values)


@frozen(kw_only=True)
class Conclusion:
    """How many artifacts a build has, their bytes, and one hash over the paths and hashes of all.

    It is SHA-256 over, for each artifact in the order of their paths, its path, a NUL and its hash. ``differing`` is the first
    path at which they differ from those of the build that it is compared with; None: none, or it is compared with none.
    """

    count: int
    size: int
    main_hash: str
    differing: str | None


def conclude(connection: sa.Connection, uuid: UUID) -> Conclusion:
    """Look through all artifacts of a build, which may take seconds: it reads alone, so that others can write."""
    count = size = 0
    main = hashlib.sha256()
    for row in connection.execute(_IN_ORDER, {"of": str(uuid)}, execution_options={"yield_per": 10_000}):
        count += 1
        size += row.size
        main.update(row.path + b"\0" + row.sha256)
    first = connection.scalar(_COMPARED_WITH, {"of": str(uuid)})
    differing = first_difference(connection, UUID(first), uuid) if first else None
    return Conclusion(count=count, size=size, main_hash=main.hexdigest(), differing=differing)


def note(connection: sa.Connection, uuid: UUID, concluded: Conclusion) -> None:
    """Note with a build what its artifacts are."""
    values = {"artifacts": concluded.count, "artifact_bytes": concluded.size, "main_hash": concluded.main_hash}
    connection.execute(_NOTE.values(values), {"of": str(uuid)})


def forget(connection: sa.Connection, uuid: UUID) -> None:
    """Forget the artifacts of a build whose result did not become durable."""
    connection.execute(_FORGET, {"of": str(uuid)})


def first_difference(connection: sa.Connection, one: UUID, other: UUID) -> str | None:
    """Return the first path at which the artifacts of two builds differ, or which one of them alone has; None for none."""
    found = [
        path
        for here, there in ((one, other), (other, one))
        if (path := connection.scalar(_DIFFERENT, {"here": str(here), "there": str(there)})) is not None
    ]
    return text(min(found)) if found else None


def page(connection: sa.Connection, uuid: UUID, after: str, count: int) -> tuple[StoredArtifact, ...]:
    """Return the next artifacts of a build behind a path, in the order of their paths."""
    found = connection.execute(_PAGE, {"of": str(uuid), "after": raw(after), "count": count})
    return tuple(StoredArtifact(path=text(row.path), size=row.size, sha256=row.sha256) for row in found)
