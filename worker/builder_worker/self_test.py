"""Whether this release works here: a real build, and what workers before it have written down of jobs that run.

It is for the moment after an upgrade, while the worker before it still runs: nothing of that one is touched.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import ClassVar
from uuid import uuid4

import trio
from attrs import evolve

from builder.errors import BuilderError
from builder.model import Exited, ScriptJob, describe_result, printable
from builder_worker.artifacts import Collection
from builder_worker.build import Setup, run_build
from builder_worker.console import Progress, as_bytes
from builder_worker.handover import Handover, Illegible
from builder_worker.hooks import Hooks
from builder_worker.sandbox import SandboxError
from builder_worker.sandbox.job_directory import ATTEMPT
from builder_worker.sandbox.record import NAME, JobRecord

TIMEOUT = 60.0
"""Seconds for a build that does nearly nothing, on a machine that is very busy."""

SAID, LEFT = b"self-test", b"left by self-test"

_SCRIPT = b"""#!/bin/sh
set -e
echo self-test
mkdir result
printf 'left by %s' "$BUILDER_JOB" > result/file
"""


class SelfTestFailed(BuilderError):
    """This release does not do here what it should: the worker before it should go on."""

    exit_code: ClassVar[int] = 1


def check_left(work_root: Path) -> int:
    """Return how many jobs can be gone on with that workers have written down. Raises SelfTestFailed if some can't be."""
    found = [*_attempts(work_root)]
    illegible = [problem for problem in map(_problem, found) if problem]
    if illegible:
        raise SelfTestFailed(
            f"{len(illegible)} of {len(found)} jobs that run would be lost, since this release can't read what is written down "
            f"of them ({illegible[0]}): let them end first, by SIGHUP to their worker"
        )
    return len(found)


def _attempts(work_root: Path) -> Iterator[Path]:
    try:
        for place in sorted(work_root.iterdir()):
            if (place / ATTEMPT).exists() and (place / NAME).exists():
                yield place
    except FileNotFoundError:
        return
    except OSError as error:
        raise SelfTestFailed(f"cannot read {work_root}: {error.strerror}") from error


def _problem(place: Path) -> str:
    try:
        Handover.read(place)
        JobRecord.read(place)
    except FileNotFoundError:
        return ""  # it has ended meanwhile
    except (OSError, Illegible, SandboxError) as error:
        return printable(str(error)[:200])
    return ""


async def build(setup: Setup, platform: str) -> None:
    """Do a small build as any other, but without the operator's commands around it. Raises SelfTestFailed and SandboxError."""
    said: list[bytes] = []

    async def note_lines(lines: Sequence[bytes], _: Progress | None = None, /) -> None:
        said.extend(as_bytes(lines).splitlines())

    job = ScriptJob(name="self-test", platform=platform, script=_SCRIPT)
    setup = evolve(setup, hooks=Hooks(), limits=evolve(setup.limits, timeout=TIMEOUT))
    async with run_build(job, uuid4(), setup, lambda _: note_lines) as end:
        if end.result != Exited(code=0):
            raise SelfTestFailed(f"a build that should succeed ended so: {describe_result(end.result)}{_last(said)}")
        if SAID not in said:
            raise SelfTestFailed(f"a build's console was not what it has said{_last(said)}")
        left = await trio.to_thread.run_sync(lambda: {file: b"".join(data) for file, data in _read(end.artifacts)})
    if left != {b"result/file": LEFT}:
        raise SelfTestFailed("the file that a build has left was not collected as it was")


def _read(artifacts: Collection) -> Iterator[tuple[bytes, list[bytes]]]:
    with closing(artifacts.contents()) as files:
        for file, contents in files:
            yield file.path, [bytes(data) for data in contents]


def _last(said: Sequence[bytes]) -> str:
    return f"; it has said: {printable(said[-1][:200])}" if said else ""
