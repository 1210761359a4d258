"""What is found by a part of its name."""

import re

import sqlalchemy as sa

from builder_web.opam.switch import Package
from builder_web.store import builds
from builder_web.store import packages as switches
from builder_web.store.jobs import SYNOPSIS
from builder_web.store.records import Build, StoredArtifact
from builder_web.store.schema import artifact, file, job, job_tag, tag

_MIN_PREFIX = 4
_PARTS = re.compile(r"([0-9]{1,18})|([^0-9]+)")
_HEX = frozenset("0123456789abcdef")


def size_of(connection: sa.Connection, digest: bytes) -> int | None:
    """Return the size of the content with that SHA-256, in bytes."""
    return connection.scalar(sa.select(artifact.c.size).where(artifact.c.sha256 == digest).limit(1))


def count_of(connection: sa.Connection, digest: bytes) -> int:
    """Return how many artifacts have that SHA-256."""
    return connection.scalar(sa.select(sa.func.count()).where(artifact.c.sha256 == digest)) or 0


def jobs(connection: sa.Connection, text: str, *, count: int) -> list[tuple[str, str | None]]:
    """Return jobs whose name or synopsis holds a text, each with its synopsis."""
    said = (
        sa.select(job_tag.c.job, job_tag.c.value)
        .select_from(job_tag.join(tag, tag.c.id == job_tag.c.tag))
        .where(tag.c.tag == SYNOPSIS)
        .subquery()
    )
    query = (
        sa.select(job.c.name, said.c.value)
        .select_from(job.outerjoin(said, said.c.job == job.c.id))
        .where(job.c.name.icontains(text, autoescape=True) | said.c.value.icontains(text, autoescape=True))
        .order_by(job.c.name)
        .limit(count)
    )
    return [(row.name, row.value) for row in connection.execute(query)]


def files(connection: sa.Connection, text: str, *, count: int) -> list[tuple[Build, StoredArtifact]]:
    """Return files whose path holds a text, each path once, with the newest build that has it."""
    found = (
        sa.select(sa.func.max(file.c.artifact))
        .where(file.c.path.contains(text, autoescape=True))
        .group_by(file.c.path)
        .order_by(file.c.path)  # the order in which they are met: enough of them end the search
        .limit(count)
    )
    return _with_builds(connection, list(connection.scalars(found)))


def by_prefix(connection: sa.Connection, text: str, *, count: int) -> list[tuple[Build, StoredArtifact]]:
    """Return files whose SHA-256 begins with these digits, each once."""
    if len(text) < _MIN_PREFIX or len(text) > 64 or not _HEX.issuperset(text):
        return []
    low, high = bytes.fromhex(text.ljust(64, "0")), bytes.fromhex(text.ljust(64, "f"))
    found = (
        sa.select(sa.func.max(artifact.c.id).label("id"))
        .where(artifact.c.sha256.between(low, high))
        .group_by(artifact.c.sha256)
        .limit(count)
    )
    return _with_builds(connection, list(connection.scalars(found)))


def packages(connection: sa.Connection, text: str, *, count: int) -> list[tuple[Package, Build]]:
    """Return packages whose name and version hold a text, such as ``dune.3.17``, each with the last build that has it."""
    found = sorted(switches.find(connection, text, count=count), key=_by_version, reverse=True)
    found.sort(key=lambda one: (one.package.name != text, one.package.name))
    by_artifact = {
        row.id: row.build
        for row in connection.execute(sa.select(artifact).where(artifact.c.id.in_([one.artifact for one in found])))
    }
    known = builds.find_all(connection, set(by_artifact.values()))
    return [(one.package, known[by_artifact[one.artifact]]) for one in found if by_artifact.get(one.artifact) in known]


def _by_version(one: switches.Used) -> list[tuple[bool, int, str]]:
    """Return what puts 3.9 before 3.17."""
    parts = _PARTS.findall(one.package.version)
    return [(number != "", int(number or 0), word) for number, word in parts]


def _with_builds(connection: sa.Connection, ids: list[int]) -> list[tuple[Build, StoredArtifact]]:
    rows = connection.execute(sa.select(artifact).where(artifact.c.id.in_(ids))).all()
    known = builds.find_all(connection, {row.build for row in rows})
    by_id = {row.id: row for row in rows}
    return [
        (
            known[by_id[one].build],
            StoredArtifact(path=by_id[one].filepath, digest=by_id[one].sha256, size=by_id[one].size),
        )
        for one in ids
        if one in by_id and by_id[one].build in known  # another program may have removed it
    ]
