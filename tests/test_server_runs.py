"""builder-server: one run of a job at a time, tries of it, and runs that are left out."""

import datetime as dt
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio
from clocks import NOW, Clock
from farm import LocalServer, eventually, run_server
from plans import after, make_platforms, orb, plan, schedule_and_build_other, shown, succeed
from scripted import OURS, ScriptedPeer, ask, build, connect, do, observe, queues, schedule, take_job

from builder.extension.schedule import ChangeJob
from builder.messages import Execute, Reschedule, Success, Unschedule
from builder.model import Aborted, Exited, Instant, Period
from builder.planning import JobOptions, Missed


def left_out(server: LocalServer) -> list[tuple[str, str, str, str | None, str]]:
    """Return the runs that were left out: job, platform, cause and what was that, reason."""
    return server.query(
        "select name, platform, cause, cause_of, reason from skipped where platform != 'elsewhere' order by id"
    )


async def look(server: LocalServer, clock: Clock) -> None:
    """Have the server look for what is due, and wait until it has: a run that is due before all others wakes it."""
    await ask(server, schedule("look", "elsewhere", period=Period.NEVER))
    await build(server, "elsewhere")
    await do(server, Reschedule(name="look", next=Instant(clock.now.ms - 86_400_000)))
    await build(server, "elsewhere")
    await do(server, Unschedule(name="look"))


@pytest.mark.parametrize("kind", ["script", "orb"])
@pytest.mark.parametrize("state", ["running", "queued", "to be tried again", "tried again"])
async def test_a_run_that_is_due_meanwhile_is_left_out(
    client: ScriptedPeer, server: LocalServer, clock: Clock, kind: str, state: str
) -> None:
    """Whatever it is due for: by the clock, or since another job has succeeded; on each platform by itself."""
    await make_platforms(server, "p1", "p2")
    await client.request(plan("lib", platform="p2", run_now=False, period=Period.NEVER))
    options: dict[str, Any] = {"period": Period.HOURLY, "after": after("lib"), "retries": 2}
    await client.request(plan("app", run_now=False, **options) if kind == "script" else orb("app", **options))
    await do(server, Execute(name="app", platform="p1"))
    async with AsyncExitStack() as stack:
        if state in ("to be tried again", "tried again"):
            await build(server, result=Exited(code=1))
        if state == "tried again":
            clock.now = clock.now.plus(dt.timedelta(minutes=2))
            await look(server, clock)
        if state in ("running", "tried again"):
            await stack.enter_async_context(take_job(server))
        clock.now = NOW.plus(dt.timedelta(hours=1))
        await look(server, clock)
        elsewhere = {"script": [], "orb": ["app"]}[kind]
        assert left_out(server) == [("app", "p1", "due", None, "still running")]
        there = [] if state in ("running", "tried again") else ["app"]
        assert (await queues(server))["p1"] == there
        assert (await queues(server))["p2"] == elsewhere
        await succeed(server, "lib", "p2")
        assert left_out(server)[1:] == [
            ("app", platform, "after", "lib", "still running")
            for platform in ("p1", "p2")
            if platform == "p1" or elsewhere
        ]
        assert (await queues(server))["p1"] == there
        assert (await queues(server))["p2"] == elsewhere


async def test_a_retry_of_a_job_that_waits_or_runs_again_is_left_out(client: ScriptedPeer, server: LocalServer) -> None:
    await client.request(plan("a", retries=1, period=Period.NEVER))
    async with take_job(server) as first:
        await do(server, Execute(name="a"))
        await first.finish(Exited(code=1))
        await first.peer.wait_closed()
    assert server.query("select cause, retry from queue") == [("executed", 0)]
    assert left_out(server) == [("a", "p1", "retry", str(first.uuid), "still running")]
    async with take_job(server) as second, AsyncExitStack() as stack:
        await do(server, Execute(name="a"))
        third = await stack.enter_async_context(take_job(server))
        await second.finish(Exited(code=1))
        await second.peer.wait_closed()
        assert await queues(server) == {"p1": []}
        assert left_out(server)[1:] == [("a", "p1", "retry", str(second.uuid), "still running")]
        await third.finish()


async def test_a_success_on_one_platform_starts_nothing_on_another(client: ScriptedPeer, server: LocalServer) -> None:
    """Not even where a run was left out, for which a success on that platform comes first."""
    await make_platforms(server, "p1", "p2")
    await client.request(orb("lib", period=Period.NEVER))
    await client.request(orb("app", after=after("lib"), period=Period.NEVER))
    await succeed(server, "lib", "p1")
    async with take_job(server) as taken:
        await succeed(server, "lib", "p1")
        assert left_out(server) == [("app", "p1", "after", "lib", "still running")]
        await taken.finish()
        await taken.peer.wait_closed()
    await succeed(server, "lib", "p2")
    assert await queues(server) == {"p1": [], "p2": ["app"]}


async def test_a_change_of_something_else_is_no_run_that_is_due(client: ScriptedPeer, server: LocalServer) -> None:
    await client.request(plan("lib", "p2", run_now=False, period=Period.NEVER))
    await client.request(plan("app", after=after("lib"), run_now=False, period=Period.NEVER))
    await succeed(server, "lib", "p2")
    async with take_job(server) as taken:
        await succeed(server, "lib", "p2")
        assert left_out(server) == [("app", "p1", "after", "lib", "still running")]
        options = JobOptions(after=after("lib"), period=Period.NEVER, priority=7)
        assert await client.request(ChangeJob(name="app", revision=1, options=options)) == [Success()]
        assert len(left_out(server)) == 1
        await taken.finish()
    assert await queues(server) == {"p1": [], "p2": []}


async def test_runs_missed_while_the_server_was_down(tmp_path: Path, clock: Clock) -> None:
    async with run_server(tmp_path, now=clock) as server, connect(server, OURS) as client:
        for name, missed in (("run", Missed.RUN_ONCE), ("skip", Missed.SKIP)):
            await client.request(plan(name, missed=missed, run_now=False))
    clock.now = Instant(NOW.ms + 3 * 86_400_000 + 1)
    async with run_server(tmp_path, now=clock) as server, connect(server, OURS) as client:
        await eventually(lambda: server.query("select * from queue"), what="what was missed in the queue")
        assert await queues(server) == {"p1": ["run"]}
        assert (await shown(client, "skip")).next_run == Instant(NOW.ms + 4 * 86_400_000)
        assert server.query("select name, platform, due, reason from skipped") == [
            ("skip", "p1", NOW.ms + 86_400_000, "the server was down")
        ]
        assert server.query("select cause from queue") == [("missed",)]


async def test_a_job_that_fails_is_tried_again(client: ScriptedPeer, server: LocalServer, clock: Clock) -> None:
    await client.request(plan("a", retries=1, period=Period.NEVER))
    await build(server, result=Exited(code=1))
    async with trio.open_nursery() as nursery:
        ended = trio.Event()

        async def work() -> None:
            await build(server, result=Exited(code=1))
            ended.set()

        nursery.start_soon(work)
        assert await queues(server) == {"p1": ["a"]}
        clock.now = Instant(NOW.ms + 90_000)
        await schedule_and_build_other(server)
        await do(server, schedule("nudge", platform="p3", period=Period.HOURLY))
        await eventually(ended.is_set, what="the second attempt")
    assert await queues(server) == {"p1": [], "p2": [], "p3": ["nudge"]}
    assert server.query("select cause, retry, outcome from build where name = 'a' order by started, retry") == [
        ("first", 0, "failed"),
        ("retry", 1, "failed"),
    ]


async def test_a_retry_that_somebody_asks_for_is_a_run_of_its_own(client: ScriptedPeer, server: LocalServer) -> None:
    await client.request(plan("a", retries=1, period=Period.NEVER))
    await build(server, result=Exited(code=1))
    assert server.query("select cause, retry, not_before is null from queue") == [("retry", 1, 0)]
    await do(server, Execute(name="a"))
    assert server.query("select cause, retry, not_before is null from queue") == [("executed", 0, 1)]
    await build(server, result=Exited(code=1))
    assert server.query("select cause, retry from queue") == [("retry", 1)]


async def test_what_a_clock_ahead_has_queued_waits_no_longer_than_what_is_queued_now(
    client: ScriptedPeer, server: LocalServer, clock: Clock
) -> None:
    """Places in a queue and times to wait for, as they were meant to be, once the clock is right again."""
    minute = 60_000
    await client.request(plan("retried", "p2", retries=1, period=Period.NEVER))
    clock.now = NOW.plus(dt.timedelta(hours=2, minutes=30))  # less than a retry may wait
    await client.request(plan("early", priority=4))
    await client.request(plan("front"))
    await do(server, Execute(name="front"))
    await build(server, "p2", result=Exited(code=1))
    clock.now = NOW
    await client.request(plan("late", priority=4))
    await look(server, clock)
    assert await queues(server) == {"p1": ["front", "early", "late"], "p2": ["retried"], "elsewhere": []}
    assert server.query("select distinct due from queue") == [(NOW.ms,)]
    assert server.query("select not_before from queue where not_before is not null") == [(NOW.ms + minute,)]
    clock.now = NOW.plus(dt.timedelta(minutes=1))
    await look(server, clock)
    await build(server, "p2")
    assert server.query("select max(position) from queue where position > 0") == [(NOW.ms - 4 * 60 * minute,)]


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"time_limit": 50}, "timeout after 0.05s (--timeout of the job)"),
        ({"max_silent": 50}, "silent for 0.05s (--max-silent of the job)"),
    ],
)
async def test_limits_of_a_job_hold_for_classic_workers(
    client: ScriptedPeer, server: LocalServer, limits: dict[str, Any], reason: str
) -> None:
    await client.request(plan("a", **limits))
    async with take_job(server) as taken:
        assert await taken.peer.wait_end() == "reset"
    await observe(server, taken.uuid)
    assert server.execution("a", taken.uuid).result == Aborted(message=reason)
    assert server.query("select outcome from build") == [("aborted",)]
    assert await queues(server) == {"p1": []}
