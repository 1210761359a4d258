"""Platforms and their queues, as statements that the changes of the store are made of.

They are standard SQL, so that any database takes them: what is there already is left out by ``NOT EXISTS``. All but
one touch all queues at once, since there may be hundreds of thousands of entries.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from builder_server.errors import CommandRefused
from builder_server.store.schema import job, platform, queue
from builder_server.store.waking import Woken

MAX_PLATFORMS = 1000
"""Most platforms: a worker may name any, and every orb-build job joins the queue of each."""

_ENTRY = ("platform", "job_id", "position", "losses")


def platforms(connection: sa.Connection) -> list[str]:
    """Return the names of all platforms that are not dropped."""
    return list(connection.scalars(sa.select(platform.c.name).where(~platform.c.dropped).order_by(platform.c.name)))


def is_dropped(connection: sa.Connection, name: str) -> bool | None:
    """Return whether a platform is banned, and None for one that is unknown."""
    found: bool | None = connection.scalar(sa.select(platform.c.dropped).where(platform.c.name == name))
    return found


def insert_platform(connection: sa.Connection, name: str, *, dropped: bool) -> bool:
    """Insert a platform that is new; return whether it was."""
    if is_dropped(connection, name) is not None:
        return False
    connection.execute(sa.insert(platform).values(name=name, dropped=dropped))
    return True


def ensure_platform(connection: sa.Connection, name: str) -> bool:
    """Create the queue of a platform that is new, with every job that can run there; return whether it was."""
    created = insert_platform(connection, name, dropped=False)
    if created:
        enqueue(connection, platform.c.name == name)
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


def enqueue(connection: sa.Connection, which: sa.ColumnElement[bool]) -> None:
    """Append jobs to the queue of their platform, orb-build jobs to every queue, unless they are there already.

    The job that is due first goes first.
    """
    place = sa.func.row_number().over(partition_by=platform.c.name, order_by=(job.c.next_run, job.c.id))
    entries = sa.select(platform.c.name, job.c.id, _end(sa.func.max) + place, sa.literal(0)).where(
        sa.or_(job.c.platform == platform.c.name, job.c.platform.is_(None)),
        ~platform.c.dropped,
        ~_is_queued(job.c.id),
        which,
    )
    connection.execute(sa.insert(queue).from_select(_ENTRY, entries))


def append_to_queue(connection: sa.Connection, name: str, job_id: int) -> None:
    """Put a job at the end of a queue, unless it is there already."""
    enter = sa.select(platform.c.name, sa.literal(job_id), _end(sa.func.max) + 1, sa.literal(0)).where(
        platform.c.name == name, ~_is_queued(sa.literal(job_id))
    )
    connection.execute(sa.insert(queue).from_select(_ENTRY, enter))


def move_to_front(connection: sa.Connection, names: Sequence[str], job_id: int, *, losses: int | None = None) -> None:
    """Put a job at the front of queues, wherever it was; ``losses`` are set where they are given."""
    others = sa.alias(queue)
    first = sa.select(sa.func.min(others.c.position) - 1).where(others.c.platform == queue.c.platform)
    values: dict[str, object] = {"position": first.scalar_subquery()}
    if losses is not None:
        values["losses"] = losses
    moved = sa.update(queue).where(queue.c.job_id == job_id, queue.c.platform.in_(names)).values(values)
    if connection.execute(moved).rowcount < len(names):
        enter = sa.select(platform.c.name, sa.literal(job_id), _end(sa.func.min) - 1, sa.literal(losses or 0)).where(
            platform.c.name.in_(names), ~_is_queued(sa.literal(job_id))
        )
        connection.execute(sa.insert(queue).from_select(_ENTRY, enter))


def _end(end: Any) -> Any:
    """Return the first or last position of the queue of a platform."""
    entry = sa.alias(queue)
    position = sa.select(sa.func.coalesce(end(entry.c.position), 0)).where(entry.c.platform == platform.c.name)
    return position.scalar_subquery()


def _is_queued(job_id: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    """Return whether a job is in the queue of a platform."""
    entry = sa.alias(queue)
    return sa.exists().where(entry.c.platform == platform.c.name, entry.c.job_id == job_id)
