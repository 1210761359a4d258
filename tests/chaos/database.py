"""The farm's database: a file of the one server, or PostgreSQL, which is hit as the others are."""

import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import trio
from attrs import define
from clusters import Cluster

Ask = Callable[[str], list[Any]]
"""Returns rows for a statement."""

NAME = "farm"


def in_file(path: Path) -> Ask:
    """Return what asks a database in SQLite."""

    def ask(statement: str) -> list[Any]:
        connection = sqlite3.connect(path, timeout=30)
        try:
            return connection.execute(statement).fetchall()
        finally:
            connection.close()

    return ask


@define(eq=False)
class Postgres:
    """A PostgreSQL that can be hit."""

    cluster: Cluster

    @property
    def ask(self) -> Ask:
        """What asks it."""
        return partial(self.cluster.execute, name=NAME)

    @property
    def url(self) -> str:
        """The address of the farm's database."""
        return self.cluster.url(NAME)

    async def kill(self) -> None:
        """End it at once, as ``pg_ctl stop --mode immediate`` does."""
        await self.restart(signal.SIGQUIT)

    async def restart(self, number: int) -> None:
        """End it by a signal."""
        await trio.to_thread.run_sync(self.cluster.stop, number)

    async def start(self) -> None:
        """Start it again, unless it has recovered by itself, and wait until it answers."""
        await trio.to_thread.run_sync(self.cluster.wait_for_answer if self.cluster.is_running else self.cluster.start)

    def send(self, number: int) -> None:
        """Send all of its processes a signal."""
        self.cluster.signal(number)

    def crash(self, chance: Random) -> None:
        """Kill a process that serves one of the servers, after which it ends all connections, and recovers by itself."""
        serving = self.ask("SELECT pid FROM pg_stat_activity WHERE application_name = 'builder' ORDER BY pid")
        if serving:
            os.kill(chance.choice(serving)[0], signal.SIGKILL)


@contextmanager
def running() -> Iterator[Postgres]:
    """Run one until the block ends."""
    cluster = Cluster.make()
    try:
        cluster.create(NAME)
        yield Postgres(cluster)
    finally:
        cluster.kill()
