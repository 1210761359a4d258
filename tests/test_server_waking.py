"""builder-server's waking: a change wakes those whom it concerns, once it is on the disk, and nobody else."""

import gc
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
import trio
from farm import eventually, run_server
from scripted import CLIENT, connect, do, given_job, schedule, waiting_worker
from stores import LOST, NOW, database, expand, opened, script, take, uuid

from builder.extension.applying import Apply
from builder.extension.schedule import PlanJob
from builder.messages import DropPlatform, Execute, Message, Success, UndropPlatform, Unschedule
from builder.model import Exited, Instant, OrbBuildJob, Period
from builder.planning import JobOptions
from builder_server.errors import CommandRefused
from builder_server.store import Store, StoreError, Timing
from builder_server.store.waking import Waking

pytestmark = pytest.mark.databases

HOUR = 3_600_000
ORB = OrbBuildJob(name="orb", opam_package="x")

Action = Callable[[Store], Awaitable[object]]


async def _due(store: Store) -> None:
    await store.finish(uuid(1), NOW, Exited(code=0))
    await store.queue_due(Instant(NOW.ms + 25 * HOUR))


CHANGES: dict[str, tuple[Action, set[str], bool]] = {
    "a job": (lambda store: store.schedule(script("new"), Period.DAILY, NOW), {"p1"}, False),
    "a job that is next": (lambda store: store.schedule(script("new"), Period.HOURLY, NOW), {"p1"}, True),
    "an orb job": (lambda store: store.schedule(ORB, Period.WEEKLY, NOW), {"p1", "p2"}, False),
    "unscheduled": (lambda store: store.unschedule("a"), set(), False),
    "a later run": (lambda store: store.reschedule("a", Instant(NOW.ms + 99 * HOUR), None), set(), False),
    "an earlier run": (lambda store: store.reschedule("a", Instant(NOW.ms + 5), None), set(), True),
    "executed": (lambda store: store.execute("a", None, NOW, "client"), {"p1"}, False),
    "executed everywhere": (lambda store: store.execute("o", None, NOW, "client"), {"p1", "p2"}, False),
    "executed on one": (lambda store: store.execute("o", "p2", NOW, "client"), {"p2"}, False),
    "dropped": (lambda store: store.drop_platform("p2"), set(), False),
    "undropped": (lambda store: store.undrop_platform("p3"), {"p3"}, False),
    "nothing is due": (lambda store: store.queue_due(NOW), set(), False),
    "due": (_due, {"p1"}, False),
    "due and running": (lambda store: store.queue_due(Instant(NOW.ms + 25 * HOUR)), set(), False),
    "taken": (lambda store: store.take("p1", uuid(7), NOW, expand), set(), False),
    "finished": (lambda store: store.finish(uuid(1), NOW, Exited(code=0), receivers=["r"]), set(), False),
    "lost": (lambda store: store.lose(uuid(1), NOW, LOST, count=True), {"p1"}, False),
    "refused": (lambda store: store.execute("unknown", None, NOW, "client"), set(), False),
    "refused after a change": (lambda store: store.schedule(script("a", "p9"), Period.HOURLY, NOW), set(), False),
}


@pytest.mark.parametrize("what", CHANGES)
async def test_whom_a_change_wakes(tmp_path: Path, what: str) -> None:
    action, platforms, is_earlier = CHANGES[what]
    async with opened(tmp_path) as store:
        await store.schedule(script("b", "p3"), Period.DAILY, NOW)
        await store.drop_platform("p3")
        await store.schedule(script("a"), Period.DAILY, NOW)
        await store.take("p2", uuid(0), NOW, None)
        await store.schedule(OrbBuildJob(name="o", opam_package="x"), Period.NEVER, NOW)
        await take(store, 1)
        waiting = {name: store.waking.platform(name) for name in ("p1", "p2", "p3", "p9")}
        events = {name: change.next for name, change in waiting.items()}
        earlier = store.waking.schedule.next
        try:
            await action(store)
        except CommandRefused:
            assert what.startswith("refused")
        assert {name for name, event in events.items() if event.is_set()} == platforms
        assert earlier.is_set() == is_earlier


async def test_who_is_woken_finds_the_change_on_the_disk(tmp_path: Path) -> None:
    async with opened(tmp_path) as store, trio.open_nursery() as nursery:
        work = store.waking.platform("p1")
        found: list[object] = []

        async def wait() -> None:
            await work.next.wait()
            found.append(
                await store.database.read(lambda connection: connection.scalar(sa.text("select name from job")))
            )

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await store.schedule(script("a"), Period.DAILY, NOW)
        await eventually(lambda: found)
        assert found == ["a"]


async def test_what_the_disk_did_not_take_wakes_nobody(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.schedule(script("a"), Period.DAILY, NOW)

        @sa.event.listens_for(database(store)._writer, "commit")
        def fail(_connection: sa.Connection) -> None:
            raise OSError("disk I/O error")

        work = store.waking.platform("p1")
        queued, earlier = work.next, store.waking.schedule.next
        with pytest.raises(StoreError):
            await store.execute("a", None, NOW, "client")
        with pytest.raises(StoreError):
            await store.reschedule("a", NOW, None)
        assert not queued.is_set()
        assert not earlier.is_set()


def test_names_for_which_nobody_waits_are_forgotten() -> None:
    waking = Waking()
    kept = waking.platform("kept")
    for number in range(1000):
        waking.platform(f"p{number}")
    gc.collect()
    assert waking.platform("kept") is kept
    assert len(waking._platforms) == 1


@pytest.mark.sqlite
async def test_what_a_command_costs(tmp_path: Path) -> None:
    """An execute is one transaction, and one read to find the job, one to find the platform."""
    async with opened(tmp_path) as store:
        for number in range(20):
            await store.schedule(script(f"j{number}", f"p{number % 5}"), Period.DAILY, NOW)
        seen: list[str] = []
        for engine in (database(store)._writer, database(store)._readers):
            sa.event.listen(engine, "before_cursor_execute", lambda *found: seen.append(found[2].split()[0]))
        await store.execute("j7", None, NOW, "client")
        assert seen == ["BEGIN", "SELECT", "SELECT", "UPDATE"]


async def test_what_many_jobs_cost(tmp_path: Path) -> None:
    """Statements for hundreds at a time: nobody else can write meanwhile."""
    new = tuple(PlanJob(job=script(f"j{number}"), options=JobOptions(), run_now=False) for number in range(900))
    timings = {each.job.name: Timing.of(each.options, each.job.name, NOW) for each in new}
    async with opened(tmp_path) as store:
        seen: list[str] = []
        sa.event.listen(database(store)._writer, "before_cursor_execute", lambda *found: seen.append(found[2]))
        await store.apply(Apply(removed=(), changed=(), added=new), timings, NOW)
        assert len(seen) < 30
        assert {item.job for item in (await store.info()).schedule} == {each.job for each in new}


@pytest.mark.parametrize(("names", "taken"), [("aba", "a"), ("bca", "c")])
async def test_a_name_that_is_taken_among_many(tmp_path: Path, names: str, taken: str) -> None:
    new = tuple(PlanJob(job=script(name), options=JobOptions(), run_now=False) for name in names)
    timings = {each.job.name: Timing.of(each.options, each.job.name, NOW) for each in new}
    async with opened(tmp_path) as store:
        await store.schedule(script("c"), Period.DAILY, NOW)
        with pytest.raises(CommandRefused, match=f"^job {taken}: job name already used$"):
            await store.apply(Apply(removed=(), changed=(), added=new), timings, NOW)
        assert [item.job.name for item in (await store.info()).schedule] == ["c"]


@pytest.mark.sqlite
async def test_a_take_reads_one_script(tmp_path: Path) -> None:
    """Jobs that wait for a template stay where they are, however many."""
    async with opened(tmp_path) as store:
        for number in range(50):
            await store.schedule(OrbBuildJob(name=f"orb{number}", opam_package="x"), Period.NEVER, NOW)
        await store.take("p1", uuid(0), NOW, None)
        for number in range(50):
            await store.schedule(script(f"j{number}"), Period.NEVER, NOW)
        seen: list[str] = []
        sa.event.listen(database(store)._writer, "before_cursor_execute", lambda *found: seen.append(found[2]))
        taken = await store.take("p1", uuid(1), NOW, None)
        assert taken.build is not None
        assert (taken.build.job.name, taken.blocked) == ("j0", "orb0")
        selects = [
            statement for statement in seen if "script" in statement and statement.startswith(("SELECT", "WITH"))
        ]
        assert len(selects) == 2
        assert all("LIMIT" in statement for statement in selects)
        for number in range(49):
            await store.take("p1", uuid(100 + number), NOW, None)
        seen.clear()
        found = await store.take("p1", uuid(2), NOW, None)
        assert (found.build, found.blocked) == (None, "orb0")
        # is the platform known, is anything drained, what is needed there, the first entry, the first script
        assert len([statement for statement in seen if statement.startswith(("SELECT", "WITH"))]) == 5


async def test_a_script_that_can_not_be_made_is_passed_over(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.take("p1", uuid(0), NOW, None)
        for name in ("large1", "large2", "small", "large3"):
            await store.schedule(OrbBuildJob(name=name, opam_package=name), Period.NEVER, NOW)
        found = await store.take("p1", uuid(1), NOW, lambda job: expand(job) if job.name == "small" else None)
        assert found.build is not None
        assert (found.build.job.name, found.blocked) == ("small", "large1")
        found = await store.take("p1", uuid(2), NOW, lambda _job: None)
        assert (found.build, found.blocked) == (None, "large1")


async def test_commands_do_not_wake_workers_of_other_platforms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    original = Store.take

    async def take_and_note(store: Store, platform: str, number: UUID, *arguments: Any, **options: Any) -> object:
        taken.append(platform)
        return await original(store, platform, number, *arguments, **options)

    monkeypatch.setattr(Store, "take", take_and_note)
    commands: list[Message] = [
        schedule("job"),
        Execute(name="job"),
        Unschedule(name="job"),
        schedule("other", "p2"),
        Execute(name="other"),
        DropPlatform(platform="p2"),
        UndropPlatform(platform="p2"),
    ]
    async with run_server(tmp_path) as server, AsyncExitStack() as stack:
        for number in range(20):
            await stack.enter_async_context(waiting_worker(server, f"w{number}"))
        await eventually(lambda: len(taken) == 20)
        await do(server, *commands)
        worker = await stack.enter_async_context(waiting_worker(server, "w20"))
        await eventually(lambda: len(taken) == 21)
        assert sorted(taken) == sorted(f"w{number}" for number in range(21))
        await do(server, schedule("mine", "w20"))
        job = await given_job(worker)
        assert job.job.name == "mine"


async def test_a_worker_of_a_banned_platform_hears_of_the_end_of_the_ban(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"), DropPlatform(platform="p1"))
        async with waiting_worker(server) as worker, connect(server, CLIENT) as client:
            await client.send(UndropPlatform(platform="p1"))
            await client.receive(Success)
            await do(server, schedule("b"))
            assert (await given_job(worker)).job.name == "b"
