"""Builds and their artifacts, as they are asked for."""

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from attrs import frozen

from builder.model import Instant
from builder_web.store import summaries
from builder_web.store.records import Build, Readme, StoredArtifact, from_row, result_from_row, to_row
from builder_web.store.schema import artifact, build, job, listed, output, place, received

_main = artifact.alias("main")
_from = build.join(job, job.c.id == build.c.job).outerjoin(_main, _main.c.id == build.c.main_binary)
_select = sa.select(
    *(build.c.id, build.c.uuid, job.c.name, build.c.platform),
    *(build.c.start_d, build.c.start_ps, build.c.finish_d, build.c.finish_ps, build.c.result_code, build.c.result_msg),
    *(build.c.input_id, build.c.console, build.c.script, _main.c.filepath, _main.c.sha256, _main.c.size),
).select_from(_from)
_NEWEST_FIRST = (build.c.start_d.desc(), build.c.start_ps.desc(), build.c.id.desc())
_AT_ONCE = 10_000  # ids in one statement
_started = sa.tuple_(listed.c.start_d, listed.c.start_ps)
_LISTED_FIRST = (listed.c.start_d.desc(), listed.c.start_ps.desc(), listed.c.build.desc())
_LISTED_LAST = (listed.c.start_d.asc(), listed.c.start_ps.asc(), listed.c.build.asc())
_list = sa.select(listed.c.build).order_by(*_LISTED_FIRST)


@frozen(kw_only=True)
class Entry:
    """A failed build of a job, or the newest of those with one output."""

    build: Build
    alike: int
    """How many builds have that output."""


@frozen(kw_only=True)
class Alike:
    """What other builds say of the output of a build."""

    same: tuple[Build, ...]
    """Others of the same job with the same output, the newest first; perhaps not all of them."""
    same_builds: int
    """How many there are of these."""
    inputs: int
    """From how many different inputs these and the build itself were made; 0 where inputs are not known."""
    different: tuple[Build, ...]
    """Builds of the same input with another output, be they of other jobs, the newest first; perhaps not all of them."""
    different_builds: int
    """How many there are of these."""


@frozen(kw_only=True)
class Uploaded:
    """The artifacts of a build in the order in which they were uploaded."""

    artifacts: tuple[StoredArtifact, ...]
    readme: Readme | None
    """Its position is that among the artifacts."""


def record(row: Sequence[Any]) -> Build:
    """Return the build of a row of ``_select``."""
    key, uuid, job_name, platform, *row = row
    start_d, start_ps, finish_d, finish_ps, code, message, input_id, console, script, path, digest, size = row
    return Build(
        id=key,
        uuid=uuid,
        job=job_name,
        platform=platform,
        started=from_row(start_d, start_ps),
        finished=from_row(finish_d, finish_ps),
        result=result_from_row(code, message),
        main_binary=StoredArtifact(path=path, digest=digest, size=size) if path is not None else None,
        input_id=input_id,
        console=console,
        script=script,
    )


def find(connection: sa.Connection, uuid: str) -> Build | None:
    """Return a build by its uuid."""
    row = connection.execute(_select.where(build.c.uuid == uuid)).one_or_none()
    return record(row) if row is not None else None


def find_all(connection: sa.Connection, ids: Iterable[int]) -> dict[int, Build]:
    """Return builds by their ids."""
    wanted = list(ids)
    return {
        one.id: one
        for start in range(0, len(wanted), _AT_ONCE)
        for one in map(record, connection.execute(_select.where(build.c.id.in_(wanted[start : start + _AT_ONCE]))))
    }


def those(connection: sa.Connection, ids: Any) -> list[Build]:
    """Return the builds whose ids a query gives, the newest first."""
    return [record(row) for row in connection.execute(_select.where(build.c.id.in_(ids)).order_by(*_NEWEST_FIRST))]


def latest(connection: sa.Connection, job_name: str, platform: str | None) -> Build | None:
    """Return the newest successful build of a job."""
    built = sa.select(place.c.built).where(place.c.job == _job_id(job_name))
    if platform is not None:
        built = built.where(place.c.platform == platform)
    return next(iter(those(connection, built)), None)


def failed(connection: sa.Connection, *, platform: str | None, start: int, count: int) -> list[Build]:
    """Return the newest failed builds of all jobs."""
    query = _list.where(listed.c.failed == sa.true()).offset(start).limit(count)
    return those(connection, _on(query, platform))


def failed_since(connection: sa.Connection, since: Instant, *, count: int) -> tuple[list[Build], int]:
    """Return the newest builds that began since then and failed, and how many there are in all."""
    lately = (listed.c.failed == sa.true(), _started >= sa.tuple_(*to_row(since)))
    total = connection.scalar(sa.select(sa.func.count()).where(*lately)) or 0
    return those(connection, _list.where(*lately).limit(count)), total


def entries(
    connection: sa.Connection,
    job_name: str,
    platform: str | None,
    *,
    with_failed: bool,
    start: int = 0,
    count: int | None = None,
) -> tuple[list[Entry], int]:
    """Return the different outputs of a job, and failed builds if they are wanted, the newest first; and how many there are.

    Without a count all are returned.
    """
    outputs = sa.select(output.c.build, output.c.started, output.c.alike)
    outputs = outputs.where(output.c.job == _job_id(job_name), output.c.platform == (platform or ""))
    query: Any = outputs
    if with_failed:
        others = sa.select(listed.c.build, summaries.STARTED, sa.literal(1))
        others = _on(others.where(listed.c.job == _job_id(job_name), listed.c.output.is_(None)), platform)
        query = outputs.union_all(others)
    total = connection.scalar(sa.select(sa.func.count()).select_from(query.subquery())) or 0
    rows = connection.execute(query.order_by(sa.desc("started"), sa.desc("build")).offset(start).limit(count)).all()
    known = find_all(connection, [row.build for row in rows])
    found = [Entry(build=known[row.build], alike=row.alike) for row in rows if row.build in known]
    return found, total


def newest(connection: sa.Connection, job_name: str, platform: str | None, count: int) -> list[Build]:
    """Return the newest builds of a job, failed ones too."""
    return those(connection, _on(_list.where(listed.c.job == _job_id(job_name)).limit(count), platform))


def lately(
    connection: sa.Connection, *, job_name: str | None, platform: str | None, only_failed: bool, count: int
) -> list[Build]:
    """Return the newest builds, of one job or of all."""
    query = _on(_list.limit(count), platform)
    if job_name is not None:
        query = query.where(listed.c.job == _job_id(job_name))
        if only_failed:
            query = query.where(listed.c.output.is_(None))
    elif only_failed:
        query = query.where(listed.c.failed == sa.true())
    return those(connection, query)


def artifacts(connection: sa.Connection, build_id: int) -> list[StoredArtifact]:
    """Return the artifacts of a build, the main binary first, then as they were uploaded."""
    query = (
        sa.select(artifact.c.filepath, artifact.c.sha256, artifact.c.size)
        .where(artifact.c.build == build_id)
        .order_by(artifact.c.id)
    )
    return [StoredArtifact(path=row.filepath, digest=row.sha256, size=row.size) for row in connection.execute(query)]


def uploaded(connection: sa.Connection, this: Build) -> Uploaded:
    """Return the artifacts of a build as they were uploaded."""
    query = (
        sa.select(artifact.c.filepath, artifact.c.sha256, artifact.c.size)
        .where(artifact.c.build == this.id)
        .order_by(artifact.c.id)
    )
    files = [StoredArtifact(path=row.filepath, digest=row.sha256, size=row.size) for row in connection.execute(query)]
    readme = None
    row = connection.execute(sa.select(received).where(received.c.build == this.id)).one_or_none()
    if row is not None:
        if this.main_binary is not None and this.main_binary in files:
            files.remove(this.main_binary)
            files.insert(row.main_position, this.main_binary)
        if row.readme is not None:
            readme = Readme(position=row.readme_position, content=row.readme)
    return Uploaded(artifacts=tuple(files), readme=readme)


def find_artifact(connection: sa.Connection, build_id: int, path: str) -> StoredArtifact | None:
    """Return an artifact of a build by its path."""
    query = sa.select(artifact.c.filepath, artifact.c.sha256, artifact.c.size)
    row = connection.execute(query.where(artifact.c.build == build_id, artifact.c.filepath == path)).one_or_none()
    return StoredArtifact(path=row.filepath, digest=row.sha256, size=row.size) if row is not None else None


def with_content(connection: sa.Connection, digest: bytes, *, start: int, count: int) -> list[tuple[Build, str]]:
    """Return the newest builds that have an artifact with that SHA-256, each with the artifact's path."""
    query = (
        _select.add_columns(artifact.c.filepath)
        .join(artifact, artifact.c.build == build.c.id)
        .where(artifact.c.sha256 == digest)
        .order_by(*_NEWEST_FIRST)
        .offset(start)
        .limit(count)
    )
    return [(record(row), path) for *row, path in connection.execute(query)]


def alike(connection: sa.Connection, this: Build, *, count: int) -> Alike | None:
    """Return what other builds say of the output of a build, with so many of them; None if the build failed."""
    if this.main_binary is None:
        return None
    same = (listed.c.output == this.main_binary.digest, listed.c.job == _job_id(this.job))
    differ = (listed.c.output != this.main_binary.digest, listed.c.input == this.input_id)
    builds, inputs = connection.execute(
        sa.select(sa.func.count(), sa.func.count(listed.c.input.distinct())).where(*same)
    ).one()
    return Alike(
        same=tuple(those(connection, _list.where(*same, listed.c.build != this.id).limit(count))),
        same_builds=builds - 1,
        inputs=inputs,
        different=tuple(those(connection, _list.where(*differ).limit(count))),
        different_builds=connection.scalar(sa.select(sa.func.count()).where(*differ)) or 0,
    )


def beside(connection: sa.Connection, this: Build, *, later: bool) -> Build | None:
    """Return the next successful build of the job on the platform whose output differs, or the previous one."""
    mine = sa.select(build.c.start_d, build.c.start_ps).where(build.c.id == this.id).scalar_subquery()
    query = (
        sa.select(listed.c.build)
        .where(listed.c.job == _job_id(this.job), listed.c.platform == this.platform)
        .where(_started > mine if later else _started < mine)
        .where(listed.c.output != (this.main_binary.digest if this.main_binary else b""))
        .order_by(*(_LISTED_LAST if later else _LISTED_FIRST))
        .limit(1)
    )
    return next(iter(those(connection, query)), None)


def _job_id(name: str) -> sa.ScalarSelect[Any]:
    return sa.select(job.c.id).where(job.c.name == name).scalar_subquery()


def _on(query: sa.Select[Any], platform: str | None) -> sa.Select[Any]:
    return query if platform is None else query.where(listed.c.platform == platform)


def all_builds(connection: sa.Connection, *, job_names: Sequence[str] = (), platform: str | None = None) -> list[Build]:
    """Return all builds, the newest first: those of some jobs, or of all."""
    query = _select.order_by(*_NEWEST_FIRST)
    if job_names:
        query = query.where(job.c.name.in_(job_names))
    if platform is not None:
        query = query.where(build.c.platform == platform)
    return [record(row) for row in connection.execute(query)]
