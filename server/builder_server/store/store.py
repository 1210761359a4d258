"""The store: what the rest of the server asks of the database, a transaction each."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Self, TypeVar
from uuid import UUID

import sqlalchemy as sa
from attrs import define, field

from builder.extension.applying import Apply, ListedJob
from builder.extension.builds import HistoryEntry, ShowHistory
from builder.extension.halting import HaltState, Target
from builder.extension.uploads import ListUploads, ReceiverState, UploadEntry
from builder.extension.watching import Look
from builder.messages import InfoReply
from builder.model import Instant, Job, Period, Result, StateItem
from builder.planning import JobOptions
from builder.runtime.database import MAX_NOTICE, Database, nothing
from builder.runtime.migrations import check, migrate, upgrade
from builder.runtime.sqlite import SQLite, alter
from builder_server.limits import ServerLimits
from builder_server.names import ONLY_SERVER
from builder_server.store import (
    artifacts,
    builds,
    halts,
    history,
    info,
    keeping,
    legacy,
    load,
    notices,
    ownership,
    provenance,
    queues,
    schedule,
    servers,
    standing,
    uploads,
)
from builder_server.store.builds import Expand
from builder_server.store.load import PlatformLoad
from builder_server.store.newcomers import Newcomers
from builder_server.store.records import (
    AfterLoss,
    Attempted,
    Build,
    BuildHead,
    Due,
    Holder,
    LeftBuild,
    OldBuild,
    PendingUpload,
    PlannedJob,
    Signable,
    StoredArtifact,
    Taken,
    Timing,
)
from builder_server.store.servers import ServerIdentity, ServerState
from builder_server.store.standing import Standing
from builder_server.store.waking import Waking, Woken

if TYPE_CHECKING:
    from builder.runtime.postgres import Location  # its library need not be there

T = TypeVar("T")
P = ParamSpec("P")

MIGRATIONS = "builder_server.store:migrations"


@define(eq=False)
class Store:
    """What the server remembers. ``owner`` is the name of this server, which its running builds bear."""

    database: Database
    owner: str = ONLY_SERVER
    waking: Waking = field(factory=Waking)
    limits: ServerLimits = field(factory=ServerLimits)
    identity: ServerIdentity | None = None
    """As what it is registered. Without it this is no server, but a program that writes once."""
    _newcomers: Newcomers = field(init=False, factory=Newcomers)

    @classmethod
    def open(cls, where: "Path | Location", owner: str = ONLY_SERVER) -> Self:
        """Return the store in a file, created or migrated, or in PostgreSQL, for a server of that name. Raises StoreError."""
        prepare = upgrade(MIGRATIONS, servers.check_idle)
        if isinstance(where, Path):
            return cls(SQLite(where, prepare=prepare), owner)
        from builder.runtime.postgres import PostgreSQL

        return cls(PostgreSQL(where, prepare=prepare), owner)

    @staticmethod
    def absent(where: "Location") -> dict[str, int]:
        """Return which servers have files of builds, and do not work on a database now, and of how many. Raises StoreError."""
        return _once(where, ownership.absent)

    @staticmethod
    def forget_server(where: "Location", name: str) -> int:
        """Have builds that ended at a server be nobody's, beside others that work; return how many. Raises StoreError."""

        def forget(connection: sa.Connection) -> int:
            servers.check_gone(connection, name)
            return ownership.give_up(connection, name)

        return _once(where, forget)

    @staticmethod
    def migrate(where: "Path | Location", revision: str) -> None:
        """Bring a store to a revision, be it one that only an earlier release knows. Raises StoreError."""
        step = migrate(MIGRATIONS, revision, servers.check_idle)
        if isinstance(where, Path):
            alter(where, step)
            return
        from builder.runtime.postgres import PostgreSQL

        PostgreSQL(where, prepare=step).close()

    async def run(self) -> None:
        """Write what is asked for, until cancelled."""
        await self.database.run()

    @property
    def version(self) -> int:
        """Grows with every change; while it is the same, everything is, as far as is known of other servers."""
        return self.database.version + self.waking.heard

    def limit_waits(self, seconds: float) -> None:
        """From now on wait for others who use the database for so long in all."""
        self.database.limit_waits(seconds)

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    # --- servers ---------------------------------------------------------------------------------------------------

    async def servers(self) -> tuple[ServerState, ...]:
        """Return the servers that work on the database, by their names."""
        return await self.database.read(partial(servers.find, is_shared=self.database.is_shared))

    async def register(self, me: ServerIdentity) -> None:
        """Work on the database as this server from now on, in place of any that had its name."""

        def step(connection: sa.Connection, woken: Woken) -> None:
            check(MIGRATIONS)(connection)  # a newer program may have been there since it was opened
            servers.register(connection, woken, me, has_lease=self.database.is_shared)

        await self._announce(step, is_fenced=False)
        self.owner, self.identity = me.name, me

    async def leave(self) -> None:
        """Work on the database no more."""
        if self.identity is not None:
            await self._wake(servers.remove, self.identity)

    async def take_over(self, dead: Collection[str]) -> tuple[LeftBuild, ...]:
        """Remove servers of these names whose lease has run out; return the builds of servers that are gone, now this one's."""
        return await self._wake(servers.take_over, self.owner, dead)

    async def unwatched(self) -> float | None:
        """Return for how many seconds no server has looked for what is due; None where that is not known.

        Where there can be but one, it is not noted.
        """
        return await self.database.read(servers.unwatched)

    def hear(self, told: str) -> notices.Notice | None:
        """Wake those whom it concerns what another server tells, and return that; None for what this one has told."""
        notice = notices.decode(told)
        if self.identity is not None and notice.sender == str(self.identity.incarnation):
            return None
        if notice.woken is not None:
            self.waking.hear(notice.woken)
        return notice

    async def hear_anything(self) -> None:
        """Wake everybody, since other servers may have changed anything. Raises StoreError."""
        await self.recall_halts()
        self.waking.hear_anything()

    async def count_owned(self) -> Mapping[str, int]:
        """Return how many builds run, by the server that has them."""
        return await self.database.read(ownership.count)

    # --- schedule --------------------------------------------------------------------------------------------------

    async def schedule(self, new: Job, period: Period, now: Instant) -> None:
        """Add a job, queue it at once; its next run is one period from now. Raises CommandRefused."""
        await self.plan(new, JobOptions(period=period), now)

    async def plan(self, new: Job, options: JobOptions, now: Instant, *, run_now: bool = True) -> None:
        """Add a job, queue it at once if that is wanted; its next run follows from its options. Raises CommandRefused."""
        await self._wake(
            schedule.add, new, options, Timing.of(options, new.name, now), now, self.limits, run_now=run_now
        )

    async def change(self, name: str, revision: int, options: JobOptions, new: Job | None, now: Instant) -> None:
        """Change how a job is run that was seen in that revision, and with ``new`` what. Raises CommandRefused."""
        await self._wake(schedule.change, name, revision, options, new, Timing.of(options, name, now), now)

    async def show(self, name: str) -> PlannedJob:
        """Return a job of the schedule. Raises CommandRefused."""
        return await self.database.read(partial(schedule.show, name=name))

    async def script_size(self, name: str) -> int:
        """Return the bytes of the script of a job, 0 if it has none, or is not there."""
        return await self.database.read(partial(schedule.script_size, name=name))

    async def jobs(self, after: str | None) -> tuple[ListedJob, ...]:
        """Return the next jobs of the schedule by their names."""
        return await self.database.read(partial(schedule.page, after=after))

    async def apply(self, request: Apply, timings: Mapping[str, Timing], now: Instant, *, keep: bool = True) -> None:
        """Remove, change and add jobs; ``timings`` are those of the latter two, by their names.

        Without ``keep`` all of it is taken back again. Raises CommandRefused.
        """
        with suppress(schedule.Tried):
            await self._wake(schedule.apply, request, timings, now, self.limits, keep=keep)

    async def unschedule(self, name: str) -> None:
        """Remove a job from the schedule and all queues; a build of it that runs goes on. Raises CommandRefused."""
        await self._wake(schedule.remove, name)

    async def reschedule(self, name: str, next_run: Instant, period: Period | None) -> None:
        """Set a job's next run, and its period if given. Raises CommandRefused."""
        await self._wake(schedule.reschedule, name, next_run, period)

    async def execute(
        self, name: str, on_platform: str | None, now: Instant, by: str, *, is_check: bool = False
    ) -> None:
        """Move a job to the front of its queue, or of one platform's, or of all. Raises CommandRefused.

        ``is_check``: it runs twice, and the artifacts are compared.
        """
        await self._wake(schedule.execute, name, on_platform, now, by, self.limits, is_check=is_check)

    async def queue_due(self, now: Instant, missed_before: Instant | None = None) -> Due:
        """Queue every job whose time has come, set its next run; put back the runs that a clock that was ahead has planned.

        Runs of up to ``missed_before`` were due while nobody looked. What somebody set by ``reschedule`` stays where it is.
        """

        def step(connection: sa.Connection, woken: Woken) -> Due:
            if self.database.is_shared and self.identity is not None:
                servers.note_look(connection, self.identity)
            return schedule.queue_due(connection, woken, now, missed_before)

        return await self._wake(step)

    # --- platforms -------------------------------------------------------------------------------------------------

    async def drop_platform(self, name: str) -> None:
        """Ban a platform: its queue goes, and its script jobs leave the schedule. Raises CommandRefused."""
        await self._wake(queues.drop_platform, name)

    async def undrop_platform(self, name: str) -> None:
        """Lift a ban. The platform is known again once a worker or a job asks for it. Raises CommandRefused."""
        await self._wake(queues.undrop_platform, name)

    # --- what is drained -------------------------------------------------------------------------------------------

    async def recall_halts(self) -> None:
        """Learn what is drained: at the start, and where that was changed elsewhere."""
        known = None
        while known is not self.waking.halts:  # else something was drained here meanwhile, and may not have been read
            known = self.waking.halts
            found = await self.database.read(halts.find)
        self.waking.set_halts(found)

    async def halt(
        self, target: Target, now: Instant, by: str, reason: str | None, until: Instant | None
    ) -> tuple[HaltState, bool]:
        """Hand out no job there; return how that is from now on, and whether it is new. Raises CommandRefused.

        What is drained already stays so, with the reason and the end that are given.
        """
        return await self._wake(halts.put, target, now, by, reason, until)

    async def resume(self, target: Target) -> None:
        """Hand out jobs there again. Raises CommandRefused where it is not drained."""
        await self._wake(halts.lift, target)

    async def count_running(self, target: Target) -> int:
        """Return how many builds run there."""
        return await self.database.read(partial(halts.count_running, target=target))

    # --- builds ----------------------------------------------------------------------------------------------------

    async def take(
        self, platform: str, uuid: UUID, now: Instant, expand: Expand | None, holder: Holder | None = None
    ) -> Taken:
        """Turn the first job of a queue that can run into a running build, creating the queue of a new platform.

        ``expand`` makes the scripts of orb-build jobs; without it, which is without a template, they stay queued, as
        does one for which it returns None. It may be called again for the same job. What needs more than the worker
        has stays queued too.
        """
        step = partial(
            builds.take, me=self.owner, platform=platform, uuid=uuid, now=now,
            expand=expand, holder=holder, max_attempts=self.limits.attempts, newcomers=self._newcomers,
        )  # fmt: skip
        return await self._announce(step, shared=True)

    async def finish(
        self,
        uuid: UUID,
        now: Instant,
        result: Result,
        *,
        receivers: Collection[str] = (),
        is_lost: bool = False,
        ended_by: str | None = None,
        is_delivered: bool = True,
    ) -> bool:
        """Record the result of a running build, and queue what follows from it; False if it does not run any more.

        ``receivers`` are those that it is to be uploaded to.
        ``is_lost``: the result is not the job's, but what the farm has to say of it. ``ended_by`` is who wanted its end.
        Unless it ``is_delivered`` by the worker, that has no secret any more by which it could ask for it.
        """
        concluded = await self.database.read(partial(artifacts.conclude, uuid=uuid))
        return await self._wake(
            builds.finish, self.owner, uuid, now, result,
            concluded=concluded, receivers=receivers, is_lost=is_lost, ended_by=ended_by, is_delivered=is_delivered,
        )  # fmt: skip

    async def add_artifacts(self, uuid: UUID, found: Sequence[StoredArtifact]) -> None:
        """Keep some more artifacts of a running build; once it is finished they are all."""
        await self._write(
            partial(ownership.while_mine, me=self.owner, uuid=uuid, step=partial(artifacts.add, uuid=uuid, found=found))
        )

    async def forget_artifacts(self, uuid: UUID) -> None:
        """Forget the artifacts of a running build whose result did not become durable, and comes again."""
        await self._write(
            partial(ownership.while_mine, me=self.owner, uuid=uuid, step=partial(artifacts.forget, uuid=uuid))
        )

    async def lose(
        self, uuid: UUID, now: Instant, result: Result, *, count: bool, may_pause: bool = False
    ) -> AfterLoss | str:
        """Take a running build from its worker: the job returns to the front of its queue.

        With ``may_pause`` it waits there for a moment, if the attempt before was lost as well.

        ``count`` is false where the worker is not to blame. ``result`` is what the history says of the lost attempt. One that
        was cancelled is left as it is: who did that is returned.
        """
        return await self._wake(builds.lose, self.owner, uuid, now, result, count=count, may_pause=may_pause)

    async def note_cancel(self, uuid: UUID, by: str) -> bool:
        """Note who has cancelled a running build, so that its job does not go back to the queue; False if it does not run."""
        return await self._write(partial(builds.note_cancel, me=self.owner, uuid=uuid, by=by))

    async def running(self) -> tuple[LeftBuild, ...]:
        """Return the builds of this server that are recorded as running, the oldest first."""
        return await self.database.read(partial(ownership.running, me=self.owner))

    async def runs_here(self, uuid: UUID) -> bool:
        """Return whether a build runs, and is this server's."""
        return await self.database.read(partial(ownership.runs_here, me=self.owner, uuid=uuid))

    def is_mine(self, owner: str | None) -> bool:
        """Return whether a server of that name is this one; None stands for any of before there could be several."""
        return owner in (None, self.owner)

    async def claim(self, uuid: UUID, secret_sha256: bytes) -> LeftBuild | None:
        """Make a running build of another server this one's, for the worker that has its secret; None where that can't be."""
        return await self._wake(ownership.claim, self.owner, uuid, secret_sha256)

    async def left_behind(self) -> Mapping[UUID, str]:
        """Return the builds that have moved to other servers and may have files here, with the names of their jobs."""
        return await self.database.read(partial(ownership.left_behind_by, me=self.owner))

    async def forget_left_behind(self, uuids: Collection[UUID]) -> None:
        """Note that there are no files here any more of builds that have moved, also as one that is counted as dead."""
        await self._write(partial(ownership.forget_left_behind, me=self.owner, uuids=uuids), is_fenced=False)

    async def ask_end(self, uuids: Collection[UUID], by: str) -> None:
        """Note who has cancelled builds that run at other servers, which end them."""
        await self._wake(ownership.ask_end, self.owner, uuids, by)

    async def find_running(self, name: str | None, begin: str | None, on_platform: str | None) -> tuple[BuildHead, ...]:
        """Return the running builds of a job, or those whose uuid begins so; of one platform if that is named."""
        return await self.database.read(
            partial(builds.find_running, name=name, begin=begin or "", on_platform=on_platform)
        )

    async def dequeue(self, name: str, on_platform: str | None) -> tuple[str, ...]:
        """Take a job from the queues, or from one; return the platforms that had it there. Raises CommandRefused."""
        return await self._wake(queues.remove_job, name, on_platform)

    async def find_build(self, uuid: UUID) -> Build | None:
        """Return a build of any state."""
        return await self.database.read(partial(builds.find, uuid=uuid))

    async def find_head(self, uuid: UUID) -> BuildHead | None:
        """Return what is known of a build of any state besides its script."""
        return await self.database.read(partial(builds.find_head, uuid=uuid))

    async def history(self, asked: ShowHistory) -> tuple[HistoryEntry, ...]:
        """Return builds and runs that were left out, the newest first."""
        return await self.database.read(partial(history.page, asked=asked))

    async def find_builds(self, begin: str, most: int) -> tuple[HistoryEntry, ...]:
        """Return builds of any state whose uuid begins so, at most so many."""
        return await self.database.read(partial(history.find, begin=begin, most=most))

    async def list_artifacts(self, uuid: UUID, behind: str, count: int) -> tuple[StoredArtifact, ...]:
        """Return the next artifacts of a build behind a path, in the order of the bytes of their paths."""
        return await self.database.read(partial(artifacts.page, uuid=uuid, after=behind, count=count))

    # --- everything ------------------------------------------------------------------------------------------------

    async def info(self) -> InfoReply:
        """Return schedule, queues, running builds and dropped platforms, of one moment."""
        return await self.database.read(info.reply)

    async def info_within(self, limit: int) -> tuple[int, InfoReply | None]:
        """Return about how many bytes it takes to make the reply to info, and that where it takes no more than the limit.

        Most of it are scripts, which the reply repeats.
        """
        return await self.database.read(partial(info.reply_within, limit=limit))

    async def has_platform(self, name: str) -> bool:
        """Return whether there is a platform that is not dropped."""
        return await self.database.read(partial(queues.is_dropped, name=name)) is False

    async def standing(self, look: Look) -> Standing:
        """Return how things stand, as far as somebody wants to know."""
        return await self.database.read(partial(standing.read, look=look))

    async def load(self, now: Instant) -> tuple[PlatformLoad, ...]:
        """Return how much there is to do on each platform that is not dropped."""
        return await self.database.read(partial(load.read, now=now))

    # --- uploads ---------------------------------------------------------------------------------------------------

    async def unsettled_uploads(self, receivers: Collection[str], after: UUID | None) -> list[UUID]:
        """Return the next builds that are to be uploaded, but to nobody in particular, or to others than these receivers."""
        return await self.database.read(partial(uploads.unsettled, me=self.owner, receivers=receivers, after=after))

    async def settle_uploads(self, uuids: Collection[UUID], receivers: Collection[str]) -> None:
        """Have such builds wait for these receivers, and for no others, unless nobody has them."""
        await self._write(partial(uploads.settle, uuids=uuids, receivers=receivers))

    async def next_upload(
        self, receiver: str, now: Instant, under_way: Collection[UUID]
    ) -> PendingUpload | Instant | None:
        """Return the upload to a receiver that has waited for longest, other than those, or when one may be tried again.

        None: nothing waits. Those that have failed by themselves come last.
        """
        return await self.database.read(
            partial(uploads.next_due, me=self.owner, to=receiver, now=now, under_way=under_way)
        )

    async def note_attempt(self, uuid: UUID, receiver: str, attempted: Attempted, receivers: Collection[str]) -> bool:
        """Record what came of an attempt to upload a build; return whether all receivers have it now."""
        return await self._write(
            partial(uploads.note, uuid=uuid, to=receiver, attempted=attempted, receivers=receivers), shared=True
        )

    async def retry_upload(self, uuid: UUID, receivers: Collection[str]) -> int:
        """Have a build tried again now at the receivers that have not got it; return how many. Raises CommandRefused."""
        return await self._write(partial(uploads.retry, uuid=uuid, receivers=receivers))

    async def retry_uploads(self, receivers: Collection[str]) -> int:
        """Have all that is not uploaded tried again now; return how many uploads these are."""
        return await self._write(partial(uploads.retry_all, me=self.owner, receivers=receivers))

    async def drop_upload(self, uuid: UUID) -> None:
        """Have a build go to no receiver any more. Raises CommandRefused."""
        await self._write(partial(uploads.drop, uuid=uuid))

    async def uploads(self, asked: ListUploads, receivers: Collection[str]) -> list[UploadEntry]:
        """Return uploads that are pending or refused, or those of one build, the oldest first."""
        return await self.database.read(partial(uploads.page, me=self.owner, asked=asked, receivers=receivers))

    async def count_uploads(self, receivers: Collection[str]) -> tuple[ReceiverState, ...]:
        """Return how uploads stand, receiver by receiver."""
        return await self.database.read(partial(uploads.counts, me=self.owner, receivers=receivers))

    async def uploaded(self, after: UUID | None = None) -> tuple[UUID, ...]:
        """Return the next builds, by their uuids, that were uploaded and whose files are still to be removed."""
        return await self.database.read(partial(uploads.uploaded, me=self.owner, after=after))

    async def set_upload(self, uuid: UUID, state: str) -> None:
        """Record how far the upload of a build is."""
        await self._write(partial(uploads.set_state, uuid=uuid, state=state))

    # --- provenance ------------------------------------------------------------------------------------------------

    async def note_facts(self, uuid: UUID, facts: Mapping[str, str]) -> None:
        """Keep what the worker of a build says of it, if that runs."""
        await self._write(partial(provenance.note_facts, uuid=uuid, facts=facts), shared=True)

    async def unsigned(self, besides: Collection[UUID]) -> Sequence[UUID]:
        """Return some of the builds that are to be signed, those first that ended first."""
        return await self.database.read(partial(provenance.unsigned, me=self.owner, besides=besides))

    async def signable(self, uuid: UUID) -> Signable | None:
        """Return what is known of a build that is signed, or is to be; None for any other."""
        return await self.database.read(partial(provenance.find, uuid=uuid))

    async def note_signed(self, signed: Collection[UUID], gone: Collection[UUID]) -> None:
        """Note that builds are signed, and that nothing is left of others."""
        await self._write(partial(provenance.note, signed=signed, gone=gone), shared=True)

    # --- what is kept ----------------------------------------------------------------------------------------------

    async def unmeasured(self) -> list[OldBuild]:
        """Return builds that may go, and of which it is not known how many bytes their files take."""
        return await self.database.read(partial(keeping.unmeasured, me=self.owner))

    async def measure(self, sizes: Mapping[UUID, int]) -> None:
        """Note how many bytes the files of builds take."""
        await self._write(partial(keeping.measure, sizes=sizes), shared=True)

    async def older_than(self, before: Instant, behind: OldBuild | None) -> list[OldBuild]:
        """Return builds that ended before a moment and may go, the oldest first; those that are to be uploaded may not."""
        return await self.database.read(partial(keeping.older_than, me=self.owner, before=before, behind=behind))

    async def beyond_count(self, most: int, behind: OldBuild | None) -> list[OldBuild]:
        """Return builds that may go, other than so many newest ones of each job. Those before ``behind`` must be gone."""
        return await self.database.read(partial(keeping.beyond_count, me=self.owner, most=most, behind=behind))

    async def total_size(self) -> int:
        """Return how many bytes the files of all builds take that have ended."""
        return await self.database.read(partial(keeping.total, me=self.owner))

    async def oldest(self, behind: OldBuild | None) -> list[OldBuild]:
        """Return builds that may go, the oldest first."""
        return await self.database.read(partial(keeping.oldest, me=self.owner, behind=behind))

    async def forget(self, uuids: Collection[UUID]) -> None:
        """Remove builds from the history whose files are gone."""
        await self._write(partial(keeping.forget, me=self.owner, uuids=uuids))

    async def forget_skipped(self, before: Instant) -> None:
        """Forget runs that were left out before a moment."""
        await self._write(partial(keeping.forget_skipped, before=before))

    # --- the original's state --------------------------------------------------------------------------------------

    async def is_pristine(self) -> bool:
        """Return whether nothing was ever put in."""
        return await self.database.read(legacy.is_pristine)

    async def import_state(self, items: Sequence[StateItem]) -> None:
        """Take over what the original had stored; names must have been checked."""
        await self._write(partial(legacy.import_state, items=items))

    async def import_build(
        self, found: Build, batches: Callable[[], Iterable[Sequence[StoredArtifact]]], *, upload: bool
    ) -> None:
        """Take over a build that has ended and is not known; ``batches`` returns its artifacts, each time anew."""
        await self._write(partial(legacy.import_build, me=self.owner, found=found, batches=batches, upload=upload))

    async def upload_imported(self, uuid: UUID) -> bool:
        """Have a build uploaded that was taken over, and is to go nowhere; False for any other."""
        return await self._write(partial(legacy.upload_imported, me=self.owner, uuid=uuid))

    async def _wake(
        self, step: Callable[Concatenate[sa.Connection, Woken, P], T], *arguments: P.args, **options: P.kwargs
    ) -> T:
        """Write, and announce what the step has noted once that is on the disk."""
        return await self._announce(lambda connection, woken: step(connection, woken, *arguments, **options))

    async def _announce(
        self, step: Callable[[sa.Connection, Woken], T], *, shared: bool = False, is_fenced: bool = True
    ) -> T:
        """Do the same; see ``_write``."""

        def noting(connection: sa.Connection) -> tuple[T, Woken]:
            woken = Woken()  # a new one each time: the step may be run again
            value = step(connection, woken)
            self._tell(connection, woken)
            return value, woken

        value, _ = await self._write(
            noting, lambda noted: self.waking.announce(noted[1]), shared=shared, is_fenced=is_fenced
        )
        return value

    async def _write(
        self,
        step: Callable[[sa.Connection], T],
        then: Callable[[T], None] = nothing,
        *,
        shared: bool = False,
        is_fenced: bool = True,
    ) -> T:
        """Write. If it ``is_fenced``, nothing is written by a server that the others count as dead: Fenced is raised."""
        me = self.identity
        if me is None or not (is_fenced and self.database.is_shared):
            return await self.database.write(step, then, shared=shared)

        def fenced(connection: sa.Connection) -> T:
            servers.check(connection, me)
            return step(connection)

        return await self.database.write(fenced, then, shared=shared)

    def _tell(self, connection: sa.Connection, woken: Woken) -> None:
        """Have other servers hear of a change."""
        if self.database.is_shared:
            sender = "" if self.identity is None else str(self.identity.incarnation)
            self.database.tell(connection, notices.CHANNEL, notices.encode(woken, sender, MAX_NOTICE))


def _once(where: "Location", step: Callable[[sa.Connection], T]) -> T:
    """Do a step in a database in PostgreSQL, beside the servers that work on it. Raises StoreError."""
    from builder.runtime.postgres import PostgreSQL

    found: list[T] = []

    def run(connection: sa.Connection) -> None:
        upgrade(MIGRATIONS, servers.check_idle)(connection)
        found.append(step(connection))

    PostgreSQL(where, prepare=run).close()
    return found[0]
