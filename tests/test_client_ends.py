"""How every command ends when something is wrong: the exit status of the manual, one line, and no traceback."""

import contextlib
import os
import queue
import signal
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from client_harness import (
    COMMANDS,
    DEADLINE,
    assert_one_line,
    closed_port,
    run_client,
)
from farm import Server, eventually, start_server
from scripted import do, schedule, take_job

from builder.messages import Execute

SCRIPT = b"# nothing\n"
"""Standard input that is a script, and a schedule file as well."""

REMOTE = {name: arguments for name, arguments in COMMANDS.items() if name != "completion"}
NAMED = sorted(name for name, arguments in REMOTE.items() if arguments[:1] == ("hello",) and name != "schedule")
UUIDS = sorted(name for name, arguments in REMOTE.items() if arguments[:1] == ("323b",))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def client(remote: str, name: str, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    return run_client("-r", remote, name, *arguments, stdin=SCRIPT)


@contextmanager
def listening(says: bytes) -> Iterator[tuple[str, "queue.Queue[bytes]"]]:
    """Have something at an address that is no builder-server, and says that; yield the address and what it hears."""
    heard: queue.Queue[bytes] = queue.Queue()

    def serve() -> None:
        with contextlib.ExitStack() as connections, contextlib.suppress(OSError):  # the listener is shut down
            while True:
                connection = connections.enter_context(listener.accept()[0])
                heard.put(connection.recv(1000))
                if says:
                    connection.sendall(says)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}", heard
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(DEADLINE)


@pytest.mark.parametrize("name", REMOTE)
def test_no_server(name: str) -> None:
    with closed_port() as port:
        done = client(f"127.0.0.1:{port}", name, *REMOTE[name])
    assert (done.returncode, done.stdout) == (5, b"")
    assert_one_line(done.stderr)
    assert b"Connection refused" in done.stderr


@pytest.mark.parametrize("name", REMOTE)
def test_no_builder_server(name: str) -> None:
    with listening(b"HTTP/1.1 400 Bad Request\r\n\r\n") as (address, _):
        done = client(address, name, *REMOTE[name])
    assert (done.returncode, done.stdout) == (4, b"")
    assert_one_line(done.stderr)
    assert b"does not follow the protocol" in done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_wrong_usage(name: str) -> None:
    with closed_port() as port:
        done = client(f"127.0.0.1:{port}", name, *COMMANDS[name], "--nonsense")
    assert (done.returncode, done.stdout) == (2, b"")
    assert_one_line(done.stderr)
    assert done.stderr.endswith(f"(see 'builder-client {name} --help')\n".encode())


def is_waiting(pid: int) -> bool:
    """Return whether a process waits in the kernel: Python notes a signal right before that, and waits all the same."""
    return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] == "S"


def test_ctrl_c() -> None:
    started: queue.Queue[int] = queue.Queue()
    with listening(b"") as (address, heard), ThreadPoolExecutor(len(REMOTE)) as threads:
        runs = {
            name: threads.submit(
                run_client, "-r", address, name, *arguments, stdin=SCRIPT, on_started=started.put
            )
            for name, arguments in REMOTE.items()
        }  # fmt: skip
        for _ in runs:
            assert heard.get(timeout=DEADLINE)
        for _ in runs:
            pid = started.get(timeout=DEADLINE)
            trio.run(partial(eventually, partial(is_waiting, pid)))
            os.kill(pid, signal.SIGINT)
        for name, run in runs.items():
            done = run.result(DEADLINE)
            # behind the ^C of a terminal the prompt begins a line of its own
            assert (name, done.returncode, done.stdout, done.stderr) == (name, 130, b"", b"\n")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with start_server(tmp_path) as running_server:
        yield running_server


async def test_nothing_of_that_name(server: Server) -> None:
    for name in (*NAMED, *UUIDS):
        done = await trio.to_thread.run_sync(client, server.remote, name, *REMOTE[name])
        assert (name, done.returncode, done.stdout) == (name, 3, b"")
        assert_one_line(done.stderr)


def end_of(server: Server, name: str, uuid: str, stdout: int) -> tuple[str, int, bytes]:
    """Run a command that has something to say with that standard output; return how it ended."""
    known = {"323b": uuid} | ({"hello": "another"} if name == "schedule" else {})
    arguments = [known.get(argument, argument) for argument in COMMANDS[name]]
    as_json = [] if name in ("completion", "uploads") or "--json" in arguments else ["--json"]
    done = run_client("-r", server.remote, name, *arguments, *as_json, stdin=SCRIPT, stdout=stdout)
    return name, done.returncode, done.stderr


async def test_a_full_disk(server: Server) -> None:
    await do(server, schedule("hello"))
    full = os.open("/dev/full", os.O_WRONLY)
    async with take_job(server) as finished:
        await finished.finish()
    await do(server, Execute(name="hello"))
    async with take_job(server) as running:
        await running.say(b"a line")
        await do(server, Execute(name="hello"))
        refused = {"retry-upload", "drop-upload"}  # by a server that uploads nothing
        for name in sorted((name for name in COMMANDS if name not in refused), key="cancel".__eq__):
            build = finished if name in ("fetch", "compare") else running
            end = await trio.to_thread.run_sync(end_of, server, name, str(build.uuid), full)
            assert end == (name, 1, b"builder-client: No space left on device\n")
    os.close(full)


async def test_nobody_reads(server: Server) -> None:
    await do(server, schedule("hello"))
    read, write = os.pipe()
    os.close(read)
    async with take_job(server) as running:
        await running.say(b"a line")
        for name in ("show", "info", "history", "watch", "log", "observe", "completion"):
            end = await trio.to_thread.run_sync(end_of, server, name, str(running.uuid), write)
            assert end == (name, 141, b"")
    os.close(write)
