"""The schedule: jobs come, go, and are queued when their time has come. Each function is a step, or a part of one."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from attrs import field, frozen

from builder.extension.applying import MAX_LISTED, Apply, ListedJob, ListedScript
from builder.extension.watching import What
from builder.history import Cause
from builder.model import Instant, Job, OrbBuildJob, Period, ScheduleItem, ScriptJob
from builder.needs import text_of
from builder.planning import JobOptions
from builder_server.errors import CommandRefused, about_job
from builder_server.limits import ServerLimits
from builder_server.scheduler import latest_plan
from builder_server.store import dependencies, halts, needed, queues
from builder_server.store.records import Due, PlannedJob, Timing, options_values, to_job, to_options, to_rule
from builder_server.store.schema import job, queue
from builder_server.store.waking import Woken

_FIND = sa.select(job).where(job.c.name == sa.bindparam("job_name"))
_IDS = sa.select(job.c.name, job.c.id).where(job.c.name.in_(sa.bindparam("names", expanding=True)))
_SCRIPT_SIZE = sa.select(sa.func.length(job.c.script)).where(job.c.name == sa.bindparam("job_name"))
_OF_RULE = (job.c.id, job.c.name, job.c.period, job.c.cron, job.c.zone, job.c.spread, job.c.next_run)
_DUE = sa.select(*_OF_RULE, job.c.platform).where(job.c.next_run <= sa.bindparam("now"))
_EARLIEST = sa.select(sa.func.min(job.c.next_run))
_QUEUED_ON = sa.select(queue.c.platform).where(queue.c.job_id == sa.bindparam("wanted")).order_by(queue.c.platform)

_SET_NEXT_RUN = (
    sa.update(job)
    .where(job.c.id == sa.bindparam("changed"))
    .values(next_run=sa.bindparam("following"), planned_at=sa.bindparam("at"))
)


_AT_ONCE = 500
"""Jobs that are named in one statement."""


def insert(connection: sa.Connection, item: ScheduleItem) -> None:
    """Insert a job of the original, unless its name is taken."""
    if _taken(connection, [item.job.name]) is None:
        every = item.period.value
        values = {"name": item.job.name, "period": every, "own_period": every, "next_run": item.next.ms}
        values["all_needs"] = text_of(
            needed.in_script(item.job).needs
        )  # there is nobody to tell what is mistaken there
        connection.execute(sa.insert(job), values | _what(item.job))


def _taken(connection: sa.Connection, names: Sequence[str]) -> str | None:
    """Return the first of these names that a job has, or that is there twice."""
    known = {*_ids(connection, names)}
    for name in names:
        if name in known:
            return name
        known.add(name)
    return None


def _ids(connection: sa.Connection, names: Sequence[str]) -> dict[str, int]:
    """Return the ids of those of these names that a job has."""
    found: dict[str, int] = {}
    for start in range(0, len(names), _AT_ONCE):
        found |= {row.name: row.id for row in connection.execute(_IDS, {"names": names[start : start + _AT_ONCE]})}
    return found


def _what(new: Job) -> dict[str, object]:
    """Return the columns that say what a job runs."""
    if isinstance(new, ScriptJob):
        return {"platform": new.platform, "script": new.script, "opam_package": None}
    return {"platform": None, "script": None, "opam_package": new.opam_package}


def add(
    connection: sa.Connection,
    woken: Woken,
    new: Job,
    options: JobOptions,
    timing: Timing,
    now: Instant,
    limits: ServerLimits,
    *,
    run_now: bool,
) -> None:
    """Add a job, queue it at once if that is wanted. Raises CommandRefused."""
    _add_platform(connection, woken, new, now)
    if _taken(connection, [new.name]) is not None:
        raise CommandRefused(_TAKEN)
    ids = _add(connection, woken, [_New(job=new, options=options, timing=timing)], now)
    _check_room(connection, limits.jobs)
    if run_now:
        queues.enqueue_new(connection, woken, ids, due=now)
        queues.check_room(connection, woken, limits)
    dependencies.check_cycles(connection, new.name, options.after)


def _check_room(connection: sa.Connection, max_jobs: int) -> None:
    """Raise CommandRefused if there are more jobs than there may be, now that some were added."""
    if (connection.scalar(_COUNT) or 0) > max_jobs:
        raise CommandRefused(f"there are {max_jobs} jobs already: unschedule one, or raise --max-jobs of the server")


_COUNT = sa.select(sa.func.count()).select_from(job)

_TAKEN = "job name already used"


@frozen(kw_only=True)
class _New:
    """A job that comes into the schedule."""

    job: Job
    options: JobOptions
    timing: Timing
    all_needs: str = field(init=False)

    @all_needs.default
    def _with_script(self) -> str:
        return needed.all_of(self.job, self.options)

    def values(self, now: Instant) -> dict[str, object]:
        """Return its columns."""
        own = {"name": self.job.name, "next_run": self.timing.next_run.ms, "planned_at": now.ms}
        own["all_needs"] = self.all_needs
        return own | _what(self.job) | options_values(self.options, self.timing)


def _add(connection: sa.Connection, woken: Woken, new: Sequence[_New], now: Instant) -> list[int]:
    """Add jobs whose platforms are known and whose names are free, in as few statements as there may be; return their ids."""
    if not new:
        return []
    _note_earlier(connection, woken, min(each.timing.next_run for each in new))
    connection.execute(sa.insert(job), [each.values(now) for each in new])
    needed.check(connection, (each.all_needs for each in new))
    ids = _ids(connection, [each.job.name for each in new])
    for each in new:
        if each.options.after:
            dependencies.replace(connection, ids[each.job.name], each.options.after)
        woken.note(What.SCHEDULED, job=each.job.name)
    return [ids[each.job.name] for each in new]


def _add_platform(connection: sa.Connection, woken: Woken, new: Job, now: Instant) -> None:
    """Make the platform of a job known, before the job: what is known then is queued there. Raises CommandRefused."""
    if isinstance(new, ScriptJob):
        if queues.is_dropped(connection, new.platform):
            raise CommandRefused("platform dropped; can't schedule jobs")
        queues.add_platform(connection, woken, new.platform, now)


def _platforms(connection: sa.Connection, of: Job) -> set[str]:
    return {of.platform} if isinstance(of, ScriptJob) else {*queues.platforms(connection)}


def change(
    connection: sa.Connection,
    woken: Woken,
    name: str,
    revision: int,
    options: JobOptions,
    new: Job | None,
    timing: Timing,
    now: Instant,
) -> None:
    """Change how a job is run, and with ``new`` what; builds of it and its queue entries stay. Raises CommandRefused."""
    _change(connection, woken, name, revision, options, new, timing, now)
    dependencies.check_cycles(connection, name, options.after)


def _change(
    connection: sa.Connection,
    woken: Woken,
    name: str,
    revision: int,
    options: JobOptions,
    new: Job | None,
    timing: Timing,
    now: Instant,
) -> None:
    found = _seen(connection, name, revision)
    values = options_values(options, timing) | {"revision": revision + 1}
    if new is not None:
        _add_platform(connection, woken, new, now)
        values |= _what(new)
        if isinstance(new, ScriptJob):
            queues.leave_others(connection, woken, found.id, new.platform)
    all_needs = needed.all_of(new or to_job(found), options)
    values["all_needs"] = all_needs
    before = to_options(found)
    if _rule_of(options) != _rule_of(before):
        _note_earlier(connection, woken, timing.next_run)
        values |= {"next_run": timing.next_run.ms, "planned_at": now.ms}
    connection.execute(sa.update(job).where(job.c.id == found.id).values(values))
    if all_needs != found.all_needs:
        needed.check(connection, [all_needs])
        queues.need_again(connection, woken, found.id, all_needs)
    is_after_others = dependencies.replace(connection, found.id, options.after)
    queues.rank_again(connection, found.id, options.priority)
    woken.note(What.SCHEDULED, job=name)
    resumed = before.paused and not options.paused
    if resumed:
        woken.work |= {(there, all_needs) for there in _platforms(connection, new or to_job(found))}
    if options.after and (resumed or is_after_others):
        dependencies.queue_ready(connection, woken, found.id, now, options.after[0].name)


class Tried(Exception):
    """A request that was only tried would be done."""


def apply(
    connection: sa.Connection,
    woken: Woken,
    request: Apply,
    timings: Mapping[str, Timing],
    now: Instant,
    limits: ServerLimits,
    *,
    keep: bool,
) -> None:
    """Remove, change and add jobs; ``timings`` are those of the latter two.

    Raises CommandRefused, and without ``keep`` Tried.
    """
    for each in request.removed:
        _seen(connection, each.name, each.revision)
        remove(connection, woken, each.name)
    new = {each.job.platform: each.job for each in reversed(request.added) if isinstance(each.job, ScriptJob)}
    for job_of_platform in new.values():
        with about_job(job_of_platform.name):
            _add_platform(connection, woken, job_of_platform, now)
    taken = _taken(connection, [each.job.name for each in request.added])
    if taken is not None:
        with about_job(taken):
            raise CommandRefused(_TAKEN)
    added = []
    for plan in request.added:
        with about_job(plan.job.name):
            added.append(_New(job=plan.job, options=plan.options, timing=timings[plan.job.name]))
    ids = _add(connection, woken, added, now)
    if added:
        _check_room(connection, limits.jobs)
    at_once = [job_id for job_id, each in zip(ids, request.added, strict=True) if each.run_now]
    queues.enqueue_new(connection, woken, at_once, due=now)
    queues.check_room(connection, woken, limits)
    for changed in request.changed:
        timing = timings[changed.name]
        with about_job(changed.name):
            _change(connection, woken, changed.name, changed.revision, changed.options, changed.job, timing, now)
    # last: on the way there may be cycles that do not stay
    for name, options in (
        *((each.job.name, each.options) for each in request.added),
        *((each.name, each.options) for each in request.changed),
    ):
        if options.after:
            with about_job(name):
                dependencies.check_cycles(connection, name, options.after)
    if not keep:
        raise Tried


_PAGE = sa.select(job).order_by(job.c.name).limit(MAX_LISTED)
_NEXT_PAGE = _PAGE.where(job.c.name > sa.bindparam("after"))


def page(connection: sa.Connection, after: str | None) -> tuple[ListedJob, ...]:
    """Return the next jobs by their names; of their scripts only one is in memory at a time."""
    statement, values = (_PAGE, {}) if after is None else (_NEXT_PAGE, {"after": after})
    rows = connection.execute(statement, values, execution_options={"yield_per": 1})
    return tuple(
        ListedJob(
            job=_listed(to_job(row)),
            options=to_options(row, dependencies.all_of(connection, row.id)),
            revision=row.revision,
        )
        for row in rows
    )


def _listed(found: Job) -> ListedScript | OrbBuildJob:
    if isinstance(found, OrbBuildJob):
        return found
    sha256 = hashlib.sha256(found.script).digest()
    return ListedScript(name=found.name, platform=found.platform, sha256=sha256)


def _rule_of(options: JobOptions) -> object:
    """Return what the next run of a job follows from."""
    return options.cron or (options.runs_every, options.spread)


def show(connection: sa.Connection, name: str) -> PlannedJob:
    """Return a job. Raises CommandRefused."""
    found = _find(connection, name)
    return PlannedJob(
        job=to_job(found),
        options=to_options(found, dependencies.all_of(connection, found.id)),
        revision=found.revision,
        next_run=Instant(found.next_run),
        queued_on=tuple(connection.scalars(_QUEUED_ON, {"wanted": found.id})),
        awaited=dependencies.unmet_of(connection, found.id),
    )


def script_size(connection: sa.Connection, name: str) -> int:
    """Return the bytes of the script of a job, 0 if it has none."""
    return connection.scalar(_SCRIPT_SIZE, {"job_name": name}) or 0


def _find(connection: sa.Connection, name: str) -> Any:
    """Return the row of a job. Raises CommandRefused."""
    found = connection.execute(_FIND, {"job_name": name}).one_or_none()
    if found is None:
        raise CommandRefused(f"unknown job {name}")
    return found


def _seen(connection: sa.Connection, name: str, revision: int) -> Any:
    """Return the row of a job, as it was seen in that revision. Raises CommandRefused."""
    found = _find(connection, name)
    if found.revision != revision:
        raise CommandRefused(f"{name} was changed meanwhile: look at it again, and repeat what you want of it")
    return found


def remove(connection: sa.Connection, woken: Woken, name: str) -> None:
    """Remove a job from the schedule and all queues. Raises CommandRefused."""
    if connection.execute(sa.delete(job).where(job.c.name == name)).rowcount == 0:
        raise CommandRefused(f"unknown job {name}")
    woken.note(What.REMOVED, job=name)


def reschedule(connection: sa.Connection, woken: Woken, name: str, next_run: Instant, period: Period | None) -> None:
    """Set a job's next run, and its period if given. Raises CommandRefused."""
    _note_earlier(connection, woken, next_run)
    values: dict[str, object] = {"next_run": next_run.ms, "planned_at": None, "revision": job.c.revision + 1}
    if period is not None:
        values |= {"period": period.value, "own_period": period.value, "cron": None, "zone": None}
    if connection.execute(sa.update(job).where(job.c.name == name).values(values)).rowcount == 0:
        raise CommandRefused(f"unknown job {name}")
    woken.note(What.SCHEDULED, job=name)


def execute(
    connection: sa.Connection,
    woken: Woken,
    name: str,
    on_platform: str | None,
    now: Instant,
    by: str,
    limits: ServerLimits,
    *,
    is_check: bool,
) -> None:
    """Move a job to the front of its queue, or of one platform's, or of all; ``by`` is who wants it. Raises CommandRefused.

    ``is_check``: it runs twice, and the artifacts are compared.
    """
    found = connection.execute(_FIND, {"job_name": name}).one_or_none()
    if found is None:
        raise CommandRefused("execute failed: job not found")
    if found.paused:
        raise CommandRefused("execute failed: the job is paused; resume it first")
    if found.platform is not None and on_platform not in (None, found.platform):
        raise CommandRefused(f"execute failed: job is for a different platform: {found.platform}")
    wanted = found.platform or on_platform
    if wanted is not None and queues.is_dropped(connection, wanted) is not False:
        raise CommandRefused("execute failed: no such platform")
    names = queues.platforms(connection) if wanted is None else [wanted]
    check_of = "" if is_check else None
    queues.move_to_front(
        connection, woken, names, found.id, due=now, cause=Cause.EXECUTED, cause_of=by, check_of=check_of
    )
    queues.check_room(connection, woken, limits)


def queue_due(connection: sa.Connection, woken: Woken, now: Instant, missed_before: Instant | None) -> Due:
    """Queue every job whose time has come, set its next run; put back the runs that a clock that was ahead has planned.

    What was drained for a time gets jobs again. Runs of up to ``missed_before`` were due while nobody looked; None: no such ones.
    """
    returned = _put_back(connection, woken, now)
    due = connection.execute(_DUE, {"now": now.ms}).all()
    if due:
        for name in {row.platform for row in due if row.platform is not None}:
            queues.ensure_platform(connection, woken, name, now)  # an imported job may have come without its queue
        queues.enqueue_due(connection, woken, now, missed_before)
        _set_next_runs(connection, due, now)
    found = earliest(connection), queues.ripen(connection, woken, now), halts.expire(connection, woken, now)
    following = [moment for moment in found if moment is not None]
    return Due(next_run=min(following, default=None), put_back=returned)


def _put_back(connection: sa.Connection, woken: Woken, now: Instant) -> tuple[str, ...]:
    """Plan anew what was planned by a clock that was ahead of this one; return the jobs whose run is another then."""
    latest = latest_plan(now)
    if latest is None:
        return ()
    queues.put_back(connection, woken, now, latest)
    rows = connection.execute(sa.select(*_OF_RULE).where(job.c.planned_at > latest.ms)).all()
    before = {row.name: row.next_run for row in rows}
    following = _set_next_runs(connection, rows, now)
    return tuple(name for name, run in following.items() if run.ms != before[name])


def earliest(connection: sa.Connection) -> Instant | None:
    """Return the earliest next run of all jobs."""
    found = connection.scalar(_EARLIEST)
    return None if found is None else Instant(found)


def _note_earlier(connection: sa.Connection, woken: Woken, next_run: Instant) -> None:
    if not woken.schedule:
        first = earliest(connection)
        woken.schedule = first is None or next_run < first


def _set_next_runs(connection: sa.Connection, rows: Sequence[Any], now: Instant) -> dict[str, Instant]:
    """Plan the next run of jobs, and return them by their names."""
    following = {row.id: to_rule(row).next_after(row.name, Instant(row.next_run), now) for row in rows}
    if rows:
        values = [{"changed": id_, "following": run.ms, "at": now.ms} for id_, run in following.items()]
        connection.execute(_SET_NEXT_RUN, values)
    return {row.name: following[row.id] for row in rows}
