"""Platforms and their queues, as statements that the changes of the store are made of.

They are standard SQL, so that any database takes them: what is there already is left out by ``NOT EXISTS``. They touch
all queues at once, since there may be hundreds of thousands of entries.
"""

import datetime as dt
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from attrs import frozen
from sqlalchemy.sql.dml import ReturningInsert

from builder.extension.watching import What
from builder.history import Cause, Skipped
from builder.model import Instant
from builder.planning import Missed
from builder_server.errors import CommandRefused
from builder_server.limits import ServerLimits
from builder_server.scheduler import AGING, backoff
from builder_server.store.schema import build, dependency, job, platform, queue, skipped
from builder_server.store.waking import Woken

RESERVED = 100
"""Platforms that no worker makes by naming them."""

MAX_PLATFORMS = 1000
"""Most platforms: a worker may name any, and every orb-build job joins the queue of each."""

_PLATFORMS = sa.select(platform.c.name).where(~platform.c.dropped).order_by(platform.c.name)
_IS_DROPPED = sa.select(platform.c.dropped).where(platform.c.name == sa.bindparam("name"))


def platforms(connection: sa.Connection) -> list[str]:
    """Return the names of all platforms that are not dropped."""
    return list(connection.scalars(_PLATFORMS))


def is_dropped(connection: sa.Connection, name: str) -> bool | None:
    """Return whether a platform is banned, and None for one that is unknown."""
    found: bool | None = connection.scalar(_IS_DROPPED, {"name": name})
    return found


def insert_platform(connection: sa.Connection, name: str, *, dropped: bool) -> bool:
    """Insert a platform that is new; return whether it was."""
    if is_dropped(connection, name) is not None:
        return False
    connection.execute(sa.insert(platform), {"name": name, "dropped": dropped})
    return True


def ensure_platform(connection: sa.Connection, woken: Woken, name: str, now: Instant) -> bool:
    """Create the queue of a platform that is new, with every job that can run there; return whether it was."""
    created = insert_platform(connection, name, dropped=False)
    if created:
        woken.note(What.SCHEDULED, platform=name)
        values = {"there": name, "due": now.ms, "cause": Cause.FIRST.value, "cause_of": None}
        _OF_PLATFORM.queue(connection, woken, values)
    return created


def add_platform(
    connection: sa.Connection, woken: Woken, name: str, now: Instant, *, is_for_worker: bool = False
) -> None:
    """Create the queue of a platform that is new, with every job that can run there. Raises CommandRefused for too many.

    Some are kept for those that somebody schedules a job for.
    """
    most = MAX_PLATFORMS - is_for_worker * RESERVED
    if ensure_platform(connection, woken, name, now) and len(platforms(connection)) > most:
        raise CommandRefused(f"there are {most} platforms already; drop one that is not in use")


def drop_platform(connection: sa.Connection, woken: Woken, name: str) -> None:
    """Ban a platform: its queue goes, and its script jobs leave the schedule. Raises CommandRefused."""
    if is_dropped(connection, name) is not False:
        raise CommandRefused(f"unknown platform {name}")
    connection.execute(sa.delete(queue).where(queue.c.platform == name))
    connection.execute(sa.delete(job).where(job.c.platform == name))
    connection.execute(sa.update(platform).where(platform.c.name == name).values(dropped=True))
    woken.note(What.REMOVED, platform=name)


def undrop_platform(connection: sa.Connection, woken: Woken, name: str) -> None:
    """Lift a ban: the platform is unknown until somebody asks for it. Raises CommandRefused."""
    lifted = sa.delete(platform).where(platform.c.name == name, platform.c.dropped)
    if connection.execute(lifted).rowcount == 0:
        raise CommandRefused(f"unknown platform {name}")
    woken.platforms.add(name)
    woken.note(What.SCHEDULED, platform=name)


def _is_queued(job_id: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    """Return whether a job is in the queue of a platform."""
    entry = sa.alias(queue)
    return sa.exists().where(entry.c.platform == platform.c.name, entry.c.job_id == job_id)


def _is_running(job_id: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    """Return whether a job runs on a platform."""
    return sa.exists().where(build.c.state == "running", build.c.job_id == job_id, build.c.platform == platform.c.name)


# as text: SQLAlchemy leaves out the names of tables within RETURNING, and there are two ids
_NAME = sa.literal_column("(SELECT job.name FROM job WHERE job.id = queue.job_id)", sa.Text)
_ENTRY = (_NAME.label("name"), queue.c.platform, queue.c.needs, queue.c.not_before)
"""What a change of entries returns for those who watch, and for workers that wait."""

_Entry = tuple[str, str, str, int | None]

_COLUMNS = (
    "platform", "job_id", "position", "losses", "due", "cause", "cause_of", "retry", "not_before", "check_of", "needs",
)  # fmt: skip


def _insert(*entry: Any, where: Sequence[sa.ColumnElement[bool]]) -> ReturningInsert[_Entry]:
    """Return an insert of queue entries; ``entry`` has the columns above."""
    return sa.insert(queue).from_select(_COLUMNS, sa.select(*entry).where(*where)).returning(*_ENTRY)


_BEFORE_ALL = -(2**62)
"""A time before all others: beside null everything would be unknown."""

_FRONT = -(2**60)
"""Entries before this position were put to the front; the others have the ``rank`` of their job."""

# What is made once costs a command less: to build a statement takes longer than to run it.
_MOVED = sa.bindparam("moved", type_=queue.c.job_id.type)
_NAMES: sa.BindParameter[str] = sa.bindparam("names", expanding=True)
_LOST = sa.bindparam("lost", type_=queue.c.losses.type)
_DUE = sa.bindparam("due", type_=queue.c.due.type)
_CAUSE = sa.bindparam("cause", type_=queue.c.cause.type)
_CAUSE_OF = sa.bindparam("cause_of", type_=queue.c.cause_of.type)
_RETRY = sa.bindparam("retry", type_=queue.c.retry.type)
_NOT_BEFORE = sa.bindparam("not_before", type_=queue.c.not_before.type)
_CHECK_OF = sa.bindparam("check_of", type_=queue.c.check_of.type)
_NOW = sa.bindparam("now", type_=job.c.next_run.type)
_MISSED_BEFORE = sa.bindparam("missed_before", type_=job.c.next_run.type)
_NO_RETRY: Any = sa.literal(0)
_NEVER: Any = sa.false()


def _ms(length: dt.timedelta) -> int:
    return length // dt.timedelta(milliseconds=1)


def _first_of(name: sa.ColumnElement[str]) -> Any:
    others = sa.alias(queue)
    first = sa.func.coalesce(sa.func.min(others.c.position), _FRONT)
    before = sa.case((first < _FRONT, first), else_=_FRONT)
    return sa.select(before - 1).where(others.c.platform == name).scalar_subquery()


_MOVE = (
    sa.update(queue)
    .where(queue.c.job_id == _MOVED, queue.c.platform.in_(_NAMES))
    .values(
        position=_first_of(queue.c.platform),
        losses=sa.func.coalesce(_LOST, queue.c.losses),
        cause=_CAUSE,
        cause_of=_CAUSE_OF,
        retry=_RETRY,
        not_before=_NOT_BEFORE,
        check_of=_CHECK_OF,
    )
    .returning(*_ENTRY)
)
_NEEDED = sa.select(job.c.all_needs).where(job.c.id == _MOVED).scalar_subquery()
_ENTER_FIRST = _insert(
    platform.c.name, _MOVED, _first_of(platform.c.name), sa.func.coalesce(_LOST, 0), _DUE, _CAUSE, _CAUSE_OF, _RETRY,
    _NOT_BEFORE, _CHECK_OF, _NEEDED, where=(platform.c.name.in_(_NAMES), ~_is_queued(_MOVED)),
)  # fmt: skip
_last = sa.alias(queue)
_ENTER_LAST = _insert(
    platform.c.name, _MOVED,
    sa.select(sa.func.coalesce(sa.func.max(_last.c.position), 0) + 1)
    .where(_last.c.platform == platform.c.name).scalar_subquery(),
    sa.literal(0), sa.null(), sa.literal(Cause.DUE.value), sa.null(), sa.literal(0), sa.null(), sa.null(),
    _NEEDED, where=(platform.c.name == sa.bindparam("name"), ~_is_queued(_MOVED)),
)  # fmt: skip

_THERE = job.c.platform == platform.c.name
_ANYWHERE = job.c.platform.is_(None)
_IN_USE = sa.and_(~platform.c.dropped, ~job.c.paused)
_CAN_RUN = sa.and_(sa.or_(_THERE, _ANYWHERE), _IN_USE)
_EACH_WAY = (sa.and_(_THERE, _IN_USE), sa.and_(_ANYWHERE, _IN_USE))
"""The two halves of it. For many jobs one statement each: joined by OR, every job would be held against every platform."""


@frozen(kw_only=True)
class _Runs:
    """Runs that the server wants: ``enter`` puts them into queues, ``leave_out`` notes those that can't be now."""

    enter: ReturningInsert[_Entry]
    leave_out: sa.Insert

    def queue(self, connection: sa.Connection, woken: Woken, values: dict[str, Any]) -> list[sa.Row[_Entry]]:
        """Put jobs into queues, once each, and not while they run there; return the entries."""
        connection.execute(self.leave_out, values)
        entered = [*connection.execute(self.enter, values)]
        woken.note_entered(entered)
        return entered


def _runs(
    which: sa.ColumnElement[bool],
    *,
    due: Any = _DUE,
    cause: Any = _CAUSE,
    cause_of: Any = _CAUSE_OF,
    retry: Any = _NO_RETRY,
    not_before: Any = None,
    is_missed: Any = _NEVER,
    can_run: sa.ColumnElement[bool] = _CAN_RUN,
    in_order: bool = False,
) -> _Runs:
    """Return what queues jobs on the platforms that can run them; a run ``is_missed`` if it is to be left out for that."""
    entry = sa.select(
        platform.c.name, job.c.id, due - job.c.priority * AGING, sa.literal(0), due, cause, cause_of, retry,
        sa.null() if not_before is None else not_before, sa.null(), job.c.all_needs,
    )  # fmt: skip
    can_enter = sa.and_(~is_missed, ~_is_running(job.c.id), ~_is_queued(job.c.id))
    entering = entry.join_from(job, platform, can_run).where(which, can_enter)
    if in_order:  # of the same priority, those go first that were added first
        entering = entering.order_by(job.c.id)
    reason = sa.case((is_missed, Skipped.SERVER_DOWN.value), else_=Skipped.RUNNING.value)
    left_out = sa.select(job.c.name, platform.c.name, due, cause, cause_of, reason)
    leaving_out = left_out.join_from(job, platform, can_run).where(which, ~can_enter)
    return _Runs(
        enter=sa.insert(queue).from_select(_COLUMNS, entering).returning(*_ENTRY),
        leave_out=sa.insert(skipped).from_select(
            ("name", "platform", "due", "cause", "cause_of", "reason"), leaving_out
        ),
    )


_there = sa.bindparam("there", type_=platform.c.name.type)
_OF_JOB = _runs(sa.and_(job.c.id == _MOVED, sa.or_(_there.is_(None), platform.c.name == _there)))
_OF_NEW = _runs(job.c.id.in_(sa.bindparam("new", expanding=True)), in_order=True)
_RETRY_OF_JOB = _runs(sa.and_(job.c.id == _MOVED, platform.c.name == _there), retry=_RETRY, not_before=_NOT_BEFORE)
_OF_PLATFORM = _runs(sa.and_(platform.c.name == _there, ~sa.exists().where(dependency.c.job_id == job.c.id)))

_missed = job.c.next_run <= _MISSED_BEFORE
_DUE_RUNS = [
    _runs(
        job.c.next_run <= _NOW,
        due=job.c.next_run,
        cause=sa.case((_missed, Cause.MISSED.value), else_=Cause.DUE.value),
        cause_of=sa.null(),
        is_missed=sa.and_(_missed, job.c.missed == Missed.SKIP.value),
        can_run=can_run,
    )
    for can_run in _EACH_WAY
]


def enqueue_job(
    connection: sa.Connection,
    woken: Woken,
    job_id: int,
    *,
    due: Instant,
    cause: Cause,
    cause_of: str | None = None,
    on_platform: str | None = None,
) -> bool:
    """Put a job into the queue of its platform, an orb-build job into every queue or one; return whether it was."""
    values = {"moved": job_id, "due": due.ms, "cause": cause.value, "cause_of": cause_of, "there": on_platform}
    return bool(_OF_JOB.queue(connection, woken, values))


_AT_ONCE = 500
"""Jobs that are named in one statement."""


def enqueue_new(connection: sa.Connection, woken: Woken, job_ids: Sequence[int], *, due: Instant) -> None:
    """Put new jobs into the queues of all platforms that can run them."""
    for start in range(0, len(job_ids), _AT_ONCE):
        values = {"new": job_ids[start : start + _AT_ONCE], "due": due.ms, "cause": Cause.FIRST.value, "cause_of": None}
        _OF_NEW.queue(connection, woken, values)


def enqueue_retry(
    connection: sa.Connection,
    woken: Woken,
    job_id: int,
    name: str,
    *,
    due: Instant,
    retry: int,
    failed: str,
    not_before: Instant,
) -> None:
    """Put a job that has failed into the queue of a platform again; ``failed`` is the uuid of the attempt."""
    values = {"moved": job_id, "there": name, "due": due.ms, "retry": retry, "not_before": not_before.ms}
    _RETRY_OF_JOB.queue(connection, woken, values | {"cause": Cause.RETRY.value, "cause_of": failed})


def enqueue_due(connection: sa.Connection, woken: Woken, now: Instant, missed_before: Instant | None) -> None:
    """The same for all jobs that are due, each with the time at which it was."""
    values = {"now": now.ms, "missed_before": _BEFORE_ALL if missed_before is None else missed_before.ms}
    for runs in _DUE_RUNS:
        runs.queue(connection, woken, values)


def append_to_queue(connection: sa.Connection, name: str, job_id: int) -> None:
    """Put a job at the end of a queue, unless it is there already."""
    connection.execute(_ENTER_LAST, {"name": name, "moved": job_id})


def move_to_front(
    connection: sa.Connection,
    woken: Woken,
    names: Sequence[str],
    job_id: int,
    *,
    due: Instant,
    cause: Cause,
    cause_of: str | None = None,
    losses: int | None = None,
    retry: int = 0,
    not_before: Instant | None = None,
    check_of: str | None = None,
) -> None:
    """Put a job at the front of queues, wherever it was; ``losses`` are set where they are given.

    ``check_of`` is the build that the run is compared with, empty for one that is run to be compared.
    """
    values = {"names": names, "moved": job_id, "lost": losses, "cause": cause.value, "cause_of": cause_of}
    values |= {"retry": retry, "not_before": not_before and not_before.ms, "check_of": check_of}
    moved = connection.execute(_MOVE, values).all()
    woken.note_queued(moved)
    if len(moved) < len(names):
        woken.note_entered(connection.execute(_ENTER_FIRST, values | {"due": due.ms}).all())


_LENGTH = sa.select(sa.func.count()).select_from(
    sa.select(queue.c.id).where(queue.c.platform == sa.bindparam("wanted")).limit(sa.bindparam("most")).subquery()
)


def check_room(connection: sa.Connection, woken: Woken, limits: ServerLimits) -> None:
    """Raise CommandRefused if a queue has got more entries than it may have."""
    if limits.queue >= limits.jobs:
        return  # each job is in it once at most, so it need not be counted
    for name in sorted(woken.grown):
        if (connection.scalar(_LENGTH, {"wanted": name, "most": limits.queue + 1}) or 0) > limits.queue:
            raise CommandRefused(
                f"there are {limits.queue} entries in the queue of {name} already: dequeue one, or raise --max-queue of the server"
            )


_RANK_AGAIN = (
    sa.update(queue)
    .where(queue.c.job_id == _MOVED, queue.c.position > _FRONT, queue.c.due.is_not(None))
    .values(position=queue.c.due - sa.bindparam("priority", type_=job.c.priority.type) * AGING)
)


def rank_again(connection: sa.Connection, job_id: int, priority: int) -> None:
    """Give a job the place in its queues that its new priority has."""
    connection.execute(_RANK_AGAIN, {"moved": job_id, "priority": priority})


_NEED_AGAIN = (
    sa.update(queue)
    .where(queue.c.job_id == _MOVED, queue.c.needs != sa.bindparam("needed", type_=queue.c.needs.type))
    .values(needs=sa.bindparam("needed", type_=queue.c.needs.type))
    .returning(*_ENTRY)
)


def need_again(connection: sa.Connection, woken: Woken, job_id: int, needed: str) -> None:
    """Have the entries of a job need what it needs now."""
    woken.note_queued(connection.execute(_NEED_AGAIN, {"moved": job_id, "needed": needed}).all())


_ID_OF = sa.select(job.c.id).where(job.c.name == sa.bindparam("wanted"))


def remove_job(connection: sa.Connection, woken: Woken, name: str, on_platform: str | None) -> tuple[str, ...]:
    """Take a job from the queues, or from one; return the platforms that had it there. Raises CommandRefused."""
    job_id = connection.scalar(_ID_OF, {"wanted": name})
    if job_id is None:
        raise CommandRefused(f"unknown job {name}")
    wanted = sa.true() if on_platform is None else queue.c.platform == on_platform
    removed = connection.execute(sa.delete(queue).where(queue.c.job_id == job_id, wanted).returning(*_ENTRY)).all()
    if not removed:
        raise CommandRefused(f"{name} is in {'no queue' if on_platform is None else f'no queue of {on_platform}'}")
    woken.note_entries(What.REMOVED, removed)
    return tuple(sorted(row.platform for row in removed))


def leave_others(connection: sa.Connection, woken: Woken, job_id: int, name: str) -> None:
    """Take a job from the queues of all platforms but one."""
    others = sa.delete(queue).where(queue.c.job_id == job_id, queue.c.platform != name)
    woken.note_entries(What.REMOVED, connection.execute(others.returning(*_ENTRY)))


_LATEST = sa.bindparam("latest", type_=queue.c.due.type)
_AS_OF_NOW = (
    sa.update(queue)
    .where(queue.c.due > _LATEST)
    .values(
        due=_NOW,
        position=sa.case((queue.c.position > _FRONT, queue.c.position - (queue.c.due - _NOW)), else_=queue.c.position),
    )
    .returning(*_ENTRY)
)
_RETRIES_WITH_OWN_WAIT = 4
_wait = sa.case(
    *((queue.c.retry <= retry + 1, _ms(backoff(retry))) for retry in range(_RETRIES_WITH_OWN_WAIT)),
    else_=_ms(backoff(_RETRIES_WITH_OWN_WAIT)),
)
"""The longest time that an entry waits; the pause after losses is as short as that before the first retry."""

_WAIT_LESS = (
    sa.update(queue)
    .where(queue.c.not_before > _LATEST, queue.c.not_before - _wait > _LATEST)
    .values(not_before=_NOW + _wait)
    .returning(*_ENTRY)
)


def put_back(connection: sa.Connection, woken: Woken, now: Instant, latest: Instant) -> None:
    """Have entries that were queued by a clock that was ahead stand as if they were queued now.

    ``latest`` is the last moment at which one can have been queued if the clock was right.
    """
    for statement in (_AS_OF_NOW, _WAIT_LESS):
        woken.note_entries(What.QUEUED, connection.execute(statement, {"now": now.ms, "latest": latest.ms}))


_RIPEN = sa.update(queue).where(queue.c.not_before <= _NOW).values(not_before=None).returning(*_ENTRY)
_NEXT_RIPE = sa.select(sa.func.min(queue.c.not_before))


def ripen(connection: sa.Connection, woken: Woken, now: Instant) -> Instant | None:
    """Let entries run whose time has come; return when the next one's does."""
    woken.note_queued(connection.execute(_RIPEN, {"now": now.ms}).all())
    found = connection.scalar(_NEXT_RIPE)
    return None if found is None else Instant(found)
