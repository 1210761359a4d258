"""Builds go: first their rows, then their files, once it is on the disk that no row names them."""

import datetime as dt
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import TypeVar

import sqlalchemy as sa
from attrs import frozen
from sqlalchemy.dialects.sqlite import insert

from builder.model import Instant
from builder_web import directory
from builder_web.errors import Unknown
from builder_web.store import builds, names, packages, schema, summaries
from builder_web.store.records import Build
from builder_web.store.schema import access, artifact, build, console, job, job_tag, provenance, received, removing

T = TypeVar("T")

_AT_ONCE = 500  # names in one statement: SQLite takes 999 of old


def remove(connection: sa.Connection, gone: Sequence[Build]) -> None:
    """Remove the rows of builds; ``pending`` names their files from now on."""
    contents: set[bytes] = set()
    jobs: set[int] = set()
    for part in _parts([one.id for one in gone]):
        contents |= set(connection.scalars(sa.select(artifact.c.sha256).where(artifact.c.build.in_(part))))
        jobs |= set(connection.scalars(sa.select(build.c.job).where(build.c.id.in_(part))))
        connection.execute(sa.update(build).where(build.c.id.in_(part)).values(main_binary=None))
        names.remove(connection, part)
        summaries.remove(connection, part)
        connection.execute(sa.delete(artifact).where(artifact.c.build.in_(part)))
        for table in (console, received, provenance):
            connection.execute(sa.delete(table).where(table.c.build.in_(part)))
        connection.execute(sa.delete(build).where(build.c.id.in_(part)))
    contents -= _used(connection, contents)
    for digests in _parts(list(contents)):
        connection.execute(sa.delete(schema.binary).where(schema.binary.c.sha256.in_(digests)))
        packages.remove(connection, digests)
    summaries.make_anew(connection, jobs)
    paths = {path for one in gone for path in _paths(one)} | {directory.content_path(digest) for digest in contents}
    if paths:
        connection.execute(insert(removing).on_conflict_do_nothing(), [{"path": path} for path in sorted(paths)])


def _paths(one: Build) -> tuple[str, ...]:
    """Return the directory of a build, or its files where they are in none of their own."""
    folder, _, _ = one.script.rpartition("/")
    return (folder,) if folder.endswith(f"/{one.uuid}") else (one.script, one.console)


def remove_job(connection: sa.Connection, name: str) -> int:
    """Remove a job with all its builds, and return their number. Raises Unknown."""
    job_id = connection.scalar(sa.select(job.c.id).where(job.c.name == name))
    if job_id is None:
        raise Unknown(f"there is no job {name!r}")
    gone = builds.all_builds(connection, job_names=[name])
    remove(connection, gone)
    connection.execute(sa.delete(job_tag).where(job_tag.c.job == job_id))
    connection.execute(sa.delete(access).where(access.c.job == job_id))
    connection.execute(sa.delete(job).where(job.c.id == job_id))
    return len(gone)


def pending(connection: sa.Connection) -> list[str]:
    """Return what is to be removed from the disk: others may have uploaded a content, or a build, again meanwhile."""
    if not sa.inspect(connection).has_table(removing.name):  # of a directory that only another program wrote to
        return []
    paths = list(connection.scalars(sa.select(removing.c.path).order_by(removing.c.path)))
    digests = {path: digest for path in paths if (digest := directory.digest_of(path)) is not None}
    used = _used(connection, set(digests.values()))
    named = set()
    for part in _parts([path.rpartition("/")[2] for path in paths]):
        named |= set(connection.scalars(sa.select(build.c.uuid).where(build.c.uuid.in_(part))))
    return [path for path in paths if digests.get(path) not in used and path.rpartition("/")[2] not in named]


def forget_pending(connection: sa.Connection) -> None:
    """Note that all of it was removed."""
    connection.execute(sa.delete(removing))


def _used(connection: sa.Connection, digests: AbstractSet[bytes]) -> set[bytes]:
    used: set[bytes] = set()
    for part in _parts(list(digests)):
        used |= set(connection.scalars(sa.select(artifact.c.sha256).where(artifact.c.sha256.in_(part))))
    return used


@frozen(kw_only=True)
class Policy:
    """Which builds are kept. Exactly one of the first four is set; ``jobs`` and ``platform`` say of which builds."""

    newer_than: Instant | None = None
    newer_than_age: dt.timedelta | None = None
    latest: int | None = None
    """So many of each job on each platform, the newest first."""
    latest_successful: int | None = None
    """So many successful ones of each job on each platform, and what is newer than the last of them."""
    jobs: tuple[str, ...] = ()
    platform: str | None = None


def beyond(connection: sa.Connection, policy: Policy, now: Instant) -> list[Build]:
    """Return the builds that a policy does not keep, the oldest first."""
    by_place: dict[tuple[str, str], list[Build]] = {}
    for one in builds.all_builds(connection, job_names=policy.jobs, platform=policy.platform):
        by_place.setdefault((one.job, one.platform), []).append(one)
    gone = [one for found in by_place.values() for one in _beyond(found, policy, now)]
    return sorted(gone, key=lambda one: (one.started, one.id))


def _beyond(newest_first: Sequence[Build], policy: Policy, now: Instant) -> Iterable[Build]:
    if policy.newer_than_age is not None:
        limit = now.ms - policy.newer_than_age // dt.timedelta(milliseconds=1)
        return [one for one in newest_first if one.started.ms < limit]
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


def _parts(values: list[T]) -> Iterable[list[T]]:
    return [values[start : start + _AT_ONCE] for start in range(0, len(values), _AT_ONCE)]
