"""builder-server copy-database: a farm moves from SQLite to PostgreSQL and back, whole or not at all."""

import sqlite3
from contextlib import closing
from pathlib import Path
from platform import node
from typing import Any
from uuid import UUID

import clusters
import databases
import pytest
import scripted
import sqlalchemy as sa
import trio
from click.testing import CliRunner
from farm import start_server
from scripted import build, info, schedule
from test_postgres import shape as shape_there
from test_server_backup import does_not_start
from test_server_migrations import shape

from builder.errors import BuilderError
from builder.runtime.database import StoreError
from builder.runtime.postgres import Location
from builder_server import cli
from builder_server.administration import REVISIONS
from builder_server.names import COPIED, COPYING, DATABASE, ELSEWHERE
from builder_server.served import StartError
from builder_server.store import Store, copying
from builder_server.store.schema import metadata

PAGE = 4

ROWS = 2 * PAGE + 1

KNOWN: dict[str, Any] = {
    "build.state": "finished",
    "build.upload": "done",
    "upload.state": "pending",
    "halt.scope": "worker",
    "job.opam_package": None,
    "build.owner": "main",
}
"""What tables check."""


def administer(directory: Path, *arguments: str) -> str:
    """Return what a command prints."""
    done = CliRunner().invoke(cli.command, [f"--dir={directory}", *arguments])
    if done.exception:
        raise done.exception
    assert done.output.count("\n") == 1
    return done.output


def refused(directory: Path, *arguments: str) -> str:
    """Return why it was not done."""
    with pytest.raises(BuilderError) as found:
        administer(directory, *arguments)
    assert "\n" not in str(found.value)
    return str(found.value)


def engine(place: Path | Location) -> sa.Engine:
    if isinstance(place, Path):
        return sa.create_engine(f"sqlite:///{place}", poolclass=sa.NullPool)
    return sa.create_engine(f"postgresql+psycopg{place.url.removeprefix('postgresql')}", poolclass=sa.NullPool)


def value(column: sa.Column[Any], number: int) -> object:
    """Return what a row has there: each row something else, and something in each column."""
    if f"{column.table.name}.{column.name}" in KNOWN:
        return KNOWN[f"{column.table.name}.{column.name}"]
    if isinstance(column.type, sa.Boolean):
        return number % 2 == 0
    if isinstance(column.type, sa.LargeBinary):
        return b"\0\xff%d" % number
    if isinstance(column.type, sa.Integer | sa.Numeric):
        return number if column.primary_key or column.foreign_keys or "BIG" not in str(column.type) else 2**62 + number
    return f"{'Äz'[number % 2]}{number}'\\\n"


def fill(place: Path | Location, rows: int = ROWS) -> None:
    """Have something in every table."""
    with engine(place).begin() as connection:
        for table in copying.TABLES:
            connection.execute(
                sa.insert(table),
                [{column.name: value(column, n) for column in table.columns} for n in range(1, rows + 1)],
            )


def contents(place: Path | Location) -> dict[str, list[Any]]:
    with engine(place).connect() as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(sa.select(table).order_by(*table.primary_key))]
            for table in copying.TABLES
        }


def owners(place: Path | Location) -> set[str]:
    with engine(place).connect() as connection:
        return set(connection.scalars(sa.text("SELECT owner FROM build")))


def next_ids(place: Path | Location, platform: int) -> dict[str, int]:
    """Add a row to each table that counts, and return its id."""
    found = {}
    with engine(place).begin() as connection:
        for table in copying.TABLES:
            if (counted := table.autoincrement_column) is not None:
                row = {column.name: value(column, ROWS) for column in table.columns if column is not counted}
                if table.name in ("job", "queue"):
                    row |= (
                        {"name": "new"}
                        if table.name == "job"
                        else {"platform": value(table.c.platform, platform), "job_id": 2}
                    )
                found[table.name] = connection.scalar(sa.insert(table).returning(counted), row) or 0
    return found


@pytest.fixture(autouse=True)
def _pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several of them, of few rows."""
    monkeypatch.setattr(copying, "PAGE", PAGE)


@pytest.fixture
def place(tmp_path: Path) -> Location:
    return databases.postgres_at(tmp_path / "there", empty=True)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A server's directory, whose database has something everywhere."""
    path = tmp_path / "data"
    path.mkdir()
    databases.make(path / DATABASE)
    fill(path / DATABASE)
    return path


pytestmark = pytest.mark.databases(only="postgres")


def test_there_and_back_with_something_in_every_table(directory: Path, place: Location, tmp_path: Path) -> None:
    expected = contents(directory / DATABASE)
    assert all(len(rows) == ROWS for rows in expected.values())
    total = sum(map(len, expected.values()))
    said = administer(directory, "--name=b1", "copy-database", f"--to={place.url}")
    assert said.startswith(f"copied {total} rows to {place}: start the server with --database; {COPIED} may go")
    assert owners(place) == {"b1"}
    assert (directory / ELSEWHERE).read_text("utf-8") == f"{place}\nb1\n"
    assert contents(place) == {**expected, "build": contents(place)["build"]}
    assert contents(directory / COPIED) == expected
    Store.open(new := databases.postgres_at(tmp_path / "new", empty=True)).close()
    assert shape_there(place.url) == shape_there(new.url)
    said = administer(directory, "copy-database", f"--from={place.url}")
    assert said.startswith(f"copied {total} rows from {place}: start the server without --database;")
    assert contents(directory / DATABASE) == expected
    assert shape(directory / DATABASE) == shape(directory / COPIED)
    assert {path.name for path in directory.iterdir()} == {DATABASE, COPIED, "lock"}


def test_files_stay_those_of_their_server(directory: Path, place: Location) -> None:
    """Of before there were names, too; those of other servers stay theirs."""
    with closing(sqlite3.connect(directory / DATABASE)) as database, database:
        database.execute("UPDATE build SET owner = NULL WHERE started % 2 = 0")
    administer(directory, "copy-database", f"--to={place.url}")
    assert owners(place) == {node()}
    with engine(place).begin() as connection:
        connection.execute(sa.text("UPDATE build SET owner = 'b2' WHERE started % 2 = 0"))
    assert f"has what the server called {node()} has built" in refused(
        directory, "--name=b2", "copy-database", f"--from={place.url}"
    )
    administer(directory, "copy-database", f"--from={place.url}")
    assert owners(directory / DATABASE) == {"main", "b2"}


def test_ids_go_on_behind_those_that_were_ever_given(directory: Path, place: Location) -> None:
    """A build may run whose job, the newest, was removed: no other job may get that id."""
    with closing(sqlite3.connect(directory / DATABASE)) as database, database:
        database.execute("PRAGMA foreign_keys = ON")
        database.execute("DELETE FROM job WHERE id = ?", [ROWS])
    administer(directory, "copy-database", f"--to={place.url}")
    assert next_ids(place, 3)["job"] == ROWS + 1
    with engine(place).begin() as connection:
        connection.exec_driver_sql("DELETE FROM job WHERE name = 'new'")
    administer(directory, "copy-database", f"--from={place.url}")
    assert next_ids(directory / DATABASE, 4) == {"job": ROWS + 2, "queue": ROWS + 1, "skipped": ROWS + 2}


def test_a_store_that_never_had_a_job_gives_the_first_id(tmp_path: Path, place: Location) -> None:
    databases.make(tmp_path / DATABASE)
    assert administer(tmp_path, "copy-database", f"--to={place.url}").startswith("copied 0 rows ")
    administer(tmp_path, "copy-database", f"--from={place.url}")
    with engine(tmp_path / DATABASE).begin() as connection:
        job = metadata.tables["job"]
        row = {column.name: value(column, 1) for column in job.columns if column.name != "id"}
        assert connection.scalar(sa.insert(job).returning(job.c.id), row) == 1


async def test_a_farm_moves_out_and_in_again(tmp_path: Path, place: Location) -> None:
    """Its jobs, its builds and what waits are there on either side, and the way is said to who takes the wrong one."""
    option = f"--database={place.url}"
    async with start_server(tmp_path) as server:
        await scripted.do(server, schedule("a", "p1"), schedule("b", "p2"))
        await build(server)
        before = await info(server)
        data = server.data_dir
        for way in ("--to", "--from"):
            said = await trio.to_thread.run_sync(refused, data, "copy-database", f"{way}={place.url}")
            assert said.startswith(f"another server uses {data}: stop it")
        assert server.terminate() == 0
    await trio.to_thread.run_sync(administer, data, "copy-database", f"--to={place.url}")
    assert "name it with --database" in does_not_start(data)
    async with start_server(tmp_path, option) as server:
        assert await info(server) == before
        await scripted.do(server, schedule("c", "p1"))
        before = await info(server)
        assert server.terminate() == 0
    await trio.to_thread.run_sync(administer, data, "copy-database", f"--from={place.url}")
    async with start_server(tmp_path) as server:
        assert await info(server) == before
        assert server.terminate() == 0


# --- what is refused, and what fails -------------------------------------------------------------------------------


def test_a_target_that_is_not_empty(directory: Path, place: Location) -> None:
    Store.open(place).close()
    fill(place, rows=1)
    assert "it isn't empty, there are rows in its table " in refused(directory, "copy-database", f"--to={place.url}")
    assert len(contents(place)["job"]) == 1
    said = refused(directory, "copy-database", f"--from={place.url}")
    assert said == f"there is a {DATABASE} in {directory}: move it away, or name another directory with --dir"


def test_tables_that_are_empty_are_no_hindrance(directory: Path, place: Location) -> None:
    Store.open(place).close()
    assert administer(directory, "copy-database", f"--to={place.url}")


def test_another_revision(directory: Path, place: Location, tmp_path: Path) -> None:
    Store.migrate(directory / DATABASE, REVISIONS[-2])
    said = refused(directory, "copy-database", f"--to={place.url}")
    assert (
        f"is at revision {REVISIONS[-2]}, and this version knows {REVISIONS[-1]}: start a server of this version"
        in said
    )
    assert clusters.shared().execute("SELECT 1 FROM pg_tables WHERE schemaname = 'public'", str(place).split()[0]) == []
    assert str(place) not in said, "nothing is wrong there"
    said = refused(tmp_path, "copy-database", f"--from={place.url}")
    assert "there is nothing to copy: it has no tables" in said
    assert not (tmp_path / COPYING).exists()


def test_a_server_that_works_on_it(directory: Path, place: Location) -> None:
    """It may be on another machine."""
    Store.open(place).close()
    later = "(extract(epoch FROM clock_timestamp()) * 1000 + 60000)::bigint"
    clusters.shared().execute(
        f"INSERT INTO server (name, incarnation, version, started, expires, token) VALUES ('b1', '{UUID(int=1)}', '', 0, {later}, '')",
        str(place).split()[0],
    )
    for arguments in ((directory, f"--to={place.url}"), (directory.parent, f"--from={place.url}")):
        said = refused(arguments[0], "copy-database", arguments[1])
        assert said == f"can't use the database {place}: a server works on it, b1: stop it first"


def test_what_other_servers_have_built_is_said_to_be_with_them(tmp_path: Path, place: Location) -> None:
    Store.open(place).close()
    fill(place, rows=2)
    clusters.shared().execute("UPDATE build SET owner = 'b' || (losses % 2)", str(place).split()[0])
    said = administer(tmp_path, "--name=b1", "copy-database", f"--from={place.url}")
    assert said.endswith("may go once all is well; consoles and artifacts of b0 are in their directories alone\n")


def test_nothing_to_copy(tmp_path: Path, place: Location) -> None:
    said = refused(tmp_path, "copy-database", f"--to={place.url}")
    assert said == f"there is no {DATABASE} in {tmp_path} to copy: name the server's directory with --dir"


def test_what_was_copied_already(tmp_path: Path, place: Location) -> None:
    Store.open(tmp_path / DATABASE).close()
    administer(tmp_path, "copy-database", f"--to={place.url}")
    said = refused(tmp_path, "copy-database", f"--to={place.url}")
    assert said == f"the database of {tmp_path} is in PostgreSQL already: start the server with --database"


@pytest.mark.parametrize("how", [StoreError("broken"), OSError(28, "No space left on device")])
def test_a_failure_in_the_middle_leaves_nothing(
    directory: Path, place: Location, how: BaseException, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In the last table, when all others are written."""
    last = copying.TABLES[-1]
    pages = copying._pages

    def breaking(connection: sa.Connection, table: sa.Table) -> Any:
        found = iter(pages(connection, table))
        yield next(found)
        if table is last:
            raise how
        yield from found

    def fail(where: Path, *arguments: str) -> None:
        with monkeypatch.context() as changed:
            changed.setattr(copying, "_pages", breaking)
            with pytest.raises(BaseException):  # noqa: B017 - each as it was raised, or what the database makes of it
                cli.command.main([f"--dir={where}", *arguments], standalone_mode=False)

    expected = contents(directory / DATABASE)
    fail(directory, "copy-database", f"--to={place.url}")
    assert clusters.shared().execute("SELECT 1 FROM pg_tables WHERE schemaname = 'public'", str(place).split()[0]) == []
    assert contents(directory / DATABASE) == expected
    assert not {ELSEWHERE, COPIED} & {path.name for path in directory.iterdir()}
    administer(directory, "copy-database", f"--to={place.url}")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    fail(elsewhere, "copy-database", f"--from={place.url}")
    assert {path.name for path in elsewhere.iterdir()} == {"lock"}
    administer(elsewhere, "copy-database", f"--from={place.url}")
    assert contents(elsewhere / DATABASE) == expected


def test_what_is_written_otherwise_than_it_was_read_is_found(directory: Path, place: Location, tmp_path: Path) -> None:
    Store.open(place).close()
    clusters.shared().execute(
        "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.reason = 'x'; RETURN NEW; END $$; "
        "CREATE TRIGGER spoil BEFORE INSERT ON halt FOR EACH ROW EXECUTE FUNCTION spoil()",
        str(place).split()[0],
    )
    said = refused(directory, "copy-database", f"--to={place.url}")
    assert f"its table halt is not what was read: {ROWS} rows (" in said
    assert (directory / DATABASE).exists()
    assert contents(place)["job"] == []


def test_a_move_that_was_interrupted_after_the_copy_is_finished_by_the_switch(directory: Path, place: Location) -> None:
    """The directory's own database is the one that counts until it has been renamed."""
    (directory / ELSEWHERE).write_text("elsewhere", "utf-8")
    (directory / f"{COPYING}-wal").write_bytes(b"what an interrupted copy has left")
    assert administer(directory, "migrate") == f"the database is at revision {REVISIONS[-1]}\n"
    administer(directory, "copy-database", f"--to={place.url}")
    administer(directory, "copy-database", f"--from={place.url}")
    assert not list(directory.glob(f"{COPYING}*"))


@pytest.mark.parametrize("given", [(), ("--to=postgresql://h/d", "--from=postgresql://h/d")])
def test_one_way_at_a_time(given: tuple[str, ...], tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.command, [f"--dir={tmp_path}", "copy-database", *given])
    assert (done.exit_code, "give either --to or --from" in done.output) == (2, True)


def test_a_password_on_the_command_line_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.command, [f"--dir={tmp_path}", "copy-database", "--to=postgresql://me:secret@h/d"])
    assert (done.exit_code, "secret" in done.output) == (2, False)


def test_without_a_database_there(directory: Path) -> None:
    with pytest.raises((StartError, StoreError), match="can't open the database none at "):
        administer(directory, "copy-database", f"--to=postgresql://builder@/none?host={clusters.shared().directory}")
