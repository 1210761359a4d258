"""Bodies of uploads, made for a test: small ones as bytes, and large ones piece by piece."""

from collections.abc import Iterator, Mapping
from uuid import UUID

from builder import execution
from builder.execution import ExecutionEnd, ExecutionHead
from builder.model import Artifact, ConsoleLine, Execution, Exited, Instant, Result, ScriptJob

STARTED = Instant(1_794_000_000_000)
PIECE = bytes(range(256)) * 1024


def uuid_of(number: int) -> UUID:
    return UUID(int=0xB00D_0000_0000_4000_8000_0000_0000_0000 + number)


def body(
    number: int = 1,
    *,
    job: str = "hello",
    platform: str = "debian-12",
    artifacts: Mapping[str, bytes] | None = None,
    console: tuple[bytes, ...] = (b"made",),
    result: Result | None = None,
    started: Instant = STARTED,
) -> bytes:
    files = {"bin/hello": b"binary %d" % number} if artifacts is None else artifacts
    return execution.encode(
        Execution(
            job=ScriptJob(name=job, platform=platform, script=b"#!/bin/sh\nmake\n"),
            uuid=uuid_of(number),
            console=tuple(ConsoleLine(delta=index, line=line) for index, line in enumerate(console)),
            started=started,
            finished=Instant(started.ms + 60_000),
            result=result or Exited(code=0),
            artifacts=tuple(Artifact(path=path, content=content) for path, content in files.items()),
        )
    )


def large(number: int, *, lines: int = 0, size: int = 0) -> Iterator[bytes]:
    """Yield a body with so many console lines of 1 KB and a main binary of so many bytes, a multiple of a piece's."""
    line = execution.encode_console_line(ConsoleLine(delta=1_000_000, line=b"x" * 1024))
    before, after = execution.execution_head(
        ExecutionHead(job=ScriptJob(name="large", platform="debian-12", script=b"#!/bin/sh\n"), uuid=uuid_of(number)),
        ExecutionEnd(started=STARTED, finished=STARTED, result=Exited(code=0)),
        console_length=lines * len(line),
        data_length=execution.artifacts_length([("bin/large", size)]),
    )
    yield before
    for _ in range(lines // 256):
        yield line * 256
    yield line * (lines % 256)
    yield after
    yield execution.artifact_head("bin/large", size)
    assert size % len(PIECE) == 0
    for _ in range(size // len(PIECE)):
        yield PIECE
