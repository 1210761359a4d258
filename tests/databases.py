"""New databases of builder-server, made once by its own migrations and copied: that takes 50 ms, and waits for the disk.

Tests of what the server remembers run on each kind of database: see the marker ``databases``.
"""

import atexit
import hashlib
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

if TYPE_CHECKING:
    from builder.runtime.postgres import Location

KINDS = ("sqlite", "postgres")

KIND = os.environ.get("BUILDER_TEST_DATABASE", KINDS[0])
"""That of tests which run on one kind: so all of them can be run on the other."""

kind = KIND
"""The kind of the test that runs."""

_TEMPLATE = "made"

_made: dict[Path, str] = {}
"""The databases of the test that runs, by the paths that they have in SQLite."""

_free: list[str] = []
"""Databases with the tables that a new server makes, and nothing in them: to make one takes much longer than to empty one."""


class _Statements(dict[tuple[Any, ...], Any]):
    """What SQLAlchemy has compiled, for all databases of a kind: each test opens its own, and would compile all of it anew."""

    def get(self, key: tuple[Any, ...], default: Any = None) -> Any:
        dialect, *statement = key
        return super().get((dialect.name, *statement), default)

    def __setitem__(self, key: tuple[Any, ...], compiled: Any) -> None:
        dialect, *statement = key
        super().__setitem__((dialect.name, *statement), compiled)


_statements = _Statements()


@sa.event.listens_for(sa.Engine, "engine_connect")
def _share(connection: sa.Connection) -> None:
    connection.execution_options(compiled_cache=_statements)


@cache
def _template() -> Path:
    from builder_server.store import Store

    folder = Path(tempfile.mkdtemp(prefix="b-"))
    atexit.register(shutil.rmtree, folder)
    path = folder / "builder.sqlite3"
    Store.open(path).close()
    return path


def make(path: Path) -> None:
    """Make a database as a new server does, unless there is one."""
    if not path.exists():
        shutil.copyfile(_template(), path)


@cache
def _make_template() -> None:
    import clusters

    from builder.runtime.postgres import Location
    from builder_server.store import Store

    Store.open(Location(url=clusters.shared().create(_TEMPLATE))).close()


def postgres_at(path: Path, *, empty: bool = False) -> "Location":
    """Return the database that a test has in PostgreSQL instead of a file, made unless it is there."""
    import clusters

    from builder.runtime.postgres import Location

    if path not in _made and _free and not empty:
        _made[path] = _free.pop()
    elif path not in _made:
        name = f"t{hashlib.sha256(bytes(path)).hexdigest()[:16]}"
        if not empty:
            _make_template()
        clusters.shared().create(name, **({} if empty else {"template": _TEMPLATE}))
        _made[path] = name
    return Location(url=clusters.shared().url(_made[path]))


def place(path: Path) -> "Path | Location":
    """Return where the test that runs has the database that lies at a path in SQLite; made unless it is there."""
    if kind == "postgres":
        return postgres_at(path)
    make(path)
    return path


def query(path: Path, sql: str) -> list[Any]:
    """Return rows of a test's database in PostgreSQL."""
    import clusters

    return clusters.shared().execute(sql, _made[path])


@cache
def _empty() -> str:
    """Return what removes all rows but those that migrations have written: to truncate few rows would take longer."""
    from builder_server.store.schema import metadata

    tables = [table.name for table in reversed(metadata.sorted_tables) if table.name != "program"]
    statements = [f"DELETE FROM {table}" for table in tables]
    return "; ".join([*statements, "SELECT setval(oid::regclass, 1, false) FROM pg_class WHERE relkind = 'S'"])


def forget(*, is_as_new: bool) -> None:
    """Remove what the test that ran has in PostgreSQL; ``is_as_new``: it has changed nothing there but rows."""
    if not _made:
        return
    import clusters

    for name in _made.values():
        if is_as_new:
            clusters.shared().execute(_empty(), name)
            _free.append(name)
        else:
            clusters.shared().drop(name)
    _made.clear()
