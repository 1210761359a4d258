"""All attempts of a server: each has an owner here, and whoever observes finds them."""

import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import trio
from attrs import define, evolve, field, frozen

from builder.extension.working import Return
from builder.model import Instant
from builder.runtime.changes import Change
from builder.runtime.logs import note
from builder.runtime.nurseries import plain_nursery
from builder_server import console
from builder_server.aborts import cancelled
from builder_server.attachment import Attachment
from builder_server.attempt import Attempt
from builder_server.console import ConsoleWriter
from builder_server.crew import Crew, muster
from builder_server.dispatch import Dispatcher
from builder_server.events import EndAsked, Moved, Stopping
from builder_server.limits import ServerLimits
from builder_server.owner import NOBODY, Owner, seconds
from builder_server.recorder import Recorder
from builder_server.results import directory_of
from builder_server.store import BuildHead, Holder, LeftBuild, is_secret

logger = logging.getLogger(__name__)


STATES = WAITING, PRESSED, BUILDING = "waiting", "pressed", "building"
"""What a worker that is connected does: one that is pressed takes no job, since its machine can't bear another."""

LAST_TIMEOUT = 1.0
"""Seconds that the attempts have when all sessions have ended, and a stop waits for nothing but the disk."""


@frozen(kw_only=True)
class Observed:
    """An attempt as observers find it; ``live`` is its console while lines come. Its script is left out: observers are many.

    Its files are with the server ``owner``; None: with this one.
    """

    uuid: UUID
    started: Instant
    console: Path
    live: ConsoleWriter | None
    owner: str | None = None


@define(eq=False, kw_only=True)
class Attempts:
    """Has the tasks that own attempts, which outlive connections.

    ``time_limit`` of a job, and the ``grace`` of a worker that may come back, are in seconds.
    """

    dispatcher: Dispatcher
    recorder: Recorder
    time_limit: float
    grace: float
    limits: ServerLimits = field(factory=ServerLimits)
    _owners: dict[UUID, Owner] = field(factory=dict)
    _changed: Change = field(factory=Change)
    _nursery: trio.Nursery = field(init=False)
    _stopping: bool = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Have attempts in a block; at its end each is stopped, and waited for until it is recorded or put back.

        What takes longer is left to the next start.
        """
        waking = self.recorder.store.waking
        waking.on_moved, waking.on_cancelled = self.drop, lambda uuid, by: self._end([uuid], by)
        async with plain_nursery() as self._nursery:
            yield
            self.stop()
            self._nursery.cancel_scope.deadline = trio.current_time() + LAST_TIMEOUT

    def stop(self) -> None:
        """Have every attempt end, but for those whose result comes; none begins from now on."""
        if self._stopping:
            return
        self._stopping = True
        for owner in self._owners.values():
            owner.tell(Stopping())

    def connected(self) -> Counter[tuple[str, str]]:
        """Return how many workers are connected, by platform and state: one of ``STATES``."""
        found = Counter[tuple[str, str]]()
        for owner in self._owners.values():
            if owner.attachment.is_building:
                found[owner.platform, BUILDING] += 1
            elif owner.job is None and not owner.attachment.is_detached:
                found[owner.platform, PRESSED if owner.worker.pressure else WAITING] += 1
        return found

    @property
    def owners(self) -> Collection[Owner]:
        """The owners of all attempts: each has a worker that waits, builds, or is away."""
        return self._owners.values()

    def has(self, uuid: UUID) -> bool:
        """Return whether an attempt is owned here."""
        return uuid in self._owners

    def crew(self) -> Crew:
        """Return what the workers do."""
        return muster(self.owners, self.recorder.store.waking.halts)

    def note_pressure(self, uuid: UUID, pressure: str) -> None:
        """Note why the worker that waits for an attempt takes no job now, or that it does."""
        if owner := self._owners.get(uuid):
            owner.note_pressure(pressure)

    def send_away(self) -> None:
        """Have workers that wait for a job go to other servers, as far as they know some."""
        for owner in self._owners.values():
            owner.attachment.send_away()

    def attach(self, platform: str, worker: Holder, secret: bytes | None = None) -> Attachment:
        """Have a worker wait for a job of a platform; with a secret, which it is given too, it may come back."""
        owner = self._owner(uuid4(), platform, worker, self.recorder.now(), secret)
        self._start(owner, self.dispatcher)
        if self._stopping:
            owner.tell(Stopping())
        return owner.attachment

    async def take_back(
        self, returning: Return, check_platform: Callable[[str], None]
    ) -> Attachment | BuildHead | None:
        """Have a worker back at its attempt; return how that has ended, if it has, and None where nobody may know.

        ``check_platform`` raises NotPermitted where the worker may have no job of a platform any more. Raises StoreError.
        """
        build = None
        if returning.uuid not in self._owners:
            build = await self.recorder.store.find_head(returning.uuid)
            if build and build.state == "running" and is_secret(returning.secret, build.secret_sha256):
                check_platform(build.platform)
                await self._claim(build)
        owner = self._owners.get(returning.uuid)
        if owner is None:
            return build
        if not is_secret(returning.secret, owner.worker.secret_sha256):
            return None
        check_platform(owner.platform)
        return owner.take_back(returning.elapsed / 1000, has_ended=returning.has_ended)

    async def _claim(self, build: BuildHead) -> None:
        """Own from now on what another server had, whose worker has come back here; it sends all of its console again.

        It may be this one's already, if the database has not said so when it was claimed before.
        """
        if self._stopping:
            return
        assert build.secret_sha256, "it was shown"
        claimed = await self.recorder.store.claim(build.uuid, build.secret_sha256)
        if claimed and build.uuid not in self._owners:
            self.inherit([claimed])

    async def recover(self) -> None:
        """Put back what ran when the last server ended, or have that tried again and again. Raises StoreError.

        What a worker may come back to goes on instead. It waits for the database alone: a console is looked through later.
        """
        try:  # before anything can come back
            await self.recorder.remove_left_behind(await self.recorder.store.left_behind())
        except OSError as error:
            logger.error("files of builds that other servers have stay here: %s", error)
        left = self.inherit(await self.recorder.store.running())
        if awaited := sum(owner.attempt.grace > 0 for owner in left):
            logger.info("builds that go on when their workers come back: %d", awaited)
        await self._wait_asked([owner for owner in left if not owner.attempt.grace])

    def inherit(self, left: Iterable[LeftBuild]) -> list[Owner]:
        """Own what another server has left, or the one before."""
        owners = [self._left(build) for build in left if build.uuid not in self._owners]
        for owner in owners:
            self._start(owner, None)
        return owners

    def drop(self, uuids: Collection[UUID]) -> None:
        """Leave to other servers what they have now. Their workers come back there, or here."""
        for uuid in uuids:
            if owner := self._owners.get(uuid):
                owner.tell(Moved())

    def drop_all(self) -> None:
        """Leave everything to other servers, since this one was counted as dead."""
        self.drop(tuple(self._owners))

    async def look_again(self) -> None:
        """See that attempts here are what the database has as such, whatever was not heard of others. Raises StoreError."""
        known = [owner.uuid for owner in self._owners.values() if owner.build]
        here = {build.uuid: build for build in await self.recorder.store.running()}
        self.drop([uuid for uuid in known if uuid not in here])
        for build in here.values():
            if build.cancelled_by is not None:
                self._end([build.uuid], build.cancelled_by)
            # it came back here before the attempt that was here had ended, or that has ended for a fault of ours
            if (
                build.uuid not in self._owners
                and not self._stopping
                and await self.recorder.store.runs_here(build.uuid)
            ):
                self.inherit([build])

    def _left(self, build: LeftBuild) -> Owner:
        may_return = build.cancelled_by is None
        worker = build.holder if may_return else evolve(build.holder, secret_sha256=None)
        owner = self._owner(build.uuid, build.platform, worker, build.started)
        owner.job = build.name
        owner.away_since = self.recorder.now() if owner.attempt.grace else None
        owner.attempt.tighten(seconds(build.time_limit), seconds(build.max_silent))
        return owner

    def _owner(self, uuid: UUID, platform: str, worker: Holder, since: Instant, secret: bytes | None = None) -> Owner:
        grace = self.grace if worker.secret_sha256 else 0.0
        return Owner(
            uuid=uuid,
            platform=platform,
            recorder=self.recorder,
            limits=self.limits,
            attempt=Attempt(time_limit=self.time_limit, grace=grace),
            on_changed=self._changed.announce,
            worker=worker,
            since=since,
            secret=secret,
        )

    def _start(self, owner: Owner, dispatcher: Dispatcher | None) -> None:
        self._owners[owner.uuid] = owner
        self._nursery.start_soon(self._run, owner, dispatcher)

    async def _run(self, owner: Owner, dispatcher: Dispatcher | None) -> None:
        """Have an owner take a job, or without a dispatcher go on with an attempt that was left."""
        note(**NOBODY)  # it outlives the session in which it begins
        try:
            await (owner.run(dispatcher) if dispatcher else owner.run_interrupted())
        except Exception:  # the others must not pay for it
            logger.exception("internal error")
        finally:
            del self._owners[owner.uuid]
            self._changed.announce()

    async def cancel(self, uuids: Collection[UUID], by: str) -> None:
        """Have attempts end for somebody, and wait until they are recorded, or it is durable that they are cancelled.

        One that has just ended stays as it is.
        """
        if elsewhere := [uuid for uuid in uuids if uuid not in self._owners]:
            await self.recorder.store.ask_end(elsewhere, by)
        await self._wait_asked(self._end(uuids, by))

    def _end(self, uuids: Collection[UUID], by: str) -> list[Owner]:
        owners = [owner for uuid in uuids if (owner := self._owners.get(uuid))]
        for owner in owners:
            owner.tell(EndAsked(result=cancelled(by), by=by))
        return owners

    async def _wait_asked(self, owners: Collection[Owner]) -> None:
        while True:
            changed = self._changed.next
            if not any(owner.uuid in self._owners and not owner.is_asked for owner in owners):
                return
            await changed.wait()

    async def find(self, uuid: UUID) -> Observed | None:
        """Return an attempt. Raises StoreError.

        It waits for one that was taken and is about to begin, and for one whose end is still to be recorded.
        """
        while True:
            changed = self._changed.next
            owner = self._owners.get(uuid)
            if owner and owner.build and owner.console and not owner.console.closed:
                return self._observed(uuid, owner.build.job.name, owner.build.started, owner.console)
            build = await self.recorder.store.find_head(uuid)
            if build is None:
                return None
            if build.state != "running" or uuid not in self._owners:
                return self._observed(uuid, build.name, build.started, owner=build.owner)
            await changed.wait()

    def _observed(
        self, uuid: UUID, name: str, started: Instant, live: ConsoleWriter | None = None, owner: str | None = None
    ) -> Observed:
        path = directory_of(self.recorder.data_dir, name, uuid) / console.FILE_NAME
        return Observed(uuid=uuid, started=started, console=path, live=live, owner=owner)
