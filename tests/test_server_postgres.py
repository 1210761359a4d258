"""builder-server with its database in PostgreSQL: a farm through deaths and restarts, and what operators are told."""

import platform
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import forked
import httpx
import pytest
import scripted
import trio
from click.testing import CliRunner
from clusters import Cluster
from farm import DEADLINE, environment, eventually, free_port, run_client, run_server, running_worker, start_server
from scripted import info, schedule
from test_server_config import refused

from builder.messages import Failure
from builder.model import Exited
from builder.runtime import exposition, grouping
from builder.runtime.postgres import Location
from builder_server import cli, served
from builder_server.names import DATABASE, ELSEWHERE
from builder_server.served import Served, StartError


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL that a test may stop."""
    found = Cluster.make()
    found.create("farm")
    yield found
    found.kill()


JOB = """
touch {root}/started
while [ ! -e {root}/middle ]; do sleep 0.05; done
echo middle
touch {root}/said
while [ ! -e {root}/end ]; do sleep 0.05; done
echo end; echo done > out; touch {root}/ended
"""


async def test_a_farm_whose_server_is_killed_and_whose_database_goes_away(cluster: Cluster, tmp_path: Path) -> None:
    """A build that runs meanwhile is the same one at its end, with each line once."""
    path = tmp_path / "job.sh"
    path.write_text(JOB.format(root=tmp_path))
    port = f"--port={free_port()}"
    option = f"--database={cluster.url('farm')}"
    async with start_server(tmp_path, option, port) as server:
        with running_worker(server, "p1", "--loop", "--sandbox=none") as worker:
            done = await trio.to_thread.run_sync(run_client, server, "schedule", "a", "p1", str(path))
            assert done.returncode == 0, done.stderr
            await eventually((tmp_path / "started").exists)
            server.kill()
            async with start_server(tmp_path, option, port) as again:
                # the old session may take a moment to end
                await worker.wait_for_log("back")
                await trio.to_thread.run_sync(cluster.stop)
                (tmp_path / "middle").touch()
                await eventually((tmp_path / "said").exists)
                (tmp_path / "end").touch()
                await eventually((tmp_path / "ended").exists, what="a job that goes on without a database")
                await trio.to_thread.run_sync(cluster.start)
                await eventually(lambda: cluster.execute("SELECT 1 FROM build WHERE state = 'finished'", "farm"))
                ((uuid, owner, losses),) = cluster.execute("SELECT uuid, owner, losses FROM build", "farm")
                assert (owner, losses) == (platform.node(), 0)
                found = again.execution("a", UUID(uuid))
                assert found.result == Exited(code=0)
                assert [each.line for each in found.console][:2] == [b"middle", b"end"]
                assert [file.content for file in found.artifacts] == [b"done\n"]
                assert "Traceback" not in again.log
                assert again.terminate() == 0


async def test_a_command_while_the_database_is_away_fails_in_one_line(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with run_server(tmp_path, database=Location(url=cluster.url("farm"))) as server:
        monkeypatch.setattr(grouping, "LOCK_TIMEOUT", 0.3)
        await scripted.do(server, schedule("a"))
        await trio.to_thread.run_sync(cluster.stop)
        answer = await scripted.ask(server, schedule("b"))
        assert isinstance(answer, Failure)
        assert answer.message.startswith("the server failed: the database can't be written: connection ")
        await trio.to_thread.run_sync(cluster.start)
        monkeypatch.setattr(grouping, "LOCK_TIMEOUT", DEADLINE)
        await scripted.do(server, schedule("b"))
        assert [item.job.name for item in (await info(server)).schedule] == ["a", "b"]


@pytest.mark.parametrize("how", ["stopped", "frozen"])
async def test_a_server_without_its_database_is_not_ready(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Whatever connections to it are open still."""
    monkeypatch.setattr(grouping, "LOCK_TIMEOUT", 0.2)
    monkeypatch.setattr(exposition, "PATIENCE", 0.5)
    metrics = ("127.0.0.1", free_port())

    async def status() -> int:
        async with httpx.AsyncClient(trust_env=False, verify=False) as client:
            found = await client.get(f"http://127.0.0.1:{metrics[1]}/readyz", timeout=DEADLINE)
            return found.status_code

    async with run_server(tmp_path, database=Location(url=cluster.url("farm")), metrics=metrics):
        assert await status() == 200
        if how == "stopped":
            await trio.to_thread.run_sync(cluster.stop)
        else:
            cluster.signal(signal.SIGSTOP)
        assert await status() == 503
        if how == "frozen":
            cluster.signal(signal.SIGCONT)


async def test_two_servers_on_one_database(cluster: Cluster, tmp_path: Path) -> None:
    """What is scheduled at one is built at the other; each has a name of its own, which stays with its directory."""
    job = tmp_path / "job.sh"
    job.write_text("echo hello")
    option = f"--database={cluster.url('farm')}"
    for name in ("east", "west", "other", "alone"):
        (tmp_path / name).mkdir()
    async with (
        start_server(tmp_path / "east", option, "--name=east", "--advertise=east:1") as east,
        start_server(tmp_path / "west", option, "--name=west") as west,
    ):
        status, log = await trio.to_thread.run_sync(refused, tmp_path / "other", option, "--name=east")
        assert (status, log) == (
            5, "builder-server: a server called east works on the database at east:1: give each its own --name\n"
        )  # fmt: skip
        async with start_server(tmp_path / "other", option, "--name=south") as south:
            assert south.terminate() == 0, "the name that it was refused is not that of its directory"
        with running_worker(west, "p1", "--loop", "--sandbox=none"):
            done = await trio.to_thread.run_sync(run_client, east, "schedule", "a", "p1", str(job))
            assert done.returncode == 0, done.stderr
            await eventually(lambda: cluster.execute("SELECT 1 FROM build WHERE state = 'finished'", "farm"))
            assert cluster.execute("SELECT owner FROM build", "farm") == [("west",)]
            assert west.terminate() == 0
            assert cluster.execute("SELECT name FROM server", "farm") == [("east",)]
        await scripted.do(east, schedule("b"))
    status, log = refused(tmp_path / "west", option, "--name=other")
    assert status == 3
    assert log.endswith("has what the server called west has built: leave --name out, or name another --dir\n")
    status, log = refused(tmp_path / "alone", "--name=x")
    assert status == 2
    assert served.NOT_SHARED in log


# --- what operators are told ---------------------------------------------------------------------------------------


def command(*arguments: str) -> tuple[int, str]:
    done = forked.run("builder_server", *arguments, env=environment(), timeout=DEADLINE)
    said = (done.stdout + done.stderr).decode()
    assert said.count("\n") == 1, said
    return done.returncode, said


@pytest.mark.parametrize("url", ["postgresql://me:secret@host/db", "postgresql://host/db?user=me&password=secret"])
def test_a_password_on_a_command_line_is_refused(url: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.command, [f"--database={url}"])
    assert result.exit_code == 2
    assert "write the password to a file, and name that with --database-password-file" in result.output
    assert "secret" not in result.output


async def test_a_password_in_the_environment_is_shown_nowhere(cluster: Cluster, tmp_path: Path) -> None:
    url = cluster.url("farm").replace("builder@", "builder:secret@")
    async with start_server(tmp_path, env={"BUILDER_SERVER_DATABASE": url}, is_forked=False) as server:
        await scripted.do(server, schedule("a"))
        assert b"secret" not in Path(f"/proc/{server.pid}/cmdline").read_bytes()
        assert server.terminate() == 0
    assert "secret" not in server.log
    written = b"".join(each.read_bytes() for each in tmp_path.rglob("*") if each.is_file())
    assert b"secret" not in written
    cluster.stop()
    status, log = refused(tmp_path, env={"BUILDER_SERVER_DATABASE": url})
    assert status == 5
    assert log.startswith("builder-server: can't open the database farm at ")
    assert "secret" not in log


def test_what_is_no_address_is_refused(tmp_path: Path) -> None:
    status, log = refused(tmp_path, env={"BUILDER_SERVER_DATABASE": "mysql://me:secret@host/db"})
    assert (status, log) == (
        5,
        "builder-server: the address of the database is not one of PostgreSQL's: expected postgresql://USER@HOST/DATABASE\n",
    )


def test_a_systemd_credential_is_the_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = Served(directory=tmp_path, database="postgresql://host/db")
    assert named.place() == Location(url="postgresql://host/db")
    (tmp_path / served.CREDENTIAL).write_text("secret")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert named.place() == Location(url="postgresql://host/db", password_file=tmp_path / "database-password")
    assert "secret" not in repr(named.place())


def test_a_password_that_everybody_can_read_is_none(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret")
    named = Served(directory=tmp_path, database="postgresql://host/db", password_file=file)
    file.chmod(0o644)
    with pytest.raises(StartError, match=f"everybody can read {file}: chmod o= {file}"):
        named.place()
    file.chmod(0o640)
    assert named.place() == Location(url="postgresql://host/db", password_file=file)


def test_without_the_library_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "builder.runtime.postgres")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StartError, match="--database needs psycopg, which is not installed: pip install"):
        Served(directory=tmp_path, database="postgresql://host/db").place()


async def test_a_directory_and_its_database_belong_together(cluster: Cluster, tmp_path: Path) -> None:
    option = f"--database={cluster.url('farm')}"
    async with start_server(tmp_path, option) as server:
        await scripted.do(server, schedule("a"))
        data = f"--dir={server.data_dir}"
        status, said = command(option, data, "migrate")
        assert status == 3
        assert said.startswith(f"builder-server: another server uses {server.data_dir}: stop it")
        assert server.terminate() == 0
    for named, what in (((), "backup"), ((option,), "restore")):
        status, said = command(*named, data, what, f"{tmp_path}/x.tar")
        assert status == 7
        assert "is in PostgreSQL: save it with pg_dump and then the files" in said
    status, log = refused(tmp_path)
    assert status == 3
    assert (
        f"the database of {server.data_dir} is in PostgreSQL, farm at {cluster.directory}: name it with --database"
        in log
    )
    assert not (server.data_dir / DATABASE).exists()
    status, said = command(option, data, "migrate", "--to=0003")
    assert (status, said) == (0, "the database is at revision 0003\n")
    status, said = command(option, data, "import")
    assert (status, said) == (0, "imported 0, known already 0, damaged 0\n")
    (server.data_dir / ELSEWHERE).unlink()
    (server.data_dir / DATABASE).touch()
    status, log = refused(tmp_path, option)
    assert status == 3
    assert f"{server.data_dir} has a database of its own, {DATABASE}: leave --database out, or move it away" in log


def test_the_password_is_not_shown_with_the_options_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDER_SERVER_DATABASE", "postgresql://me:secret@host/db?password=secret")
    result = CliRunner().invoke(cli.command, ["--print-config"])
    assert 'database = "postgresql://***@host/db?' in result.output
    assert "secret" not in result.output


def test_what_is_wrong_with_the_database_is_found_without_a_start(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        cli.command,
        [
            f"--dir={tmp_path}",
            f"--config-dir={tmp_path}",
            "--database=mysql://db",
            "--database-password-file=none",
            "check-config",
        ],
    )
    assert result.exit_code == 2
    assert "the address of the database is not one of PostgreSQL's" in result.output
