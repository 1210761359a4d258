"""Uploads finished executions to a builder-web, in their own time: no worker waits, nothing is held in memory.

The database says what is pending, so that an upload which a stop of the server interrupted begins again; the receiver
answers 409 to what it has already. A refused upload stays on disk as ``full`` and is said so in the log.
"""

import logging
from pathlib import Path
from typing import Any

import trio
from attrs import define, field

from builder.reasons import reason_of
from builder.runtime.changes import Change
from builder_server.logs import describe
from builder_server.receiver import Receiver, UploadFailed
from builder_server.results import FILE_NAME, build_dir
from builder_server.store import Build, Store, StoreError

logger = logging.getLogger(__name__)

PARALLEL = 2
"""Uploads at once: one large execution must not hold up all the small ones."""

RETRY_DATABASE = 10.0
"""Seconds until pending uploads are looked up again after the database could not be read."""


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
        limit = trio.CapacityLimiter(PARALLEL)
        under_way: set[Any] = set()
        async with trio.open_nursery() as nursery:
            while True:
                work = self._work.next
                try:
                    for build in await self.store.uploads("uploaded"):
                        await self._remove(build)
                    for build in await self.store.uploads("pending"):
                        if build.uuid not in under_way:
                            under_way.add(build.uuid)
                            nursery.start_soon(self._upload, build, limit, under_way)
                except StoreError as error:
                    logger.error("pending uploads can't be found, trying again: %s", error)
                    await trio.sleep(RETRY_DATABASE)
                    continue
                await work.wait()

    async def _upload(self, build: Build, limit: trio.CapacityLimiter, under_way: set[Any]) -> None:
        path = build_dir(self.data_dir, build) / FILE_NAME
        try:
            async with limit:
                status = await self.receiver.post(path)
                logger.info("%s uploaded (HTTP %d)", describe(build), status)
                await self.store.set_upload(build.uuid, "uploaded")
                await self._remove(build)
        except (UploadFailed, OSError) as error:
            logger.error("%s was not uploaded, it stays at %s: %s", describe(build), path, reason_of(error))
            await self._note_failure(build)
        except StoreError as error:
            logger.error("%s: its upload can't be noted: %s", describe(build), error)
        except Exception:
            # a fault of ours or of the HTTP library, told in full: the server has other things to do
            logger.exception("%s was not uploaded, it stays at %s", describe(build), path)
            await self._note_failure(build)
        finally:
            under_way.discard(build.uuid)

    async def _note_failure(self, build: Build) -> None:
        try:
            await self.store.set_upload(build.uuid, "failed")
        except StoreError as error:
            logger.error("%s: its upload can't be noted: %s", describe(build), error)

    async def _remove(self, build: Build) -> None:
        """Remove the local copy of what the receiver has. Raises StoreError."""
        path = build_dir(self.data_dir, build) / FILE_NAME
        try:
            await trio.to_thread.run_sync(lambda: path.unlink(missing_ok=True))
        except OSError as error:
            logger.error("%s was uploaded, but %s can't be removed: %s", describe(build), path, error.strerror)
            return
        await self.store.set_upload(build.uuid, "done")
