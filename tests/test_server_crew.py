"""What a server and its client tell of workers: what they do, what they are, which are away."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import pytest
import trio
from clocks import NOW
from farm import Reachable, Server, eventually, eventually_async, run_client, run_server, running_worker, start_server
from scripted import (
    OUR_WORKER,
    OURS,
    Given,
    ScriptedPeer,
    ask_job,
    connect,
    do,
    schedule,
    take_job,
    waiting_worker,
)

from builder import __version__
from builder.extension.builds import BuildShown, ShowBuild
from builder.extension.crew import MAX_WORKERS, Doing, ListWorkers, WorkerEntry, WorkerPlace, WorkersListed
from builder.extension.halting import Halt, Scope, Target
from builder.extension.watching import Look, Looked, Why
from builder.extension.working import Alive, AskJob, Fact, GiveJob
from builder.messages import Failure, Message
from builder.model import Instant
from builder_server import crew
from builder_server.store import Holder
from builder_server.store.records import known_as

FACTS = (Fact(name="version", value="0.0.1"), Fact(name="load", value="0.50"), Fact(name="sandbox", value="overlay"))
BOX = Target(scope=Scope.WORKER, name="box")


async def listed(server: Reachable, *, count: int = MAX_WORKERS, platform: str | None = None) -> list[WorkerEntry]:
    """Return all workers, by as many pages as it takes."""
    found: list[WorkerEntry] = []
    async with connect(server, OURS) as client:
        while True:
            behind = found[-1].place if found else None
            page, _ = await client.request(ListWorkers(count=count, platform=platform, behind=behind))
            assert isinstance(page, WorkersListed)
            if not page.workers:
                return found
            found += page.workers


async def ask(peer: ScriptedPeer, name: str, platform: str = "p1") -> None:
    await peer.send(AskJob(platform=platform, worker=name, facts=FACTS))


async def client(server: Server, *arguments: str) -> str:
    done = await trio.to_thread.run_sync(lambda: run_client(server, *arguments))
    assert done.returncode == 0, done
    return done.stdout.decode()


async def test_what_is_told_of_workers(tmp_path: Path) -> None:
    async with (
        run_server(tmp_path) as server,
        connect(server, OUR_WORKER) as box,
        connect(server, OUR_WORKER) as other,
        waiting_worker(server, "p2"),
    ):
        await do(server, schedule("a"))
        given = await ask_job(box)
        await ask(other, "other")

        async def all_there() -> bool:
            return len(await listed(server)) == 3

        await eventually_async(all_there)
        first, second, classic = await listed(server)
        assert [(each.place.name, each.place.platform, each.doing) for each in (first, second, classic)] == [
            ("other", "p1", Doing.WAITING),
            ("w", "p1", Doing.BUILDING),
            ("127.0.0.1", "p2", Doing.WAITING),
        ]
        assert first.facts == FACTS
        assert (second.job, second.place.uuid) == ("a", given.uuid)
        assert second.heard
        assert (classic.is_classic, classic.facts, first.is_classic) == (True, (), False)
        assert [each.place for each in await listed(server, count=1)] == [first.place, second.place, classic.place]
        assert [each.place.name for each in await listed(server, platform="p2")] == ["127.0.0.1"]


async def test_the_load_of_a_worker_that_builds(tmp_path: Path) -> None:
    """And it tells nothing that it did not tell when it asked."""
    more = (Fact(name="load", value="9.99"), Fact(name="other", value="x"))
    async with run_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        await do(server, schedule("a"))
        await ask(peer, "box")
        await peer.receive(GiveJob)
        await peer.send(Alive(facts=more))

        async def facts() -> tuple[Fact, ...] | None:
            (entry,) = await listed(server)
            return entry.facts if entry.facts != FACTS else None

        assert await eventually_async(facts) == (FACTS[0], more[0], FACTS[2])


async def test_a_worker_that_tells_too_much_is_not_taken_back(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        await do(server, schedule("a"))
        await ask_job(peer)
        await peer.send(Alive(facts=FACTS[:1] * 2))
        assert await peer.wait_closed() == b""
        await eventually(lambda: server.query("select losses from queue") == [(1,)])


async def test_a_worker_that_is_away_and_comes_back(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"))
        async with connect(server, OUR_WORKER) as peer:
            given = await ask_job(peer)

        async def away() -> Instant | None:
            (entry,) = await listed(server)
            return entry.since if entry.doing is Doing.AWAY else None

        since = await eventually_async(away)
        assert await _told(server, given) == (since, since)
        async with connect(server, OUR_WORKER) as peer:
            await given.come_back(peer)
            assert await away() is None
            assert await _told(server, given) == (None, None)


async def _told(server: Reachable, given: Given) -> tuple[Instant | None, Instant | None]:
    """Return since when the worker is away, as a look and the history tell."""
    async with connect(server, OURS) as peer:
        pages = await peer.request(Look(entries=0, results=0))
        (running,) = (build for page in pages if isinstance(page, Looked) for build in page.running)
        shown, _ = await peer.request(ShowBuild(target=str(given.uuid)))
        assert isinstance(shown, BuildShown)
        return running.away, shown.entry.away


async def test_a_worker_that_the_last_server_left(tmp_path: Path) -> None:
    async with start_server(tmp_path) as server:
        await do(server, schedule("a"))
        async with connect(server, OUR_WORKER) as peer:
            await ask_job(peer)
            server.process.kill()
            await trio.to_thread.run_sync(server.process.wait)
    async with start_server(tmp_path) as server:
        (entry,) = await listed(server)
        assert (entry.place.name, entry.place.platform, entry.job) == ("w", "p1", "a")
        assert entry.doing is Doing.AWAY
        for arguments in (("info",), (), ("workers",)):
            assert re.search(r"away (for|from a)", await client(server, *arguments)), arguments
        assert "running, worker away" in await client(server, "history")
        (build,) = json.loads(await client(server, "info", "--json"))["running"]
        assert build["away_since"]


async def test_a_drained_worker_is_none_that_a_job_waits_for(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server, connect(server, OURS) as peer, connect(server, OUR_WORKER) as box:
        await do(server, schedule("a"))
        await peer.request(Halt(target=BOX))
        await ask(box, "box")

        async def why() -> Why | None:
            pages = [page for page in await peer.request(Look(entries=9, results=0)) if isinstance(page, Looked)]
            (platform,) = (each for page in pages for each in page.platforms)
            (entry,) = (each for page in pages for each in page.queued)
            assert platform.drained == platform.waiting
            return entry.why if platform.waiting else None

        assert await eventually_async(why) is Why.WORKERS_DRAINED
        (worker,) = await listed(server)
        assert worker.is_drained


@pytest.mark.parametrize(
    ("request_", "complaint"),
    [
        (ListWorkers(count=0), "a number of workers must lie between 1 and 100"),
        (ListWorkers(count=101), "a number of workers must lie between 1 and 100"),
        (ListWorkers(count=1, platform="a/b"), "unknown platform a/b"),
        (ListWorkers(count=1, platform="p99"), "unknown platform p99"),
    ],
)
async def test_what_is_refused(tmp_path: Path, request_: Message, complaint: str) -> None:
    async with run_server(tmp_path) as server, connect(server, OURS) as peer:
        assert await peer.request(request_) == [Failure(message=complaint)]


@pytest.mark.parametrize(
    ("peer", "name", "expected"),
    [
        ("127.0.0.1:4711", "box", "box"),
        ("127.0.0.1:4711", None, "127.0.0.1"),
        ("[::1]:4711", None, "::1"),
        ("box.example (127.0.0.1:4711)", None, "box.example"),
        ("unknown", None, "unknown"),
        (None, None, ""),
    ],
)
def test_what_a_worker_is_called(peer: str | None, name: str | None, expected: str) -> None:
    assert known_as(peer, name) == expected


@pytest.mark.parametrize("number", [1, MAX_WORKERS, 2 * MAX_WORKERS + 1, 10_000])
async def test_pages_of_many_workers(number: int) -> None:
    """Those of ten thousand are a page of a few milliseconds, wherever it begins."""
    owners = [
        SimpleNamespace(
            uuid=UUID(int=each),
            platform=f"p{each % 7}",
            worker=Holder(address="127.0.0.1:1", name=f"w{each % 100}", facts=FACTS),
            job=None,
            since=NOW,
            away_since=None,
            attachment=SimpleNamespace(heard=0.0, changed={}),
            is_drained=lambda _halts: False,
        )
        for each in range(number)
    ]
    expected = sorted((each.platform, each.worker.name, each.uuid) for each in owners)
    for start in range(0, number, MAX_WORKERS if number < 1000 else 3333):
        behind = WorkerPlace(**dict(zip(("platform", "name", "uuid"), expected[start - 1], strict=True)))
        asked = ListWorkers(count=MAX_WORKERS, behind=behind if start else None)
        page = crew.page(owners, asked, {}, NOW, "main")  # type: ignore[arg-type]
        found = [(each.place.platform, each.place.name, each.place.uuid) for each in page]
        assert found == expected[start : start + MAX_WORKERS]


# --- the client, and programs of other versions --------------------------------------------------------------------


async def test_the_table_of_workers(tmp_path: Path) -> None:
    async with start_server(tmp_path) as server, connect(server, OUR_WORKER) as box:
        await do(server, schedule("a"))
        assert await client(server, "workers") == "Workers: none is connected\n"
        await ask(box, "box", "p2")
        async with take_job(server):
            await client(server, "drain", "--worker", "box")
            table = (await client(server, "workers")).splitlines()
            assert [re.split(r"  +", line)[:3] for line in table[:4]] == [
                ["Workers"],
                ["WORKER", "PLATFORM", "DOES"],
                ["127.0.0.1", "p1", "builds a"],
                ["box", "p2", "drained"],
            ]
            assert re.search(r"connected +0\.50 +overlay +0\.0\.1 +127\.0\.0\.1:\d+$", table[3])
            assert table[4:] == ["", f"1 worker runs another version than the server, which is {__version__}"]
            lines = (await client(server, "workers", "--json", "--platform", "p2")).splitlines()
            (told,) = map(json.loads, lines)
            assert told["facts"]["sandbox"] == "overlay"
            assert (told["worker"], told["doing"], told["drained"], told["job"]) == ("box", "waiting", True, None)


async def test_a_real_worker_is_told_of_another_release_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder_server.server.__version__", "9.9.9")
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"), schedule("b"))
        with running_worker(server, "p1", "--loop", "--slots", "2", "--sandbox", "none", "--name", "box") as worker:
            await eventually(lambda: server.query("select count(*) from build where state = 'finished'") == [(2,)])

            async def both_wait() -> list[WorkerEntry] | None:
                found = await listed(server)
                return found if len(found) == 2 else None

            found = await eventually_async(both_wait)
            assert found
            assert {fact.name: fact.value for fact in found[0].facts}["version"] == __version__
            said = [line for line in worker.log.splitlines() if "release" in line]
        assert said == [
            f"builder-worker: the server is release 9.9.9, this worker {__version__}: upgrade the older one"
        ]
