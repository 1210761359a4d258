"""logs: fields and where they come from, text, JSON and the journal; how quiet a quiet hour is."""

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from uuid import UUID

import pytest
import trio
from authorities import Authority
from farm import DEADLINE, LocalServer, environment, eventually, run_server
from journal_driver import LARGE
from scripted import OUR_WORKER, OURS, WORKER, ScriptedPeer, connect
from trio.testing import MockClock, wait_all_tasks_blocked
from visitors import shown

from builder.extension.watching import Watch
from builder.extension.working import AskJob
from builder.messages import Hello, JobRequested
from builder.roles import HolderRole
from builder.runtime import journal, logs
from builder.runtime.logs import about, note

UUID_OF_A = UUID("323b2a40-25d1-4f8e-90af-a4e2b9fd7f22")
log = logging.getLogger("test")

JOURNALD = "/lib/systemd/systemd-journald"


@pytest.fixture(autouse=True)
def _kept() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:] = handlers


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Return what was said on standard error."""
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    return lambda: capsys.readouterr().err


def fail(what: str) -> None:
    raise ValueError(what)


# --- fields --------------------------------------------------------------------------------------------------------


async def test_tasks_and_threads_say_what_the_one_that_started_them_is_about() -> None:
    found: list[dict[str, object]] = []

    async def task() -> None:
        note(job="a")
        found.append(dict(logs.fields()))

    with about(peer="p", holder="h"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task)
        found.append(await trio.to_thread.run_sync(lambda: dict(logs.fields())))
        with about(holder=None, uuid=1):
            found.append(dict(logs.fields()))
    assert found == [{"peer": "p", "holder": "h", "job": "a"}, {"peer": "p", "holder": "h"}, {"peer": "p", "uuid": 1}]
    assert not logs.fields()


@pytest.mark.parametrize(
    ("fields", "begin"),
    [
        ({}, ""),
        ({"platform": "p1"}, ""),
        ({"peer": "[::1]:5"}, "[::1]:5: "),
        ({"peer": "[::1]:5", "holder": "ada"}, "[::1]:5 (ada): "),
        ({"peer": "[::1]:5", "uuid": UUID_OF_A}, f"build {UUID_OF_A}: "),
        ({"job": "a\x1b\n", "uuid": UUID_OF_A, "platform": "p1"}, rf"build {UUID_OF_A} of a\x1b\n on p1: "),
    ],
)
def test_text_begins_with_what_it_is_about(said: Callable[[], str], fields: dict[str, object], begin: str) -> None:
    logs.set_up("x", verbosity=0, form="text", stamp="x: ")
    with about(**fields):
        log.info("ends")
    assert said() == f"x: {begin}ends\n"


def test_nothing_reaches_the_log_raw(said: Callable[[], str]) -> None:
    logs.set_up("x", verbosity=0, form="text")
    try:
        fail("\x1b[2J\n2026-01-01T00:00:00.000Z info forged\x9b\udcff")
    except ValueError:
        log.exception("a\nb\r\x00%s", "\x85")
    lines = said().splitlines()
    assert lines[0].endswith(r"error a\nb\r\x00\x85")
    assert all(line.startswith("  ") and line.isprintable() for line in lines[1:])


def test_json_has_the_fields_as_keys(said: Callable[[], str]) -> None:
    logs.set_up("x", verbosity=0, form="json")
    with about(uuid=UUID_OF_A, job="a\x1b"):
        log.info("ends", extra={"fields": {"status": 200}})
    record = json.loads(said())
    del record["time"]
    assert record == {
        "level": "info",
        "logger": "test",
        "message": "ends",
        "uuid": str(UUID_OF_A),
        "job": r"a\x1b",
        "status": 200,
    }


# --- the journal ---------------------------------------------------------------------------------------------------


@pytest.fixture
def receiver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The journal, where it listens; standard error is said to be it."""
    if sys.platform != "linux":
        pytest.skip("the journal is Linux's")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as found:
        found.bind(str(tmp_path / "journal"))
        found.settimeout(DEADLINE)
        monkeypatch.setattr(journal, "SOCKET", tmp_path / "journal")
        status = os.fstat(2)
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        yield found


def decode(record: bytes) -> dict[str, str]:
    """Return the fields of a record, read as the journal does."""
    fields = {}
    while record:
        line, _, record = record.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(record[:8], "little")
            value, record = record[8 : 8 + size], record[9 + size :]
        fields[name.decode("ascii")] = value.decode()
    return fields


def test_a_record_of_the_journal(receiver: socket.socket) -> None:
    logs.set_up("builder-x", verbosity=0, form="text")
    with about(uuid=UUID_OF_A, job="a\nMESSAGE=forged", peer="[::1]:5", holder="ada"):
        log.warning("ends", extra={"fields": {"status": 200}})
    assert decode(receiver.recv(10_000)) == {
        "MESSAGE": rf"build {UUID_OF_A} of a\nMESSAGE=forged: ends",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "builder-x",
        "BUILDER_LOGGER": "test",
        "BUILDER_UUID": str(UUID_OF_A),
        "BUILDER_JOB": r"a\nMESSAGE=forged",
        "BUILDER_PEER": "[::1]:5",
        "BUILDER_HOLDER": "ada",
        "BUILDER_STATUS": "200",
    }


def test_a_traceback_is_one_record(receiver: socket.socket) -> None:
    logs.set_up("builder-x", verbosity=0, form="text")
    try:
        fail("wrong")
    except ValueError:
        log.exception("internal error")
    message = decode(receiver.recv(10_000))["MESSAGE"]
    assert message.startswith("internal error\n  Traceback (most recent call last):\n")
    assert message.endswith("\n  ValueError: wrong")


def test_a_record_that_no_datagram_holds(receiver: socket.socket) -> None:
    logs.set_up("builder-x", verbosity=0, form="text")
    log.error("%s", "x" * 5_000_000)
    data, descriptors, _, _ = socket.recv_fds(receiver, 100, 1)
    assert data == b""
    with os.fdopen(descriptors[0], "rb") as file:
        file.seek(0)
        assert len(decode(file.read())["MESSAGE"]) == 5_000_000
        with pytest.raises(PermissionError):
            os.truncate(file.fileno(), 0)


@pytest.mark.usefixtures("receiver")
def test_without_the_journal_there_is_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(journal, "SOCKET", Path("/nowhere"))
    logs.set_up("x", verbosity=0, form="text", stamp="")
    log.info("still here")
    assert capsys.readouterr().err == "still here\n"


@pytest.mark.parametrize("stream", ["", "1:2", "x"])
def test_standard_error_that_is_redirected(monkeypatch: pytest.MonkeyPatch, stream: str) -> None:
    assert not journal.is_standard_error({"JOURNAL_STREAM": stream})


def can_run_journald() -> bool:
    if os.geteuid() != 0 or not Path(JOURNALD).exists() or not shutil.which("unshare"):
        return False
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_run_journald(), reason="no journald can be run here")
def test_what_the_real_journald_keeps() -> None:
    driver = Path(__file__).with_name("journal_driver.py")
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, driver, JOURNALD],
        env=environment(),
        capture_output=True,
        timeout=DEADLINE,
        check=True,
    )
    begins, fault, large = map(json.loads, done.stdout.splitlines())
    for record in (begins, fault, large):
        assert record["_TRANSPORT"] == "journal"
        assert (record["BUILDER_UUID"], record["BUILDER_JOB"]) == ("u1", r"a\nMESSAGE=forged")
        assert (record["BUILDER_PLATFORM"], record["BUILDER_PEER"], record["BUILDER_HOLDER"]) == (
            "p1",
            "[::1]:5",
            "ada",
        )
    assert begins["MESSAGE"] == r"build u1 of a\nMESSAGE=forged on p1: begins"
    assert [record["PRIORITY"] for record in (begins, fault, large)] == ["4", "3", "6"]
    assert fault["MESSAGE"].endswith("\n  ZeroDivisionError: division by zero")
    assert large["MESSAGE"].count("x") == LARGE


# --- quiet ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_encrypted", [False, True], ids=["plain", "TLS"])
async def test_nothing_is_said_in_a_quiet_hour(
    tmp_path: Path, mock_clock: MockClock, caplog: pytest.LogCaptureFixture, *, is_encrypted: bool
) -> None:
    mock_clock.rate = 1  # the test's own deadlines are real
    caplog.set_level("INFO")
    authority = Authority(tmp_path / "ca")
    mine = authority.issue("ann", uris=[role.uri for role in HolderRole])

    def enter(server: LocalServer, hello: Hello) -> AbstractAsyncContextManager[ScriptedPeer]:
        return shown(server, mine, hello) if is_encrypted else connect(server, hello)

    async with (
        run_server(tmp_path, tls=authority.server().files if is_encrypted else None) as server,
        enter(server, WORKER) as classic,
        enter(server, OUR_WORKER) as worker,
        enter(server, OURS) as client,
    ):
        await classic.send(JobRequested(platform="p1"))
        await worker.send(AskJob(platform="p2", worker="w"))
        await client.send(Watch())
        await eventually(lambda: len(server.query("select * from platform")) == 2)
        caplog.clear()
        for _ in range(60):
            mock_clock.jump(60)
            await wait_all_tasks_blocked(0.001)
        assert caplog.records == []
