"""Platforms and their queues, as statements that the changes of the store are made of.

They are standard SQL, so that any database takes them: what is there already is left out by ``NOT EXISTS``. They touch
all queues at once, since there may be hundreds of thousands of entries.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from builder.model import Instant
from builder_server.errors import CommandRefused
from builder_server.store.schema import job, platform, queue
from builder_server.store.waking import Woken

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


def ensure_platform(connection: sa.Connection, name: str) -> bool:
    """Create the queue of a platform that is new, with every job that can run there; return whether it was."""
    created = insert_platform(connection, name, dropped=False)
    if created:
        connection.execute(_ENQUEUE_ALL, {"name": name})
    return created


def add_platform(connection: sa.Connection, name: str) -> None:
    """Create the queue of a platform that is new, with every job that can run there. Raises CommandRefused for too many."""
    if ensure_platform(connection, name) and len(platforms(connection)) > MAX_PLATFORMS:
        raise CommandRefused(f"there are {MAX_PLATFORMS} platforms already; drop one that is not in use")


def drop_platform(connection: sa.Connection, name: str) -> None:
    """Ban a platform: its queue goes, and its script jobs leave the schedule. Raises CommandRefused."""
    if is_dropped(connection, name) is not False:
        raise CommandRefused(f"unknown platform {name}")
    connection.execute(sa.delete(queue).where(queue.c.platform == name))
    connection.execute(sa.delete(job).where(job.c.platform == name))
    connection.execute(sa.update(platform).where(platform.c.name == name).values(dropped=True))


def undrop_platform(connection: sa.Connection, woken: Woken, name: str) -> None:
    """Lift a ban: the platform is unknown until somebody asks for it. Raises CommandRefused."""
    lifted = sa.delete(platform).where(platform.c.name == name, platform.c.dropped)
    if connection.execute(lifted).rowcount == 0:
        raise CommandRefused(f"unknown platform {name}")
    woken.platforms.add(name)


def _end(end: Any) -> Any:
    """Return the first or last position of the queue of a platform."""
    entry = sa.alias(queue)
    position = sa.select(sa.func.coalesce(end(entry.c.position), 0)).where(entry.c.platform == platform.c.name)
    return position.scalar_subquery()


def _is_queued(job_id: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    """Return whether a job is in the queue of a platform."""
    entry = sa.alias(queue)
    return sa.exists().where(entry.c.platform == platform.c.name, entry.c.job_id == job_id)


def _insert(*entry: Any, where: Sequence[sa.ColumnElement[bool]]) -> sa.Insert:
    """Return an insert of queue entries; ``entry`` is platform, job, position and losses."""
    return sa.insert(queue).from_select(("platform", "job_id", "position", "losses"), sa.select(*entry).where(*where))


# What is made once costs a command less: to build a statement takes longer than to run it.
_MOVED = sa.bindparam("moved", type_=queue.c.job_id.type)
_NAMES: sa.BindParameter[str] = sa.bindparam("names", expanding=True)
_LOST = sa.bindparam("lost", type_=queue.c.losses.type)
_others = sa.alias(queue)
_first = sa.select(sa.func.min(_others.c.position) - 1).where(_others.c.platform == queue.c.platform)
_MOVE = (
    sa.update(queue)
    .where(queue.c.job_id == _MOVED, queue.c.platform.in_(_NAMES))
    .values(position=_first.scalar_subquery(), losses=sa.func.coalesce(_LOST, queue.c.losses))
)
_ENTER_FIRST = _insert(
    platform.c.name,
    _MOVED,
    _end(sa.func.min) - 1,
    sa.func.coalesce(_LOST, 0),
    where=(platform.c.name.in_(_NAMES), ~_is_queued(_MOVED)),
)
_ENTER_LAST = _insert(
    platform.c.name,
    _MOVED,
    _end(sa.func.max) + 1,
    sa.literal(0),
    where=(platform.c.name == sa.bindparam("name"), ~_is_queued(_MOVED)),
)


def _enqueue(which: sa.ColumnElement[bool]) -> sa.Insert:
    """Append jobs to the queues of the platforms that can run them, unless they are there already."""
    place = sa.func.row_number().over(partition_by=platform.c.name, order_by=(job.c.next_run, job.c.id))
    can_run = sa.or_(job.c.platform == platform.c.name, job.c.platform.is_(None))
    where = (can_run, ~platform.c.dropped, ~_is_queued(job.c.id), which)
    return _insert(platform.c.name, job.c.id, _end(sa.func.max) + place, sa.literal(0), where=where)


_ENQUEUE_JOB = _enqueue(job.c.id == _MOVED)
_ENQUEUE_DUE = _enqueue(job.c.next_run <= sa.bindparam("now"))
_ENQUEUE_ALL = _enqueue(platform.c.name == sa.bindparam("name"))


def enqueue_job(connection: sa.Connection, job_id: int) -> None:
    """Append a job to the queue of its platform, an orb-build job to every queue, unless it is there already."""
    connection.execute(_ENQUEUE_JOB, {"moved": job_id})


def enqueue_due(connection: sa.Connection, now: Instant) -> None:
    """The same for all jobs that are due; what was due first goes first."""
    connection.execute(_ENQUEUE_DUE, {"now": now.ms})


def append_to_queue(connection: sa.Connection, name: str, job_id: int) -> None:
    """Put a job at the end of a queue, unless it is there already."""
    connection.execute(_ENTER_LAST, {"name": name, "moved": job_id})


def move_to_front(connection: sa.Connection, names: Sequence[str], job_id: int, *, losses: int | None = None) -> None:
    """Put a job at the front of queues, wherever it was; ``losses`` are set where they are given."""
    values = {"names": names, "moved": job_id, "lost": losses}
    if connection.execute(_MOVE, values).rowcount < len(names):
        connection.execute(_ENTER_FIRST, values)
