"""When an upload that failed is tried again, and what of the receiver's answers is a refusal. Pure: the time is an argument."""

import datetime as dt
import email.utils
import re

from builder.model import Instant

FIRST_PAUSE = dt.timedelta(seconds=30)
"""After the first failure; each one more doubles it."""

LONGEST_PAUSE = dt.timedelta(hours=1)

SHORTEST_ASKED, LONGEST_ASKED = dt.timedelta(seconds=1), dt.timedelta(days=1)
"""Bounds of what a receiver may ask for by Retry-After: a mistake of it must neither flood it nor end all uploads."""

JITTER = 0.5
"""The part of a pause that chance decides, so that many servers do not come back at once."""

_ASKED_JITTER = 0.1
"""The same of what a receiver asks for, added to it."""

_NO_REFUSALS = frozenset({401, 403, 408, 409, 425, 429})
"""What a receiver says of the credentials or the moment, not of the execution: a person, or time, may change it."""

_CONCERNS_ALL = frozenset({429, 502, 503, 504, 507})
"""What it says whatever is posted."""

_SECONDS = re.compile(r"[0-9]{1,12}", re.ASCII)


def is_refusal(status: int) -> bool:
    """Return whether an answer says that this execution will never be taken."""
    return 400 <= status < 500 and status not in _NO_REFUSALS


def concerns_all(status: int) -> bool:
    """Return whether an answer says nothing of the execution that was posted: any other would have got it too."""
    return status in _CONCERNS_ALL


def pause(failures: int, jitter: float, asked: dt.timedelta | None = None) -> dt.timedelta:
    """Return how long nothing is tried after so many failures in a row, from 1 on.

    ``jitter`` is a random number from 0 to 1; ``asked`` is what the receiver asks for, which is obeyed.
    """
    if asked is not None:
        return min(max(asked, SHORTEST_ASKED), LONGEST_ASKED) * (1 + _ASKED_JITTER * jitter)
    longest = min(FIRST_PAUSE * (1 << min(failures - 1, 32)), LONGEST_PAUSE)
    return longest * (1 - JITTER * jitter)


def parse_retry_after(value: str, now: Instant) -> dt.timedelta | None:
    """Return how long a Retry-After asks to wait, in seconds or until a date; None for what is neither."""
    value = value.strip()
    if _SECONDS.fullmatch(value):
        return min(dt.timedelta(seconds=int(value)), LONGEST_ASKED)
    try:
        date = email.utils.parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    until = date if date.tzinfo else date.replace(tzinfo=dt.UTC)
    try:
        return until - now.to_datetime()
    except OverflowError:
        return None
