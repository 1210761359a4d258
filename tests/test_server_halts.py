"""What is drained gets no job: the store by itself, real servers with workers of both protocols, restarts and races."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import trio
from attrs import evolve
from clocks import NOW, Clock
from farm import Reachable, eventually, run_server, start_server
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripted import (
    OUR_WORKER,
    OURS,
    Given,
    ScriptedPeer,
    connect,
    do,
    given_job,
    schedule,
    take_job,
    waiting_worker,
)
from stores import expand, opened, script

from builder.extension.halting import (
    MAX_REASON,
    SERVER,
    AwaitIdle,
    Halt,
    Halted,
    LiftHalt,
    Scope,
    StillRunning,
    Target,
)
from builder.extension.watching import Look, Looked, Why
from builder.extension.working import AskJob, GiveJob
from builder.messages import DropPlatform, Failure, Message, Success
from builder.model import Instant, Period
from builder_server.errors import CommandRefused
from builder_server.store import Holder, ServerIdentity
from builder_server.store.waking import targets_of

P1 = Target(scope=Scope.PLATFORM, name="p1")
BOX = Target(scope=Scope.WORKER, name="box")
HERE = Target(scope=Scope.WORKER, name="127.0.0.1")
ALL = (SERVER, P1, BOX, HERE)
B = Target(scope=Scope.SERVER, name="b")


async def ask(server: Reachable, request: Message) -> list[Message]:
    async with connect(server, OURS) as peer:
        return await peer.request(request)


async def drain(server: Reachable, target: Target, **more: object) -> Halted:
    halted, success = await ask(server, Halt(target=target, **more))  # type: ignore[arg-type]
    assert success == Success()
    assert isinstance(halted, Halted)
    return halted


async def resume(server: Reachable, target: Target) -> None:
    assert await ask(server, LiftHalt(target=target)) == [Success()]


async def looked(server: Reachable) -> Looked:
    """Return the queues, and what is drained."""
    pages = [page for page in await ask(server, Look(entries=9, results=0)) if isinstance(page, Looked)]
    queued, halts = (tuple(each for page in pages for each in getattr(page, name)) for name in ("queued", "halts"))
    return evolve(pages[0], queued=queued, halts=halts)


@asynccontextmanager
async def asking(server: Reachable, name: str = "box", platform: str = "p1") -> AsyncIterator[ScriptedPeer]:
    async with connect(server, OUR_WORKER) as peer:
        await peer.send(AskJob(platform=platform, worker=name))
        yield peer


async def nothing_comes(peer: ScriptedPeer) -> None:
    """See that a worker gets nothing, however much time it is given; a clock that jumps makes that short."""
    with trio.move_on_after(0.2) as waiting:
        await peer.channel.receive()
    assert waiting.cancelled_caught


# --- the store -----------------------------------------------------------------------------------------------------

TARGETS = st.sampled_from([*ALL, Target(scope=Scope.PLATFORM, name="p2"), Target(scope=Scope.WORKER, name="other")])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("halt"), TARGETS, st.none() | st.integers(1, 3)),
        st.tuples(st.just("resume"), TARGETS, st.none()),
        st.tuples(st.just("tick"), st.none(), st.none()),
        st.tuples(st.just("take"), st.sampled_from(["box", "other", ""]), st.sampled_from([1, 2])),
        st.tuples(st.just("reopen"), st.none(), st.none()),
    ),
    max_size=30,
)


@given(STEPS)
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_store_does_what_a_few_lines_say(
    tmp_path_factory: pytest.TempPathFactory, steps: Sequence[tuple[str, object, int | None]]
) -> None:
    trio.run(_play, tmp_path_factory.mktemp("store"), steps)


async def _play(path: Path, steps: Sequence[tuple[str, object, int | None]]) -> None:
    now, halted = NOW, dict[Target, Instant | None]()
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(opened(path))
        for platform in ("p1", "p2"):
            async with trio.open_nursery() as together:
                for serial in range(len(steps) + 1):
                    job = script(f"{platform}-{serial}", platform)
                    together.start_soon(store.schedule, job, Period.NEVER, NOW)
            await store.take(platform, uuid4(), NOW, expand)
        for kind, what, number in steps:
            now = Instant(now.ms + 1000)
            match kind, what:
                case "halt", Target():
                    until = None if number is None else Instant(now.ms + 1000 * number)
                    _, is_new = await store.halt(what, now, "me", None, until)
                    assert is_new == (what not in halted)
                    halted[what] = until or halted.get(what)
                case "resume", Target():
                    if what in halted:
                        await store.resume(what)
                        del halted[what]
                    else:
                        with pytest.raises(CommandRefused, match="is not drained"):
                            await store.resume(what)
                case "tick", _:
                    due = await store.queue_due(now)
                    halted = {each: until for each, until in halted.items() if until is None or until > now}
                    next_end = min((until for until in halted.values() if until), default=None)
                    assert next_end is None or (due.next_run is not None and due.next_run <= next_end)
                case "take", str():
                    platform = f"p{number}"
                    holder = Holder(address="127.0.0.1:7", name=what or None)
                    taken = await store.take(platform, uuid4(), now, expand, holder)
                    is_halted = bool(halted.keys() & {*targets_of(store.owner, platform, what or "127.0.0.1")})
                    assert (taken.is_halted, taken.build is None) == (is_halted, is_halted)
                case "reopen", _:
                    await stack.aclose()
                    store = await stack.enter_async_context(opened(path))
                    await store.recall_halts()
            assert store.waking.halts.keys() == halted.keys()
            assert {each: state.until for each, state in store.waking.halts.items()} == halted


@pytest.mark.databases
async def test_what_is_drained_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder_server.store.halts.MAX_HALTS", 3)
    async with opened(tmp_path) as store:
        for number in range(3):
            await store.halt(Target(scope=Scope.WORKER, name=f"w{number}"), NOW, "me", None, None)
        with pytest.raises(CommandRefused, match="3 workers and platforms are drained already"):
            await store.halt(SERVER, NOW, "me", None, None)
        await store.halt(Target(scope=Scope.WORKER, name="w0"), NOW, "me", "another reason", None)


@pytest.mark.databases
async def test_another_reason(tmp_path: Path) -> None:
    """Whoever drains what is drained already takes nothing away from it."""
    later = Instant(NOW.ms + 5)
    async with opened(tmp_path) as store:
        first, _ = await store.halt(SERVER, NOW, "me", "why", later)
        assert await store.halt(SERVER, later, "you", None, None) == (first, False)
        second, is_new = await store.halt(SERVER, later, "you", "because", None)
        assert not is_new
        assert (second.since, second.by, second.reason, second.until) == (NOW, "you", "because", later)


async def test_what_is_drained_while_it_is_read_what_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path) as store:
        read = store.database.read

        async def overtaken(step: Any) -> Any:
            found = await read(step)
            if not found:
                await store.halt(SERVER, NOW, "me", None, None)
            return found

        monkeypatch.setattr(store.database, "read", overtaken)
        await store.recall_halts()
        assert store.waking.halts.keys() == {SERVER}


@pytest.mark.databases
async def test_a_server_by_itself(tmp_path: Path) -> None:
    """Its workers get no job, those of the others do; it may be gone by the time it is resumed."""
    async with opened(tmp_path) as store:
        await store.register(ServerIdentity(name="b", incarnation=uuid4(), version="1", token="t"))
        await store.schedule(script("a", "p1"), Period.NEVER, NOW)
        with pytest.raises(CommandRefused, match=r"^unknown server c$"):
            await store.halt(Target(scope=Scope.SERVER, name="c"), NOW, "me", None, None)
        _, is_new = await store.halt(B, NOW, "me", "a new kernel", None)
        assert is_new
        assert (await store.take("p1", uuid4(), NOW, expand)).is_halted
        assert store.waking.is_halted("b", "p1", "box")
        assert not store.waking.is_halted("a", "p1", "box")
        store.owner = "a"
        taken = await store.take("p1", uuid4(), NOW, expand)
        assert taken.build
        assert await store.count_running(B) == 0
        assert await store.count_running(Target(scope=Scope.SERVER, name="a")) == 1
        assert await store.count_running(SERVER) == 1
        await store.resume(B)
        assert not store.waking.halts


# --- workers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [SERVER, P1, BOX], ids=str)
async def test_builds_go_on_and_none_begins(tmp_path: Path, target: Target) -> None:
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"), schedule("b"))
        async with asking(server) as peer:
            given = await peer.receive(GiveJob)
            halted = await drain(server, target, reason="new disk")
            assert (halted.run, halted.is_new) == (1, True)
            assert not (await drain(server, target)).is_new
            await Given(uuid=given.uuid, job=given.job, secret=given.secret).finish(peer)
            await peer.send(AskJob(platform="p1", worker="box"))
            await nothing_comes(peer)
            await resume(server, target)
            assert (await peer.receive(GiveJob)).job.name == "b"


@pytest.mark.parametrize("target", [SERVER, P1, HERE], ids=str)
async def test_a_classic_worker_waits_as_if_there_was_nothing_to_do(tmp_path: Path, target: Target) -> None:
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"))
        async with take_job(server) as taken:
            await drain(server, target)
            await taken.finish()
        await do(server, schedule("b"))
        async with waiting_worker(server) as peer:
            await nothing_comes(peer)
            await resume(server, target)
            assert (await given_job(peer)).job.name == "b"


async def test_a_drained_worker_keeps_no_job_from_others(tmp_path: Path) -> None:
    """Also if it has waited for longest."""
    async with run_server(tmp_path) as server, asking(server) as first:
        await eventually(lambda: server.query("select * from platform"))
        async with asking(server, "other") as second:
            await drain(server, BOX)
            await do(server, schedule("a"))
            assert (await second.receive(GiveJob)).job.name == "a"
            await do(server, schedule("b"))
            await nothing_comes(first)
            await resume(server, BOX)
            assert (await first.receive(GiveJob)).job.name == "b"


async def test_other_platforms_and_workers_get_jobs(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"), schedule("b", "p2"))
        await drain(server, P1)
        await drain(server, BOX)
        async with asking(server, "other", "p2") as peer:
            await peer.receive(GiveJob)


async def test_it_stays_so_when_the_server_is_started_again(tmp_path: Path) -> None:
    async with start_server(tmp_path) as server:
        await do(server, schedule("a"), schedule("b", "p2"))
        for target in (P1, BOX):
            await drain(server, target, reason="new disk")
    async with start_server(tmp_path) as server:
        assert [(each.target, each.reason) for each in (await looked(server)).halts] == [
            (P1, "new disk"),
            (BOX, "new disk"),
        ]
        async with asking(server, "other") as peer, asking(server, "box", "p2") as box:
            await nothing_comes(peer)
            await nothing_comes(box)
            await resume(server, P1)
            await resume(server, BOX)
            assert (await peer.receive(GiveJob)).job.name == "a"
            assert (await box.receive(GiveJob)).job.name == "b"


async def test_it_ends_by_itself(tmp_path: Path) -> None:
    clock = Clock()
    async with run_server(tmp_path, now=clock) as server:
        await do(server, schedule("a"))
        halted = await drain(server, SERVER, duration=7_200_000)
        assert halted.halt.until == Instant(clock.now.ms + 7_200_000)
        async with asking(server) as peer:
            await nothing_comes(peer)
            clock.now = Instant(clock.now.ms + 7_200_000)
            await drain(server, P1, duration=1000)  # which has the ticker look
            await resume(server, P1)
            assert (await peer.receive(GiveJob)).job.name == "a"


@pytest.mark.parametrize("late", range(5))
async def test_what_is_drained_gets_no_job_once_that_is_acknowledged(tmp_path: Path, late: int) -> None:
    """However many workers ask meanwhile: each has been given its job before, or gets none."""
    async with run_server(tmp_path) as server, AsyncExitStack() as stack:
        await do(server, *(schedule(f"job-{number}") for number in range(20)))
        given: list[str] = []

        async def work(name: str) -> None:
            async with asking(server, name) as peer:
                await peer.receive(GiveJob)
                given.append(name)
                await trio.sleep_forever()

        nursery = await stack.enter_async_context(trio.open_nursery())
        for number in range(20):
            nursery.start_soon(work, f"w{number}")
        for _ in range(3 * late):
            await trio.sleep(0.001)
        halted = await drain(server, SERVER)
        taken = len(server.query("select 1 from build"))
        assert halted.run == taken
        await eventually(lambda: len(given) == taken)
        with trio.move_on_after(0.1):
            await trio.sleep_forever()
        assert len(given) == len(server.query("select 1 from build")) == taken
        await resume(server, SERVER)
        await eventually(lambda: len(given) == 20)
        nursery.cancel_scope.cancel()


# --- waiting for the end -------------------------------------------------------------------------------------------


async def test_waiting_until_nothing_runs(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"), schedule("b"), schedule("c", "p2"))
        async with take_job(server) as one, take_job(server) as other, take_job(server, "p2"):
            assert (await drain(server, P1)).run == 2
            async with connect(server, OURS) as client:
                await client.send(AwaitIdle(target=P1))
                assert await client.receive(StillRunning) == StillRunning(count=2)
                await one.finish()
                assert await client.receive(StillRunning) == StillRunning(count=1)
                await other.finish()
                assert await client.receive(Success) == Success()
            assert await ask(server, AwaitIdle(target=P1)) == [Success()]


async def test_waiting_ends_where_it_is_resumed(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"))
        assert await ask(server, AwaitIdle(target=SERVER)) == [Failure(message="the server is not drained")]
        async with take_job(server):
            await drain(server, SERVER)
            async with connect(server, OURS) as client:
                await client.send(AwaitIdle(target=SERVER))
                await client.receive(StillRunning)
                await resume(server, SERVER)
                assert await client.receive(Failure) == Failure(message="the server is not drained")


# --- what is told --------------------------------------------------------------------------------------------------


async def test_why_an_entry_waits(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"), schedule("b", "p2"))
        async with waiting_worker(server, "p3"):
            await eventually(lambda: len(server.query("select * from platform")) == 3)
        await drain(server, P1, reason="mirror is down")
        found = await looked(server)
        assert {entry.job: entry.why for entry in found.queued} == {"a": Why.DRAINED, "b": Why.NO_WORKER}
        await drain(server, SERVER)
        assert {entry.why for entry in (await looked(server)).queued} == {Why.DRAINED}


@pytest.mark.parametrize(
    ("request_", "complaint"),
    [
        (Halt(target=Target(scope=Scope.PLATFORM, name="p9")), "unknown platform p9"),
        (Halt(target=Target(scope=Scope.WORKER)), "invalid name of a worker: it is empty"),
        (Halt(target=Target(scope=Scope.SERVER, name="x")), "unknown server x"),
        (
            Halt(target=SERVER, reason="x" * (MAX_REASON + 1)),
            "the characters of a reason must lie between 0 and 200",
        ),
        (Halt(target=SERVER, duration=0), "the milliseconds of a duration must lie between 1 and 2592000000"),
        (LiftHalt(target=SERVER), "the server is not drained"),
        (LiftHalt(target=P1), "the platform p1 is not drained"),
        (LiftHalt(target=BOX), "the worker box is not drained"),
    ],
)
async def test_what_is_refused(tmp_path: Path, request_: Message, complaint: str) -> None:
    async with run_server(tmp_path) as server:
        assert await ask(server, request_) == [Failure(message=complaint)]


async def test_a_dropped_platform_is_none_to_be_drained(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"))
        await drain(server, P1)
        await do(server, DropPlatform(platform="p1"))
        assert await ask(server, Halt(target=P1)) == [Failure(message="unknown platform p1")]
        await resume(server, P1)
