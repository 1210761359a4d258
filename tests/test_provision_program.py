"""builder-provision as a program: a real server, real workers, and an engine of scripts."""

import contextlib
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import forked
import pytest
import trio
from farm import (
    DEADLINE,
    Server,
    environment,
    eventually,
    eventually_async,
    free_port,
    log_lines,
    run_client,
    running_server,
    start_server,
)
from provisioning import Scripts, hurry, platform, provisioning, running_provision
from scripted import OURS, connect, do, schedule

from builder.extension.halting import Halt, LiftHalt, Scope, Target
from builder.extension.schedule import PlanJob
from builder.messages import Success, Unschedule
from builder.model import Period, ScriptJob
from builder.needs import of_text
from builder.planning import JobOptions


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Scripts]:
    scripts = Scripts.make(tmp_path / "engine")
    yield scripts
    scripts.end()


async def plan(server: Server, name: str, needs: str = "", text: bytes = b"#!/bin/sh\n") -> None:
    """Schedule a job that needs something, and have it wait."""
    async with connect(server, OURS) as client:
        job = ScriptJob(name=name, platform="p1", script=text)
        options = JobOptions(period=Period.WEEKLY, needs=of_text(needs))
        assert (await client.request(PlanJob(job=job, options=options, run_now=True)))[-1] == Success()


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


async def ended(server: Server, count: int) -> None:
    """Wait until so many builds have ended."""
    await eventually(lambda: server.query("select count(*) from build where state = 'finished'") == [(count,)])


async def test_workers_come_for_what_waits_and_go(tmp_path: Path, engine: Scripts) -> None:
    async with start_server(tmp_path) as server:
        await do(server, schedule("a"), schedule("b"))
        async with provisioning(tmp_path, server, engine.table() + platform("p1", server, most=1)):
            await ended(server, 2)
            await eventually(lambda: not engine.workers)
        assert len(engine.asked) == 2, "one for each job"
        assert engine.removed == []
        names = {name for (name,) in server.query("select worker_name from build")}
        assert names == {each[0] for each in engine.asked}


async def test_a_need_that_nobody_meets_leads_to_a_worker_that_does(tmp_path: Path, engine: Scripts) -> None:
    async with start_server(tmp_path) as server:
        await do(server, schedule("plain"))
        fleet = engine.table() + platform("p1", server, features={"big-disk": "nvme"}, constraint="deb", most=1)
        async with provisioning(tmp_path, server, fleet):
            await ended(server, 1)
            await plan(server, "a", "big-disk memory>=1G cores>=1")
            await plan(server, "b", "gpu")
            await ended(server, 2)
            await eventually_async(lambda: says(server, "no worker can be asked for that has gpu"))
        first, second = engine.asked
        assert first[1:] == ["p1", "", "", "", "deb", "21600"]
        assert second[1:] == ["p1", "big-disk cores>=1 memory>=1G", "1138", "1", "deb nvme", "21600"]


async def says(server: Server, *parts: str) -> bool:
    """Return whether what `queue` shows of the workers that come has all of these parts."""
    said = (await trio.to_thread.run_sync(run_client, server, "queue")).stdout.decode()
    return all(part in said for part in parts)


async def test_it_finds_its_workers_after_a_restart(tmp_path: Path, engine: Scripts) -> None:
    (engine.root / "holds").touch()
    async with start_server(tmp_path) as server:
        await do(server, schedule("a"), schedule("b"))
        fleet = engine.table() + platform("p1", server, most=5)
        with running_provision(tmp_path, server, fleet):
            await eventually(lambda: len(engine.asked) == 2)
        with running_provision(tmp_path, server, fleet):
            await eventually_async(
                lambda: says(server, "asked command for 2 workers ", " ago: 2 pending (for no reason)")
            )
        assert len(engine.asked) == 2


async def test_an_engine_that_refuses_is_left_alone_and_that_is_said_once(
    tmp_path: Path, engine: Scripts, caplog: pytest.LogCaptureFixture
) -> None:
    (engine.root / "refuses").touch()
    async with start_server(tmp_path) as server:
        await do(server, schedule("a"), schedule("b"))
        fleet = engine.table() + platform("p1", server)
        async with provisioning(tmp_path, server, fleet):
            await eventually_async(
                lambda: says(server, "asked command for no worker: command refused: ask failed: no room")
            )
            await do(server, schedule("c"))
        assert len(log_lines(caplog.text, "command refused a worker: ask failed: no room")) == 1
        async with provisioning(tmp_path, server, fleet):
            await eventually_async(lambda: says(server, "command refused: ask failed: no room"))
        assert len(engine.asked) == 1, "it is remembered"


async def test_an_engine_that_is_away_is_said(
    tmp_path: Path, engine: Scripts, caplog: pytest.LogCaptureFixture
) -> None:
    (engine.root / "broken").touch()
    async with start_server(tmp_path) as server:
        await do(server, schedule("a"))
        async with provisioning(tmp_path, server, engine.table() + platform("p1", server)):
            await eventually_async(lambda: says(server, "asked command for no worker: list failed: the engine is away"))
            (engine.root / "broken").unlink()
            await ended(server, 1)
        assert len(log_lines(caplog.text, "command: list failed: the engine is away")) == 1


async def test_what_is_not_needed_is_removed(tmp_path: Path, engine: Scripts) -> None:
    (engine.root / "holds").touch()
    async with start_server(tmp_path) as server:
        await do(server, schedule("a"))
        async with provisioning(tmp_path, server, engine.table() + platform("p1", server, **{"cool-down": "0.2"})):
            await eventually(lambda: len(engine.workers) == 1)
            await do(server, Unschedule(name="a"))
            (removed,) = await eventually(lambda: engine.removed)
            assert removed == [engine.asked[0][0], f"id-{engine.asked[0][0]}", "no"]


async def test_what_never_comes_is_removed_and_asked_for_again(tmp_path: Path, engine: Scripts) -> None:
    (engine.root / "silent").touch()
    async with start_server(tmp_path) as server:
        await do(server, schedule("a"))
        async with provisioning(tmp_path, server, engine.table() + platform("p1", server, patience="0.3")):
            removed = await eventually(lambda: engine.removed)
            assert removed[0] == [engine.asked[0][0], f"id-{engine.asked[0][0]}", "yes"]
            (engine.root / "silent").unlink()
            await eventually(lambda: len(engine.asked) > 1)


async def test_workers_that_end_before_they_come_are_told_and_not_asked_for_again_and_again(
    tmp_path: Path, engine: Scripts, caplog: pytest.LogCaptureFixture
) -> None:
    async with start_server(tmp_path) as server:
        await do(server, schedule("a"))
        fleet = engine.table() + platform("p1", server, command=["true"])
        async with provisioning(tmp_path, server, fleet):
            await eventually_async(
                lambda: says(server, "asked command for no worker: workers end before they have come to the server")
            )
            await do(server, schedule("b"))
            await eventually_async(lambda: says(server, "workers end before they have come"))
        assert len(engine.asked) == 2
        assert len(log_lines(caplog.text, "command: workers end before they have come to the server")) == 1


async def test_what_can_not_be_removed_is_in_nobodys_way(
    tmp_path: Path, engine: Scripts, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("silent", "keeps"):
        (engine.root / name).touch()
    async with start_server(tmp_path) as server:
        await do(server, schedule("a"))
        async with provisioning(tmp_path, server, engine.table() + platform("p1", server, patience="0.3")):
            await eventually(lambda: len(engine.removed) > 3)
            await eventually(lambda: len(engine.asked) > 1)
        first = engine.asked[0][0]
        assert len(log_lines(caplog.text, f"{first} is removed: it was started, and never came to the server")) == 1
        assert len(log_lines(caplog.text, f"{first} can't be removed: remove failed: it stays")) == 1


async def test_it_outlives_its_server(tmp_path: Path, engine: Scripts, caplog: pytest.LogCaptureFixture) -> None:
    async with start_server(tmp_path) as server:
        port = server.port
        async with provisioning(tmp_path, server, engine.table() + platform("p1", server)):
            await do(server, schedule("a"))
            await ended(server, 1)
            server.terminate()
            await eventually(lambda: "closed the connection" in caplog.text)
            async with start_server(tmp_path, f"--port={port}") as again:
                await do(again, schedule("b"))
                await ended(again, 2)


async def test_nothing_is_asked_for_where_no_job_is_given_out(tmp_path: Path, engine: Scripts) -> None:
    async with start_server(tmp_path) as server:
        await do(server, schedule("a"))
        async with connect(server, OURS) as client:
            target = Target(scope=Scope.PLATFORM, name="p1")
            await client.request(Halt(target=target, reason="no"))
            async with provisioning(tmp_path, server, engine.table() + platform("p1", server, least=1)):
                await trio.sleep(0.5)
                assert engine.asked == []
                await client.request(LiftHalt(target=target))
                await ended(server, 1)


def test_a_second_one_is_told(tmp_path: Path, engine: Scripts) -> None:
    with running_server(tmp_path) as server:
        fleet = engine.table() + platform("p1", server)
        with running_provision(tmp_path, server, fleet):
            second = forked.run(
                "builder_provision", str(tmp_path / "provision.toml"), f"--state={tmp_path / 'state'}", timeout=DEADLINE,
                env=environment(),
            )  # fmt: skip
    assert second.returncode == 3
    assert second.stderr.decode() == f"builder-provision: another builder-provision uses {tmp_path / 'state'}\n"


def test_metrics_and_readiness(tmp_path: Path, engine: Scripts) -> None:
    (engine.root / "holds").touch()
    port = free_port()
    with running_server(tmp_path) as server:
        assert run_client(server, "schedule", "a", "/dev/null", "--platform=p1", "--yes").returncode in (0, 2)
        with running_provision(tmp_path, server, engine.table() + platform("p1", server, least=1), f"--metrics={port}"):
            page = ""
            while 'state="pending"} 1.0' not in page:
                page = _get(port, "metrics")
            assert 'builder_provision_asked_total{engine="command",platform="p1"} 1.0' in page
            assert _get(port, "readyz") == "ok\n"


def _get(port: int, page: str) -> str:
    with (
        contextlib.suppress(OSError),
        urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=DEADLINE) as answer,
    ):
        return str(answer.read().decode())
    return ""


def test_check_asks_each_engine(tmp_path: Path, engine: Scripts) -> None:
    path = tmp_path / "provision.toml"
    path.write_text(engine.table() + '[platforms.p1]\nengine = "command"\n')
    done = forked.run("builder_provision", "--check", str(path), env=environment(), timeout=DEADLINE)
    assert (done.returncode, done.stdout) == (0, b"command: 0 workers that were asked for\n")
    (engine.root / "broken").touch()
    done = forked.run("builder_provision", "--check", str(path), env=environment(), timeout=DEADLINE)
    assert (done.returncode, done.stderr) == (3, b"builder-provision: list failed: the engine is away\n")
