"""Every command against a server that speaks the classic protocol alone."""

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from client_harness import COMMANDS, Answer, Server, assert_one_line, running

from builder.messages import Info, InfoReply, Message, Observe, Output, Success
from builder.model import Instant, Period, ScheduleItem, ScriptJob
from builder_client.classic import COMMANDS as CLASSIC
from builder_client.registry import SECTIONS

A = "323b2a40-25d1-4f8e-90af-a4e2b9fd7f22"
JOB = ScriptJob(name="hello", platform="p1", script=b"#!/bin/sh\n")


def answer(command: Message) -> Answer:
    match command:
        case Info():
            return [
                InfoReply(
                    schedule=(ScheduleItem(next=Instant(1_900_000_000_000), period=Period.WEEKLY, job=JOB),),
                    queues=(),
                    running=running((A, "hello", "p1", 0)).running,
                    dropped_platforms=(),
                ),
                Success(),
            ]
        case Observe(uuid=uuid):
            return [*(Output(uuid=uuid, line=line, timestamp=1) for line in (b"one", b"two", b"exited 0")), Success()]
    return [Success()]


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(answer) as running_server:
        yield running_server


def test_the_table_has_every_command() -> None:
    names = [name for section in SECTIONS.values() for name in section]
    assert [*CLASSIC] == names
    assert [*COMMANDS] == names


@pytest.mark.parametrize("name", CLASSIC)
def test_it_does_what_it_can(server: Server, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = server.run(name, *COMMANDS[name], stdin=b"# nothing\n")
    if CLASSIC[name].has:
        assert done.returncode == 0, done.stderr
        return
    assert done.returncode == 3
    assert_one_line(done.stderr)
    assert b"speaks only the classic protocol, which has no " in done.stderr
    assert done.stderr.endswith(f": {CLASSIC[name].instead}\n".encode())
    assert server.seen == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("schedule", "a", "p1", "-", "--priority", "3"),
        ("orb-build", "a", "b", "--not-now"),
        ("edit", "hello", "--priority", "3"),
        ("execute", "hello", "--check-reproducible"),
        ("log", "323b"),
        ("log", "323b", "--follow", "--tail", "3"),
    ],
)
def test_what_it_can_not_of_what_it_can(server: Server, arguments: tuple[str, ...]) -> None:
    done = server.run(*arguments, stdin=b"# nothing\n")
    assert done.returncode == 3
    assert_one_line(done.stderr)
    assert done.stderr.endswith(f": {CLASSIC[arguments[0]].instead}\n".encode())
    assert server.seen == []


def test_a_running_build_can_be_followed(server: Server) -> None:
    done = server.run("log", "323b", "--follow", "--grep", "t", "--raw")
    assert (done.stdout, done.stderr) == (b"two\n", b"")
    assert server.seen == [Info(), Observe(uuid=UUID(A))]


def test_what_is_exported_is_what_it_has(server: Server, tmp_path: Path) -> None:
    assert server.run("export", str(tmp_path)).returncode == 0
    assert 'period = "weekly"' in (tmp_path / "schedule.toml").read_text("utf-8")
