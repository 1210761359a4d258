"""One run of a job in its sandbox: the console as it comes, and the result."""

from collections.abc import Sequence
from typing import Protocol

import trio
from attrs import evolve

from builder.model import Aborted, Exited, Result, Signalled, wire_signal
from builder.runtime.nurseries import plain_nursery
from builder_worker.console import START, LineCutter, Progress
from builder_worker.sandbox import Console, ExitStatus, Sandbox

LINES_AT_ONCE = 1000
"""Console lines that are sent in one go, some 15 ms: jobs in other slots wait meanwhile. What is read at once may be
hundreds of times more, of empty lines."""

END_TIMEOUT = 10.0
"""Seconds for the processes of a job to die; what is left then is up to the sandbox."""

PART_SILENCE = 1.0
"""Seconds of silence after which a line without its end is sent as far as it came: a prompt, or dots."""

PART_AGE = 10.0
"""Seconds after which it is sent in any case: progress that never pauses."""


class SendLines(Protocol):
    """Takes lines, and returns when it takes more: who is slow slows nothing but the sending.

    Some may be no whole lines, see ``console.Part`` and ``console.End``. With ``progress`` they are the job's own.
    """

    async def __call__(self, lines: Sequence[bytes], progress: Progress | None = None, /) -> None:
        """Take lines."""


async def run_job(sandbox: Sandbox, *, send_lines: SendLines, adopted_at: Progress | None = None) -> Result:
    """Run the sandbox's script and return how it ended. All its processes are gone then, and all its output is sent.

    If it was adopted, go on where the worker before was with its console.

    Raises SandboxError where it can't be started, JobLeft, and what ``send_lines`` raises.
    """
    try:
        if adopted_at is None:
            sandbox.start()
        else:
            sandbox.console.skip(adopted_at.offset)
        async with plain_nursery() as nursery:
            nursery.start_soon(_send_console, sandbox.console, send_lines, adopted_at or START)
            status = await sandbox.wait()
    except BaseException:
        # leave no process of the job for whoever cleans up after it
        if not sandbox.is_left:
            sandbox.kill()
            with trio.move_on_after(END_TIMEOUT, shield=True):
                await sandbox.wait()
        raise
    return _result(sandbox, status)


def _result(sandbox: Sandbox, status: ExitStatus) -> Result:
    reason = sandbox.exceeded()
    if reason:
        return Aborted(message=reason)
    if status.signal is not None:
        return Signalled(signal=wire_signal(status.signal))
    return Exited(code=status.code or 0)


async def _send_console(console: Console, send_lines: SendLines, progress: Progress = START) -> None:
    """Send what the job writes, until all of it is sent."""
    cutter, begun = LineCutter(progress), float("inf")
    while True:
        now = trio.current_time()
        begun = min(begun, now) if cutter.has_part else float("inf")
        part_due = min(now + PART_SILENCE, begun + PART_AGE) if cutter.has_part else float("inf")
        with trio.CancelScope(deadline=part_due) as waiting:
            data = await console.receive_some()
            if not data:
                break
            lines = cutter.feed(data)
        if waiting.cancelled_caught:
            lines, begun = cutter.part(), float("inf")
        progress = await _send_in_parts(lines, progress, console.time, send_lines)
    progress = await _send_in_parts(cutter.finish(), progress, console.time, send_lines)
    await send_lines((), evolve(progress, is_over=True))


async def _send_in_parts(lines: Sequence[bytes], progress: Progress, time: int, send_lines: SendLines) -> Progress:
    """Send lines that had come at that time, and return how far the console is then."""
    for first in range(0, len(lines), LINES_AT_ONCE):
        some = lines[first : first + LINES_AT_ONCE]
        progress = progress.after(some, time)
        await send_lines(some, progress)
    return progress
