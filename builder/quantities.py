"""Sizes, durations and numbers as people write them: "512M", "1h30m", "0.5". Text in, numbers out."""

import re

from builder.errors import BuilderError
from builder.model import printable

MAX_SIZE = 2**62
"""Bytes; beyond any disk, and within what every interface of the kernel takes."""

MAX_DURATION = 10 * 365 * 24 * 3600.0
"""Seconds, ten years: a clock takes it."""

MAX_COUNT = 2**31 - 1

_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)(?:([KMGT]?)(?:i?B)?)", re.ASCII | re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,6})?", re.ASCII)
_PARTS = re.compile(r"(?:([0-9]{1,12}(?:\.[0-9]{1,6})?)([smhd]))", re.ASCII)


class InvalidQuantity(BuilderError, ValueError):
    """Text that is not the size, duration or number that belongs there."""

    exit_code = 2


def _refuse(text: str, what: str) -> InvalidQuantity:
    return InvalidQuantity(f"{printable(text[:50])!r} is not {what}")


def parse_size(text: str) -> int:
    """Read a number of bytes: "1000", "512M", "1.5GiB". Units are powers of 1024. Raises InvalidQuantity."""
    match = _SIZE.fullmatch(text)
    size = int(float(match[1]) * _UNITS[match[2].upper()]) if match else 0
    if not 0 < size <= MAX_SIZE:
        raise _refuse(text, "a size such as 512M or 2G")
    return size


def parse_duration(text: str) -> float:
    """Read a time and return its seconds: "90", "0.5", "90s", "10m", "1h30m", "2d". Raises InvalidQuantity."""
    seconds = 0.0
    if _NUMBER.fullmatch(text):
        seconds = float(text)
    elif _PARTS.sub("", text) == "":
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PARTS.findall(text))
    if not 0 < seconds <= MAX_DURATION:
        raise _refuse(text, "a duration such as 90s, 10m or 1h30m")
    return seconds


def format_duration(ms: int) -> str:
    """Return milliseconds in a form that ``parse_duration`` reads: "1h", "1m30s", "1.5s"."""
    seconds, fraction = divmod(ms, 1000)
    parts = []
    for unit in ("d", "h", "m"):
        count, seconds = divmod(seconds, _SECONDS[unit])
        parts.append(f"{count}{unit}" if count else "")
    if seconds or fraction or not any(parts):
        parts.append(f"{seconds}.{fraction:03}".rstrip("0").rstrip(".") + "s" if fraction else f"{seconds}s")
    return "".join(parts)


def parse_pause(text: str) -> float:
    """Read a duration that may be 0. Raises InvalidQuantity."""
    return 0.0 if text in ("0", "0s") else parse_duration(text)


def parse_count(text: str) -> int:
    """Read a number of things, at least one. Raises InvalidQuantity."""
    count = int(text) if re.fullmatch("[0-9]{1,12}", text, re.ASCII) else 0
    if not 0 < count <= MAX_COUNT:
        raise _refuse(text, "a number from 1")
    return count


def parse_cpus(text: str) -> float:
    """Read a number of CPUs, such as "2" or "0.5". Raises InvalidQuantity."""
    cpus = float(text) if _NUMBER.fullmatch(text) else 0.0
    if not 0.01 <= cpus <= 4096:
        raise _refuse(text, "a number of CPUs such as 2 or 0.5")
    return cpus
