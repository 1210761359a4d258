import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
from client_harness import DEADLINE, EMPTY, Answer, Server, environment, run_in_terminal
from farm import run_client, start_server

from builder.extension.watching import RunningState
from builder.history import Cause
from builder.messages import InfoReply, Message, Success
from builder.model import NEVER, Instant, OrbBuildJob, Period, Queue, RunningBuild, ScheduleItem, ScriptJob
from builder_client.output import Printer
from builder_client.report import info_json, print_info

NOW = Instant(1_900_000_000_000)  # 2030-03-17T17:46:40Z
HOUR = 3600 * 1000
A, B = UUID(int=0xA << 124), UUID(int=0xB << 124)
HELLO = ScriptJob(name="hello", platform="p1", script=b"#!/bin/sh\nexit 3\n")
ORB = OrbBuildJob(name="orb", opam_package="retreat")
WIDE = "wide-" + "w" * 100

INFO = InfoReply(
    schedule=(
        ScheduleItem(next=NEVER, period=Period.NEVER, job=ORB),
        ScheduleItem(next=Instant(NOW.ms + 3 * HOUR + 5), period=Period.WEEKLY, job=HELLO),
        ScheduleItem(
            next=Instant(NOW.ms - 1), period=Period.HOURLY, job=ScriptJob(name=WIDE, platform="p2", script=b"\xff")
        ),
    ),
    queues=(Queue(platform="p2", jobs=()), Queue(platform="p1", jobs=(ORB, HELLO))),
    running=(
        RunningBuild(started=Instant(NOW.ms - 45_000), uuid=A, job=HELLO),
        RunningBuild(started=Instant(NOW.ms - 5_000), uuid=B, job=ScriptJob(name="orb", platform="p1", script=b"")),
    ),
    dropped_platforms=("old", "older"),
)


@pytest.fixture
def printed(tmp_path: Path) -> Callable[[InfoReply], str]:
    def printed(info: InfoReply) -> str:
        path = tmp_path / "out"
        with path.open("wb") as file:
            print_info(Printer(file, color="auto", environ={"TERM": "xterm"}), info, now=NOW)
        return path.read_text("utf-8")

    return printed


def test_tables(printed: Callable[[InfoReply], str]) -> None:
    gap = " " * (len(WIDE) - 5)
    assert printed(INFO) == (
        "Schedule\n"
        f"NEXT RUN                      WHEN    JOB  {gap}  WHAT\n"
        f"2030-03-17T17:46:39Z  due     hourly  {WIDE}  script on p2\n"
        f"2030-03-17T20:46:40Z  in 3 h  weekly  hello{gap}  script on p1\n"
        f"never                         never   orb  {gap}  orb build of retreat\n"
        "\n"
        "Queues\n"
        "PLATFORM  #  JOB      WHAT\n"
        "p1        1  orb      orb build of retreat\n"
        "p1        2  hello    script on p1\n"
        "p2           (empty)\n"
        "\n"
        "Running\n"
        "FOR   JOB    PLATFORM  UUID                                  STARTED\n"
        "5 s   orb    p1        b0000000-0000-0000-0000-000000000000  2030-03-17T17:46:35Z\n"
        "45 s  hello  p1        a0000000-0000-0000-0000-000000000000  2030-03-17T17:45:55Z\n"
        "\n"
        "Dropped platforms: old, older\n"
    )


def test_who_runs_what(tmp_path: Path) -> None:
    """As servers of our own protocol tell it: a build that has begun since is not in there."""
    told = {
        A: RunningState(
            uuid=A,
            job="hello",
            platform="p1",
            started=Instant(NOW.ms - 45_000),
            cause=Cause.DUE,
            expected=60_000,
            away=Instant(NOW.ms - 9_000),
            worker="box\x1b",
            holder="w1",
        )
    }
    with (tmp_path / "out").open("w+b") as file:
        print_info(Printer(file, color="auto", environ={}), INFO, now=NOW, told=told)
        file.seek(0)
        lines = file.read().decode().splitlines()
    start = lines.index("Running")
    assert [re.split("  +", line) for line in lines[start + 1 : start + 4]] == [
        ["FOR", "EXPECTED", "PROGRESS", "JOB", "PLATFORM", "UUID", "WORKER", "HOLDER"],
        ["5 s", "orb", "p1", str(B)],
        ["45 s", "1 min", "[#######---]", "75%", "hello", "p1", str(A), r"box\x1b, away for 9 s", "w1"],
    ]
    begun, known = info_json(INFO, now=NOW, told=told)["running"]
    assert (known["worker"], known["holder"]) == ("box\x1b", "w1")
    assert begun["worker"] is begun["holder"] is begun["away_since"] is None


def test_nothing_at_all(printed: Callable[[InfoReply], str]) -> None:
    assert printed(EMPTY) == "Schedule: no jobs\n\nQueues: no platforms\n\nRunning: nothing\n"


def test_a_hostile_name_is_a_name(printed: Callable[[InfoReply], str]) -> None:
    name = "[red]a\x1b[2J\nb\t\u202e\udcff:smile:"
    item = ScheduleItem(next=NEVER, period=Period.DAILY, job=ScriptJob(name=name, platform="\r", script=b""))
    text = printed(InfoReply(schedule=(item,), queues=(), running=(), dropped_platforms=("\x07",)))
    assert r"[red]a\x1b[2J\nb\t\u202e\xff:smile:  script on \r" in text
    assert text.endswith("Dropped platforms: \\x07\n")
    assert not any(ord(char) < 0x20 and char != "\n" for char in text)


def test_json() -> None:
    assert info_json(INFO, now=NOW) == {
        "schedule": [
            {
                "next": "2030-03-17T17:46:39.999Z",
                "period": "hourly",
                "job": WIDE,
                "kind": "script",
                "platform": "p2",
                "script": "\N{REPLACEMENT CHARACTER}",
                "script_base64": "/w==",
            },
            {
                "next": "2030-03-17T20:46:40.005Z",
                "period": "weekly",
                "job": "hello",
                "kind": "script",
                "platform": "p1",
                "script": "#!/bin/sh\nexit 3\n",
            },
            {"next": None, "period": "never", "job": "orb", "kind": "orb-build", "opam_package": "retreat"},
        ],
        "queues": [
            {
                "platform": "p1",
                "jobs": [
                    {"job": "orb", "kind": "orb-build", "opam_package": "retreat"},
                    {"job": "hello", "kind": "script", "platform": "p1"},
                ],
            },
            {"platform": "p2", "jobs": []},
        ],
        "running": [
            {"uuid": str(B), "job": "orb", "platform": "p1", "started": "2030-03-17T17:46:35Z"},
            {"uuid": str(A), "job": "hello", "platform": "p1", "started": "2030-03-17T17:45:55Z"},
        ],
        "dropped_platforms": ["old", "older"],
    }


def answer(_command: Message) -> Answer:
    return [INFO, Success()]


def test_json_as_a_program() -> None:
    with Server(answer) as server:
        done = server.run("info", "--json")
    assert done.returncode == 0
    assert done.stderr == b""
    assert json.loads(done.stdout) == info_json(INFO, now=NOW)


def test_a_pipe_gets_whole_rows_without_escapes() -> None:
    with Server(answer) as server:
        done = server.run("info", env=environment(COLUMNS="40"))
    assert WIDE.encode() in done.stdout
    assert b"\x1b" not in done.stdout


@pytest.mark.parametrize(
    ("variables", "options", "colours"),
    [
        ({}, [], True),
        ({"NO_COLOR": "1"}, [], False),
        ({"NO_COLOR": ""}, [], True),
        ({"TERM": "dumb"}, [], False),
        ({}, ["--color", "never"], False),
        ({"NO_COLOR": "1"}, ["--color", "always"], True),
    ],
)
def test_colours_on_a_terminal(variables: dict[str, str], options: list[str], *, colours: bool) -> None:
    with Server(answer) as server:
        status, shown = run_in_terminal(
            ["-r", server.address, "info", *options], environment(COLUMNS="80", **variables)
        )
    assert status == 0
    assert (b"\x1b[" in shown) is colours


def test_a_terminal_gets_rows_that_fit() -> None:
    with Server(answer) as server:
        _, shown = run_in_terminal(["-r", server.address, "info"], environment(COLUMNS="90", NO_COLOR="1"))
    lines = shown.decode().splitlines()
    assert max(map(len, lines)) <= 90


@pytest.mark.parametrize(("columns", "fits"), [(100, True), (50, False)])
def test_times_and_uuids_are_said_briefly_where_room_is_scarce(columns: int, *, fits: bool) -> None:
    with Server(answer) as server:
        _, shown = run_in_terminal(["-r", server.address, "info"], environment(COLUMNS=str(columns), NO_COLOR="1"))
    text = shown.decode()
    assert max(map(len, text.splitlines())) <= columns
    assert (str(A) in text) is fits
    assert f" {A!s:.8}" in text
    assert "2030-03-17T20:46:40Z" in text or "2030-03-17 20:46Z" in text


def test_long_tables_are_for_pipes() -> None:
    jobs = [ScriptJob(name=f"job{number}", platform="p", script=b"") for number in range(101)]
    many = InfoReply(
        schedule=tuple(ScheduleItem(next=NEVER, period=Period.NEVER, job=job) for job in jobs),
        queues=(),
        running=(),
        dropped_platforms=(),
    )
    with Server(lambda _: [many, Success()]) as server:
        _, shown = run_in_terminal(["-r", server.address, "info"], environment(COLUMNS="80", NO_COLOR="1"))
        piped = server.run("info").stdout
    assert b"Schedule (100 of 101)" in shown
    assert shown.count(b"never") == 200
    assert piped.count(b"never") == 202


def test_colours_in_a_pipe_only_when_asked_for() -> None:
    with Server(answer) as server:
        done = server.run("info", "--color", "always", env=environment(FORCE_COLOR="1"))
        plain = server.run("info", env=environment(FORCE_COLOR="1"))
    assert b"\x1b[" in done.stdout
    assert b"\x1b" not in plain.stdout


def test_a_table_that_fits_needs_no_library_for_it_and_who_speaks_no_tls_none_for_that() -> None:
    code = "import sys, atexit\natexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
    code += "from builder_client.cli import main\nmain()\n"
    with Server(answer) as server:
        argv = [sys.executable, "-c", code, "-r", server.address, "info"]
        done = subprocess.run(argv, capture_output=True, env=environment(), timeout=DEADLINE, check=True)
    assert b"asn1tools" in done.stderr.split()
    assert not {b"rich.console", b"rich.table", b"ssl"} & set(done.stderr.split())


async def test_a_disk_that_is_almost_full_is_warned_of(tmp_path: Path) -> None:
    async with start_server(tmp_path, "--min-free=9999T") as server:
        assert (
            run_client(server, "info")
            .stdout.decode()
            .endswith("\nWarning: the server's disk is almost full: no job is handed out until there is room\n")
        )
        assert json.loads(run_client(server, "info", "--json").stdout)["disk_full"] is True
    async with start_server(tmp_path, "--min-free=1") as server:
        assert b"Warning" not in run_client(server, "info").stdout
        assert json.loads(run_client(server, "info", "--json").stdout)["disk_full"] is False
