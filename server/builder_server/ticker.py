"""Queues jobs whose time has come."""

import logging
from collections.abc import Callable, Sequence

import trio
from attrs import define

from builder.model import Instant, printable
from builder_server.scheduler import LONGEST_SLEEP, missed_before, time_until
from builder_server.store import Store, StoreError

logger = logging.getLogger(__name__)

MAX_NAMES = 10
"""Jobs that one line of the log names."""


@define(eq=False)
class Ticker:
    """Sleeps until the next run of any job."""

    store: Store
    now: Callable[[], Instant]

    async def run(self) -> None:
        """Queue what is due, for ever."""
        looked: Instant | None = None
        while True:
            changed = self.store.waking.schedule.next
            seconds = LONGEST_SLEEP.total_seconds()
            now = self.now()
            try:
                due = await self.store.queue_due(now, missed_before(looked, now))
                looked = now
                _tell(due.put_back)
                if due.next_run is not None:
                    seconds = time_until(due.next_run, self.now())
            except StoreError as error:
                logger.error("due jobs can't be queued, trying again: %s", error)
            with trio.move_on_after(seconds):
                await changed.wait()


def _tell(put_back: Sequence[str]) -> None:
    if put_back:
        logger.warning(
            "the clock was set back: next runs that were further away than their period are put back, of %s%s",
            ", ".join(map(printable, put_back[:MAX_NAMES])),
            f" and {len(put_back) - MAX_NAMES} more" if len(put_back) > MAX_NAMES else "",
        )
