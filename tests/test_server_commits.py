"""builder-server's store by itself: requests that share a commit, and what the disk has and may refuse."""

import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest
import sqlalchemy as sa
import trio
from attrs import evolve
from farm import DEADLINE, environment
from stores import NOW, database, opened, queues, script, take, uuid

from builder.messages import InfoReply
from builder.model import OrbBuildJob, Period
from builder.runtime import grouping
from builder.runtime.database import DiskFull, nothing
from builder_server.errors import CommandRefused
from builder_server.store import Due, Expanded, Store, StoreError

pytestmark = pytest.mark.databases

T = TypeVar("T")


async def gather(*steps: Callable[[], object]) -> list[object]:
    """Run all at the same time and return what each returned or raised."""
    found: list[object] = [None] * len(steps)

    async def one(index: int, step: Callable[[], object]) -> None:
        try:
            found[index] = await step()  # type: ignore[misc]
        except (CommandRefused, StoreError, ZeroDivisionError) as error:
            found[index] = error

    async with trio.open_nursery() as nursery:
        for index, step in enumerate(steps):
            nursery.start_soon(one, index, step)
    return found


async def test_requests_share_a_commit(store: Store) -> None:
    commits: list[None] = []
    sa.event.listen(database(store)._writer, "commit", lambda _connection: commits.append(None))
    await gather(*(lambda n=n: store.schedule(script(f"j{n}"), Period.DAILY, NOW) for n in range(100)))
    assert len(commits) <= 3
    assert len((await store.info()).schedule) == 100


async def test_a_refused_request_takes_nothing_with_it(store: Store) -> None:
    results = await gather(
        *(lambda n=n: store.schedule(script(f"j{n % 5}"), Period.DAILY, NOW) for n in range(20)),
        *(lambda: store.unschedule("unknown") for _ in range(5)),
    )
    refused = [str(error) for error in results if isinstance(error, CommandRefused)]
    assert sorted(refused) == ["job name already used"] * 15 + ["unknown job unknown"] * 5
    assert sorted(item.job.name for item in (await store.info()).schedule) == [f"j{n}" for n in range(5)]


async def test_a_fault_of_ours_takes_nothing_with_it(store: Store) -> None:
    def faulty(_job: OrbBuildJob) -> Expanded | None:
        raise ZeroDivisionError

    await store.schedule(script("z"), Period.DAILY, NOW)
    await store.schedule(OrbBuildJob(name="orb", opam_package="x"), Period.DAILY, NOW)
    await take(store, 0)
    results = await gather(
        lambda: store.schedule(script("a"), Period.DAILY, NOW),
        lambda: store.take("p1", uuid(1), NOW, faulty),
        lambda: store.schedule(script("b"), Period.DAILY, NOW),
    )
    assert [type(result) for result in results] == [type(None), ZeroDivisionError, type(None)]
    assert {name: sorted(jobs) for name, jobs in (await queues(store)).items()} == {"p1": ["a", "b", "orb"]}


def fill_up(store: Store) -> None:
    """Allow the database not one page more: SQLITE_FULL, as a full disk gives it."""
    with database(store)._writer.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()

    @sa.event.listens_for(database(store)._writer, "begin")
    def limit(connection: sa.Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 3}")


@pytest.mark.sqlite
async def test_a_full_database_in_a_group(store: Store) -> None:
    """The large request fails, the small ones beside it do not, and everything goes on."""
    await store.schedule(script("before"), Period.DAILY, NOW)
    fill_up(store)
    large = evolve(script("large"), script=bytes(200_000))
    results = await gather(
        lambda: store.schedule(script("a"), Period.DAILY, NOW),
        lambda: store.schedule(large, Period.DAILY, NOW),
        lambda: store.unschedule("unknown"),
        lambda: store.unschedule("before"),
    )
    assert [type(result) for result in results] == [type(None), DiskFull, CommandRefused, type(None)]
    assert str(results[1]) == "the database can't be written: database or disk is full"
    assert await queues(store) == {"p1": ["a"]}
    await store.unschedule("a")


@pytest.mark.sqlite
async def test_a_commit_that_fails_is_told_to_all_it_held(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process holds the write lock for longer than the store waits."""
    monkeypatch.setattr(grouping, "LOCK_TIMEOUT", 0.02)
    other = sqlite3.connect(tmp_path / "db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    results = await gather(*(lambda n=n: store.schedule(script(f"j{n}"), Period.DAILY, NOW) for n in range(3)))
    assert [str(error) for error in results] == ["the database can't be written: database is locked"] * 3
    other.execute("ROLLBACK")
    other.close()
    assert (await store.info()).schedule == ()
    await store.schedule(script("j0"), Period.DAILY, NOW)


def test_each_who_waits_does_so_for_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also who has come while others waited: neither longer, nor not at all."""
    now, waited = 10.0, []

    class Locked(grouping.GroupingDatabase):
        def _transaction(
            self, deadline: float, look: Callable[[], None] = lambda: None, *, shared: bool = False
        ) -> NoReturn:
            nonlocal now
            now = max(now, deadline)
            raise OSError("locked")

        def _failure(self, error: BaseException) -> StoreError:
            waited.append(now)
            return StoreError(str(error))

        async def read(self, step: Callable[[sa.Connection], T]) -> T:
            raise NotImplementedError

    monkeypatch.setattr(time, "monotonic", lambda: now)
    engine = sa.create_engine("sqlite://")
    requests = [grouping._Request(lambda _: 0, nothing, shared=False, asked=asked) for asked in (0.0, 1.0, 1.0, 9.0)]
    Locked(writer=engine, readers=engine)._commit(requests)
    assert waited == [30.0, 31.0, 31.0, 39.0]
    assert [str(request.error) for request in requests] == ["locked"] * 4


@pytest.mark.sqlite
async def test_a_damaged_database_is_an_error_of_the_store(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.schedule(script("a"), Period.DAILY, NOW)
    with (tmp_path / "db").open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 8000)
    with pytest.raises(StoreError, match="can't open the database"):
        Store.open(tmp_path / "db")


@pytest.mark.sqlite
async def test_the_end_of_the_writer_is_told_to_all_who_wait(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "db")
    results: list[object] = []

    async def schedule() -> None:
        results.extend(await gather(lambda: store.schedule(script("a"), Period.DAILY, NOW)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(schedule)
        await trio.testing.wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.run()
    assert [type(result) for result in results] == [StoreError]
    with pytest.raises(StoreError, match="the server stops"):
        await store.unschedule("a")
    store.close()


async def test_many_readers_at_once(store: Store) -> None:
    await store.schedule(script("a"), Period.DAILY, NOW)
    results = await gather(*(store.info for _ in range(200)), *(lambda: store.queue_due(NOW) for _ in range(20)))
    assert all(isinstance(result, InfoReply | Due) for result in results)


# --- on disk -------------------------------------------------------------------------------------------------------


@pytest.mark.sqlite
async def test_what_returned_is_on_disk(tmp_path: Path) -> None:
    """A second process reads it, after the first was killed right after the reply."""
    program = (
        "import os, trio, sys\n"
        "from pathlib import Path\n"
        "from builder.model import *\n"
        "from builder_server.store import Store\n"
        "async def main():\n"
        "    store = Store.open(Path(sys.argv[1]))\n"
        "    async with trio.open_nursery() as nursery:\n"
        "        nursery.start_soon(store.run)\n"
        "        job = ScriptJob(name='a', platform='p1', script=b'x')\n"
        "        await store.schedule(job, Period.DAILY, Instant(0))\n"
        "        os.kill(os.getpid(), 9)\n"
        "trio.run(main)\n"
    )
    with trio.fail_after(DEADLINE):
        done = await trio.run_process(
            [sys.executable, "-c", program, str(tmp_path / "db")], env=environment(), check=False
        )
    assert done.returncode == -9
    async with opened(tmp_path) as store:
        assert await queues(store) == {"p1": ["a"]}


@pytest.mark.sqlite
async def test_how_the_database_is_written(store: Store) -> None:
    with database(store)._writer.connect() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


async def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    for number in range(3):
        async with opened(tmp_path) as store:
            await store.schedule(script(f"j{number}"), Period.DAILY, NOW)
    async with opened(tmp_path) as store:
        assert await queues(store) == {"p1": ["j0", "j1", "j2"]}


@pytest.mark.sqlite
def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    Store.open(tmp_path / "db").close()
    connection = sqlite3.connect(tmp_path / "db")
    connection.execute("update alembic_version set version_num = '9999'")
    connection.execute("update program set oldest = '9999'")
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match="a newer version has written it"):
        Store.open(tmp_path / "db")


@pytest.mark.sqlite
@pytest.mark.parametrize("content", [b"junk" * 1000, b"SQLite format 3\0" + b"\xff" * 4080])
def test_a_file_that_is_no_database_is_refused_and_stays(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "db").write_bytes(content)
    with pytest.raises(StoreError, match="can't open the database"):
        Store.open(tmp_path / "db")
    assert (tmp_path / "db").read_bytes() == content
