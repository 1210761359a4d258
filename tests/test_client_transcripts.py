"""The recorded sessions of the original client: ours sends the same bytes for the same command line."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from client_harness import DEADLINE, assert_one_line, environment, run_client

from builder import codec
from builder.messages import Schedule

RECORDS = [
    json.loads(line) for line in (Path(__file__).parent / "data" / "transcripts.jsonl").read_text("ascii").splitlines()
]
SESSIONS = [record for record in RECORDS if "exit" in record and record["argv"][0] == "builder-client"]

EXIT = {0: 0, 124: 3}
"""Our exit status for the original's; 124 is its only one for errors."""

STDOUT = {
    "observe-latest": b"95.161ms one\n1.558s \xff\xfe\n3.061s exited 3\n",
    # Another text than the original's, on purpose: that one says that workers still running recreate the platform,
    # but they wait until it is undropped.
    "drop": b"Platform p1 dropped. Its workers may stay: they get no new job until it is undropped.\n",
}
"""What we print; nothing in most sessions, and tables for info."""


def frames(session: str, connection: int) -> Iterator[tuple[str, bytes]]:
    for record in RECORDS:
        if record["session"] == session and record.get("connection") == connection:
            yield record["dir"], bytes.fromhex(record["header"] + record["hex"])


class Replay:
    """Plays the server's part of a session and notes what the client sent in each connection."""

    def __init__(self, session: str) -> None:
        connections = {record["connection"] for record in RECORDS if record["session"] == session and "dir" in record}
        self._script = [list(frames(session, number)) for number in sorted(connections)]
        self.expected = [b"".join(data for way, data in part if way == "c2s") for part in self._script]
        self.sent: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(DEADLINE)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self._play)

    def _play(self) -> None:
        for part in self._script:
            sock, _ = self._listener.accept()
            with sock, sock.makefile("rb") as received:
                sock.settimeout(DEADLINE)
                sent = b""
                for way, data in part:
                    if way == "s2c":
                        sock.sendall(data)
                    else:
                        sent += received.read(len(data))
                sock.shutdown(socket.SHUT_WR)
                sent += received.read()
            self.sent.append(sent)
        self._listener.close()


@pytest.mark.parametrize("record", SESSIONS, ids=lambda record: record["session"])
def test_same_bytes_as_the_original(record: dict[str, Any], tmp_path: Path) -> None:
    session = record["session"]
    replay = Replay(session)
    arguments = record["argv"][1:]
    if arguments[0] == "schedule":
        command = codec.decode(next(data for way, data in frames(session, 0) if way == "c2s" and data[8] == 0xA5)[8:])
        assert isinstance(command, Schedule)
        script = tmp_path / arguments[3]
        script.write_bytes(command.job.script)
        arguments[3] = str(script)
    replay.thread.start()
    done = run_client(*arguments, env=environment(BUILDER_REMOTE=replay.address))
    replay.thread.join(DEADLINE)

    assert replay.sent == replay.expected
    # the original exits 0 after a failed observation: a fault that its users asked not to keep
    assert done.returncode == (3 if session == "observe-unknown" else EXIT[record["exit"]]), done.stderr
    if arguments[0] != "info":
        assert done.stdout == STDOUT.get(session, b"")
    if record["exit"]:
        # the same, and what to do next
        assert done.stderr.decode().startswith(record["output"].removesuffix("\n"))
        assert_one_line(done.stderr)


def test_info_shows_what_the_original_shows() -> None:
    replay = Replay("info-running")
    replay.thread.start()
    done = run_client("info", env=environment(BUILDER_REMOTE=replay.address))
    replay.thread.join(DEADLINE)
    lines = [line.split("  ") for line in done.stdout.decode().splitlines()]
    cells = [[cell.strip() for cell in line if cell] for line in lines]
    assert ["never", "never", "orb", "orb build of retreat"] in cells
    assert ["p1", "1", "orb", "orb build of retreat"] in cells
    assert any(line[0] == "2026-11-27T17:13:17Z" and line[2:] == ["weekly", "hello", "script on p1"] for line in cells)
    assert any(
        line[1:] == ["hello", "p1", "323b2a40-25d1-4f8e-90af-a4e2b9fd7f22", "2026-11-20T17:13:18Z"] for line in cells
    )
    # a date in 9999 or a script would be no help to anybody
    assert b"9999" not in done.stdout
    assert b"echo" not in done.stdout


def test_the_recordings_are_there() -> None:
    assert len(SESSIONS) == 16
