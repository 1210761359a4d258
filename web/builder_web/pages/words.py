"""Times, durations and texts as people read them."""

import datetime as dt
import re

from builder.model import Instant
from builder.quantities import format_duration

# Controls but tab and newline, those that change the direction of writing, and bytes that were not UTF-8
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def exact_time(moment: Instant) -> str:
    """Return a moment as the original writes it: ``2026-11-20 10:00:00Z``."""
    year, fields = moment.calendar()
    return f"{year:04}-{fields:%m-%d %H:%M:%S}Z"


def duration(length: dt.timedelta) -> str:
    """Return a duration of which two units count: "1 h 2 min", "1 min 1 s", "58.5 s"; "unknown" if it is negative."""
    ms = length // dt.timedelta(milliseconds=1)
    if ms < 0:
        return "unknown"
    if ms < 1000:
        return f"{ms} ms"
    step = 100 if ms < 60_000 else 1000 if ms < 3_600_000 else 60_000 if ms < 86_400_000 else 3_600_000
    parts = re.findall(r"([0-9.]+)([dhms])", format_duration(ms // step * step))
    return " ".join(f"{number} {'min' if unit == 'm' else unit}" for number, unit in parts)


def grouped(number: int) -> str:
    """Return a number with its digits in groups: "12 345"."""
    return f"{number:,}".replace(",", "\u202f")


def count(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun: "1 build", "1 234 builds"."""
    return f"{grouped(number)} {one if number == 1 else many or one + 's'}"


def harmless(value: object) -> object:
    r"""Return text with escapes (``\u202e``) for what cannot be seen or would turn the text round; all else as it is."""
    if type(value) is str and not value.isprintable():
        return _UNSEEN.sub(_escape, value)
    return value


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
