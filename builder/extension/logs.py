"""Messages about consoles, tags 100 to 109."""

from typing import ClassVar
from uuid import UUID

from attrs import frozen

from builder.errors import InvalidOptions
from builder.extension import Request
from builder.messages import message


@message
@frozen(kw_only=True)
class ReadConsole(Request):
    """Ask for the console of a build: an Output for each line, each with its timestamp.

    With ``last`` these are the last lines alone, as many. ``follow``: go on while lines come.
    """

    tag: ClassVar[int] = 100
    uuid: UUID
    follow: bool
    last: int | None = None

    def check(self) -> None:
        """Raise InvalidOptions for a number of lines that can't be."""
        if self.last is not None and self.last < 0:
            raise InvalidOptions("a number of lines must not be negative")
