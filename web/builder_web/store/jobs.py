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


def all_jobs(connection: sa.Connection) -> list[Job]:
    """Return all jobs with their newest builds, by section (the last one first) and name."""
    tagged: dict[int, dict[str, str]] = {}
    query = sa.select(job_tag.c.job, tag.c.tag, job_tag.c.value).select_from(
        job_tag.join(tag, tag.c.id == job_tag.c.tag)
    )
    for row in connection.execute(query.where(tag.c.tag.in_([SECTION, SYNOPSIS]))):
        tagged.setdefault(row.job, {})[row.tag] = row.value
    rows = connection.execute(sa.select(newest)).all()
    found = builds.find_all(connection, [row.build for row in rows])
    solo5 = _solo5(connection)
    by_job: dict[int, dict[str, dict[bool, int]]] = {}
    for row in rows:
        by_job.setdefault(row.job, {}).setdefault(row.platform, {})[bool(row.failed)] = row.build
    jobs = []
    for row in connection.execute(sa.select(job)):
        items = []
        for platform, ids in sorted(by_job.get(row.id, {}).items()):
            built, failed = found.get(ids.get(False, 0)), found.get(ids.get(True, 0))
            if built and failed and failed.started <= built.started:
                failed = None
            main = built.main_binary if built else None
            said = solo5.get(main.digest) if main else None
            items.append(Newest(platform=platform, build=built, failed=failed, solo5=said))
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
