"""Builds go: their rows here, their files by whoever asks, once that is on the disk."""

from collections.abc import Iterable, Sequence

import sqlalchemy as sa
from attrs import frozen

from builder.model import Instant
from builder_web.errors import Unknown
from builder_web.store import builds, newest, schema
from builder_web.store.records import Build
from builder_web.store.schema import access, artifact, build, console, job, job_tag, received

_AT_ONCE = 500  # names in one statement: SQLite takes 999 of old


@frozen(kw_only=True)
class Removed:
    """What is no longer named by any row, and may be removed from the disk."""

    builds: tuple[Build, ...]
    contents: tuple[bytes, ...]
    """The SHA-256 of artifacts that no build has any more."""


def remove(connection: sa.Connection, gone: Sequence[Build]) -> Removed:
    """Remove builds."""
    contents: set[bytes] = set()
    jobs: set[int] = set()
    for part in _parts([one.id for one in gone]):
        contents |= set(connection.scalars(sa.select(artifact.c.sha256).where(artifact.c.build.in_(part))))
        jobs |= set(connection.scalars(sa.select(build.c.job).where(build.c.id.in_(part))))
        connection.execute(sa.update(build).where(build.c.id.in_(part)).values(main_binary=None))
        connection.execute(sa.delete(artifact).where(artifact.c.build.in_(part)))
        for table in (console, received):
            connection.execute(sa.delete(table).where(table.c.build.in_(part)))
        connection.execute(sa.delete(build).where(build.c.id.in_(part)))
    for part in _parts(list(contents)):
        contents -= set(connection.scalars(sa.select(artifact.c.sha256).where(artifact.c.sha256.in_(part))))
    for part in _parts(list(contents)):
        connection.execute(sa.delete(schema.binary).where(schema.binary.c.sha256.in_(part)))
    for job_id in jobs:
        newest.make_anew(connection, job=job_id)
    return Removed(builds=tuple(gone), contents=tuple(contents))


def remove_job(connection: sa.Connection, name: str) -> Removed:
    """Remove a job with all its builds. Raises Unknown."""
    job_id = connection.scalar(sa.select(job.c.id).where(job.c.name == name))
    if job_id is None:
        raise Unknown(f"there is no job {name!r}")
    removed = remove(connection, builds.all_builds(connection, job_names=[name]))
    connection.execute(sa.delete(job_tag).where(job_tag.c.job == job_id))
    connection.execute(sa.delete(access).where(access.c.job == job_id))
    connection.execute(sa.delete(job).where(job.c.id == job_id))
    return removed


def still_unused(connection: sa.Connection, removed: Removed) -> Removed:
    """Return what is still named by no row: others may have uploaded a content again meanwhile."""
    used: set[bytes] = set()
    for part in _parts(list(removed.contents)):
        used |= set(connection.scalars(sa.select(artifact.c.sha256).where(artifact.c.sha256.in_(part))))
    return Removed(builds=removed.builds, contents=tuple(one for one in removed.contents if one not in used))


@frozen(kw_only=True)
class Policy:
    """Which builds are kept. Exactly one of the first three is set; ``jobs`` and ``platform`` say of which builds."""

    newer_than: Instant | None = None
    latest: int | None = None
    """So many of each job on each platform, the newest first."""
    latest_successful: int | None = None
    """So many successful ones of each job on each platform, and what is newer than the last of them."""
    jobs: tuple[str, ...] = ()
    platform: str | None = None


def beyond(connection: sa.Connection, policy: Policy) -> list[Build]:
    """Return the builds that a policy does not keep."""
    by_place: dict[tuple[str, str], list[Build]] = {}
    for one in builds.all_builds(connection, job_names=policy.jobs, platform=policy.platform):
        by_place.setdefault((one.job, one.platform), []).append(one)
    return [one for found in by_place.values() for one in _beyond(found, policy)]


def _beyond(newest_first: Sequence[Build], policy: Policy) -> Iterable[Build]:
    if policy.newer_than is not None:
        return [one for one in newest_first if one.started < policy.newer_than]
    if policy.latest is not None:
        return newest_first[policy.latest :]
    wanted = policy.latest_successful or 0
    if wanted == 0:
        return newest_first
    kept = 0
    for index, one in enumerate(newest_first):
        kept += one.main_binary is not None
        if kept == wanted:
            return newest_first[index + 1 :]
    return ()  # fewer successful ones than are kept


def _parts(values: list[int] | list[bytes]) -> Iterable[list[int] | list[bytes]]:
    return [values[start : start + _AT_ONCE] for start in range(0, len(values), _AT_ONCE)]
