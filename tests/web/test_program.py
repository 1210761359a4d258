"""builder-web as a program: its memory, its stop, what keeps it from starting, and kill -9."""

import itertools
import os
import random
import resource
import signal
import socket
import threading
import time
from pathlib import Path

import forked
import httpx
import pytest
from bodies import body, large, uuid_of
from program import TIMEOUT, Program, running
from sites import authorization, make_directory

from builder_web.directory import DataDirectory
from builder_web.store import builds, opening
from builder_web.verification import DataDirectoryCheck

ADMIN = authorization("admin")
MB = 1024 * 1024


def upload(program: Program, content: object) -> httpx.Response:
    return httpx.post(f"{program.url}/upload", content=content, headers=ADMIN, timeout=60, trust_env=False)  # type: ignore[arg-type]


def connect(program: Program, request: bytes, receive_buffer: int = 0) -> socket.socket:
    connection = socket.socket()
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(30)
    connection.connect(("127.0.0.1", program.port))
    connection.sendall(request)
    return connection


def post_head(length: int) -> bytes:
    return (
        f"POST /upload HTTP/1.1\r\nHost: x\r\nauthorization: {ADMIN['authorization']}\r\n"
        f"Content-Length: {length}\r\n\r\n".encode()
    )


def faults(root: Path) -> list[str]:
    directory = DataDirectory(root)
    with opening.reading(directory.database) as connection:
        return [
            *DataDirectoryCheck(directory).faults(connection),
            *(str(path) for path in directory.staging.glob("*")),
        ]


def test_it_makes_no_core_dump(tmp_path: Path) -> None:
    """Whoever uploads says a password."""
    with running(tmp_path / "data") as program:
        assert resource.prlimit(program.process.pid, resource.RLIMIT_CORE) == (0, 0)


@pytest.mark.long
def test_large_bodies_and_consoles_take_no_more_memory_than_small_ones(tmp_path: Path) -> None:
    with running(tmp_path / "data") as program:
        assert upload(program, body(1)).status_code == 201
        before = program.memory()
        for number, content in enumerate(
            [large(2, size=192 * MB), large(3, lines=128 * 1024), large(4, lines=128 * 1024, size=128 * MB)], 2
        ):
            answer = upload(program, content)
            assert (number, answer.status_code, answer.text) == (number, 201, "")
        assert program.memory() - before < 32 * MB
        assert program.stop() == 0
    assert faults(tmp_path / "data") == []


def test_what_is_refused_early_takes_no_memory(tmp_path: Path) -> None:
    with running(tmp_path / "data") as program:
        assert upload(program, body(1)).status_code == 201
        before = program.memory()
        assert upload(program, large(1, size=192 * MB)).status_code == 409
        assert program.memory() - before < 16 * MB


def test_a_stop_in_the_middle_of_uploads_and_downloads(tmp_path: Path) -> None:
    root = tmp_path / "data"
    with running(root) as program:
        assert upload(program, large(1, size=64 * MB)).status_code == 201
        target = f"/job/large/build/{uuid_of(1)}/f/bin/large"
        reader = connect(program, f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), 4096)
        sender = connect(program, post_head(10**9) + body(2)[:100])
        idle = connect(program, b"")
        began = time.monotonic()
        assert program.stop() == 0
        assert time.monotonic() - began < 15
        for connection in (reader, sender, idle):
            connection.close()
    assert faults(root) == []


def test_a_stop_lets_an_upload_end(tmp_path: Path) -> None:
    root, content = tmp_path / "data", body(1)
    with running(root) as program:
        sender = connect(program, post_head(len(content)) + content[:-1])
        while not list((root / "_staging").glob("*/build/script.txt")):
            time.sleep(0.01)
        program.process.send_signal(signal.SIGTERM)
        while b"stopping" not in program.log.read_bytes():
            time.sleep(0.01)
        sender.sendall(content[-1:])
        assert sender.recv(100).startswith(b"HTTP/1.1 201 Created")
        sender.close()
        assert program.process.wait(timeout=30) == 0
    assert faults(root) == []


def test_a_hangup_ends_nothing(tmp_path: Path) -> None:
    with running(tmp_path / "data") as program:
        program.process.send_signal(signal.SIGHUP)
        while b"SIGHUP: nothing to read again" not in program.log.read_bytes():
            time.sleep(0.01)
        assert httpx.get(f"{program.url}/healthz", trust_env=False).text == "ok\n"
        assert program.stop(signal.SIGINT) == 0


def refused(*args: str) -> tuple[int, str]:
    done = forked.run("builder_web", *args, env=os.environ, timeout=TIMEOUT)
    assert done.stdout == b""
    assert done.stderr.count(b"\n") == 1, done.stderr
    return done.returncode, done.stderr.decode()


def test_what_keeps_it_from_starting_is_told_in_a_line(tmp_path: Path) -> None:
    root = tmp_path / "data"
    with running(root) as program:
        other = tmp_path / "other"
        make_directory(other)
        assert refused("-d", str(root)) == (3, f"builder-web: another builder-web uses {root}\n")
        status, line = refused("-d", str(other), "-p", str(program.port))
        assert (status, line) == (
            3,
            f"builder-web: can't listen on 127.0.0.1 port {program.port}: Address already in use\n",
        )
        status, line = refused("-d", str(other), "-h", "no.such.host.invalid")
        assert (status, "can't listen on no.such.host.invalid" in line) == (3, True)
    assert refused("-d", str(tmp_path / "none"))[0] == 3
    (tmp_path / "empty").mkdir()
    status, line = refused("-d", str(tmp_path / "empty"))
    assert (status, "builder-db migrate --datadir" in line) == (2, True)
    for args in (
        ["--vacuum", "all"],
        ["--vacuum", "'"],
        ["--trusted-proxy", "x"],
        ["--prefix", "x"],
        ["--max-upload", "0"],
    ):
        status, line = refused("-d", str(root), *args)
        assert (status, args[0] in line) == (2, True), line


def test_it_listens_where_it_is_told_to(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--host", "127.0.0.1", "--host", "::1", "--host", "127.0.0.2") as program:
        assert len({url.rpartition(":")[2] for url in program.urls}) == 1
        for url in program.urls:
            assert httpx.get(f"{url}/healthz", trust_env=False).text == "ok\n"
        assert program.urls[1].startswith("http://[::1]:")


def test_old_builds_are_removed_by_policy(tmp_path: Path) -> None:
    root = tmp_path / "data"
    with running(root) as program:
        for number in range(1, 6):
            assert upload(program, body(number)).status_code == 201
        program.stop()
    with running(root, "--vacuum", "except-latest 2 --job hello") as program:
        while b"removed 3 builds" not in program.log.read_bytes():
            time.sleep(0.01)
        program.stop()
    assert faults(root) == []
    assert len(list((root / "hello").iterdir())) == 2


@pytest.mark.long
def test_builder_db_beside_a_program_that_takes_uploads(tmp_path: Path) -> None:
    root = tmp_path / "data"
    with running(root) as program:
        statuses: list[int] = []

        def upload_some() -> None:
            for number in range(1, 25):
                files = {"bin/x": b"%d" % (number % 3), "same": b"same"}
                statuses.append(upload(program, body(number, artifacts=files)).status_code)

        uploading = threading.Thread(target=upload_some)
        uploading.start()
        while uploading.is_alive():
            for args in (["vacuum", "except-latest", "1"], ["verify-data-dir"]):
                arguments = (*args, "-d", str(root))
                done = forked.run("builder_web.administration", *arguments, env=os.environ, timeout=TIMEOUT)
                assert done.returncode == 0, done.stdout + done.stderr
        uploading.join()
        assert statuses == [201] * 24
        assert program.stop() == 0
    assert faults(root) == []


@pytest.mark.long
def test_a_directory_is_whole_whenever_the_program_is_killed(tmp_path: Path) -> None:
    root, numbers, chance = tmp_path / "data", itertools.count(1), random.Random(1)
    kept: list[int] = []
    for _ in range(30):
        with running(root) as program:
            assert faults(root) == []

            def upload_until_killed(program: Program = program) -> None:
                for number in numbers:
                    files = {"bin/x": b"%d" % (number % 4), "same": b"same", "large": bytes(number % 3 * MB)}
                    try:
                        if upload(program, body(number, artifacts=files)).status_code == 201:
                            kept.append(number)
                    except httpx.HTTPError:
                        return

            uploading = [threading.Thread(target=upload_until_killed) for _ in range(4)]
            for thread in uploading:
                thread.start()
            time.sleep(chance.uniform(0.05, 0.6))
            program.process.kill()
            for thread in uploading:
                thread.join()
    with running(root) as program:
        program.stop()
    assert faults(root) == []
    with opening.reading(root / "builder.sqlite3") as connection:
        found = {one.uuid for one in builds.all_builds(connection)}
    assert {str(uuid_of(number)) for number in kept} <= found  # what was answered is there
    assert kept
