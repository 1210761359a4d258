"""Moments as JSON and keys have them: ISO 8601 in UTC, with a Z."""

import datetime as dt
import re

from builder.model import Instant

_FORM = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z", re.ASCII)


def read(value: str) -> Instant | None:
    """Return the moment, None for any other text. Digits beyond milliseconds are cut off."""
    if not _FORM.fullmatch(value):
        return None
    try:
        return Instant.from_datetime(dt.datetime.fromisoformat(value))
    except ValueError:
        return None
