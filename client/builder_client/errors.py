"""What goes wrong between a client and its server."""

from typing import ClassVar

from builder.errors import BuilderError
from builder.messages import Message


class Unreachable(BuilderError):
    """The server can't be connected to, or the connection to it was lost."""

    exit_code: ClassVar[int] = 5


class ConnectionLost(Unreachable):
    """The connection ended before the exchange was complete."""


class UnusableTls(BuilderError):
    """A file that TLS needs can't be used; the text names it."""

    exit_code: ClassVar[int] = 2


class Refused(BuilderError):
    """The server answered that it did not do what it was asked for, or it knows no such build.

    ``request`` is what it was asked for, where it was the server.
    """

    exit_code: ClassVar[int] = 3

    def __init__(self, text: str, *, request: Message | None = None, name: str | None = None) -> None:
        super().__init__(text)
        self.request = request
        self._name = name

    @property
    def name(self) -> str | None:
        """The job that it was about, as far as it is known to be about one."""
        found = self._name or getattr(self.request, "name", None) or getattr(self.request, "target", None)
        return found if isinstance(found, str) else None


class TooOld(BuilderError):
    """The server speaks the classic protocol only, and what was wanted is not in it."""

    exit_code: ClassVar[int] = 3
