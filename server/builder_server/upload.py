"""Uploads finished executions to each builder-web that is to get them, in its own time: no worker waits, nothing is held in
memory.

The database says what is to go where, of which those under way are loaded and no others. What fails is tried again, after
pauses that grow, also by a later server; the receiver answers 409 to what it has already. What is refused waits for a
person. The record ``full`` stays on the disk until all receivers have it.
"""

import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import trio
from attrs import define, evolve, field, frozen

from builder.extension.uploads import UploadState
from builder.model import Instant
from builder.quantities import format_duration
from builder.reasons import reason_of
from builder.runtime.changes import Change
from builder_server import retrying
from builder_server.attesting import NotSigned
from builder_server.logs import about_build, note_build
from builder_server.receiver import Receiver, UploadFailed, UploadRefused
from builder_server.results import FILE_NAME, directory_of
from builder_server.scheduler import LONGEST_SLEEP, time_until
from builder_server.store import Attempted, BuildHead, PendingUpload, Store, StoreError

T = TypeVar("T")

logger = logging.getLogger(__name__)

PARALLEL = 2
"""Uploads to a receiver at once: one large execution must not hold up all the small ones."""

RETRY_DATABASE = 10.0
"""Seconds until the database is asked again after an error."""

MAX_REASON = 500
"""Characters that are kept of why an attempt failed."""


@frozen(kw_only=True)
class UploadTiming:
    """When is now, by the wall clock, and what chance says, from 0 to 1, of how long pauses are."""

    now: Callable[[], Instant]
    jitter: Callable[[], float] = random.random


async def _unsigned(_uuid: UUID, _name: str) -> Path | None:
    return None


@define(eq=False)
class Uploader:
    """Posts what is pending, to each receiver as if there were no other."""

    store: Store
    data_dir: Path
    receivers: tuple[Receiver, ...]
    timing: UploadTiming
    provenance_of: Callable[[UUID, str], Awaitable[Path | None]] = _unsigned
    """Returns where what was signed of a build of a job is; raises NotSigned while it is not."""
    attempted: Counter[tuple[str, UploadState]] = field(factory=Counter)
    """Attempts since the start, by receiver and what came of them."""

    _work: Change = field(factory=Change)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the receivers."""
        return tuple(receiver.name for receiver in self.receivers)

    def wake(self) -> None:
        """Say that something may be pending: a build was finished, or somebody wants one tried again."""
        self._work.announce()

    async def run(self) -> None:
        """Upload what is pending, for ever."""
        if not self.receivers:
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._begin)
            for receiver in self.receivers:
                nursery.start_soon(self._serve, receiver)

    async def _begin(self) -> None:
        """Give what waits to the receivers that there are now, and end what an earlier server began."""
        await _retried(self._assign, "pending uploads can't be found")
        self._work.announce()
        await _retried(self._remove_uploaded, "uploaded builds can't be found")

    async def _assign(self) -> None:
        after: UUID | None = None
        while page := await self.store.unsettled_uploads(self.names, after):
            await self.store.settle_uploads(page, self.names)
            after = page[-1]

    async def _remove_uploaded(self) -> None:
        """Remove what an earlier server uploaded and did not come to remove. Raises StoreError."""
        after: UUID | None = None
        while page := await self.store.uploaded(after):
            for after in page:
                if (build := await self.store.find_head(after)) is not None:
                    with about_build(build):
                        await self._remove(build)

    async def _serve(self, receiver: Receiver) -> None:
        """Upload to one receiver, the oldest first."""
        free = trio.Semaphore(PARALLEL)
        under_way: set[UUID] = set()
        async with trio.open_nursery() as nursery:
            while True:
                await free.acquire()
                wait = partial(self._wait_until_due, receiver.name, under_way)
                upload = await _retried(wait, "pending uploads can't be found")
                under_way.add(upload.uuid)
                nursery.start_soon(self._upload, receiver, upload, free, under_way)

    async def _wait_until_due(self, receiver: str, under_way: set[UUID]) -> PendingUpload:
        while True:
            work = self._work.next
            now = self.timing.now()
            found = await self.store.next_upload(receiver, now, under_way)
            if isinstance(found, PendingUpload):
                return found
            with trio.move_on_after(LONGEST_SLEEP.total_seconds() if found is None else time_until(found, now)):
                await work.wait()

    async def _upload(
        self, receiver: Receiver, upload: PendingUpload, free: trio.Semaphore, under_way: set[UUID]
    ) -> None:
        note_build(upload)
        try:
            attempted = await self._attempt(receiver, upload)
            note = partial(self.store.note_attempt, upload.uuid, receiver.name, attempted, self.names)
            self.attempted[receiver.name, attempted.state] += 1
            if await _retried(note, "its upload can't be noted"):
                await self._remove(upload)
        finally:
            under_way.discard(upload.uuid)
            free.release()
            self.wake()

    async def _attempt(self, receiver: Receiver, upload: PendingUpload) -> Attempted:
        """Post a build once; return what came of it."""
        path = directory_of(self.data_dir, upload.name, upload.uuid) / FILE_NAME
        failed = f"not uploaded, it stays at {path}"
        try:
            status = await receiver.post(path, partial(self.provenance_of, upload.uuid, upload.name))
        except (UploadRefused, FileNotFoundError) as error:  # without a file nothing will come of it either
            reason = reason_of(error)[:MAX_REASON]
            logger.error("%s: %s; until `builder-client retry-upload` it is not tried again", failed, reason)
            failures = 0 if isinstance(error, UploadRefused) else None
            return Attempted(state=UploadState.REFUSED, at=self.timing.now(), reason=reason, failures=failures)
        except (UploadFailed, NotSigned, StoreError, OSError) as error:
            attempted = self._postponed(upload, error)
            logger.warning("%s: %s; tried again in %s", failed, attempted.reason, _pause(attempted))
            return attempted
        except Exception as error:
            # a fault of ours or of the HTTP library, told in full: the server has other things to do
            logger.exception("%s", failed)
            return self._postponed(upload, error)
        logger.info("uploaded (HTTP %d) to %s", status, receiver.name)
        return Attempted(state=UploadState.DONE, at=self.timing.now(), failures=0)

    def _postponed(self, upload: PendingUpload, error: Exception) -> Attempted:
        """Return what follows from a failure: the receiver is left alone for a while, or this upload, or both."""
        now, jitter = self.timing.now(), self.timing.jitter()
        attempted = Attempted(state=UploadState.PENDING, at=now, reason=reason_of(error)[:MAX_REASON])
        if isinstance(error, UploadFailed):
            failures = upload.failures + 1
            rest = retrying.pause(failures, jitter, retrying.parse_retry_after(error.retry_after, now))
            attempted = evolve(attempted, failures=failures, resume=now.plus(rest))
            if error.concerns_all:
                return attempted
        return evolve(attempted, next_attempt=now.plus(retrying.pause(upload.attempts + 1, jitter)))

    async def _remove(self, build: BuildHead | PendingUpload) -> None:
        """Remove the local copy of what the receivers have."""
        path = directory_of(self.data_dir, build.name, build.uuid) / FILE_NAME
        try:
            await trio.to_thread.run_sync(lambda: path.unlink(missing_ok=True))
        except OSError as error:
            logger.error("uploaded, but %s can't be removed: %s", path, error.strerror)
            return
        note = partial(self.store.set_upload, build.uuid, "done")
        await _retried(note, "it can't be noted that it is uploaded")


def _pause(attempted: Attempted) -> str:
    """Return how long an upload is not tried again."""
    at = max(moment.ms for moment in (attempted.next_attempt, attempted.resume) if moment)
    return format_duration(round((at - attempted.at.ms) / 1000) * 1000)


async def _retried(action: Callable[[], Awaitable[T]], failure: str) -> T:
    """Return what ``action`` returns once the database lets it; ``failure`` is what the log says until then."""
    while True:
        try:
            return await action()
        except StoreError as error:
            logger.error("%s, trying again: %s", failure, error)
            await trio.sleep(RETRY_DATABASE)
