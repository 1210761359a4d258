"""The schedule, the queues, the builds and the pending uploads, as a database keeps them.

Nothing but this module, ``statements`` and ``database`` knows SQL. A method that changes something is one transaction,
and when it returns its change is on the disk. What can't be done is raised as Refused, whose text is the reply for the
client. What the disk does is StoreError.
"""

import enum
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from attrs import frozen
from sqlalchemy.dialects.sqlite import insert

from builder import codec
from builder.messages import InfoReply
from builder.model import (
    DroppedPlatform,
    Instant,
    Job,
    OrbBuildJob,
    Period,
    Queue,
    Result,
    RunningBuild,
    ScheduleItem,
    ScriptJob,
    StateItem,
)
from builder_server.database import Database, StoreError
from builder_server.scheduler import MAX_LOSSES, following_run
from builder_server.schema import build, job, platform, queue
from builder_server.statements import (
    Build,
    Refused,
    add_job,
    add_platform,
    append_to_queue,
    enqueue,
    ensure_platform,
    is_dropped,
    move_to_front,
    platforms,
    to_build,
    to_job,
    to_schedule_item,
    update_running,
)

__all__ = ["AfterLoss", "Build", "Refused", "Store", "StoreError", "Taken"]

_ENTRY = 200
"""Bytes that an entry of the schedule or of a queue takes besides its script, while a reply is made."""


@frozen(kw_only=True)
class Taken:
    """What a worker that asks gets: a build, or none; ``blocked`` names a job that lacks only a template."""

    build: Build | None = None
    blocked: str | None = None


class AfterLoss(enum.Enum):
    """What became of a running build that lost its worker."""

    PUT_BACK = "its job is queued again, unless it left the schedule"
    TOO_MANY = "it still runs: the caller records it as failed"
    NOT_RUNNING = "it had ended before"


def _total(table: sa.Table) -> Any:
    """Return the bytes of all scripts of a table."""
    return sa.func.coalesce(sa.func.sum(sa.func.length(table.c.script)), 0)


class Store(Database):
    """What the server remembers."""

    # --- schedule --------------------------------------------------------------------------------------------------

    async def schedule(self, new: Job, period: Period, now: Instant) -> None:
        """Add a job, queue it at once; its next run is one period from now. Raises Refused."""

        def step(connection: sa.Connection) -> None:
            if isinstance(new, ScriptJob) and is_dropped(connection, new.platform):
                raise Refused("platform dropped; can't schedule jobs")
            job_id = add_job(connection, ScheduleItem(next=period.first_after(now), period=period, job=new))
            if job_id is None:
                raise Refused("job name already used")
            if isinstance(new, ScriptJob):
                add_platform(connection, new.platform)
            enqueue(connection, job.c.id == job_id)

        await self.write(step)

    async def unschedule(self, name: str) -> None:
        """Remove a job from the schedule and all queues; a build of it that runs goes on. Raises Refused."""

        def step(connection: sa.Connection) -> None:
            if connection.execute(sa.delete(job).where(job.c.name == name)).rowcount == 0:
                raise Refused(f"unknown job {name}")

        await self.write(step)

    async def reschedule(self, name: str, next_run: Instant, period: Period | None) -> None:
        """Set a job's next run, and its period if given. Raises Refused."""

        def step(connection: sa.Connection) -> None:
            values: dict[str, object] = {"next_run": next_run.ms}
            if period is not None:
                values["period"] = period.value
            if connection.execute(sa.update(job).where(job.c.name == name).values(values)).rowcount == 0:
                raise Refused(f"unknown job {name}")

        await self.write(step)

    async def execute(self, name: str, on_platform: str | None) -> None:
        """Move a job to the front of its queue, or of one platform's, or of all. Raises Refused."""

        def step(connection: sa.Connection) -> None:
            found = connection.execute(sa.select(job.c.id, job.c.platform).where(job.c.name == name)).one_or_none()
            if found is None:
                raise Refused("execute failed: job not found")
            if found.platform is not None and on_platform not in (None, found.platform):
                raise Refused(f"execute failed: job is for a different platform: {found.platform}")
            wanted = found.platform or on_platform
            if wanted is not None and wanted not in platforms(connection):
                raise Refused("execute failed: no such platform")
            for name_ in platforms(connection) if wanted is None else [wanted]:
                move_to_front(connection, name_, found.id)

        await self.write(step)

    async def queue_due(self, now: Instant) -> bool:
        """Queue every job whose time has come, set its next run; return whether there was one."""

        def step(connection: sa.Connection) -> bool:
            is_due = job.c.next_run <= now.ms
            due = connection.execute(
                sa.select(job.c.id, job.c.platform, job.c.period, job.c.next_run).where(is_due)
            ).all()
            for name in {row.platform for row in due if row.platform is not None}:
                ensure_platform(connection, name)  # an imported job may have come without its queue
            enqueue(connection, is_due)
            for row in due:
                following = following_run(Instant(row.next_run), Period(row.period), now)
                connection.execute(sa.update(job).where(job.c.id == row.id).values(next_run=following.ms))
            return bool(due)

        return await self.write(step)

    async def next_run(self) -> Instant | None:
        """Return the earliest next run of all jobs."""
        earliest = await self.read(lambda connection: connection.scalar(sa.select(sa.func.min(job.c.next_run))))
        return None if earliest is None else Instant(earliest)

    # --- platforms -------------------------------------------------------------------------------------------------

    async def drop_platform(self, name: str) -> None:
        """Ban a platform: its queue goes, and its script jobs leave the schedule. Raises Refused."""

        def step(connection: sa.Connection) -> None:
            if name not in platforms(connection):
                raise Refused(f"unknown platform {name}")
            connection.execute(sa.delete(queue).where(queue.c.platform == name))
            connection.execute(sa.delete(job).where(job.c.platform == name))
            connection.execute(sa.update(platform).where(platform.c.name == name).values(dropped=True))

        await self.write(step)

    async def undrop_platform(self, name: str) -> None:
        """Lift a ban. The platform is known again once a worker or a job asks for it. Raises Refused."""

        def step(connection: sa.Connection) -> None:
            lifted = sa.delete(platform).where(platform.c.name == name, platform.c.dropped)
            if connection.execute(lifted).rowcount == 0:
                raise Refused(f"unknown platform {name}")

        await self.write(step)

    # --- builds ----------------------------------------------------------------------------------------------------

    async def take(
        self, platform_name: str, uuid: UUID, now: Instant, to_script: Callable[[OrbBuildJob], ScriptJob | None]
    ) -> Taken:
        """Turn the first job of a queue that can run into a running build, creating the queue of a new platform.

        ``to_script`` expands an orb-build job; it returns None where that can't be done now, and the job stays
        queued.
        """

        def step(connection: sa.Connection) -> Taken:
            if is_dropped(connection, platform_name):
                return Taken()
            add_platform(connection, platform_name)
            waiting = connection.execute(
                sa.select(queue.c.id.label("entry"), queue.c.losses, job)
                .join(job, job.c.id == queue.c.job_id)
                .where(queue.c.platform == platform_name)
                .order_by(queue.c.position)
            )
            blocked: str | None = None
            for row in waiting:
                queued = to_job(row)
                script_job = queued if isinstance(queued, ScriptJob) else to_script(queued)
                if script_job is None:
                    blocked = blocked or queued.name
                    continue
                waiting.close()
                connection.execute(sa.delete(queue).where(queue.c.id == row.entry))
                connection.execute(
                    sa.insert(build).values(
                        uuid=str(uuid),
                        job_id=row.id,
                        name=script_job.name,
                        platform=script_job.platform,
                        script=script_job.script,
                        state="running",
                        losses=row.losses,
                        started=now.ms,
                    )
                )
                return Taken(build=Build(uuid=uuid, job=script_job, started=now, losses=row.losses), blocked=blocked)
            return Taken(blocked=blocked)

        return await self.write(step)

    async def finish(self, uuid: UUID, now: Instant, result: Result, *, upload: bool) -> bool:
        """Record the result of a running build; return False, and change nothing, if it does not run any more."""

        def step(connection: sa.Connection) -> bool:
            values = {
                "state": "finished",
                "finished": now.ms,
                "result": codec.encode_result(result),
                "upload": "pending" if upload else None,
            }
            return connection.execute(update_running(uuid).values(values)).rowcount == 1

        return await self.write(step)

    async def lose(self, uuid: UUID, now: Instant, result: Result, *, count: bool) -> AfterLoss:
        """Take a running build from its worker: the job returns to the front of its queue.

        ``count`` is false where the worker is not to blame. ``result`` is what the history says of the lost attempt.
        """

        def step(connection: sa.Connection) -> AfterLoss:
            found = connection.execute(
                sa.select(build.c.job_id, build.c.platform, build.c.losses).where(
                    build.c.uuid == str(uuid), build.c.state == "running"
                )
            ).one_or_none()
            if found is None:
                return AfterLoss.NOT_RUNNING
            losses = found.losses + (1 if count else 0)
            if losses >= MAX_LOSSES:
                return AfterLoss.TOO_MANY
            values = {"state": "lost", "finished": now.ms, "result": codec.encode_result(result)}
            connection.execute(update_running(uuid).values(values))
            still_there = connection.scalar(sa.select(job.c.id).where(job.c.id == found.job_id))
            if still_there is not None and found.platform in platforms(connection):
                move_to_front(connection, found.platform, found.job_id, losses=losses)
            return AfterLoss.PUT_BACK

        return await self.write(step)

    async def running(self) -> tuple[Build, ...]:
        """Return all builds that are recorded as running."""

        def step(connection: sa.Connection) -> tuple[Build, ...]:
            rows = connection.execute(sa.select(build).where(build.c.state == "running").order_by(build.c.started))
            return tuple(to_build(row) for row in rows)

        return await self.read(step)

    async def find_build(self, uuid: UUID) -> Build | None:
        """Return a build of any state."""

        def step(connection: sa.Connection) -> Build | None:
            row = connection.execute(sa.select(build).where(build.c.uuid == str(uuid))).one_or_none()
            return None if row is None else to_build(row)

        return await self.read(step)

    async def info(self) -> InfoReply:
        """Return schedule, queues, running builds and dropped platforms, of one moment."""

        def step(connection: sa.Connection) -> InfoReply:
            jobs = {row.id: row for row in connection.execute(sa.select(job).order_by(job.c.next_run, job.c.id))}
            items = {id_: to_schedule_item(row) for id_, row in jobs.items()}
            queues: dict[str, list[Job]] = {name: [] for name in platforms(connection)}
            entries = connection.execute(
                sa.select(queue.c.platform, queue.c.job_id).order_by(queue.c.platform, queue.c.position)
            )
            for row in entries:
                queues[row.platform].append(items[row.job_id].job)
            running = connection.execute(sa.select(build).where(build.c.state == "running").order_by(build.c.started))
            dropped = connection.scalars(sa.select(platform.c.name).where(platform.c.dropped).order_by(platform.c.name))
            return InfoReply(
                schedule=tuple(items.values()),
                queues=tuple(Queue(platform=name, jobs=tuple(jobs_)) for name, jobs_ in queues.items()),
                running=tuple(
                    RunningBuild(started=found.started, uuid=found.uuid, job=found.job)
                    for found in map(to_build, running)
                ),
                dropped_platforms=tuple(dropped),
            )

        return await self.read(step)

    async def info_size(self) -> int:
        """Return about how many bytes it takes to make the reply to info: most of it are scripts, which it repeats."""

        def step(connection: sa.Connection) -> int:
            statement = sa.select(
                # once in the schedule, once in a queue
                2 * sa.select(_total(job)).scalar_subquery()
                + sa.select(_total(build)).where(build.c.state == "running").scalar_subquery(),
                sa.select(sa.func.count()).select_from(job).scalar_subquery()
                + sa.select(sa.func.count()).select_from(queue).scalar_subquery(),
            )
            scripts, entries = connection.execute(statement).one()
            return int(2 * scripts + _ENTRY * entries)  # the reply, and what it is made of

        return await self.read(step)

    # --- uploads ---------------------------------------------------------------------------------------------------

    async def uploads(self, state: str) -> tuple[Build, ...]:
        """Return the builds whose upload is in that state, oldest first."""

        def step(connection: sa.Connection) -> tuple[Build, ...]:
            rows = connection.execute(sa.select(build).where(build.c.upload == state).order_by(build.c.finished))
            return tuple(to_build(row) for row in rows)

        return await self.read(step)

    async def set_upload(self, uuid: UUID, state: str) -> None:
        """Record how far the upload of a build is."""

        def step(connection: sa.Connection) -> None:
            connection.execute(sa.update(build).where(build.c.uuid == str(uuid)).values(upload=state))

        await self.write(step)

    # --- the original's state --------------------------------------------------------------------------------------

    async def is_pristine(self) -> bool:
        """Return whether nothing was ever put in."""

        def step(connection: sa.Connection) -> bool:
            return not any(connection.execute(sa.select(table).limit(1)).first() for table in (job, platform, build))

        return await self.read(step)

    async def import_state(self, items: Sequence[StateItem]) -> None:
        """Take over what the original had stored; names must have been checked."""

        def step(connection: sa.Connection) -> None:
            for item in items:
                match item:
                    case DroppedPlatform(platform=name):
                        connection.execute(insert(platform).values(name=name, dropped=True).on_conflict_do_nothing())
                    case ScheduleItem():
                        add_job(connection, item)
            for item in items:
                if isinstance(item, Queue):
                    connection.execute(
                        insert(platform).values(name=item.platform, dropped=False).on_conflict_do_nothing()
                    )
                    for waiting in item.jobs if not is_dropped(connection, item.platform) else ():
                        job_id = connection.scalar(sa.select(job.c.id).where(job.c.name == waiting.name))
                        if job_id is not None:
                            append_to_queue(connection, item.platform, job_id)

        await self.write(step)
