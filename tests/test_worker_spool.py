"""The spool of a job's lines: appended, followed from any line on, cut off anywhere."""

import errno
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from worker_program import DEADLINE, UUID_1

from builder.outputs import Outputs
from builder_worker import spool
from builder_worker.console import START, Progress
from builder_worker.sandbox import SandboxError
from builder_worker.spool import LineSpool

OUTPUTS = Outputs(UUID_1)

Batch = list[bytes]
batches = st.lists(st.lists(st.binary(max_size=20), min_size=1, max_size=5), max_size=6)


def progress(found: Sequence[Batch]) -> Progress:
    """How far a console is after batches of whole lines."""
    far = START
    for batch in found:
        far = far.after(batch, 0)
    return far


async def append(to: LineSpool, batch: Batch, far: Progress | None = None) -> None:
    await to.append(OUTPUTS.join(batch, 7), len(batch), far or to.progress.after(batch, 0))


async def fill(path: Path, found: Sequence[Batch]) -> LineSpool:
    made = LineSpool.create(path)
    for batch in found:
        await append(made, batch)
    return made


async def rest(of: LineSpool, line: int) -> list[bytes]:
    """Return all lines of a complete spool from one on."""
    reader, lines = of.follow(line), []
    while frames := await reader.next():
        found, end = OUTPUTS.read(frames)
        assert end == len(frames)
        lines += [output.line for output in found]
    return lines


@contextmanager
def place() -> Iterator[Path]:
    with TemporaryDirectory(prefix="builder-spool-") as name:
        yield Path(name, "lines")


@asynccontextmanager
async def opened(path: Path, found: Sequence[Batch] = ()) -> AsyncIterator[LineSpool]:
    one = await fill(path, found)
    try:
        with trio.fail_after(DEADLINE):
            yield one
    finally:
        one.close()


@given(found=batches, data=st.data())
def test_cut_off_anywhere_it_has_the_batches_that_are_whole(found: list[Batch], data: st.DataObject) -> None:
    async def run() -> None:
        with place() as path:
            sizes = [0]
            one = LineSpool.create(path)
            for batch in found:
                await append(one, batch)
                sizes.append(one.size)
            one.close()
            length = data.draw(st.integers(0, one.size))
            os.truncate(path, length)
            whole = found[: max(index for index, size in enumerate(sizes) if size <= length)]

            again = LineSpool.open(path)
            assert again.lines == sum(map(len, whole))
            assert again.progress == progress(whole)
            await append(again, [b"more"])
            again.complete()
            assert await rest(again, 0) == [*(line for batch in whole for line in batch), b"more"]
            assert path.stat().st_size == again.size  # nothing of what was cut off stands behind it
            again.close()

    trio.run(run)


@given(found=batches, data=st.data())
def test_it_is_followed_from_any_line_on(found: list[Batch], data: st.DataObject) -> None:
    async def run() -> None:
        lines = [line for batch in found for line in batch]
        with place() as path:
            one = await fill(path, found)
            one.complete()
            first = data.draw(st.integers(0, len(lines)))
            assert await rest(one, first) == lines[first:]
            with pytest.raises(IndexError):
                one.follow(len(lines) + 1)
            one.close()

    trio.run(run)


@pytest.mark.parametrize("size", [1, 20, 300])
async def test_much_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Of whole batches, also where one of them is larger than a piece."""
    monkeypatch.setattr(spool, "READ_SIZE", size)
    async with opened(tmp_path / "lines", [[b"%d" % number] for number in range(100)]) as one:
        one.complete()
        assert await rest(one, 0) == [b"%d" % number for number in range(100)]


async def test_who_follows_gets_what_is_appended_at_once(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with opened(tmp_path / "lines") as one, trio.open_nursery() as nursery:
        came: list[tuple[float, bytes]] = []
        begun = trio.current_time()

        async def follow() -> None:
            reader = one.follow(0)
            while frames := await reader.next():
                came.append((trio.current_time() - begun, OUTPUTS.read(frames)[0][0].line))
            came.append((trio.current_time() - begun, b""))

        nursery.start_soon(follow)
        for line in (b"a", b"b"):
            await trio.sleep(5)
            await append(one, [line])
        await trio.sleep(5)
        one.complete()
    assert came == [(5, b"a"), (10, b"b"), (15, b"")]


async def test_what_waits_to_be_sent_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(spool, "MAX_AHEAD", 10_000)
    async with opened(tmp_path / "lines") as one, trio.open_nursery() as nursery:

        async def fill_up() -> None:
            for _ in range(1000):
                await append(one, [b"x" * 100])
            one.complete()

        nursery.start_soon(fill_up)
        await trio.testing.wait_all_tasks_blocked()
        assert 10_000 < one.size < 11_000
        assert len(await rest(one, 0)) == 1000
        assert len(await rest(one, 990)) == 10


async def test_a_full_disk_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """A part of a batch may be written by then: it counts as none, and is written again."""
    refusals = 3
    write = os.pwrite

    def refuse(descriptor: int, data: bytes, offset: int) -> int:
        nonlocal refusals
        refusals -= 1
        if refusals >= 0:
            write(descriptor, data[:-3], offset)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data, offset)

    async with opened(tmp_path / "lines", [[b"a"]]) as one:
        monkeypatch.setattr(os, "pwrite", refuse)
        begun = trio.current_time()
        await append(one, [b"b"])
        assert trio.current_time() - begun == 2 * spool.RETRY, "the first time, there is room that was kept for this"
        one.complete()
        assert await rest(one, 0) == [b"a", b"b"]


async def test_a_write_that_was_cut_short_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.pwrite
    async with opened(tmp_path / "lines") as one:
        monkeypatch.setattr(os, "pwrite", lambda file, data, offset: write(file, data[:7], offset))
        for number in range(60):
            await append(one, [b"line %d" % number])
        one.complete()
        assert await rest(one, 0) == [b"line %d" % number for number in range(60)]


async def test_a_disk_that_is_broken_is_a_fault_of_the_machine(tmp_path: Path) -> None:
    async with opened(tmp_path / "lines") as one:
        os.close(one._file)
        one._file = os.open("/dev/null", os.O_RDONLY)
        with pytest.raises(SandboxError, match="the job's lines can't be written"):
            await append(one, [b"a"])
