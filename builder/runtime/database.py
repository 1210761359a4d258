"""A database as a program sees it: steps that write, steps that read.

A step is a function of a connection. It may be run again, after an error of the disk or of another step beside it, or
where several servers write after a conflict with one of them: so it has no effect but on the database, and what it
returns is made anew each time.
"""

import abc
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, TypeVar

import sqlalchemy as sa

from builder.errors import BuilderError
from builder.runtime.histogram import Histogram

if TYPE_CHECKING:
    from builder.runtime.subscription import Subscription  # the library that it needs need not be there

T = TypeVar("T")

MAX_NOTICE = 7900
"""Bytes of what programs can tell each other at once: PostgreSQL takes less than 8000."""


def nothing(_value: object) -> None:
    """Do nothing with what a step returned."""


def ask(connection: sa.Connection) -> None:
    """Have the database answer: a connection alone does not show that it would."""
    connection.execute(sa.select(sa.literal(1)))


class StoreError(BuilderError):
    """The database could not be read or written; what was asked for has not happened."""

    exit_code = 5


class Undecided(StoreError):
    """Nobody can say whether what was asked for has happened: the database was lost during the commit."""


class DiskFull(StoreError):
    """The disk has no room for what was to be written."""


class NotAlone(Exception):
    """A step meets what it must not do while others write: it is run again when nobody does."""


SHARED = "shared"
"""What the information of a connection says while others may write as well."""


def is_alone(connection: sa.Connection) -> bool:
    """Return whether nobody else writes until the step has ended, and all that others have written is seen."""
    return not connection.info.get(SHARED, False)


def require_alone(connection: sa.Connection) -> None:
    """Go on only while nobody else writes: else the step is ended by NotAlone, and run again."""
    if not is_alone(connection):
        raise NotAlone


class Database(abc.ABC):
    """Where steps are run. ``run`` must be running while it is written to."""

    version: int
    """Grows with what is written: where it is the same as before, a step that reads returns the same too.

    It has grown when a writer is told that its change is on the disk.
    """

    is_shared: bool = False
    """Whether other programs may write to it as well."""

    commits: Histogram
    """How long it took to have changes on the disk, those that were made together as one."""

    @abc.abstractmethod
    async def run(self) -> None:
        """Write what is asked for, until cancelled."""

    @abc.abstractmethod
    async def write(
        self, step: Callable[[sa.Connection], T], then: Callable[[T], None] = nothing, *, shared: bool = False
    ) -> T:
        """Return what a step returns once its change is on the disk. Raises what the step raises, and StoreError.

        A step that raises changes nothing. ``then`` is called with what it returned, in the order of the changes.
        ``shared``: the step goes well together with others of this kind in other programs, since it changes nothing but
        what it has locked by itself, and what is its program's own. It may ``require_alone``.
        """

    @abc.abstractmethod
    async def read(self, step: Callable[[sa.Connection], T]) -> T:
        """Return what a step returns that changes nothing, and sees one moment. Raises StoreError."""

    async def answer(self) -> None:
        """Return once the database has answered; the wait may be given up. Raises StoreError."""
        await self.read(ask)

    def subscribed(self, channel: str) -> AbstractAsyncContextManager["Subscription"]:
        """Hear in a block what other programs tell. Raises StoreError, also there when nothing can be heard any more.

        Where the database is not shared, there are no others.
        """
        raise NotImplementedError(channel)

    def tell(self, connection: sa.Connection, channel: str, notice: str) -> None:
        """Have all who subscribe to a channel hear something, as soon as the change of a step is on the disk."""
        raise NotImplementedError(connection, channel, notice)

    @abc.abstractmethod
    def limit_waits(self, seconds: float) -> None:
        """From now on wait for others who use the database for so long in all: the program stops.

        What can't be written by then, or at once after that, fails with StoreError.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Close all connections to the database."""
