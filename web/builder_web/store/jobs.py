"""Jobs and what they are tagged with."""

import sqlalchemy as sa

from builder_web.store import builds
from builder_web.store.records import Job, Newest
from builder_web.store.schema import artifact, binary, build, job, job_tag, newest, tag

SECTION = "section"
SYNOPSIS = "synopsis"
DESCRIPTION = "description"
README = "readme.md"
UNCATEGORIZED = "Uncategorized"


def exists(connection: sa.Connection, name: str) -> bool:
    """Return whether there is such a job."""
    return connection.scalar(sa.select(job.c.id).where(job.c.name == name)) is not None


def tags(connection: sa.Connection, name: str) -> dict[str, str]:
    """Return what a job is tagged with."""
    query = (
        sa.select(tag.c.tag, job_tag.c.value)
        .select_from(job_tag.join(tag, tag.c.id == job_tag.c.tag).join(job, job.c.id == job_tag.c.job))
        .where(job.c.name == name)
    )
    return {row.tag: row.value for row in connection.execute(query)}


def platforms(connection: sa.Connection, name: str) -> list[str]:
    """Return the platforms that a job was built on."""
    query = (
        sa.select(newest.c.platform)
        .distinct()
        .where(newest.c.job == sa.select(job.c.id).where(job.c.name == name).scalar_subquery())
    )
    return sorted(connection.scalars(query))


def failing_platforms(connection: sa.Connection) -> list[str]:
    """Return the platforms on which any build failed."""
    return sorted(connection.scalars(sa.select(newest.c.platform).distinct().where(newest.c.failed)))


def all_jobs(connection: sa.Connection) -> list[Job]:
    """Return all jobs with their newest builds, by section (the last one first) and name."""
    tagged: dict[int, dict[str, str]] = {}
    query = sa.select(job_tag.c.job, tag.c.tag, job_tag.c.value).select_from(
        job_tag.join(tag, tag.c.id == job_tag.c.tag)
    )
    for row in connection.execute(query.where(tag.c.tag.in_([SECTION, SYNOPSIS]))):
        tagged.setdefault(row.job, {})[row.tag] = row.value
    rows = {(row.job, row.platform, bool(row.failed)): row for row in connection.execute(sa.select(newest))}
    shown = {
        key: row.build
        for key, row in rows.items()
        if not key[2] or (other := rows.get((key[0], key[1], False))) is None or other.started < row.started
    }
    found = builds.find_all(connection, shown.values())
    solo5 = _solo5(connection)
    by_job: dict[int, list[Newest]] = {}
    for job_id, platform in sorted({key[:2] for key in shown}):
        built = found.get(shown.get((job_id, platform, False), 0))
        failed = found.get(shown.get((job_id, platform, True), 0))
        said = solo5.get(built.main_binary.digest) if built and built.main_binary else None
        by_job.setdefault(job_id, []).append(Newest(platform=platform, build=built, failed=failed, solo5=said))
    jobs = []
    for row in connection.execute(sa.select(job)):
        items = by_job.get(row.id, [])
        said_of = tagged.get(row.id, {})
        jobs.append(
            Job(
                name=row.name,
                section=said_of.get(SECTION, UNCATEGORIZED),
                synopsis=said_of.get(SYNOPSIS),
                newest=tuple(items),
            )
        )
    jobs.sort(key=lambda one: one.name)
    jobs.sort(key=lambda one: one.section, reverse=True)
    return jobs


def _solo5(connection: sa.Connection) -> dict[bytes, str]:
    main = artifact.alias("main")
    query = (
        sa.select(binary.c.sha256, binary.c.solo5)
        .distinct()
        .select_from(
            newest.join(build, build.c.id == newest.c.build)
            .join(main, main.c.id == build.c.main_binary)
            .join(binary, binary.c.sha256 == main.c.sha256)
        )
    )
    return {row.sha256: row.solo5 for row in connection.execute(query)}
