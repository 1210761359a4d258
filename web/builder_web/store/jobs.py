"""Jobs and what they are tagged with."""

from collections.abc import Mapping

import sqlalchemy as sa
from attrs import define, field, frozen

from builder_web.store import builds
from builder_web.store.records import Build, Job, Newest
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


@frozen
class _Said:
    """What the rows say of a job: while that is the same, so is the job."""

    name: str
    section: str
    synopsis: str | None
    places: tuple[tuple[str, int | None, int | None, str], ...]
    """Of each platform its name, the ids of the newest build and the newest successful one, and the states of the last ones."""


@define(eq=False)
class AllJobs:
    """The list of all jobs; one that is as it was when they were read last is the same value, and its builds are not read.

    That is so since the row of a build never changes, and its id is never given twice.
    """

    _known: dict[int, tuple[_Said, Job]] = field(factory=dict)

    def read(self, connection: sa.Connection) -> list[Job]:
        """Return all jobs with their newest builds, by section (the last one first) and name."""
        said, before = _said(connection), self._known
        known = {key: before[key] for key, one in said.items() if key in before and before[key][0] == one}
        changed = {key: one for key, one in said.items() if key not in known}
        ids = {each for one in changed.values() for _, *pair, _ in one.places for each in pair if each is not None}
        found = builds.find_all(connection, ids)
        known |= {key: (one, _job(one, found)) for key, one in changed.items()}
        self._known = known
        jobs = [one for _, one in known.values()]
        jobs.sort(key=lambda one: one.name)
        jobs.sort(key=lambda one: one.section, reverse=True)
        return jobs


_newest, _built = build.alias("newest"), build.alias("built")
_JOBS = sa.select(job.c.id, job.c.name)
_TAGS = (
    sa.select(job_tag.c.job, tag.c.tag, job_tag.c.value)
    .select_from(job_tag.join(tag, tag.c.id == job_tag.c.tag))
    .where(tag.c.tag.in_([SECTION, SYNOPSIS]))
)
_PLACES = (
    # another program may have removed a build since its place was noted
    sa.select(place.c.job, place.c.platform, _newest.c.id, _built.c.id, place.c.past)
    .select_from(
        place.outerjoin(_newest, _newest.c.id == place.c.newest).outerjoin(_built, _built.c.id == place.c.built)
    )
    .order_by(place.c.job, place.c.platform)
)


def _said(connection: sa.Connection) -> dict[int, _Said]:
    tags: dict[tuple[int, str], str] = {(job_id, name): value for job_id, name, value in connection.execute(_TAGS)}
    places: dict[int, list[tuple[str, int | None, int | None, str]]] = {}
    for job_id, platform, newest, built, past in connection.execute(_PLACES):
        places.setdefault(job_id, []).append((platform, newest, built, past))
    return {
        job_id: _Said(
            name,
            tags.get((job_id, SECTION), UNCATEGORIZED),
            tags.get((job_id, SYNOPSIS)),
            tuple(places.get(job_id, ())),
        )
        for job_id, name in connection.execute(_JOBS)
    }


def _job(said: _Said, found: Mapping[int, Build]) -> Job:
    newest = tuple(
        Newest(
            platform=platform,
            build=found.get(built) if built is not None else None,
            failed=found.get(last) if last is not None and last != built else None,
            past=past,
        )
        for platform, last, built, past in said.places
    )
    return Job(name=said.name, section=said.section, synopsis=said.synopsis, newest=newest)


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
