"""One writer of a database, who commits in groups, and readers beside it.

Steps that arrive during a commit share the next one; one that is refused takes nothing with it. Reads use connections of
their own and see the last commit.
"""

import abc
import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Generic, TypeVar

import sqlalchemy as sa
import trio
from attrs import define, field, frozen

from builder.runtime import syncing
from builder.runtime.database import Database, NotAlone, StoreError, nothing
from builder.runtime.histogram import Histogram

T = TypeVar("T")

LOCK_TIMEOUT = 30.0
"""Seconds for which whoever keeps the writer from writing is waited for, such as a backup or an operator's shell."""

_STOPPED = "the server stops"

_UNSYNCED = "unsynced"


def sync_before_commit(connection: sa.Connection, directories: Iterable[Path]) -> None:
    """Have the entries of directories on the disk before what a step changes is: once for all that share its commit.

    A step that fails for it was not done, as with any other error of the disk.
    """
    connection.info[_UNSYNCED].update(directories)


@define(eq=False)
class _Request(Generic[T]):
    """A step that waits for the writer."""

    step: Callable[[sa.Connection], T]
    then: Callable[[T], None]
    shared: bool
    asked: float = field(factory=time.monotonic)
    done: trio.Event = field(factory=trio.Event)
    value: T | None = None
    error: BaseException | None = None


class _Refusal(Exception):
    """A step was refused."""


@frozen
class _Met:
    """What kept a transaction from being committed, and whether that had begun."""

    error: Exception
    has_begun: bool


class GroupingDatabase(Database):
    """A database to which a program writes in one transaction at a time; what that is, and a failure, depends on its kind."""

    def __init__(self, *, writer: sa.Engine, readers: sa.Engine, limiter: trio.CapacityLimiter | None = None) -> None:
        """``limiter`` bounds the threads that write; without it they are among those that all share."""
        self._writer = writer
        self._readers = readers
        self._limiter = limiter
        self._pending: list[_Request[Any]] = []
        self._work = trio.Event()
        self._closed = False
        self._last_wait = math.inf
        self.version = 0
        self.commits = Histogram()

    @abc.abstractmethod
    def _transaction(
        self, deadline: float, look: Callable[[], None] = lambda: None, *, shared: bool = False
    ) -> AbstractContextManager[sa.Connection]:
        """Begin to write, for which others may have to be waited, and commit at the end; ``look`` may end the wait.

        Unless it is ``shared``, nobody else writes meanwhile.
        """

    @abc.abstractmethod
    def _failure(self, error: BaseException) -> StoreError:
        """Return what an error of the database is to those who wanted to write."""

    def _is_again(self, error: BaseException) -> bool:
        """Return whether what failed so has changed nothing, and may well succeed if all of it is run again."""
        del error
        return False

    def limit_waits(self, seconds: float) -> None:
        """From now on wait for others for so long in all."""
        self._last_wait = time.monotonic() + seconds

    def close(self) -> None:
        """Close all connections to the database."""
        self._writer.dispose()
        self._readers.dispose()

    async def run(self) -> None:
        """Commit what is asked for, in groups, until cancelled."""
        batch: list[_Request[Any]] = []
        try:
            while True:
                await self._work.wait()
                self._work = trio.Event()
                batch, self._pending = self._pending, []
                began = time.monotonic()
                await trio.to_thread.run_sync(self._commit, batch, limiter=self._limiter)
                self.commits.add(time.monotonic() - began)
                self.version += 1
                for request in batch:
                    if request.error is None:
                        request.then(request.value)
                    request.done.set()
        finally:
            # whoever waits, or asks from now on, would otherwise do so for ever
            self._closed = True
            for request in batch + self._pending:
                if not request.done.is_set():
                    request.error = StoreError(_STOPPED)
                    request.done.set()

    def _commit(self, batch: Sequence[_Request[Any]]) -> None:
        """Do what is asked for, the oldest first, in one transaction, or in as many as it takes.

        Where one of several is refused all of it is taken back, and done again with the steps parted by savepoints: few
        are, and the savepoints of the others took as long as a step. What waits in vain is given up when its own time is
        over: it may have come while those before it waited.
        """
        parted = False
        shared = all(request.shared for request in batch)
        while batch and (met := self._try(batch, self._deadline(batch[0]), parted=parted, shared=shared)) is not None:
            # not where it was caught: what comes from here on has not come of it
            if isinstance(met.error, _Refusal):
                if len(batch) == 1:
                    return
                parted = True
            elif isinstance(met.error, NotAlone):
                shared = False
            elif self._is_again(met.error) and time.monotonic() < self._deadline(batch[0]):
                trio.from_thread.check_cancelled()
            elif met.has_begun and len(batch) > 1 and not isinstance(met.error, StoreError):
                # one of them, or the commit, met an error of the disk: let each find out for itself
                for request in batch:
                    self._commit([request])
                return
            else:
                now = time.monotonic()
                over = sum(now >= self._deadline(request) for request in batch)
                failed = len(batch) if met.has_begun or not over else over
                for request in batch[:failed]:
                    request.error = self._failure(met.error)
                batch = batch[failed:]

    def _deadline(self, request: _Request[Any]) -> float:
        """Return until when it is waited for others before a step."""
        return min(request.asked + LOCK_TIMEOUT, self._last_wait)

    def _try(self, batch: Sequence[_Request[Any]], deadline: float, *, parted: bool, shared: bool) -> "_Met | None":
        """Do what is asked for in one transaction; return what kept it from being committed."""
        has_begun = False
        try:
            with self._transaction(deadline, trio.from_thread.check_cancelled, shared=shared) as connection:
                has_begun = True
                directories = connection.info[_UNSYNCED] = set()
                for request in batch:
                    _attempt(connection, request, parted=parted)
                if directories:
                    syncing.sync_together(directories)
        except (sa.exc.SQLAlchemyError, OSError, StoreError, NotAlone, _Refusal) as error:
            return _Met(error, has_begun)
        return None

    async def write(
        self, step: Callable[[sa.Connection], T], then: Callable[[T], None] = nothing, *, shared: bool = False
    ) -> T:
        """Return what a step returns once its change is on the disk. Raises what the step raises, and StoreError."""
        if self._closed:
            raise StoreError(_STOPPED)
        request = _Request(step, then, shared)
        self._pending.append(request)
        self._work.set()
        # shielded: a caller that went away in the middle would not know whether its change was made
        with trio.CancelScope(shield=True):
            await request.done.wait()
        if request.error is not None:
            raise request.error
        return request.value  # type: ignore[return-value]  # set whenever there is no error


def first_error(error: BaseException) -> BaseException:
    """Return what was met first: an error that takes the whole transaction back may have others follow on the way out."""
    while error.__context__ is not None:
        error = error.__context__
    return getattr(error, "orig", None) or error


def _attempt(connection: sa.Connection, request: _Request[Any], *, parted: bool) -> None:
    """Do a step; where it is refused, take it back if steps are parted, and else raise _Refusal."""
    request.error = None
    if parted:
        connection.exec_driver_sql("SAVEPOINT step")
    try:
        request.value = request.step(connection)
    except (sa.exc.SQLAlchemyError, OSError, NotAlone):
        raise
    except Exception as error:
        request.error = error  # a refusal or a fault of ours: raised again where it was asked for
        if not parted:
            raise _Refusal from error
        connection.exec_driver_sql("ROLLBACK TO SAVEPOINT step")
    if parted:
        connection.exec_driver_sql("RELEASE SAVEPOINT step")
