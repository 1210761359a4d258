"""The commands that change the schedule, the server's address, and how each kind of failure ends."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import forked
import pytest
from client_harness import (
    EMPTY,
    Answer,
    Server,
    assert_one_line,
    closed_port,
    environment,
    run_client,
    running,
    succeed,
)

from builder.messages import (
    MAX_SCRIPT,
    DropPlatform,
    Execute,
    Failure,
    Info,
    InfoReply,
    Message,
    Reschedule,
    Schedule,
    ScheduleOrbBuild,
    Success,
    Unschedule,
)
from builder.model import Instant, OrbBuildJob, Period, ScriptJob, text
from builder_client import commands
from builder_client.registry import SECTIONS, load

COMMANDS = {name: line for section in SECTIONS.values() for name, line in section.items()}

# --- what is sent ---


@pytest.mark.parametrize(
    ("arguments", "script", "sent"),
    [
        (
            ["schedule", "hello", "p1", "-"],
            b"\xff\0\r\n",
            Schedule(period=Period.DAILY, job=ScriptJob(name="hello", platform="p1", script=b"\xff\0\r\n")),
        ),
        (
            ["schedule", "--period", "hourly", "--", "-x", "ü", "-"],
            b"x",
            Schedule(period=Period.HOURLY, job=ScriptJob(name="-x", platform="ü", script=b"x")),
        ),
        (
            ["orb-build", "orb", "retreat"],
            b"",
            ScheduleOrbBuild(period=Period.DAILY, job=OrbBuildJob(name="orb", opam_package="retreat")),
        ),
        (["unschedule", b"a/b\xff"], b"", Unschedule(name=text(b"a/b\xff"))),
        (["reschedule", "hello", "2030-01-01"], b"", Reschedule(name="hello", next=Instant(1_893_456_000_000))),
        (
            ["reschedule", "hello", "2030-01-01T02:00:00.5+02:00", "--period=never"],
            b"",
            Reschedule(name="hello", next=Instant(1_893_456_000_500), period=Period.NEVER),
        ),
        (["execute", "hello"], b"", Execute(name="hello")),
        (["execute", "--platform", "p1", "hello"], b"", Execute(name="hello", platform="p1")),
    ],
)
def test_commands(arguments: list[str | bytes], script: bytes, sent: Message) -> None:
    with Server(succeed) as server:
        done = server.run(*arguments, stdin=script)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert server.seen == [sent]


def test_the_largest_script_is_sent_and_a_larger_one_is_not(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_bytes(b"x" * MAX_SCRIPT)
    with Server(succeed) as server:
        assert server.run("schedule", "hello", "p1", str(script)).returncode == 0
        with script.open("ab") as file:
            file.write(b"x")
        done = server.run("schedule", "hello", "p1", str(script))
    assert done.returncode == 2
    assert_one_line(done.stderr)
    assert b"more than 4 MiB" in done.stderr
    assert len(server.seen) == 1


@pytest.mark.parametrize("file", ["-", "/dev/null"])
def test_an_empty_script_is_not_sent(file: str) -> None:
    with Server(succeed) as server:
        done = server.run("schedule", "hello", "p1", file)
    assert (done.returncode, done.stderr) == (2, b"builder-client: the script is empty\n")
    assert server.seen == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["schedule", "a/b", "p1", "-"],
        ["schedule", "..", "p1", "-"],
        ["schedule", "hello", "p\n1", "-"],
        ["schedule", "x" * 129, "p1", "-"],
        ["schedule", b"\xff", "p1", "-"],
        ["schedule", "hello", "p1", "/nonexistent/script"],
        ["schedule", "hello", "p1", "/"],
        ["schedule", "hello", "p1"],
        ["schedule", "hello", "p1", "-", "--period", "monthly"],
        ["orb-build", "", "retreat"],
        ["reschedule", "hello", "tomorrow"],
        ["reschedule", "hello", "2030-02-30"],
        ["reschedule", "hello", "9999-12-31T23:59:59-01:00"],
        ["info", "more"],
        ["nonsense"],
        ["info", "--nonsense"],
        ["-r", "host:port", "info"],
        ["info", "-r", "::1:x"],
    ],
)
def test_wrong_usage_is_told_before_connecting(arguments: list[str | bytes]) -> None:
    with Server(succeed) as server:
        done = run_client(*arguments, env=environment(BUILDER_REMOTE=server.address))
    assert done.returncode == 2
    assert_one_line(done.stderr)
    assert done.stdout == b""
    assert server.seen == []


# --- where the server is ---


def test_the_address_is_taken_from_the_nearest_place() -> None:
    with closed_port() as closed, Server(succeed) as server:
        nowhere = f"127.0.0.1:{closed}"
        after = run_client("-r", nowhere, "execute", "a", "-r", server.address, env=environment(BUILDER_REMOTE=nowhere))
        before = run_client(f"--remote={server.address}", "execute", "b", env=environment(BUILDER_REMOTE=nowhere))
        from_environment = run_client("execute", "c", env=environment(BUILDER_REMOTE=server.address))
    assert [after.returncode, before.returncode, from_environment.returncode] == [0, 0, 0]
    assert server.seen == [Execute(name="a"), Execute(name="b"), Execute(name="c")]


def test_host_names_and_ipv6() -> None:
    with Server(succeed) as server:
        assert run_client("-r", f"localhost:{server.port}", "execute", "a").returncode == 0
    try:
        server = Server(succeed, socket.AF_INET6)
    except OSError as error:
        pytest.skip(f"this machine has no IPv6 loopback: {error}")
    with server:
        assert run_client("-r", f"[::1]:{server.port}", "execute", "b").returncode == 0
    assert server.seen == [Execute(name="b")]


# --- how it fails ---


def test_nobody_listens() -> None:
    with closed_port() as port:
        done = run_client("-r", f"127.0.0.1:{port}", "info")
    assert done.returncode == 5
    assert done.stderr.decode() == (
        f"builder-client: can't reach the server at 127.0.0.1:{port}: Connection refused; start builder-server there, or "
        "name another server with -r HOST:PORT (see 'builder-client --help')\n"
    )


def test_no_such_host() -> None:
    done = run_client("-r", "no-such-host.invalid", "info")
    assert done.returncode == 5
    assert_one_line(done.stderr)


def test_refused_by_the_server() -> None:
    with Server(lambda _: [Failure(message="unknown job \x1b[2J\nhello")]) as server:
        done = server.run("unschedule", "hello")
    assert done.returncode == 3
    assert done.stderr == b"builder-client: unknown job \\x1b[2J\\nhello; 'info' lists all jobs\n"


@pytest.mark.parametrize(
    "reply",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\0\0\0\0\4\xb6\2\5\0",
        b"\0\0\0\0\0\0\0\4\xaf\2\5\0",
        b"\x7f" * 100,
        b"\0\0\0\0\0\0\0\0",
    ],
)
def test_a_server_that_speaks_something_else(reply: bytes) -> None:
    with Server(lambda _: [reply]) as server:
        done = server.run("execute", "hello")
    assert done.returncode == 4
    assert_one_line(done.stderr)
    assert server.address.encode() in done.stderr


@pytest.mark.parametrize("replies", [[], [b"\0\0\0\0\0\0"], [EMPTY]])
def test_a_server_that_closes_too_early(replies: list[Message | bytes]) -> None:
    with Server(lambda _: replies) as server:
        done = server.run("info")
    assert done.returncode == 5
    assert done.stderr.decode() == (
        f"builder-client: {server.address} closed the connection before it had answered in full; what changes the "
        "schedule may be done or not: 'info' shows that; else try again\n"
    )
    assert done.stdout == b""


def test_a_server_that_closes_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with forked.start(
            "builder_client", "-r", address, "info", stderr=subprocess.PIPE, env=environment()
        ) as process:
            sock, _ = listener.accept()
            sock.recv(100)
            sock.close()
            _, stderr = process.communicate(timeout=30)
    assert process.returncode == 5
    assert_one_line(stderr)
    assert b"client version 13" in stderr


def test_a_platform_with_a_hostile_name_is_printed_harmlessly() -> None:
    with Server(succeed) as server:
        done = server.run("drop-platform", "\x1b[2J")
    assert server.seen == [DropPlatform(platform="\x1b[2J")]
    assert done.stdout.startswith(b"Platform \\x1b[2J dropped. Its workers")


def test_a_full_disk_is_told() -> None:
    with Server(lambda _: [EMPTY, Success()]) as server, Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "builder_client", "-r", server.address, "info"],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(),
            timeout=30,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == b"builder-client: No space left on device\n"


def test_a_mistyped_command() -> None:
    done = run_client("histroy")
    assert done.returncode == 2
    assert_one_line(done.stderr)
    assert b"Did you mean 'history'? (see 'builder-client --help')" in done.stderr


# --- start ---


@pytest.mark.parametrize("arguments", [["--help"], ["info", "--help"], ["completion", "fish"], ["--version"]])
def test_help_imports_nothing_slow(arguments: list[str | bytes]) -> None:
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: sys.stderr.write(' '.join(sys.modules)))\n"
        "from builder_client.cli import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=30,
        check=True,
    )
    assert done.stdout
    assert "click" in done.stderr.split()
    modules = set(done.stderr.split())
    assert not {"asn1tools", "rich", "trio", "httpx", "sqlalchemy", "builder_client.remote"} & modules
    imported = {module.removeprefix("builder_client.commands.") for module in modules} - modules
    assert imported <= {arguments[0]}


def test_commands_import_no_event_loop_and_no_tables() -> None:
    code = (
        "import sys\nfrom builder_client import registry, remote\n"
        "for section in registry.SECTIONS.values():\n    for name in section:\n        registry.load(name)\n"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), timeout=30, check=True
    )
    assert not {"rich", "trio", "asyncio", "httpx", "sqlalchemy"} & set(done.stdout.split())


# --- the table of commands ---


def test_every_command_is_in_the_table_once() -> None:
    folder = Path(commands.__file__).parent
    modules = sorted(path.stem.replace("_", "-") for path in folder.glob("*.py") if path.stem != "__init__")
    assert sorted(COMMANDS) == modules


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_tells_of_each_command_what_its_help_does(name: str) -> None:
    command = load(name)
    assert command.name == name
    assert command.help
    assert command.help.startswith(f"{COMMANDS[name]}\n")
    assert f"builder-client {name} " in command.help, "it has no example"


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"completion"}))
def test_every_command_speaks_json_and_has_an_example(name: str) -> None:
    command = load(name)
    assert any(parameter.name == "as_json" for parameter in command.params)
    assert command.help is not None
    assert re.search(r"JSON\b.*?[:\n]", command.help)
    assert f"builder-client {name}" in command.help


def test_the_help_of_edit_says_no_defaults() -> None:
    """What is not given stays as it is."""
    shown = run_client("edit", "--help").stdout.decode()
    assert "[default: run-once]" in run_client("schedule", "--help").stdout.decode()
    assert "--period" in shown
    assert "[default: " not in shown


def test_help_lists_every_command_in_one_line() -> None:
    shown = run_client("--help", env=environment(COLUMNS="80")).stdout.decode()
    for name, line in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(line)}$", shown, re.MULTILINE), name


# --- the Tab key ---


def complete(server_address: str, words: str, **variables: str) -> list[str]:
    """Return what bash would offer for the last of ``words``."""
    done = run_client(
        env=environment(
            BUILDER_REMOTE=server_address,
            _BUILDER_CLIENT_COMPLETE="bash_complete",
            COMP_WORDS=words,
            COMP_CWORD=str(len(words.split(" ")) - 1),
            **variables,
        )
    )
    assert done.stderr == b""
    return [line.partition(",")[2] for line in done.stdout.decode().splitlines() if line]


UUID_A = "323b2a40-25d1-4f8e-90af-a4e2b9fd7f22"


def completing(command: Message) -> Answer:
    assert command == Info()
    return [
        InfoReply(
            schedule=(),
            queues=(),
            running=running((UUID_A, "hello", "p1", 0)).running,
            dropped_platforms=("p1", "p2", "x;rm -rf ~", "$(id)", "a b", "-r", "p\n3", "`id`", "ü"),
        ),
        Success(),
    ]


def test_tab_offers_names_of_the_server_that_are_safe_on_a_command_line() -> None:
    with Server(completing) as server:
        assert complete(server.address, "builder-client undrop-platform ") == ["p1", "p2"]
        assert complete(server.address, "builder-client undrop-platform p2") == ["p2"]
        assert complete(server.address, "builder-client observe 3") == [UUID_A]
        assert complete("127.0.0.1:1", f"builder-client -r {server.address} observe 3") == [UUID_A]


def test_tab_offers_commands_and_periods_without_a_server() -> None:
    assert complete("127.0.0.1:1", "builder-client und") == ["undrop-platform"]
    assert complete("127.0.0.1:1", "builder-client schedule a b c --period w") == ["weekly"]


def test_tab_is_silent_without_a_server() -> None:
    with closed_port() as port:
        assert complete(f"127.0.0.1:{port}", "builder-client execute ") == []
    assert complete("no:address", "builder-client execute ") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    done = run_client("completion", shell)
    assert done.returncode == 0
    assert b"_BUILDER_CLIENT_COMPLETE" in done.stdout
