"""The console of a build whose server is gone: observers are sent what is whole of it, whatever a crash left at its end."""

import contextlib
import io
import os
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.messages import MIB
from builder.outputs import Outputs
from builder_server import console
from builder_server.console import MAX_LINE, READ_SIZE, ConsoleWriter, Extent, OldConsole

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
async def test_what_is_whole_is_sent(tmp_path: Path, whole: str, left: str) -> None:
    path = tmp_path / "console"
    path.write_bytes(WHOLE[whole] + LEFT[left])
    assert read(path) == WHOLE[whole]
    extent = await trio.to_thread.run_sync(console.repair, path, UUID_)
    assert extent.size == len(WHOLE[whole])  # what is recorded is the same
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
    writer = ConsoleWriter.create(path)
    changed = writer.changed
    await writer.append(Outputs(UUID_).timed([b"one", b"two"], TIME))
    with trio.fail_after(1):
        await changed.wait()
    changed = writer.changed
    writer.close()
    with trio.fail_after(1):
        await changed.wait()
    assert writer.closed
    assert read(path) == lines(b"one", b"two")
    assert writer.size == path.stat().st_size


async def whole_again(path: Path, _extent: Extent) -> None:
    await trio.to_thread.run_sync(console.repair, path, UUID_)


async def newest_first(path: Path, extent: Extent) -> None:
    await trio.to_thread.run_sync(console.copy_newest_first, path, UUID_, extent, io.BytesIO())


@pytest.mark.parametrize("read_it", [whole_again, newest_first])
async def test_a_cancelled_reader_ends_after_a_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_it: Callable[[Path, Extent], Awaitable[None]]
) -> None:
    monkeypatch.setattr(console, "BLOCK_SIZE", len(SHORT))
    writer = ConsoleWriter.create(tmp_path / "console")
    for _ in range(5):
        await writer.append(Outputs(UUID_).timed([b"one", b"two"], TIME))
    token = trio.lowlevel.current_trio_token()
    read = console._read
    starts: list[int] = []

    def cancelled_at_the_second(file: BinaryIO, start: int, size: int) -> bytes:
        starts.append(start)
        if len(starts) == 2:
            trio.from_thread.run_sync(scope.cancel, trio_token=token)
        return read(file, start, size)

    monkeypatch.setattr(console, "_read", cancelled_at_the_second)
    with trio.CancelScope() as scope:
        await read_it(tmp_path / "console", writer.extent())
    writer.close()
    assert scope.cancelled_caught
    assert len(starts) == 2
    assert (tmp_path / "console").stat().st_size == writer.size


# --- the end of a console ------------------------------------------------------------------------------------------


async def test_a_build_that_comes_from_another_server_has_no_console_here(tmp_path: Path) -> None:
    path = tmp_path / "console"
    with contextlib.closing(ConsoleWriter.reopen(path, UUID_)) as writer:
        assert (writer.size, writer.lines, writer.is_cut) == (0, 0, False)
        await writer.append(OUTPUTS.timed([b"x"], TIME))
    assert path.read_bytes() == lines(b"x")


@given(
    texts=st.lists(st.binary(max_size=300), max_size=40),
    forged=st.lists(st.integers(0, 39), max_size=3),
    block=st.sampled_from([64, 200, 1024, 1024 * 1024]),
    count=st.integers(0, 45),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_last_lines_are_found_from_the_end(
    tmp_path: Path, texts: list[bytes], forged: list[int], block: int, count: int
) -> None:
    for index in forged:  # a job that knows how its console is kept
        if index < len(texts):
            texts[index] = b"x" + OUTPUTS.join([b"forged"], 1)
    frames = [OUTPUTS.join([line], number) for number, line in enumerate(texts)]
    path = tmp_path / "some"
    path.write_bytes(b"".join(frames))
    with pytest.MonkeyPatch.context() as patch, path.open("rb") as file:
        patch.setattr(console, "BLOCK_SIZE", block)
        found = console.last_lines(file.fileno(), UUID_, path.stat().st_size, count)
    assert found == sum(map(len, frames[: max(0, len(frames) - count)]))


@given(
    texts=st.lists(st.binary(max_size=300), max_size=40),
    forged=st.lists(st.integers(0, 39), max_size=3),
    window=st.sampled_from([700, 2000, 1024 * 1024]),
    offset=st.integers(0, 8000),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_first_line_from_an_offset_on(
    tmp_path: Path, texts: list[bytes], forged: list[int], window: int, offset: int
) -> None:
    for index in forged:
        if index < len(texts):
            texts[index] = b"x" + OUTPUTS.join([b"forged", b"twice"], 1)
    frames = [OUTPUTS.join([line], number) for number, line in enumerate(texts)]
    begins = [sum(map(len, frames[:number])) for number in range(len(frames) + 1)]
    path = tmp_path / "some"
    path.write_bytes(b"".join(frames))
    with pytest.MonkeyPatch.context() as patch, path.open("rb") as file:
        patch.setattr(console, "_WINDOW", window)
        found = console.line_from(file.fileno(), UUID_, begins[-1], offset)
    assert found == next((begin for begin in begins if begin >= offset), begins[-1])


def test_the_first_line_behind_one_that_is_longer_than_what_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "some"
    path.write_bytes(SHORT + lines(b"x" * 3_000_000) + SHORT)
    with path.open("rb") as file:
        size = path.stat().st_size
        assert console.line_from(file.fileno(), UUID_, size, len(SHORT) + 1) == size - len(SHORT)


def test_what_is_no_console_has_no_lines(tmp_path: Path) -> None:
    (tmp_path / "some").write_bytes(bytes(1_000_000))
    with (tmp_path / "some").open("rb") as file:
        assert console.line_from(file.fileno(), UUID_, 1_000_000, 10) == 1_000_000
