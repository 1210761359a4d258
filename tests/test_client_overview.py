"""What builder-client alone prints: a server on one screen."""

from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
from client_harness import (
    EMPTY,
    Answer,
    Server,
    assert_one_line,
    closed_port,
    environment,
    run_client,
    run_in_terminal,
)

from builder.extension.watching import ResultState
from builder.history import Outcome
from builder.messages import Info, InfoReply, Message, Success
from builder.model import NEVER, Instant, Period, Queue, RunningBuild, ScheduleItem, ScriptJob
from builder_client.output import Printer
from builder_client.overview import Seen, show

NOW = Instant(1_900_000_000_000)  # 2030-03-17T17:46:40Z
MINUTE = 60_000


def job(number: int) -> ScriptJob:
    return ScriptJob(name=f"job{number}", platform=f"p{number % 6}", script=b"")


BUSY = InfoReply(
    schedule=(
        ScheduleItem(next=NEVER, period=Period.NEVER, job=job(99)),
        *(ScheduleItem(next=Instant(NOW.ms + n * MINUTE), period=Period.DAILY, job=job(n)) for n in range(9, -1, -1)),
    ),
    queues=tuple(Queue(platform=f"p{n}", jobs=tuple(map(job, range(n)))) for n in range(6)),
    running=tuple(
        RunningBuild(started=Instant(NOW.ms - n * MINUTE), uuid=UUID(int=n << 124), job=job(n)) for n in range(1, 8)
    ),
    dropped_platforms=("old",),
)


@pytest.fixture
def shown(tmp_path: Path) -> Callable[..., str]:
    def shown(info: InfoReply, *failed: ResultState, warnings: tuple[str, ...] = ()) -> str:
        path = tmp_path / "out"
        with path.open("wb") as file:
            show(
                Printer(file, color="auto", environ={"TERM": "xterm"}),
                Seen(info=info, failed=failed, warnings=warnings),
                name="127.0.0.1:1234",
                now=NOW,
            )
        return path.read_text("utf-8")

    return shown


def test_a_busy_server(shown: Callable[..., str]) -> None:
    assert shown(BUSY) == (
        "builder-server at 127.0.0.1:1234\n"
        "11 jobs, 15 queued, 7 running; 6 platforms, 1 dropped\n"
        "\n"
        "Running (4 of 7)\n"
        "FOR    JOB   PLATFORM  UUID                                  STARTED\n"
        "1 min  job1  p1        10000000-0000-0000-0000-000000000000  2030-03-17T17:45:40Z\n"
        "2 min  job2  p2        20000000-0000-0000-0000-000000000000  2030-03-17T17:44:40Z\n"
        "3 min  job3  p3        30000000-0000-0000-0000-000000000000  2030-03-17T17:43:40Z\n"
        "4 min  job4  p4        40000000-0000-0000-0000-000000000000  2030-03-17T17:42:40Z\n"
        "\n"
        "Next runs (4 of 10)\n"
        "NEXT RUN                        JOB\n"
        "2030-03-17T17:46:40Z  due       job0\n"
        "2030-03-17T17:47:40Z  in 1 min  job1\n"
        "2030-03-17T17:48:40Z  in 2 min  job2\n"
        "2030-03-17T17:49:40Z  in 3 min  job3\n"
        "\n"
        "Queues (4 of 6)\n"
        "PLATFORM  QUEUED  RUNNING  NEXT JOB\n"
        "p5        5       1        job0\n"
        "p4        4       1        job0\n"
        "p3        3       1        job0\n"
        "p2        2       1        job0\n"
    )


def test_failures_are_shown_too(shown: Callable[..., str]) -> None:
    failed = ResultState(
        uuid=UUID(int=7 << 124),
        job="job1",
        platform="p1",
        started=NOW,
        finished=Instant(NOW.ms - MINUTE),
        outcome=Outcome.FAILED,
    )
    text = shown(BUSY, *[failed] * 50)
    lines = text.splitlines()
    assert len(lines) == 23
    at = lines.index("Failed (2 of 50)")
    assert lines[at + 1 : at + 3] == [
        "ENDED      JOB   PLATFORM  OUTCOME  UUID",
        "1 min ago  job1  p1        failed   70000000-0000-0000-0000-000000000000",
    ]


def test_an_idle_server(shown: Callable[..., str]) -> None:
    assert shown(EMPTY) == (
        "builder-server at 127.0.0.1:1234\n"
        "0 jobs, 0 queued, 0 running; 0 platforms\n"
        "\n"
        "Running: nothing\n"
        "\n"
        "Next runs: none\n"
        "\n"
        "Queues: no platforms\n"
    )


def test_what_has_to_be_done_stands_above_all_tables(shown: Callable[..., str]) -> None:
    said = shown(EMPTY, warnings=tuple(f"warning {number}" for number in range(7)))
    assert said.splitlines()[2:9] == [
        *(f"warning {number}" for number in range(5)),
        "2 more like this: 'builder-client info' has all",
        "",
    ]


def test_a_hostile_name_is_a_name(shown: Callable[..., str]) -> None:
    hostile = ScriptJob(name="\x1b[2J\n", platform="\r\x07", script=b"")
    text = shown(
        InfoReply(
            schedule=(ScheduleItem(next=NOW, period=Period.DAILY, job=hostile),),
            queues=(Queue(platform="\r\x07", jobs=(hostile,)),),
            running=(RunningBuild(started=NOW, uuid=UUID(int=1), job=hostile),),
            dropped_platforms=("\x07",),
        )
    )
    assert not any(ord(char) < 0x20 and char != "\n" for char in text)


def busy(command: Message) -> Answer:
    assert command == Info()
    return [BUSY, Success()]


def test_one_screen_of_a_terminal() -> None:
    with Server(busy) as server:
        status, text = run_in_terminal(["-r", server.address], environment(COLUMNS="80", LINES="24", NO_COLOR="1"))
    lines = text.decode().splitlines()
    assert status == 0
    assert lines[0] == f"builder-server at {server.address}"
    assert len(lines) == 23  # and one for the prompt
    assert max(map(len, lines)) <= 80


def test_the_server_is_chosen_as_for_any_command() -> None:
    with Server(busy) as server:
        assert run_client(env=environment(BUILDER_REMOTE=server.address)).returncode == 0
    with closed_port() as port:
        done = run_client("-r", f"127.0.0.1:{port}")
    assert done.returncode == 5
    assert done.stdout == b""
    assert_one_line(done.stderr)
    assert b"Connection refused; start builder-server there, or name another server with -r HOST:PORT" in done.stderr
