"""The steps in which an attempt becomes durable: its directory and console, its record, and what the database says."""

import logging
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from uuid import UUID

import trio
from attrs import define, field, frozen

from builder.execution import ExecutionEnd
from builder.extension.working import Fact
from builder.history import Outcome, outcome_of
from builder.model import Aborted, Instant
from builder_server import console, room
from builder_server.aborts import LOST
from builder_server.console import ConsoleWriter
from builder_server.results import ResultWriter, build_dir, directory_of, make_build_dir
from builder_server.store import AfterLoss, Build, Store, StoreError, Undecided

CONSOLES_AT_ONCE = 2
"""Long consoles that are looked through or turned round at once. Each keeps a core busy: with more of them all of the
rest would wait, for a thread and for the interpreter."""


ASK_AGAIN = 2.0
"""Seconds until a database that went away during a commit is asked again what became of that."""

logger = logging.getLogger(__name__)


@define(eq=False)
class Done:
    """What was recorded since the start: builds by platform and what became of them, and bytes."""

    builds: Counter[tuple[str, Outcome]] = field(factory=Counter)
    console_bytes: int = 0
    artifact_bytes: int = 0


@frozen(kw_only=True)
class Recorder:
    """Where attempts are recorded. All its methods raise OSError, those that ask the database StoreError too.

    ``now`` is the wall clock; ``receivers`` are those that executions are uploaded to, by their names, and ``on_recorded``
    is called for a new record.
    """

    store: Store
    data_dir: Path
    now: Callable[[], Instant]
    receivers: Collection[str]
    on_recorded: Callable[[], None]
    done: Done = field(factory=Done)
    _reading: trio.CapacityLimiter = field(factory=lambda: trio.CapacityLimiter(CONSOLES_AT_ONCE))

    async def begin_console(self, build: Build) -> ConsoleWriter:
        """Make the directory of an attempt, and its console."""

        def begin() -> ConsoleWriter:
            return ConsoleWriter.create(make_build_dir(self.data_dir, build) / console.FILE_NAME)

        return await trio.to_thread.run_sync(begin)

    async def reopen_console(self, build: Build) -> ConsoleWriter:
        """Go on with the console of an attempt of an earlier server. It is looked through first, in its turn."""

        def reopen() -> ConsoleWriter:
            return ConsoleWriter.reopen(make_build_dir(self.data_dir, build) / console.FILE_NAME, build.uuid)

        return await trio.to_thread.run_sync(reopen, limiter=self._reading)

    def writer(self, build: Build) -> ResultWriter:
        """Return what writes the record of an attempt."""
        return ResultWriter(build_dir(self.data_dir, build))

    async def begin_record(
        self, writer: ResultWriter, build: Build, end: ExecutionEnd, lines: ConsoleWriter | None, *, length: int
    ) -> None:
        """Write everything that stands before the artifacts, which take ``length`` bytes.

        Without ``lines`` the attempt is of an earlier server, and its console is looked through first. A console may
        take a minute: it waits for its turn, but for a short one, and whoever is cancelled does not wait for it.
        """
        if lines:
            extent = lines.extent()
        else:
            extent = await trio.to_thread.run_sync(self._repair, build, limiter=self._reading)
        turn = self._reading if extent.size > console.BLOCK_SIZE else None
        await writer.begin(build, end, extent, data_length=length, limiter=turn)

    def _repair(self, build: Build) -> console.Extent:
        return console.repair(make_build_dir(self.data_dir, build) / console.FILE_NAME, build.uuid)

    async def finish(
        self,
        writer: ResultWriter,
        build: Build,
        end: ExecutionEnd,
        *,
        is_lost: bool,
        ended_by: str | None,
        is_delivered: bool,
    ) -> bool:
        """Make a record durable, on the disk and then in the database; return False if it does not run any more.

        ``is_delivered``: its result is what the worker has said.

        What the database keeps of the artifacts is put in before, since there may be a million of them.
        """
        record = partial(
            self.store.finish,
            build.uuid,
            end.finished,
            end.result,
            receivers=self.receivers,
            is_lost=is_lost,
            ended_by=ended_by,
            is_delivered=is_delivered,
        )
        recorded: bool | None = None
        with trio.CancelScope(shield=True):  # bounded by the disk; half of it is of no use to anybody
            try:
                await writer.commit()
                if build.secret_sha256:
                    await self.store.forget_artifacts(build.uuid)  # of a try that did not become durable
                for batch in writer.hashes.batches():
                    await self.store.add_artifacts(build.uuid, batch)
                recorded = await record()
            except Undecided:
                pass
            except (OSError, StoreError):
                await writer.discard()  # after a fault of ours it stays, since nobody knows what was recorded
                raise
        if recorded is None:
            recorded = await _decided(record)
        if not recorded:
            await writer.discard()
        if recorded:
            self.done.builds[build.job.platform, Outcome.LOST if is_lost else outcome_of(end.result)] += 1
        return recorded

    async def note_facts(self, uuid: UUID, facts: Iterable[Fact]) -> None:
        """Keep what the worker says of an attempt, while it runs."""
        await self.store.note_facts(uuid, {fact.name: fact.value for fact in facts})

    async def note_cancel(self, uuid: UUID, by: str) -> bool:
        """Make durable that somebody has cancelled an attempt; return False if it does not run any more."""
        return await self.store.note_cancel(uuid, by)

    async def put_back(self, build: Build, finished: Instant, reason: Aborted, *, counted: bool) -> AfterLoss | str:
        """Throw away what there is of a record, and put the job of an attempt back to the front of its queue.

        In this order: after a crash between the two it still runs, and the next start does both. Of an attempt that was
        cancelled it returns who did, and nothing is put back.
        """
        found = await self.find(build.uuid)
        if found is None or found.state != "running":
            return AfterLoss.NOT_RUNNING
        await self.writer(build).discard()
        after = await self.store.lose(
            build.uuid, finished, reason, count=counted, may_pause=not counted and reason != LOST
        )
        if after is AfterLoss.PUT_BACK:
            self.done.builds[build.job.platform, Outcome.LOST] += 1
        return after

    async def is_filled_by(self, build: Build) -> bool:
        """Return whether the disk is full, and an attempt has written enough to be to blame."""
        try:
            return await trio.to_thread.run_sync(room.is_filled_by, build_dir(self.data_dir, build))
        except OSError:  # then something else is wrong with the disk
            return False

    async def is_running(self, uuid: UUID) -> bool:
        """Return whether an attempt runs, at whatever server."""
        head = await self.store.find_head(uuid)
        return head is not None and head.state == "running"

    async def remove_if_moved(self, uuid: UUID) -> bool:
        """Remove the files of an attempt and return True if another server has it; one that has ended here keeps them."""
        head = await self.store.find_head(uuid)
        if head is None or self.store.is_mine(head.owner):
            return False
        await self.remove_left_behind({uuid: head.name})
        return True

    async def remove_left_behind(self, moved: Mapping[UUID, str]) -> None:
        """Remove the files of attempts that other servers have, as far as there are any; ``moved`` has the names of their jobs."""
        for uuid, job in moved.items():
            with suppress(FileNotFoundError):
                await trio.to_thread.run_sync(shutil.rmtree, directory_of(self.data_dir, job, uuid))
        if moved:
            await self.store.forget_left_behind(moved)

    async def find(self, uuid: UUID) -> Build | None:
        """Return an attempt that may have been taken."""
        return await self.store.find_build(uuid)


async def _decided(record: Callable[[], Awaitable[bool]]) -> bool:
    """Return whether a result is recorded of which that is not known, once the database answers again.

    Until then it stays on the disk: it may be what the database has. Who is cancelled leaves it to the next start.
    """
    while True:
        logger.warning("it is not known whether its result was recorded: the database is asked again")
        await trio.sleep(ASK_AGAIN)
        with suppress(StoreError):
            return await record()
