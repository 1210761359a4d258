"""The limits of a server, each at its edge."""

from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from uuid import UUID

import pytest
from authorities import Authority
from click.testing import CliRunner
from clocks import Clock
from farm import LocalServer, eventually, log_lines, run_server
from scripted import OUR_WORKER, OURS, ask, ask_job, build, connect, do, schedule, take_job
from stores import opened
from test_server_config import invoke, settings  # noqa: F401 - a fixture
from trio.testing import MockClock, wait_all_tasks_blocked
from visitors import shown

from builder import codec
from builder.execution import ArtifactsStart, FinishedReader
from builder.extension.applying import Apply
from builder.extension.schedule import PlanJob, ShowJob
from builder.extension.working import Continue
from builder.messages import Execute, Failure, JobFinished, Unschedule
from builder.model import Artifact, Exited, Instant, Period, ScriptJob
from builder.planning import JobOptions
from builder.roles import HolderRole
from builder_server import cli
from builder_server.console import CUT
from builder_server.limits import DEFAULTS, ServerLimits
from builder_server.server import Settings

# --- options -------------------------------------------------------------------------------------------------------


def test_every_limit_is_an_option(settings: list[Settings], tmp_path: Path) -> None:  # noqa: F811 - the fixture
    assert invoke(settings).limits == DEFAULTS
    path = tmp_path / "server.toml"
    path.write_text('max-jobs = 7\nmax-console = "2M"\n')
    found = invoke(settings, f"--config={path}", "--max-attempts=8", MAX_ARTIFACT_BYTES="1G")
    assert found.limits == ServerLimits(jobs=7, console=2 * 2**20, attempts=8, artifact_bytes=2**30)


@pytest.mark.parametrize("given", ["--max-jobs=0", "--max-console=0", "--max-console=x", "--max-connections=-1"])
def test_no_limit_is_nothing(given: str) -> None:
    result = CliRunner().invoke(cli.command, [given])
    assert result.exit_code == 2
    assert given.partition("=")[0] in result.output


# --- a build -------------------------------------------------------------------------------------------------------


async def test_a_console_is_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """At its limit, and only if there is more; the build goes on and its result counts."""
    caplog.set_level("INFO")
    async with run_server(tmp_path, limits=ServerLimits(console=1)) as server:
        await do(server, schedule("a"), schedule("b", "p2"))
        uuid, _ = await build(server, lines=[b"one"], artifacts=[Artifact(path="x", content=b"1")])
        record = server.execution("a", uuid)
        assert [line.line for line in record.console] == [b"one"]
        async with take_job(server, "p2") as taken:
            await taken.say(b"one")
            await eventually(lambda: server.query("select 1") and _size(server, "b", taken.uuid))
            await taken.say(b"two", b"three")
            await taken.say(b"four")
            await taken.finish(Exited(code=3), [Artifact(path="x", content=b"1")])
        record = server.execution("b", taken.uuid)
        assert [line.line for line in record.console] == [b"one", CUT + b"1 byte: the build goes on"]
        assert (record.result, len(record.artifacts)) == (Exited(code=3), 1)
        assert len(log_lines(caplog.text, "its console is cut at 1 byte")) == 1


async def test_a_console_is_cut_once_whatever_restarts(tmp_path: Path) -> None:
    """By the server that gets the first line too many, which need not be the one that got the last that fits."""
    limits = ServerLimits(console=1)
    async with run_server(tmp_path, limits=limits) as server:
        await do(server, schedule("a"))
        async with connect(server, OUR_WORKER) as peer:
            given = await ask_job(peer)
            await given.say(peer, 0, 1)
            await eventually(lambda: _size(server, "a", given.uuid))
    for begin in (1, 2):
        async with run_server(tmp_path, limits=limits) as server, connect(server, OUR_WORKER) as peer:
            assert await given.come_back(peer) == Continue(lines=begin)
            await given.say(peer, begin, 5)
            if begin == 1:
                size = _size(server, "a", given.uuid)
                await eventually(partial(_is_of_size, server, "a", given.uuid, size + 1))
            else:
                await given.finish(peer)
    lines = [line.line for line in server.execution("a", given.uuid).console]
    assert lines == [b"line 0", CUT + b"1 byte: the build goes on"]


@pytest.mark.parametrize(("room", "kept"), [(0, 1), (1, 2)])
async def test_a_console_is_cut_when_it_has_so_many_bytes(
    tmp_path: Path, mock_clock: MockClock, room: int, kept: int
) -> None:
    """The lines come one by one, and each is as large as the one before: so are their times, from 2.2 s to 549 s."""
    mock_clock.rate = 1
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    async with run_server(tmp_path / "first") as server:
        await do(server, schedule("a"))
        async with take_job(server) as taken:
            mock_clock.jump(3)
            await taken.say(b"line")
            size = await eventually(partial(_size, server, "a", taken.uuid))
    async with run_server(tmp_path / "second", limits=ServerLimits(console=size + room)) as server:
        await do(server, schedule("a"))
        async with take_job(server) as taken:
            mock_clock.jump(3)
            for number in range(1, kept + 1):
                await taken.say(b"line")
                await eventually(partial(_is_of_size, server, "a", taken.uuid, number * size))
            await taken.say(b"line")
            await taken.finish()
        lines = [line.line for line in server.execution("a", taken.uuid).console]
        assert lines[:-1] == [b"line"] * kept
        assert lines[-1].startswith(CUT)


def _is_of_size(server: LocalServer, name: str, uuid: UUID, size: int) -> bool:
    return _size(server, name, uuid) >= size


def _size(server: LocalServer, name: str, uuid: UUID) -> int:
    path = server.full(name, uuid).with_name("console")
    return path.stat().st_size if path.exists() else 0


async def test_what_was_cut_is_not_sent_again(tmp_path: Path) -> None:
    async with run_server(tmp_path, limits=ServerLimits(console=1)) as server:
        await do(server, schedule("a"))
        async with connect(server, OUR_WORKER) as peer:
            given = await ask_job(peer)
            await given.say(peer, 0, 1)
            await eventually(lambda: _size(server, "a", given.uuid))
            await given.say(peer, 1, 10)
            size = _size(server, "a", given.uuid)
            await eventually(lambda: _size(server, "a", given.uuid) > size)
        async with connect(server, OUR_WORKER) as peer:
            assert await given.come_back(peer) == Continue(lines=10)
            await given.say(peer, 10, 11)
            await given.finish(peer)
        assert len(server.execution("a", given.uuid).console) == 2


def files(count: int) -> tuple[Artifact, ...]:
    return tuple(Artifact(path=f"x{number}", content=bytes(60)) for number in range(count))


def _length(artifacts: tuple[Artifact, ...]) -> int:
    body = codec.encode(JobFinished(uuid=UUID(int=1), result=Exited(code=0), artifacts=artifacts))
    (length,) = (found.length for found in FinishedReader().feed(body) if isinstance(found, ArtifactsStart))
    return length


LENGTH = _length(files(2))
"""The bytes of two artifacts, with what says how long they are and what they are called."""


@pytest.mark.parametrize(
    ("limits", "artifacts", "reason"),
    [
        (ServerLimits(artifacts=2), 2, None),
        (ServerLimits(artifacts=2), 3, "more than 2 artifacts"),
        (ServerLimits(artifact_bytes=LENGTH), 2, None),
        (ServerLimits(artifact_bytes=LENGTH - 1), 2, f"more than {LENGTH - 1} bytes of artifacts"),
    ],
)
async def test_artifacts_of_a_build(limits: ServerLimits, artifacts: int, reason: str | None, tmp_path: Path) -> None:
    async with run_server(tmp_path, limits=limits) as server:
        await do(server, schedule("a"))
        async with take_job(server) as taken:
            await taken.send_result(artifacts=files(artifacts))
            await eventually(server.full("a", taken.uuid).exists)
        result = server.execution("a", taken.uuid).result
        assert result == Exited(code=0) if reason is None else reason in str(result)


# --- jobs ----------------------------------------------------------------------------------------------------------


async def test_jobs_of_a_schedule(tmp_path: Path) -> None:
    full = "there are 2 jobs already: unschedule one, or raise --max-jobs of the server"
    async with run_server(tmp_path, limits=ServerLimits(jobs=2)) as server:
        await do(server, schedule("a"), schedule("b"))
        assert await ask(server, schedule("c")) == Failure(message=full)
        async with connect(server, OURS) as client:
            job = ScriptJob(name="c", platform="p1", script=b"")
            plan = PlanJob(job=job, options=JobOptions(period=Period.DAILY), run_now=False)
            assert await client.request(plan) == [Failure(message=full)]
            request = Apply(added=(plan,), changed=(), removed=())
            assert await client.request(request) == [Failure(message=full)]
            assert isinstance((await client.request(ShowJob(name="c")))[-1], Failure)
        await do(server, Unschedule(name="a"), schedule("c"))


async def test_entries_of_a_queue(tmp_path: Path) -> None:
    """What is in there may be asked for again."""
    full = "there are 2 entries in the queue of p1 already: dequeue one, or raise --max-queue of the server"
    async with run_server(tmp_path, limits=ServerLimits(queue=2)) as server:
        await do(server, schedule("a"), schedule("b"), schedule("c", "p2"))
        assert await ask(server, schedule("d")) == Failure(message=full)
        await do(server, Execute(name="a"))
        async with connect(server, OURS) as client:
            job = ScriptJob(name="e", platform="p1", script=b"")
            for run_now, is_refused in ((True, True), (False, False)):
                plan = PlanJob(job=job, options=JobOptions(period=Period.DAILY), run_now=run_now)
                request = Apply(added=(plan,), changed=(), removed=())
                assert (await client.request(request) == [Failure(message=full)]) is is_refused
        assert await ask(server, Execute(name="e")) == Failure(message=full)
        await build(server)
        await do(server, Execute(name="e"))


async def test_what_is_due_finds_room_in_a_full_queue(tmp_path: Path, clock: Clock) -> None:
    async with opened(tmp_path) as store:
        store.limits = ServerLimits(queue=1)
        for name in ("a", "b"):
            job = ScriptJob(name=name, platform="p1", script=b"")
            await store.plan(job, JobOptions(period=Period.HOURLY), clock.now, run_now=name == "a")
        await store.queue_due(Instant(clock.now.ms + 3_600_000))
        (load,) = await store.load(Instant(clock.now.ms + 3_600_000))
        assert load.ready == 2


async def test_attempts_at_one_job_in_a_minute(tmp_path: Path, clock: Clock) -> None:
    """The third one waits until the first is a minute ago; another job does not wait for it."""
    async with run_server(tmp_path, now=clock, limits=ServerLimits(attempts=2)) as server:
        await do(server, schedule("a"))
        for _ in range(2):
            await build(server)
            await do(server, Execute(name="a"))
            clock.now = Instant(clock.now.ms + 1000)
        await do(server, schedule("b"))
        _, job = await build(server)
        assert job.name == "b"
        ((not_before,),) = server.query("select not_before from queue")
        assert not_before == clock.now.ms - 2000 + 60_000


async def test_who_has_waited_a_minute_goes_on(tmp_path: Path, clock: Clock) -> None:
    async with opened(tmp_path) as store:
        store.limits = ServerLimits(attempts=1)
        job = ScriptJob(name="a", platform="p1", script=b"")
        await store.schedule(job, Period.NEVER, clock.now)
        first = (await store.take("p1", UUID(int=1), clock.now, None)).build
        assert first
        await store.finish(first.uuid, clock.now, Exited(code=0))
        await store.execute("a", None, clock.now, "me")
        assert (await store.take("p1", UUID(int=2), clock.now, None)).build is None
        due = await store.queue_due(Instant(clock.now.ms + 59_999))
        assert (await store.take("p1", UUID(int=2), Instant(clock.now.ms + 59_999), None)).build is None
        assert due.next_run == Instant(clock.now.ms + 60_000)
        await store.queue_due(Instant(clock.now.ms + 60_000))
        assert (await store.take("p1", UUID(int=2), Instant(clock.now.ms + 60_000), None)).build


# --- connections ---------------------------------------------------------------------------------------------------


async def test_the_time_of_a_handshake(tmp_path: Path, mock_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    mock_clock.rate = 1  # the test's own deadlines are real
    tls = Authority(tmp_path / "ca").server().files
    async with run_server(tmp_path, tls=tls, limits=ServerLimits(handshake=1000)) as server, connect(server) as peer:
        await wait_all_tasks_blocked(0.05)
        mock_clock.jump(990)
        await wait_all_tasks_blocked(0.01)
        assert "not let in" not in caplog.text
        mock_clock.jump(20)
        assert await peer.wait_closed() == b""
        assert await eventually(lambda: log_lines(caplog.text, "not let in: it was silent for too long"))


async def test_connections_of_one_holder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority = Authority(tmp_path / "ca")
    alice, bob = (authority.issue(name, uris=[HolderRole.OPERATOR.uri]) for name in ("alice", "bob"))
    tls = authority.server().files
    limits = ServerLimits(connections_per_holder=2)
    async with run_server(tmp_path, tls=tls, limits=limits) as server, AsyncExitStack() as guests:
        first = await guests.enter_async_context(shown(server, alice, OURS))
        await guests.enter_async_context(shown(server, alice, OURS))
        async with shown(server, alice) as third:
            assert await third.wait_closed() == b""
        assert log_lines(caplog.text, "not let in: alice has 2 connections already")
        await guests.enter_async_context(shown(server, bob, OURS))
        await first.stream.aclose()
        await wait_all_tasks_blocked(0.01)
        await guests.enter_async_context(shown(server, alice, OURS))
