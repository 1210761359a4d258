"""Workers from a real Slurm on this machine."""

import os
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trio
from attrs import evolve
from farm import Server, eventually, eventually_async, run_client, start_server
from operators import need
from provisioning import hurry, platform, provisioning
from scripted import OURS, connect, do, schedule
from slurms import Cluster, running_slurm

from builder.extension.schedule import PlanJob
from builder.messages import Success, Unschedule
from builder.model import Period, ScriptJob
from builder.needs import of_text
from builder.planning import JobOptions
from builder_provision.engines import Launch
from builder_provision.engines.slurm import Slurm
from builder_provision.errors import EngineFailed
from builder_provision.fleet import Asked, EngineState, Ticket

TICKET = Ticket(
    name="farm-0",
    platform="debian|12",
    needs=of_text("big cores>=2 memory>=16G"),
    asked_at=1_795_194_796.0,
    time_limit=3601.0,
)
LAUNCH = Launch(ticket=TICKET, words=("sleep", "60"), options=("--mem=1G",), features=("deb", "big"))
ENGINE = Slurm(label="farm")


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    with running_slurm() as cluster:
        for name, value in cluster.env.items():
            monkeypatch.setenv(name, value)
        yield cluster


def test_what_is_asked_for() -> None:
    words = ENGINE.submission(LAUNCH)
    assert words[0] == "sbatch"
    assert {"--mem=18205M", "--cpus-per-task=2", "--constraint=deb&big", "--time=61", "--job-name=farm-0"} < {*words}
    assert words.index("--mem=1G") < words.index("--mem=18205M"), "the later one counts"
    plain = ENGINE.submission(evolve(LAUNCH, ticket=evolve(TICKET, needs=()), features=()))
    assert not [word for word in plain if word.startswith(("--mem=18", "--cpus", "--constraint"))]


@pytest.mark.parametrize("said", ["cannot stat", "unable to status", None])
async def test_a_configuration_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None
) -> None:
    """Its programs try for a minute to read it: of two releases, and the one that is here."""
    missing = tmp_path / "slurm.conf"
    monkeypatch.setenv("SLURM_CONF", str(missing))
    if said is None:
        need("slurm", ["squeue"])
    else:
        program = tmp_path / "squeue"
        complaint = f"squeue: error: s_p_parse_file: {said} file {missing}: No such file or directory, retrying in 1sec up to 60sec"
        program.write_text(f"#!/bin/sh\necho '{complaint}' >&2\nexec sleep 60\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with trio.fail_after(30), pytest.raises(EngineFailed) as caught:
        await ENGINE.list(())
    assert str(caught.value) == (
        f"squeue can't read {missing}: No such file or directory; name the cluster's slurm.conf in SLURM_CONF"
    )


def test_a_job_is_read() -> None:
    comment = next(word for word in ENGINE.submission(LAUNCH) if word.startswith("--comment=")).partition("=")[2]
    told = "\n".join(
        [
            f"farm-0|PENDING|N/A|Resources|{comment}",
            f"farm-1|RUNNING|1795194800|None|{comment}",
            f"farm-2|PENDING|1795194800|BadConstraints|{comment}",
            f"farm-3|PENDING|N/A|QOSMaxJobsPerUserLimit|{comment}",
            f"farm-4|PENDING|N/A|QOSNotAllowed|{comment}",
            f"farm-5|PENDING|N/A|None|{comment.replace('farm', 'other')}",
            "mine|PENDING|N/A|None|(null)",
            'mine|PENDING|N/A|None|{"builder":"farm","needs":"a b=c=d"}',
            "mine",
        ]
    )
    expected = Asked(
        name="farm-0",
        platform="debian|12",
        needs=TICKET.needs,
        state=EngineState.QUEUED,
        reason="Resources",
        asked_at=TICKET.asked_at,
        time_limit=3601.0,
    )
    assert list(ENGINE._read(told)) == [
        expected,
        evolve(expected, name="farm-1", state=EngineState.STARTED, reason="", started_at=1_795_194_800.0),
        evolve(expected, name="farm-2", state=EngineState.HELD, reason="BadConstraints"),
        evolve(expected, name="farm-3", reason="QOSMaxJobsPerUserLimit"),
        evolve(expected, name="farm-4", state=EngineState.HELD, reason="QOSNotAllowed"),
    ]


async def test_the_life_of_a_job(slurm: Cluster) -> None:
    launch = evolve(LAUNCH, features=("big",))
    await ENGINE.ask(launch)
    await ENGINE.ask(evolve(launch, ticket=evolve(TICKET, name="farm-1", needs=of_text("cores>=8"))))
    await eventually(lambda: "farm-0 RUNNING None" in slurm.jobs())

    async def has_reason() -> bool:  # which the controller finds in its next round
        return bool([each for each in await ENGINE.list(()) if each.reason in ("Priority", "Resources")])

    await eventually_async(has_reason)
    first, second = sorted(await ENGINE.list(()), key=lambda each: each.name)
    assert (first.state, first.platform, first.needs, first.time_limit) == (
        EngineState.STARTED,
        "debian|12",
        TICKET.needs,
        3601.0,
    )
    assert first.started_at is not None
    assert abs(first.started_at - time.time()) < 60
    assert (first.reason, second.state) == ("", EngineState.QUEUED)
    assert await Slurm(label="other").list(()) == []
    await ENGINE.remove(first, may_have_begun=False)  # it has started: that is for Slurm to see
    await ENGINE.remove(second, may_have_begun=False)
    await eventually(lambda: slurm.jobs() == ["farm-0 RUNNING None"])
    await ENGINE.remove(first, may_have_begun=True)
    await eventually_async(_is_empty)
    with pytest.raises(EngineFailed, match="Requested node configuration is not available"):
        await ENGINE.ask(evolve(launch, ticket=evolve(TICKET, needs=of_text("memory>=512G"))))
    with pytest.raises(EngineFailed, match="Invalid feature"):
        await ENGINE.ask(LAUNCH)


async def _is_empty() -> bool:
    return await ENGINE.list(()) == []


# --- with a farm ---------------------------------------------------------------------------------------------------


def finished(server: Server) -> int:
    ((count,),) = server.query("select count(*) from build where state = 'finished'")
    return int(count)


async def test_jobs_get_workers_from_slurm(tmp_path: Path, slurm: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)
    async with start_server(tmp_path) as server:
        # whoever comes first may take this one: then another one is asked for, and the other leaves when it has waited
        await do(server, schedule("plain"))
        async with connect(server, OURS) as client:
            for name, needs in (("needs", "big cores>=1 memory>=64M"), ("none", "memory>=512G")):
                job = ScriptJob(name=name, platform="p1", script=b"#!/bin/sh\n")
                options = JobOptions(period=Period.WEEKLY, needs=of_text(needs))
                assert (await client.request(PlanJob(job=job, options=options, run_now=True)))[-1] == Success()
        fleet = "[engines.slurm]\n" + platform("p1", server, "slurm", features={"big": "big"}, most=2, cool_down="2s")
        async with provisioning(tmp_path, server, fleet):
            await eventually(lambda: finished(server) == 2, deadline=60)
            await eventually_async(_is_refused(server))
            await do(server, Unschedule(name="none"))
            await eventually(lambda: slurm.jobs() == [], deadline=60)
        assert finished(server) == 2


def _is_refused(server: Server) -> Callable[[], Awaitable[bool]]:
    async def says() -> bool:
        said = (await trio.to_thread.run_sync(run_client, server, "queue")).stdout.decode()
        return "slurm refused: sbatch failed: " in said and "Requested node configuration is not available" in said

    return says


@pytest.mark.long
async def test_200_jobs_and_a_restart_of_the_controller(
    tmp_path: Path, slurm: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    platforms = {"p1": 4, "p2": 2, "p3": 2}
    async with start_server(tmp_path) as server:
        for number in range(200):
            await do(server, schedule(f"job{number}", f"p{number % 3 + 1}", text=b"#!/bin/sh\nsleep 0.2\n"))
        fleet = "[engines.slurm]\n" + "".join(
            platform(name, server, "slurm", most=most, cool_down="2s") for name, most in platforms.items()
        )
        most = 0

        async def count() -> None:
            nonlocal most
            while True:
                most = max(most, len(await trio.to_thread.run_sync(slurm.jobs)))
                await trio.sleep(0.5)

        async with provisioning(tmp_path, server, fleet), trio.open_nursery() as nursery:
            nursery.start_soon(count)
            await eventually(lambda: finished(server) > 50, deadline=300)
            await trio.to_thread.run_sync(slurm.stop, "slurmctld")
            await trio.sleep(5)
            slurm.start_controller()
            await eventually(lambda: finished(server) == 200, deadline=900)
            await eventually(lambda: slurm.jobs() == [], deadline=60)
            nursery.cancel_scope.cancel()
        assert server.query("select count(distinct name), count(*) from build where state = 'finished'") == [(200, 200)]
        assert 1 < most <= sum(platforms.values())
