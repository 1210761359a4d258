"""A PostgreSQL database that any number of programs write to.

Each writes in one session of its own. A transaction begins with a lock that no other one gets: so each sees all that was
committed before, and none conflicts with another. Those whose steps go well together have that lock in common. A program that
stops within a transaction blocks the others until PostgreSQL ends its session, for FROZEN at most.
"""

import math
import re
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import sqlalchemy as sa
import trio
from attrs import Attribute, field, frozen
from psycopg.conninfo import conninfo_to_dict

from builder.runtime import grouping, subscription
from builder.runtime.database import SHARED, DiskFull, StoreError, Undecided, ask
from builder.runtime.grouping import GroupingDatabase, first_error
from builder.runtime.subscription import Subscription

T = TypeVar("T")

READERS = 4
"""Connections that read at the same time; with the one that writes and the one that subscribes they are all of a program."""

STATEMENT_TIMEOUT = 60
"""Seconds after which PostgreSQL ends a statement; those of migrations take as long as they take."""

SILENCE = 70
"""Seconds after which a connection counts as lost whose PostgreSQL has not even done that."""

FROZEN = 15
"""Seconds after which PostgreSQL ends the session of a program that has stopped in the middle of writing."""

_ANSWER = 10.0
"""Seconds after which a subscription counts as lost: it is there to show that the program lives."""

_CONNECT_TIMEOUT = 3
"""Seconds for each address that does not answer."""

_PAUSE = 0.2
"""Seconds between attempts to connect."""

_GONE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 25_000}
"""libpq notices after 25 seconds that the other machine has vanished."""

_SETTINGS = {
    "statement_timeout": f"{STATEMENT_TIMEOUT}s",
    "lock_timeout": f"{grouping.LOCK_TIMEOUT:.0f}s",
    # PostgreSQL notices the same of this machine
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "25s",
}

_WRITES = {
    # each statement sees what was committed before it, and so also what was before the lock
    "default_transaction_isolation": "read committed",
    "idle_in_transaction_session_timeout": f"{FROZEN}s",
}
_READS = {
    "default_transaction_isolation": "repeatable read",
    "default_transaction_read_only": "on",
    "idle_in_transaction_session_timeout": f"{STATEMENT_TIMEOUT}s",
}
_SUBSCRIBES = {"idle_session_timeout": f"{subscription.SILENCE}s"}

_LOCK = int.from_bytes(b"builder")
"""The number of the lock, which is one of the database."""

_ALONE = f"SELECT pg_advisory_xact_lock({_LOCK})"
_TOGETHER = f"SELECT pg_advisory_xact_lock_shared({_LOCK})"

_TELL = sa.text(
    "SELECT pg_notify(channel, notice)"
    " FROM unnest(CAST(:channels AS text[]), CAST(:notices AS text[])) AS told (channel, notice)"
)

_TOLD = "told"
"""In the ``info`` of a connection: what its transaction tells, channels and notices."""

_AGAIN = frozenset({"40001", "40P01"})
"""Serialization failure and deadlock: another transaction was in the way, and nothing has changed."""

_FULL = "53100"

_BUSY = "55P03"
"""A lock was not to be had in time."""

_OLDEST = 140_000
"""Version 14, the first one that ends sessions which say nothing."""

_TIMELINE = "substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) AS timeline"
"""A failover changes it."""

_OUTCOME = sa.text(f"SELECT CAST(pg_current_xact_id_if_assigned() AS text) AS number, {_TIMELINE}")
"""By what it is found out later whether a transaction was committed."""

_STATUS = sa.text(f"SELECT pg_xact_status(CAST(CAST(:number AS text) AS xid8)) AS status, {_TIMELINE}")

_QUESTION = "Is the server running "
"""What libpq adds to what it says, for people who have just installed it."""

FORM = "postgresql://USER@HOST/DATABASE"

_ADVICE = (
    (re.compile("no password supplied$"), "; name a file that has it with --database-password-file"),
    (
        re.compile("password authentication failed"),
        "; is that of --database-password-file, ~/.pgpass or PGPASSWORD the right one?",
    ),
    (re.compile('database ".*" does not exist$'), "; make it with createdb --encoding UTF8 --template template0"),
    (re.compile("Connection refused$"), "; is PostgreSQL started there?"),
)
"""What to do where libpq or PostgreSQL say so: in other languages there is none."""


@frozen(kw_only=True)
class Location:
    """Where a database is, and how one gets in: as libpq reads it, with the password from wherever libpq finds it.

    ``str`` names it without user and password.
    """

    url: str = field(repr=False)
    password_file: Path | None = None

    @url.validator
    def _check_url(self, _attribute: "Attribute[str]", value: str) -> None:
        try:
            if not value.startswith(("postgresql://", "postgres://")):
                raise psycopg.ProgrammingError
            conninfo_to_dict(value)
        except psycopg.Error:
            # without libpq's words: they repeat all of it
            raise StoreError(f"the address of the database is not one of PostgreSQL's: expected {FORM}") from None

    @property
    def password(self) -> str | None:
        """The password that stands in the address itself."""
        found = conninfo_to_dict(self.url).get("password")
        return None if found is None else str(found)

    def __str__(self) -> str:
        found = conninfo_to_dict(self.url)
        name = found.get("dbname") or found.get("service") or found.get("user") or "of this user"
        return f"{name} at {found.get('host') or found.get('hostaddr') or 'the local socket'}"

    def connect(self, kind: "type[_Connection]") -> "_Connection":
        """Return a connection. Raises psycopg.Error and OSError."""
        given: dict[str, Any] = {
            "connect_timeout": _CONNECT_TIMEOUT,
            "target_session_attrs": "read-write",  # of several hosts the one that is no standby
            "application_name": "builder",
            **_GONE,
            **conninfo_to_dict(self.url),
            "client_encoding": "utf8",
        }
        if self.password_file is not None:
            given["password"] = _password_in(self.password_file)
        return kind.connect(**given, autocommit=True)


def _password_in(path: Path) -> str:
    """Return what a file has. Raises psycopg.OperationalError: whoever has lost a connection tries again."""
    try:
        found = path.read_text("utf-8").rstrip("\r\n")
        reason = f"{path} has no password: write it there as text" if "\0" in found else ""
    except OSError as error:
        reason = f"can't read the password in {path}: {error.strerror}"
    except UnicodeDecodeError:
        reason = f"{path} has no password: write it there as text"
    if reason:
        raise psycopg.OperationalError(reason)
    return found


def _advice(reason: str) -> str:
    return next((advice for pattern, advice in _ADVICE if pattern.search(reason)), "")


class _Lost(StoreError):
    """A transaction is lost with its connection."""


class _Connection(psycopg.Connection[Any]):
    """A connection that is lost when PostgreSQL does not answer."""

    is_over: Callable[[float], bool] = staticmethod(lambda _began: False)
    """Return whether what has been waited for since a time is waited for no longer."""

    def wait(self, gen: Generator[Any, Any, T], *arguments: Any, **options: Any) -> T:
        """Wait for something, as psycopg does."""
        return super().wait(self._bounded(gen), *arguments, **options)

    def _bounded(self, awaited: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        began = time.monotonic()
        try:
            wanted = next(awaited)
            while True:
                ready = yield wanted  # nothing: a tenth of a second is over
                if not ready and self.is_over(began):
                    self.pgconn.finish()
                    raise psycopg.OperationalError("it does not answer")
                wanted = awaited.send(ready)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # of the generator


class PostgreSQL(GroupingDatabase):
    """A database on any machine, for any number of programs."""

    is_shared = True

    def __init__(self, place: Location, *, prepare: Callable[[sa.Connection], None]) -> None:
        """Open the database, which must be there. Raises StoreError.

        ``prepare`` makes its tables what the program expects, in one transaction: see ``migrations``.
        """
        self._place = place
        self._patience = math.inf
        super().__init__(
            writer=_engine(lambda: self._connect(_WRITES), 1),
            readers=_engine(lambda: self._connect(_READS), READERS),
            limiter=trio.CapacityLimiter(1),
        )
        self._subscriber = _engine(self._connect_subscriber, 1)
        self._reading = trio.CapacityLimiter(READERS)
        self._subscribing = trio.CapacityLimiter(1)
        try:
            with self._transaction(time.monotonic()) as connection:
                _check(connection)
                connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
                prepare(connection)
        except (sa.exc.SQLAlchemyError, OSError) as error:
            self.close()
            reason = self._reason(error)
            raise StoreError(f"can't open the database {place}: {reason}{_advice(reason)}") from error
        except StoreError as error:
            self.close()
            raise StoreError(f"can't use the database {place}: {error}") from error
        self._patience = SILENCE

    # --- connections -----------------------------------------------------------------------------------------------

    def _connect(self, settings: dict[str, str]) -> _Connection:
        connection = self._place.connect(_Connection)
        connection.is_over = self._is_over
        try:
            chosen = {**_SETTINGS, **settings}
            setting = ", ".join("set_config(%s, %s, false)" for _ in chosen)
            connection.execute(f"SELECT {setting}", [each for pair in chosen.items() for each in pair])
            # whoever has turned it off has not thought of what a reply of success means here
            connection.execute(
                "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
            )
            connection.autocommit = False
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect_subscriber(self) -> _Connection:
        connection = self._connect(_SUBSCRIBES)
        connection.is_over = lambda began: self._is_over(began) or time.monotonic() > began + _ANSWER
        return connection

    def close(self) -> None:
        """Close all connections to the database."""
        super().close()
        self._subscriber.dispose()

    def _is_over(self, began: float) -> bool:
        now = time.monotonic()
        return now > began + self._patience or now > max(self._last_wait, began + _PAUSE)

    def _wait_for_writer(self, deadline: float, look: Callable[[], None]) -> sa.Connection:
        while True:
            try:
                return self._writer.connect()
            except (sa.exc.OperationalError, OSError):
                # at the start nobody waits for PostgreSQL: what does not answer then may be misspelt
                if self._patience == math.inf or time.monotonic() >= min(deadline, self._last_wait):
                    raise
            look()
            time.sleep(_PAUSE)

    # --- writing ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(
        self, deadline: float, look: Callable[[], None] = lambda: None, *, shared: bool = False
    ) -> Iterator[sa.Connection]:
        outcome = None
        with self._wait_for_writer(deadline, look) as connection:
            try:
                with connection.begin():
                    connection.exec_driver_sql(_TOGETHER if shared else _ALONE)
                    connection.info[SHARED] = shared
                    told: list[tuple[str, str]] = []
                    connection.info[_TOLD] = told
                    yield connection
                    if told:  # at once for all steps: for each it would be an answer more to wait for
                        channels, notices = map(list, zip(*told, strict=True))
                        connection.execute(_TELL, {"channels": channels, "notices": notices})
                    outcome = connection.execute(_OUTCOME).one()
            except sa.exc.DBAPIError as error:
                if outcome is None or not error.connection_invalidated:
                    raise
            else:
                return
        # lost while it was committed, so that nobody has said whether it was
        if not self._has_committed(outcome.number, outcome.timeline, deadline, look):
            raise _Lost("the connection is lost")

    def _has_committed(self, number: str | None, timeline: str, deadline: float, look: Callable[[], None]) -> bool:
        """Return whether a transaction was committed, once its session has ended."""
        if number is None:
            return False  # it has changed nothing
        while True:
            try:
                with self._wait_for_writer(deadline, look) as connection:
                    found = connection.execute(_STATUS, {"number": number}).one()
            except sa.exc.DataError:
                return False  # no such transaction has begun yet: another machine took over before it heard of it
            except (sa.exc.OperationalError, OSError, StoreError) as error:
                if self._is_again(error) and time.monotonic() < min(deadline, self._last_wait):
                    continue
                raise Undecided(
                    f"the database was lost during a commit, which may have been done: {self._reason(error)}"
                ) from error
            if found.status == "committed" and found.timeline == timeline:
                return True
            if found.status == "aborted":
                return False
            if found.status == "in progress" and time.monotonic() < min(deadline, self._last_wait):
                time.sleep(_PAUSE)  # PostgreSQL has not yet noticed that its session is lost
                continue
            raise Undecided("the database was lost during a commit, and has forgotten whether it was done")

    def _is_again(self, error: BaseException) -> bool:
        if isinstance(error, StoreError):
            return isinstance(error, _Lost)
        first = first_error(error)
        sqlstate = getattr(first, "sqlstate", None)
        # libpq has no code for what keeps it from connecting
        is_away = getattr(error, "connection_invalidated", False) or (
            isinstance(first, psycopg.OperationalError) and sqlstate is None
        )
        return is_away or sqlstate in _AGAIN

    def _failure(self, error: BaseException) -> StoreError:
        if isinstance(error, Undecided):
            return error
        is_full = getattr(first_error(error), "sqlstate", None) == _FULL
        return (DiskFull if is_full else StoreError)(f"the database can't be written: {self._reason(error)}")

    def _reason(self, error: BaseException) -> str:
        """Return what went wrong in one line, without the password."""
        first = first_error(error)
        if getattr(first, "sqlstate", None) == _BUSY:
            return "others have written to it for too long"
        lines = (line.strip() for line in str(first).splitlines())
        reason = " ".join(line for line in lines if line and not line.startswith(_QUESTION))
        return reason.replace(self._place.password, "…") if self._place.password else reason

    # --- hearing ---------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def subscribed(self, channel: str) -> AsyncIterator[Subscription]:
        """Hear in a block what other programs tell. Raises StoreError."""
        try:
            connection = await trio.to_thread.run_sync(self._subscriber.connect, limiter=self._subscribing)
        except (sa.exc.SQLAlchemyError, OSError) as error:
            raise self._lost(error) from error
        try:
            found = Subscription(connection, self._lost, self._subscribing)
            await found.begin(channel)
            yield found
        finally:
            connection.invalidate()  # its locks, too
            connection.close()

    def tell(self, connection: sa.Connection, channel: str, notice: str) -> None:
        """Have all who subscribe to a channel hear something, as soon as the change of a step is on the disk.

        A step tells it last: what it tells before it is refused may be heard all the same.
        """
        connection.info[_TOLD].append((channel, notice))

    def _lost(self, error: BaseException) -> StoreError:
        return StoreError(f"the database does not answer: {self._reason(error)}")

    # --- reading ---------------------------------------------------------------------------------------------------

    async def read(self, step: Callable[[sa.Connection], T]) -> T:
        """Return what a step returns that changes nothing. Raises StoreError."""
        return await self._read(step)

    async def answer(self) -> None:
        """Return once the database has answered; the wait may be given up. Raises StoreError."""
        await self._read(ask, may_be_left=True)

    async def _read(self, step: Callable[[sa.Connection], T], *, may_be_left: bool = False) -> T:
        deadline = time.monotonic() + grouping.LOCK_TIMEOUT

        def read() -> T:
            with self._readers.connect() as connection:
                return step(connection)

        while True:
            left = min(deadline, self._last_wait) - time.monotonic()
            try:
                with trio.fail_after(max(left, _PAUSE)):  # while it waits for its turn: a thread that reads is not left
                    return await trio.to_thread.run_sync(read, limiter=self._reading, abandon_on_cancel=may_be_left)
            except trio.TooSlowError as error:
                raise StoreError("the database can't be read: others wait for it as well") from error
            except (sa.exc.SQLAlchemyError, OSError) as error:
                if not self._is_again(error) or left <= 0:
                    raise StoreError(f"the database can't be read: {self._reason(error)}") from error
            await trio.sleep(_PAUSE)


def _engine(connect: Callable[[], _Connection], size: int) -> sa.Engine:
    return sa.create_engine(
        "postgresql+psycopg://", creator=connect, pool_size=size, max_overflow=0, use_native_hstore=False
    )


def _check(connection: sa.Connection) -> None:
    """Raise StoreError for a database that can't be ours."""
    found = connection.exec_driver_sql(
        "SELECT current_setting('server_version_num'), current_setting('server_version'), current_setting('server_encoding')"
    ).one()
    number, version, encoding = found
    if int(number) < _OLDEST:
        raise StoreError(f"it is PostgreSQL {version}; version {_OLDEST // 10_000} is the oldest that will do")
    if encoding != "UTF8":
        raise StoreError(f"its encoding is {encoding}; make one with createdb --encoding UTF8 --template template0")
