"""Builds from a queue to the history. Each function is a step."""

from collections.abc import Callable
from uuid import UUID

import sqlalchemy as sa

from builder import codec
from builder.model import Instant, OrbBuildJob, Result, ScriptJob
from builder_server.scheduler import MAX_LOSSES
from builder_server.store import queues
from builder_server.store.records import AfterLoss, Build, Taken, to_build, to_job
from builder_server.store.schema import build, job, queue
from builder_server.store.waking import Woken

Expand = Callable[[OrbBuildJob], ScriptJob | None]
"""Makes the script of an orb-build job; None where that can't be one."""

_FIRST = (
    sa.select(queue.c.id.label("entry"), queue.c.position, queue.c.losses, job)
    .join(job, job.c.id == queue.c.job_id)
    .where(queue.c.platform == sa.bindparam("wanted"))
    .order_by(queue.c.position)
    .limit(1)
)
_NEXT = _FIRST.where(queue.c.position > sa.bindparam("after"))
_NEXT_SCRIPT = _NEXT.where(job.c.platform.is_not(None))
_FIND = sa.select(build).where(build.c.uuid == sa.bindparam("wanted"))

_END = sa.update(build).where(build.c.uuid == sa.bindparam("ended"), build.c.state == "running")


def take(
    connection: sa.Connection, owner: str, platform: str, uuid: UUID, now: Instant, expand: Expand | None
) -> Taken:
    """Turn the first job of a queue that can run into a running build, creating the queue of a new platform."""
    match queues.is_dropped(connection, platform):
        case True:
            return Taken()
        case None:
            queues.add_platform(connection, platform)
    row = connection.execute(_FIRST, {"wanted": platform}).one_or_none()
    blocked: str | None = None
    while row is not None:
        queued = to_job(row)
        script_job = queued if isinstance(queued, ScriptJob) else expand(queued) if expand else None
        if script_job is not None:
            connection.execute(sa.delete(queue).where(queue.c.id == row.entry))
            taken = Build(uuid=uuid, job=script_job, started=now, losses=row.losses)
            connection.execute(sa.insert(build), _values(taken) | {"job_id": row.id, "owner": owner})
            return Taken(build=taken, blocked=blocked)
        blocked = blocked or queued.name
        row = connection.execute(
            _NEXT if expand else _NEXT_SCRIPT, {"wanted": platform, "after": row.position}
        ).one_or_none()
    return Taken(blocked=blocked)


def _values(taken: Build) -> dict[str, object]:
    return {
        "uuid": str(taken.uuid),
        "name": taken.job.name,
        "platform": taken.job.platform,
        "script": taken.job.script,
        "state": taken.state,
        "losses": taken.losses,
        "started": taken.started.ms,
    }


def finish(connection: sa.Connection, uuid: UUID, now: Instant, result: Result, *, upload: bool) -> bool:
    """Record the result of a running build; return False, and change nothing, if it does not run any more."""
    return _end(connection, uuid, now, result, state="finished", upload="pending" if upload else None)


def lose(
    connection: sa.Connection, woken: Woken, uuid: UUID, now: Instant, result: Result, *, count: bool
) -> AfterLoss:
    """Take a running build from its worker: the job returns to the front of its queue."""
    found = connection.execute(
        sa.select(build.c.job_id, build.c.platform, build.c.losses, job.c.id.label("scheduled"))
        .outerjoin(job, job.c.id == build.c.job_id)
        .where(build.c.uuid == str(uuid), build.c.state == "running")
    ).one_or_none()
    if found is None:
        return AfterLoss.NOT_RUNNING
    losses = found.losses + (1 if count else 0)
    if losses >= MAX_LOSSES:
        return AfterLoss.TOO_MANY
    _end(connection, uuid, now, result, state="lost")
    if found.scheduled is not None and queues.is_dropped(connection, found.platform) is False:
        queues.move_to_front(connection, [found.platform], found.job_id, losses=losses)
        woken.platforms.add(found.platform)
    return AfterLoss.PUT_BACK


def _end(
    connection: sa.Connection, uuid: UUID, now: Instant, result: Result, *, state: str, upload: str | None = None
) -> bool:
    values = {
        "ended": str(uuid),
        "state": state,
        "finished": now.ms,
        "result": codec.encode_result(result),
        "upload": upload,
    }
    return connection.execute(_END, values).rowcount == 1


def running(connection: sa.Connection, owner: str) -> tuple[UUID, ...]:
    """Return the builds of an owner that are recorded as running, and those of no owner, the oldest first."""
    theirs = sa.or_(build.c.owner == owner, build.c.owner.is_(None))
    found = sa.select(build.c.uuid).where(build.c.state == "running", theirs).order_by(build.c.started)
    return tuple(UUID(uuid) for uuid in connection.scalars(found))


def find(connection: sa.Connection, uuid: UUID) -> Build | None:
    """Return a build of any state."""
    row = connection.execute(_FIND, {"wanted": str(uuid)}).one_or_none()
    return None if row is None else to_build(row)
