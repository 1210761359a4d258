"""A SQLite database with one writer, who commits in groups.

A write is a step, a function of the connection; when ``write`` returns its change is on the disk: WAL, synchronous FULL.
``run`` is the writer: steps that arrive during a commit share the next one, each in a savepoint, so that one that is
refused takes nothing with it. Reads use connections of their own and see the last commit.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import sqlalchemy as sa
import trio
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from attrs import define, field

from builder.errors import BuilderError

T = TypeVar("T")

_STOPPED = "the server stops"


class StoreError(BuilderError):
    """The database could not be read or written; what was asked for has not happened."""

    exit_code = 5


@define
class _Request(Generic[T]):
    """A step that waits for the writer."""

    step: Callable[[sa.Connection], T]
    done: trio.Event = field(factory=trio.Event)
    value: T | None = None
    error: BaseException | None = None


class Database:
    """``run`` must be running while it is written to."""

    def __init__(self, path: Path) -> None:
        """Open the database, create or migrate it. Raises StoreError."""
        self._engine = sa.create_engine(
            sa.URL.create("sqlite", database=str(path)),
            connect_args={"check_same_thread": False, "timeout": 30},
        )
        sa.event.listen(self._engine, "connect", _configure)
        # pysqlite's own idea of when a transaction begins would leave SELECT and DDL outside of it
        sa.event.listen(self._engine, "begin", _begin)
        self._pending: list[_Request[Any]] = []
        self._work = trio.Event()
        self._closed = False
        try:
            with self._engine.connect() as connection:
                config = Config()
                config.set_main_option("script_location", "builder_server:migrations")
                config.set_main_option("path_separator", "os")
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
                connection.commit()
        except (sa.exc.SQLAlchemyError, OSError) as error:
            self.close()
            raise StoreError(f"can't open the database {path}: {_reason(error)}") from error
        except CommandError as error:
            self.close()
            raise StoreError(f"can't use the database {path}, is it of a newer version? {error}") from error

    def close(self) -> None:
        """Close all connections to the database."""
        self._engine.dispose()

    async def run(self) -> None:
        """Commit what is asked for, in groups, until cancelled."""
        batch: list[_Request[Any]] = []
        try:
            while True:
                await self._work.wait()
                self._work = trio.Event()
                batch, self._pending = self._pending, []
                await trio.to_thread.run_sync(self._commit, batch)
                for request in batch:
                    request.done.set()
        finally:
            # whoever waits, or asks from now on, would otherwise do so for ever
            self._closed = True
            for request in batch + self._pending:
                if not request.done.is_set():
                    request.error = StoreError(_STOPPED)
                    request.done.set()

    def _commit(self, batch: list[_Request[Any]]) -> None:
        try:
            with self._engine.begin() as connection:
                for request in batch:
                    _attempt(connection, request)
        except (sa.exc.SQLAlchemyError, OSError):
            # one of them, or the commit, met an error of the disk: let each find out for itself
            for request in batch:
                self._commit_alone(request)

    def _commit_alone(self, request: _Request[Any]) -> None:
        try:
            with self._engine.begin() as connection:
                _attempt(connection, request)
        except (sa.exc.SQLAlchemyError, OSError) as error:
            request.error = StoreError(f"the database can't be written: {_reason(error)}")

    async def write(self, step: Callable[[sa.Connection], T]) -> T:
        """Return what a step returns once its change is on the disk. Raises what the step raises, and StoreError."""
        if self._closed:
            raise StoreError(_STOPPED)
        request = _Request(step)
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
                with self._engine.connect() as connection:
                    return step(connection)
            except (sa.exc.SQLAlchemyError, OSError) as error:
                raise StoreError(f"the database can't be read: {_reason(error)}") from error

        return await trio.to_thread.run_sync(read)


def _configure(connection: Any, _record: object) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "busy_timeout = 30000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _reason(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error)


def _attempt(connection: sa.Connection, request: _Request[Any]) -> None:
    request.error = None
    try:
        with connection.begin_nested():
            request.value = request.step(connection)
    except (sa.exc.SQLAlchemyError, OSError):
        raise
    except Exception as error:  # noqa: BLE001 - a refusal or a fault of ours: raised again where it was asked for
        request.error = error
