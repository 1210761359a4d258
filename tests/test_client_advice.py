"""What is said of what was refused: what to do next."""

from uuid import UUID

import pytest
from client_harness import EMPTY, Server, assert_one_line
from scripted import script

from builder.extension.builds import CancelBuilds, Dequeue
from builder.messages import (
    DropPlatform,
    Execute,
    Failure,
    Info,
    InfoReply,
    Message,
    Success,
    UndropPlatform,
    Unschedule,
)
from builder.model import NEVER, Instant, Period, Queue, RunningBuild, ScheduleItem
from builder_client import advice
from builder_client.errors import Refused, Unreachable

NAMES = ("hello", "queued", "running")
INFO = InfoReply(
    schedule=tuple(ScheduleItem(next=NEVER, period=Period.NEVER, job=script(name)) for name in NAMES),
    queues=(Queue(platform="p1", jobs=(script("queued"),)), Queue(platform="p2", jobs=())),
    running=(RunningBuild(uuid=UUID(int=1), job=script("running"), started=Instant(0)),),
    dropped_platforms=("debian-9",),
)
MANY = InfoReply(
    schedule=tuple(ScheduleItem(next=NEVER, period=Period.NEVER, job=script(f"job{n}")) for n in range(20)),
    queues=(),
    running=(),
)


def cancel(name: str) -> CancelBuilds:
    return CancelBuilds(target=name)


@pytest.mark.parametrize(
    ("text", "request_", "info", "step"),
    [
        ("job name already used", None, None, "'edit' changes that job, 'unschedule' removes it"),
        ("job x: job name already used", None, None, "'edit' changes that job, 'unschedule' removes it"),
        ("unknown job helo", Unschedule(name="helo"), INFO, "did you mean hello?"),
        ("unknown job x", Unschedule(name="x"), INFO, "there are hello, queued, running"),
        ("unknown job x", Unschedule(name="x"), MANY, "'info' lists all jobs"),
        ("unknown job x", Unschedule(name="x"), EMPTY, "there are no jobs: 'schedule' adds one"),
        ("unknown job x", Unschedule(name="x"), None, "'info' lists all jobs"),
        ("execute failed: job not found", Execute(name="runing"), INFO, "did you mean running?"),
        ("execute failed: no such platform", Execute(name="hello", platform="x"), INFO, "there are p1, p2"),
        ("unknown platform x", DropPlatform(platform="x"), None, "'info' lists all platforms"),
        ("unknown platform debian9", UndropPlatform(platform="debian9"), INFO, "did you mean debian-9?"),
        ("unknown platform p1", UndropPlatform(platform="p1"), MANY, "no platform is dropped"),
        ("nothing runs that is called x", cancel("queued"), INFO, "it is queued: 'dequeue queued' takes it from there, 'queue' says why it waits"),
        ("nothing runs that is called x", cancel("hello"), INFO, "'next hello' says when it runs, 'history hello' what became of it"),
        ("nothing runs that is called x", cancel("12ab"), INFO, "'info' lists what runs, 'history' what has ended"),
        ("running is in no queue", Dequeue(name="running"), INFO, "it runs: 'cancel running' ends it"),
        ("hello is in no queue of p1", Dequeue(name="hello"), INFO, "'queue' shows what waits"),
        ("jobs would wait for each other: a after b after a", None, None, "take one of these from what another is after"),
        ("the server failed: the disk is full", None, None, "its log says more"),
        ("what nobody has refused yet", None, None, None),
    ],
)  # fmt: skip
def test_next_steps(text: str, request_: Message | None, info: InfoReply | None, step: str | None) -> None:
    assert advice.next_step(Refused(text, request=request_), lambda: info) == step


def test_an_error_is_one_line_with_the_next_step() -> None:
    def answer(command: Message) -> list[Message]:
        return [INFO, Success()] if isinstance(command, Info) else [Failure(message="unknown job helo")]

    with Server(answer) as server:
        done = server.run("unschedule", "helo")
    assert (done.returncode, done.stderr) == (3, b"builder-client: unknown job helo; did you mean hello?\n")
    assert_one_line(done.stderr)


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("can't reach the server at [::1]:9: Connection refused", "start builder-server there, or name another server"),
        ("can't reach the server at x:9: Name or service not known", "is the name right, and can this machine look it"),
        ("[::1]:9 did not answer within 60 s", "its log may say why"),
        ("lost the connection to [::1]:9: Connection reset by peer", "what changes the schedule may be done or not"),
        (
            "[::1]:9 closed the connection before it had answered in full",
            "what changes the schedule may be done or not",
        ),
    ],
)
def test_next_steps_where_there_is_no_answer(text: str, step: str) -> None:
    assert str(advice.advised(Unreachable(text))).startswith(f"{text}; {step}")
    told = Unreachable(f"{text}; it may have been done: give the command again, it does the rest")
    assert advice.advised(told) is told
