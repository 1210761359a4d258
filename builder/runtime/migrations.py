"""Migrations by Alembic, as steps of a database.

``location`` is where Alembic finds them, such as "package:folder".

A migration that says ``is_additive = True`` leaves everything as it was for programs that know the revision before: so those may
work on the database beside newer ones. Which is the oldest revision whose programs may is in the table ``program``, where a
database has one, for programs that do not know the newest.
"""

from collections.abc import Callable
from functools import cache

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from builder.runtime.database import StoreError

_VERSION = sa.table("alembic_version", sa.column("version_num", sa.Text))
"""Alembic's own, which it would describe, and compile, anew for each question."""

_PROGRAM = sa.table("program", sa.column("oldest", sa.Text))

_NEWEST = "head"


def _nothing(_connection: sa.Connection) -> None:
    pass


def upgrade(location: str, before_break: Callable[[sa.Connection], None] = _nothing) -> Callable[[sa.Connection], None]:
    """Return what brings a database to the newest revision there is.

    It leaves one that is newer as it is, and raises StoreError where programs of this one may not work on that. ``before_break``
    as in ``migrate``.
    """
    return migrate(location, _NEWEST, before_break)


def newest(location: str) -> str:
    """Return the newest revision there is."""
    found = _scripts(location).get_current_head()
    assert found, "there are migrations"
    return found


def current(connection: sa.Connection) -> str | None:
    """Return the revision of a database, which need not be known here; None: it has none."""
    if not sa.inspect(connection).has_table(_VERSION.name):
        return None
    return connection.scalar(sa.select(_VERSION.c.version_num))


def migrate(
    location: str, revision: str, before_break: Callable[[sa.Connection], None] = _nothing
) -> Callable[[sa.Connection], None]:
    """Return what brings a database to a revision, be it newer or older than its own.

    It raises StoreError for a database whose own revision is not known. ``before_break`` is called before programs that know the
    revision at hand can work on the database no more, and may raise.
    """

    def step(connection: sa.Connection) -> None:
        scripts = _scripts(location)
        revisions = [each.revision for each in scripts.walk_revisions()]  # the newest first
        now = current(connection)
        if now is not None and now not in revisions:
            if revision == _NEWEST and _oldest_noted(connection) in revisions:
                return
            raise _newer(now, revisions[0])
        to = revisions[0] if revision == _NEWEST else revision
        if now == to:
            return
        is_back = now is not None and revisions.index(to) > revisions.index(now)
        if now is not None and (is_back or revisions.index(_oldest(scripts, to)) < revisions.index(now)):
            before_break(connection)
        config = _config(location)
        config.attributes["connection"] = connection
        (command.downgrade if is_back else command.upgrade)(config, to)
        if _has_program(connection):
            connection.execute(sa.delete(_PROGRAM))
            connection.execute(sa.insert(_PROGRAM).values(oldest=_oldest(scripts, to)))

    return step


def check(location: str) -> Callable[[sa.Connection], None]:
    """Return what raises StoreError for a database on which programs of this revision may not work any more."""

    def step(connection: sa.Connection) -> None:
        now = current(connection)
        revisions = [each.revision for each in _scripts(location).walk_revisions()]
        if now is not None and now not in revisions and _oldest_noted(connection) not in revisions:
            raise _newer(now, revisions[0])

    return step


def _newer(now: str, known: str) -> StoreError:
    return StoreError(
        f"a newer version has written it (revision {now}, this one knows up to {known}): install that, or let it bring the "
        f"database back with its 'migrate --to {known}'"
    )


def _oldest(scripts: ScriptDirectory, revision: str) -> str:
    """Return the oldest revision whose programs may work on a database of another one."""
    found = scripts.get_revision(revision)
    while getattr(found.module, "is_additive", False) and isinstance(found.down_revision, str):
        found = scripts.get_revision(found.down_revision)
    return found.revision


def _oldest_noted(connection: sa.Connection) -> str | None:
    return connection.scalar(sa.select(_PROGRAM.c.oldest)) if _has_program(connection) else None


def _has_program(connection: sa.Connection) -> bool:
    return sa.inspect(connection).has_table(_PROGRAM.name)


@cache
def _scripts(location: str) -> ScriptDirectory:
    return ScriptDirectory.from_config(_config(location))


def _config(location: str) -> Config:
    config = Config()
    config.set_main_option("script_location", location)
    config.set_main_option("path_separator", "os")
    return config
