"""A SQLite database with one writer, who commits in groups.

When ``write`` returns its change is on the disk: WAL, synchronous FULL. Steps that arrive during a commit share the next
one, each in a savepoint, so that one that is refused takes nothing with it. Reads use connections of their own and see
the last commit.
"""

import errno
import math
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import sqlalchemy as sa
import trio
from attrs import define, field

from builder.runtime import syncing
from builder.runtime.database import Database, DiskFull, StoreError, nothing
from builder.runtime.histogram import Histogram

T = TypeVar("T")

LOCK_TIMEOUT = 30.0
"""Seconds for which whoever has the lock is waited for, such as a backup or an operator's shell."""

_LOCK_LOOK = 0.2
"""Seconds after which a writer that waits for the lock looks whether its program stops meanwhile, and begins to wait
anew: SQLite itself looks ever more seldom, and would miss that the lock was free for a moment."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

WAY_BACK = "stop the program, move the database away with its -wal and -shm, and bring back a backup"
"""What is to be done about a damaged database; what can still be read, the ``.recover`` of sqlite3's shell saves."""

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
    done: trio.Event = field(factory=trio.Event)
    value: T | None = None
    error: BaseException | None = None


class SQLite(Database):
    """The database of one program on one machine."""

    def __init__(self, path: Path, *, prepare: Callable[[sa.Connection], None]) -> None:
        """Open the database, create it if there is none. Raises StoreError.

        ``prepare`` makes its tables what the program expects, in one transaction: see ``migrations``.
        """
        self._writer = _engine(path, begin="BEGIN IMMEDIATE", timeout=_LOCK_LOOK)
        self._readers = _engine(path, begin="BEGIN", timeout=LOCK_TIMEOUT)
        self._pending: list[_Request[Any]] = []
        self._work = trio.Event()
        self._closed = False
        self._last_wait = math.inf
        self.version = 0
        self.commits = Histogram()
        try:
            with self._transaction(time.monotonic() + LOCK_TIMEOUT) as connection:
                prepare(connection)
        except (sa.exc.SQLAlchemyError, OSError) as error:
            self.close()
            raise StoreError(f"can't open the database {path}: {_reason(error)}") from error
        except StoreError as error:
            self.close()
            raise StoreError(f"can't use the database {path}: {error}") from error

    def limit_waits(self, seconds: float) -> None:
        """From now on wait for the lock for so long in all."""
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
                await trio.to_thread.run_sync(self._commit, batch, began + LOCK_TIMEOUT)
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

    def _commit(self, batch: Sequence[_Request[Any]], deadline: float) -> None:
        begun = False
        try:
            with self._transaction(deadline, trio.from_thread.check_cancelled) as connection:
                begun = True
                directories = connection.info[_UNSYNCED] = set()
                for request in batch:
                    _attempt(connection, request)
                if directories:
                    syncing.sync_together(directories)
        except (sa.exc.SQLAlchemyError, OSError) as error:
            if begun and len(batch) > 1:
                # one of them, or the commit, met an error of the disk: let each find out for itself
                for request in batch:
                    self._commit([request], deadline)
            else:
                for request in batch:
                    request.error = _failure(error)

    @contextmanager
    def _transaction(self, deadline: float, look: Callable[[], None] = lambda: None) -> Iterator[sa.Connection]:
        """Take the lock, for which others may have to be waited, and commit at the end; ``look`` may end the wait."""
        while True:
            with self._writer.connect() as connection:
                try:
                    transaction = connection.begin()
                except sa.exc.OperationalError as error:
                    if not _is_locked(error) or time.monotonic() >= min(deadline, self._last_wait):
                        raise
                    look()
                    continue
                with transaction:
                    yield connection
                return

    async def write(self, step: Callable[[sa.Connection], T], then: Callable[[T], None] = nothing) -> T:
        """Return what a step returns once its change is on the disk. Raises what the step raises, and StoreError."""
        if self._closed:
            raise StoreError(_STOPPED)
        request = _Request(step, then)
        self._pending.append(request)
        self._work.set()
        # shielded: a caller that went away in the middle would not know whether its change was made
        with trio.CancelScope(shield=True):
            await request.done.wait()
        if request.error is not None:
            raise request.error
        return request.value  # type: ignore[return-value]  # set whenever there is no error

    async def read(self, step: Callable[[sa.Connection], T]) -> T:
        """Return what a step returns that changes nothing. Raises StoreError."""

        def read() -> T:
            try:
                with self._readers.connect() as connection:
                    return step(connection)
            except (sa.exc.SQLAlchemyError, OSError) as error:
                raise StoreError(f"the database can't be read: {_reason(error)}") from error

        return await trio.to_thread.run_sync(read)


def copy(source: Path, target: Path) -> None:
    """Copy a database, as it is at one moment, to a new file; programs may use it meanwhile.

    Raises StoreError, also for one that is damaged: nobody needs a copy of that.
    """
    try:
        if not source.is_file():
            raise StoreError(f"there is no database {source}")
        with closing(sqlite3.connect(source, timeout=LOCK_TIMEOUT)) as database, closing(sqlite3.connect(target)) as to:
            database.backup(to)  # in one step: others go on writing behind it
            found = _look_through(to)
    except sqlite3.Error as error:
        raise StoreError(f"can't copy the database {source}: {_reason(error)}") from error
    if found != "ok":
        raise StoreError(f"can't copy the database {source}: it is damaged ({found}); {WAY_BACK}")


def check(path: Path) -> None:
    """Look a database through that no program has open. Raises StoreError if it is damaged, or none."""
    try:
        with closing(sqlite3.connect(path)) as database:
            found = _look_through(database)
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {_reason(error)}") from error
    if found != "ok":
        raise StoreError(f"{path} is damaged: {found}")


def _look_through(database: sqlite3.Connection) -> str:
    """Return ``ok``, or what is wrong with a database first, in one line."""
    (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
    return " ".join(str(found).split())


def alter(path: Path, step: Callable[[sa.Connection], None]) -> None:
    """Do a step in a database that no program has open, in one transaction. Raises StoreError, also if it is damaged."""
    if path.is_file():
        check(path)
    engine = _engine(path, begin="BEGIN IMMEDIATE", timeout=LOCK_TIMEOUT)
    try:
        if not path.is_file():
            raise StoreError(f"there is no database {path}")
        with engine.connect() as connection, connection.begin():
            step(connection)
    except (sa.exc.SQLAlchemyError, OSError) as error:
        raise StoreError(f"can't change the database {path}: {_reason(error)}") from error
    finally:
        engine.dispose()


def _engine(path: Path, *, begin: str, timeout: float) -> sa.Engine:
    """Return connections that begin so. ``timeout`` is in seconds: for how long they wait for a lock by themselves.

    A transaction that reads, and then writes, would fail at once where others have written meanwhile, whatever the
    timeout: so the writer begins with the lock.
    """
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)), connect_args={"check_same_thread": False, "timeout": timeout}
    )
    sa.event.listen(engine, "connect", _configure)
    # pysqlite's own idea of when a transaction begins would leave SELECT and DDL outside of it
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


def _configure(connection: Any, _record: object) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _is_locked(error: sa.exc.OperationalError) -> bool:
    return getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY


def _failure(error: BaseException) -> StoreError:
    first = _first(error)
    is_full = (
        getattr(first, "errno", None) in _NO_ROOM or getattr(first, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    )
    return (DiskFull if is_full else StoreError)(f"the database can't be written: {_reason(error)}")


def _reason(error: BaseException) -> str:
    first = _first(error)
    if getattr(first, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return f"it is damaged ({first}); {WAY_BACK}"
    return str(first)


def _first(error: BaseException) -> BaseException:
    """Return what was met first: a full disk takes the whole transaction back, and then there is no savepoint to leave."""
    while error.__context__ is not None:
        error = error.__context__
    return getattr(error, "orig", None) or error


def _attempt(connection: sa.Connection, request: _Request[Any]) -> None:
    request.error = None
    try:
        with connection.begin_nested():
            request.value = request.step(connection)
    except (sa.exc.SQLAlchemyError, OSError):
        raise
    except Exception as error:  # noqa: BLE001 - a refusal or a fault of ours: raised again where it was asked for
        request.error = error
