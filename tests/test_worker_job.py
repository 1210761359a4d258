"""A run of a job, without a server: its limits, and a reader that is slow or fails."""

from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import pytest
import trio
from worker_program import DEADLINE

from builder.model import Aborted, Exited, Result
from builder_worker.job import SendLines, run_job
from builder_worker.sandbox import Limits, SandboxError, Task
from builder_worker.sandbox.backends.none import NoSandbox
from builder_worker.sandbox.options import Options


async def _run(
    tmp_path: Path, script: bytes, limits: Limits, send_lines: SendLines | None = None
) -> tuple[Result, list[bytes]]:
    task = Task(
        uuid=uuid4(), name="job", platform="p1", script=script, environment={"PATH": "/usr/bin:/bin"}, limits=limits
    )
    lines: list[bytes] = []

    async def keep(more: Sequence[bytes], *_: object) -> None:
        lines.extend(more)

    with trio.fail_after(DEADLINE):
        async with await NoSandbox(options=Options(work_root=tmp_path)).open(task) as sandbox:
            result = await run_job(sandbox, send_lines=send_lines or keep)
    assert not list(tmp_path.iterdir())
    return result, lines


async def test_the_time_limit_ends_it(tmp_path: Path) -> None:
    result, lines = await _run(tmp_path, b"echo begun; sleep 1000", Limits(timeout=1))
    assert result == Aborted(message="time limit of 1 s exceeded")
    assert lines == [b"begun"]


@pytest.mark.parametrize("closing", [b"", b"exec >&- 2>&-;"])
async def test_silence_ends_it(tmp_path: Path, closing: bytes) -> None:
    result, lines = await _run(tmp_path, b"echo begun;" + closing + b"sleep 1000", Limits(max_silent=1))
    assert result == Aborted(message="no output for 1 s")
    assert lines == [b"begun"]


async def test_silence_that_the_server_causes_does_not_end_it(tmp_path: Path) -> None:
    taken: list[bytes] = []

    async def take_slowly(lines: Sequence[bytes], *_: object) -> None:
        if not taken:
            await trio.sleep(2)  # twice the limit; the job is stuck in its full pipe meanwhile
        taken.extend(lines)

    result, _ = await _run(tmp_path, b"exec head -c 200000 /dev/zero", Limits(max_silent=1), take_slowly)
    assert result == Exited(code=0)
    assert sum(map(len, taken)) == 200_000


async def test_too_much_output_ends_it(tmp_path: Path) -> None:
    result, lines = await _run(tmp_path, b"echo begun; sleep 0.1; exec yes", Limits(max_console=100_000))
    assert result == Aborted(message="more than 100000 bytes of console output")
    assert lines[0] == b"begun"
    assert sum(len(line) + 1 for line in lines) <= 100_000


async def test_all_output_is_there_when_it_ends(tmp_path: Path) -> None:
    for _ in range(20):
        result, lines = await _run(tmp_path, b"printf '1\\n2\\n3'", Limits())
        assert result == Exited(code=0)
        assert lines == [b"1", b"2", b"3"]


async def test_a_connection_that_breaks_is_the_end_of_it(tmp_path: Path) -> None:
    async def fail(_lines: Sequence[bytes], *_: object) -> None:
        raise trio.BrokenResourceError

    with pytest.raises(trio.BrokenResourceError):
        await _run(tmp_path, b"echo begun; sleep 1000", Limits(), fail)
    assert not list(tmp_path.iterdir())


async def test_cancellation_leaves_nothing(tmp_path: Path) -> None:
    begun = trio.Event()

    async def note(_lines: Sequence[bytes], *_: object) -> None:
        begun.set()

    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_run, tmp_path, b"echo begun; sleep 1000", Limits(), note)
            await begun.wait()
            nursery.cancel_scope.cancel()
    assert not list(tmp_path.iterdir())


async def test_an_environment_that_can_not_be_passed_is_an_error(tmp_path: Path) -> None:
    task = Task(uuid=uuid4(), name="job", platform="p1", script=b"true", environment={"A": "x" * 10_000_000})

    async def never(_lines: Sequence[bytes], *_: object) -> None:
        raise AssertionError

    async with await NoSandbox(options=Options(work_root=tmp_path)).open(task) as sandbox:
        with pytest.raises(SandboxError, match="Argument list too long"):
            await run_job(sandbox, send_lines=never)
    assert not list(tmp_path.iterdir())
