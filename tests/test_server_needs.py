"""What jobs need, in the store: kept, told, and given only to workers that have it, without a look at all that wait."""

import json
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
import trio
from farm import LocalServer, eventually, eventually_async, run_client, run_server
from scripted import OUR_WORKER, ScriptedPeer, connect, do, given_job, schedule, waiting_worker
from stores import NOW, database, opened, queues, running, uuid

from builder.errors import InvalidOptions
from builder.extension.applying import Apply
from builder.extension.schedule import PlanJob
from builder.extension.working import Alive, AskJob, Fact, GiveJob
from builder.messages import ScheduleOrbBuild
from builder.model import Exited, OrbBuildJob, Period, ScriptJob
from builder.needs import of_text
from builder.planning import JobOptions
from builder_server.errors import CommandRefused
from builder_server.store import Holder, Store, Timing, needed

KVM = (Fact(name="kvm", value="yes"),)
LARGE = (Fact(name="kvm", value="yes"), Fact(name="memory", value=str(64 * 1024**3)), Fact(name="label.gpu", value=""))


async def plan(store: Store, name: str, needs: str = "", script: bytes = b"#!/bin/sh\n", priority: int = 5) -> None:
    job = ScriptJob(name=name, platform="p1", script=script)
    await store.plan(job, JobOptions(period=Period.NEVER, needs=of_text(needs), priority=priority), NOW)


async def change(store: Store, name: str, needs: str, script: bytes | None = None) -> None:
    found = await store.show(name)
    new = None if script is None else ScriptJob(name=name, platform="p1", script=script)
    await store.change(name, found.revision, JobOptions(period=Period.NEVER, needs=of_text(needs)), new, NOW)


async def taken(store: Store, number: int, able: tuple[Fact, ...]) -> str | None:
    build = (await store.take("p1", uuid(number), NOW, None, Holder(address="", facts=able))).build
    return None if build is None else build.job.name


@pytest.mark.databases
async def test_a_worker_gets_the_first_job_that_it_can_do(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await plan(store, "large", "kvm memory>=32G")
        await plan(store, "kvm", "kvm")
        await plan(store, "any")
        await plan(store, "labelled", script=b"# builder: needs=gpu\n")
        await plan(store, "later")
        assert await taken(store, 1, ()) == "any"
        assert await taken(store, 2, KVM) == "kvm"
        assert await taken(store, 3, LARGE) == "large"
        assert await taken(store, 4, LARGE) == "labelled"
        assert await taken(store, 5, ()) == "later"
        assert await taken(store, 6, LARGE) is None


@pytest.mark.databases
async def test_the_order_of_a_queue_holds_among_all_that_a_worker_can_do(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        for name, needs, priority in (("a", "kvm", 5), ("b", "gpu", 5), ("c", "", 5), ("d", "kvm", 9)):
            await plan(store, name, needs, priority=priority)
        assert [await taken(store, number, LARGE) for number in range(4)] == ["d", "a", "b", "c"]


@pytest.mark.databases
async def test_what_a_job_needs_stays_with_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await plan(store, "job", "kvm", b"# builder: needs=memory>=1G\n")
        assert (await store.show("job")).options.needs == of_text("kvm")
        assert await store.database.read(lambda connection: connection.scalar(sa.text("select needs from queue"))) == (
            "kvm memory>=1G"
        )
        assert await taken(store, 1, KVM) is None
        assert await taken(store, 2, LARGE) == "job"
        await store.lose(uuid(2), NOW, Exited(code=0), count=False)
        assert await taken(store, 3, KVM) is None
        assert await taken(store, 4, LARGE) == "job"
        await store.execute("job", None, NOW, "somebody")
        assert await taken(store, 5, KVM) is None


@pytest.mark.databases
async def test_a_change_of_needs_counts_for_entries_too(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await plan(store, "job", "gpu")
        assert await taken(store, 1, KVM) is None
        await change(store, "job", "kvm", b"# builder: needs=gpu\n")
        assert await taken(store, 2, KVM) is None
        await change(store, "job", "kvm", b"")
        assert await taken(store, 3, ()) is None
        await change(store, "job", "")
        assert await taken(store, 4, ()) == "job"


@pytest.mark.databases
async def test_whom_an_entry_wakes(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        came: list[Iterable[str] | None] = []
        work = store.waking.platform("p1")
        work.on_work = came.append
        await plan(store, "a", "kvm")
        await plan(store, "b")
        await change(store, "a", "gpu")
        await store.execute("a", None, NOW, "somebody")
        assert came == [{"kvm"}, {""}, {"gpu"}, {"gpu"}]


@pytest.mark.databases
@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        (b"# builder: needs=cores=4\n", "^line 1 of the script: cores=4: write cores>=N, such as cores>=4$"),
        (
            b"# builder: needs=sandbox=none\n",
            "^no worker has both sandbox=overlay and sandbox=none: write one of them$",
        ),
    ],
)
async def test_mistakes_in_a_script_are_refused(tmp_path: Path, script: bytes, complaint: str) -> None:
    async with opened(tmp_path) as store:
        with pytest.raises(CommandRefused, match=complaint):
            await plan(store, "job", "sandbox=overlay", script)
        assert await queues(store) == {}
        await plan(store, "job", "sandbox=overlay")
        with pytest.raises(CommandRefused, match=complaint):
            await change(store, "job", "sandbox=overlay", script)


@pytest.mark.databases
async def test_there_are_only_so_many_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needed, "MAX_SETS", 3)
    async with opened(tmp_path) as store:
        for name in ("a", "b"):
            await plan(store, name, name)
            await plan(store, f"{name}2", name)
        await plan(store, "none")  # needs nothing, which is the third set
        with pytest.raises(CommandRefused, match="3 different sets of needs already"):
            await plan(store, "c", "c")
        await plan(store, "c", "a")
        with pytest.raises(CommandRefused, match="3 different sets of needs already"):
            await change(store, "c", "c")
        jobs = [
            PlanJob(
                job=ScriptJob(name="d", platform="p1", script=b"#"),
                options=JobOptions(needs=of_text("d")),
                run_now=False,
            )
        ]
        timings = {"d": Timing.of(JobOptions(), "d", NOW)}
        with pytest.raises(CommandRefused, match="3 different sets of needs already"):
            await store.apply(Apply(removed=(), changed=(), added=tuple(jobs)), timings, NOW)
        await plan(store, "e")


async def test_a_take_looks_at_the_first_entry_of_each_set(tmp_path: Path) -> None:
    """However many wait: every look at a table goes by an index, and to no more than the first entry."""
    async with opened(tmp_path) as store:
        for number in range(20):
            await plan(store, f"j{number}", f"label-{number % 3}")
        seen: list[tuple[str, Any]] = []
        sa.event.listen(database(store)._writer, "before_cursor_execute", lambda *found: seen.append(found[2:4]))
        assert await taken(store, 1, (Fact(name="label.label-2", value=""),)) == "j2"
        asked = [found for found in seen if found[0].startswith("WITH")]
        assert len(asked) == 2

        def plans(connection: sa.Connection) -> list[str]:
            steps = []
            for statement, parameters in asked:
                steps += [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
            return steps

        steps = await store.database.read(plans)
        queue = [step for step in steps if "queue" in step and "USING" in step]
        assert queue
        assert all("queue_needs (platform=?" in step or "INTEGER PRIMARY KEY (rowid=?)" in step for step in queue)
        assert not [step for step in steps if "SCAN" in step and ("queue" in step or "job" in step)]


@pytest.mark.databases
async def test_needs_are_in_one_order(tmp_path: Path) -> None:
    assert JobOptions(needs=of_text("kvm cores>=2")) == JobOptions(needs=of_text("cores>=2 kvm"))
    with pytest.raises(InvalidOptions):
        JobOptions(needs=of_text("sandbox=a sandbox=b"))
    async with opened(tmp_path) as store:
        assert await running(store) == ()


async def asking(server: LocalServer, stack: AsyncExitStack, name: str, *facts: Fact) -> ScriptedPeer:
    """Return a worker that waits for a job."""
    peer = await stack.enter_async_context(connect(server, OUR_WORKER))
    await peer.send(AskJob(platform="p1", worker=name, facts=facts))
    return peer


async def test_a_job_goes_past_workers_that_can_not_do_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    original = Store.take

    async def take_and_note(store: Store, platform: str, number: UUID, *arguments: Any) -> object:
        asked.append(arguments[2].known_as)
        return await original(store, platform, number, *arguments)

    monkeypatch.setattr(Store, "take", take_and_note)
    async with run_server(tmp_path) as server, AsyncExitStack() as stack:
        await asking(server, stack, "plain0")
        await eventually(lambda: asked)
        for number in range(1, 5):
            await asking(server, stack, f"plain{number}")
        able = await asking(server, stack, "able", *KVM)
        await eventually(lambda: len(asked) == 2)
        await do(server, schedule("job", text=b"# builder: needs=kvm\n"))
        assert (await able.receive(GiveJob)).job.name == "job"
        await do(server, schedule("large", text=b"# builder: needs=kvm,memory>=1T\n"))
        await do(server, schedule("any"))
        await eventually(lambda: len(asked) == 5)
        assert asked[:4] == ["plain0", "able", "able", "plain0"]
        assert asked[4] in {"plain1", "plain2", "plain3", "plain4"}, "it finds out that there is no more"


async def test_a_classic_worker_gets_what_needs_nothing(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server:
        await do(server, schedule("vm", text=b"# builder: needs=kvm\n"), schedule("any"))
        async with waiting_worker(server) as worker:
            assert (await given_job(worker)).job.name == "any"
        assert server.query("select job.name from queue join job on job.id = job_id") == [("vm",)]


async def test_a_worker_under_pressure_gets_nothing(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server, AsyncExitStack() as stack:
        pressed = await asking(server, stack, "pressed", Fact(name="pressure", value="no room"))
        await do(server, schedule("job"))
        other = await asking(server, stack, "other")
        assert (await other.receive(GiveJob)).job.name == "job"
        await do(server, schedule("job2"))
        assert server.query("select job.name from queue join job on job.id = job_id") == [("job2",)]
        await pressed.send(Alive(facts=(Fact(name="pressure", value=""),)))
        assert (await pressed.receive(GiveJob)).job.name == "job2"


async def test_a_worker_that_waits_says_that_it_is_under_pressure(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server, AsyncExitStack() as stack:
        worker = await asking(server, stack, "w", Fact(name="load", value="0.10"))
        await worker.send(Alive(facts=(Fact(name="pressure", value="no room"), Fact(name="load", value="9.00"))))

        async def is_shown(does: str, load: str) -> bool:
            found = (await told(server, "workers")).splitlines()[-1]
            return f" p1        {does} " in found and f" {load} " in found

        await eventually_async(lambda: is_shown("takes none: no room", "9.00"))
        await do(server, schedule("job"))
        queue = await told(server, "queue")
        assert queue.startswith("p1 (1 worker, 0 busy, 1 takes none)\n")
        assert queue.endswith("all workers take none now, 'workers' says why\n")
        await worker.send(Alive(facts=(Fact(name="pressure", value=""),)))
        assert (await worker.receive(GiveJob)).job.name == "job"


async def test_what_a_worker_says_while_it_waits_is_bounded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with run_server(tmp_path) as server, AsyncExitStack() as stack:
        worker = await asking(server, stack, "w")
        await worker.send(Alive(facts=tuple(Fact(name=str(number), value="") for number in range(65))))
        await worker.wait_closed()
        await eventually(lambda: "the number of a worker's facts" in caplog.text)


async def test_people_are_told_that_all_workers_are_under_pressure(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server, AsyncExitStack() as stack:
        await asking(server, stack, "pressed", Fact(name="pressure", value="no room"))
        await do(server, schedule("job"))
        said = await told(server, "queue")
        assert "p1 (1 worker, 0 busy, 1 takes none)\n" in said
        assert said.endswith("  all workers take none now, 'workers' says why\n")
        (found,) = json.loads(await told(server, "queue", "--json"))["queues"]
        assert (found["workers_waiting"], found["workers_pressed"], found["jobs"][0]["why"]) == (0, 1, "pressed")


async def test_what_a_template_needs(tmp_path: Path) -> None:
    config = tmp_path / "etc"
    config.mkdir()
    (config / "orb-build.template.p1").write_bytes(b"#!/bin/sh\n# builder: needs=kvm\n")
    async with run_server(tmp_path) as server, AsyncExitStack() as stack:
        await asking(server, stack, "plain")
        await do(server, ScheduleOrbBuild(period=Period.NEVER, job=OrbBuildJob(name="orb", opam_package="x")))
        able = await asking(server, stack, "able", *KVM)
        assert (await able.receive(GiveJob)).job.name == "orb"


async def told(server: LocalServer, *arguments: str) -> str:
    done = await trio.to_thread.run_sync(lambda: run_client(server, *arguments))  # type: ignore[arg-type]
    return done.stdout.decode()


async def test_people_are_told_what_no_worker_has(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server, AsyncExitStack() as stack:
        await asking(server, stack, "w3", *KVM)
        await do(
            server,
            schedule("vm", text=b"# builder: needs=kvm,gpu,memory>=16G\n", period=Period.NEVER),
            schedule("small", text=b"# builder: needs=gpu\n", period=Period.NEVER),
        )
        assert "no worker of p1 has gpu, memory>=16G\n" in await told(server, "queue")
        (found,) = json.loads(await told(server, "queue", "--json"))["queues"]
        assert [(each["job"], each["why"], each["unmet"]) for each in found["jobs"]] == [
            (
                "vm",
                "needs",
                {
                    "missing": ["gpu", "memory>=16G"],
                    "nearest": "w3",
                    "lacks": ["gpu", "memory>=16G"],
                    "instead": [],
                },
            ),
            ("small", "needs", {"missing": ["gpu"], "nearest": "w3", "lacks": ["gpu"], "instead": []}),
        ]
        info = await told(server, "info")
        assert "Warning: no worker of p1 has gpu, memory>=16G: what needs that waits\n" in info
        assert "\nno worker of p1 has gpu, memory>=16G: what needs that waits\n" in await told(server)
        await asking(server, stack, "w4", Fact(name="label.gpu", value=""), Fact(name="memory", value=str(2**40)))
        await eventually(lambda: server.query("select name from build") == [("small",)])
        assert "no worker of p1 has all that it needs; nearest: w4 lacks kvm\n" in await told(server, "queue")
        await do(server, schedule("typo", text=b"# builder: needs=kwm\n"))
        assert "no worker of p1 has kwm; there is kvm\n" in await told(server, "queue")
