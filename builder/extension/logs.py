"""Messages about consoles, tags 100 to 109."""

from typing import ClassVar
from uuid import UUID

from attrs import frozen

from builder.errors import InvalidOptions
from builder.extension import Reply, Request
from builder.messages import message


@message
@frozen(kw_only=True)
class ReadConsole(Request):
    """Ask for lines of the console of a build: ConsoleRange comes, and then an Output for each, with its timestamp.

    It is the lines that begin in a range of the bytes that the server keeps: from ``offset`` on, which counts from the end
    where it is negative, for ``length`` bytes, or to the end. With ``last`` it is the last lines alone, as many.
    ``follow``: go on while lines come.
    """

    tag: ClassVar[int] = 100
    uuid: UUID
    follow: bool
    last: int | None = None
    offset: int = 0
    length: int | None = None

    def check(self) -> None:
        """Raise InvalidOptions for a number that can't be, and for what can't be asked together."""
        if self.last is not None and self.last < 0:
            raise InvalidOptions("a number of lines must not be negative")
        if self.length is not None and self.length < 0:
            raise InvalidOptions("a length must not be negative")
        if self.last is not None and (self.offset or self.length is not None):
            raise InvalidOptions("ask for the last lines or for a range of bytes, not for both")
        if self.follow and self.length is not None:
            raise InvalidOptions("a range with an end can't be followed")


@message
@frozen(kw_only=True)
class ConsoleRange(Reply):
    """Where the first of the lines begins that follow, and how many bytes there are in all.

    Each line has as many bytes as its Output takes with its frame. So who has read some knows where the next begins.
    """

    tag: ClassVar[int] = 101
    offset: int
    size: int
