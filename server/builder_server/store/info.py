"""What clients are told of everything. Each function is a step that reads."""

from typing import Any

import sqlalchemy as sa

from builder.messages import InfoReply
from builder.model import Job, Queue, RunningBuild
from builder_server.store import queues
from builder_server.store.records import to_build, to_schedule_item
from builder_server.store.schema import build, job, platform, queue

_ENTRY = 200
"""Bytes that an entry of any list takes besides its script, while a reply is made."""


def _scripts(table: sa.Table) -> Any:
    """Return the bytes of all scripts of a table."""
    return sa.func.coalesce(sa.func.sum(sa.func.length(table.c.script)), 0)


def _count(table: sa.Table) -> Any:
    return sa.select(sa.func.count()).select_from(table).scalar_subquery()


_RUNS = build.c.state == "running"
_SIZE = sa.select(
    # once in the schedule, once in a queue
    2 * sa.select(_scripts(job)).scalar_subquery() + sa.select(_scripts(build)).where(_RUNS).scalar_subquery(),
    _count(job)
    + _count(queue)
    + _count(platform)
    + sa.select(sa.func.count()).select_from(build).where(_RUNS).scalar_subquery(),
)
_JOBS = sa.select(job).order_by(job.c.next_run, job.c.id)
_ENTRIES = sa.select(queue.c.platform, queue.c.job_id).order_by(queue.c.platform, queue.c.position, queue.c.id)
_RUNNING = sa.select(build).where(_RUNS).order_by(build.c.started)
_DROPPED = sa.select(platform.c.name).where(platform.c.dropped).order_by(platform.c.name)


def reply(connection: sa.Connection) -> InfoReply:
    """Return schedule, queues, running builds and dropped platforms, of one moment."""
    items = {row.id: to_schedule_item(row) for row in connection.execute(_JOBS)}
    waiting: dict[str, list[Job]] = {name: [] for name in queues.platforms(connection)}
    for name, job_id in connection.execute(_ENTRIES):
        waiting[name].append(items[job_id].job)
    return InfoReply(
        schedule=tuple(items.values()),
        queues=tuple(Queue(platform=name, jobs=tuple(jobs)) for name, jobs in waiting.items()),
        running=tuple(
            RunningBuild(started=found.started, uuid=found.uuid, job=found.job)
            for found in map(to_build, connection.execute(_RUNNING))
        ),
        dropped_platforms=tuple(connection.scalars(_DROPPED)),
    )


def reply_within(connection: sa.Connection, limit: int) -> tuple[int, InfoReply | None]:
    """Return about how many bytes it takes to make the reply, and the reply where these are no more than the limit.

    Most of it are scripts, which it repeats.
    """
    scripts, entries = connection.execute(_SIZE).one()
    size = int(2 * scripts + _ENTRY * entries)  # the reply, and what it is made of
    return size, reply(connection) if size <= limit else None
