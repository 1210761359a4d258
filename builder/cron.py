"""Cron rules: when a job runs, by the clock on the wall of a time zone. Pure.

croniter reads the rules and finds the next time that matches on a clock that never jumps; what happens where a clock on
a wall does jump, for summer time or by decree, is decided here:

- A rule with ``*`` or ``*/n`` in the hour runs whenever the clock shows a time that matches. So every 15 minutes stays
  every 15 minutes through both changes.
- Any other rule names times of the day. One that the clock leaves out runs at the first moment after the gap, one that it
  shows twice runs the first time; and two that fall on the same moment run once.

``H`` stands for a value that the name of the job fixes, within the field or within a range, as in ``H(0-5)``.
"""

import contextlib
import datetime as dt
import itertools
import re
import zoneinfo
from collections.abc import Iterator

from attrs import field, frozen
from croniter import CroniterError, croniter

from builder.errors import InvalidOptions
from builder.model import NEVER, Instant, Period, printable

ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
"""Short names of rules. croniter has them too, but gives them other times where a job has a name."""

MAX_LENGTH = 200
"""Characters of the longest rule: a field may list many values."""

_FIELDS = 5
_YEARS = 9
"""Years that are looked ahead: from 2096 on the 29th of February does not come for eight."""

_SECOND = dt.timedelta(seconds=1)
_DAY = dt.timedelta(days=1)

_SAMPLES = 12
"""Runs whose intervals tell how often a rule runs."""


class InvalidRule(InvalidOptions):
    """Text that is no cron rule, never matches, or names no time zone; the error says what to write."""


def time_zone(name: str) -> dt.tzinfo:
    """Return a time zone by its name in the tz database, such as Europe/Copenhagen. Raises InvalidRule."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:  # OSError: the name of a directory
        raise InvalidRule(
            f"unknown time zone {printable(name[:100])!r}: write one such as Europe/Copenhagen"
        ) from error


@frozen(kw_only=True)
class Rule:
    """A cron rule in its time zone; ``name`` is the job's, which fixes what ``H`` stands for."""

    text: str
    zone: str = "UTC"
    name: str = ""
    _zone: dt.tzinfo = field(init=False, repr=False, eq=False)
    _expression: str = field(init=False, repr=False, eq=False)
    _follows_clock: bool = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        """Raises InvalidRule."""
        expression = _normal(self.text)
        hour = expression.split()[1]
        object.__setattr__(self, "_zone", time_zone(self.zone))
        object.__setattr__(self, "_expression", expression)
        object.__setattr__(self, "_follows_clock", hour == "*" or hour.startswith("*/"))
        if next(self._walls(dt.datetime(2000, 1, 1)), None) is None:  # noqa: DTZ001 - a wall has no zone
            raise self._refuse("it never matches a day of the calendar")

    def _refuse(self, reason: str) -> InvalidRule:
        return _invalid(self.text, reason)

    def next_after(self, now: Instant) -> Instant:
        """Return the first run later than ``now``; NEVER if there is none before the year 9999 ends."""
        moment = now.to_datetime()
        try:
            found = self._next_by_clock(moment) if self._follows_clock else self._next_of_day(moment)
        except OverflowError:  # beyond the last year
            found = None
        return NEVER if found is None else Instant.from_datetime(found)

    def runs(self, now: Instant) -> Iterator[Instant]:
        """Yield the runs later than ``now``, one after the other."""
        while (now := self.next_after(now)) < NEVER:
            yield now

    def nearest_period(self, now: Instant) -> Period:
        """Return the period whose length is nearest, as a ratio, to the mean interval of the next runs."""
        walls: list[dt.datetime] = []
        with contextlib.suppress(OverflowError):  # beyond the last year
            walls.extend(itertools.islice(self._walls(self._wall(now.to_datetime())), _SAMPLES))
        if len(walls) < 2:
            return Period.NEVER
        mean = (walls[-1] - walls[0]) / (len(walls) - 1)

        def distance(period: Period) -> float:
            assert period.duration is not None
            return max(mean / period.duration, period.duration / mean)

        return min((period for period in Period if period.duration is not None), key=distance)

    # --- walls and moments: a wall is a naive datetime, a moment one in UTC ---------------------------------------------

    def _walls(self, after: dt.datetime) -> Iterator[dt.datetime]:
        """Yield the times that match, on a clock that never jumps."""
        times = croniter(
            self._expression, after, ret_type=dt.datetime, hash_id=self.name.encode("utf-8", "surrogateescape"),
            max_years_between_matches=_YEARS,
        )  # fmt: skip
        try:
            while True:
                yield times.get_next()
        except CroniterError:  # none in so many years
            return

    def _offset(self, moment: dt.datetime) -> dt.timedelta:
        offset = moment.astimezone(self._zone).utcoffset()
        assert offset is not None, "every zone has one"
        return offset

    def _wall(self, moment: dt.datetime) -> dt.datetime:
        return moment.astimezone(self._zone).replace(tzinfo=None)

    def _jump(self, before: dt.datetime, after: dt.datetime) -> dt.datetime:
        """Return the first moment with another offset than ``before``, by the second; ``after`` has another one."""
        offset = self._offset(before)
        while after - before > _SECOND:
            middle = before + (after - before) // 2
            before, after = (middle, after) if self._offset(middle) == offset else (before, middle)
        return after.replace(microsecond=0)

    def _next_by_clock(self, moment: dt.datetime) -> dt.datetime | None:
        wall = self._wall(moment)
        while True:
            offset = self._offset(moment)
            matching = next(self._walls(wall), None)
            if matching is None:
                return None
            found = matching.replace(tzinfo=dt.UTC) - offset
            if self._offset(found) == offset:
                return found
            moment = self._jump(moment, found)  # the clock jumps before: what it shows from there on
            wall = self._wall(moment) - _SECOND

    def _next_of_day(self, moment: dt.datetime) -> dt.datetime | None:
        for wall in self._walls(self._wall(moment)):
            shown = wall.replace(tzinfo=self._zone).astimezone(dt.UTC)
            if self._wall(shown) != wall:  # left out
                shown = self._jump(shown - _DAY, shown)
            if shown > moment:
                return shown
        return None


def _invalid(text: str, reason: str) -> InvalidRule:
    return InvalidRule(
        f"invalid cron rule {printable(text[:MAX_LENGTH])!r}: {reason}; write minute, hour, day of the month, month and day "
        f"of the week, as in '17 3 * * mon-fri'"
    )


def _normal(text: str) -> str:
    """Return a rule with its five fields. Raises InvalidRule."""
    if len(text) > MAX_LENGTH:
        raise _invalid(text, f"it has more than {MAX_LENGTH} characters")
    words = text.split()
    if len(words) == 1 and words[0].startswith("@"):
        if (alias := ALIASES.get(words[0].lower())) is None:
            raise _invalid(text, f"there are only {', '.join(ALIASES)}")
        return alias
    if len(words) != _FIELDS:
        raise _invalid(text, f"it has {len(words)} fields instead of {_FIELDS}")
    if any("r" in word.lower().split("(")[0].split("/")[0].split(",") for word in words):
        raise _invalid(text, "R would be another time at each look")
    _, _, of_month, _, of_week = (word.lower() for word in words)
    if {"*", "?"}.isdisjoint([of_month, of_week]) and (re.search("[lw]", of_month) or re.search("[l#]", of_week)):
        # croniter drops such days, or gives up at the first month without one; others take a day that matches either
        raise _invalid(text, "L, W and # can't stand beside a day of the other kind")
    expression = " ".join(words)
    try:
        croniter.expand(expression, hash_id=b"")
    except (CroniterError, ValueError, KeyError, IndexError, OverflowError) as error:
        raise _invalid(text, "one of its fields has a value that does not exist") from error
    return expression
