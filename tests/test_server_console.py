"""The console of a build whose server is gone: observers are sent what is whole of it, whatever a crash left at its end."""

import os
import tracemalloc
from pathlib import Path
from uuid import UUID

import pytest
import trio

from builder.messages import MIB
from builder.outputs import Outputs
from builder_server.console import MAX_LINE, READ_SIZE, ConsoleWriter, OldConsole, repair

UUID_ = UUID(int=5)
OUTPUTS = Outputs(UUID_)
TIME = 123_456_789


def lines(*of: bytes, timestamp: int = TIME) -> bytes:
    return OUTPUTS.join(of, timestamp)


def read(path: Path) -> bytes:
    """Return all that an observer is sent."""
    pieces: list[bytes] = []
    with path.open("rb") as file:
        old = OldConsole(file.fileno(), os.fstat(file.fileno()).st_size)
        while piece := old.read():
            assert len(piece) <= READ_SIZE
            pieces.append(piece)
    return b"".join(pieces)


SHORT = lines(b"", b"x", b"line") + lines(b"later", timestamp=2**61) + lines(b"at once", timestamp=0)
MANY = lines(*(b"line %d" % number for number in range(5000)))
LONG = lines(b"x" * 300_000)
WHOLE = {
    "nothing": b"",
    "short lines": SHORT,
    "many lines": MANY,
    "a long line": LONG,
    "some of all": SHORT + LONG + MANY + LONG * 3 + SHORT,
    "up to a piece": lines(b"x" * (READ_SIZE - 100)) + MANY,
}
LEFT = {
    "nothing": b"",
    "a few zeros": bytes(5),
    "a block of zeros": bytes(4096),
    "many zeros": bytes(100_000),
    "a short line without its end": lines(b"cut")[:-1],
    "a short line with zeros as its end": lines(b"cut")[:-12] + bytes(5000),
    "half a length": lines(b"cut")[:3],
    "a length": lines(b"cut")[:8],
    "a length and a tag": lines(b"cut")[:9],
    "a long line without its end": LONG[:-1],
    "a long line with zeros as its end": LONG[:-8] + bytes(50_000),
    "a line without a time": OUTPUTS.join([b"no time"]),
    "other bytes": b"\xff" * 9000,
    "a length of anything": b"\0\0\0\0\0\0\0\x05" + b"\xa4" * 9000,
}


@pytest.mark.parametrize("left", LEFT)
@pytest.mark.parametrize("whole", WHOLE)
def test_what_is_whole_is_sent(tmp_path: Path, whole: str, left: str) -> None:
    path = tmp_path / "console"
    path.write_bytes(WHOLE[whole] + LEFT[left])
    assert read(path) == WHOLE[whole]
    assert repair(path, UUID_).size == len(WHOLE[whole])  # what is recorded is the same
    assert read(path) == WHOLE[whole]


def test_a_line_of_any_length_is_sent_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "console"
    path.write_bytes(lines(b"x" * MAX_LINE) * 2 + b"\0")
    tracemalloc.start()
    try:
        with path.open("rb") as file:
            old = OldConsole(file.fileno(), os.fstat(file.fileno()).st_size)
            while old.read():
                pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MIB


async def test_what_a_writer_writes_is_sent_and_tells(tmp_path: Path) -> None:
    path = tmp_path / "console"
    writer = ConsoleWriter(path, UUID_)
    changed = writer.changed
    await writer.append([b"one", b"two"], TIME)
    with trio.fail_after(1):
        await changed.wait()
    changed = writer.changed
    writer.close()
    with trio.fail_after(1):
        await changed.wait()
    assert writer.closed
    assert read(path) == lines(b"one", b"two")
    assert writer.size == path.stat().st_size
