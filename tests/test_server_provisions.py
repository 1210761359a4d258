"""What a provisioner tells of the workers that it asks for, and who sees it."""

import json
from pathlib import Path

import pytest
import trio
from attrs import evolve
from farm import LocalServer, run_client, start_server
from scripted import OURS, ScriptedPeer, connect, do, schedule

from builder.extension.provisioning import MAX_KEPT, MAX_TOLD, Coming, Provision, Stage, TellProvision
from builder.extension.schedule import PlanJob
from builder.extension.watching import Look, Looked, PlatformState
from builder.messages import Failure, Success
from builder.model import Instant, Period, ScriptJob
from builder.needs import of_text
from builder.planning import JobOptions
from builder_client import provisions as shown
from builder_server.errors import CommandRefused
from builder_server.provisions import MAX_PROVISIONS, Provisions, Told, by_platform

NOW = Instant(1_795_194_796_123)
TOLD = Provision(
    by="farm",
    engine="slurm",
    since=Instant(NOW.ms - 40_000),
    coming=(
        Coming(count=2, stage=Stage.PENDING, reason="Resources"),
        Coming(count=1, stage=Stage.STARTING, reason=""),
    ),
)


def tells(provision: Provision = TOLD, platform: str = "p1", keep: int = 60_000) -> TellProvision:
    return TellProvision(platform=platform, provision=provision, keep=keep)


async def platforms(client: ScriptedPeer) -> dict[str, PlatformState]:
    pages = await client.request(Look(entries=10, results=0))
    return {each.name: each for page in pages if isinstance(page, Looked) for each in page.platforms}


async def test_who_looks_sees_what_was_told_last(server: LocalServer, client: ScriptedPeer) -> None:
    await do(server, schedule("a"))
    other = Provision(by="other", engine="kubernetes", why_not=("there may be 2 at once",))
    assert await client.request(tells()) == [Success()]
    assert await client.request(tells(other)) == [Success()]
    assert (await platforms(client))["p1"].provisions == (TOLD, other)
    less = evolve(TOLD, coming=())
    assert await client.request(tells(less)) == [Success()]
    assert (await platforms(client))["p1"].provisions == (less, other)


async def test_what_a_job_needs_and_how_long_it_may_take_is_seen(server: LocalServer, client: ScriptedPeer) -> None:
    await do(server, schedule("b"))  # makes the platform
    job = ScriptJob(name="a", platform="p1", script=b"# builder: needs=kvm\n")
    options = JobOptions(period=Period.DAILY, needs=of_text("memory>=1G"), time_limit=60_000)
    assert (await client.request(PlanJob(job=job, options=options, run_now=True)))[-1] == Success()
    pages = await client.request(Look(entries=10, results=0))
    entries = [entry for page in pages if isinstance(page, Looked) for entry in page.queued]
    (entry,) = [entry for entry in entries if entry.job == "a"]
    assert (entry.needs, entry.time_limit) == (of_text("kvm memory>=1G"), 60_000)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (tells(platform="a/b"), "platform"),
        (tells(keep=0), "the milliseconds for which it is believed must lie between 1 and 3600000"),
        (tells(keep=MAX_KEPT + 1), "the milliseconds for which it is believed must lie between"),
        (tells(evolve(TOLD, by="")), "name of the provisioner"),
        (tells(evolve(TOLD, by="n" * 51)), "the characters of the name of the provisioner must lie between 1 and 50"),
        (tells(evolve(TOLD, engine="a/b")), "name of the engine"),
        (tells(evolve(TOLD, coming=TOLD.coming * 5)), "the groups of workers that come must lie between 0 and 8"),
        (tells(evolve(TOLD, why_not=("no",) * (MAX_TOLD + 1))), "the reasons why there are not more must lie"),
        (tells(evolve(TOLD, why_not=("n" * 201,))), "the characters of a reason must lie between 0 and 200"),
    ],
)
async def test_what_is_out_of_bounds_is_refused(client: ScriptedPeer, wrong: TellProvision, reason: str) -> None:
    (refused,) = await client.request(wrong)
    assert isinstance(refused, Failure)
    assert reason in refused.message


def later(seconds: float) -> Instant:
    return Instant(NOW.ms + round(seconds * 1000))


def test_what_is_told_is_forgotten_when_its_time_is_over() -> None:
    now = NOW
    provisions = Provisions(lambda: now)
    provisions.tell(tells(keep=60_000))
    provisions.tell(tells(platform="p2", keep=120_000))
    now = later(59)
    assert [each.request.platform for each in provisions.all()] == ["p1", "p2"]
    told = provisions.all()
    now = later(60)
    assert [each.request.platform for each in provisions.all()] == ["p2"]
    assert set(by_platform(told, now)) == {"p2"}, "nor is it believed as another server has told it"


def test_of_several_servers_that_is_believed_which_was_told_last() -> None:
    less, other = evolve(TOLD, coming=()), evolve(TOLD, by="other")
    told = (
        Told(at=later(2), request=tells(less)),
        Told(at=later(1), request=tells()),
        Told(at=later(1), request=tells(other)),
        Told(at=later(-60), request=tells(platform="p2")),
    )
    assert by_platform(told, later(3)) == {"p1": (less, other)}


def test_it_is_bounded() -> None:
    now = NOW
    provisions = Provisions(lambda: now)
    for number in range(MAX_PROVISIONS):
        provisions.tell(tells(platform=f"p{number}"))
    provisions.tell(tells(platform="p0"))
    with pytest.raises(CommandRefused):
        provisions.tell(tells(platform="one more"))
    now = later(60)
    provisions.tell(tells(platform="one more"))


@pytest.mark.parametrize(
    ("provision", "line"),
    [
        (TOLD, ["asked slurm for 3 workers 40 s ago: 2 pending (Resources), 1 starting"]),
        (
            evolve(TOLD, coming=TOLD.coming[1:], since=None, why_not=("there may be 1 at once",)),
            ["asked slurm for 1 worker: 1 starting; no more: there may be 1 at once"],
        ),
        (evolve(TOLD, coming=(), why_not=("a", "b")), ["asked slurm for no worker: a, b"]),
        (evolve(TOLD, coming=()), []),
    ],
)
def test_what_is_said(provision: Provision, line: list[str]) -> None:
    platform = PlatformState(name="p1", waiting=0, busy=0, queued=1, provisions=(provision,))
    assert list(shown.lines(platform, NOW)) == line


async def test_the_queue_shows_it(tmp_path: Path) -> None:
    async with start_server(tmp_path) as server:
        await do(server, schedule("a"))
        async with connect(server, OURS) as provisioner:
            assert await provisioner.request(tells(evolve(TOLD, since=None))) == [Success()]
        plain, as_json = [
            await trio.to_thread.run_sync(lambda options=options: run_client(server, "queue", *options))  # type: ignore[misc]
            for options in ((), ("--json",))
        ]
        assert "asked slurm for 3 workers: 2 pending (Resources), 1 starting" in plain.stdout.decode().splitlines()
        (queue,) = json.loads(as_json.stdout)["queues"]
        assert queue["asked"] == [shown.json(evolve(TOLD, since=None))]
        assert queue["jobs"][0]["needs"] == []
