"""builder-server and its templates, which may come, change and go while it runs."""

import os
import socket
from pathlib import Path

import pytest
import trio
from farm import eventually, run_server, start_server
from scripted import build, do, given_job, info, queues, schedule, take_job, waiting_worker

from builder.messages import MAX_SCRIPT, Execute, ScheduleOrbBuild
from builder.model import OrbBuildJob, Period, ScriptJob
from builder_server import dispatch, templates

ORB = OrbBuildJob(name="orb", opam_package="retreat")
TEMPLATE = b"#!/bin/sh\n\xff orb build %%OPAM_PACKAGE%% %%OPAM_PACKAGE%% on %%PLATFORM%% %%OTHER%%\n"


def orb(name: str = "orb") -> ScheduleOrbBuild:
    return ScheduleOrbBuild(period=Period.DAILY, job=OrbBuildJob(name=name, opam_package="retreat"))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "TEMPLATE_POLL", 0.02)


def test_the_places_are_filled() -> None:
    assert templates.expand(TEMPLATE, ORB, "p1") == ScriptJob(
        name="orb", platform="p1", script=b"#!/bin/sh\n\xff orb build retreat retreat on p1 %%OTHER%%\n"
    )


def test_what_is_filled_in_is_not_looked_through_again() -> None:
    job = OrbBuildJob(name="orb", opam_package="%%PLATFORM%%")
    assert templates.expand(b"%%OPAM_PACKAGE%%", job, "p1").script == b"%%PLATFORM%%"


def put(directory: Path, platform: str, content: bytes = TEMPLATE) -> Path:
    path = directory / f"orb-build.template.{platform}"
    part = path.with_name("part")
    part.write_bytes(content)
    part.rename(path)
    return path


def test_what_can_not_be_used_is_none(tmp_path: Path) -> None:
    assert templates.read_template(tmp_path, "p1") is None
    assert templates.read_template(tmp_path / "missing", "p1") is None
    put(tmp_path, "large", bytes(MAX_SCRIPT + 1))
    assert templates.read_template(tmp_path, "large") is None
    os.mkfifo(tmp_path / "orb-build.template.fifo")
    assert templates.read_template(tmp_path, "fifo") is None
    (tmp_path / "orb-build.template.directory").mkdir()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(10):
        assert templates.read_template(tmp_path, "directory") is None
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "orb-build.template.socket"))
    (tmp_path / "orb-build.template.loop").symlink_to("orb-build.template.loop")
    for platform in ("socket", "loop", "x" * 250):
        with pytest.raises(OSError, match=r"No such device|levels of symbolic|too long"):
            templates.read_template(tmp_path, platform)


async def test_a_job_waits_for_its_template_and_starts_when_it_appears(tmp_path: Path) -> None:
    async with start_server(tmp_path) as server:
        await do(server, orb())
        async with waiting_worker(server, "p1") as worker:
            await server.wait_for_log(
                f"warning job orb waits for a template: put one at {server.config_dir}/orb-build.template.p1"
            )
            assert await queues(server) == {"p1": ["orb"]}
            await do(server, schedule("a", "p2"), schedule("b", "p3"))  # which look through the queues again
            assert server.log.count("waits for a template") == 1
            put(server.config_dir, "p1")
            taken = await given_job(worker)
            assert taken.job == templates.expand(TEMPLATE, ORB, "p1")
            await taken.finish()
        assert server.execution("orb", taken.uuid).job == taken.job


async def test_what_stands_behind_it_is_not_held_up(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server:
        await do(server, orb())
        async with waiting_worker(server, "p1") as first:
            await eventually(lambda: server.query("select * from platform"))
            await do(server, schedule("a"))
            taken = await given_job(first)
            assert taken.job.name == "a"
            assert await queues(server) == {"p1": ["orb"]}
            await taken.finish()
        assert [item.job.name for item in (await info(server)).schedule] == ["orb", "a"]


async def test_a_template_per_platform(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server:
        for platform in ("p1", "p2"):
            put(server.config_dir, platform, f"{platform}: %%PLATFORM%%".encode())
        await do(server, orb())
        scripts = [(await build(server, platform))[1].script for platform in ("p1", "p2")]
        assert scripts == [b"p1: p1", b"p2: p2"]


async def test_a_template_that_changes_and_goes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with run_server(tmp_path) as server:
        put(server.config_dir, "p1", b"1")
        await do(server, orb())
        assert (await build(server))[1].script == b"1"
        path = put(server.config_dir, "p1", b"2")
        await do(server, Execute(name="orb"))
        assert (await build(server))[1].script == b"2"
        path.unlink()
        await do(server, Execute(name="orb"))
        for content in (b"3", b"4"):
            async with waiting_worker(server, "p1") as worker:
                await eventually(lambda: "waits for a template" in caplog.text)
                caplog.clear()
                path = put(server.config_dir, "p1", content)
                taken = await given_job(worker)
                assert taken.job.script == content
                await taken.finish()
            path.unlink()
            await do(server, Execute(name="orb"))  # and the operator is warned again


async def test_one_of_several_waiting_workers_gets_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with run_server(tmp_path) as server:
        await do(server, orb())
        async with waiting_worker(server) as one, waiting_worker(server) as two, waiting_worker(server) as three:
            await eventually(lambda: "waits for a template" in caplog.text)
            put(server.config_dir, "p1")
            taken = []

            async def wait(worker: object, scope: trio.CancelScope) -> None:
                taken.append(await given_job(worker))  # type: ignore[arg-type]
                scope.cancel()

            async with trio.open_nursery() as nursery:
                for worker in (one, two, three):
                    nursery.start_soon(wait, worker, nursery.cancel_scope)
            assert len(taken) == 1
            await taken[0].finish()


async def test_a_script_that_the_package_makes_too_large_is_not_handed_out(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server:
        put(server.config_dir, "p1", b"%%OPAM_PACKAGE%%" * (MAX_SCRIPT // 16))
        await do(server, ScheduleOrbBuild(period=Period.DAILY, job=OrbBuildJob(name="o", opam_package="x" * 100)))
        await do(server, schedule("a"))
        async with take_job(server) as taken:
            assert taken.job.name == "a"
            await taken.finish()
        assert await queues(server) == {"p1": ["o"]}
