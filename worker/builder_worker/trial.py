"""A build without a server: what the author of a job runs before scheduling it, and compares with a second run."""

import hashlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from uuid import uuid4

import trio
from attrs import frozen

from builder.errors import BuilderError, NobodyReads
from builder.model import Exited, Result, ScriptJob, Signalled, describe_result, posix_signal, printable, text
from builder.runtime import entry
from builder.runtime.nurseries import plain_nursery
from builder_worker.artifacts import Collection
from builder_worker.build import Setup, run_build
from builder_worker.choice import prove
from builder_worker.console import Progress, as_bytes
from builder_worker.loop import HungUp, Interrupted, Terminated

DIFFERENT = 1
"""Exit status when two runs of a job that succeeded differ."""

LIMITED = 124
"""Exit status when a limit ended the job, as of timeout(1)."""


log = logging.getLogger("builder_worker")


class NotEmpty(BuilderError):
    """The directory for artifacts has something in it, which is not overwritten."""

    exit_code = 2


@frozen(kw_only=True)
class Kept:
    """An artifact of a trial. ``sha256`` in hexadecimal digits."""

    path: bytes
    size: int
    sha256: str


@frozen(kw_only=True)
class Trial:
    """How a run ended, what it left, how many seconds it took."""

    result: Result
    artifacts: tuple[Kept, ...]
    seconds: float


def check_output(directory: Path) -> None:
    """Raise NotEmpty unless artifacts can be written below the directory without touching anything that is there."""
    if directory.is_symlink() or directory.exists():
        if not directory.is_dir():
            raise NotEmpty(f"{directory} is no directory")
        if any(directory.iterdir()):
            raise NotEmpty(f"{directory} is not empty: name a new directory")


async def run_trials(
    job: ScriptJob, setup: Setup, outputs: Sequence[Path | None], show: Callable[[Trial], None]
) -> list[Trial]:
    """Run a job once for each of ``outputs``, below which its artifacts are kept if it is a path.

    Prints the console as it comes, and calls ``show`` after each run. Raises SandboxError, TreeChanged, OSError, and
    Interrupted on SIGINT and SIGTERM, when all of the job is gone.
    """
    trials = []
    hangup = [signal.SIGHUP] if entry.is_wanted(signal.SIGHUP) else []
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, *hangup) as signals:
        async with plain_nursery() as nursery:
            nursery.start_soon(_end_by_signal, signals)
            for line in await setup.backend.clean_up():
                log.warning("%s", line)
            await prove(setup, job.platform)
            for output in outputs:
                trials.append(await _run_trial(job, setup, output))
                show(trials[-1])
            nursery.cancel_scope.cancel()
    return trials


async def _run_trial(job: ScriptJob, setup: Setup, output: Path | None) -> Trial:
    begin = trio.current_time()
    async with run_build(job, uuid4(), setup, lambda _: print_lines) as outcome:
        seconds = trio.current_time() - begin
        kept = await trio.to_thread.run_sync(_keep, outcome.artifacts, output)
    return Trial(result=outcome.result, artifacts=kept, seconds=seconds)


async def _end_by_signal(signals: AsyncIterator[int]) -> None:
    async for number in signals:
        ended = {signal.SIGTERM: Terminated, signal.SIGHUP: HungUp}.get(signal.Signals(number), Interrupted)
        raise ended(f"ended by {signal.Signals(number).name}; the job was killed")


async def print_lines(lines: Sequence[bytes], _: Progress | None = None, /) -> None:
    """Print console lines: exactly, but on a terminal without what could control it."""
    if sys.stdout.isatty():
        lines = [type(line)(b"\t".join(printable(part).encode() for part in line.split(b"\t"))) for line in lines]
    # Waits while nobody reads: that must not keep signals waiting.
    await trio.to_thread.run_sync(_write, as_bytes(lines), abandon_on_cancel=True)


def _write(data: bytes) -> None:
    """Write to standard output, past Python's buffer, whose lock a thread that was abandoned here would keep."""
    left = memoryview(data)
    try:
        while left:
            left = left[os.write(sys.stdout.fileno(), left) :]
    except BrokenPipeError as error:
        raise NobodyReads("nobody reads the console any more") from error


def _keep(artifacts: Collection, output: Path | None) -> tuple[Kept, ...]:
    """Read all artifacts once: for their digests, and into files. Nothing that exists is overwritten."""
    kept = []
    with closing(artifacts.contents()) as files:
        for file, contents in files:
            digest = hashlib.sha256()
            with ExitStack() as stack:
                target = None
                if output is not None:
                    path = output / os.fsdecode(file.path)  # below output: the collector takes no other paths
                    path.parent.mkdir(parents=True, exist_ok=True)
                    target = stack.enter_context(path.open("xb"))
                for data in contents:
                    digest.update(data)
                    if target is not None:
                        target.write(data)
            kept.append(Kept(path=file.path, size=file.size, sha256=digest.hexdigest()))
    return tuple(kept)


def differences(one: Trial, other: Trial) -> Iterable[str]:
    """Return a line for each way in which two runs differ."""
    if one.result != other.result:
        yield f"result: {describe_result(one.result)}, then {describe_result(other.result)}"
    first, second = ({kept.path: kept for kept in trial.artifacts} for trial in (one, other))
    for path in sorted(first.keys() | second.keys()):
        name = printable(text(path))
        if path not in second:
            yield f"{name}: only in the first run"
        elif path not in first:
            yield f"{name}: only in the second run"
        elif first[path] != second[path]:
            yield f"{name}: {_content(first[path])}, then {_content(second[path])}"


def _content(kept: Kept) -> str:
    return f"{kept.size} bytes {kept.sha256}"


def exit_status(result: Result) -> int:
    """Return the exit status that passes on a result, as a shell would: 0 only for a job that exited 0."""
    match result:
        case Exited(code=code):
            return code & 0xFF or (1 if code else 0)
        case Signalled(signal=number):
            return 128 + (posix_signal(number) & 0x7F)
    return LIMITED
