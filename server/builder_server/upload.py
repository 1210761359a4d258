"""Uploads finished executions to a builder-web, in their own time: no worker waits, nothing is held in memory.

The database says what is pending, of which those under way are loaded and no others, so that an upload which a stop of
the server interrupted begins again; the receiver answers 409 to what it has already. A refused upload stays on disk as
``full`` and is said so in the log.
"""

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import trio
from attrs import define, field

from builder.reasons import reason_of
from builder.runtime.changes import Change
from builder_server.logs import describe
from builder_server.receiver import Receiver, UploadFailed
from builder_server.results import FILE_NAME, build_dir
from builder_server.store import Build, Store, StoreError

T = TypeVar("T")

logger = logging.getLogger(__name__)

PARALLEL = 2
"""Uploads at once: one large execution must not hold up all the small ones."""

RETRY_DATABASE = 10.0
"""Seconds until the database is asked again after an error."""


@define(eq=False)
class Uploader:
    """Posts what is pending."""

    store: Store
    data_dir: Path
    receiver: Receiver
    _work: Change = field(factory=Change)

    def wake(self) -> None:
        """Say that a build was finished."""
        self._work.announce()

    async def run(self) -> None:
        """Upload what is pending, for ever."""
        free = trio.Semaphore(PARALLEL)
        under_way: set[UUID] = set()
        async with trio.open_nursery() as nursery:
            await _retried(self._remove_uploaded, "uploaded builds can't be found")
            while True:
                await free.acquire()
                build = await _retried(partial(self._wait_for_pending, under_way), "pending uploads can't be found")
                under_way.add(build.uuid)
                nursery.start_soon(self._upload, build, free, under_way)

    async def _wait_for_pending(self, under_way: set[UUID]) -> Build:
        while True:
            work = self._work.next
            if (build := await self.store.oldest_pending(under_way)) is not None:
                return build
            await work.wait()

    async def _remove_uploaded(self) -> None:
        """Remove what an earlier server uploaded and did not come to remove. Raises StoreError."""
        after: UUID | None = None
        while page := await self.store.uploaded(after):
            for after in page:
                if (build := await self.store.find_build(after)) is not None:
                    await self._remove(build)

    async def _upload(self, build: Build, free: trio.Semaphore, under_way: set[UUID]) -> None:
        path = build_dir(self.data_dir, build) / FILE_NAME
        try:
            status = await self.receiver.post(path)
            logger.info("%s uploaded (HTTP %d)", describe(build), status)
            await self._note(build, "uploaded")
            await self._remove(build)
        except (UploadFailed, OSError) as error:
            logger.error("%s was not uploaded, it stays at %s: %s", describe(build), path, reason_of(error))
            await self._note(build, "failed")
        except Exception:
            # a fault of ours or of the HTTP library, told in full: the server has other things to do
            logger.exception("%s was not uploaded, it stays at %s", describe(build), path)
            await self._note(build, "failed")
        finally:
            under_way.discard(build.uuid)
            free.release()

    async def _note(self, build: Build, state: str) -> None:
        """Record how far an upload is, however long the database takes: it would only begin again."""
        await _retried(
            partial(self.store.set_upload, build.uuid, state), f"{describe(build)}: its upload can't be noted"
        )

    async def _remove(self, build: Build) -> None:
        """Remove the local copy of what the receiver has."""
        path = build_dir(self.data_dir, build) / FILE_NAME
        try:
            await trio.to_thread.run_sync(lambda: path.unlink(missing_ok=True))
        except OSError as error:
            logger.error("%s was uploaded, but %s can't be removed: %s", describe(build), path, error.strerror)
            return
        await self._note(build, "done")


async def _retried(action: Callable[[], Awaitable[T]], failure: str) -> T:
    """Return what ``action`` returns once the database lets it; ``failure`` is what the log says until then."""
    while True:
        try:
            return await action()
        except StoreError as error:
            logger.error("%s, trying again: %s", failure, error)
            await trio.sleep(RETRY_DATABASE)
