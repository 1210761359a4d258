"""The store: what the site asks of the database."""

import sqlite3
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Self, TypeVar

import sqlalchemy as sa
from attrs import define, field

from builder.runtime.database import Database
from builder_web.directory import DataDirectory
from builder_web.store.jobs import AllJobs
from builder_web.store.opening import open_database

T = TypeVar("T")
P = ParamSpec("P")


@define(eq=False)
class Store:
    """A data directory's database. What is asked for are the steps of this room's modules."""

    database: Database
    _watch: sqlite3.Connection
    jobs: AllJobs = field(factory=AllJobs)

    @classmethod
    def open(cls, directory: DataDirectory) -> Self:
        """Return the store of a data directory. Raises NotOurs and StoreError."""
        database = open_database(directory.database)
        return cls(database, sqlite3.connect(directory.database))

    def state(self) -> object:
        """Return what is equal for as long as nobody, builder-db among them, changes anything."""
        return self._watch.execute("PRAGMA data_version").fetchone()

    async def ask(self, step: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **options: P.kwargs) -> T:
        """Return what a step returns that changes nothing. Raises StoreError."""
        return await self.database.read(lambda connection: step(connection, *args, **options))

    def close(self) -> None:
        """Close the database."""
        self._watch.close()
        self.database.close()
