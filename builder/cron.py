"""Cron rules: when a job runs, by the clock on the wall of a time zone. Pure.

croniter reads the rules and finds the next time that matches on a clock that never jumps; what happens where a clock on
a wall does jump, for summer time or by decree, is decided here:

- A rule with ``*`` or ``*/n`` in the hour runs whenever the clock shows a time that matches. So every 15 minutes stays
  every 15 minutes through both changes.
- Any other rule names times of the day. One that the clock leaves out runs at the first moment after the gap, one that it
  shows twice runs the first time; and two that fall on the same moment run once.

``H`` stands for a value that the name of the job fixes, within the field or within a range, as in ``H(0-5)``; ``H/15`` for
every 15th from such a one on. Of the days of a month it is one that each month has. croniter would draw all fields from
the same few bits, so that a thousand jobs would share 240 times of the day.
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
from builder.spread import place

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

_BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
"""First and last value of each field. Sunday is 0 and 7."""

_HASHED_BOUNDS = ((0, 59), (0, 23), (1, 28), (1, 12), (0, 6))
"""The same of a bare H."""

_NAMES = {
    3: ("", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    4: ("sun", "mon", "tue", "wed", "thu", "fri", "sat"),
}
"""Names of values, of the fields that have them."""

_SUNDAY = "sun"
"""What a week ends with as well as begins."""

_HASHED = re.compile(r"h(?:\((\d+)-(\d+)\))?(?:/(\d+))?", re.IGNORECASE | re.ASCII)
_RANDOM = re.compile(r"r(\(.*\))?(/.*)?", re.IGNORECASE)
_RANGE = re.compile(r"(\w+)-(\w+)(/0*[1-9]\d*)?", re.ASCII)

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
        expression = _normal(self.text, self.name)
        hours = expression.split()[1].split(",")
        object.__setattr__(self, "_zone", time_zone(self.zone))
        object.__setattr__(self, "_expression", expression)
        object.__setattr__(self, "_follows_clock", any(hour == "*" or hour.startswith("*/") for hour in hours))
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
        times = croniter(self._expression, after, ret_type=dt.datetime, max_years_between_matches=_YEARS)
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


def _normal(text: str, name: str) -> str:
    """Return a rule with its five fields, as croniter reads them. Raises InvalidRule."""
    if len(text) > MAX_LENGTH:
        raise _invalid(text, f"it has more than {MAX_LENGTH} characters")
    words = text.split()
    if len(words) == 1 and words[0].startswith("@"):
        if (alias := ALIASES.get(words[0].lower())) is None:
            raise _invalid(text, f"there are only {', '.join(ALIASES)}")
        return alias
    if len(words) != len(_BOUNDS):
        raise _invalid(text, f"it has {len(words)} field{'s' * (len(words) != 1)} instead of {len(_BOUNDS)}")
    _, _, of_month, _, of_week = (word.lower() for word in words)
    if {"*", "?"}.isdisjoint([of_month, of_week]) and (re.search("[lw]", of_month) or re.search("[l#]", of_week)):
        # croniter drops such days, or gives up at the first month without one; others take a day that matches either
        raise _invalid(text, "L, W and # can't stand beside a day of the other kind")
    try:
        expression = " ".join(
            ",".join(_item(item, which, name) for item in word.split(",")) for which, word in enumerate(words)
        )
        croniter.expand(expression)
    except InvalidRule as error:
        raise _invalid(text, str(error)) from error
    except (CroniterError, ValueError, KeyError, IndexError, OverflowError) as error:
        raise _invalid(text, "one of its fields has a value that does not exist") from error
    return expression


def _item(item: str, field: int, name: str) -> str:
    """Return one of the values that a field lists as croniter reads it. Raises InvalidRule, which says the reason alone."""
    if _RANDOM.fullmatch(item):
        raise InvalidRule("R would be another time at each look")
    if (found := _HASHED.fullmatch(item)) is not None:
        return _hashed(field, name, *found.groups())
    if (found := _RANGE.fullmatch(item)) is None:
        return item
    begin, end, step = found.groups("")
    first, last = _BOUNDS[field]
    low, high = _value(begin, field), _value(end, field)
    if low and end.lower() == _SUNDAY:
        end, high = str(last), last
    if low is None or high is None:
        return item  # croniter refuses it, and says so better
    if low <= high:
        return f"{begin}-{end}{step}" if low < high else begin  # a range of one is the whole field to croniter
    raise InvalidRule(
        f"{begin}-{end} ends before it begins: write two ranges, {begin}-{last}{step},{first}-{end}{step}"
    )


def _value(word: str, field: int) -> int | None:
    """Return what a number or a name stands for."""
    if word.isdecimal():
        return int(word)
    names = _NAMES.get(field, ())
    return names.index(word.lower()) if word.lower() in names else None


def _hashed(field: int, name: str, begin: str | None, end: str | None, step: str | None) -> str:
    """Return the value, or with a step those, that H stands for in a field. Raises InvalidRule."""
    low, high = _HASHED_BOUNDS[field] if begin is None or end is None else (int(begin), int(end))
    first, last = _BOUNDS[field]
    every = high - low + 1 if step is None else int(step)
    if not (first <= low <= high <= last and every):
        raise InvalidRule("one of its fields has a value that does not exist")
    start = low + place(name, min(every, high - low + 1), draw=field)
    return str(start) if step is None or start == high else f"{start}-{high}/{every}"
