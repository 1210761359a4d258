"""What clients are told of everything. Each function is a step that reads."""

from typing import Any

import sqlalchemy as sa

from builder.messages import InfoReply
from builder.model import Job, Queue, RunningBuild
from builder_server.store import queues
from builder_server.store.records import to_build, to_schedule_item
from builder_server.store.schema import build, job, platform, queue

_ENTRY = 200
"""Bytes that an entry of the schedule or of a queue takes besides its script, while a reply is made."""


def reply(connection: sa.Connection) -> InfoReply:
    """Return schedule, queues, running builds and dropped platforms, of one moment."""
    jobs = {row.id: row for row in connection.execute(sa.select(job).order_by(job.c.next_run, job.c.id))}
    items = {id_: to_schedule_item(row) for id_, row in jobs.items()}
    waiting: dict[str, list[Job]] = {name: [] for name in queues.platforms(connection)}
    entries = connection.execute(
        sa.select(queue.c.platform, queue.c.job_id).order_by(queue.c.platform, queue.c.position)
    )
    for row in entries:
        waiting[row.platform].append(items[row.job_id].job)
    running = connection.execute(sa.select(build).where(build.c.state == "running").order_by(build.c.started))
    dropped = connection.scalars(sa.select(platform.c.name).where(platform.c.dropped).order_by(platform.c.name))
    return InfoReply(
        schedule=tuple(items.values()),
        queues=tuple(Queue(platform=name, jobs=tuple(jobs_)) for name, jobs_ in waiting.items()),
        running=tuple(
            RunningBuild(started=found.started, uuid=found.uuid, job=found.job) for found in map(to_build, running)
        ),
        dropped_platforms=tuple(dropped),
    )


def size(connection: sa.Connection) -> int:
    """Return about how many bytes it takes to make the reply: most of it are scripts, which it repeats."""
    statement = sa.select(
        # once in the schedule, once in a queue
        2 * sa.select(_scripts(job)).scalar_subquery()
        + sa.select(_scripts(build)).where(build.c.state == "running").scalar_subquery(),
        sa.select(sa.func.count()).select_from(job).scalar_subquery()
        + sa.select(sa.func.count()).select_from(queue).scalar_subquery(),
    )
    scripts, entries = connection.execute(statement).one()
    return int(2 * scripts + _ENTRY * entries)  # the reply, and what it is made of


def _scripts(table: sa.Table) -> Any:
    """Return the bytes of all scripts of a table."""
    return sa.func.coalesce(sa.func.sum(sa.func.length(table.c.script)), 0)
