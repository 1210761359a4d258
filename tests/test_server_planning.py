"""builder-server: what our own protocol says of the schedule, what comes of it, and what classic peers see of that."""

import threading
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio
from clocks import NOW, Clock
from farm import DEADLINE, LocalServer, eventually
from plans import plan, schedule_and_build_other, shown
from scripted import CLIENT, OURS, ScriptedPeer, ask, connect, do, info, queues, schedule, script, take_job

from builder import codec
from builder.extension import VERSION
from builder.extension.applying import Apply
from builder.extension.schedule import ChangeJob, JobShown, NextRuns, PlanJob, RunsShown, ShowJob
from builder.framing import frame
from builder.messages import Execute, Failure, Hello, Message, Role, Success, Unschedule
from builder.model import Instant, OrbBuildJob, Period
from builder.planning import Cron, JobOptions, JobReference
from builder_server.requests import applying
from builder_server.requests import schedule as requests_schedule
from builder_server.requests.schedule import check_plan, next_runs
from builder_server.server import MAX_THREADS
from builder_server.store import PlannedJob
from builder_server.store import schedule as store_schedule

NIGHTLY = Cron(rule="17 3 * * mon-fri", zone="Europe/Copenhagen")


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

    def noting(*arguments: Any, **options: Any) -> list[int]:
        monkeypatch.setattr(JobOptions, "rule", lambda *_: writing.append("a rule"))
        ids = add(*arguments, **options)
        monkeypatch.undo()
        return ids

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


async def test_an_orb_build_has_the_same_options(client: ScriptedPeer) -> None:
    orb = OrbBuildJob(name="orb", opam_package="retreat.1")
    options = JobOptions(cron=NIGHTLY, retries=2)
    assert await client.request(PlanJob(job=orb, options=options, run_now=True)) == [Success()]
    assert (await shown(client, "orb")).job == orb
    bad = PlanJob(job=OrbBuildJob(name="bad", opam_package="a b"), options=options, run_now=True)
    (failure,) = await client.request(bad)
    assert isinstance(failure, Failure)
    assert "invalid opam package" in failure.message
