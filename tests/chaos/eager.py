"""Has builder-server try uploads again soon: half a minute after the last fault, nothing else is left to see."""

import datetime as dt

from builder_server import retrying


def begin() -> None:
    """Set it so in this process."""
    retrying.FIRST_PAUSE, retrying.LONGEST_PAUSE = dt.timedelta(seconds=2), dt.timedelta(seconds=10)
