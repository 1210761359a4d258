"""The state of the original, taken over into an empty database."""

from collections.abc import Sequence

import sqlalchemy as sa

from builder.model import DroppedPlatform, Queue, ScheduleItem, StateItem
from builder_server.store import queues, schedule
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
