"""A session of PostgreSQL by which a program hears what others tell, and shows that it lives.

Its locks end with it: PostgreSQL ends it when the program has died, and when that has said nothing for SILENCE.
"""

import hashlib
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg
import sqlalchemy as sa
import trio
from attrs import define, field

from builder.runtime.database import StoreError

T = TypeVar("T")

SILENCE = 15
"""Seconds. What is subscribed to must ask for something more often."""

MAX_HEARD = 10_000
"""Most notices that wait to be looked at."""

_ERRORS = (psycopg.Error, sa.exc.DBAPIError, OSError)


def lock_key(name: str) -> int:
    """Return the number that PostgreSQL knows a lock by."""
    return int.from_bytes(hashlib.sha256(b"builder " + name.encode()).digest()[:8], signed=True)


@define(eq=False)
class Subscription:
    """Each statement is a transaction of its own. Everything raises StoreError once the session is lost."""

    _connection: sa.Connection
    _failure: Callable[[BaseException], StoreError]
    _limiter: trio.CapacityLimiter
    _heard: deque[str] = field(factory=lambda: deque(maxlen=MAX_HEARD))
    _locks: set[str] = field(factory=set)

    async def begin(self, channel: str) -> None:
        """Subscribe to a channel."""
        self._connection.execution_options(isolation_level="AUTOCOMMIT")
        self._session.add_notify_handler(lambda told: self._heard.append(told.payload))
        await self.run(lambda connection: connection.exec_driver_sql(f'LISTEN "{channel}"'))

    @property
    def _session(self) -> Any:
        return self._connection.connection.driver_connection

    async def run(self, step: Callable[[sa.Connection], T]) -> T:
        """Return what a step returns."""
        try:
            return await trio.to_thread.run_sync(step, self._connection, limiter=self._limiter)
        except _ERRORS as error:
            raise self._failure(error) from error

    async def has_lock(self, name: str) -> bool:
        """Take a lock that one session has at a time, unless another one has it; return whether this one has it now."""
        if name not in self._locks:
            key = sa.literal(lock_key(name), sa.BigInteger)
            if await self.run(lambda connection: connection.scalar(sa.select(sa.func.pg_try_advisory_lock(key)))):
                self._locks.add(name)
        return name in self._locks

    async def hear(self) -> list[str]:
        """Wait until something is told, and return it, also what was told by this program."""
        try:
            while not self._heard:
                await trio.lowlevel.wait_readable(self._session.fileno())
                self._session.pgconn.consume_input()
                while told := self._session.pgconn.notifies():
                    self._heard.append(told.extra.decode())
        except _ERRORS as error:
            raise self._failure(error) from error
        if len(self._heard) == MAX_HEARD:
            raise self._failure(OSError("more was told than is kept"))
        heard = [*self._heard]
        self._heard.clear()
        return heard
