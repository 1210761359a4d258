"""What the original has left: its state, taken over into an empty database, and records of builds."""

from collections.abc import Callable, Iterable, Sequence
from uuid import UUID

import sqlalchemy as sa

from builder import codec
from builder.history import Cause, outcome_of
from builder.model import DroppedPlatform, Queue, ScheduleItem, StateItem
from builder_server.store import artifacts, queues, schedule
from builder_server.store.ownership import IS_MINE
from builder_server.store.records import Build, StoredArtifact
from builder_server.store.schema import build, job, platform


def is_pristine(connection: sa.Connection) -> bool:
    """Return whether nothing was ever put in."""
    return not any(connection.execute(sa.select(table).limit(1)).first() for table in (job, platform, build))


def import_state(connection: sa.Connection, items: Sequence[StateItem]) -> None:
    """Take over what the original had stored; names must have been checked."""
    for item in items:
        match item:
            case DroppedPlatform(platform=name):
                queues.insert_platform(connection, name, dropped=True)
            case ScheduleItem():
                schedule.insert(connection, item)
    for item in items:
        if isinstance(item, Queue):
            queues.insert_platform(connection, item.platform, dropped=False)
            for waiting in item.jobs if not queues.is_dropped(connection, item.platform) else ():
                job_id = connection.scalar(sa.select(job.c.id).where(job.c.name == waiting.name))
                if job_id is not None:
                    queues.append_to_queue(connection, item.platform, job_id)


_NO_JOB = 0
"""The id of a job that is not in the schedule."""


def import_build(
    connection: sa.Connection,
    me: str,
    found: Build,
    batches: Callable[[], Iterable[Sequence[StoredArtifact]]],
    *,
    upload: bool,
) -> None:
    """Take over a build that has ended; ``batches`` returns its artifacts, each time anew."""
    assert found.result, "it has ended"
    assert found.finished, "it has ended"
    job_id = connection.scalar(sa.select(job.c.id).where(job.c.name == found.job.name))
    values = {
        "uuid": str(found.uuid),
        "owner": me,
        "job_id": _NO_JOB if job_id is None else job_id,
        "name": found.job.name,
        "platform": found.job.platform,
        "script": found.job.script,
        "state": found.state,
        "losses": found.losses,
        "started": found.started.ms,
        "finished": found.finished.ms,
        "result": codec.encode_result(found.result),
        "outcome": outcome_of(found.result).value,
        "cause": Cause.IMPORTED.value,
        "upload": "pending" if upload else None,
    }
    connection.execute(sa.insert(build), values)
    for batch in batches():
        artifacts.add(connection, found.uuid, batch)
    artifacts.note(connection, found.uuid, artifacts.conclude(connection, found.uuid))


def upload_imported(connection: sa.Connection, me: str, uuid: UUID) -> bool:
    """Have a build uploaded that was taken over, and is to go nowhere; return whether it is one."""
    found = build.c.uuid == str(uuid), build.c.cause == Cause.IMPORTED.value, build.c.upload.is_(None), IS_MINE
    return connection.execute(sa.update(build).where(*found).values(upload="pending"), {"me": me}).rowcount == 1
