"""The schedule: jobs come, go, and are queued when their time has come. Each function is a step, or a part of one."""

import sqlalchemy as sa

from builder.model import Instant, Job, Period, ScheduleItem, ScriptJob
from builder_server.errors import CommandRefused
from builder_server.scheduler import following_run, latest_run, put_back
from builder_server.store import queues
from builder_server.store.records import Due
from builder_server.store.schema import job
from builder_server.store.waking import Woken

_FIND = sa.select(job.c.id, job.c.platform).where(job.c.name == sa.bindparam("job_name"))
_DUE = sa.select(job.c.id, job.c.platform, job.c.period, job.c.next_run).where(job.c.next_run <= sa.bindparam("now"))
_EARLIEST = sa.select(sa.func.min(job.c.next_run))

_SET_NEXT_RUN = (
    sa.update(job).where(job.c.id == sa.bindparam("changed")).values(next_run=sa.bindparam("following"), planned=True)
)


def insert(connection: sa.Connection, item: ScheduleItem, *, planned: bool) -> int | None:
    """Insert a job and return its id, None if the name is taken. ``planned``: its next run is one of the server's own."""
    if connection.scalar(_FIND, {"job_name": item.job.name}) is not None:
        return None
    values: dict[str, object] = {
        "name": item.job.name,
        "period": item.period.value,
        "next_run": item.next.ms,
        "planned": planned,
    }
    if isinstance(item.job, ScriptJob):
        values |= {"platform": item.job.platform, "script": item.job.script}
    else:
        values |= {"opam_package": item.job.opam_package}
    (job_id,) = connection.execute(sa.insert(job), values).inserted_primary_key or (None,)
    return job_id


def add(connection: sa.Connection, woken: Woken, new: Job, period: Period, now: Instant) -> None:
    """Add a job, queue it at once; its next run is one period from now. Raises CommandRefused."""
    if isinstance(new, ScriptJob) and queues.is_dropped(connection, new.platform):
        raise CommandRefused("platform dropped; can't schedule jobs")
    item = ScheduleItem(next=period.first_after(now), period=period, job=new)
    _note_earlier(connection, woken, item.next)
    job_id = insert(connection, item, planned=True)
    if job_id is None:
        raise CommandRefused("job name already used")
    if isinstance(new, ScriptJob):
        queues.add_platform(connection, new.platform)
    queues.enqueue_job(connection, job_id)
    woken.platforms |= {new.platform} if isinstance(new, ScriptJob) else {*queues.platforms(connection)}


def remove(connection: sa.Connection, name: str) -> None:
    """Remove a job from the schedule and all queues. Raises CommandRefused."""
    if connection.execute(sa.delete(job).where(job.c.name == name)).rowcount == 0:
        raise CommandRefused(f"unknown job {name}")


def reschedule(connection: sa.Connection, woken: Woken, name: str, next_run: Instant, period: Period | None) -> None:
    """Set a job's next run, and its period if given. Raises CommandRefused."""
    _note_earlier(connection, woken, next_run)
    values: dict[str, object] = {"next_run": next_run.ms, "planned": False}
    if period is not None:
        values["period"] = period.value
    if connection.execute(sa.update(job).where(job.c.name == name).values(values)).rowcount == 0:
        raise CommandRefused(f"unknown job {name}")


def execute(connection: sa.Connection, woken: Woken, name: str, on_platform: str | None) -> None:
    """Move a job to the front of its queue, or of one platform's, or of all. Raises CommandRefused."""
    found = connection.execute(_FIND, {"job_name": name}).one_or_none()
    if found is None:
        raise CommandRefused("execute failed: job not found")
    if found.platform is not None and on_platform not in (None, found.platform):
        raise CommandRefused(f"execute failed: job is for a different platform: {found.platform}")
    wanted = found.platform or on_platform
    if wanted is not None and queues.is_dropped(connection, wanted) is not False:
        raise CommandRefused("execute failed: no such platform")
    names = queues.platforms(connection) if wanted is None else [wanted]
    queues.move_to_front(connection, names, found.id)
    woken.platforms.update(names)


def queue_due(connection: sa.Connection, woken: Woken, now: Instant) -> Due:
    """Queue every job whose time has come, set its next run; put back the runs that a clock that was ahead has planned."""
    returned = _put_back(connection, now)
    due = connection.execute(_DUE, {"now": now.ms}).all()
    if due:
        names = {row.platform for row in due if row.platform is not None}
        for name in names:
            queues.ensure_platform(connection, name)  # an imported job may have come without its queue
        queues.enqueue_due(connection, now)
        _set_next_runs(
            connection, {row.id: following_run(Instant(row.next_run), Period(row.period), now) for row in due}
        )
        woken.platforms |= {*queues.platforms(connection)} if any(row.platform is None for row in due) else names
    return Due(next_run=earliest(connection), put_back=returned)


def _put_back(connection: sa.Connection, now: Instant) -> tuple[str, ...]:
    """Put back what the server itself planned further ahead than it can have by this clock; return the jobs' names."""
    latest = {period: run for period in Period if (run := latest_run(period, now)) is not None}
    if not latest:
        return ()
    beyond = sa.or_(
        *(
            sa.and_(job.c.planned == sa.true(), job.c.period == period.value, job.c.next_run > run.ms)
            for period, run in latest.items()
        )
    )
    rows = connection.execute(sa.select(job.c.id, job.c.name, job.c.period, job.c.next_run).where(beyond)).all()
    if rows:
        _set_next_runs(connection, {row.id: put_back(Instant(row.next_run), Period(row.period), now) for row in rows})
    return tuple(row.name for row in rows)


def earliest(connection: sa.Connection) -> Instant | None:
    """Return the earliest next run of all jobs."""
    found = connection.scalar(_EARLIEST)
    return None if found is None else Instant(found)


def _note_earlier(connection: sa.Connection, woken: Woken, next_run: Instant) -> None:
    first = earliest(connection)
    woken.schedule = first is None or next_run < first


def _set_next_runs(connection: sa.Connection, next_runs: dict[int, Instant]) -> None:
    connection.execute(_SET_NEXT_RUN, [{"changed": id_, "following": run.ms} for id_, run in next_runs.items()])
