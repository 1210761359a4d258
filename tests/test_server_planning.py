"""builder-server: what our own protocol says of the schedule, what comes of it, and what classic peers see of that."""

import datetime as dt
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio
from clocks import NOW, Clock
from farm import DEADLINE, LocalServer, eventually, run_server
from scripted import (
    CLIENT,
    OURS,
    ScriptedPeer,
    ask,
    build,
    connect,
    do,
    info,
    observe,
    queues,
    schedule,
    script,
    take_job,
)

from builder import codec
from builder.extension import VERSION
from builder.extension.applying import Apply
from builder.extension.schedule import ChangeJob, JobShown, NextRuns, PlanJob, RunsShown, ShowJob
from builder.framing import frame
from builder.messages import Execute, Failure, Hello, Message, Reschedule, Role, Success, Unschedule
from builder.model import Aborted, Exited, Instant, OrbBuildJob, Period
from builder.planning import Cron, JobOptions, JobReference, Missed
from builder_server.requests import applying
from builder_server.requests import schedule as requests_schedule
from builder_server.requests.schedule import check_plan, next_runs
from builder_server.server import MAX_THREADS
from builder_server.store import PlannedJob
from builder_server.store import schedule as store_schedule

NIGHTLY = Cron(rule="17 3 * * mon-fri", zone="Europe/Copenhagen")


@pytest.fixture
async def client(server: LocalServer) -> AsyncIterator[ScriptedPeer]:
    async with connect(server, OURS) as peer:
        yield peer


def plan(name: str, platform: str = "p1", *, run_now: bool = True, **options: object) -> PlanJob:
    return PlanJob(job=script(name, platform), options=JobOptions(**options), run_now=run_now)  # type: ignore[arg-type]


async def shown(client: ScriptedPeer, name: str) -> JobShown:
    reply, end = await client.request(ShowJob(name=name))
    assert isinstance(reply, JobShown)
    assert end == Success()
    return reply


async def test_many_requests_on_one_connection(client: ScriptedPeer, server: LocalServer) -> None:
    assert await client.request(plan("a", cron=NIGHTLY, priority=7)) == [Success()]
    assert await client.request(plan("a")) == [Failure(message="job name already used")]
    assert await client.request(Execute(name="a")) == [Success()]
    assert await shown(client, "a") == JobShown(
        job=script("a"),
        options=JobOptions(cron=NIGHTLY, priority=7),
        revision=1,
        next_run=Instant(1_795_400_220_000),  # Monday the 23rd, 02:17 UTC
        queued_on=("p1",),
        awaited=(),
    )
    assert await client.request(Unschedule(name="a")) == [Success()]
    assert await client.request(ShowJob(name="a")) == [Failure(message="unknown job a")]
    assert await queues(server) == {"p1": []}


async def test_the_next_runs(client: ScriptedPeer) -> None:
    await client.request(plan("a", cron=NIGHTLY))
    reply, _ = await client.request(NextRuns(name="a", count=3))
    assert isinstance(reply, RunsShown)
    assert [moment.isoformat() for moment in reply.moments] == [
        "2026-11-23T02:17:00Z",
        "2026-11-24T02:17:00Z",
        "2026-11-25T02:17:00Z",
    ]
    await client.request(plan("once", period=Period.NEVER))
    assert await client.request(NextRuns(name="once", count=3)) == [RunsShown(moments=()), Success()]
    for count in (0, 1001):
        (failure,) = await client.request(NextRuns(name="a", count=count))
        assert failure == Failure(message="a number of runs must lie between 1 and 1000")


def test_what_is_overdue_runs_now_and_not_for_each_time_that_has_passed() -> None:
    found = PlannedJob(
        job=script("a"),
        options=JobOptions(cron=NIGHTLY),
        revision=1,
        next_run=Instant(-62_167_219_200_000),  # year 0, which datetime does not know
        queued_on=(),
        awaited=(),
    )
    assert [run.isoformat() for run in next_runs(found, 3, NOW)] == [
        "0000-01-01T00:00:00Z",
        "2026-11-23T02:17:00Z",
        "2026-11-24T02:17:00Z",
    ]


async def test_many_runs_are_foretold_while_others_are_served(
    client: ScriptedPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def noting(found: PlannedJob, count: int, now: Instant) -> tuple[Instant, ...]:
        threads.append(threading.current_thread())
        return next_runs(found, count, now)

    monkeypatch.setattr(requests_schedule, "next_runs", noting)
    await client.request(plan("a", cron=Cron(rule="0 0 29 2 *")))
    reply, _ = await client.request(NextRuns(name="a", count=1000))
    assert isinstance(reply, RunsShown)
    assert len(reply.moments) == 1000
    assert threading.current_thread() not in threads


async def test_a_schedule_is_planned_while_others_are_served(
    client: ScriptedPeer, server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of thousands of cron rules that takes seconds, in which others would neither be heard nor could write."""
    begun, may_end = threading.Event(), threading.Event()

    def wait_and_check(request: PlanJob) -> None:
        begun.set()
        assert may_end.wait(DEADLINE)
        check_plan(request)

    monkeypatch.setattr(applying, "check_plan", wait_and_check)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.request, Apply(removed=(), changed=(), added=(plan("a", cron=NIGHTLY),)))
        await eventually(begun.is_set)
        await do(server, schedule("b"))
        assert await queues(server) == {"p1": ["b"]}
        may_end.set()
    assert await queues(server) == {"p1": ["b", "a"]}


async def test_a_schedule_is_queued_in_its_order_and_its_priorities(client: ScriptedPeer, server: LocalServer) -> None:
    added = tuple(plan(f"job{number * 7 % 600:03}", run_now=number != 3, priority=number % 2) for number in range(600))
    assert await client.request(Apply(removed=(), changed=(), added=added)) == [Success()]
    expected = [
        each.job.name for priority in (1, 0) for each in added if each.run_now and each.options.priority == priority
    ]
    assert (await queues(server))["p1"] == expected


async def test_a_step_that_adds_jobs_computes_no_rule(
    client: ScriptedPeer, server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing = []
    add = store_schedule._add

    def noting(*arguments: Any, **options: Any) -> None:
        monkeypatch.setattr(JobOptions, "rule", lambda *_: writing.append("a rule"))
        add(*arguments, **options)
        monkeypatch.undo()

    monkeypatch.setattr(store_schedule, "_add", noting)
    assert await client.request(plan("a", cron=NIGHTLY)) == [Success()]
    assert (await shown(client, "a")).next_run == Instant(1_795_400_220_000)
    assert writing == []


async def test_a_crowd_that_wants_runs_foretold_leaves_threads_to_others(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def wait(*_arguments: object) -> tuple[Instant, ...]:
        begun.set()
        assert may_end.wait(DEADLINE)
        return ()

    await do(server, schedule("a"))
    monkeypatch.setattr(requests_schedule, "next_runs", wait)
    async with AsyncExitStack() as guests, trio.open_nursery() as nursery:
        for _ in range(MAX_THREADS):
            nursery.start_soon(
                (await guests.enter_async_context(connect(server, OURS))).request, NextRuns(name="a", count=9)
            )
        await eventually(begun.is_set)
        await do(server, schedule("b"))
        assert await queues(server) == {"p1": ["a", "b"]}
        may_end.set()


async def test_a_classic_client_sees_the_nearest_period(client: ScriptedPeer, server: LocalServer) -> None:
    for name, rule in (("a", "*/15 * * * *"), ("b", "0 4 * * *"), ("c", "@monthly")):
        await client.request(plan(name, cron=Cron(rule=rule)))
    periods = {item.job.name: item.period for item in (await info(server)).schedule}
    assert periods == {"a": Period.HOURLY, "b": Period.DAILY, "c": Period.WEEKLY}


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (plan("a", cron=Cron(rule="30 2 30 2 *")), "never matches"),
        (plan("a", cron=Cron(rule="@daily", zone="Mars/Base")), "unknown time zone"),
        (plan("../a"), "invalid job name"),
        (plan("a", platform="p/1"), "invalid platform name"),
        (plan("a", after=(JobReference(name="a"),)), "can't wait for itself"),
        (plan("a", after=(JobReference(name="b/c"),)), "invalid job name"),
        (ShowJob(name="../a"), "unknown job"),
        (ChangeJob(name="a", revision=1, options=JobOptions()), "unknown job a"),
    ],
)
async def test_what_is_refused_and_changes_nothing(client: ScriptedPeer, request_: Message, reason: str) -> None:
    (failure,) = await client.request(request_)
    assert isinstance(failure, Failure)
    assert reason in failure.message
    assert await client.request(ShowJob(name="a")) == [Failure(message="unknown job a")]


async def test_a_later_client_is_told_which_version_is_spoken(server: LocalServer) -> None:
    async with connect(server, Hello(role=Role.CLIENT, version=VERSION + 1)) as peer:
        assert await peer.request(ShowJob(name="a")) == [Failure(message="unknown job a")]


async def test_a_classic_client_can_ask_for_nothing_of_ours(server: LocalServer) -> None:
    async with connect(server, CLIENT) as peer:
        await peer.send_raw(frame(codec.encode(ShowJob(name="a"))))
        assert await peer.wait_closed() == b""


# --- changes -------------------------------------------------------------------------------------------------------


async def test_a_job_is_changed_as_it_was_seen(client: ScriptedPeer, server: LocalServer) -> None:
    await client.request(plan("a", period=Period.DAILY))
    change = ChangeJob(name="a", revision=1, options=JobOptions(period=Period.HOURLY), job=script("a", script=b"new"))
    assert await client.request(change) == [Success()]
    found = await shown(client, "a")
    assert (found.revision, found.job, found.options.period) == (2, script("a", script=b"new"), Period.HOURLY)
    assert found.next_run == Instant(NOW.ms + 3_600_000)
    (failure,) = await client.request(change)
    assert failure == Failure(message="a was changed meanwhile: look at it again, and repeat what you want of it")
    # what is not about time leaves the next run where it is
    await client.request(ChangeJob(name="a", revision=2, options=JobOptions(period=Period.HOURLY, retries=2)))
    assert (await shown(client, "a")).next_run == found.next_run
    async with take_job(server) as taken:
        assert taken.job.script == b"new"


async def test_a_job_keeps_its_name(client: ScriptedPeer) -> None:
    await client.request(plan("a"))
    (failure,) = await client.request(ChangeJob(name="a", revision=1, options=JobOptions(), job=script("b")))
    assert failure == Failure(message="a job keeps its name: add b as a new one, and unschedule a")
    assert (await shown(client, "a")).revision == 1


async def test_a_job_moves_to_another_platform(client: ScriptedPeer, server: LocalServer) -> None:
    await client.request(plan("a"))
    await client.request(ChangeJob(name="a", revision=1, options=JobOptions(), job=script("a", "p2")))
    assert await queues(server) == {"p1": [], "p2": []}
    await do(server, Execute(name="a"))
    assert (await shown(client, "a")).queued_on == ("p2",)


# --- what comes of options -----------------------------------------------------------------------------------------


async def test_a_paused_job_waits_until_it_is_resumed(client: ScriptedPeer, server: LocalServer) -> None:
    await client.request(plan("a"))
    await client.request(ChangeJob(name="a", revision=1, options=JobOptions(paused=True)))
    assert await ask(server, Execute(name="a")) == Failure(message="execute failed: the job is paused; resume it first")
    async with trio.open_nursery() as nursery:
        begun = trio.Event()

        async def work() -> None:
            async with take_job(server):
                begun.set()

        nursery.start_soon(work)
        await schedule_and_build_other(server)
        assert not begun.is_set()
        await client.request(ChangeJob(name="a", revision=2, options=JobOptions()))
        await begun.wait()


async def schedule_and_build_other(server: LocalServer) -> None:
    await do(server, schedule("other", platform="p2"))
    await build(server, platform="p2")


async def test_priorities_and_the_order_of_due_times(client: ScriptedPeer, server: LocalServer, clock: Clock) -> None:
    hour = 3_600_000
    for name, priority, later in (("e", 1, -5 * hour), ("a", 5, 0), ("b", 5, 1), ("d", 0, 3), ("c", 9, 2 * hour)):
        clock.now = Instant(NOW.ms + 10 * hour + later)
        await client.request(plan(name, priority=priority))
    # c gains 4 hours on a and was 2 late; e has waited for 5 hours, which are worth more than its 4 levels less
    assert await queues(server) == {"p1": ["c", "e", "a", "b", "d"]}
    await do(server, Execute(name="d"))
    assert (await queues(server))["p1"][0] == "d"
    await client.request(ChangeJob(name="b", revision=1, options=JobOptions(priority=9)))
    assert await queues(server) == {"p1": ["d", "b", "c", "e", "a"]}


async def test_a_job_after_others(client: ScriptedPeer, server: LocalServer) -> None:
    await client.request(plan("lib"))
    await client.request(plan("tool", platform="p2"))
    after = (JobReference(name="lib", platform="p1"), JobReference(name="tool"))
    await client.request(plan("app", after=after, run_now=False, period=Period.NEVER))
    assert (await shown(client, "app")).awaited == after
    await build(server)
    assert (await shown(client, "app")).awaited == (JobReference(name="tool"),)
    await build(server, platform="p2", result=Exited(code=1))
    assert await queues(server) == {"p1": [], "p2": []}
    await do(server, Execute(name="tool"))
    await build(server, platform="p2")
    assert await queues(server) == {"p1": ["app"], "p2": []}
    assert (await shown(client, "app")).awaited == after


@pytest.mark.parametrize("left", [("lib",), ("lib", "tool")])
async def test_what_a_paused_job_waited_for_is_not_forgotten(
    client: ScriptedPeer, server: LocalServer, left: tuple[str, ...]
) -> None:
    after = (JobReference(name="lib"), JobReference(name="tool"))
    await client.request(plan("lib"))
    await client.request(plan("app", "p2", after=after, run_now=False, paused=True))
    await build(server)
    assert (await shown(client, "app")).awaited == after[1:]
    still = tuple(JobReference(name=name) for name in left)
    assert await client.request(ChangeJob(name="app", revision=1, options=JobOptions(after=still))) == [Success()]
    found = await shown(client, "app")
    if left == ("lib",):
        assert (found.queued_on, found.awaited) == (("p2",), still)
        assert server.query("select cause, cause_of from queue") == [("after", "lib")]
    else:
        assert (found.queued_on, found.awaited) == ((), after[1:])


def orb(name: str, *, run_now: bool = False, **options: object) -> PlanJob:
    job = OrbBuildJob(name=name, opam_package=name)
    return PlanJob(job=job, options=JobOptions(**options), run_now=run_now)  # type: ignore[arg-type]


def after(*names: str) -> tuple[JobReference, ...]:
    return tuple(map(JobReference.parse, names))


async def make_platforms(server: LocalServer, *names: str) -> None:
    """Make platforms known, on which orb builds can run."""
    for name in names:
        await do(server, schedule(f"first-{name}", name, period=Period.NEVER))
        await build(server, name)
        (server.config_dir / f"orb-build.template.{name}").write_text("%%OPAM_PACKAGE%%")


async def succeed(server: LocalServer, name: str, platform: str) -> None:
    """Have a job run and succeed on a platform."""
    await do(server, Execute(name=name, platform=platform))
    async with take_job(server, platform) as taken:
        assert taken.job.name == name
        await taken.finish()


ORB_BUILDS_AFTER = [
    pytest.param(("lib",), id="another"),
    pytest.param(("lib", "tool"), id="several"),
    pytest.param(("lib", "script"), id="another and a script"),
    pytest.param(("lib", "tool@p1", "script"), id="others, a platform and a script"),
]


@pytest.mark.parametrize("names", ORB_BUILDS_AFTER)
async def test_an_orb_build_after_others_runs_where_each_of_them_has_succeeded(
    client: ScriptedPeer, server: LocalServer, names: tuple[str, ...]
) -> None:
    """One or several: on a platform it follows those that are built there, and all that were named with a place."""
    await make_platforms(server, "p1", "p2", "p3")
    for name in ("lib", "tool"):
        await client.request(orb(name, period=Period.NEVER))
    await client.request(plan("script", platform="p3", run_now=False, period=Period.NEVER))
    await client.request(orb("app", after=after(*names), period=Period.NEVER))
    for platform in ("p1", "p2"):
        assert (await shown(client, "app")).queued_on == (() if platform == "p1" else ("p1",))
        for name in names:
            if name in ("lib", "tool"):
                await succeed(server, name, platform)
            elif platform == "p1":
                await succeed(server, name.partition("@")[0], {"script": "p3"}.get(name, "p1"))
    assert (await shown(client, "app")).queued_on == ("p1", "p2")
    for platform in ("p1", "p2"):
        async with take_job(server, platform) as taken:
            assert taken.job.name == "app"
            await taken.finish()
    # and again: where it has run it waits for all anew, elsewhere what counts for all counts still
    await succeed(server, "lib", "p3")
    if "tool" in names:
        await succeed(server, "tool", "p3")
    assert (await shown(client, "app")).queued_on == ("p3",)
    await succeed(server, "lib", "p2")
    waits = (await shown(client, "app")).queued_on
    assert waits == (("p2", "p3") if names == ("lib",) else ("p3",))


async def test_what_an_orb_build_still_waits_for_is_told_with_the_platform(
    client: ScriptedPeer, server: LocalServer
) -> None:
    await client.request(orb("lib"))
    await client.request(orb("app", after=after("lib", "script"), period=Period.NEVER))
    assert (await shown(client, "app")).awaited == after("lib", "script")  # no platform is known
    await make_platforms(server, "p1", "p2")
    await client.request(plan("script", run_now=False, period=Period.NEVER))
    assert (await shown(client, "app")).awaited == after("lib@p1", "lib@p2", "script")
    await succeed(server, "lib", "p1")
    assert (await shown(client, "app")).awaited == after("lib@p2", "script")
    await succeed(server, "script", "p1")
    assert (await shown(client, "app")).awaited == after("lib@p1", "lib@p2", "script")
    assert (await shown(client, "app")).queued_on == ("p1",)


async def test_a_new_platform_needs_only_what_is_built_there(client: ScriptedPeer, server: LocalServer) -> None:
    await make_platforms(server, "p1")
    await client.request(orb("lib"))
    await client.request(plan("script", run_now=False, period=Period.NEVER))
    await client.request(orb("app", after=after("lib", "script"), period=Period.NEVER))
    await succeed(server, "script", "p1")
    await make_platforms(server, "p2")
    assert await queues(server) == {"p1": [], "p2": ["lib"]}
    await build(server, "p2")
    assert await queues(server) == {"p1": [], "p2": ["app"]}


async def test_a_run_for_another_reason_uses_what_has_succeeded_before_it(
    client: ScriptedPeer, server: LocalServer
) -> None:
    for name in ("lib", "tool", "app"):
        waits = after("lib", "tool") if name == "app" else ()
        await client.request(plan(name, after=waits, run_now=False, period=Period.NEVER))
    await succeed(server, "lib", "p1")
    await succeed(server, "app", "p1")
    await succeed(server, "tool", "p1")
    assert (await shown(client, "app")).awaited == after("lib")
    assert await queues(server) == {"p1": []}
    await succeed(server, "lib", "p1")
    assert await queues(server) == {"p1": ["app"]}


async def test_a_script_after_an_orb_build_runs_wherever_that_has_succeeded(
    client: ScriptedPeer, server: LocalServer
) -> None:
    await make_platforms(server, "p1", "p2")
    await client.request(orb("lib"))
    await client.request(plan("publish", after=after("lib"), run_now=False, period=Period.NEVER))
    await succeed(server, "lib", "p2")
    assert await queues(server) == {"p1": ["publish"], "p2": []}


# --- one run at a time ---------------------------------------------------------------------------------------------


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
        reason = "still running" if state in ("running", "tried again") else "still queued"
        assert left_out(server) == [("app", "p1", "due", None, reason)]
        there = [] if state in ("running", "tried again") else ["app"]
        assert (await queues(server))["p1"] == there
        assert (await queues(server))["p2"] == elsewhere
        await succeed(server, "lib", "p2")
        assert left_out(server)[1:] == [
            ("app", platform, "after", "lib", reason if platform == "p1" else "still queued")
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
    assert left_out(server) == [("a", "p1", "retry", str(first.uuid), "still queued")]
    async with take_job(server) as second, AsyncExitStack() as stack:
        await do(server, Execute(name="a"))
        third = await stack.enter_async_context(take_job(server))
        await second.finish(Exited(code=1))
        await second.peer.wait_closed()
        assert await queues(server) == {"p1": []}
        assert left_out(server)[1:] == [("a", "p1", "retry", str(second.uuid), "still running")]
        await third.finish()


async def test_a_job_that_waits_for_less_runs_once_it_waits_for_nothing(
    client: ScriptedPeer, server: LocalServer
) -> None:
    for name in ("lib", "tool"):
        await client.request(plan(name, run_now=False, period=Period.NEVER))
    for name in ("app", "other"):
        await client.request(plan(name, "p2", after=after("lib", "tool"), run_now=False, period=Period.NEVER))
    await succeed(server, "lib", "p1")
    fewer = JobOptions(after=after("lib"), period=Period.NEVER)
    assert await client.request(ChangeJob(name="app", revision=1, options=fewer)) == [Success()]
    changed = ChangeJob(name="other", revision=1, options=fewer)
    assert await client.request(Apply(removed=(), changed=(changed,), added=())) == [Success()]
    assert await queues(server) == {"p1": [], "p2": ["app", "other"]}


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


async def test_jobs_that_change_who_waits_for_whom_at_once(client: ScriptedPeer) -> None:
    """Also where one change would lead to a cycle on the way."""
    for name in ("a", "b"):
        await client.request(plan(name, after=after("a") if name == "b" else (), run_now=False))
    turned = (
        ChangeJob(name="a", revision=1, options=JobOptions(after=after("b"))),
        ChangeJob(name="b", revision=1, options=JobOptions()),
    )
    assert await client.request(Apply(removed=(), changed=turned, added=())) == [Success()]
    both = (
        ChangeJob(name="a", revision=2, options=JobOptions(after=after("c"))),
        plan("c", after=after("a"), run_now=False),
    )
    (failure,) = await client.request(Apply(removed=(), changed=(both[0],), added=(both[1],)))
    assert failure == Failure(message="job c: jobs would wait for each other: c after a after c")
    assert (await shown(client, "a")).options.after == after("b")


async def test_jobs_that_would_wait_for_each_other(client: ScriptedPeer) -> None:
    await client.request(plan("a"))
    await client.request(plan("b", after=(JobReference(name="a"),)))
    await client.request(plan("c", after=(JobReference(name="b", platform="p1"),)))
    (failure,) = await client.request(
        ChangeJob(name="a", revision=1, options=JobOptions(after=(JobReference(name="c"),)))
    )
    assert failure == Failure(message="jobs would wait for each other: a after c after b after a")
    assert (await shown(client, "a")).revision == 1


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


async def test_a_retry_that_somebody_asks_for_is_a_run_of_its_own(client: ScriptedPeer, server: LocalServer) -> None:
    await client.request(plan("a", retries=1, period=Period.NEVER))
    await build(server, result=Exited(code=1))
    assert server.query("select cause, retry, not_before is null from queue") == [("retry", 1, 0)]
    await do(server, Execute(name="a"))
    assert server.query("select cause, retry, not_before is null from queue") == [("executed", 0, 1)]
    await build(server, result=Exited(code=1))
    assert server.query("select cause, retry from queue") == [("retry", 1)]


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


# --- runs that are left out ----------------------------------------------------------------------------------------


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


async def test_an_orb_build_has_the_same_options(client: ScriptedPeer) -> None:
    orb = OrbBuildJob(name="orb", opam_package="retreat.1")
    options = JobOptions(cron=NIGHTLY, retries=2)
    assert await client.request(PlanJob(job=orb, options=options, run_now=True)) == [Success()]
    assert (await shown(client, "orb")).job == orb
    bad = PlanJob(job=OrbBuildJob(name="bad", opam_package="a b"), options=options, run_now=True)
    (failure,) = await client.request(bad)
    assert isinstance(failure, Failure)
    assert "invalid opam package" in failure.message
