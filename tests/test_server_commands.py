"""builder-server: every command of a client, with its success and each of its failures, and what the queues hold."""

import logging
from pathlib import Path
from uuid import UUID

import pytest
from clocks import NOW
from farm import LocalServer, eventually
from scripted import (
    CLIENT,
    OURS,
    ask,
    build,
    connect,
    do,
    given_job,
    info,
    queues,
    running,
    schedule,
    script,
    take_job,
    waiting_worker,
)

from builder.extension import Request
from builder.extension.halting import SERVER, Halt
from builder.extension.uploads import ListUploads, UploadPlace, UploadsListed
from builder.messages import (
    DropPlatform,
    Execute,
    Failure,
    Info,
    InfoReply,
    Message,
    Reschedule,
    Schedule,
    ScheduleOrbBuild,
    Success,
    UndropPlatform,
    Unschedule,
)
from builder.model import NEVER, Instant, OrbBuildJob, Period, Queue, ScheduleItem, text
from builder_server.names import KEYS, RESERVED, directory_name

HOUR, DAY, WEEK = 3_600_000, 86_400_000, 604_800_000


def orb(name: str, package: str = "retreat", period: Period = Period.DAILY) -> ScheduleOrbBuild:
    return ScheduleOrbBuild(period=period, job=OrbBuildJob(name=name, opam_package=package))


# --- schedule ------------------------------------------------------------------------------------------------------


async def test_info_of_an_empty_server(server: LocalServer) -> None:
    assert await info(server) == InfoReply(schedule=(), queues=(), running=(), dropped_platforms=())


@pytest.mark.parametrize(
    ("period", "following"),
    [
        (Period.HOURLY, Instant(NOW.ms + HOUR)),
        (Period.DAILY, Instant(NOW.ms + DAY)),
        (Period.WEEKLY, Instant(NOW.ms + WEEK)),
        (Period.NEVER, NEVER),
    ],
)
async def test_a_scheduled_job_is_queued_at_once_and_runs_again_after_its_period(
    server: LocalServer, period: Period, following: Instant
) -> None:
    job = script("hello", "p1", b"\xff\0")
    await do(server, Schedule(period=period, job=job))
    assert await info(server) == InfoReply(
        schedule=(ScheduleItem(next=following, period=period, job=job),),
        queues=(Queue(platform="p1", jobs=(job,)),),
        running=(),
        dropped_platforms=(),
    )


async def test_a_name_is_used_once(server: LocalServer) -> None:
    await do(server, schedule("hello"))
    before = await info(server)
    for again in (schedule("hello"), schedule("hello", "p2"), orb("hello")):
        assert await ask(server, again) == Failure(message="job name already used")
    assert await info(server) == before


async def test_an_orb_build_joins_the_queue_of_every_platform_but_dropped_ones(server: LocalServer) -> None:
    await do(server, schedule("a", "p1"), schedule("b", "p2"), schedule("c", "p3"), DropPlatform(platform="p3"))
    await do(server, orb("orb"))
    assert await queues(server) == {"p1": ["a", "orb"], "p2": ["b", "orb"]}


async def test_an_orb_build_waits_for_the_first_platform(server: LocalServer) -> None:
    await do(server, orb("orb"))
    assert await queues(server) == {}
    async with waiting_worker(server, "p1"):
        await eventually(lambda: server.query("select * from platform"))
        assert await queues(server) == {"p1": ["orb"]}


async def test_a_new_platform_gets_every_job_that_can_run_there(server: LocalServer) -> None:
    await do(server, schedule("other", "p2"), orb("orb1"), orb("orb2"))
    await do(server, schedule("own", "p1"))
    assert await queues(server) == {"p1": ["orb1", "orb2", "own"], "p2": ["other", "orb1", "orb2"]}


async def test_a_worker_creates_the_queue_of_a_platform_that_was_undropped(server: LocalServer) -> None:
    await do(server, schedule("own", "p1"), orb("orb"), DropPlatform(platform="p1"), UndropPlatform(platform="p1"))
    assert await queues(server) == {}
    async with waiting_worker(server, "p1"):
        await eventually(lambda: server.query("select * from platform"))
        assert await queues(server) == {"p1": ["orb"]}


async def test_the_schedule_is_told_soonest_first(server: LocalServer) -> None:
    await do(server, schedule("w", period=Period.WEEKLY), schedule("n", period=Period.NEVER))
    await do(server, schedule("h", period=Period.HOURLY))
    assert [item.job.name for item in (await info(server)).schedule] == ["h", "w", "n"]


# --- unschedule, reschedule ----------------------------------------------------------------------------------------


async def test_unschedule_leaves_schedule_and_queues(server: LocalServer) -> None:
    await do(server, schedule("a", "p1"), schedule("b", "p2"), orb("orb"))
    await do(server, Unschedule(name="orb"), Unschedule(name="a"))
    found = await info(server)
    assert [item.job.name for item in found.schedule] == ["b"]
    assert [(queue.platform, len(queue.jobs)) for queue in found.queues] == [("p1", 0), ("p2", 1)]
    await do(server, orb("a"))  # the name is free again


async def test_an_unscheduled_build_goes_on(server: LocalServer) -> None:
    await do(server, schedule("a"))
    async with take_job(server) as taken:
        await do(server, Unschedule(name="a"))
        assert [build.uuid for build in await running(server)] == [taken.uuid]
        await taken.finish()
    assert server.execution("a", taken.uuid).job == taken.job


@pytest.mark.parametrize("period", [None, *Period])
async def test_reschedule_sets_the_next_run_and_runs_nothing(server: LocalServer, period: Period | None) -> None:
    await do(server, schedule("a", period=Period.WEEKLY))
    await build(server)
    await do(server, Reschedule(name="a", next=Instant(NOW.ms + 250), period=period))
    found = await info(server)
    assert [(item.next.ms - NOW.ms, item.period) for item in found.schedule] == [(250, period or Period.WEEKLY)]
    assert found.queues == (Queue(platform="p1", jobs=()),)


# --- execute -------------------------------------------------------------------------------------------------------


async def test_execute_moves_to_the_front(server: LocalServer) -> None:
    await do(server, *(schedule(name) for name in "abc"))
    await do(server, Execute(name="c"))
    assert await queues(server) == {"p1": ["c", "a", "b"]}
    await do(server, Execute(name="b", platform="p1"))
    assert await queues(server) == {"p1": ["b", "c", "a"]}


async def test_execute_adds_what_is_not_queued(server: LocalServer) -> None:
    await do(server, schedule("a"), schedule("b"))
    await build(server)
    assert await queues(server) == {"p1": ["b"]}
    await do(server, Execute(name="a"), Execute(name="a"))
    assert await queues(server) == {"p1": ["a", "b"]}


async def test_execute_of_a_running_job_queues_it_once_more(server: LocalServer) -> None:
    await do(server, schedule("a"))
    async with take_job(server) as taken:
        await do(server, Execute(name="a"), Execute(name="a"))
        assert await queues(server) == {"p1": ["a"]}
        await taken.finish()
    assert (await build(server))[0] != taken.uuid


async def test_execute_of_an_orb_build(server: LocalServer) -> None:
    await do(server, schedule("a", "p1"), schedule("b", "p2"), orb("orb"))
    await do(server, Execute(name="orb", platform="p2"))
    assert await queues(server) == {"p1": ["a", "orb"], "p2": ["orb", "b"]}
    await do(server, Execute(name="orb"))
    assert await queues(server) == {"p1": ["orb", "a"], "p2": ["orb", "b"]}


# --- platforms -----------------------------------------------------------------------------------------------------


async def test_drop_platform(server: LocalServer) -> None:
    await do(server, schedule("a", "p1"), schedule("b", "p2"), orb("orb"))
    await do(server, DropPlatform(platform="p1"))
    found = await info(server)
    assert sorted(item.job.name for item in found.schedule) == ["b", "orb"]
    assert [queue.platform for queue in found.queues] == ["p2"]
    assert found.dropped_platforms == ("p1",)
    assert await ask(server, schedule("c", "p1")) == Failure(message="platform dropped; can't schedule jobs")
    assert await ask(server, Execute(name="orb", platform="p1")) == Failure(message="execute failed: no such platform")
    assert await ask(server, DropPlatform(platform="p1")) == Failure(message="unknown platform p1")
    await do(server, UndropPlatform(platform="p1"), schedule("c", "p1"))
    assert await queues(server) == {"p1": ["orb", "c"], "p2": ["b", "orb"]}


async def test_the_workers_of_a_dropped_platform_wait(server: LocalServer) -> None:
    async with waiting_worker(server, "p1") as worker:
        await eventually(lambda: server.query("select * from platform"))
        await do(server, orb("orb"), DropPlatform(platform="p1"), schedule("b", "p2"))
        async with waiting_worker(server, "p1"), take_job(server, "p2") as taken:
            await taken.finish()  # others are served meanwhile
        assert worker.channel.connection.next_message() is None
        assert (await info(server)).dropped_platforms == ("p1",)
        await do(server, UndropPlatform(platform="p1"), schedule("a", "p1"))
        assert (await given_job(worker)).job.name == "a"  # orb has no template


async def test_a_dropped_platform_survives_its_running_build(server: LocalServer) -> None:
    await do(server, schedule("a", "p1"))
    async with take_job(server) as taken:
        await do(server, DropPlatform(platform="p1"))
        await taken.finish()
    found = await info(server)
    assert (found.schedule, found.queues, found.running, found.dropped_platforms) == ((), (), (), ("p1",))
    assert server.full("a", taken.uuid).exists()


# --- failures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "failure"),
    [
        (Unschedule(name="x"), "unknown job x"),
        (Reschedule(name="x", next=NOW), "unknown job x"),
        (Execute(name="x"), "execute failed: job not found"),
        (Execute(name="x", platform="p1"), "execute failed: job not found"),
        (Execute(name="a", platform="p2"), "execute failed: job is for a different platform: p1"),
        (Execute(name="a", platform="x"), "execute failed: job is for a different platform: p1"),
        (Execute(name="orb", platform="x"), "execute failed: no such platform"),
        (DropPlatform(platform="x"), "unknown platform x"),
        (UndropPlatform(platform="x"), "unknown platform x"),
        (UndropPlatform(platform="p1"), "unknown platform p1"),
    ],
    ids=str,
)
async def test_failures(server: LocalServer, command: Message, failure: str) -> None:
    await do(server, schedule("a", "p1"), schedule("b", "p2"), orb("orb"))
    before = await info(server)
    assert await ask(server, command) == Failure(message=failure)
    assert await info(server) == before


BAD_NAMES = [
    ("", "it is empty"),
    ("x" * 129, "it has more than 128 characters"),
    ("𐍈" * 129, "it has more than 128 characters"),
    ("a/b", "it contains a slash"),
    ("/etc", "it contains a slash"),
    ("../up", "it contains a slash"),
    (".", "'.' is reserved"),
    ("..", "'..' is reserved"),
    ("a\0b", "it contains a control character"),
    ("a\nb", "it contains a control character"),
    ("a\x1b[2J", "it contains a control character"),
    ("a\x7f", "it contains a control character"),
    ("a\x9b", "it contains a control character"),
    (text(b"a\xff"), "it is not UTF-8"),
    (text(b"\xed\xa0\x80"), "it is not UTF-8"),
    *((name, f"{name!r} is reserved") for name in sorted(RESERVED)),
]
GOOD_NAMES = ["x", "x" * 128, "ü" * 128, "𐍈" * 128, "a b", "-rf", "...", ".hidden", "a\\b", "%s", "états", "日本語"]


def test_the_reserved_names_are_the_servers_files(tmp_path: Path) -> None:
    assert {"state", "state.imported", "lock", "builder.sqlite3"} <= RESERVED
    assert {"builder.sqlite3-wal", "builder.sqlite3-shm", "builder.sqlite3-journal"} <= RESERVED


async def test_bad_names_of_jobs_are_refused(server: LocalServer) -> None:
    for name, reason in BAD_NAMES:
        for command in (schedule(name), orb(name)):
            assert await ask(server, command) == Failure(message=f"invalid job name: {reason}"), ascii(name)
    assert await info(server) == InfoReply(schedule=(), queues=(), running=(), dropped_platforms=())


async def test_bad_names_of_platforms_are_refused(server: LocalServer) -> None:
    for name, reason in BAD_NAMES:
        reply = await ask(server, schedule("hello", name))
        assert reply == Failure(message=f"invalid platform name: {reason}"), ascii(name)
        async with waiting_worker(server, name) as worker:
            assert await worker.wait_closed() == b""
    assert await info(server) == InfoReply(schedule=(), queues=(), running=(), dropped_platforms=())


async def test_bad_packages_are_refused(server: LocalServer) -> None:
    for package in ("", "a/b", "a\nrm -rf /", "x" * 129, ".."):
        reply = await ask(server, orb("orb", package))
        assert isinstance(reply, Failure)
        assert reply.message.startswith("invalid opam package: ")
    assert (await info(server)).schedule == ()


async def test_names_that_can_not_be_are_unknown(server: LocalServer) -> None:
    for name in ("", "..", "a/b", text(b"\xff"), "x" * 60_000):
        cut = f"unknown job {name}"[:1000]
        assert await ask(server, Unschedule(name=name)) == Failure(message=cut)
        assert await ask(server, Reschedule(name=name, next=NOW)) == Failure(message=cut)
        assert await ask(server, Execute(name=name)) == Failure(message="execute failed: job not found")
        cut = f"unknown platform {name}"[:1000]
        assert await ask(server, DropPlatform(platform=name)) == Failure(message=cut)
        assert await ask(server, UndropPlatform(platform=name)) == Failure(message=cut)


@pytest.mark.databases
@pytest.mark.parametrize(
    "request_",
    [
        ListUploads(count=1, behind=UploadPlace(since=NOW, uuid=UUID(int=0), receiver="\udcff")),
        Halt(target=SERVER, reason="\udcff"),
    ],
)
async def test_what_no_database_takes_is_refused(
    server: LocalServer, request_: Request, caplog: pytest.LogCaptureFixture
) -> None:
    async with connect(server, OURS) as peer:
        assert await peer.request(request_) == [Failure(message="what is asked for has a text that is not UTF-8")]
        assert await peer.request(ListUploads(count=1)) == [UploadsListed(uploads=()), Success()]
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_good_names_are_used_to_the_end(server: LocalServer) -> None:
    for name in GOOD_NAMES:
        await do(server, schedule(name, name))
        uuid, job = await build(server, name)
        assert server.execution(name, uuid).job == job
    assert [queue.platform for queue in (await info(server)).queues] == sorted(GOOD_NAMES)
    found = {path.name for path in server.data_dir.iterdir() if path.is_dir()}
    assert found - {KEYS} == {directory_name(name) for name in GOOD_NAMES}
    for name in GOOD_NAMES:
        await do(server, Unschedule(name=name), DropPlatform(platform=name), UndropPlatform(platform=name))


async def test_a_success_is_only_said_to_one_command_a_connection(server: LocalServer) -> None:
    async with connect(server, CLIENT) as peer:
        await peer.send(schedule("a"))
        await peer.receive(Success)
        assert await peer.wait_closed() == b""
    async with connect(server, CLIENT) as peer:
        await peer.send(Info())
        await peer.receive(InfoReply)
        await peer.receive(Success)
        assert await peer.wait_closed() == b""
