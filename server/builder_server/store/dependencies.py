"""Which jobs wait for the success of which others. Each function is a part of a step.

On a platform a job runs when each of those that it waits for has succeeded since it ran there last. Where an orb build
waits for another one, only a success on that platform counts; any other success counts on all platforms, since it comes
from a job, or a platform, that was named. So an orb build goes on platform by platform, however many it waits for.

A dependency says whether it is met on all platforms, and rows of ``met_there`` say where it is otherwise: not met any more
where an orb build has run since, or met there alone.

A job is named by its name, and not by its row: it may leave the schedule and come back.
"""

from collections import deque
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from builder.history import Cause
from builder.model import Instant
from builder.planning import JobReference
from builder_server.errors import CommandRefused
from builder_server.store import queues
from builder_server.store.schema import dependency, job, met_there, platform
from builder_server.store.waking import Woken

_ANY = ""
"""The platform of one who waits for a success on any."""

MAX_UNMET = 1000
"""Most of them that are told: each platform may wait for others."""

_ALL = (
    sa.select(dependency)
    .where(dependency.c.job_id == sa.bindparam("wanted"))
    .order_by(dependency.c.on_job, dependency.c.on_platform)
)
_WAITED_FOR = (
    sa.select(dependency.c.on_job)
    .join(job, job.c.id == dependency.c.job_id)
    .where(job.c.name == sa.bindparam("waiting"))
)

_IS_WAITED_FOR = sa.select(dependency.c.job_id).where(dependency.c.on_job == sa.bindparam("name")).limit(1)

_first = sa.alias(job)
_goes_along = sa.and_(
    job.c.platform.is_(None),
    dependency.c.on_platform == _ANY,
    sa.exists().where(_first.c.name == dependency.c.on_job, _first.c.platform.is_(None)),
)
"""Whether a dependency is one of an orb build on another, which is met on each platform by itself."""

_runs_there = sa.and_(sa.or_(job.c.platform == platform.c.name, job.c.platform.is_(None)), ~platform.c.dropped)


def _is_met(one: Any) -> sa.ColumnElement[bool]:
    """Return whether a dependency is met on a platform."""
    there = sa.select(met_there.c.is_met).where(
        met_there.c.job_id == one.c.job_id,
        met_there.c.on_job == one.c.on_job,
        met_there.c.on_platform == one.c.on_platform,
        met_there.c.platform == platform.c.name,
    )
    return sa.func.coalesce(there.correlate_except(met_there).scalar_subquery(), one.c.is_met)


_UNMET = (
    sa.select(dependency.c.on_job, sa.case((_goes_along, platform.c.name), else_=dependency.c.on_platform))
    .join(job, job.c.id == dependency.c.job_id)
    .outerjoin(platform, _runs_there)
    .where(dependency.c.job_id == sa.bindparam("wanted"), ~_is_met(dependency))
    .distinct()
    .order_by(sa.text("1"), sa.text("2"))
    .limit(MAX_UNMET)
)
_EACH = (dependency.c.job_id, dependency.c.on_job, dependency.c.on_platform)
_HAS_ANY = sa.select(sa.literal(1)).where(dependency.c.job_id == sa.bindparam("wanted")).limit(1)

_there = sa.bindparam("there", type_=platform.c.name.type)
_on_success = sa.and_(
    dependency.c.on_job == sa.bindparam("succeeded"),
    dependency.c.on_platform.in_([_ANY, _there]),
)
_its_job = job.c.id == dependency.c.job_id
_meets_there = sa.select(*_EACH).join(job, _its_job).where(_on_success, _goes_along)
_meets_all = sa.select(*_EACH).join(job, _its_job).where(_on_success, ~_goes_along)


def _among(table: sa.Table, found: sa.Select[Any]) -> sa.ColumnElement[bool]:
    return sa.tuple_(table.c.job_id, table.c.on_job, table.c.on_platform).in_(found)


_MEET = (
    sa.delete(met_there).where(_among(met_there, _meets_all)),
    sa.update(dependency).where(_among(dependency, _meets_all)).values(is_met=True),
    sa.delete(met_there).where(_among(met_there, _meets_there), met_there.c.platform == _there),
    sa.insert(met_there).from_select(
        ("job_id", "on_job", "on_platform", "platform", "is_met"), _meets_there.add_columns(_there, sa.true())
    ),
)
_BEGIN = (
    sa.update(dependency)
    .where(
        dependency.c.job_id == sa.bindparam("begun"),
        sa.exists().where(_its_job, job.c.platform.is_not(None)),
    )
    .values(is_met=False),
    sa.delete(met_there).where(met_there.c.job_id == sa.bindparam("begun"), met_there.c.platform == _there),
    sa.insert(met_there).from_select(
        ("job_id", "on_job", "on_platform", "platform", "is_met"),
        sa.select(*_EACH, _there, sa.false()).where(dependency.c.job_id == sa.bindparam("begun"), dependency.c.is_met),
    ),
)

_others = sa.alias(dependency)
_is_ready = sa.and_(~job.c.paused, ~sa.exists().where(_others.c.job_id == job.c.id, ~_is_met(_others)))
_READY = (
    sa.select(job.c.id, platform.c.name)
    .join(platform, _runs_there)
    .where(job.c.id == sa.bindparam("wanted"), sa.exists().where(dependency.c.job_id == job.c.id), _is_ready)
)
# distinct: so that it is looked for first, and not for each job of the schedule
_waiting = (
    sa.select(dependency.c.job_id, _goes_along.label("goes_along"))
    .join(job, _its_job)
    .where(_on_success)
    .distinct()
    .subquery()
)
_READY_NOW = (
    sa.select(job.c.id, platform.c.name)
    .join_from(_waiting, job, job.c.id == _waiting.c.job_id)
    .join(platform, _runs_there)
    .where(sa.or_(~_waiting.c.goes_along, platform.c.name == _there), _is_ready)
    .distinct()
)


def all_of(connection: sa.Connection, job_id: int) -> tuple[JobReference, ...]:
    """Return those that a job waits for."""
    return _references((row.on_job, row.on_platform) for row in connection.execute(_ALL, {"wanted": job_id}))


def unmet_of(connection: sa.Connection, job_id: int) -> tuple[JobReference, ...]:
    """Return those of them that have not succeeded since it was queued last, or ran; with a platform where that matters."""
    return _references(connection.execute(_UNMET, {"wanted": job_id}))


def _references(rows: Iterable[Any]) -> tuple[JobReference, ...]:
    return tuple(JobReference(name=on_job, platform=on_platform or None) for on_job, on_platform in rows)


def replace(connection: sa.Connection, job_id: int, after: tuple[JobReference, ...]) -> bool:
    """Have a job wait for others than before, and return whether they are others; what they have done stays known.

    A cycle is noticed by ``check_cycles``, once all is as it shall be.
    """
    before = {*all_of(connection, job_id)}
    if gone := before - {*after}:
        connection.execute(
            sa.delete(dependency).where(
                dependency.c.job_id == job_id,
                dependency.c.on_job == sa.bindparam("gone"),
                dependency.c.on_platform == sa.bindparam("there"),
            ),
            [{"gone": each.name, "there": each.platform or _ANY} for each in gone],
        )
    if new := {*after} - before:
        connection.execute(
            sa.insert(dependency),
            [{"job_id": job_id, "on_job": each.name, "on_platform": each.platform or _ANY} for each in new],
        )
    return bool(gone or new)


def check_cycles(connection: sa.Connection, name: str, after: Iterable[JobReference]) -> None:
    """Raise CommandRefused if one of those that a job waits for waits for it, through any number of others."""
    if connection.scalar(_IS_WAITED_FOR, {"name": name}) is None:
        return  # nobody can lead back to it: most jobs are new, and those before them may be many
    came_from = {each.name: name for each in after}
    left = deque(came_from)
    while left:
        waiting = left.popleft()
        for on_job in connection.scalars(_WAITED_FOR, {"waiting": waiting}):
            if on_job == name:
                way = [waiting]
                while way[-1] != name:
                    way.append(came_from[way[-1]])
                raise CommandRefused(f"jobs would wait for each other: {' after '.join([*reversed(way), name])}")
            if on_job not in came_from:
                came_from[on_job] = waiting
                left.append(on_job)


def begin(connection: sa.Connection, job_id: int, on_platform: str) -> None:
    """Have a job wait again for all that it waits for, since it runs on a platform now, or will."""
    if connection.scalar(_HAS_ANY, {"wanted": job_id}) is not None:
        for statement in _BEGIN:
            connection.execute(statement, {"begun": job_id, "there": on_platform})


def meet(connection: sa.Connection, woken: Woken, name: str, on_platform: str, now: Instant) -> None:
    """Note that a job has succeeded on a platform, and queue the jobs that need nothing more, where they do."""
    if connection.scalar(_IS_WAITED_FOR, {"name": name}) is None:
        return
    succeeded = {"succeeded": name, "there": on_platform}
    for statement in _MEET:
        connection.execute(statement, succeeded)
    for job_id, where in connection.execute(_READY_NOW, succeeded).all():
        _queue(connection, woken, job_id, where, now, name)


def queue_ready(connection: sa.Connection, woken: Woken, job_id: int, now: Instant, last: str) -> None:
    """Queue a job where all that it waits for has succeeded, as it may have while it was paused; ``last`` is one of them."""
    for _, where in connection.execute(_READY, {"wanted": job_id}).all():
        _queue(connection, woken, job_id, where, now, last)


def _queue(connection: sa.Connection, woken: Woken, job_id: int, on_platform: str, now: Instant, last: str) -> None:
    cause = Cause.AFTER
    if queues.enqueue_job(connection, woken, job_id, on_platform=on_platform, due=now, cause=cause, cause_of=last):
        begin(connection, job_id, on_platform)
