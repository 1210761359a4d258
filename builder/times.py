"""Times on the wire: the bytes of a GeneralizedTime or UTCTime, to an Instant and back.

The original's form is not DER's own: three digits of a fraction keep their trailing zeros. So the codec carries the bytes
as they are.
"""

import datetime as dt
import re

from builder.errors import ProtocolError
from builder.model import Instant

_GENERALIZED = re.compile(rb"(\d{4})(\d\d)(\d\d)(\d\d)(?:(\d\d)(?:(\d\d)(?:\.(\d{3,7}))?)?)?(?:Z|([+-])(\d\d)(\d\d))")
_UTC = re.compile(rb"(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)?()(?:Z|([+-])(\d\d)(\d\d))")
_CYCLE_YEARS = 400
_CYCLE_MS = 146_097 * 24 * 60 * 60 * 1000  # 400 Gregorian years


def decode_time(kind: str, data: bytes) -> Instant:
    """Return the instant of the bytes of a time; ``kind`` is "utcTime" or "generalizedTime".

    Seconds and minutes may be missing; a fraction has three to seven digits, of which three count; an offset may take
    the place of the Z. What else the original tolerates (underscores, ``.2`` for 2 ms, no zone) is refused.
    """
    match = (_UTC if kind == "utcTime" else _GENERALIZED).fullmatch(data)
    if match is None:
        raise ProtocolError(f"malformed time {bytes(data[:40])!r}")
    year, month, day, hour, minute, second = (int(group or 0) for group in match.group(1, 2, 3, 4, 5, 6))
    if kind == "utcTime":
        year += 1900 if year >= 50 else 2000
    milliseconds = int((match[7] or b"0")[:3])
    offset = dt.timedelta(hours=int(match[9] or 0), minutes=int(match[10] or 0))
    try:
        # datetime lacks the year 0, so compute in the years 400 to 799 and move by whole cycles of the calendar
        cycles, year_of_cycle = divmod(year, _CYCLE_YEARS)
        moment = dt.datetime(
            _CYCLE_YEARS + year_of_cycle, month, day, hour, minute, second, milliseconds * 1000, tzinfo=dt.UTC
        )
        moment += offset if match[8] == b"-" else -offset
        return Instant(Instant.from_datetime(moment).ms + (cycles - 1) * _CYCLE_MS)
    except (ValueError, OverflowError) as error:
        raise ProtocolError(f"time out of range {bytes(data[:40])!r}") from error


def encode_time(value: Instant) -> bytes:
    """Return the bytes of a GeneralizedTime as the original writes it."""
    year, moment = value.calendar()
    fraction = f".{value.ms % 1000:03}" if value.ms % 1000 else ""
    return f"{year:04}{moment:%m%d%H%M%S}{fraction}Z".encode("ascii")
