"""A SQLite database. When ``write`` returns its change is on the disk: WAL, synchronous FULL."""

import errno
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
import trio

from builder.runtime import grouping
from builder.runtime.database import DiskFull, StoreError
from builder.runtime.grouping import GroupingDatabase, first_error

T = TypeVar("T")

_LOCK_LOOK = 0.2
"""Seconds after which a writer that waits for the lock looks whether its program stops meanwhile, and begins to wait
anew: SQLite itself looks ever more seldom, and would miss that the lock was free for a moment."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

WAY_BACK = "stop the program, move the database away with its -wal and -shm, and bring back a backup"
"""What is to be done about a damaged database; what can still be read, the ``.recover`` of sqlite3's shell saves."""


class SQLite(GroupingDatabase):
    """The database of one program on one machine."""

    def __init__(self, path: Path, *, prepare: Callable[[sa.Connection], None]) -> None:
        """Open the database, create it if there is none. Raises StoreError.

        ``prepare`` makes its tables what the program expects, in one transaction: see ``migrations``.
        """
        super().__init__(
            writer=_engine(path, begin="BEGIN IMMEDIATE", timeout=_LOCK_LOOK),
            readers=_engine(path, begin="BEGIN", timeout=grouping.LOCK_TIMEOUT),
        )
        try:
            with self._transaction(time.monotonic() + grouping.LOCK_TIMEOUT) as connection:
                prepare(connection)
        except (sa.exc.SQLAlchemyError, OSError) as error:
            self.close()
            raise StoreError(f"can't open the database {path}: {_reason(error)}") from error
        except StoreError as error:
            self.close()
            raise StoreError(f"can't use the database {path}: {error}") from error

    @contextmanager
    def _transaction(
        self, deadline: float, look: Callable[[], None] = lambda: None, *, shared: bool = False
    ) -> Iterator[sa.Connection]:
        """Take the lock, for which others may have to be waited, and commit at the end; ``look`` may end the wait."""
        del shared  # no two write at the same time
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

    def _failure(self, error: BaseException) -> StoreError:
        first = first_error(error)
        is_full = (
            getattr(first, "errno", None) in _NO_ROOM or getattr(first, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        )
        return (DiskFull if is_full else StoreError)(f"the database can't be written: {_reason(error)}")

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
        with (
            closing(sqlite3.connect(source, timeout=grouping.LOCK_TIMEOUT)) as database,
            closing(sqlite3.connect(target)) as to,
        ):
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
    engine = _engine(path, begin="BEGIN IMMEDIATE", timeout=grouping.LOCK_TIMEOUT)
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


def _reason(error: BaseException) -> str:
    first = first_error(error)
    if getattr(first, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return f"it is damaged ({first}); {WAY_BACK}"
    return str(first)
