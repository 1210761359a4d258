"""Which jobs wait for the success of which others. Each function is a part of a step.

A job is named by its name, and not by its row: it may leave the schedule and come back.
"""

from collections import deque
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from builder.planning import JobReference
from builder_server.errors import CommandRefused
from builder_server.store.schema import dependency, job

_ANY = ""
"""The platform of one who waits for a success on any."""

_ALL = (
    sa.select(dependency)
    .where(dependency.c.job_id == sa.bindparam("wanted"))
    .order_by(dependency.c.on_job, dependency.c.on_platform)
)
_UNMET = _ALL.where(~dependency.c.is_met)
_WAITED_FOR = (
    sa.select(dependency.c.on_job)
    .join(job, job.c.id == dependency.c.job_id)
    .where(job.c.name == sa.bindparam("waiting"))
)

_IS_WAITED_FOR = sa.select(dependency.c.job_id).where(dependency.c.on_job == sa.bindparam("name")).limit(1)

_MEET = (
    sa.update(dependency)
    .where(
        dependency.c.on_job == sa.bindparam("succeeded"), dependency.c.on_platform.in_([_ANY, sa.bindparam("there")])
    )
    .values(is_met=True)
)
_others = sa.alias(dependency)
_first = sa.alias(job)
_count = sa.select(sa.func.count()).where(_others.c.job_id == job.c.id).scalar_subquery()
# An orb build after another one alone is built where that has succeeded, and not everywhere for each success.
_goes_along = sa.and_(
    _count == 1,
    dependency.c.on_platform == _ANY,
    sa.exists().where(_first.c.name == dependency.c.on_job, _first.c.platform.is_(None)),
)
_READY = (
    sa.select(
        job.c.id, sa.case((sa.and_(job.c.platform.is_(None), _goes_along), sa.bindparam("there")), else_=job.c.platform)
    )
    .join(dependency, dependency.c.job_id == job.c.id)
    .where(
        dependency.c.on_job == sa.bindparam("succeeded"),
        ~job.c.paused,
        ~sa.exists().where(_others.c.job_id == job.c.id, ~_others.c.is_met),
    )
    .distinct()
)
_BEGIN_AGAIN = sa.update(dependency).where(dependency.c.job_id == sa.bindparam("ready")).values(is_met=False)


def all_of(connection: sa.Connection, job_id: int) -> tuple[JobReference, ...]:
    """Return those that a job waits for."""
    return _references(connection.execute(_ALL, {"wanted": job_id}))


def unmet_of(connection: sa.Connection, job_id: int) -> tuple[JobReference, ...]:
    """Return those of them that have not succeeded since it was queued last."""
    return _references(connection.execute(_UNMET, {"wanted": job_id}))


def _references(rows: Iterable[Any]) -> tuple[JobReference, ...]:
    return tuple(JobReference(name=row.on_job, platform=row.on_platform or None) for row in rows)


def replace(connection: sa.Connection, job_id: int, name: str, after: tuple[JobReference, ...]) -> None:
    """Have a job wait for others than before; of those that stay it is kept whether they have succeeded.

    Raises CommandRefused if one of them waits for this one, through any number of others.
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
        _check_cycles(connection, name, new)
        connection.execute(
            sa.insert(dependency),
            [{"job_id": job_id, "on_job": each.name, "on_platform": each.platform or _ANY} for each in new],
        )


def _check_cycles(connection: sa.Connection, name: str, after: Iterable[JobReference]) -> None:
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


def take_met(connection: sa.Connection, job_id: int) -> bool:
    """Return whether all that a job waits for has succeeded, as it may have while it was paused; it begins to wait again."""
    if not all_of(connection, job_id) or unmet_of(connection, job_id):
        return False
    connection.execute(_BEGIN_AGAIN, {"ready": job_id})
    return True


def meet(connection: sa.Connection, name: str, platform: str) -> dict[int, str | None]:
    """Note that a job has succeeded on a platform; return the jobs that have waited for that last, which begin to wait again.

    With each is the platform where it is to run; None: everywhere.
    """
    succeeded = {"succeeded": name, "there": platform}
    connection.execute(_MEET, succeeded)
    ready: dict[int, str | None] = dict(connection.execute(_READY, succeeded).all())
    if ready:
        connection.execute(_BEGIN_AGAIN, [{"ready": job_id} for job_id in ready])
    return ready
