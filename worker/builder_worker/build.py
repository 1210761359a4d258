"""One build: a job in a fresh sandbox, with the hooks around it, up to its result and its artifacts.

What comes of them, the wire or a terminal, is up to the caller.
"""

import functools
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import trio
from attrs import field, frozen

from builder.model import Aborted, Result, ScriptJob, describe_result, printable
from builder_worker import directives
from builder_worker.allowances import not_real, option, tighten, without
from builder_worker.artifacts import Collection, Rules, TooMuchLeft, collect
from builder_worker.console import Progress, remark
from builder_worker.environment import job_environment, job_variables
from builder_worker.hooks import Hooks, run_hook
from builder_worker.job import SendLines, run_job
from builder_worker.sandbox import Backend, Limits, Sandbox, Spare, Task
from builder_worker.trees import TreeChanged

log = logging.getLogger("builder_worker")


@frozen(kw_only=True)
class Setup:
    """How this worker runs its jobs."""

    backend: Backend
    limits: Limits = field(factory=Limits)
    real: frozenset[str] = frozenset()
    """The limits that the sandbox enforces here."""

    dotfiles: bool = False
    given: Mapping[str, str] = field(factory=dict)
    """Variables for every job."""

    date: int | None = None
    """SOURCE_DATE_EPOCH of jobs that do not tell their own."""

    hooks: Hooks = field(factory=Hooks)

    worker_grace: float = 0.0
    """As ``Task.worker_grace``."""

    shown: tuple[Path, ...] = ()
    """What the sandboxes need of this machine's files."""


@frozen(kw_only=True)
class BuildEnd:
    """How a job ended and what it left; the artifacts can be read while its sandbox is there."""

    result: Result
    artifacts: Collection

    def summary(self) -> str:
        """Return it in words."""
        return f"{describe_result(self.result)}, {self.artifacts.summary()}"


Begin = Callable[[Sandbox], SendLines]
"""Called when there is a sandbox, before anything is said; returns what takes the lines."""


@asynccontextmanager
async def run_build(
    job: ScriptJob, uuid: UUID, setup: Setup, begin: Begin, spare: Spare | None = None
) -> AsyncIterator[BuildEnd]:
    """Run a job and give its outcome; afterwards everything of it is removed, unless it was left.

    Raises SandboxError, before it gives the outcome or after, JobLeft, and what ``begin`` raises and what that returns.
    """
    wishes = directives.read(job.script)
    ignored = not_real(wishes.limits, setup.real)
    remarks = (*wishes.remarks, *(f"{option(name)} can't be limited here; ignored" for name in sorted(ignored)))
    task = Task(
        uuid=uuid,
        name=job.name,
        platform=job.platform,
        script=job.script,
        environment=job_environment(
            job, uuid, given=setup.given, date=setup.date if wishes.date is None else wishes.date
        ),
        limits=limits_of(job, setup),
        worker_grace=setup.worker_grace,
    )
    async with await setup.backend.open(task, spare) as sandbox:
        send_lines = begin(sandbox)
        if remarks:
            await send_lines([remark(line) for line in remarks])
        yield await _run_to_end(sandbox, job, uuid, setup, send_lines)


@asynccontextmanager
async def resume_build(
    sandbox: Sandbox, job: ScriptJob, uuid: UUID, setup: Setup, send_lines: SendLines, progress: Progress, said: int
) -> AsyncIterator[BuildEnd]:
    """Go on with a job that another worker has started, as ``run_build`` does: its console from where that one was, and
    what is said after it without as many lines as that one ``said``.
    """
    async with sandbox:
        yield await _run_to_end(sandbox, job, uuid, setup, _without(said, send_lines), adopted_at=progress)


@asynccontextmanager
async def reopen_build(sandbox: Sandbox, job: ScriptJob, setup: Setup, result: Result) -> AsyncIterator[BuildEnd]:
    """Give the outcome of a job of which another worker has said all, and that ended so."""
    async with sandbox:
        await sandbox.wait()
        result, artifacts = await _collect(sandbox, result, _rules(job, setup))
        yield BuildEnd(result=result, artifacts=artifacts)


def limits_of(job: ScriptJob, setup: Setup) -> Limits:
    """Return the limits that hold for a job."""
    wishes = directives.read(job.script).limits
    return tighten(setup.limits, without(wishes, not_real(wishes, setup.real)))


def _rules(job: ScriptJob, setup: Setup) -> Rules:
    limits = limits_of(job, setup)
    return Rules(dotfiles=setup.dotfiles, max_bytes=limits.max_artifact_bytes, max_artifacts=limits.max_artifacts)


def _without(count: int, send_lines: SendLines) -> SendLines:
    """Return what leaves out so many lines of those that are not the job's own, the first ones."""
    left = count

    async def send(lines: Sequence[bytes], progress: Progress | None = None, /) -> None:
        nonlocal left
        if progress is None:
            lines, left = lines[left:], max(0, left - len(lines))
        await send_lines(lines, progress)

    return send


async def _run_to_end(
    sandbox: Sandbox,
    job: ScriptJob,
    uuid: UUID,
    setup: Setup,
    send_lines: SendLines,
    *,
    adopted_at: Progress | None = None,
) -> BuildEnd:
    environment = {**job_variables(job, uuid), "BUILDER_WORK": str(sandbox.work)}
    result = await _run(sandbox, setup.hooks, environment, send_lines, adopted_at)
    result, artifacts = await _collect(sandbox, result, _rules(job, setup))
    await send_lines([remark(line) for line in (*artifacts.remarks, artifacts.summary())])
    return BuildEnd(result=result, artifacts=artifacts)


async def _run(
    sandbox: Sandbox,
    hooks: Hooks,
    environment: Mapping[str, str],
    send_lines: SendLines,
    adopted_at: Progress | None,
) -> Result:
    """Run the job between its hooks. The one after it runs in any case, even when the worker is told to stop, but not while
    the job goes on without it.
    """
    result: Result = Aborted(message="interrupted")
    lines: list[bytes] = []
    try:
        failure = None
        if hooks.prepare is not None and adopted_at is None:
            failure = await run_hook(
                "prepare",
                hooks.prepare,
                environment,
                timeout=hooks.timeout,
                place=sandbox.place,
                send_lines=send_lines,
            )
        if failure is None:
            result = await run_job(sandbox, send_lines=send_lines, adopted_at=adopted_at)
        else:
            result = Aborted(message=failure)
    finally:
        if not sandbox.is_left:
            environment = {**environment, "BUILDER_RESULT": printable(str(result))}
            lines, failure = await _run_finish(hooks, environment, sandbox.place)
    if lines:
        await send_lines(lines)
    return result if failure is None else Aborted(message=f"{failure} (the job before it: {describe_result(result)})")


async def _run_finish(hooks: Hooks, environment: Mapping[str, str], place: Path) -> tuple[list[bytes], str | None]:
    """Return what the hook printed and how it failed. The server may be gone by now, so the worker's log has it too."""
    lines: list[bytes] = []
    if hooks.finish is None:
        return lines, None

    async def keep(more: Sequence[bytes], _: Progress | None = None, /) -> None:
        lines.extend(more)

    with trio.CancelScope(shield=True):  # bounded by the hook's own deadline
        failure = await run_hook(
            "finish", hooks.finish, environment, timeout=hooks.timeout, place=place, send_lines=keep
        )
    if failure:
        log.error("%s", failure)
    return lines, failure


async def _collect(sandbox: Sandbox, result: Result, rules: Rules) -> tuple[Result, Collection]:
    """Find the artifacts; where they can't be had, that is the result."""
    find = functools.partial(collect, sandbox.work, script_name=sandbox.script_name, owners=sandbox.owners, rules=rules)
    try:
        return result, await trio.to_thread.run_sync(find)
    except (TooMuchLeft, TreeChanged) as error:
        reason = str(error)
    except OSError as error:
        reason = f"the work directory can't be read: {error.strerror}"
    return result if isinstance(result, Aborted) else Aborted(message=reason), Collection()
