"""The one place where the client reads the wall clock."""

import datetime as dt

from builder.model import Instant


def now() -> Instant:
    """Return the time, in UTC."""
    return Instant.from_datetime(dt.datetime.now(dt.UTC))
