"""Jobs and what they are tagged with."""

import sqlalchemy as sa

from builder_web.store import builds
from builder_web.store.records import Job, Newest
from builder_web.store.schema import artifact, binary, build, job, job_tag, listed, place, tag

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
    found = sa.select(place.c.platform).where(
        place.c.job == sa.select(job.c.id).where(job.c.name == name).scalar_subquery()
    )
    return sorted(connection.scalars(found))


def failing_platforms(connection: sa.Connection) -> list[str]:
    """Return the platforms on which any build failed."""
    return sorted(connection.scalars(sa.select(listed.c.platform).distinct().where(listed.c.failed == sa.true())))


def all_jobs(connection: sa.Connection) -> list[Job]:
    """Return all jobs with their newest builds, by section (the last one first) and name."""
    tagged: dict[int, dict[str, str]] = {}
    said = sa.select(job_tag.c.job, tag.c.tag, job_tag.c.value).select_from(
        job_tag.join(tag, tag.c.id == job_tag.c.tag)
    )
    for job_id, name, value in connection.execute(said.where(tag.c.tag.in_([SECTION, SYNOPSIS]))):
        tagged.setdefault(job_id, {})[name] = value
    shown = sa.union(sa.select(place.c.newest), sa.select(place.c.built))
    found = {one.id: one for one in builds.those(connection, shown)}
    by_job: dict[int, list[Newest]] = {}
    for job_id, platform, newest, built, past in connection.execute(sa.select(place)):
        failed = found.get(newest) if newest != built else None
        by_job.setdefault(job_id, []).append(
            Newest(platform=platform, build=found.get(built), failed=failed, past=past)
        )
    jobs = []
    for job_id, name in connection.execute(sa.select(job)):
        said_of = tagged.get(job_id, {})
        jobs.append(
            Job(
                name=name,
                section=said_of.get(SECTION, UNCATEGORIZED),
                synopsis=said_of.get(SYNOPSIS),
                newest=tuple(by_job.get(job_id, ())),
            )
        )
    jobs.sort(key=lambda one: one.name)
    jobs.sort(key=lambda one: one.section, reverse=True)
    return jobs


def solo5(connection: sa.Connection) -> dict[bytes, str]:
    """Return what the newest main binaries of all jobs say of themselves, by their SHA-256."""
    main = artifact.alias("main")
    query = (
        sa.select(binary.c.sha256, binary.c.solo5)
        .distinct()
        .select_from(
            place.join(build, build.c.id == place.c.built)
            .join(main, main.c.id == build.c.main_binary)
            .join(binary, binary.c.sha256 == main.c.sha256)
        )
    )
    return {row.sha256: row.solo5 for row in connection.execute(query)}
