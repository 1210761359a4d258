"""Has a server say that it lives, and hear what others have, many times a second: for tests that wait for that."""

from builder_server import membership


def begin() -> None:
    """Set it so in this process."""
    membership.RENEWAL = 0.2
