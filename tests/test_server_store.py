"""builder-server's store by itself: transactions, groups of them, losses, and what the disk may refuse."""

import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import trio
from attrs import evolve
from farm import DEADLINE, environment
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import LOST, NOW, complete, database, expand, opened, running, script, take, uuid

from builder import codec
from builder.messages import InfoReply
from builder.model import (
    NEVER,
    Exited,
    Instant,
    Job,
    OrbBuildJob,
    Period,
    ScheduleItem,
    ScriptJob,
)
from builder.planning import JobOptions, JobReference
from builder.runtime import sqlite
from builder.runtime.database import DiskFull
from builder_server.errors import CommandRefused
from builder_server.store import AfterLoss, Build, Due, Expanded, Store, StoreError, Taken
from builder_server.store import queues as store_queues
from builder_server.store.queues import MAX_PLATFORMS

HOUR = 3_600_000


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened(tmp_path) as found:
        yield found


async def queues(store: Store) -> dict[str, list[str]]:
    return {queue.platform: [job.name for job in queue.jobs] for queue in (await store.info()).queues}


# --- clocks that were ahead ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("retry", "minutes"), [(1, 1), (2, 4), (3, 16), (4, 64), (5, 240), (6, 240)])
async def test_a_retry_waits_as_long_as_it_would_if_the_clock_had_been_right(
    store: Store, retry: int, minutes: int
) -> None:
    wait = minutes * 60_000
    await store.plan(script("a"), JobOptions(period=Period.NEVER, retries=10), NOW)
    late = Instant(NOW.ms + 7 * HOUR)
    for number in range(retry):
        if number:
            await store.queue_due(Instant(NOW.ms + 5 * HOUR * number))
        build = await take(store, number)
        failed = late if number == retry - 1 else Instant(NOW.ms + 5 * HOUR * number)
        await store.finish(build.uuid, failed, Exited(code=1), upload=False)
    assert (await store.queue_due(late)).next_run == Instant(late.ms + wait)  # right, and nothing is moved
    assert (await store.queue_due(NOW)).next_run == Instant(NOW.ms + wait)
    assert (await store.queue_due(Instant(NOW.ms + wait - 1))).next_run == Instant(NOW.ms + wait)
    assert (await store.queue_due(Instant(NOW.ms + wait))).next_run == NEVER


async def test_a_pause_after_losses_ends_though_the_clock_was_ahead(store: Store) -> None:
    await store.schedule(script("a"), Period.NEVER, NOW)
    for number, at in ((1, NOW), (2, Instant(NOW.ms + HOUR))):
        build = await take(store, number)
        await store.lose(build.uuid, at, LOST, count=False, may_pause=True)
    assert (await store.queue_due(NOW)).next_run == Instant(NOW.ms + 60_000)


# --- builds --------------------------------------------------------------------------------------------------------


async def test_a_build_from_queue_to_history(store: Store) -> None:
    await store.schedule(script("a"), Period.DAILY, NOW)
    build = await take(store, 1)
    assert build == Build(uuid=uuid(1), job=script("a"), started=NOW, losses=0)
    assert await running(store) == (build.uuid,)
    assert await store.find_build(uuid(1)) == build
    assert await store.take("p1", uuid(2), NOW, expand) == Taken()
    assert await store.finish(uuid(1), Instant(NOW.ms + 5), Exited(code=3), upload=False)
    assert await running(store) == ()
    assert await store.find_build(uuid(1)) == evolve(
        build, state="finished", finished=Instant(NOW.ms + 5), result=Exited(code=3)
    )


async def test_a_result_is_recorded_at_most_once(store: Store) -> None:
    await store.schedule(script("a"), Period.DAILY, NOW)
    await take(store, 1)
    assert await store.finish(uuid(1), NOW, Exited(code=0), upload=True)
    assert not await store.finish(uuid(1), NOW, Exited(code=1), upload=True)
    assert not await store.finish(uuid(2), NOW, Exited(code=1), upload=True)
    assert await store.lose(uuid(1), NOW, LOST, count=True) is AfterLoss.NOT_RUNNING
    found = await store.find_build(uuid(1))
    assert found is not None
    assert found.result == Exited(code=0)
    assert await queues(store) == {"p1": []}


async def test_a_late_result_of_a_lost_build_is_not_recorded(store: Store) -> None:
    await store.schedule(script("a"), Period.DAILY, NOW)
    await take(store, 1)
    assert await store.lose(uuid(1), NOW, LOST, count=True) is AfterLoss.PUT_BACK
    await take(store, 2)
    assert not await store.finish(uuid(1), NOW, Exited(code=0), upload=False)
    assert await running(store) == (uuid(2),)


async def test_three_losses_in_a_row(store: Store) -> None:
    await store.schedule(script("a"), Period.DAILY, NOW)
    for number in (1, 2):
        await take(store, number)
        assert await store.lose(uuid(number), NOW, LOST, count=True) is AfterLoss.PUT_BACK
    assert (await take(store, 3)).losses == 2
    assert await store.lose(uuid(3), NOW, LOST, count=True) is AfterLoss.TOO_MANY
    assert await running(store) == (uuid(3),)
    assert await store.finish(uuid(3), NOW, LOST, upload=False)
    await store.execute("a", None, NOW, "client")
    assert (await take(store, 4)).losses == 0


async def test_a_finished_build_ends_the_row_of_losses(store: Store) -> None:
    await store.schedule(script("a"), Period.DAILY, NOW)
    for number in (1, 3, 5):
        await take(store, number)
        assert await store.lose(uuid(number), NOW, LOST, count=True) is AfterLoss.PUT_BACK
        assert (await take(store, number + 1)).losses == 1
        assert await store.finish(uuid(number + 1), NOW, Exited(code=0), upload=False)
        await store.execute("a", None, NOW, "client")


async def test_losses_that_do_not_count_keep_the_row(store: Store) -> None:
    await store.schedule(script("a"), Period.DAILY, NOW)
    for number in range(1, 10):
        losses = (await take(store, number)).losses
        assert losses == min(1, number - 1)
        assert await store.lose(uuid(number), NOW, LOST, count=number == 1) is AfterLoss.PUT_BACK


async def test_execute_does_not_forget_losses(store: Store) -> None:
    await store.schedule(script("a"), Period.DAILY, NOW)
    await take(store, 1)
    await store.lose(uuid(1), NOW, LOST, count=True)
    await store.execute("a", None, NOW, "client")
    assert (await take(store, 2)).losses == 1


async def test_a_lost_job_returns_to_the_front(store: Store) -> None:
    for name in "abc":
        await store.schedule(script(name), Period.DAILY, NOW)
    await take(store, 1)
    await store.lose(uuid(1), NOW, LOST, count=True)
    assert await queues(store) == {"p1": ["a", "b", "c"]}


async def test_a_lost_job_that_was_queued_again_is_queued_once(store: Store) -> None:
    for name in "ab":
        await store.schedule(script(name), Period.DAILY, NOW)
    await take(store, 1)
    await store.execute("a", None, NOW, "client")
    assert await queues(store) == {"p1": ["a", "b"]}
    await store.lose(uuid(1), NOW, LOST, count=True)
    assert await queues(store) == {"p1": ["a", "b"]}


async def test_a_job_that_is_lost_again_without_being_to_blame_lets_others_go_first(store: Store) -> None:
    for name in "ab":
        await store.schedule(script(name), Period.DAILY, NOW)
    for number in (1, 2):
        assert (await take(store, number)).job.name == "a"
        await store.lose(uuid(number), NOW, LOST, count=False, may_pause=True)
    assert (await take(store, 3)).job.name == "b"
    assert (await store.take("p1", uuid(4), NOW, None)).build is None
    assert await store.queue_due(Instant(NOW.ms + 59_999)) == Due(next_run=Instant(NOW.ms + 60_000))
    await store.queue_due(Instant(NOW.ms + 60_000))
    assert (await take(store, 4)).job.name == "a"


@pytest.mark.parametrize("gone", ["unscheduled", "dropped"])
async def test_a_lost_job_that_left_the_schedule_does_not_come_back(store: Store, gone: str) -> None:
    await store.schedule(script("a"), Period.DAILY, NOW)
    await take(store, 1)
    await (store.unschedule("a") if gone == "unscheduled" else store.drop_platform("p1"))
    assert await store.lose(uuid(1), NOW, LOST, count=True) is AfterLoss.PUT_BACK
    assert await running(store) == ()
    assert all(not names for names in (await queues(store)).values())


async def test_a_lost_job_returns_to_the_platform_that_it_has_moved_to(store: Store) -> None:
    await store.schedule(script("a"), Period.NEVER, NOW)
    await take(store, 1)
    await store.change("a", 1, JobOptions(), script("a", "p2"), NOW)
    assert await store.lose(uuid(1), NOW, LOST, count=True) is AfterLoss.PUT_BACK
    assert await queues(store) == {"p1": [], "p2": ["a"]}


async def test_a_new_job_of_the_same_name_is_not_the_lost_one(store: Store) -> None:
    await store.schedule(script("a"), Period.DAILY, NOW)
    await take(store, 1)
    await store.unschedule("a")
    await store.schedule(OrbBuildJob(name="a", opam_package="x"), Period.DAILY, NOW)
    await take(store, 2)
    await store.lose(uuid(1), NOW, LOST, count=True)
    assert await queues(store) == {"p1": []}


async def test_a_job_without_template_is_passed_over(store: Store) -> None:
    await store.schedule(script("z"), Period.DAILY, NOW)
    await take(store, 1)
    await store.schedule(OrbBuildJob(name="orb", opam_package="x"), Period.DAILY, NOW)
    assert await store.take("p1", uuid(2), NOW, None) == Taken(blocked="orb")
    await store.execute("z", None, NOW, "client")
    await store.execute("orb", None, NOW, "client")
    taken = await store.take("p1", uuid(3), NOW, None)
    assert taken.blocked == "orb"
    assert taken.build is not None
    assert taken.build.job.name == "z"
    assert await queues(store) == {"p1": ["orb"]}


async def test_there_are_not_more_platforms_than_the_bound(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_PLATFORMS == 1000
    monkeypatch.setattr(store_queues, "MAX_PLATFORMS", 3)
    for number in range(3):
        await store.take(f"p{number}", uuid(number), NOW, expand)
    with pytest.raises(CommandRefused, match="there are 3 platforms already"):
        await store.take("p3", uuid(9), NOW, expand)
    with pytest.raises(CommandRefused, match="there are 3 platforms already"):
        await store.schedule(script("a", "p4"), Period.DAILY, NOW)
    assert list(await queues(store)) == ["p0", "p1", "p2"]
    assert (await store.info()).schedule == ()


# --- due -----------------------------------------------------------------------------------------------------------


async def test_due_jobs_are_queued_once_and_stay_on_their_grid(store: Store) -> None:
    await store.schedule(script("a"), Period.HOURLY, NOW)
    await store.schedule(script("b"), Period.NEVER, NOW)
    for number in (1, 2):
        await complete(store, number)
    assert await store.queue_due(Instant(NOW.ms + HOUR - 1)) == Due(next_run=Instant(NOW.ms + HOUR))
    assert await queues(store) == {"p1": []}
    assert await store.queue_due(Instant(NOW.ms + 5 * HOUR + 17)) == Due(next_run=Instant(NOW.ms + 6 * HOUR))
    assert await queues(store) == {"p1": ["a"]}
    await complete(store, 3)
    assert await store.queue_due(Instant(NOW.ms + 5 * HOUR + 17)) == Due(next_run=Instant(NOW.ms + 6 * HOUR))
    assert await queues(store) == {"p1": []}


async def test_what_was_missed_longest_is_queued_first(store: Store) -> None:
    for name, offset in (("late", 3), ("early", 1), ("middle", 2)):
        await store.schedule(script(name), Period.DAILY, NOW)
        await store.reschedule(name, Instant(NOW.ms + offset), None)
    for number in range(3):
        await complete(store, number)
    assert await store.queue_due(Instant(NOW.ms + 10))
    assert await queues(store) == {"p1": ["early", "middle", "late"]}


async def test_many_queues_cost_no_more_statements(store: Store) -> None:
    """A farm may have hundreds of platforms and thousands of jobs, and one writer."""
    seen: list[str] = []
    sa.event.listen(database(store)._writer, "before_cursor_execute", lambda *found: seen.append(found[2]))
    counts: list[tuple[int, int, int]] = []
    orb = OrbBuildJob(name="a", opam_package="x")
    for platforms in (2, 100):
        for number in range(platforms):
            await store.take(f"p{number}", uuid(number), NOW, None)
        seen.clear()
        await store.schedule(orb, Period.HOURLY, NOW)
        scheduled = len(seen)
        assert await store.queue_due(NEVER)
        due = len(seen)
        await store.take(f"new{platforms}", uuid(0), NOW, None)
        counts.append((scheduled, due, len(seen)))
        assert (await queues(store)) == {name: ["a"] for name in await queues(store)}
        await store.unschedule("a")
    assert counts[0] == counts[1]


async def test_what_is_due_is_found_without_reading_all_jobs_and_queues(store: Store) -> None:
    seen: list[tuple[str, Any]] = []
    await store.schedule(script("a"), Period.HOURLY, NOW)
    writer = database(store)._writer
    sa.event.listen(writer, "before_cursor_execute", lambda *found: seen.append((found[2], found[3])))
    await store.queue_due(Instant(NOW.ms + HOUR))
    plans = [
        row[3]
        for statement, values in seen
        if statement.startswith(("SELECT", "INSERT", "UPDATE"))
        for row in await store.database.read(
            partial(
                sa.Connection.exec_driver_sql, statement=f"explain query plan {statement}", parameters=first(values)
            )
        )
    ]
    assert [plan for plan in plans if plan.startswith("SCAN")] == []
    assert any("SEARCH platform USING INDEX sqlite_autoindex_platform_1 (name=?)" in plan for plan in plans)


def first(values: Any) -> Any:
    """Return the values of a statement, or the first ones of several."""
    return values[0] if isinstance(values, list) else values


async def test_a_new_job_is_added_without_a_look_at_all_that_it_waits_for(store: Store) -> None:
    seen: list[str] = []
    sa.event.listen(database(store)._writer, "before_cursor_execute", lambda *found: seen.append(found[2]))
    counts = set()
    for number in range(1, 20):
        seen.clear()
        await store.plan(script(f"job-{number}"), JobOptions(after=(JobReference(name=f"job-{number - 1}"),)), NOW)
        counts.add(len(seen))
    assert len(counts) <= 2  # the first one makes the platform, too
    with pytest.raises(CommandRefused, match="jobs would wait for each other: job-0 after job-19 after job-18"):
        await store.plan(script("job-0"), JobOptions(after=(JobReference(name="job-19"),)), NOW)


async def test_a_job_leaves_all_queues_without_reading_them(store: Store) -> None:
    plan = await store.database.read(
        lambda connection: connection.exec_driver_sql("explain query plan delete from queue where job_id = 1").all()
    )
    (step,) = [row[3] for row in plan]
    assert step.startswith("SEARCH queue USING ")
    assert "INDEX queue_job (job_id=?)" in step


async def test_about_how_large_the_reply_to_info_is(store: Store) -> None:
    assert await store.info_within(0) == (0, await store.info())
    await store.schedule(ScriptJob(name="a", platform="p1", script=bytes(10**6)), Period.DAILY, NOW)
    await store.schedule(OrbBuildJob(name="b", opam_package="x"), Period.DAILY, NOW)
    queued, nothing = await store.info_within(10**6)
    assert nothing is None
    encoded = len(codec.encode(await store.info()))
    assert encoded <= queued <= 3 * encoded
    await take(store, 1)
    await store.unschedule("a")
    size, reply = await store.info_within(queued)
    assert 10**6 < size < queued
    assert reply == await store.info()


async def test_names_alone_make_a_reply_to_info_large(store: Store) -> None:
    names = [f"p{number:0120}" for number in range(50)]
    for name in names:
        await store.schedule(ScriptJob(name=name, platform=name, script=b""), Period.NEVER, NOW)
    await store.unschedule(names[0])
    known, _ = await store.info_within(0)
    for number, name in enumerate(names[1:]):
        await take(store, number, name)
    running, _ = await store.info_within(0)
    for name in names:
        await store.drop_platform(name)
    dropped, _ = await store.info_within(0)
    assert known > 150 * 120  # in the schedule, as a queue, in the queue
    assert running >= known
    assert dropped > 50 * 120


async def test_a_rescheduled_job_without_period_runs_once(store: Store) -> None:
    await store.schedule(script("a"), Period.NEVER, NOW)
    await complete(store, 1)
    assert await store.queue_due(NOW) == Due(next_run=NEVER)
    await store.reschedule("a", Instant(NOW.ms + 5), None)
    assert await store.queue_due(Instant(NOW.ms + 5)) == Due(next_run=NEVER)
    assert await queues(store) == {"p1": ["a"]}


async def test_no_jobs_no_next_run(store: Store) -> None:
    assert await store.queue_due(NEVER) == Due(next_run=None)


# --- groups --------------------------------------------------------------------------------------------------------


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


async def test_a_commit_that_fails_is_told_to_all_it_held(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process holds the write lock for longer than the store waits."""
    monkeypatch.setattr(sqlite, "LOCK_TIMEOUT", 0.02)
    other = sqlite3.connect(tmp_path / "db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    results = await gather(*(lambda n=n: store.schedule(script(f"j{n}"), Period.DAILY, NOW) for n in range(3)))
    assert [str(error) for error in results] == ["the database can't be written: database is locked"] * 3
    other.execute("ROLLBACK")
    other.close()
    assert (await store.info()).schedule == ()
    await store.schedule(script("j0"), Period.DAILY, NOW)


async def test_a_damaged_database_is_an_error_of_the_store(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.schedule(script("a"), Period.DAILY, NOW)
    with (tmp_path / "db").open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 8000)
    with pytest.raises(StoreError, match="can't open the database"):
        Store.open(tmp_path / "db")


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


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    Store.open(tmp_path / "db").close()
    connection = sqlite3.connect(tmp_path / "db")
    connection.execute("update alembic_version set version_num = '9999'")
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match=r"is it of a newer version\?"):
        Store.open(tmp_path / "db")


@pytest.mark.parametrize("content", [b"junk" * 1000, b"SQLite format 3\0" + b"\xff" * 4080])
def test_a_file_that_is_no_database_is_refused_and_stays(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "db").write_bytes(content)
    with pytest.raises(StoreError, match="can't open the database"):
        Store.open(tmp_path / "db")
    assert (tmp_path / "db").read_bytes() == content


# --- any sequence --------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "orb"])
PLATFORMS = st.sampled_from(["p1", "p2"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("schedule"), NAMES, PLATFORMS),
        st.tuples(st.just("unschedule"), NAMES, st.none()),
        st.tuples(st.just("execute"), NAMES, st.none() | PLATFORMS),
        st.tuples(st.just("reschedule"), NAMES, st.none()),
        st.tuples(st.just("drop"), st.none(), PLATFORMS),
        st.tuples(st.just("undrop"), st.none(), PLATFORMS),
        st.tuples(st.just("take"), st.none(), PLATFORMS),
        st.tuples(st.just("finish"), st.none(), st.none()),
        st.tuples(st.just("lose"), st.none(), st.none()),
        st.tuples(st.just("tick"), st.none(), st.none()),
    ),
    max_size=30,
)


def new_job(name: str, platform: str) -> Job:
    return OrbBuildJob(name=name, opam_package="x") if name == "orb" else script(name, platform)


@given(STEPS)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_holds_after_any_sequence(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str | None, str | None]]
) -> None:
    trio.run(_play, tmp_path_factory.mktemp("store"), steps)


async def _play(path: Path, steps: list[tuple[str, str | None, str | None]]) -> None:
    now, number = NOW, 0
    async with opened(path) as store:
        for kind, name, platform in steps:
            now, number = Instant(now.ms + 20 * 60_000), number + 1
            runs = await running(store)
            try:
                match kind, name, platform:
                    case "schedule", str(), str():
                        await store.schedule(new_job(name, platform), Period.HOURLY, now)
                    case "unschedule", str(), _:
                        await store.unschedule(name)
                    case "execute", str(), _:
                        await store.execute(name, platform, NOW, "client")
                    case "reschedule", str(), _:
                        await store.reschedule(name, Instant(now.ms - 1), None)
                    case "drop", _, str():
                        await store.drop_platform(platform)
                    case "undrop", _, str():
                        await store.undrop_platform(platform)
                    case "take", _, str():
                        await store.take(platform, uuid(number), now, expand)
                    case "finish", _, _ if runs:
                        assert await store.finish(runs[0], now, Exited(code=0), upload=False)
                    case "lose", _, _ if runs:
                        await store.lose(runs[0], now, LOST, count=True)
                    case "tick", _, _:
                        await store.queue_due(now)
            except CommandRefused:
                pass
            check(await store.info())


def check(found: InfoReply) -> None:
    scheduled = {item.job.name: item.job for item in found.schedule}
    assert len(scheduled) == len(found.schedule)
    assert not {queue.platform for queue in found.queues} & set(found.dropped_platforms)
    for queue in found.queues:
        assert len({job.name for job in queue.jobs}) == len(queue.jobs), "a queue holds a job once"
        for job in queue.jobs:
            assert scheduled[job.name] == job
            assert not isinstance(job, ScriptJob) or job.platform == queue.platform
    assert all(isinstance(item, ScheduleItem) for item in found.schedule)
    assert codec.decode(codec.encode(found)) == found


async def test_whoever_cancels_or_observes_reads_no_scripts(store: Store) -> None:
    """Of 4 MiB each, of all builds that a name or the begin of a uuid means."""
    said: list[str] = []
    await store.schedule(script("a"), Period.DAILY, NOW)
    build = await take(store, 1)

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        said.extend([statement] if "FROM" in statement else [])

    sa.event.listen(database(store)._readers, "before_cursor_execute", note)
    head = await store.find_head(build.uuid)
    assert head is not None
    assert (head.uuid, head.name, head.platform, head.state) == (build.uuid, "a", "p1", "running")
    assert await store.find_running("a", None, None) == (head,)
    assert await store.find_running(None, "0000", "p1") == (head,)
    assert await store.script_size("a") == len(build.job.script)
    *heads, size = said
    assert len(heads) == 3
    assert not any("script" in statement for statement in heads)
    assert "length(job.script)" in size
