"""builder-server, watched: changes as they come, and how things stand."""

import os
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
import trio
from clocks import NOW, Clock
from farm import DEADLINE, LocalServer, eventually, start_server
from scripted import (
    OURS,
    ScriptedPeer,
    build,
    connect,
    do,
    given_job,
    lose_worker,
    queues,
    schedule,
    script,
    take_job,
    waiting_worker,
)
from stores import database, opened
from trio.testing import MockClock

from builder import codec
from builder.errors import ConnectionEnded
from builder.extension.schedule import PlanJob
from builder.extension.watching import Changed, Look, LookAgain, Looked, Watch, What, Why
from builder.history import Cause, Outcome
from builder.messages import DropPlatform, Execute, Failure, Message, Reschedule, Success, UndropPlatform, Unschedule
from builder.model import Exited, Instant, OrbBuildJob, Period
from builder.planning import JobOptions, JobReference
from builder_server.requests import watching as watching_requests
from builder_server.room import Room
from builder_server.server import MAX_THREADS
from builder_server.store import standing
from builder_server.store.changes import MAX_KEPT, Changes
from builder_server.store.waking import MAX_NOTED, Waking, Woken


@asynccontextmanager
async def watching(server: LocalServer) -> AsyncIterator[ScriptedPeer]:
    """A client that watches from now on."""
    async with connect(server, OURS) as peer:
        await peer.send(Watch())
        await peer.receive(LookAgain)
        yield peer


Told = tuple[What, str | None, str | None]


async def told(peer: ScriptedPeer, count: int) -> list[Told]:
    """Return the next changes, as far as they have names."""
    found = [await peer.receive(Changed) for _ in range(count)]
    assert [change.point - found[0].point for change in found] == list(range(count))
    return [(change.what, change.job, change.platform) for change in found]


async def looked(server: LocalServer, entries: int = 10, results: int = 10, platform: str | None = None) -> Looked:
    """Return how things stand, all pages in one."""
    async with connect(server, OURS) as peer:
        *pages, end = await peer.request(Look(entries=entries, results=results, platform=platform))
    assert end == Success(), end
    assert all(isinstance(page, Looked) for page in pages)
    first: Looked = pages[0]  # type: ignore[assignment]
    lists = {
        name: tuple(value for page in pages for value in getattr(page, name))
        for name in ("platforms", "running", "queued", "results")
    }
    return Looked(now=first.now, is_full=first.is_full, scheduled=first.scheduled, **lists)


# --- changes -------------------------------------------------------------------------------------------------------


async def test_the_life_of_a_job(server: LocalServer) -> None:
    async with watching(server) as peer:
        await do(server, schedule("a"))
        assert await told(peer, 3) == [
            (What.SCHEDULED, None, "p1"), (What.SCHEDULED, "a", None), (What.QUEUED, "a", "p1"),
        ]  # fmt: skip
        uuid, _ = await build(server, result=Exited(code=1))
        came = await peer.receive(Changed)
        begun, finished = await peer.receive(Changed), await peer.receive(Changed)
        assert (came.what, came.platform) == (What.WORKER_CAME, "p1")
        assert (begun.what, begun.job, begun.platform, begun.uuid) == (What.BEGUN, "a", "p1", uuid)
        assert (finished.what, finished.job, finished.uuid) == (What.FINISHED, "a", uuid)
        assert finished.outcome is Outcome.FAILED
        await do(server, Execute(name="a"), Execute(name="a"), Unschedule(name="a"))
        assert await told(peer, 3) == [
            (What.QUEUED, "a", "p1"), (What.QUEUED, "a", "p1"), (What.REMOVED, "a", None),
        ]  # fmt: skip
        await do(server, DropPlatform(platform="p1"), UndropPlatform(platform="p1"))
        assert await told(peer, 2) == [(What.REMOVED, None, "p1"), (What.SCHEDULED, None, "p1")]


async def test_a_lost_build_is_queued_again(server: LocalServer) -> None:
    await do(server, schedule("a"))
    async with watching(server) as peer:
        uuid = await lose_worker(server)
        assert (await told(peer, 2))[-1] == (What.BEGUN, "a", "p1")
        lost = await peer.receive(Changed)
        assert (lost.what, lost.uuid, lost.outcome) == (What.FINISHED, uuid, Outcome.LOST)
        assert await told(peer, 1) == [(What.QUEUED, "a", "p1")]


async def test_a_job_after_another(server: LocalServer) -> None:
    async with connect(server, OURS) as client:
        await client.request(PlanJob(job=script("lib"), options=JobOptions(), run_now=True))
        options = JobOptions(after=(JobReference(name="lib"),))
        await client.request(PlanJob(job=script("app", "p2"), options=options, run_now=False))
    async with watching(server) as peer:
        await build(server)
        assert (await told(peer, 4))[2:] == [(What.FINISHED, "lib", "p1"), (What.QUEUED, "app", "p2")]


async def test_a_worker_that_goes_without_a_job(server: LocalServer) -> None:
    async with watching(server) as peer:
        async with waiting_worker(server):
            assert await told(peer, 2) == [(What.WORKER_CAME, None, "p1"), (What.SCHEDULED, None, "p1")]
        assert await told(peer, 1) == [(What.WORKER_WENT, None, "p1")]


async def test_a_new_platform_is_told_with_the_orb_builds_that_wait_there(server: LocalServer) -> None:
    async with connect(server, OURS) as client:
        orb = OrbBuildJob(name="orb", opam_package="x")
        await client.request(PlanJob(job=orb, options=JobOptions(), run_now=True))
    async with watching(server) as peer, waiting_worker(server, "new"):
        assert await told(peer, 3) == [
            (What.WORKER_CAME, None, "new"), (What.SCHEDULED, None, "new"), (What.QUEUED, "orb", "new"),
        ]  # fmt: skip


async def test_what_is_refused_tells_nothing(server: LocalServer) -> None:
    await do(server, schedule("a"))
    async with watching(server) as peer:
        async with connect(server, OURS) as client:
            assert isinstance((await client.request(schedule("a", "p9")))[-1], Failure)
        await do(server, schedule("b"))
        assert (await told(peer, 1))[0] == (What.SCHEDULED, "b", None)


async def test_a_client_that_comes_back_is_told_what_it_missed(server: LocalServer) -> None:
    async with watching(server) as peer:
        await do(server, schedule("a"))
        first = [await peer.receive(Changed) for _ in range(2)][-1]
    await do(server, schedule("b"))
    async with connect(server, OURS) as peer:
        await peer.send(Watch(since=first.point))
        assert await told(peer, 3) == [
            (What.QUEUED, "a", "p1"), (What.SCHEDULED, "b", None), (What.QUEUED, "b", "p1"),
        ]  # fmt: skip


@pytest.mark.parametrize("since", [-1, 0, 2**61])
async def test_a_point_of_another_life_of_the_server(server: LocalServer, since: int) -> None:
    async with connect(server, OURS) as peer:
        await peer.send(Watch(since=since))
        await peer.receive(LookAgain)


async def test_many_changes_at_once_are_told_as_one(server: LocalServer, clock: Clock) -> None:
    async with connect(server, OURS) as client:
        for number in range(MAX_NOTED + 1):
            await client.request(PlanJob(job=script(f"job{number}"), options=JobOptions(), run_now=False))
        async with watching(server) as peer:
            clock.now = Instant(NOW.ms + 86_400_000)
            await client.request(Reschedule(name="job0", next=NOW))  # wakes who looks for what is due
            while isinstance(message := await peer.receive_any(), Changed):
                pass  # the change of job0, if it came long enough before
            assert isinstance(message, LookAgain)
            await do(server, Execute(name="job1"))
            assert await told(peer, 1) == [(What.QUEUED, "job1", "p1")]


async def test_a_change_is_encoded_once_for_all_watchers(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = []
    encode = codec.encode

    def noting(message: Message) -> bytes:
        encoded.append(message)
        return encode(message)

    async with AsyncExitStack() as guests:
        peers = [await guests.enter_async_context(watching(server)) for _ in range(10)]
        monkeypatch.setattr(codec, "encode", noting)
        await do(server, schedule("a"))
        for peer in peers:
            while (await peer.receive(Changed)).what is not What.QUEUED:
                pass
    changes = [message for message in encoded if isinstance(message, Changed)]
    assert len(changes) == len(set(changes)) == 3  # the platform, the job, its entry


async def test_changes_of_a_moment_are_told_together(mock_clock: MockClock) -> None:
    """How often a watcher is told something does not grow with what happens."""
    sent: list[tuple[float, int]] = []

    class Listening:
        def bound_unsent(self, _seconds: float) -> None:
            pass

        async def send(self, message: Message) -> None:
            sent.append((trio.current_time(), 0))

        async def send_bytes(self, _kind: object, data: bytes) -> None:
            sent.append((trio.current_time(), data.count(b"job")))

    waking = Waking()
    mock_clock.autojump_threshold = 0
    asked: Any = SimpleNamespace(channel=Listening(), store=SimpleNamespace(waking=waking))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watching_requests.watch, asked, Watch())
        for _ in range(1000):
            waking.changes.add([Changed(point=0, what=What.SCHEDULED, job="job")])
            await trio.sleep(0.001)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert sum(count for _, count in sent) >= 990
    assert len(sent) < 50


def test_who_is_too_slow_has_to_look_again() -> None:
    changes = Changes()
    begin = changes.point
    change = Changed(point=0, what=What.SCHEDULED, job="a")
    for _ in range(MAX_KEPT):
        changes.add([change])
    kept = changes.after(begin)
    assert kept is not None
    assert len(kept) == MAX_KEPT
    assert changes.after(changes.point) == ()
    changes.add([change])
    assert changes.after(begin) is None
    assert changes.after(changes.point + 1) is None
    before = changes.point
    changes.skip()
    assert changes.after(before) is None
    assert changes.after(changes.point) == ()


def test_what_one_step_notes_is_bounded() -> None:
    woken, waking = Woken(), Waking()
    woken.note_entries(What.QUEUED, (("a", "p1") for _ in range(10**6)))
    assert len(woken.changes) == MAX_NOTED + 1
    before = waking.changes.point
    waking.announce(woken)
    assert waking.changes.after(before) is None


async def test_a_watcher_that_sends_something_is_closed(server: LocalServer) -> None:
    async with watching(server) as peer:
        await peer.send_raw(b"\0")
        await peer.send_raw(b"\0\0\0\0\0\0\0")
        await peer.wait_closed()


async def test_a_watcher_does_not_keep_the_server_from_stopping(server: LocalServer) -> None:
    async with watching(server) as peer:
        server.stop()
        with pytest.raises((ConnectionEnded, trio.BrokenResourceError)):
            await peer.receive_any()


async def test_places_of_watchers_count(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async with watching(server):
        monkeypatch.setattr("builder_server.connections._STAYING", (0, 1))
        async with connect(server, OURS) as peer:
            (failure,) = await peer.request(Watch())
            assert failure == Failure(message="there are 1 workers and observers already")


async def test_many_watchers_cost_nothing_while_nothing_happens(tmp_path: Path) -> None:
    async with start_server(tmp_path) as server, trio.open_nursery() as nursery:
        settled = 0

        async def watch(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            nonlocal settled
            async with connect(server, OURS) as peer:
                await peer.send(Watch())
                await peer.receive(LookAgain)
                task_status.started()
                assert (await peer.receive(Changed)).what is What.SCHEDULED
                settled += 1

        for _ in range(50):
            await nursery.start(watch)
        before = _cpu(server.pid)
        await trio.sleep(2)  # for as long nothing is to happen
        assert _cpu(server.pid) - before <= 0.02
        await do(server, schedule("a"))
        await eventually(lambda: settled == 50, what="the change at all watchers")


def _cpu(pid: int) -> float:
    """Return the seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- how things stand ----------------------------------------------------------------------------------------------


async def test_an_empty_server(server: LocalServer) -> None:
    assert await looked(server) == Looked(now=NOW, is_full=False, scheduled=0)


async def test_what_runs_waits_and_has_ended(server: LocalServer, clock: Clock) -> None:
    uuids: list[UUID] = []
    await do(server, schedule("a"))
    for minutes in (9, 1, 5):
        await do(server, Execute(name="a"))
        async with take_job(server) as taken:
            await taken.finish()
            uuids.append(taken.uuid)
        _set_duration(server, taken.uuid, minutes * 60_000)
    await do(server, Execute(name="a"), schedule("b"), schedule("c"), schedule("d", "p2"))
    async with take_job(server) as taken:
        clock.now = Instant(NOW.ms + 60_000)
        found = await looked(server)
        assert [(each.uuid, each.job, each.cause, each.expected) for each in found.running] == [
            (taken.uuid, "a", Cause.EXECUTED, 300_000)
        ]
        assert [(each.name, each.waiting, each.busy, each.queued) for each in found.platforms] == [
            ("p1", 0, 1, 2),
            ("p2", 0, 0, 1),
        ]
        assert [(each.job, each.why, each.ahead, each.start, each.expected) for each in found.queued] == [
            ("b", Why.BUSY, 0, Instant(NOW.ms + 300_000), None),
            ("c", Why.BEHIND, 1, None, None),
            ("d", Why.NO_WORKER, 0, None, None),
        ]
        assert [each.job for each in (await looked(server, entries=1, platform="p1")).queued] == ["b"]
        assert (await looked(server, platform="p1")).platforms == found.platforms[:1]
        assert {each.uuid for each in found.results} == {*uuids}
        assert [each.outcome for each in (await looked(server, results=1)).results] == [Outcome.SUCCEEDED]


def _set_duration(server: LocalServer, uuid: UUID, ms: int) -> None:
    """Have a build have taken so long."""
    with sqlite3.connect(server.data_dir / "builder.sqlite3", timeout=30) as connection:
        connection.execute("update build set finished = started + ? where uuid = ?", (ms, str(uuid)))
    connection.close()


async def test_an_orb_build_that_lacks_a_template(server: LocalServer) -> None:
    async with connect(server, OURS) as client:
        orb = OrbBuildJob(name="orb", opam_package="x")
        await client.request(PlanJob(job=orb, options=JobOptions(), run_now=True))
    async with waiting_worker(server) as worker:
        await eventually(lambda: server.query("select * from queue"), what="the queue")
        (entry,) = (await looked(server)).queued
        assert entry.why is Why.NO_TEMPLATE
        (server.config_dir / "orb-build.template.p1").write_bytes(b"#!/bin/sh\n")
        assert (await given_job(worker)).job.name == "orb"


async def test_a_full_disk(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    await do(server, schedule("a"))
    monkeypatch.setattr("builder_server.room.look", lambda *_: Room(free=0, wanted=1))
    found = await looked(server)
    assert found.is_full
    assert [each.why for each in found.queued] == [Why.DISK_FULL]


async def test_waiting_workers_are_counted(server: LocalServer) -> None:
    async with watching(server) as watcher:
        async with waiting_worker(server), waiting_worker(server):
            assert {what for what, _, _ in await told(watcher, 3)} == {What.WORKER_CAME, What.SCHEDULED}
            assert [(each.name, each.waiting) for each in (await looked(server)).platforms] == [("p1", 2)]
        assert {what for what, _, _ in await told(watcher, 2)} == {What.WORKER_WENT}
        assert [(each.name, each.waiting) for each in (await looked(server)).platforms] == [("p1", 0)]


async def test_long_queues_come_in_pages(server: LocalServer) -> None:
    async with connect(server, OURS) as client:
        for number in range(230):
            await client.request(PlanJob(job=script(f"job{number}"), options=JobOptions(), run_now=True))
        pages = await client.request(Look(entries=205, results=0))
    assert [len(page.queued) for page in pages if isinstance(page, Looked)] == [0, 100, 100, 5]
    (platform,) = (await looked(server)).platforms
    assert platform.queued == 230


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (Look(entries=1001, results=0), "entries of each queue must lie between 0 and 1000"),
        (Look(entries=0, results=-1), "a number of results must lie between 0 and 1000"),
        (Look(entries=0, results=0, platform="a/b"), "unknown platform a/b"),
    ],
)
async def test_what_is_refused(server: LocalServer, request_: Message, reason: str) -> None:
    async with connect(server, OURS) as client:
        assert await client.request(request_) == [Failure(message=reason)]


async def test_a_crowd_that_looks_leaves_threads_to_others(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_end = threading.Event(), threading.Event()
    read = standing.read

    def wait_and_read(*arguments: Any, **options: Any) -> standing.Standing:
        begun.set()
        may_end.wait(DEADLINE)
        return read(*arguments, **options)

    monkeypatch.setattr(standing, "read", wait_and_read)

    async def look(guest: ScriptedPeer) -> None:
        *_, end = await guest.request(Look(entries=1, results=1))
        assert end == Success()

    async with AsyncExitStack() as guests, trio.open_nursery() as nursery:
        for _ in range(MAX_THREADS):
            nursery.start_soon(look, await guests.enter_async_context(connect(server, OURS)))
        await eventually(begun.is_set)
        await do(server, schedule("a"))
        assert await queues(server) == {"p1": ["a"]}
        may_end.set()


@pytest.mark.databases
@pytest.mark.parametrize(
    ("durations", "expected"),
    [((), None), ((7,), 7), ((9, 1, 5), 5), ((4, 1, 2, 3), 2), ((4, 4, 1, 1), 1), ((900, 800, 5, 4, 1, 2, 3), 3)],
)
async def test_what_is_expected_is_the_median_of_the_newest(
    tmp_path: Path, durations: tuple[int, ...], expected: int | None
) -> None:
    """Of the newest five, of an even number the lower of the two in the middle; the last one is the newest."""
    async with opened(tmp_path) as store:
        await store.schedule(script("a"), Period.DAILY, NOW)
        await store.schedule(script("b"), Period.DAILY, NOW)
        for number, took in enumerate(durations):
            await store.execute("a", None, NOW, "client")
            moment = Instant(NOW.ms + number * 1000)
            await store.take("p1", UUID(int=number), moment, None)
            await store.finish(UUID(int=number), Instant(moment.ms + took), Exited(code=0))
        await store.execute("a", None, NOW, "client")
        found = await store.standing(Look(entries=9, results=0))
        assert [(each.job, each.expected) for each in found.queued["p1"][1]] == [("a", expected), ("b", None)]
        await store.take("p1", UUID(int=99), NOW, None)
        (running,) = (await store.standing(Look(entries=0, results=0))).running
        assert running.expected == expected


async def test_estimates_and_results_are_found_by_indexes(tmp_path: Path) -> None:
    plans: list[str] = []

    def explain(connection: Any, _cursor: object, statement: str, values: Any, *_: object) -> None:
        driver = connection.connection.dbapi_connection
        plans.extend(row[-1] for row in driver.execute(f"explain query plan {statement}", values))

    async with opened(tmp_path) as store:
        await store.schedule(script("a"), Period.DAILY, NOW)
        sa.event.listen(database(store)._readers, "before_cursor_execute", explain)
        await store.standing(Look(entries=9, results=9))
    # the newest builds of a job once for those that run, once for a queue
    assert sum(plan.startswith("SEARCH build_1 USING INDEX build_success (name=?") for plan in plans) == 2
    assert "SEARCH queue USING INDEX queue_order (platform=?)" in plans
    assert any("build_finished" in plan for plan in plans)
    scanned = {plan.split()[1] for plan in plans if plan.startswith("SCAN") and "INDEX" not in plan}
    assert scanned.isdisjoint({"build", "build_1", "job", "queue"})
