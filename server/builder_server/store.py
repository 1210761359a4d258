"""The database, and nothing else knows SQL.

A method that changes something is one transaction, and when it returns its change is on the disk: WAL, synchronous
FULL. ``run`` is the one writer: requests that arrive during a commit share the next one, each in a savepoint, so that
a refused one takes nothing with it. Reads use connections of their own and see the last commit.

What can't be done is raised as Refused, whose text is the reply for the client. What the disk does is StoreError.
"""

import enum
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar
from uuid import UUID

import sqlalchemy as sa
import trio
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from attrs import define, field, frozen
from sqlalchemy.dialects.sqlite import insert

from builder import codec
from builder.errors import BuilderError
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
from builder_server.scheduler import MAX_LOSSES, following_run
from builder_server.schema import build, job, platform, queue

T = TypeVar("T")

MAX_PLATFORMS = 1000
"""Most platforms: a worker may name any, and every orb-build job joins the queue of each."""


_STOPPED = "the server stops"


class Refused(BuilderError):
    """What a client asked for can't be done; the text is the failure reply."""


class StoreError(BuilderError):
    """The database could not be read or written; what was asked for has not happened."""

    exit_code = 5


@frozen(kw_only=True)
class Build:
    """An attempt at a job, as the store keeps it. ``losses`` are those before this attempt."""

    uuid: UUID
    job: ScriptJob
    started: Instant
    losses: int
    state: str = "running"
    finished: Instant | None = None
    result: Result | None = None


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


@define
class _Request(Generic[T]):
    """A change that waits for the writer."""

    step: Callable[[sa.Connection], T]
    done: trio.Event = field(factory=trio.Event)
    value: T | None = None
    error: BaseException | None = None


class Store:
    """Schedule, queues, builds and pending uploads. ``run`` must be running while it is written to."""

    def __init__(self, path: Path) -> None:
        """Open the database, create or migrate it. Raises StoreError."""
        self._engine = sa.create_engine(
            sa.URL.create("sqlite", database=str(path)),
            connect_args={"check_same_thread": False, "timeout": 30},
        )
        sa.event.listen(self._engine, "connect", _configure)
        # pysqlite's own idea of when a transaction begins would leave SELECT and DDL outside of it
        sa.event.listen(self._engine, "begin", _begin)
        self._pending: list[_Request[Any]] = []
        self._work = trio.Event()
        self._closed = False
        try:
            with self._engine.connect() as connection:
                config = Config()
                config.set_main_option("script_location", "builder_server:migrations")
                config.set_main_option("path_separator", "os")
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
                connection.commit()
        except (sa.exc.SQLAlchemyError, OSError) as error:
            self.close()
            raise StoreError(f"can't open the database {path}: {_reason(error)}") from error
        except CommandError as error:
            self.close()
            raise StoreError(f"can't use the database {path}, is it of a newer version? {error}") from error

    def close(self) -> None:
        """Close all connections to the database."""
        self._engine.dispose()

    # --- the writer ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Commit what is asked for, in groups, until cancelled."""
        batch: list[_Request[Any]] = []
        try:
            while True:
                await self._work.wait()
                self._work = trio.Event()
                batch, self._pending = self._pending, []
                await trio.to_thread.run_sync(self._commit, batch)
                for request in batch:
                    request.done.set()
        finally:
            # whoever waits, or asks from now on, would otherwise do so for ever
            self._closed = True
            for request in batch + self._pending:
                if not request.done.is_set():
                    request.error = StoreError(_STOPPED)
                    request.done.set()

    def _commit(self, batch: list[_Request[Any]]) -> None:
        try:
            with self._engine.begin() as connection:
                for request in batch:
                    _attempt(connection, request)
        except (sa.exc.SQLAlchemyError, OSError):
            # one of them, or the commit, met an error of the disk: let each find out for itself
            for request in batch:
                self._commit_alone(request)

    def _commit_alone(self, request: _Request[Any]) -> None:
        try:
            with self._engine.begin() as connection:
                _attempt(connection, request)
        except (sa.exc.SQLAlchemyError, OSError) as error:
            request.error = StoreError(f"the database can't be written: {_reason(error)}")

    async def _write(self, step: Callable[[sa.Connection], T]) -> T:
        if self._closed:
            raise StoreError(_STOPPED)
        request = _Request(step)
        self._pending.append(request)
        self._work.set()
        # shielded: a caller that went away in the middle would not know whether its change was made
        with trio.CancelScope(shield=True):
            await request.done.wait()
        if request.error is not None:
            raise request.error
        return request.value  # type: ignore[return-value]  # set whenever there is no error

    async def _read(self, step: Callable[[sa.Connection], T]) -> T:
        def read() -> T:
            try:
                with self._engine.connect() as connection:
                    return step(connection)
            except (sa.exc.SQLAlchemyError, OSError) as error:
                raise StoreError(f"the database can't be read: {_reason(error)}") from error

        return await trio.to_thread.run_sync(read)

    # --- schedule --------------------------------------------------------------------------------------------------

    async def schedule(self, new: Job, period: Period, now: Instant) -> None:
        """Add a job, queue it at once; its next run is one period from now. Raises Refused."""

        def step(connection: sa.Connection) -> None:
            if isinstance(new, ScriptJob) and _is_dropped(connection, new.platform):
                raise Refused("platform dropped; can't schedule jobs")
            job_id = _add_job(connection, ScheduleItem(next=period.first_after(now), period=period, job=new))
            if job_id is None:
                raise Refused("job name already used")
            if isinstance(new, ScriptJob):
                _add_platform(connection, new.platform)
            _enqueue(connection, job_id)

        await self._write(step)

    async def unschedule(self, name: str) -> None:
        """Remove a job from the schedule and all queues; a build of it that runs goes on. Raises Refused."""

        def step(connection: sa.Connection) -> None:
            if connection.execute(sa.delete(job).where(job.c.name == name)).rowcount == 0:
                raise Refused(f"unknown job {name}")

        await self._write(step)

    async def reschedule(self, name: str, next_run: Instant, period: Period | None) -> None:
        """Set a job's next run, and its period if given. Raises Refused."""

        def step(connection: sa.Connection) -> None:
            values: dict[str, object] = {"next_run": next_run.ms}
            if period is not None:
                values["period"] = period.value
            if connection.execute(sa.update(job).where(job.c.name == name).values(values)).rowcount == 0:
                raise Refused(f"unknown job {name}")

        await self._write(step)

    async def execute(self, name: str, on_platform: str | None) -> None:
        """Move a job to the front of its queue, or of one platform's, or of all. Raises Refused."""

        def step(connection: sa.Connection) -> None:
            found = connection.execute(sa.select(job.c.id, job.c.platform).where(job.c.name == name)).one_or_none()
            if found is None:
                raise Refused("execute failed: job not found")
            if found.platform is not None and on_platform not in (None, found.platform):
                raise Refused(f"execute failed: job is for a different platform: {found.platform}")
            wanted = found.platform or on_platform
            if wanted is not None and wanted not in _platforms(connection):
                raise Refused("execute failed: no such platform")
            for name_ in _platforms(connection) if wanted is None else [wanted]:
                _to_front(connection, name_, found.id)

        await self._write(step)

    async def queue_due(self, now: Instant) -> bool:
        """Queue every job whose time has come, set its next run; return whether there was one."""

        def step(connection: sa.Connection) -> bool:
            due = connection.execute(
                sa.select(job.c.id, job.c.period, job.c.next_run)
                .where(job.c.next_run <= now.ms)
                .order_by(job.c.next_run)
            ).all()
            for row in due:
                following = following_run(Instant(row.next_run), Period(row.period), now)
                connection.execute(sa.update(job).where(job.c.id == row.id).values(next_run=following.ms))
                _enqueue(connection, row.id)
            return bool(due)

        return await self._write(step)

    async def next_run(self) -> Instant | None:
        """Return the earliest next run of all jobs."""
        earliest = await self._read(lambda connection: connection.scalar(sa.select(sa.func.min(job.c.next_run))))
        return None if earliest is None else Instant(earliest)

    # --- platforms -------------------------------------------------------------------------------------------------

    async def drop_platform(self, name: str) -> None:
        """Ban a platform: its queue goes, and its script jobs leave the schedule. Raises Refused."""

        def step(connection: sa.Connection) -> None:
            if name not in _platforms(connection):
                raise Refused(f"unknown platform {name}")
            connection.execute(sa.delete(queue).where(queue.c.platform == name))
            connection.execute(sa.delete(job).where(job.c.platform == name))
            connection.execute(sa.update(platform).where(platform.c.name == name).values(dropped=True))

        await self._write(step)

    async def undrop_platform(self, name: str) -> None:
        """Lift a ban. The platform is known again once a worker or a job asks for it. Raises Refused."""

        def step(connection: sa.Connection) -> None:
            lifted = sa.delete(platform).where(platform.c.name == name, platform.c.dropped)
            if connection.execute(lifted).rowcount == 0:
                raise Refused(f"unknown platform {name}")

        await self._write(step)

    # --- builds ----------------------------------------------------------------------------------------------------

    async def take(
        self, platform_name: str, uuid: UUID, now: Instant, to_script: Callable[[OrbBuildJob], ScriptJob | None]
    ) -> Taken:
        """Turn the first job of a queue that can run into a running build, creating the queue of a new platform.

        ``to_script`` expands an orb-build job; it returns None where that can't be done now, and the job stays
        queued.
        """

        def step(connection: sa.Connection) -> Taken:
            if _is_dropped(connection, platform_name):
                return Taken()
            _add_platform(connection, platform_name)
            waiting = connection.execute(
                sa.select(queue.c.id.label("entry"), queue.c.losses, job)
                .join(job, job.c.id == queue.c.job_id)
                .where(queue.c.platform == platform_name)
                .order_by(queue.c.position)
            )
            blocked: str | None = None
            for row in waiting:
                queued = _job(row)
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

        return await self._write(step)

    async def finish(self, uuid: UUID, now: Instant, result: Result, *, upload: bool) -> bool:
        """Record the result of a running build; return False, and change nothing, if it does not run any more."""

        def step(connection: sa.Connection) -> bool:
            values = {
                "state": "finished",
                "finished": now.ms,
                "result": codec.encode_result(result),
                "upload": "pending" if upload else None,
            }
            return connection.execute(_running(uuid).values(values)).rowcount == 1

        return await self._write(step)

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
            connection.execute(_running(uuid).values(values))
            still_there = connection.scalar(sa.select(job.c.id).where(job.c.id == found.job_id))
            if still_there is not None and found.platform in _platforms(connection):
                _to_front(connection, found.platform, found.job_id, losses=losses)
            return AfterLoss.PUT_BACK

        return await self._write(step)

    async def running(self) -> tuple[Build, ...]:
        """Return all builds that are recorded as running."""

        def step(connection: sa.Connection) -> tuple[Build, ...]:
            rows = connection.execute(sa.select(build).where(build.c.state == "running").order_by(build.c.started))
            return tuple(_build(row) for row in rows)

        return await self._read(step)

    async def find_build(self, uuid: UUID) -> Build | None:
        """Return a build of any state."""

        def step(connection: sa.Connection) -> Build | None:
            row = connection.execute(sa.select(build).where(build.c.uuid == str(uuid))).one_or_none()
            return None if row is None else _build(row)

        return await self._read(step)

    async def info(self) -> InfoReply:
        """Return schedule, queues, running builds and dropped platforms, of one moment."""

        def step(connection: sa.Connection) -> InfoReply:
            jobs = {row.id: row for row in connection.execute(sa.select(job).order_by(job.c.next_run, job.c.id))}
            items = {id_: _schedule_item(row) for id_, row in jobs.items()}
            queues: dict[str, list[Job]] = {name: [] for name in _platforms(connection)}
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
                    for found in map(_build, running)
                ),
                dropped_platforms=tuple(dropped),
            )

        return await self._read(step)

    # --- uploads ---------------------------------------------------------------------------------------------------

    async def uploads(self, state: str) -> tuple[Build, ...]:
        """Return the builds whose upload is in that state, oldest first."""

        def step(connection: sa.Connection) -> tuple[Build, ...]:
            rows = connection.execute(sa.select(build).where(build.c.upload == state).order_by(build.c.finished))
            return tuple(_build(row) for row in rows)

        return await self._read(step)

    async def set_upload(self, uuid: UUID, state: str) -> None:
        """Record how far the upload of a build is."""

        def step(connection: sa.Connection) -> None:
            connection.execute(sa.update(build).where(build.c.uuid == str(uuid)).values(upload=state))

        await self._write(step)

    # --- the original's state --------------------------------------------------------------------------------------

    async def is_pristine(self) -> bool:
        """Return whether nothing was ever put in."""

        def step(connection: sa.Connection) -> bool:
            return not any(connection.execute(sa.select(table).limit(1)).first() for table in (job, platform, build))

        return await self._read(step)

    async def import_state(self, items: Sequence[StateItem]) -> None:
        """Take over what the original had stored; names must have been checked."""

        def step(connection: sa.Connection) -> None:
            for item in items:
                match item:
                    case DroppedPlatform(platform=name):
                        connection.execute(insert(platform).values(name=name, dropped=True).on_conflict_do_nothing())
                    case ScheduleItem():
                        _add_job(connection, item)
            for item in items:
                if isinstance(item, Queue):
                    connection.execute(
                        insert(platform).values(name=item.platform, dropped=False).on_conflict_do_nothing()
                    )
                    for waiting in item.jobs if not _is_dropped(connection, item.platform) else ():
                        job_id = connection.scalar(sa.select(job.c.id).where(job.c.name == waiting.name))
                        if job_id is not None:
                            _append(connection, item.platform, job_id)

        await self._write(step)


# --- statements, each within a step ----------------------------------------------------------------------------------


def _configure(connection: Any, _record: object) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "busy_timeout = 30000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _reason(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error)


def _attempt(connection: sa.Connection, request: _Request[Any]) -> None:
    request.error = None
    try:
        with connection.begin_nested():
            request.value = request.step(connection)
    except (sa.exc.SQLAlchemyError, OSError):
        raise
    except Exception as error:  # noqa: BLE001 - a refusal or a fault of ours: raised again where it was asked for
        request.error = error


def _job(row: Any) -> Job:
    if row.opam_package is not None:
        return OrbBuildJob(name=row.name, opam_package=row.opam_package)
    return ScriptJob(name=row.name, platform=row.platform, script=row.script)


def _schedule_item(row: Any) -> ScheduleItem:
    return ScheduleItem(next=Instant(row.next_run), period=Period(row.period), job=_job(row))


def _build(row: Any) -> Build:
    return Build(
        uuid=UUID(row.uuid),
        job=ScriptJob(name=row.name, platform=row.platform, script=row.script),
        started=Instant(row.started),
        losses=row.losses,
        state=row.state,
        finished=None if row.finished is None else Instant(row.finished),
        result=None if row.result is None else codec.decode_result(row.result),
    )


def _running(uuid: UUID) -> sa.Update:
    return sa.update(build).where(build.c.uuid == str(uuid), build.c.state == "running")


def _platforms(connection: sa.Connection) -> list[str]:
    return list(connection.scalars(sa.select(platform.c.name).where(~platform.c.dropped).order_by(platform.c.name)))


def _is_dropped(connection: sa.Connection, name: str) -> bool:
    return bool(connection.scalar(sa.select(platform.c.dropped).where(platform.c.name == name)))


def _add_job(connection: sa.Connection, item: ScheduleItem) -> int | None:
    """Insert a job and return its id, None if the name is taken."""
    values: dict[str, object] = {"name": item.job.name, "period": item.period.value, "next_run": item.next.ms}
    if isinstance(item.job, ScriptJob):
        values |= {"platform": item.job.platform, "script": item.job.script}
    else:
        values |= {"opam_package": item.job.opam_package}
    added: int | None = connection.scalar(insert(job).values(values).on_conflict_do_nothing().returning(job.c.id))
    return added


def _add_platform(connection: sa.Connection, name: str) -> None:
    """Create the queue of a platform that is new, with every job that can run there. Raises Refused for too many."""
    if _ensure_platform(connection, name) and len(_platforms(connection)) > MAX_PLATFORMS:
        raise Refused(f"there are {MAX_PLATFORMS} platforms already; drop one that is not in use")


def _ensure_platform(connection: sa.Connection, name: str) -> bool:
    """Create the queue of a platform that is new, with every job that can run there; return whether it was."""
    created = connection.execute(insert(platform).values(name=name, dropped=False).on_conflict_do_nothing()).rowcount
    if created:
        can_run = sa.or_(job.c.platform == name, job.c.platform.is_(None))
        for job_id in connection.scalars(sa.select(job.c.id).where(can_run).order_by(job.c.id)).all():
            _append(connection, name, job_id)
    return bool(created)


def _enqueue(connection: sa.Connection, job_id: int) -> None:
    """Append a job to the queue of its platform, an orb-build job to every queue."""
    own = connection.scalar(sa.select(job.c.platform).where(job.c.id == job_id))
    if own is not None:
        _ensure_platform(connection, own)  # an imported job may have come without its queue
    for name in _platforms(connection):
        if own in (None, name):
            _append(connection, name, job_id)


def _append(connection: sa.Connection, name: str, job_id: int) -> None:
    last = sa.select(sa.func.coalesce(sa.func.max(queue.c.position), 0) + 1).where(queue.c.platform == name)
    values = {"platform": name, "job_id": job_id, "position": last.scalar_subquery(), "losses": 0}
    connection.execute(insert(queue).values(values).on_conflict_do_nothing())


def _to_front(connection: sa.Connection, name: str, job_id: int, *, losses: int | None = None) -> None:
    first = sa.select(sa.func.coalesce(sa.func.min(queue.c.position), 0) - 1).where(queue.c.platform == name)
    values = {"platform": name, "job_id": job_id, "position": first.scalar_subquery(), "losses": losses or 0}
    statement = insert(queue).values(values)
    changed: dict[str, object] = {"position": statement.excluded.position}
    if losses is not None:
        changed["losses"] = losses
    connection.execute(statement.on_conflict_do_update(index_elements=["platform", "job_id"], set_=changed))
