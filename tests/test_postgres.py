"""A store in PostgreSQL: what is lost, what is run again, and what is not acknowledged."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import clusters
import databases
import psycopg
import pytest
import sqlalchemy as sa
import trio
from clusters import Cluster
from databases import postgres_at
from farm import DEADLINE, environment, eventually, free_port
from stores import NOW, database, opened, queues, script, take
from test_server_commits import gather

from builder.model import Period
from builder.runtime import grouping, postgres
from builder.runtime.database import DiskFull, is_alone, require_alone
from builder.runtime.postgres import Location, PostgreSQL
from builder_server.administration import REVISIONS
from builder_server.errors import CommandRefused
from builder_server.store import Store, StoreError
from builder_server.store.schema import metadata

pytestmark = pytest.mark.databases(only="postgres")


@pytest.fixture
def cluster() -> Cluster:
    """The one that the tests share: it runs again once the test has ended."""
    return clusters.shared()


@pytest.fixture
def alone() -> Iterator[Cluster]:
    """A cluster that a test may stop."""
    found = Cluster.make()
    yield found
    found.kill()


def end_sessions(name: str) -> None:
    """End all connections to a database, as an administrator does, or a restart."""
    clusters.shared().execute(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'")


def name_of(place: Location) -> str:
    return str(place).partition(" at ")[0]


# --- the tables ----------------------------------------------------------------------------------------------------


def shape(url: str) -> dict[str, Any]:
    """Return what there is in a database besides Alembic's own."""
    engine = sa.create_engine(f"postgresql+psycopg{url.removeprefix('postgresql')}")
    inspector = sa.inspect(engine)
    found: dict[str, Any] = {}
    for table in sorted({*inspector.get_table_names()} - {"alembic_version"}):
        found[table] = (
            sorted(
                (each["name"], type(each["type"]).__name__, each["nullable"], each["default"])
                for each in inspector.get_columns(table)
            ),
            inspector.get_pk_constraint(table)["constrained_columns"],
            sorted((str(each["name"]), tuple(each["column_names"])) for each in inspector.get_indexes(table)),
            sorted(each["sqltext"] for each in inspector.get_check_constraints(table)),
            sorted((each["referred_table"], str(each["options"])) for each in inspector.get_foreign_keys(table)),
        )
    engine.dispose()
    return found


def test_the_migrations_make_the_schema_that_the_code_uses(tmp_path: Path) -> None:
    migrated, made = postgres_at(tmp_path / "migrated", empty=True), postgres_at(tmp_path / "made", empty=True)
    Store.open(migrated).close()
    engine = sa.create_engine(f"postgresql+psycopg{made.url.removeprefix('postgresql')}")
    metadata.create_all(engine)
    engine.dispose()
    assert shape(migrated.url) == shape(made.url)


def test_both_databases_have_the_same_tables(tmp_path: Path) -> None:
    place = postgres_at(tmp_path / "db")
    Store.open(tmp_path / "file").close()
    inspectors = [
        sa.inspect(sa.create_engine(url, poolclass=sa.NullPool))
        for url in (f"sqlite:///{tmp_path}/file", f"postgresql+psycopg{place.url.removeprefix('postgresql')}")
    ]
    tables = [
        {
            table: (
                sorted((column["name"], column["nullable"]) for column in inspector.get_columns(table)),
                inspector.get_pk_constraint(table)["constrained_columns"],
                sorted(
                    str(index["name"])
                    for index in inspector.get_indexes(table)
                    if not index.get("duplicates_constraint")
                ),
                len(inspector.get_check_constraints(table)),
                sorted(tuple(each["column_names"]) for each in inspector.get_unique_constraints(table)),
                sorted((each["referred_table"], str(each["options"])) for each in inspector.get_foreign_keys(table)),
            )
            for table in inspector.get_table_names()
        }
        for inspector in inspectors
    ]
    assert tables[0] == tables[1]


def test_the_way_back_and_forward(tmp_path: Path) -> None:
    place, before = postgres_at(tmp_path / "db"), postgres_at(tmp_path / "before", empty=True)
    newest = shape(place.url)
    Store.migrate(before, REVISIONS[0])
    Store.migrate(place, REVISIONS[0])
    assert shape(place.url) == shape(before.url)
    Store.open(place).close()
    assert shape(place.url) == newest


async def test_names_are_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    """Whatever language the database was made for."""
    names = ["B", "a", "a-b", "a.b", "aB", "ab", "é", "ü", "z"]
    cluster = clusters.shared()
    cluster.execute("CREATE DATABASE danish TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'da' LOCALE 'C.UTF-8'")
    try:
        place = Location(url=cluster.url("danish"))
        assert cluster.execute("SELECT 'B' > 'a'", "danish") == [(True,)]
        async with opened(tmp_path, place) as store:
            for name in names:
                await store.schedule(script(name, f"p{name}"), Period.DAILY, NOW)
            assert [each.job.name for each in await store.jobs(None)] == sorted(names)
            assert [*(await queues(store))] == [f"p{name}" for name in sorted(names)]
    finally:
        cluster.drop("danish")


# --- connections that are lost -------------------------------------------------------------------------------------


async def test_sessions_that_were_ended_meanwhile(tmp_path: Path) -> None:
    """A restart of PostgreSQL while nobody asks: the next command finds out, and is done."""
    async with opened(tmp_path) as store:
        await store.schedule(script("a"), Period.DAILY, NOW)
        await store.info()
        end_sessions(name_of(databases.postgres_at(tmp_path / "db")))
        assert [item.job.name for item in (await store.info()).schedule] == ["a"]
        await store.schedule(script("b"), Period.DAILY, NOW)
        assert {name: sorted(jobs) for name, jobs in (await queues(store)).items()} == {"p1": ["a", "b"]}


async def test_a_session_that_is_ended_within_a_step(tmp_path: Path) -> None:
    """All of the group is run again; each has its effect once."""
    async with opened(tmp_path) as store:
        name = name_of(databases.postgres_at(tmp_path / "db"))
        times = 0

        def step(connection: sa.Connection) -> int:
            nonlocal times
            times += 1
            if times == 1:
                end_sessions(name)
            return connection.exec_driver_sql("SELECT 1").scalar_one()  # type: ignore[no-any-return]  # any column

        results = await gather(
            lambda: store.schedule(script("a"), Period.DAILY, NOW),
            lambda: store.database.write(step),
            lambda: store.unschedule("unknown"),
            lambda: store.schedule(script("b"), Period.DAILY, NOW),
        )
        assert [type(result) for result in results] == [type(None), int, CommandRefused, type(None)]
        assert times >= 2
        assert {name: sorted(jobs) for name, jobs in (await queues(store)).items()} == {"p1": ["a", "b"]}


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_session_that_is_lost_with_the_answer_to_a_commit(tmp_path: Path, when: str) -> None:
    """What became of it is asked for: it is acknowledged if it was done, and else done again."""
    async with opened(tmp_path) as store:
        engine = database(store)._writer
        do_commit = engine.dialect.do_commit
        lost: list[str] = []

        def commit(connection: Any) -> None:
            if when == "after":
                do_commit(connection)
            if not lost:
                lost.append(when)
                connection.driver_connection.pgconn.finish()
                raise psycopg.OperationalError("server closed the connection unexpectedly")
            if when == "before":
                do_commit(connection)

        engine.dialect.do_commit = commit  # type: ignore[method-assign, assignment]
        await store.schedule(script("a"), Period.DAILY, NOW)
        await store.schedule(script("b"), Period.DAILY, NOW)
        assert lost
        assert {name: sorted(jobs) for name, jobs in (await queues(store)).items()} == {"p1": ["a", "b"]}


async def test_a_commit_that_nobody_can_say_was_done_is_not_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as store:
        engine = database(store)._writer
        do_commit = engine.dialect.do_commit
        connect = Location.connect

        def commit(connection: Any) -> None:
            do_commit(connection)
            connection.driver_connection.pgconn.finish()
            monkeypatch.setattr(Location, "connect", away)
            raise psycopg.OperationalError("server closed the connection unexpectedly")

        def away(*_: object) -> None:
            raise psycopg.OperationalError("connection refused")

        monkeypatch.setattr(grouping, "LOCK_TIMEOUT", 0.5)
        monkeypatch.setattr(engine.dialect, "do_commit", commit)
        with pytest.raises(StoreError, match="lost during a commit, which may have been done: connection refused"):
            await store.schedule(script("a"), Period.DAILY, NOW)
        monkeypatch.setattr(engine.dialect, "do_commit", do_commit)
        monkeypatch.setattr(Location, "connect", connect)
        with pytest.raises(CommandRefused, match="job name already used"):
            await store.schedule(script("a"), Period.DAILY, NOW)


async def test_another_machine_took_over_before_it_heard_of_a_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its id is one of the future there: it is done again."""
    async with opened(tmp_path) as store:
        found = database(store)
        assert isinstance(found, PostgreSQL)
        answer = partial(found._has_committed, timeline="00000001", deadline=1e12, look=lambda: None)
        assert not await trio.to_thread.run_sync(partial(answer, str(2**40 + 5)))
        assert not await trio.to_thread.run_sync(partial(answer, None))


async def test_what_was_in_the_way_of_another_transaction_is_done_again(tmp_path: Path) -> None:
    """An operator's shell that locks the same rows in another order: PostgreSQL ends one of the two."""
    async with opened(tmp_path) as store:
        for name in ("a", "b"):
            await store.schedule(script(name), Period.DAILY, NOW)
        with psycopg.connect(databases.postgres_at(tmp_path / "db").url) as shell:
            shell.execute("UPDATE job SET priority = 7 WHERE name = 'b'")
            times = 0

            def step(connection: sa.Connection) -> None:
                nonlocal times
                times += 1
                connection.exec_driver_sql("SET LOCAL deadlock_timeout = '10ms'")
                connection.exec_driver_sql("UPDATE job SET priority = priority + 1 WHERE name = 'a'")
                if times == 1:
                    blocked.set()
                    # PostgreSQL looks for a circle once, some time after the wait that closes it has begun
                    its = f"pid = {shell.info.backend_pid}"  # other tests have databases beside this one
                    waits = f"SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND {its}"
                    while not databases.query(tmp_path / "db", waits):
                        pass
                connection.exec_driver_sql("UPDATE job SET priority = priority + 1 WHERE name = 'b'")

            blocked = threading.Event()

            def conflict() -> None:
                assert blocked.wait(DEADLINE)
                shell.execute("SET LOCAL deadlock_timeout = '1min'")
                shell.execute("UPDATE job SET priority = 7 WHERE name = 'a'")
                shell.commit()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.to_thread.run_sync, conflict)
                await store.database.write(step)
            assert times == 2
            assert shell.execute("SELECT priority FROM job").fetchall() == [(8,), (8,)]


async def test_a_database_that_is_away_for_a_while(alone: Cluster, tmp_path: Path) -> None:
    """Whoever asks meanwhile waits, and is served once it is back."""
    alone.create("db")
    async with opened(tmp_path, Location(url=alone.url("db"))) as store:
        await store.schedule(script("a"), Period.DAILY, NOW)
        await trio.to_thread.run_sync(alone.stop)
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(store.schedule, script(f"j{number:02}"), Period.DAILY, NOW)
                nursery.start_soon(store.info)
            await trio.sleep(0.3)
            await trio.to_thread.run_sync(alone.start)
        assert sorted((await queues(store))["p1"]) == ["a", *(f"j{number:02}" for number in range(20))]
        await trio.to_thread.run_sync(alone.stop, signal.SIGQUIT)
        await trio.to_thread.run_sync(alone.start)
        await take(store, 1)


async def test_a_database_that_stays_away(alone: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "LOCK_TIMEOUT", 0.5)
    alone.create("db")
    async with opened(tmp_path, Location(url=alone.url("db"))) as store:
        await trio.to_thread.run_sync(alone.stop)
        results = await gather(
            *(partial(store.schedule, script(f"j{number}"), Period.DAILY, NOW) for number in range(3)),
            *(store.info for _ in range(20)),
        )
        assert [type(result) for result in results] == [StoreError] * 23
        for result, what in zip((results[0], results[-1]), ("written", "read"), strict=True):
            assert str(result).startswith(f"the database can't be {what}: ")
            assert "\n" not in str(result)
            assert f"{alone.directory}/.s.PGSQL.5432" in str(result)


async def test_a_database_that_does_not_answer(alone: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "LOCK_TIMEOUT", 0.5)
    alone.create("db")
    async with opened(tmp_path, Location(url=alone.url("db"))) as store:
        await store.info()
        found = database(store)
        assert isinstance(found, PostgreSQL)
        found._patience = 0.5
        alone.signal(signal.SIGSTOP)
        results = await gather(store.info, lambda: store.schedule(script("a"), Period.DAILY, NOW))
        alone.signal(signal.SIGCONT)
        assert [type(result) for result in results] == [StoreError] * 2
        monkeypatch.setattr(grouping, "LOCK_TIMEOUT", DEADLINE)
        await store.schedule(script("b"), Period.DAILY, NOW)


async def test_a_stop_does_not_wait_for_a_database_that_does_not_answer(alone: Cluster, tmp_path: Path) -> None:
    alone.create("db")
    store = Store.open(Location(url=alone.url("db")))
    errors: list[object] = []

    async def schedule() -> None:
        errors.extend(await gather(lambda: store.schedule(script("a"), Period.DAILY, NOW)))

    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            await store.info()
            alone.signal(signal.SIGSTOP)
            nursery.start_soon(schedule)
            await trio.testing.wait_all_tasks_blocked(0.05)
            store.limit_waits(0.2)
            await eventually(lambda: errors)
            nursery.cancel_scope.cancel()
    alone.signal(signal.SIGCONT)
    assert [type(error) for error in errors] == [StoreError]
    store.close()


# --- several programs ----------------------------------------------------------------------------------------------


async def test_programs_write_one_after_the_other(tmp_path: Path) -> None:
    """A step sees what was committed before it: none is lost, none has to be run again."""
    async with opened(tmp_path) as one, opened(tmp_path) as other:
        times = 0

        def step(connection: sa.Connection) -> None:
            nonlocal times
            times += 1
            seen = connection.exec_driver_sql("SELECT sum(priority) FROM job").scalar_one()
            connection.exec_driver_sql(f"UPDATE job SET priority = {seen} + 1")

        await one.schedule(script("a"), Period.DAILY, NOW)
        await one.database.write(lambda connection: connection.exec_driver_sql("UPDATE job SET priority = 0"))
        await gather(*(partial(store.database.write, step) for _ in range(50) for store in (one, other)))
        assert clusters.shared().execute("SELECT priority FROM job", name_of(postgres_at(tmp_path / "db"))) == [(100,)]
        assert times == 100


async def test_steps_that_go_together(tmp_path: Path) -> None:
    """Two programs are in the middle of such steps at the same time; a third one waits for both."""
    async with opened(tmp_path) as one, opened(tmp_path) as other, opened(tmp_path) as third:
        both, order = threading.Barrier(2), list[str]()

        def together(connection: sa.Connection) -> None:
            connection.exec_driver_sql("SELECT 1")
            both.wait(DEADLINE)
            order.append("together")

        async with trio.open_nursery() as nursery:
            for store in (one, other):
                nursery.start_soon(partial(store.database.write, together, shared=True))
            await eventually(lambda: both.n_waiting or order)
            await third.database.write(lambda _connection: order.append("alone"))
        assert order.count("together") == 2


async def test_a_step_that_has_to_be_alone_is_run_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        alone: list[bool] = []

        def step(connection: sa.Connection) -> None:
            alone.append(is_alone(connection))
            require_alone(connection)

        await store.database.write(step, shared=True)
        await gather(
            lambda: store.database.write(step, shared=True), lambda: store.schedule(script("a"), Period.DAILY, NOW)
        )
        assert alone == [False, True, True]


async def test_a_commit_of_which_nobody_can_say_yet_whether_it_was_done_is_waited_for(tmp_path: Path) -> None:
    """PostgreSQL has not noticed that the session is lost: the commit may still be under way there."""
    async with opened(tmp_path) as store:
        found = database(store)
        assert isinstance(found, PostgreSQL)
        await store.schedule(script("a"), Period.DAILY, NOW)
        with psycopg.connect(postgres_at(tmp_path / "db").url) as lost:
            lost.execute("UPDATE job SET priority = 7")
            row = lost.execute(f"SELECT pg_current_xact_id()::text, {postgres._TIMELINE}").fetchone()
            assert row
            looks: list[bool] = []
            asked = threading.Event()

            @sa.event.listens_for(found._writer, "after_cursor_execute")
            def see(_connection: object, _cursor: object, statement: str, *_: object) -> None:
                if "pg_xact_status" in statement:
                    asked.set()

            def look() -> bool:
                return found._has_committed(row[0], row[1], 1e12, lambda: None)

            async with trio.open_nursery() as nursery:

                async def ask() -> None:
                    looks.append(await trio.to_thread.run_sync(look))

                nursery.start_soon(ask)
                await eventually(asked.is_set)
                assert not looks
                lost.commit()
        assert looks == [True]


async def test_a_step_that_stands_still_for_too_long_is_done_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        pids: list[int] = []

        def step(connection: sa.Connection) -> None:
            pids.append(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())
            if len(pids) == 1:
                connection.exec_driver_sql("SET idle_in_transaction_session_timeout = '50ms'")
            while len(pids) == 1 and databases.query(
                tmp_path / "db", f"SELECT 1 FROM pg_stat_activity WHERE pid = {pids[0]}"
            ):
                pass
            connection.exec_driver_sql("SELECT 1")

        await store.database.write(step)
        assert len({*pids}) == 2


FROZEN = """
import sys
import psycopg
from builder.runtime import postgres
from builder.runtime.postgres import Location, PostgreSQL

postgres._WRITES["idle_in_transaction_session_timeout"] = "500ms"
database = PostgreSQL(Location(url=sys.argv[1]), prepare=lambda _connection: None)
with database._transaction(1e12) as connection:
    print("writes", flush=True)
    sys.stdin.read()
"""


async def test_a_program_that_is_frozen_in_the_middle_of_writing_blocks_others_for_a_while(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        argv = [sys.executable, "-c", FROZEN, postgres_at(tmp_path / "db").url]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()) as frozen:
            assert frozen.stdout
            assert await trio.to_thread.run_sync(frozen.stdout.readline) == b"writes\n"
            frozen.send_signal(signal.SIGSTOP)
            await store.schedule(script("a"), Period.DAILY, NOW)
            frozen.kill()


async def test_others_write_for_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(postgres._SETTINGS, "lock_timeout", "50ms")
    async with opened(tmp_path) as store:
        with psycopg.connect(postgres_at(tmp_path / "db").url) as other:
            other.execute(postgres._ALONE)
            with pytest.raises(
                StoreError, match=r"^the database can't be written: others have written to it for too long$"
            ):
                await store.schedule(script("a"), Period.DAILY, NOW)
        await store.schedule(script("a"), Period.DAILY, NOW)


# --- what can't be -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["sqlite:///x", "db", "host=x dbname=y", "postgresql://user:secret@[::1/x", "postgresql://u:secret@h/d?what"],
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(
        StoreError, match=r"^the address of the database is not one of PostgreSQL's: expected"
    ) as raised:
        Location(url=url)
    assert "secret" not in str(raised.value)


def test_the_password_is_shown_nowhere() -> None:
    place = Location(url=f"postgresql://who:secret@/nothing?host={clusters.shared().directory}")
    assert "secret" not in repr(place) + str(place)
    with pytest.raises(StoreError, match="can't open the database nothing at") as raised:
        Store.open(place)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_password_in_a_file(alone: Cluster, tmp_path: Path) -> None:
    alone.create("db")
    alone.execute("CREATE USER other PASSWORD 'a secret'")
    alone.execute("GRANT ALL ON SCHEMA public TO other", "db")
    rules = alone.directory / "data" / "pg_hba.conf"
    rules.write_text("local all other scram-sha-256\n" + rules.read_text("utf-8"), "utf-8")
    alone.execute("SELECT pg_reload_conf()")
    url = alone.url("db", user="other")
    with pytest.raises(StoreError, match="no password supplied; name a file that has it with --database-password-file"):
        Store.open(Location(url=url))
    file = tmp_path / "password"
    file.write_text("a mistake\n", "utf-8")
    with pytest.raises(
        StoreError, match=r"password authentication failed .*is that of --database-password-file"
    ) as raised:
        Store.open(Location(url=url, password_file=file))
    assert "mistake" not in str(raised.value)
    file.write_text("a secret\n", "utf-8")
    Store.open(Location(url=url, password_file=file)).close()
    for unusable in (b"\0", b"\xff\n"):
        file.write_bytes(unusable)
        with pytest.raises(StoreError, match=f"{file} has no password: write it there as text$"):
            Store.open(Location(url=url, password_file=file))
    with pytest.raises(StoreError, match=f": can't read the password in {tmp_path}/none: No such file or directory$"):
        Store.open(Location(url=url, password_file=tmp_path / "none"))


def test_what_to_do_where_no_database_is(alone: Cluster) -> None:
    with pytest.raises(StoreError, match=r'database "none" does not exist; make it with createdb'):
        Store.open(Location(url=alone.url("none")))
    with pytest.raises(StoreError, match=r"Connection refused; is PostgreSQL started there\?$"):
        Store.open(Location(url=f"postgresql://builder@127.0.0.1:{free_port()}/db"))


def test_another_encoding_is_refused() -> None:
    cluster = clusters.shared()
    cluster.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    try:
        with pytest.raises(StoreError, match="its encoding is LATIN1; make one with createdb"):
            Store.open(Location(url=cluster.url("latin")))
    finally:
        cluster.drop("latin")


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    place = postgres_at(tmp_path / "db")
    for change in ("alembic_version SET version_num = '9999'", "program SET oldest = '9999'"):
        clusters.shared().execute(f"UPDATE {change}", name_of(place))
    with pytest.raises(StoreError, match="a newer version has written it"):
        Store.open(place)


def test_the_loss_of_the_disk_is_told_as_that(tmp_path: Path) -> None:
    store = Store.open(postgres_at(tmp_path / "db"))
    error = sa.exc.OperationalError(
        "INSERT", {}, psycopg.errors.DiskFull("could not extend file: No space left on device")
    )
    failure = database(store)._failure(error)
    assert isinstance(failure, DiskFull)
    assert str(failure) == "the database can't be written: could not extend file: No space left on device"
    store.close()


async def test_connections_are_few(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await gather(
            *(store.info for _ in range(50)),
            *(partial(store.schedule, script(f"j{number}"), Period.DAILY, NOW) for number in range(20)),
        )
        name = name_of(postgres_at(tmp_path / "db"))
        count = clusters.shared().execute(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'")
        assert count[0][0] <= 1 + postgres.READERS


async def test_a_commit_is_on_the_disk_whatever_the_database_is_set_to(tmp_path: Path) -> None:
    place = postgres_at(tmp_path / "db")
    clusters.shared().execute(f"ALTER DATABASE {name_of(place)} SET synchronous_commit = off")
    async with opened(tmp_path) as store:
        shown = await store.database.write(
            lambda connection: connection.exec_driver_sql("SHOW synchronous_commit").scalar()
        )
        assert shown == "on"
