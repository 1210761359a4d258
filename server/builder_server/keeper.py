"""Removes builds that are not kept any longer: their files first, so that nothing is left of what the history forgets."""

import datetime as dt
import logging
import math
import shutil
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from uuid import UUID

import trio
from attrs import define

from builder.model import Instant
from builder.sizes import format_size
from builder_server.results import directory_of
from builder_server.retention import Retention
from builder_server.store import OldBuild, Store, StoreError

logger = logging.getLogger(__name__)

INTERVAL = dt.timedelta(hours=1)
"""Time between two looks for what may go."""

SKIPPED_AGE = dt.timedelta(days=365)
"""How long it is known which runs were left out, if builds are kept for longer."""


@define(eq=False)
class Keeper:
    """Looks for what may go, at the start and each hour."""

    store: Store
    data_dir: Path
    now: Callable[[], Instant]
    retention: Retention

    async def run(self) -> None:
        """Remove what may go, for ever."""
        while True:
            try:
                await self.look()
            except StoreError as error:
                logger.error("builds that need not be kept can't be removed, trying again: %s", error)
            await trio.sleep(INTERVAL.total_seconds())

    async def look(self) -> None:
        """Remove what may go, and say so. Raises StoreError."""
        kept, now = self.retention, self.now()
        if kept.age is not None:
            before = now.plus(-kept.age)
            await self._remove_all(partial(self.store.older_than, before), f"older than {_days(kept.age)}")
        if kept.count is not None:
            await self._remove_all(partial(self.store.beyond_count, kept.count), f"beyond {kept.count} of their job")
        if kept.bytes is not None:
            await self._measure_all()
            excess = await self.store.total_size() - kept.bytes
            await self._remove_all(self.store.oldest, f"the oldest beyond {format_size(kept.bytes)}", excess)
        await self.store.forget_skipped(now.plus(-min(kept.age or SKIPPED_AGE, SKIPPED_AGE)))

    async def _measure_all(self) -> None:
        while page := await self.store.unmeasured():
            sizes = {each.uuid: await trio.to_thread.run_sync(_size, self._directory(each)) for each in page}
            await self.store.measure(sizes)

    def _directory(self, build: OldBuild) -> Path:
        return directory_of(self.data_dir, build.name, build.uuid)

    async def _remove_all(
        self, find: Callable[[OldBuild | None], Awaitable[Sequence[OldBuild]]], why: str, excess: float = math.inf
    ) -> None:
        """Remove what is found page by page, until ``excess`` bytes are gone."""
        count = size = 0
        last: OldBuild | None = None
        while excess > 0 and (page := await find(last)):
            removed: dict[UUID, int] = {}
            for last in page:
                if excess > 0 and (freed := await self._remove_files(last)) is not None:
                    removed[last.uuid] = freed
                    excess -= last.size
            if removed:
                await self.store.forget(removed)
            count += len(removed)
            size += sum(removed.values())
            if excess > 0 and len(removed) < len(page):
                break  # the disk does not do it: not before the next look
        if count:
            logger.info("removed %d builds, %s: %s", count, format_size(size), why)

    async def _remove_files(self, build: OldBuild) -> int | None:
        """Return the bytes that were freed; None where the disk did not do it."""
        directory = self._directory(build)
        try:
            return await trio.to_thread.run_sync(_remove, directory)
        except OSError as error:
            logger.error("%s can't be removed: %s", directory, error.strerror)
            return None


def _remove(directory: Path) -> int:
    size = _size(directory)
    try:
        shutil.rmtree(directory)
    except FileNotFoundError:
        return 0
    if not any(directory.parent.iterdir()):
        directory.parent.rmdir()
    return size


def _size(directory: Path) -> int:
    """Return the bytes of the files of a build."""
    try:
        return sum(file.stat().st_size for file in directory.iterdir())
    except OSError:
        return 0  # it is gone, or can't be looked at: what is not known is not counted


def _days(age: dt.timedelta) -> str:
    return f"{age.total_seconds() / 86400:g} days"
