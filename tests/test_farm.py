"""The whole system as its users run it: real servers, workers and clients, killed and started again in the middle."""

import json
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from uuid import UUID

import farm
import pytest
import scripted
from farm import DEADLINE, Server, eventually, run_client, running_server, running_worker

from builder.model import Exited

# The jobs wait for files outside of their directory, to be held at a point: so they run without a sandbox.
WORKER = ("--loop", "--sandbox=none")


def client(server: Server, *arguments: str, status: int = 0) -> str:
    done = run_client(server, *arguments)
    assert done.returncode == status, (arguments, done.returncode, done.stdout, done.stderr)
    return done.stdout.decode()


def schedule(server: Server, name: str, platform: str, script: str, root: Path) -> None:
    path = root / f"{name}.sh"
    path.write_text(script)
    client(server, "schedule", name, platform, str(path), "--period", "never")


def builds(server: Server, name: str, state: str) -> list[UUID]:
    """Return the builds of a job in a state, the oldest first, as the database has them."""
    rows = server.query(f"select uuid from build where name = '{name}' and state = '{state}' order by started, rowid")
    return [UUID(row[0]) for row in rows]


async def finished(server: Server, name: str, count: int = 1) -> list[UUID]:
    await eventually(lambda: len(builds(server, name, "finished")) >= count, what=f"{count} finished builds of {name}")
    return builds(server, name, "finished")


async def held(server: Server, name: str, started: Path) -> UUID:
    """Wait until a job says with a file that it runs, and return its build."""
    await eventually(started.exists, what=f"{name} running")
    (uuid,) = builds(server, name, "running")
    return uuid


def held_script(root: Path) -> tuple[Path, Path, str]:
    """Return a job that says that it runs, and ends once it may; and the files for both."""
    started, gate = root / "started", root / "gate"
    script = f"echo before\ntouch {started}\nwhile [ ! -e {gate} ]; do sleep 0.05; done\necho after\necho done > out\n"
    return started, gate, script


async def test_a_job_is_scheduled_run_watched_and_stored(tmp_path: Path) -> None:
    started, gate, script = held_script(tmp_path)
    with running_server(tmp_path) as server, running_worker(server, "p1", *WORKER):
        schedule(server, "hello", "p1", script + "exit 3\n", tmp_path)
        uuid = await held(server, "hello", started)
        command = [sys.executable, "-m", "builder_client", f"--remote={server.remote}", "observe", str(uuid)[:8]]
        with subprocess.Popen(
            [*command, "--exit-status"], stdout=subprocess.PIPE, env=farm.environment(PYTHONUNBUFFERED="1")
        ) as watching:
            assert watching.stdout
            assert watching.stdout.readline().endswith(b"before\n")
            gate.touch()
            rest = watching.stdout.read().splitlines()
            assert watching.wait(DEADLINE) == 3
        assert rest[0].endswith(b" after")
        assert rest[-1].endswith(b" exited 3")
        await finished(server, "hello")
        found = server.execution("hello", uuid)
        assert found.result == Exited(code=3)
        assert [(file.path, file.content) for file in found.artifacts] == [("out", b"done\n")]
        shown = subprocess.run(
            [sys.executable, "-m", "builder_client.inspect", "--json", server.full("hello", uuid)],
            capture_output=True,
            check=True,
            env=farm.environment(),
            timeout=DEADLINE,
        )
        assert json.loads(shown.stdout)["artifacts"][0]["path"] == "out"
        # and it can be watched when it is over
        assert client(server, "observe", str(uuid)).count("\n") == len(rest) + 1


async def test_what_was_scheduled_runs_after_a_restart(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        schedule(server, "hello", "p1", "echo hi > out\n", tmp_path)
        assert server.terminate() == 0
    with running_server(tmp_path) as server, running_worker(server, "p1", *WORKER):
        (uuid,) = await finished(server, "hello")
        assert server.execution("hello", uuid).result == Exited(code=0)


async def test_each_platform_has_its_own_queue(tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(running_server(tmp_path))
        for platform in ("p1", "p2"):
            stack.enter_context(running_worker(server, platform, *WORKER))
            for number in range(3):
                schedule(server, f"{platform}-{number}", platform, "echo $BUILDER_PLATFORM\n", tmp_path)
        for platform in ("p1", "p2"):
            for number in range(3):
                (uuid,) = await finished(server, f"{platform}-{number}")
                assert server.execution(f"{platform}-{number}", uuid).console[0].line == platform.encode()


async def test_an_orb_build_waits_for_its_template(tmp_path: Path) -> None:
    with running_server(tmp_path) as server, running_worker(server, "p1", *WORKER):
        client(server, "orb-build", "orb", "retreat", "--period", "never")
        await eventually(lambda: "waits for a template" in server.log, what="a warning")
        queues = {queue["platform"]: queue["jobs"] for queue in json.loads(client(server, "info", "--json"))["queues"]}
        assert [job["job"] for job in queues["p1"]] == ["orb"]
        unfinished = server.config_dir / "new"
        unfinished.write_text("echo %%OPAM_PACKAGE%% on %%PLATFORM%% > built\n")
        unfinished.rename(server.config_dir / "orb-build.template.p1")
        (uuid,) = await finished(server, "orb")
        assert server.execution("orb", uuid).artifacts[0].content == b"retreat on p1\n"
        assert server.log.count("waits for a template") == 1


async def test_a_killed_workers_job_goes_to_another(tmp_path: Path) -> None:
    """Once the server has waited for it to come back."""
    started, gate, script = held_script(tmp_path)
    with running_server(tmp_path, "--grace=1s") as server:
        schedule(server, "hello", "p1", script, tmp_path)
        with running_worker(server, "p1", *WORKER) as worker:
            lost = await held(server, "hello", started)
            worker.kill()
        await eventually(lambda: builds(server, "hello", "lost") == [lost], what="the loss")
        gate.touch()
        with running_worker(server, "p1", *WORKER):
            (uuid,) = await finished(server, "hello")
        assert uuid != lost
        assert not server.full("hello", lost).exists()
        assert server.execution("hello", uuid).result == Exited(code=0)
        assert "worker lost" in client(server, "observe", str(lost))


async def test_a_killed_servers_job_goes_on(tmp_path: Path) -> None:
    started, gate, script = held_script(tmp_path)
    with ExitStack() as stack:
        server = stack.enter_context(running_server(tmp_path))
        worker = stack.enter_context(running_worker(server, "p1", *WORKER))
        schedule(server, "hello", "p1", script, tmp_path)
        held_by = await held(server, "hello", started)
        server.kill()
        await worker.wait_for_log("the job is kept")
        gate.touch()
        again = stack.enter_context(running_server(tmp_path, f"--port={server.port}"))
        (uuid,) = await finished(again, "hello")
        assert uuid == held_by
        assert builds(again, "hello", "lost") == []
        assert again.execution("hello", uuid).result == Exited(code=0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stopped_workers_job_is_lost_and_all_of_it_killed(tmp_path: Path, number: signal.Signals) -> None:
    started, _, script = held_script(tmp_path)
    with running_server(tmp_path) as server, running_worker(server, "p1", *WORKER) as worker:
        schedule(server, "hello", "p1", f"echo $$ > {tmp_path}/pid\n{script}", tmp_path)
        await held(server, "hello", started)
        worker.process.send_signal(number)
        assert await worker.wait_async() == 128 + number
        pid = (tmp_path / "pid").read_text().strip()
        assert not Path(f"/proc/{pid}").exists()
        await eventually(lambda: len(builds(server, "hello", "lost")) == 1, what="the loss")


async def test_five_workers_share_twenty_jobs(tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(running_server(tmp_path))
        await scripted.do(
            server, *(scripted.schedule(f"job-{number}", text=b"echo $BUILDER_JOB\n") for number in range(20))
        )
        for _ in range(5):
            stack.enter_context(running_worker(server, "p1", *WORKER))
        await eventually(
            lambda: server.query("select count(*) from build where state = 'finished'") == [(20,)], what="20 results"
        )
        assert server.query("select count(*), count(distinct name) from build") == [(20, 20)]
