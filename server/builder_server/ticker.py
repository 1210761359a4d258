"""Queues jobs whose time has come."""

import logging
from collections.abc import Callable

import trio
from attrs import define

from builder.model import Instant
from builder_server.scheduler import LONGEST_SLEEP, time_until
from builder_server.store import Store, StoreError

logger = logging.getLogger(__name__)


@define(eq=False)
class Ticker:
    """Sleeps until the next run of any job."""

    store: Store
    now: Callable[[], Instant]

    async def run(self) -> None:
        """Queue what is due, for ever."""
        while True:
            changed = self.store.waking.schedule.next
            seconds = LONGEST_SLEEP.total_seconds()
            try:
                earliest = await self.store.queue_due(self.now())
                if earliest is not None:
                    seconds = time_until(earliest, self.now())
            except StoreError as error:
                logger.error("due jobs can't be queued, trying again: %s", error)
            with trio.move_on_after(seconds):
                await changed.wait()
