"""Axes: which values are marked, and how they are written. Durations in milliseconds, sizes in bytes, times as Instants."""

import bisect
import datetime as dt
import math
from collections.abc import Iterator

from attrs import frozen

from builder.model import Instant

MOST = 4
"""Most steps of an axis."""

_SECOND, _MINUTE, _HOUR, _DAY = 1000, 60_000, 3_600_000, 86_400_000
_HALF_DAY = dt.timedelta(hours=12)
_DURATIONS = [
    *(1, 2, 5, 10, 20, 50, 100, 200, 500),
    *(n * _SECOND for n in (1, 2, 5, 10, 15, 30)),
    *(n * _MINUTE for n in (1, 2, 5, 10, 15, 30)),
    *(n * _HOUR for n in (1, 2, 3, 6, 12)),
]
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
_TIMES = [
    *((n * _MINUTE, "%H:%M") for n in (1, 5, 15, 30, 60, 180, 360, 720)),
    *((n * _DAY, "{day} %b") for n in (1, 2, 7, 14)),
]
_MONTHS = (1, 3, 6, 12, 24, 60, 120, 240, 600, 1200, 2400, 6000, 12_000, 24_000, 60_000)


@frozen(kw_only=True)
class Axis:
    """From the first to the last value that an axis shows, and the marks between them with their labels."""

    first: float
    last: float
    marks: tuple[tuple[float, str], ...]

    def place(self, value: float) -> float:
        """Return where a value lies: 0 for the first, 1 for the last."""
        return (value - self.first) / (self.last - self.first)


def duration_axis(longest: int) -> Axis:
    """Return an axis of durations, from 0."""
    least = longest / MOST
    listed = bisect.bisect_left(_DURATIONS, least)
    step = _DURATIONS[listed] if listed < len(_DURATIONS) else _DAY * int(_decimal(max(least / _DAY, 1)))
    count = max(1, math.ceil(longest / step))
    marks = tuple((n * step, duration_words(n * step) if n else "0") for n in range(count + 1))
    return Axis(first=0, last=count * step, marks=marks)


def size_axis(smallest: int, largest: int) -> Axis:
    """Return an axis of sizes: from 0, or, where the sizes are nearly the same, of the range that they are in."""
    if smallest * 2 < largest:
        smallest = 0
    else:  # at least two thousandths are shown, so that labels of a few digits tell the marks apart
        smallest, largest = smallest - smallest // 1000, largest + largest // 1000
    power = min(int(math.log(max(largest, 1), 1024)), len(_UNITS) - 1)
    unit = 1024**power
    least = max((largest - smallest) / MOST / unit, 1 / unit if power else 1)
    step = _decimal(least)  # of the unit
    digits = max(0, -math.floor(math.log10(step)))
    first = math.floor(smallest / unit / step)
    last = max(math.ceil(largest / unit / step), first + 1)
    marks = tuple((n * step * unit, f"{n * step:.{digits}f} {_UNITS[power]}") for n in range(first, last + 1))
    return Axis(first=first * step * unit, last=last * step * unit, marks=marks)


def time_axis(first: Instant, last: Instant) -> Axis:
    """Return an axis of times in UTC, in milliseconds since 1970; a moment alone has a day around it."""
    if first == last:
        first, last = first.plus(-_HALF_DAY), last.plus(_HALF_DAY)
    start, end = first.ms, last.ms
    marks = tuple(_time_marks(start, end))
    return Axis(first=start, last=end, marks=marks)


def duration_words(ms: int) -> str:
    """Return a duration in its two largest units: "1 h 2 min", "58.5 s"."""
    if ms < _SECOND:
        return f"{ms} ms"
    if ms < _MINUTE:
        return f"{ms / _SECOND:.1f}".removesuffix(".0") + " s"
    for large, small, words in ((_DAY, _HOUR, ("d", "h")), (_HOUR, _MINUTE, ("h", "min"))):
        if ms >= large:
            return _two(ms // small, large // small, words)
    return _two(ms // _SECOND, 60, ("min", "s"))


def _two(count: int, factor: int, words: tuple[str, str]) -> str:
    large, small = divmod(count, factor)
    return f"{large} {words[0]}" + (f" {small} {words[1]}" if small else "")


def _decimal(least: float) -> float:
    """Return the next number that is 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(number for n in (1, 2, 5, 10) if (number := n * power) >= least)


def _time_marks(start: int, end: int) -> Iterator[tuple[float, str]]:
    for step, form in _TIMES:
        if (end - start) / step <= MOST:
            for ms in range(-(-start // step) * step, end + 1, step):
                _, fields = Instant(ms).calendar()
                yield ms, fields.strftime(form.format(day=fields.day))
            return
    first, last = (_month(ms) for ms in (start, end))
    step = next(step for step in _MONTHS if (last - first) / step <= MOST)
    for month in range(-(-first // step) * step, last + 1, step):
        if 12 <= month < 120_000:  # the years that datetime knows
            moment = dt.datetime(month // 12, month % 12 + 1, 1, tzinfo=dt.UTC)
            if (ms := Instant.from_datetime(moment).ms) >= start:
                yield ms, f"{moment:%b} {moment.year}" if step < 12 else str(moment.year)


def _month(ms: int) -> int:
    year, fields = Instant(ms).calendar()
    return year * 12 + fields.month - 1
