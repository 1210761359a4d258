"""builder-server with more to carry than it may hold: its address space is limited to little more than it needs idle."""

import hashlib
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from farm import DEADLINE, start_server
from scripted import build, do, info, schedule, take_job

from builder import codec, execution
from builder.execution import ArtifactData, ArtifactStart, ExecutionEnd, ExecutionHead, FinishedHead
from builder.framing import frame, frame_header
from builder.messages import JobFinished, Output
from builder.model import ConsoleLine, Exited

MIB = 2**20
HEADROOM = 64 * MIB
"""Address space beyond what the server has when it has done one small build: 300 MB can't be in it."""

SIZES = {"empty": 0, "large": 290 * 10**6} | {f"small/{n}": 10_000 for n in range(1000)}
LINES = 300_000
PIECE = bytes(range(256)) * 4096


def content(size: int) -> Iterator[bytes]:
    """Yield the content of an artifact."""
    while size:
        piece = PIECE[: min(size, len(PIECE))]
        yield piece
        size -= len(piece)


def digest(size: int) -> str:
    found = hashlib.sha256()
    for piece in content(size):
        found.update(piece)
    return found.hexdigest()


@pytest.mark.long
async def test_300_mb_and_300_000_lines_in_a_limited_address_space(tmp_path: Path) -> None:
    assert sum(SIZES.values()) == 300 * 10**6
    async with start_server(tmp_path) as server:
        await do(server, schedule("warm"), schedule("a"))
        await build(server, lines=[b"x"])  # threads and libraries are there now
        before = server.memory("VmSize")
        server.limit(resource.RLIMIT_AS, before + HEADROOM)
        async with take_job(server) as taken:
            with trio.fail_after(4 * DEADLINE):
                for start in range(0, LINES, 1000):
                    frames = [
                        frame(codec.encode(Output(uuid=taken.uuid, line=b"line %06d" % number)))
                        for number in range(start, start + 1000)
                    ]
                    await taken.peer.channel.send_bytes(Output, b"".join(frames))
                length = execution.artifacts_length(SIZES.items())
                head = execution.finished_head(FinishedHead(uuid=taken.uuid, result=Exited(code=0)), length)
                await taken.peer.channel.send_bytes(JobFinished, frame_header(len(head) + length) + head)
                for path, size in SIZES.items():
                    await taken.peer.channel.send_body(execution.artifact_head(path, size))
                    for piece in content(size):
                        await taken.peer.channel.send_body(piece)
            assert await taken.peer.wait_closed(2 * DEADLINE) == b""
        assert (await info(server)).running == ()
        assert server.memory("VmPeak") <= before + HEADROOM

        # read back as a stream: newest line first, every artifact as it was
        next_line = LINES
        last_delta = 2**62
        seen: dict[str, str] = {}
        current = hashlib.sha256()
        path = ""
        with server.full("a", taken.uuid).open("rb") as file:
            for event in execution.read_execution(file):
                match event:
                    case ExecutionHead():
                        assert (event.job, event.uuid) == (taken.job, taken.uuid)
                    case ConsoleLine():
                        next_line -= 1
                        assert event.line == b"line %06d" % next_line
                        assert event.delta <= last_delta
                        last_delta = event.delta
                    case ExecutionEnd():
                        assert event.result == Exited(code=0)
                    case ArtifactStart():
                        if path:
                            seen[path] = current.hexdigest()
                        path, current = event.path, hashlib.sha256()
                    case ArtifactData():
                        current.update(event.data)
            seen[path] = current.hexdigest()
        assert next_line == 0
        expected = {size: digest(size) for size in set(SIZES.values())}
        assert seen == {name: expected[size] for name, size in SIZES.items()}


async def test_one_line_of_16_mb(tmp_path: Path) -> None:
    """The original's worker sends a line of any length in one message."""
    line = b"x" * (Output.max_size - 100)
    async with start_server(tmp_path) as server:
        await do(server, schedule("a"))
        async with take_job(server) as taken:
            await taken.say(line, b"short")
            await taken.finish()
        assert [found.line for found in server.execution("a", taken.uuid).console] == [line, b"short"]
