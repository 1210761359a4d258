"""Builds and their artifacts, as they are asked for."""

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from attrs import evolve, frozen

from builder.model import Instant
from builder_web.store.records import Artifact, Build, Readme, from_row, result_from_row, to_row
from builder_web.store.schema import artifact, build, job, output, received
from builder_web.store.schema import newest as newest_builds

_main = artifact.alias("main")
_from = build.join(job, job.c.id == build.c.job).outerjoin(_main, _main.c.id == build.c.main_binary)
_select = sa.select(
    *build.c,
    job.c.name.label("job_name"),
    _main.c.filepath.label("main_path"),
    _main.c.sha256.label("main_sha256"),
    _main.c.size.label("main_size"),
).select_from(_from)
_NEWEST_FIRST = (build.c.start_d.desc(), build.c.start_ps.desc(), build.c.id.desc())
_OLDEST_FIRST = (build.c.start_d.asc(), build.c.start_ps.asc(), build.c.id.asc())
_AT_ONCE = 10_000  # ids in one statement
_is_failed = build.c.main_binary.is_(None)


@frozen(kw_only=True)
class Entry:
    """A failed build of a job, or the newest of those with one output."""

    build_id: int
    started: int
    """Milliseconds since 1970."""
    alike: int
    """How many builds have that output."""


@frozen(kw_only=True)
class Past:
    """A build as the row of the last builds needs it."""

    uuid: str
    started: Instant
    output: bytes | None
    """The SHA-256 of its main binary; None if it failed."""


@frozen(kw_only=True)
class Uploaded:
    """The artifacts of a build in the order in which they were uploaded."""

    artifacts: tuple[Artifact, ...]
    readme: Readme | None
    """Its position is that among the artifacts."""


def record(row: Any) -> Build:
    """Return the build of a row of ``_select``."""
    main = None
    if row.main_path is not None:
        main = Artifact(path=row.main_path, digest=row.main_sha256, size=row.main_size)
    return Build(
        id=row.id,
        uuid=row.uuid,
        job=row.job_name,
        platform=row.platform,
        started=from_row(row.start_d, row.start_ps),
        finished=from_row(row.finish_d, row.finish_ps),
        result=result_from_row(row.result_code, row.result_msg),
        main_binary=main,
        input_id=row.input_id,
        console=row.console,
        script=row.script,
    )


def find(connection: sa.Connection, uuid: str) -> Build | None:
    """Return a build by its uuid."""
    row = connection.execute(_select.where(build.c.uuid == uuid)).one_or_none()
    return record(row) if row is not None else None


def find_all(connection: sa.Connection, ids: Iterable[int]) -> dict[int, Build]:
    """Return builds by their ids."""
    wanted = list(ids)
    return {
        row.id: record(row)
        for start in range(0, len(wanted), _AT_ONCE)
        for row in connection.execute(_select.where(build.c.id.in_(wanted[start : start + _AT_ONCE])))
    }


def latest(connection: sa.Connection, job_name: str, platform: str | None) -> Build | None:
    """Return the newest successful build of a job."""
    query = _select.where(build.c.job == _job_id(job_name), ~_is_failed).order_by(*_NEWEST_FIRST).limit(1)
    row = connection.execute(_on(query, platform)).one_or_none()
    return record(row) if row is not None else None


def failed(connection: sa.Connection, *, platform: str | None, start: int, count: int) -> list[Build]:
    """Return the newest failed builds of all jobs."""
    query = _select.where(_is_failed).order_by(*_NEWEST_FIRST).offset(start).limit(count)
    return [record(row) for row in connection.execute(_on(query, platform))]


def failed_since(connection: sa.Connection, since: Instant, *, count: int) -> tuple[list[Build], int]:
    """Return the newest builds that began since then and failed, and how many there are in all."""
    lately = _is_failed & (sa.tuple_(build.c.start_d, build.c.start_ps) >= sa.tuple_(*to_row(since)))
    ids = list(connection.scalars(sa.select(build.c.id).where(lately).order_by(*_NEWEST_FIRST)))
    known = find_all(connection, ids[:count])
    return [known[one] for one in ids[:count]], len(ids)


def past(connection: sa.Connection, job_names: Sequence[str], *, count: int) -> dict[tuple[str, str], list[Past]]:
    """Return the newest builds of jobs on each of their platforms, by both names, the newest first."""
    places = sa.select(newest_builds.c.job, newest_builds.c.platform).distinct().subquery()
    last = (
        sa.select(build.c.id)
        .where(build.c.job == places.c.job, build.c.platform == places.c.platform)
        .order_by(build.c.start_d.desc(), build.c.start_ps.desc())
        .limit(count)
        .correlate(places)
    )
    these = build.alias("these")
    query = (
        sa.select(job.c.name, places.c.platform, these.c.uuid, these.c.start_d, these.c.start_ps, artifact.c.sha256)
        .select_from(places.join(job, job.c.id == places.c.job).join(these, these.c.id.in_(last)))
        .outerjoin(artifact, artifact.c.id == these.c.main_binary)
        .where(job.c.name.in_(job_names))
        .order_by(these.c.start_d.desc(), these.c.start_ps.desc(), these.c.id.desc())
    )
    found: dict[tuple[str, str], list[Past]] = {}
    for name, platform, uuid, days, picoseconds, output_digest in connection.execute(query):
        one = Past(uuid=uuid, started=from_row(days, picoseconds), output=output_digest)
        found.setdefault((name, platform), []).append(one)
    return found


def entries(connection: sa.Connection, job_name: str, platform: str | None, *, with_failed: bool) -> list[Entry]:
    """Return the different outputs of a job, and failed builds if they are wanted, the newest first."""
    query = sa.select(output.c.sha256, output.c.build, output.c.started, output.c.alike)
    query = query.where(output.c.job == _job_id(job_name))
    if platform is not None:
        query = query.where(output.c.platform == platform)
    by_output: dict[bytes, Entry] = {}
    for row in connection.execute(query):
        found_here = Entry(build_id=row.build, started=row.started, alike=row.alike)
        other = by_output.get(row.sha256)
        if other is not None:  # on another platform
            newer = max(found_here, other, key=_place)
            found_here = evolve(newer, alike=found_here.alike + other.alike)
        by_output[row.sha256] = found_here
    found = [*by_output.values()]
    if with_failed:
        failed = sa.select(build.c.id, build.c.start_d, build.c.start_ps)
        failed = _on(failed.where(build.c.job == _job_id(job_name), _is_failed), platform)
        found += [
            Entry(build_id=row.id, started=from_row(row.start_d, row.start_ps).ms, alike=1)
            for row in connection.execute(failed)
        ]
    return sorted(found, key=_place, reverse=True)


def _place(entry: Entry) -> tuple[int, int]:
    return entry.started, entry.build_id


def newest(connection: sa.Connection, job_name: str, platform: str | None, count: int) -> list[Build]:
    """Return the newest builds of a job, failed ones too."""
    query = _select.where(build.c.job == _job_id(job_name)).order_by(*_NEWEST_FIRST).limit(count)
    return [record(row) for row in connection.execute(_on(query, platform))]


def lately(
    connection: sa.Connection, *, job_name: str | None, platform: str | None, only_failed: bool, count: int
) -> list[Build]:
    """Return the newest builds, of one job or of all."""
    query = _select.order_by(*_NEWEST_FIRST).limit(count)
    if job_name is not None:
        query = query.where(build.c.job == _job_id(job_name))
    if only_failed:
        query = query.where(_is_failed)
    return [record(row) for row in connection.execute(_on(query, platform))]


def artifacts(connection: sa.Connection, build_id: int) -> list[Artifact]:
    """Return the artifacts of a build, the main binary first, then as they were uploaded."""
    query = (
        sa.select(artifact.c.filepath, artifact.c.sha256, artifact.c.size)
        .where(artifact.c.build == build_id)
        .order_by(artifact.c.id)
    )
    return [Artifact(path=row.filepath, digest=row.sha256, size=row.size) for row in connection.execute(query)]


def uploaded(connection: sa.Connection, this: Build) -> Uploaded:
    """Return the artifacts of a build as they were uploaded."""
    query = (
        sa.select(artifact.c.filepath, artifact.c.sha256, artifact.c.size)
        .where(artifact.c.build == this.id)
        .order_by(artifact.c.id)
    )
    files = [Artifact(path=row.filepath, digest=row.sha256, size=row.size) for row in connection.execute(query)]
    readme = None
    row = connection.execute(sa.select(received).where(received.c.build == this.id)).one_or_none()
    if row is not None:
        if this.main_binary is not None and this.main_binary in files:
            files.remove(this.main_binary)
            files.insert(row.main_position, this.main_binary)
        if row.readme is not None:
            readme = Readme(position=row.readme_position, content=row.readme)
    return Uploaded(artifacts=tuple(files), readme=readme)


def find_artifact(connection: sa.Connection, build_id: int, path: str) -> Artifact | None:
    """Return an artifact of a build by its path."""
    query = sa.select(artifact.c.filepath, artifact.c.sha256, artifact.c.size)
    row = connection.execute(query.where(artifact.c.build == build_id, artifact.c.filepath == path)).one_or_none()
    return Artifact(path=row.filepath, digest=row.sha256, size=row.size) if row is not None else None


def with_content(connection: sa.Connection, digest: bytes, *, start: int, count: int) -> list[tuple[Build, str]]:
    """Return the newest builds that have an artifact with that SHA-256, each with the artifact's path."""
    query = (
        _select.add_columns(artifact.c.filepath.label("path"))
        .join(artifact, artifact.c.build == build.c.id)
        .where(artifact.c.sha256 == digest)
        .order_by(*_NEWEST_FIRST)
        .offset(start)
        .limit(count)
    )
    return [(record(row), row.path) for row in connection.execute(query)]


def with_output(connection: sa.Connection, this: Build) -> list[Build]:
    """Return the other builds of the same job whose main binary is the same, the newest first."""
    if this.main_binary is None:
        return []
    query = _select.where(
        build.c.job == _job_id(this.job), _main.c.sha256 == this.main_binary.digest, build.c.id != this.id
    )
    return [record(row) for row in connection.execute(query.order_by(*_NEWEST_FIRST))]


def with_input(connection: sa.Connection, this: Build) -> list[Build]:
    """Return the builds of the same input whose main binary differs, be they of other jobs, the newest first."""
    if this.main_binary is None or this.input_id is None:
        return []
    query = _select.where(
        build.c.input_id == this.input_id,
        _main.c.sha256 != this.main_binary.digest,
    )
    return [record(row) for row in connection.execute(query.order_by(*_NEWEST_FIRST))]


def beside(connection: sa.Connection, this: Build, *, later: bool) -> Build | None:
    """Return the next successful build of the job on the platform whose output differs, or the previous one."""
    started = sa.tuple_(build.c.start_d, build.c.start_ps)
    mine = sa.select(build.c.start_d, build.c.start_ps).where(build.c.id == this.id).subquery()
    bound = sa.tuple_(mine.c.start_d, mine.c.start_ps)
    query = (
        _select.join(mine, sa.true())
        .where(build.c.job == _job_id(this.job), build.c.platform == this.platform, ~_is_failed)
        .where(started > bound if later else started < bound)
        .order_by(*(_OLDEST_FIRST if later else _NEWEST_FIRST))
        .limit(1)
    )
    if this.main_binary is not None:
        query = query.where(_main.c.sha256 != this.main_binary.digest)
    row = connection.execute(query).one_or_none()
    return record(row) if row is not None else None


def _job_id(name: str) -> sa.ScalarSelect[Any]:
    return sa.select(job.c.id).where(job.c.name == name).scalar_subquery()


def _on(query: sa.Select[Any], platform: str | None) -> sa.Select[Any]:
    return query if platform is None else query.where(build.c.platform == platform)


def all_builds(connection: sa.Connection, *, job_names: Sequence[str] = (), platform: str | None = None) -> list[Build]:
    """Return all builds, the newest first: those of some jobs, or of all."""
    query = _select.order_by(*_NEWEST_FIRST)
    if job_names:
        query = query.where(job.c.name.in_(job_names))
    return [record(row) for row in connection.execute(_on(query, platform))]
