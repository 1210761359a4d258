"""The database of a program: groups, locks that others hold, and what the disk may refuse."""

import errno
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa
import trio
import trio.testing
from farm import environment
from stores import NOW, database, opened, script

from builder.model import Period
from builder.runtime import grouping, sqlite, syncing
from builder.runtime.database import DiskFull
from builder_server.store import Store, StoreError

HOLDER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
while True:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE job SET script = x'00'")
    print("locked", flush=True)
    time.sleep(0.5)
    connection.execute("COMMIT")
    time.sleep(0.1)
"""


@contextmanager
def another_writer(path: Path) -> Iterator[None]:
    """Have another process write half a second at a time, with moments between."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, path / "db"], env=environment(), stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"locked\n"
        yield
        process.kill()


async def test_another_process_that_writes_half_a_second_at_a_time(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.schedule(script("a"), Period.DAILY, NOW)
        with another_writer(tmp_path):
            for number in range(4):
                await store.schedule(script(f"j{number}"), Period.DAILY, NOW)
        assert len((await store.info()).schedule) == 5


@contextmanager
def locked(path: Path) -> Iterator[sqlite3.Connection]:
    other = sqlite3.connect(path / "db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield other
    other.close()


async def test_the_version_grows_with_what_is_written_and_not_with_what_is_read(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        before = store.version
        await store.info()
        assert store.version == before
        await store.schedule(script("a"), Period.DAILY, NOW)
        assert store.version > before


async def test_who_waits_for_a_lock_holds_up_nobody_who_reads(tmp_path: Path) -> None:
    async with opened(tmp_path) as store, trio.open_nursery() as nursery:
        with locked(tmp_path) as other:
            nursery.start_soon(store.schedule, script("a"), Period.DAILY, NOW)
            for _ in range(20):
                assert (await store.info()).schedule == ()
            other.execute("ROLLBACK")


async def test_a_lock_that_is_held_for_too_long_is_told_to_all_who_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouping, "LOCK_TIMEOUT", 0.5)
    async with opened(tmp_path) as store:
        errors: list[str] = []

        async def schedule(name: str) -> None:
            with pytest.raises(StoreError) as raised:
                await store.schedule(script(name), Period.DAILY, NOW)
            errors.append(str(raised.value))

        began = trio.current_time()
        with locked(tmp_path):
            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(schedule, f"j{number}")
        assert errors == ["the database can't be written: database is locked"] * 20
        assert trio.current_time() - began < 5  # they wait together, or in two groups, and not one after the other
        assert (await store.info()).schedule == ()
        await store.schedule(script("a"), Period.DAILY, NOW)


async def test_waits_that_are_limited_end_together(tmp_path: Path) -> None:
    """Whoever asks before that time or after it, one after the other: nobody waits for long."""
    async with opened(tmp_path) as store:
        began = trio.current_time()
        with locked(tmp_path):
            async with trio.open_nursery() as nursery:
                for number in range(3):
                    nursery.start_soon(fail_again_and_again, store, f"j{number}")
                store.limit_waits(0.5)
        assert trio.current_time() - began < 10
        assert (await store.info()).schedule == ()
        await store.schedule(script("a"), Period.DAILY, NOW)  # what need not wait is still written


async def fail_again_and_again(store: Store, name: str) -> None:
    for _ in range(4):
        with pytest.raises(StoreError, match="database is locked"):
            await store.schedule(script(name), Period.DAILY, NOW)


async def test_a_stop_does_not_wait_for_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(tmp_path / "db")
    errors: list[str] = []

    async def schedule() -> None:
        with pytest.raises(StoreError) as raised:
            await store.schedule(script("a"), Period.DAILY, NOW)
        errors.append(str(raised.value))

    waits = trio.Event()
    original = sqlite._is_locked

    def is_locked(error: sa.exc.OperationalError) -> bool:
        trio.from_thread.run_sync(waits.set)
        return original(error)

    monkeypatch.setattr(sqlite, "_is_locked", is_locked)
    with locked(tmp_path):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(schedule)
            with trio.fail_after(10), trio.CancelScope() as running:
                async with trio.open_nursery() as writing:
                    writing.start_soon(store.run)
                    await waits.wait()
                    running.cancel()
    assert errors == ["the server stops"]
    store.close()


async def test_a_step_that_is_run_again(tmp_path: Path) -> None:
    """A group whose commit failed is done step by step; each has its effect once."""
    async with opened(tmp_path) as store:
        failures = [OSError("disk I/O error")]

        @sa.event.listens_for(database(store)._writer, "commit")
        def fail(_connection: sa.Connection) -> None:
            if failures:
                raise failures.pop()

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(store.schedule, script(f"j{number}"), Period.DAILY, NOW)
        assert sorted(item.job.name for item in (await store.info()).schedule) == [f"j{n}" for n in range(5)]


async def test_what_steps_need_on_the_disk_is_synced_once_for_all_of_a_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[set[str], set[str]]] = []

    def make(connection: sa.Connection) -> None:
        connection.exec_driver_sql("CREATE TABLE placed (name TEXT)")

    def placed() -> set[str]:
        with closing(sqlite3.connect(tmp_path / "db")) as other:
            return {name for (name,) in other.execute("SELECT name FROM placed")}

    def place(connection: sa.Connection, name: str) -> None:
        connection.exec_driver_sql("INSERT INTO placed VALUES (?)", (name,))
        grouping.sync_before_commit(connection, [tmp_path / "all", tmp_path / name])

    def sync(paths: Iterable[Path]) -> None:
        names = {path.name for path in paths}
        synced.append((names, placed()))
        if "full" in names:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(syncing, "sync_together", sync)
    database = sqlite.SQLite(tmp_path / "db", prepare=make)
    try:
        with trio.fail_after(20):
            async with trio.open_nursery() as running:
                async with trio.open_nursery() as writing:
                    for name in ("a", "b"):
                        writing.start_soon(database.write, partial(place, name=name))
                    await trio.testing.wait_all_tasks_blocked()
                    running.start_soon(database.run)
                with pytest.raises(DiskFull):
                    await database.write(partial(place, name="full"))
                await database.write(
                    lambda connection: connection.exec_driver_sql("DELETE FROM placed WHERE name = 'b'")
                )
                running.cancel_scope.cancel()
        assert synced == [({"all", "a", "b"}, set()), ({"all", "full"}, {"a", "b"})]
        assert placed() == {"a"}
    finally:
        database.close()
