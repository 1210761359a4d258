"""builder-client drains and resumes: what it prints, and what everyone sees who looks."""

import json
import re
from pathlib import Path
from uuid import UUID

import pytest
import trio
from clocks import NOW
from farm import Server, eventually, run_client, start_server
from scripted import do, schedule, take_job, waiting_worker

from builder.endpoint import Servers
from builder.extension.halting import SERVER, HaltState
from builder.extension.watching import Looked, RunningState
from builder.history import Cause
from builder_client import completion
from builder_client.screen import Watched, draw

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
PEER = re.compile(r"127\.0\.0\.1:\d+")


def plain(text: bytes) -> str:
    """Return what was printed without what differs each time."""
    return PEER.sub("PEER", TIME.sub("TIME", text.decode()))


async def client(server: Server, *arguments: str, status: int = 0) -> str:
    done = await trio.to_thread.run_sync(lambda: run_client(server, *arguments))
    assert done.returncode == status, done
    return plain(done.stdout + done.stderr)


async def test_everyone_is_told(tmp_path: Path) -> None:
    async with start_server(tmp_path) as server:
        await do(server, schedule("a"), schedule("b", "p2"))
        said = await client(server, "drain", "--platform", "p1", "--reason", "mirror is down", "--for", "2h")
        line = "The platform p1 is drained since TIME by PEER, until TIME: mirror is down"
        assert said == f"{line}; nothing runs\n"
        for command in ("", "info", "queue"):
            found = await client(server, *filter(None, [command]))
            assert f"\n{line}\n" in found, command
        assert re.search(r"1 +a .*drained: mirror is down\n", await client(server, "queue"))
        for command in ("info", "queue"):
            (told,) = json.loads(await client(server, command, "--json"))["drained"]
            assert (told["scope"], told["name"], told["reason"]) == ("platform", "p1", "mirror is down")
        assert await client(server, "resume", "--platform", "p1") == ""
        for command in ("", "info", "queue"):
            assert "drained" not in await client(server, *filter(None, [command]))


def test_the_live_view() -> None:
    halt = HaltState(target=SERVER, since=NOW, by="me", reason="upgrade")
    running = RunningState(
        uuid=UUID(int=1), job="a", platform="p1", started=NOW, cause=Cause.DUE, expected=60_000, away=NOW
    )
    looked = Looked(now=NOW, is_full=False, scheduled=1, running=(running,), halts=(halt,))
    lines = draw(Watched(server="s", looked=looked), NOW, width=120, height=24).renderables
    text = "\n".join(str(line) for line in lines)
    assert "0 queued, 1 running; the server is drained since 2026-11-20T17:13:16Z by me: upgrade" in text
    assert re.search(r"a +p1 +.* of 1 min, worker away", text)


async def test_names_of_workers_are_completed(tmp_path: Path) -> None:
    async with start_server(tmp_path) as server, waiting_worker(server):
        where = Servers.of(server.remote, {})

        def found(source: completion.Source) -> list[str]:
            return completion.complete(where, source, "")

        await eventually(lambda: server.query("select * from platform"))
        assert await trio.to_thread.run_sync(found, completion.workers) == ["127.0.0.1"]
        assert await trio.to_thread.run_sync(found, completion.drained_workers) == []
        await client(server, "drain", "--worker", "box")
        assert await trio.to_thread.run_sync(found, completion.drained_workers) == ["box"]


async def test_a_worker_that_nobody_knows(tmp_path: Path) -> None:
    """It may come later, so it is drained; but somebody may have meant another one."""
    async with start_server(tmp_path) as server, waiting_worker(server):
        await eventually(lambda: server.query("select * from platform"))
        said = await client(server, "drain", "--worker", "bxo-1")
        assert said == "The worker bxo-1 is drained since TIME by PEER; no worker of that name is connected\n"
        said = await client(server, "drain", "--worker", "127.0.0.1")
        assert said == "The worker 127.0.0.1 is drained since TIME by PEER; nothing runs\n"
        assert json.loads(await client(server, "drain", "--json"))["workers"] == 1


async def test_waiting_until_nothing_runs(tmp_path: Path) -> None:
    async with start_server(tmp_path) as server:
        await do(server, schedule("a"))
        async with take_job(server) as taken, trio.open_nursery() as nursery:
            said: list[str] = []

            async def drain() -> None:
                said.append(await client(server, "drain", "--wait"))

            nursery.start_soon(drain)
            while "The server is drained" not in await client(server):
                pass
            await taken.finish()
        assert said == ["The server is drained since TIME by PEER; 1 build still runs\nNothing runs any more.\n"]
        found = json.loads(await client(server, "drain", "--wait", "--json"))
        assert (found["done"], found["running"], found["changed"]) == ("drained", 0, False)


async def test_a_queue_is_paused(tmp_path: Path) -> None:
    async with start_server(tmp_path) as server:
        await do(server, schedule("a"))
        found = json.loads(await client(server, "pause", "--platform", "p1", "--reason", "why", "--json"))
        assert (found["done"], found["scope"], found["name"], found["reason"]) == ("paused", "platform", "p1", "why")
        assert "The platform p1 is drained" in await client(server, "queue")
        found = json.loads(await client(server, "resume", "--platform", "p1", "--json"))
        assert found == {"done": "resumed", "scope": "platform", "name": "p1"}


@pytest.mark.parametrize(
    "drained",
    [("--at", "main", "the server main"), ("--platform", "p1", "the platform p1"), ("--worker", "w", "the worker w")],
)
async def test_what_is_drained_and_resumed_as_if_it_were_a_job(tmp_path: Path, drained: tuple[str, str, str]) -> None:
    option, name, what = drained
    async with start_server(tmp_path) as server:
        await do(server, schedule("a"))
        await client(server, "drain", option, name)
        said = await client(server, "resume", name, status=3)
        assert said == (
            f"builder-client: there is no job {name}; {what} is drained: 'resume {option} {name}' ends that\n"
        )
        assert await client(server, "resume", option, name) == ""
        assert f"unknown job {name}; " in await client(server, "resume", name, status=3)


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (("drain", "--platform", "p1", "--worker", "w"), 2, "name one: a server, a --platform or a --worker"),
        (("drain", "--worker", ""), 2, "invalid name of a worker: it is empty"),
        (("drain", "--reason", "x" * 201), 2, "the characters of a reason must lie between 0 and 200"),
        (("drain", "--for", "soon"), 2, "a duration such as 90s"),
        (("drain", "--platform", "p9"), 3, "unknown platform p9"),
        (("resume",), 3, "the server is not drained"),
        (("resume", "a", "--worker", "w"), 2, "name a job, or what was drained"),
        (("pause",), 2, "name either a job or a --platform"),
        (("pause", "a", "--platform", "p1"), 2, "name either a job or a --platform"),
        (("pause", "a", "--reason", "why"), 2, "--reason and --for are for a --platform"),
    ],
)
async def test_what_is_wrong(tmp_path: Path, arguments: tuple[str, ...], status: int, complaint: str) -> None:
    async with start_server(tmp_path) as server:
        assert complaint in await client(server, *arguments, status=status)
