"""When jobs run. Pure: the time is an argument."""

import datetime as dt

from builder.model import NEVER, Instant, Period

MAX_LOSSES = 3
"""Workers lost in a row with the same job before it is recorded as failed: a job that kills its workers must end."""

LONGEST_SLEEP = dt.timedelta(seconds=60)
"""Longest wait for the next due job, so that a clock that was set is noticed; the original ticks as often."""

CORRECTION = dt.timedelta(minutes=1)
"""What a clock may be set back by in the course of things; runs are left where they are."""

NEVER_SET = Instant.from_datetime(dt.datetime(2025, 1, 1, tzinfo=dt.UTC))
"""A clock that shows less was never set, as after the start of a machine without a battery: nothing follows from it."""


def following_run(run: Instant, period: Period, now: Instant) -> Instant:
    """Return the run after ``run`` that lies in the future, on the grid that ``run`` and ``period`` make.

    Runs that were missed are not made up for one by one; the grid does not move with the time they were noticed.
    """
    if period.duration is None:
        return NEVER
    step = period.duration // dt.timedelta(milliseconds=1)
    missed = max(0, now.ms - run.ms) // step
    return Instant(min(run.ms + (missed + 1) * step, NEVER.ms))


def latest_run(period: Period, now: Instant) -> Instant | None:
    """Return the last moment for which the server can have planned a run itself, if its clock was right; None for any.

    A run that lies beyond was planned by a clock that was ahead.
    """
    if period.duration is None or now < NEVER_SET:
        return None
    return now.plus(period.duration + CORRECTION)


def put_back(run: Instant, period: Period, now: Instant) -> Instant:
    """Return the run that takes the place of one that lies too far away: the next one on its grid."""
    assert period.duration is not None, "what never runs has no grid"
    step = period.duration // dt.timedelta(milliseconds=1)
    return Instant(now.ms + 1 + (run.ms - now.ms - 1) % step)


def time_until(run: Instant, now: Instant) -> float:
    """Return the seconds to sleep before looking again for due jobs, given the earliest next run."""
    return min(max(0, run.ms - now.ms) / 1000, LONGEST_SLEEP.total_seconds())
