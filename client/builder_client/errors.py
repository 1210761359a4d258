"""What goes wrong between a client and its server."""

from typing import ClassVar

from builder.errors import BuilderError


class Unreachable(BuilderError):
    """The server can't be connected to, or the connection to it was lost."""

    exit_code: ClassVar[int] = 5


class ConnectionLost(Unreachable):
    """The connection ended before the exchange was complete."""


class Refused(BuilderError):
    """The server answered that it did not do what it was asked for, or it knows no such build."""

    exit_code: ClassVar[int] = 3


class TooOld(BuilderError):
    """The server speaks the classic protocol only, and what was wanted is not in it."""

    exit_code: ClassVar[int] = 3
