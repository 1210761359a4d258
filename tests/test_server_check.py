"""builder-server: a job that is run twice, and whether both runs leave the same artifacts."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from farm import LocalServer, run_server
from scripted import ScriptedPeer, build, do, lose_worker, queues, schedule

from builder.extension.schedule import CheckJob
from builder.messages import Execute, Failure, Success
from builder.model import Artifact, Exited

A = Artifact(path="a", content=b"1")
B = Artifact(path="b", content=b"2")
OTHER_B = Artifact(path="b", content=b"3")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LocalServer]:
    async with run_server(tmp_path) as running_server:
        await do(running_server, schedule("job"))
        await build(running_server, artifacts=(A, OTHER_B))  # an earlier one, which is not looked at
        yield running_server


def verdicts(server: LocalServer) -> list[str | None]:
    return [verdict for (verdict,) in server.query("select verdict from build order by started, rowid")][1:]


@pytest.mark.parametrize(
    ("second", "verdict"),
    [
        ((B, A), "reproducible"),
        ((A, OTHER_B), "differs: b"),
        ((A,), "differs: b"),
        ((A, B, Artifact(path="0", content=b"")), "differs: 0"),
    ],
)
async def test_two_runs_are_compared(
    client: ScriptedPeer, server: LocalServer, second: tuple[Artifact, ...], verdict: str
) -> None:
    assert await client.request(CheckJob(name="job")) == [Success()]
    await build(server, artifacts=(A, B))
    assert await queues(server) == {"p1": ["job"]}
    await build(server, artifacts=second)
    assert await queues(server) == {"p1": []}
    assert verdicts(server) == [verdict, verdict]


@pytest.mark.parametrize("good", [0, 1])
async def test_a_run_that_fails_ends_the_check(client: ScriptedPeer, server: LocalServer, good: int) -> None:
    await client.request(CheckJob(name="job"))
    for _ in range(good):
        await build(server)
    await build(server, result=Exited(code=1))
    assert await queues(server) == {"p1": []}
    assert verdicts(server) == [None] * (good + 1)


async def test_a_run_that_is_lost_is_run_again(client: ScriptedPeer, server: LocalServer) -> None:
    await client.request(CheckJob(name="job"))
    await build(server, artifacts=(A,))
    await lose_worker(server)
    await build(server, artifacts=(A,))
    assert verdicts(server) == ["reproducible", None, "reproducible"]


async def test_executed_meanwhile_it_is_no_check_any_more(client: ScriptedPeer, server: LocalServer) -> None:
    await client.request(CheckJob(name="job", platform="p1"))
    await do(server, Execute(name="job"))
    await build(server)
    assert await queues(server) == {"p1": []}


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (CheckJob(name="other"), "job not found"),
        (CheckJob(name="../job"), "job not found"),
        (CheckJob(name="job", platform="p2"), "different platform: p1"),
        (CheckJob(name="job", platform="p/2"), "no such platform"),
    ],
)
async def test_what_is_refused(client: ScriptedPeer, request_: CheckJob, reason: str) -> None:
    (failure,) = await client.request(request_)
    assert isinstance(failure, Failure)
    assert reason in failure.message
