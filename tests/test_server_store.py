"""builder-server's store by itself: builds, what is due, and what its steps cost."""

import datetime as dt
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from attrs import evolve
from stores import HOUR, LOST, NOW, complete, database, expand, queues, running, script, take, uuid

from builder import codec
from builder.model import NEVER, Exited, Instant, OrbBuildJob, Period, ScriptJob
from builder.planning import JobOptions, JobReference
from builder_server.errors import CommandRefused
from builder_server.store import AfterLoss, Build, Due, Holder, Store, Taken, newcomers
from builder_server.store import queues as store_queues
from builder_server.store.queues import MAX_PLATFORMS

pytestmark = pytest.mark.databases


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
        await store.finish(build.uuid, failed, Exited(code=1))
    assert (await store.queue_due(late)).next_run == Instant(late.ms + wait)  # right, and nothing is moved
    assert (await store.queue_due(NOW)).next_run == Instant(NOW.ms + wait)
    assert (await store.queue_due(Instant(NOW.ms + wait - 1))).next_run == Instant(NOW.ms + wait)
    assert (await store.queue_due(Instant(NOW.ms + wait))).next_run == NEVER


async def test_a_build_from_queue_to_history(store: Store) -> None:
    await store.schedule(script("a"), Period.DAILY, NOW)
    build = await take(store, 1)
    assert build == Build(uuid=uuid(1), job=script("a"), started=NOW, losses=0)
    assert await running(store) == (build.uuid,)
    assert await store.find_build(uuid(1)) == build
    assert await store.take("p1", uuid(2), NOW, expand) == Taken()
    assert await store.finish(uuid(1), Instant(NOW.ms + 5), Exited(code=3))
    assert await running(store) == ()
    assert await store.find_build(uuid(1)) == evolve(
        build, state="finished", finished=Instant(NOW.ms + 5), result=Exited(code=3)
    )


async def test_a_result_is_recorded_at_most_once(store: Store) -> None:
    await store.schedule(script("a"), Period.DAILY, NOW)
    await take(store, 1)
    assert await store.finish(uuid(1), NOW, Exited(code=0), receivers=["r"])
    assert not await store.finish(uuid(1), NOW, Exited(code=1), receivers=["r"])
    assert not await store.finish(uuid(2), NOW, Exited(code=1), receivers=["r"])
    assert await store.lose(uuid(1), NOW, LOST, count=True) is AfterLoss.NOT_RUNNING
    found = await store.find_build(uuid(1))
    assert found is not None
    assert found.result == Exited(code=0)
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
    monkeypatch.setattr(store_queues, "RESERVED", 0)
    for number in range(3):
        await store.take(f"p{number}", uuid(number), NOW, expand)
    with pytest.raises(CommandRefused, match="there are 3 platforms already"):
        await store.take("p3", uuid(9), NOW, expand)
    with pytest.raises(CommandRefused, match="there are 3 platforms already"):
        await store.schedule(script("a", "p4"), Period.DAILY, NOW)
    assert list(await queues(store)) == ["p0", "p1", "p2"]
    assert (await store.info()).schedule == ()


async def test_a_holder_makes_no_more_platforms_than_its_share(store: Store) -> None:
    def of(holder: str) -> Holder:
        return Holder(address=f"{holder} (192.0.2.1:5)")

    for number in range(newcomers.MOST):
        await store.take(f"p{number}", uuid(number), NOW, expand, of("w1"))
    for _ in range(2):
        with pytest.raises(
            CommandRefused, match="w1 has had 100 new platforms made within a day: schedule a job for p"
        ):
            await store.take("p", uuid(9000), NOW, expand, of("w1"))
    await store.take("p0", uuid(9100), NOW, expand, of("w1"))
    await store.take("q", uuid(9200), NOW, expand, of("w2"))
    await store.take("r", uuid(9300), NOW, expand, Holder(address="127.0.0.1:5"))
    await store.take("p", uuid(9400), NOW.plus(dt.timedelta(days=1)), expand, of("w1"))
    assert len(await queues(store)) == newcomers.MOST + 3


async def test_workers_leave_room_for_platforms_that_jobs_are_scheduled_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_queues, "MAX_PLATFORMS", 10)
    monkeypatch.setattr(store_queues, "RESERVED", 1)
    for number in range(9):
        await store.take(f"p{number}", uuid(number), NOW, expand)
    with pytest.raises(CommandRefused, match="there are 9 platforms already"):
        await store.take("p9", uuid(9), NOW, expand)
    await store.schedule(script("a", "p9"), Period.DAILY, NOW)


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


# --- what steps cost -----------------------------------------------------------------------------------------------


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


@pytest.mark.sqlite
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
    assert {plan for plan in plans if plan.startswith("SCAN")} <= {"SCAN halt"}  # of which there are few
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


@pytest.mark.sqlite
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
    names = [f"p{number:0120}" for number in range(20)]
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
    assert known > 60 * 120  # in the schedule, as a queue, in the queue
    assert running >= known
    assert dropped > 20 * 120


async def test_a_rescheduled_job_without_period_runs_once(store: Store) -> None:
    await store.schedule(script("a"), Period.NEVER, NOW)
    await complete(store, 1)
    assert await store.queue_due(NOW) == Due(next_run=NEVER)
    await store.reschedule("a", Instant(NOW.ms + 5), None)
    assert await store.queue_due(Instant(NOW.ms + 5)) == Due(next_run=NEVER)
    assert await queues(store) == {"p1": ["a"]}


async def test_no_jobs_no_next_run(store: Store) -> None:
    assert await store.queue_due(NEVER) == Due(next_run=None)


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
