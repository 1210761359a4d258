"""Queues jobs whose time has come."""

import logging
from collections.abc import Callable

import trio
from attrs import define, field

from builder.model import Instant
from builder.runtime.changes import Change
from builder_server.scheduler import LONGEST_SLEEP, time_until
from builder_server.store import Store, StoreError

logger = logging.getLogger(__name__)


@define(eq=False)
class Ticker:
    """Sleeps until the next run of any job. ``on_queued`` is called when jobs were queued."""

    store: Store
    now: Callable[[], Instant]
    on_queued: Callable[[], None]
    _changed: Change = field(factory=Change)

    def wake(self) -> None:
        """Say that a next run may have changed."""
        self._changed.announce()

    async def run(self) -> None:
        """Queue what is due, for ever."""
        while True:
            changed = self._changed.next
            seconds = LONGEST_SLEEP.total_seconds()
            try:
                if await self.store.queue_due(self.now()):
                    self.on_queued()
                earliest = await self.store.next_run()
                if earliest is not None:
                    seconds = time_until(earliest, self.now())
            except StoreError as error:
                logger.error("due jobs can't be queued, trying again: %s", error)
            with trio.move_on_after(seconds):
                await changed.wait()
