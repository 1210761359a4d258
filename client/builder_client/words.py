"""How values are said to people, and how people say times to us. Pure: ``now`` is an argument."""

import datetime as dt
import re
from collections.abc import Iterable
from uuid import UUID

from builder.model import Aborted, Exited, Instant, Result, Signalled, Stopped, describe_result, posix_signal, printable

NO_EXIT_STATUS = 125
"""Exit status for a build that has none of its own (aborted, or not told); `docker run` and `timeout` use it so."""

_SECOND, _MINUTE, _HOUR, _DAY = 1, 60, 3600, 86400
_NS_PER_US, _NS_PER_MS, _NS_PER_S = 10**3, 10**6, 10**9
_MAX_SIGNAL = 127  # 128 + signal must fit the eight bits of an exit status

_BAR = 10
"""Characters of a progress bar."""

UUID_DIGITS = 32
_BRIEF_UUID = 8
_HEX = re.compile(rf"[0-9a-f]{{1,{UUID_DIGITS}}}")

_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)"
    r"(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(?: ?([Zz]|[+-]\d\d:\d\d))?)?",
    re.ASCII,
)


def parse_time(text: str) -> Instant:
    """Return the instant of RFC 3339 text; time, seconds and zone may be missing, and what has no zone is UTC.

    Raises ValueError, whose message says what to write.
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise ValueError("write a time like 2030-01-31T12:00:00Z, 2030-01-31T12:00+02:00, or 2030-01-31 (in UTC)")
    year, month, day, hour, minute, second = (int(group or 0) for group in match.groups()[:6])
    microsecond = int((match[7] or "").ljust(6, "0")[:6])
    try:
        moment = dt.datetime(year, month, day, hour, minute, second, microsecond, tzinfo=_zone(match[8]))
        return Instant.from_datetime(moment)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"there is no such time ({error})") from error


def _zone(offset: str | None) -> dt.timezone:
    if offset is None or offset in "Zz":
        return dt.UTC
    hours, minutes = int(offset[1:3]), int(offset[4:])
    if minutes >= 60:
        raise ValueError("the minutes of a zone must be in 0..59")
    return dt.timezone(dt.timedelta(hours=hours, minutes=minutes) * (-1 if offset[0] == "-" else 1))


def parse_id(text: str) -> str:
    """Return the hexadecimal digits of a uuid or of the begin of one. Raises ValueError for anything else."""
    digits = text.lower().replace("-", "")
    if not _HEX.fullmatch(digits):
        raise ValueError(f"{printable(text)!r} is no uuid and no begin of one; 'history' lists builds with theirs")
    return digits


def whole_uuid(digits: str) -> UUID | None:
    """Return the uuid if these are all of its digits."""
    return UUID(hex=digits) if len(digits) == UUID_DIGITS else None


def since_start(ns: int) -> str:
    """Return the time of a console line, nanoseconds since the start, in the form that the original prints."""
    if ns < 0:
        return f"-{since_start(-ns)}"
    if ns < _NS_PER_MS:
        return f"{ns // _NS_PER_US}.{ns % _NS_PER_US:03}us"
    if ns < _NS_PER_S:
        return f"{ns // _NS_PER_MS}.{ns % _NS_PER_MS // _NS_PER_US:03}ms"
    seconds = ns // _NS_PER_S
    if seconds < _MINUTE:
        return f"{seconds}.{ns % _NS_PER_S // _NS_PER_MS:03}s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE}m{seconds % _MINUTE:02}s"
    if seconds < _DAY:
        return f"{seconds // _HOUR}h{seconds % _HOUR // _MINUTE:02}m"
    return f"{seconds // _DAY}d{seconds % _DAY // _HOUR:02}h"


def duration(ms: int) -> str:
    """Return a duration with its one or two largest units: ``45 s``, ``3 min``, ``1 h 20 min``, ``2 d 4 h``."""
    seconds = max(ms, 0) // 1000
    if seconds < _MINUTE:
        return f"{seconds} s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE} min"
    if seconds < _DAY:
        return _two_units(seconds, _HOUR, "h", _MINUTE, "min")
    return _two_units(seconds, _DAY, "d", _HOUR, "h")


def _two_units(seconds: int, large: int, large_name: str, small: int, small_name: str) -> str:
    rest = seconds % large // small
    return f"{seconds // large} {large_name}" + (f" {rest} {small_name}" if rest else "")


def bar(elapsed: int, expected: int | None) -> str:
    """Return how far a build is, as a bar and a percentage; empty where nothing is expected."""
    if not expected:
        return ""
    part = min(elapsed / expected, 1.0)
    full = int(part * _BAR)
    return f"[{'#' * full}{'-' * (_BAR - full)}] {int(part * 100):3}%"


def brief_time(text: str) -> str:
    """Return an ISO time to the minute: ``2030-01-31 06:00Z``; other texts as they are."""
    return f"{text[:10]} {text[11:16]}Z" if _TIME.fullmatch(text) else text


def brief_uuid(text: str) -> str:
    """Return the begin of a uuid, which every command takes for it."""
    return text[:_BRIEF_UUID]


def seconds(moment: Instant) -> str:
    """Return a time without its fraction of a second."""
    return Instant(moment.ms // 1000 * 1000).isoformat()


def until(moment: Instant, now: Instant) -> str:
    """Return when a run comes, seen from ``now``: ``in 3 h``, or ``due``."""
    return f"in {duration(moment.ms - now.ms)}" if moment.ms > now.ms else "due"


def near(name: str, known: Iterable[str]) -> str | None:
    """Return which of the known names may have been meant."""
    import difflib

    return next(iter(difflib.get_close_matches(name, known, n=1)), None)


def count(number: int, noun: str) -> str:
    """Return ``1 artifact``, ``3 artifacts``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def result(value: Result) -> str:
    """Return how a build ended, signals with the names and numbers of this system."""
    if isinstance(value, Aborted):
        return f"aborted: {printable(value.message)}"
    return describe_result(value)


def exit_status(value: Result | None) -> int:
    """Return the exit status that passes on a result, as a shell would: never 0 but for a job that exited 0."""
    match value:
        case Exited(code=code):
            return code & 0xFF or (1 if code else 0)
        case Signalled(signal=number) | Stopped(signal=number):
            number = posix_signal(number)
            return 128 + number if 0 < number <= _MAX_SIGNAL else NO_EXIT_STATUS
    return NO_EXIT_STATUS
