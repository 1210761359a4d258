"""builder-server's options: command line, environment, file; what it announces, what it logs, how it ends."""

import json
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner
from farm import DEADLINE, Server, environment, eventually, launch_server, log_lines, running_server, start_server
from scripted import ask, build, connect, do, info, schedule, take_job

from builder import __version__
from builder.messages import Unschedule
from builder.model import Aborted
from builder_server import cli, served, server
from builder_server.listening import Listening
from builder_server.names import LOCK
from builder_server.server import Settings

FIELDS = {"job", "uuid", "platform", "peer", "holder"}


def refused(root: Path, *arguments: str, env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Return exit status and log of a server that must not start."""
    (root / "server.log").unlink(missing_ok=True)
    program = launch_server(root, *arguments, env=env)
    output, _ = program.process.communicate(timeout=DEADLINE)
    assert output == b""
    assert "Traceback" not in program.log
    assert program.log.startswith("builder-server: ")
    assert program.log.count("\n") == 1
    return program.wait(), program.log


# --- where options come from ---------------------------------------------------------------------------------------


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Collect what the command line hands over, instead of serving."""
    found: list[Settings] = []

    async def serve(settings: Settings, _announce: object) -> None:
        found.append(settings)

    monkeypatch.setattr(server, "serve", serve)
    return found


def invoke(settings: list[Settings], *arguments: str, **env: str) -> Settings:
    result = CliRunner().invoke(cli.command, arguments, env={f"BUILDER_SERVER_{k}": v for k, v in env.items()})
    assert result.exit_code == 0, result.output
    return settings.pop()


def test_the_defaults_are_the_originals(settings: list[Settings]) -> None:
    assert invoke(settings) == Settings(
        listening=Listening(port=1234),
        data_dir=Path("/var/lib/builder"),
        config_dir=Path("/etc/builder"),
        upload=(),
        job_timeout=3600.0,
        grace=120.0,
    )


def test_the_directories_of_freebsd() -> None:
    code = (
        "import platform; platform.system = lambda: 'FreeBSD'\n"
        "from builder_server import cli\n"
        "print(cli.DATA_DIR, cli.CONFIG_DIR)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, timeout=DEADLINE, check=True
    )
    assert done.stdout == b"/var/db/builder /usr/local/etc/builder\n"


FILE = """
ip = ["::1", "localhost"]
port = 1
dir = "/file/data"
config-dir = "/file/etc"
upload = "http://file/"
job-timeout = 7200
min-free = "2G"
grace = "1m30s"
verbose = 1
log-format = "json"
"""


def test_a_file(settings: list[Settings], tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text(FILE)
    expected = Settings(
        listening=Listening(addresses=("::1", "localhost"), port=1),
        data_dir=Path("/file/data"),
        config_dir=Path("/file/etc"),
        upload=("http://file/",),
        job_timeout=7200.0,
        min_free=2 * 1024**3,
        grace=90.0,
    )
    assert invoke(settings, "--config", str(path)) == expected
    assert invoke(settings, CONFIG=str(path)) == expected
    path.write_text('ip = "::"\n')
    assert invoke(settings, f"--config={path}").listening.addresses == ("::",)


def test_the_environment(settings: list[Settings]) -> None:
    environment = {"IP": "::1 127.0.0.1", "PORT": "2", "DIR": "/d", "CONFIG_DIR": "/c", "UPLOAD": "u v"}
    found = invoke(settings, **environment, JOB_TIMEOUT="1.5", GRACE="0")
    assert found == Settings(
        listening=Listening(addresses=("::1", "127.0.0.1"), port=2),
        data_dir=Path("/d"),
        config_dir=Path("/c"),
        upload=("u", "v"),
        job_timeout=1.5,
        grace=0.0,
    )


def test_which_wins(settings: list[Settings], tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text("port = 1\njob-timeout = 1\nip = ['::1']\n")
    found = invoke(settings, f"--config={path}", "--port=3", PORT="2", JOB_TIMEOUT="2")
    assert (found.listening.port, found.job_timeout, found.listening.addresses) == (3, 2.0, ("::1",))
    found = invoke(settings, "--port=3", f"--config={path}")  # wherever it stands
    assert (found.listening.port, found.job_timeout) == (3, 1.0)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("prot = 1", "unknown option 'prot': 'port' is one"),
        ("config = 'x'", "unknown option 'config'"),
        ("nonsense = 1", "unknown option 'nonsense'; there are advertise, "),
        ("min-free = 'much'", "'much' is not a size"),
        ("[server]\nport = 1", "unknown option 'server': options stand in no table, so leave [server] out"),
        ("help = true", "unknown option 'help'"),
        (
            "grace = '1m'\nport = ",
            "server.toml: line 2, 'port =': Invalid value; write KEY = VALUE, with text in quotes",
        ),
        ("ip = 127.0.0.1", "line 1, 'ip = 127.0.0.1': "),
        ("port = true", "--port takes a value, and is neither true nor false"),
        ("insecure = 'maybe'", "'--insecure': 'maybe' is not a valid boolean"),
        ("port = 'x'", "'--port': 'x' is not a valid integer"),
        ("port = 65536", "65536 is not in the range"),
        ("job-timeout = -1", "'--job-timeout': '-1' is not a duration"),
        ("job-timeout = nan", "'--job-timeout': 'nan' is not a duration"),
        ("log-format = 'xml'", "'xml' is not one of"),
        ("builder-id = 'my server'", "'--builder-id': 'my server' is no URI such as https://"),
        ("ip = 5", "--ip takes text in quotes"),
        ("\xff = 1", "can't read"),
        (None, "can't read"),
    ],
)
def test_a_wrong_file(settings: list[Settings], tmp_path: Path, content: str | None, reason: str) -> None:
    path = tmp_path / "server.toml"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    result = CliRunner().invoke(cli.command, [f"--config={path}"])
    assert (result.exit_code, settings) == (2, [])
    assert reason in " ".join(result.output.split())


# --- addresses -----------------------------------------------------------------------------------------------------


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_the_announcement(tmp_path: Path) -> None:
    with running_server(tmp_path) as found:
        assert re.fullmatch(
            rf"builder-server {re.escape(__version__)} listening on 127\.0\.0\.1:\d+", found.announcement
        )
        with socket.create_connection(("127.0.0.1", found.port), DEADLINE):
            pass
        assert found.terminate() == 0
        assert found.process.stdout
        assert found.process.stdout.read() == b""


def test_several_addresses_and_a_host_name(tmp_path: Path) -> None:
    with running_server(tmp_path, "--ip=127.0.0.2", "--ip=127.0.0.3", "--ip=localhost") as found:
        assert [host for host, _ in found.addresses][:2] == ["127.0.0.2", "127.0.0.3"]
        assert {host for host, _ in found.addresses[2:]} <= {"127.0.0.1", "::1"}
        assert len({port for _, port in found.addresses}) == 1
        for address in found.addresses:
            with socket.create_connection(address, DEADLINE):
                pass


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_ipv6(tmp_path: Path) -> None:
    with running_server(tmp_path, "--ip=::1") as found:
        assert re.search(r" listening on \[::1\]:\d+$", found.announcement)
        with socket.create_connection(("::1", found.port), DEADLINE):
            pass
        with pytest.raises(OSError, match="refused"), socket.create_connection(("127.0.0.1", found.port), DEADLINE):
            pass


def test_addresses_that_can_not_be_had(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, log = refused(tmp_path, f"--port={port}")
        said = f"builder-server: can't listen on 127.0.0.1:{port}: Address already in use: "
        assert (status, log) == (3, f"{said}stop what listens there, or take another --port\n")
    status, log = refused(tmp_path, "--ip=no.such.host.invalid")
    assert status == 3
    assert log.startswith("builder-server: can't listen on no.such.host.invalid:0: ")
    assert "address: it is none of this machine's\n" in refused(tmp_path, "--ip=192.0.2.1")[1]
    for address in ("127.0.0.1:1234", "[::1]:1234", "localhost:1234"):
        status, log = refused(tmp_path, f"--ip={address}")
        assert (status, log) == (
            3,
            f"builder-server: can't listen on {address}: its port stands in --port, which all addresses share\n",
        )


# --- directories ---------------------------------------------------------------------------------------------------


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "missing"
    status, log = refused(tmp_path, f"--dir={path}")
    assert status == 3
    assert log.startswith(f"builder-server: can't use the data directory {path}: No such file or directory; create it")
    assert not path.exists()


def test_nobody_else_can_lock_its_directory(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch(0o644)  # of an earlier release
    with served.held(tmp_path):
        assert stat.S_IMODE((tmp_path / LOCK).stat().st_mode) == 0o600


def test_a_second_server_on_the_same_directory(tmp_path: Path) -> None:
    with running_server(tmp_path) as first:
        program = launch_server(tmp_path)
        assert (program.wait(), program.process.poll()) == (3, 3)
        assert program.process.stdout
        program.process.stdout.close()
        assert (
            f"builder-server: another server uses {first.data_dir}: stop it, or name another directory with --dir\n"
            in program.log
        )
    with running_server(tmp_path):  # the lock of a killed one does not stay
        pass


def test_a_database_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "builder.sqlite3").write_bytes(b"junk" * 1000)
    status, log = refused(tmp_path)
    assert status == 5
    assert "can't open the database" in log


def test_a_configuration_directory_that_is_not_there_is_no_templates(tmp_path: Path) -> None:
    with running_server(tmp_path, f"--config-dir={tmp_path}/none") as found:
        assert found.terminate() == 0


# --- logs ----------------------------------------------------------------------------------------------------------


async def provoke(found: Server) -> None:
    """Have the server say something of every level but error, with all that a line might trip over."""
    await do(found, schedule('na"me \\ ü'))
    await ask(found, Unschedule(name="x\n{}\x1b[2J%s"))
    await build(found)
    async with connect(found) as peer:
        await peer.send_raw(b"\xff" * 100)
        await peer.wait_closed()
    await info(found)


async def test_json_lines(tmp_path: Path) -> None:
    async with start_server(tmp_path, "--log-format=json", "-v") as found:
        await provoke(found)
        await found.wait_for_log("not let in")
        lines = [json.loads(line) for line in found.log.splitlines()]
        assert all(set(line) - FIELDS == {"time", "level", "logger", "message"} for line in lines)
        (scheduled,) = [line for line in lines if line["message"].startswith("Schedule ")]
        assert (scheduled["job"], scheduled["platform"]) == ('na"me \\ ü', "p1")
        assert scheduled["peer"].startswith("127.0.0.1:")
        (waits,) = [line for line in lines if line["message"].startswith("waits for a job ")]
        assert waits["platform"] == "p1"
        (finished,) = [line for line in lines if line["message"] == "finished: exited 0"]
        assert set(finished) > FIELDS - {"holder"}
        assert (finished["job"], finished["platform"]) == ('na"me \\ ü', "p1")
        assert {line["level"] for line in lines} == {"debug", "info", "warning"}
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line["time"]) for line in lines)
        assert any('Schedule na"me \\ ü' in line["message"] for line in lines)


@pytest.mark.parametrize(
    ("options", "levels"),
    [
        ((), {"info", "warning"}),
        (("-v",), {"debug", "info", "warning"}),
        (("-q",), {"warning"}),
        (("-q", "-q"), set()),
        (("-v", "-q"), {"info", "warning"}),
    ],
)
async def test_text_lines(tmp_path: Path, options: tuple[str, ...], levels: set[str]) -> None:
    async with start_server(tmp_path, *options) as found:
        await provoke(found)
        assert found.terminate() == 0
        parts = [re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (\w+) .", line) for line in found.log.splitlines()]
        assert {part[1] if part else None for part in parts} == levels
        assert found.log.isascii() or "ü" in found.log
        assert "\x1b" not in found.log


async def test_what_peers_do_is_one_line_each(tmp_path: Path) -> None:
    async with start_server(tmp_path) as found:
        await provoke(found)
        await found.wait_for_log("not let in")
        for parts in (
            ("Schedule na",),
            ("Unschedule refused",),
            (": begins at",),
            (" on p1: finished: exited 0",),
            ("not let in",),
        ):
            assert len(log_lines(found.log, *parts)) == 1
        assert len(found.log.splitlines()) == 5


# --- the rest ------------------------------------------------------------------------------------------------------


async def test_the_time_limit_of_jobs(tmp_path: Path) -> None:
    async with start_server(tmp_path, env={"BUILDER_SERVER_JOB_TIMEOUT": "0.1"}) as found:
        await do(found, schedule("a"))
        async with take_job(found) as taken:
            await taken.peer.wait_closed()
        await eventually(found.full("a", taken.uuid).exists)
        assert found.execution("a", taken.uuid).result == Aborted(
            message="timeout after 0.1s (--job-timeout of the server)"
        )


@pytest.mark.parametrize(
    ("arguments", "status", "output"),
    [
        (["--version"], 0, f"builder-server, version {__version__}\n"),
        (["--help"], 0, "Usage: builder-server"),
        (["--port=x"], 2, "builder-server: "),
        (["--no-such"], 2, "builder-server: "),
        (["extra"], 2, "builder-server: "),
    ],
)
def test_how_it_ends(arguments: list[str], status: int, output: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "builder_server", *arguments],
        env=environment(),
        capture_output=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == status
    assert (done.stderr if status else done.stdout).decode().startswith(output)
    assert not (done.stdout if status else done.stderr)


@pytest.mark.parametrize("line", ["job-timeout = [3]", "port = {a = 1}", "dir = ['/x']"])
def test_an_option_of_the_wrong_kind(tmp_path: Path, line: str) -> None:
    path = tmp_path / "server.toml"
    path.write_text(line)
    status, log = refused(tmp_path, f"--config={path}")
    assert status == 2
    assert log.startswith("builder-server: ")
    assert f"{line.split(maxsplit=1)[0]} must have one value" in log
    assert log.count("\n") == 1


def test_an_upload_url_with_an_impossible_port(tmp_path: Path) -> None:
    status, log = refused(tmp_path, "--upload=http://localhost:99999/upload")
    assert (status, log) == (
        2,
        "builder-server: the port of the upload URL must be a number from 1 to 65535\n",
    )
