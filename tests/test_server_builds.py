"""builder-server: what became of builds, who ended them, and what is kept of their artifacts."""

import hashlib
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from farm import DEADLINE, LocalServer, eventually, run_server, running_worker
from scripted import ScriptedPeer, build, do, queues, running, schedule, take_job

from builder.extension import Request
from builder.extension.applying import ListJobs
from builder.extension.builds import (
    BuildCancelled,
    CancelBuilds,
    Dequeue,
    Dequeued,
    HistoryPlace,
    HistoryShown,
    ShowBuild,
    ShowHistory,
)
from builder.messages import Failure, Success
from builder.model import Aborted, Artifact, Exited, Instant
from builder_server import results
from builder_server.store import artifacts


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LocalServer]:
    async with run_server(tmp_path) as running_server:
        yield running_server


NEVER = "\udcff"
"""A name whose bytes are no UTF-8, which nothing in the database has."""


@pytest.mark.parametrize(
    "request_",
    [
        CancelBuilds(target=NEVER),
        CancelBuilds(target="a", platform=NEVER),
        Dequeue(name="a", platform=NEVER),
        ListJobs(after=NEVER),
        ShowBuild(target=NEVER),
        ShowHistory(count=1, name=NEVER),
        ShowHistory(count=1, platform=NEVER),
        ShowHistory(count=1, behind=HistoryPlace(at=Instant(0), key=NEVER)),
    ],
    ids=str,
)
async def test_what_nothing_can_be_called_is_refused(client: ScriptedPeer, request_: Request) -> None:
    (reply,) = await client.request(request_)
    assert isinstance(reply, Failure)


async def test_a_place_with_a_number_beyond_the_database(client: ScriptedPeer) -> None:
    place = HistoryPlace(at=Instant(0), key=" " + "9" * 19)
    assert await client.request(ShowHistory(count=1, behind=place)) == [HistoryShown(entries=()), Success()]


# --- cancel and dequeue --------------------------------------------------------------------------------------------


async def test_a_cancelled_build_of_a_classic_worker(server: LocalServer, client: ScriptedPeer) -> None:
    await do(server, schedule("a"))
    async with take_job(server) as taken:
        await taken.say(b"one")
        begin = taken.uuid.hex[:9]
        reply, end = await client.request(CancelBuilds(target=begin))
        assert (reply, end) == (BuildCancelled(uuid=taken.uuid, name="a", platform="p1"), Success())
        assert await taken.peer.wait_end() == "reset"
    address = "{}:{}".format(*client.stream.socket.getsockname())
    execution = server.execution("a", taken.uuid)
    assert execution.result == Aborted(message=f"cancelled by {address}")
    assert [line.line for line in execution.console] == [b"one"]
    assert server.query("select state, outcome, ended_by from build") == [("finished", "aborted", address)]
    assert await queues(server) == {"p1": []}


async def test_all_builds_of_a_job_are_cancelled_or_those_of_a_platform(
    server: LocalServer, client: ScriptedPeer
) -> None:
    await do(server, schedule("a"))
    async with take_job(server) as taken:
        (failure,) = await client.request(CancelBuilds(target="a", platform="p2"))
        assert isinstance(failure, Failure)
        assert failure.message.startswith("nothing runs on p2 that is called a")
        reply, _ = await client.request(CancelBuilds(target="a", platform="p1"))
        assert reply == BuildCancelled(uuid=taken.uuid, name="a", platform="p1")
    for target in ("a", "b", taken.uuid.hex, "x/y", ""):
        (failure,) = await client.request(CancelBuilds(target=target))
        assert isinstance(failure, Failure), target


async def test_the_job_of_our_worker_is_dead_within_a_second(
    server: LocalServer, client: ScriptedPeer, tmp_path: Path
) -> None:
    script = f"#!/bin/sh\necho $$ > {tmp_path}/pid\nmv {tmp_path}/pid {tmp_path}/begun\nexec sleep 1000\n"
    await do(server, schedule("a", text=script.encode()))
    with running_worker(server, "p1", "--sandbox=none"):
        begun = tmp_path / "begun"
        await eventually(begun.exists, what="the job running")
        process = Path(f"/proc/{begun.read_text().strip()}")
        assert process.exists()
        began = time.monotonic()
        reply, _ = await client.request(CancelBuilds(target="a"))
        assert isinstance(reply, BuildCancelled)
        await eventually(lambda: not process.exists(), what="the end of the job")
        assert time.monotonic() - began < 1
    assert not await running(server)


async def test_a_job_leaves_the_queues_and_stays_in_the_schedule(server: LocalServer, client: ScriptedPeer) -> None:
    await do(server, schedule("a"), schedule("b"))
    assert await client.request(Dequeue(name="a")) == [Dequeued(platforms=("p1",)), Success()]
    assert await queues(server) == {"p1": ["b"]}
    assert await client.request(Dequeue(name="a")) == [Failure(message="a is in no queue")]
    assert await client.request(Dequeue(name="b", platform="p2")) == [Failure(message="b is in no queue of p2")]
    assert await client.request(Dequeue(name="c")) == [Failure(message="unknown job c")]
    assert await queues(server) == {"p1": ["b"]}


# --- what became of it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        (Exited(code=0), "succeeded"),
        (Exited(code=1), "failed"),
        (Aborted(message="timeout (limit 5 s)"), "aborted"),
        (Aborted(message="the worker failed: cannot make a control group: no"), "lost"),
    ],
)
async def test_outcomes_and_the_address_of_the_worker(server: LocalServer, result: Exited, outcome: str) -> None:
    await do(server, schedule("a"))
    async with take_job(server) as taken:
        address = "{}:{}".format(*taken.peer.stream.socket.getsockname())
        await taken.finish(result)
    assert server.query("select outcome, worker from build") == [(outcome, address)]


# --- artifacts -----------------------------------------------------------------------------------------------------

FILES = (
    Artifact(path="b/c", content=b"x" * 300_000),
    Artifact(path="a", content=b""),
    Artifact(path="z\udcff", content=b"z"),
)


def main_hash(files: tuple[Artifact, ...]) -> str:
    found = sorted((file.path.encode("utf-8", "surrogateescape"), hashlib.sha256(file.content)) for file in files)
    return hashlib.sha256(b"".join(path + b"\0" + each.digest() for path, each in found)).hexdigest()


@pytest.mark.parametrize(("batch", "in_memory"), [(10_000, 256 * 1024), (2, 1)])
async def test_artifacts_are_hashed_as_they_come(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch, batch: int, in_memory: int
) -> None:
    monkeypatch.setattr(results, "BATCH", batch)
    monkeypatch.setattr(results, "_IN_MEMORY", in_memory)
    await do(server, schedule("a"), schedule("b", platform="p2"))
    uuid, _ = await build(server, artifacts=FILES)
    rows = server.query(f"select path, size, sha256 from artifact where build = '{uuid}' order by path")
    assert rows == [
        (path, len(content), hashlib.sha256(content).digest())
        for path, content in ((b"a", b""), (b"b/c", b"x" * 300_000), (b"z\xff", b"z"))
    ]
    await build(server, platform="p2")
    assert server.query("select artifacts, artifact_bytes, main_hash from build order by name") == [
        (3, 300_001, main_hash(FILES)),
        (0, 0, hashlib.sha256().hexdigest()),
    ]


async def test_others_write_while_many_artifacts_are_looked_through(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_end = threading.Event(), threading.Event()
    conclude = artifacts.conclude

    def wait_and_conclude(*arguments: Any, **options: Any) -> artifacts.Conclusion:
        begun.set()
        may_end.wait(DEADLINE)
        return conclude(*arguments, **options)

    monkeypatch.setattr(artifacts, "conclude", wait_and_conclude)
    await do(server, schedule("a"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(build, server)
        await eventually(begun.is_set)
        await do(server, schedule("b"))
        assert server.query("select state from build") == [("running",)]
        may_end.set()
    assert server.query("select state, artifacts from build") == [("finished", 0)]


async def test_nothing_is_kept_of_the_artifacts_of_a_lost_build(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from builder_server.store import Store, StoreError

    async def fail(*_: object, **_options: object) -> bool:
        raise StoreError("no")

    await do(server, schedule("a"))
    with monkeypatch.context() as patch:
        patch.setattr(Store, "finish", fail)
        async with take_job(server) as taken:
            with pytest.raises(trio.BrokenResourceError):
                await taken.finish(artifacts=FILES)
    assert server.query("select state, artifacts from build") == [("lost", None)]
    assert server.query("select * from artifact") == []
