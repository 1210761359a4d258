"""Statements that several changes are made of, and what rows mean. Each runs within a step of the database."""

from typing import Any
from uuid import UUID

import sqlalchemy as sa
from attrs import frozen
from sqlalchemy.dialects.sqlite import insert

from builder import codec
from builder.errors import BuilderError
from builder.model import Instant, Job, OrbBuildJob, Period, Result, ScheduleItem, ScriptJob
from builder_server.schema import build, job, platform, queue

MAX_PLATFORMS = 1000
"""Most platforms: a worker may name any, and every orb-build job joins the queue of each."""


class Refused(BuilderError):
    """What a client asked for can't be done; the text is the failure reply."""


@frozen(kw_only=True)
class Build:
    """An attempt at a job, as the store keeps it. ``losses`` are those before this attempt."""

    uuid: UUID
    job: ScriptJob
    started: Instant
    losses: int
    state: str = "running"
    finished: Instant | None = None
    result: Result | None = None


def to_job(row: Any) -> Job:
    """Return the job of a row."""
    if row.opam_package is not None:
        return OrbBuildJob(name=row.name, opam_package=row.opam_package)
    return ScriptJob(name=row.name, platform=row.platform, script=row.script)


def to_schedule_item(row: Any) -> ScheduleItem:
    """Return the schedule item of a row of jobs."""
    return ScheduleItem(next=Instant(row.next_run), period=Period(row.period), job=to_job(row))


def to_build(row: Any) -> Build:
    """Return the build of a row."""
    return Build(
        uuid=UUID(row.uuid),
        job=ScriptJob(name=row.name, platform=row.platform, script=row.script),
        started=Instant(row.started),
        losses=row.losses,
        state=row.state,
        finished=None if row.finished is None else Instant(row.finished),
        result=None if row.result is None else codec.decode_result(row.result),
    )


def update_running(uuid: UUID) -> sa.Update:
    """Return the begin of an update of a build, for as long as it runs."""
    return sa.update(build).where(build.c.uuid == str(uuid), build.c.state == "running")


def platforms(connection: sa.Connection) -> list[str]:
    """Return the names of all platforms that are not dropped."""
    return list(connection.scalars(sa.select(platform.c.name).where(~platform.c.dropped).order_by(platform.c.name)))


def is_dropped(connection: sa.Connection, name: str) -> bool:
    """Return whether a platform is banned."""
    return bool(connection.scalar(sa.select(platform.c.dropped).where(platform.c.name == name)))


def add_job(connection: sa.Connection, item: ScheduleItem) -> int | None:
    """Insert a job and return its id, None if the name is taken."""
    values: dict[str, object] = {"name": item.job.name, "period": item.period.value, "next_run": item.next.ms}
    if isinstance(item.job, ScriptJob):
        values |= {"platform": item.job.platform, "script": item.job.script}
    else:
        values |= {"opam_package": item.job.opam_package}
    added: int | None = connection.scalar(insert(job).values(values).on_conflict_do_nothing().returning(job.c.id))
    return added


def add_platform(connection: sa.Connection, name: str) -> None:
    """Create the queue of a platform that is new, with every job that can run there. Raises Refused for too many."""
    if ensure_platform(connection, name) and len(platforms(connection)) > MAX_PLATFORMS:
        raise Refused(f"there are {MAX_PLATFORMS} platforms already; drop one that is not in use")


def ensure_platform(connection: sa.Connection, name: str) -> bool:
    """Create the queue of a platform that is new, with every job that can run there; return whether it was."""
    created = connection.execute(insert(platform).values(name=name, dropped=False).on_conflict_do_nothing()).rowcount
    if created:
        enqueue(connection, platform.c.name == name)
    return bool(created)


def enqueue(connection: sa.Connection, which: sa.ColumnElement[bool]) -> None:
    """Append jobs to the queue of their platform, orb-build jobs to every queue, unless they are there already.

    It is one statement, since there may be hundreds of thousands of entries. The job that is due first goes first.
    """
    there = sa.alias(queue)
    last = sa.select(sa.func.coalesce(sa.func.max(there.c.position), 0)).where(there.c.platform == platform.c.name)
    place = sa.func.row_number().over(partition_by=platform.c.name, order_by=(job.c.next_run, job.c.id))
    entries = sa.select(platform.c.name, job.c.id, last.scalar_subquery() + place, sa.literal(0)).where(
        sa.or_(job.c.platform == platform.c.name, job.c.platform.is_(None)), ~platform.c.dropped, which
    )
    columns = ["platform", "job_id", "position", "losses"]
    connection.execute(insert(queue).from_select(columns, entries).on_conflict_do_nothing())


def append_to_queue(connection: sa.Connection, name: str, job_id: int) -> None:
    """Put a job at the end of a queue, unless it is there already."""
    last = sa.select(sa.func.coalesce(sa.func.max(queue.c.position), 0) + 1).where(queue.c.platform == name)
    values = {"platform": name, "job_id": job_id, "position": last.scalar_subquery(), "losses": 0}
    connection.execute(insert(queue).values(values).on_conflict_do_nothing())


def move_to_front(connection: sa.Connection, name: str, job_id: int, *, losses: int | None = None) -> None:
    """Put a job at the front of a queue, wherever it was; ``losses`` are set where they are given."""
    first = sa.select(sa.func.coalesce(sa.func.min(queue.c.position), 0) - 1).where(queue.c.platform == name)
    values = {"platform": name, "job_id": job_id, "position": first.scalar_subquery(), "losses": losses or 0}
    statement = insert(queue).values(values)
    changed: dict[str, object] = {"position": statement.excluded.position}
    if losses is not None:
        changed["losses"] = losses
    connection.execute(statement.on_conflict_do_update(index_elements=["platform", "job_id"], set_=changed))
