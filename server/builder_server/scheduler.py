"""When jobs run. Pure: the time is an argument."""

import datetime as dt

from builder.model import Instant

MAX_LOSSES = 3
"""Workers lost in a row with the same job before it is recorded as failed: a job that kills its workers must end."""

PAUSE = dt.timedelta(minutes=1)
"""How long a job waits that was lost again and again without being to blame, as for a part of the disk that is broken."""

LONGEST_SLEEP = dt.timedelta(seconds=60)
"""Longest wait for the next due job, so that a clock that was set is noticed; the original ticks as often."""

CORRECTION = dt.timedelta(minutes=1)
"""What a clock may be set by in the course of things; runs are left where they are."""

AGING = 3_600_000
"""Milliseconds of waiting that weigh as much as one level of priority: an hour.

The place of an entry in its queue is the time at which it was due, less so much for each level: the smallest goes first.
It does not change with the time, and an entry of priority 0 is overtaken by those that are due up to nine hours later,
and by no others. So none starves.
"""

NEVER_SET = Instant.from_datetime(dt.datetime(2025, 1, 1, tzinfo=dt.UTC))
"""A clock that shows less was never set, as after the start of a machine without a battery: nothing follows from it."""


def latest_plan(now: Instant) -> Instant | None:
    """Return the last moment at which a run can have been planned, if the clock was right then; None if it is not now."""
    return None if now < NEVER_SET else now.plus(CORRECTION)


LONGEST_BACKOFF = dt.timedelta(hours=4)


def backoff(retry: int) -> dt.timedelta:
    """Return how long a job that has failed waits before it runs again; ``retry`` is 0 for the run itself.

    A minute, then four times as long each time, up to LONGEST_BACKOFF.
    """
    return min(dt.timedelta(minutes=4**retry), LONGEST_BACKOFF)


def missed_before(unwatched: float | None, now: Instant) -> Instant | None:
    """Return up to when runs were due while nobody looked; None: at no time.

    ``unwatched`` are the seconds since the last look, by a clock that nobody sets; None: there was none. So a clock that
    is set forward makes no run a missed one.
    """
    if unwatched is None or unwatched > 2 * LONGEST_SLEEP.total_seconds():
        return now  # the server, or the whole machine, was down
    return None


def jump(looked: Instant, now: Instant, elapsed: float) -> dt.timedelta | None:
    """Return how far the clock was set forward since it was looked at, negative for back; None if it was not."""
    found = dt.timedelta(milliseconds=now.ms - looked.ms) - dt.timedelta(seconds=elapsed)
    return found if abs(found) > CORRECTION else None


def time_until(run: Instant, now: Instant) -> float:
    """Return the seconds to sleep before looking again for due jobs, given the earliest next run."""
    return min(max(0, run.ms - now.ms) / 1000, LONGEST_SLEEP.total_seconds())
