"""The record of a finished build as it is written: what is hashed of its artifacts, and when."""

import hashlib
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest
import trio
import trio.testing
from farm import DEADLINE

from builder.execution import ArtifactData, ArtifactStart, ExecutionEnd
from builder.model import Exited, Instant, ScriptJob
from builder_server import console, results
from builder_server.results import ResultWriter
from builder_server.store import Build

BUILD = Build(uuid=UUID(int=7), job=ScriptJob(name="a", platform="p", script=b""), started=Instant(0), losses=0)
END = ExecutionEnd(started=Instant(0), finished=Instant(1), result=Exited(code=0))
LARGE = bytes(results._LARGE)


@asynccontextmanager
async def writing(directory: Path) -> AsyncIterator[ResultWriter]:
    writer = ResultWriter(directory)
    await writer.begin(BUILD, END, console.Extent(size=0, encoded_length=0, blocks=()), data_length=0)
    try:
        yield writer
    finally:
        await writer.discard()


async def test_pieces_of_any_size_make_the_hash_of_the_whole(tmp_path: Path) -> None:
    sizes = [results._LARGE * 2, 1, results._LARGE, results._LARGE - 1, results._LARGE + 1, 0, 5]
    data = [bytes((number,)) * size for number, size in enumerate(sizes)]
    whole = b"".join(data)
    async with writing(tmp_path) as writer:
        for path in ("one", "two"):
            await writer.add([ArtifactStart(path=path, size=len(whole)), *(ArtifactData(data=each) for each in data)])
        await writer.add([ArtifactStart(path="empty", size=0)])
        ((one, two, empty),) = writer.hashes.batches()
    assert one.sha256 == two.sha256 == hashlib.sha256(whole).digest()
    assert empty.sha256 == hashlib.sha256().digest()


class SlowHash:
    """A hash that takes as long as the test wants."""

    def __init__(self) -> None:
        self.may_go_on = threading.Semaphore(0)
        self.updates = 0

    def update(self, _data: bytes) -> None:
        assert self.may_go_on.acquire(timeout=DEADLINE)
        self.updates += 1

    def digest(self) -> bytes:
        return b"%032d" % self.updates


async def test_a_large_piece_is_hashed_while_it_is_written_and_the_next_one_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = SlowHash()
    monkeypatch.setattr(hashlib, "sha256", lambda: slow)
    async with writing(tmp_path) as writer:
        await writer.add([ArtifactStart(path="a", size=2 * len(LARGE)), ArtifactData(data=LARGE)])
        assert slow.updates == 0
        assert (tmp_path / "full.part").stat().st_size > len(LARGE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.add, [ArtifactData(data=LARGE)])
            await trio.testing.wait_all_tasks_blocked()
            assert (tmp_path / "full.part").stat().st_size < 2 * len(LARGE)
            slow.may_go_on.release()
        slow.may_go_on.release()
        ((found,),) = writer.hashes.batches()
    assert found.sha256 == b"%032d" % 2
