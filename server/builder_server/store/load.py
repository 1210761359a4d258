"""How much there is to do, platform by platform: a step that reads, for those who look at a server again and again."""

import sqlalchemy as sa
from attrs import frozen

from builder.model import Instant
from builder_server.store import queues
from builder_server.store.schema import build, job, queue

_MAY_RUN = sa.and_(
    ~job.c.paused, sa.or_(queue.c.not_before.is_(None), queue.c.not_before <= sa.bindparam("now"))
).self_group()
_QUEUED = (
    sa.select(
        queue.c.platform,
        sa.func.count().label("entries"),
        sa.func.sum(sa.case((_MAY_RUN, 1), else_=0)).label("ready"),
        sa.func.min(sa.case((_MAY_RUN, queue.c.due))).label("oldest"),
    )
    .join(job, job.c.id == queue.c.job_id)
    .group_by(queue.c.platform)
)
_RUNNING = (
    sa.select(build.c.platform, sa.func.count().label("number"))
    .where(build.c.state == "running")
    .group_by(build.c.platform)
)


@frozen(kw_only=True)
class PlatformLoad:
    """What is queued and what runs. Entries that may run now are ``ready``, and not ``held`` by a pause or until a time.

    ``waited`` is for how long the oldest of them has been due, in milliseconds.
    """

    name: str
    ready: int = 0
    held: int = 0
    waited: int = 0
    running: int = 0


def read(connection: sa.Connection, now: Instant) -> tuple[PlatformLoad, ...]:
    """Return how much there is to do on each platform."""
    queued = {row.platform: row for row in connection.execute(_QUEUED, {"now": now.ms})}
    running = {row.platform: row.number for row in connection.execute(_RUNNING)}
    found = []
    for name in queues.platforms(connection):
        row = queued.get(name)
        found.append(
            PlatformLoad(
                name=name,
                ready=row.ready if row else 0,
                held=row.entries - row.ready if row else 0,
                waited=max(0, now.ms - row.oldest) if row and row.oldest is not None else 0,
                running=running.get(name, 0),
            )
        )
    return tuple(found)
