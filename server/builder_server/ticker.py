"""Queues jobs whose time has come."""

import datetime as dt
import logging
from collections.abc import Callable, Sequence

import trio
from attrs import define

from builder.model import Instant
from builder.quantities import format_duration
from builder_server.scheduler import LONGEST_SLEEP, jump, missed_before, time_until
from builder_server.store import Store, StoreError

logger = logging.getLogger(__name__)

MAX_NAMES = 10
"""Jobs that one line of the log names."""


@define(eq=False)
class Ticker:
    """Sleeps until the next run of any job.

    ``elapsed`` is a clock that nobody sets, in seconds. The wall clock may be set at any time; with the other one beside it
    that is told from a time in which nobody looked, because the server was held up or the machine slept.
    """

    store: Store
    now: Callable[[], Instant]
    elapsed: Callable[[], float]

    async def run(self) -> None:
        """Queue what is due, for ever."""
        looked: tuple[Instant, float] | None = None
        while True:
            changed = self.store.waking.schedule.next
            if not self.store.waking.keeps_schedule:
                looked = None
                await changed.wait()
                continue
            seconds = LONGEST_SLEEP.total_seconds()
            now, elapsed = self.now(), self.elapsed()
            try:
                unwatched = elapsed - looked[1] if looked else await self.store.unwatched()
                due = await self.store.queue_due(now, missed_before(unwatched, now))
                if looked and (jumped := jump(looked[0], now, elapsed - looked[1])):
                    _tell_jump(jumped)
                looked = now, elapsed
                _tell(due.put_back)
                if due.next_run is not None:
                    seconds = time_until(due.next_run, self.now())
            except StoreError as error:
                logger.error("due jobs can't be queued, trying again: %s", error)
            with trio.move_on_after(seconds):
                await changed.wait()


def _tell_jump(jumped: dt.timedelta) -> None:
    direction = "back" if jumped < dt.timedelta() else "forward"
    logger.warning("the clock was set %s by %s", direction, format_duration(round(abs(jumped).total_seconds()) * 1000))


def _tell(put_back: Sequence[str]) -> None:
    if put_back:
        logger.warning(
            "the clock was set back: next runs that were further away than their period are put back, of %s%s",
            ", ".join(put_back[:MAX_NAMES]),
            f" and {len(put_back) - MAX_NAMES} more" if len(put_back) > MAX_NAMES else "",
        )
