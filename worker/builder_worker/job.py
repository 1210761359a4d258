"""One run of a job in its sandbox: the console as it comes, the limits that need a clock, the result."""

import array
import fcntl
import os
import termios
from collections.abc import Awaitable, Callable, Sequence

import trio

from builder.model import Aborted, Exited, Result, Signalled, wire_signal
from builder.runtime.nurseries import plain_nursery
from builder_worker.console import LineCutter
from builder_worker.sandbox import ExitStatus, Limits, Sandbox

READ_SIZE = 64 * 1024
"""Bytes read from the job at once, the size of a pipe: all that is waiting there becomes one write to the server."""

LINES_AT_ONCE = 1000
"""Console lines that are sent in one go, some 15 ms: jobs in other slots wait meanwhile. What is read at once may be
64 times more, of empty lines."""

END_TIMEOUT = 10.0
"""Seconds for the processes of a job to die; what is left then is up to the sandbox."""

SendLines = Callable[[Sequence[bytes]], Awaitable[None]]
"""Sends lines to the server, and returns when it takes more: a slow server slows the job."""


async def run_job(sandbox: Sandbox, *, limits: Limits, send_lines: SendLines) -> Result:
    """Run the sandbox's script and return how it ended. All its processes are gone then, and all its output is sent.

    Raises SandboxError where it can't be started, and what ``send_lines`` raises.
    """
    return await _Run(sandbox, limits, send_lines).run()


class _Run:
    def __init__(self, sandbox: Sandbox, limits: Limits, send_lines: SendLines) -> None:
        self._sandbox = sandbox
        self._limits = limits
        self._send_lines = send_lines
        self._lines = LineCutter()
        self._received = 0  # bytes of output
        self._stopped: str | None = None  # why the worker ended the job
        self._ended = False
        self._sending = False
        self._last_output = trio.current_time()
        self._waiting = trio.CancelScope()

    async def run(self) -> Result:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            os.set_blocking(reading, False)
            try:
                self._sandbox.start(writing)
            finally:
                os.close(writing)
            try:
                return await self._watch(reading)
            except BaseException:
                await self._end_early()
                raise
        finally:
            os.close(reading)

    async def _end_early(self) -> None:
        """Leave no process of the job for whoever cleans up after it."""
        self._sandbox.kill()
        with trio.move_on_after(END_TIMEOUT, shield=True):
            await self._sandbox.wait()

    async def _watch(self, output: int) -> Result:
        async with plain_nursery() as nursery:
            if self._limits.timeout is not None:
                nursery.start_soon(self._stop_after, self._limits.timeout)
            if self._limits.max_silent is not None:
                nursery.start_soon(self._stop_silent, self._limits.max_silent, output)
            pumped = trio.Event()
            nursery.start_soon(self._pump, output, pumped)
            status = await self._sandbox.wait()
            self._ended = True
            self._waiting.cancel()
            # no deadline: the server takes the rest of the output as slowly as it likes
            await pumped.wait()
            nursery.cancel_scope.cancel()
        return self._result(status)

    def _result(self, status: ExitStatus) -> Result:
        reason = self._stopped or self._sandbox.exceeded()
        if reason:
            return Aborted(message=reason)
        if status.signal is not None:
            return Signalled(signal=wire_signal(status.signal))
        return Exited(code=status.code or 0)

    def _stop(self, reason: str) -> None:
        if not self._ended and self._stopped is None:
            self._stopped = reason
            self._sandbox.kill()

    async def _stop_after(self, seconds: float) -> None:
        await trio.sleep(seconds)
        self._stop(f"time limit of {seconds:g} s exceeded")

    async def _stop_silent(self, seconds: float, output: int) -> None:
        while (left := self._last_output + seconds - trio.current_time()) > 0 or not self._is_silent(output):  # noqa: ASYNC110 - time is what is waited for
            await trio.sleep(left if left > 0 else seconds)
        self._stop(f"no output for {seconds:g} s")

    def _is_silent(self, output: int) -> bool:
        """Whether it is the job that says nothing: not if the server does not read, or this worker stood still."""
        return not self._sending and not _waiting(output)

    async def _pump(self, output: int, pumped: trio.Event) -> None:
        """Send what the job writes until it has ended, and then what is still in the pipe.

        The pipe's end is not waited for then: who still holds it is no process of the job any more, or escaped.
        """
        while not self._ended:
            with trio.CancelScope() as self._waiting:
                # no deadline: a job may be silent, up to the limit that is watched elsewhere
                await trio.lowlevel.wait_readable(output)
            if not self._ended:
                data = _read(output, READ_SIZE)
                if data == b"":
                    break  # the job has closed its output, and may go on without
                await self._send(data or b"")
        left = _waiting(output)
        while left > 0 and (data := _read(output, min(left, READ_SIZE))):
            left -= len(data)
            await self._send(data)
        await self._send_in_parts(self._lines.finish())
        pumped.set()

    async def _send(self, data: bytes) -> None:
        self._received += len(data)
        if self._limits.max_console is not None and self._received > self._limits.max_console:
            self._stop(f"more than {self._limits.max_console} bytes of console output")
            return
        await self._send_in_parts(self._lines.feed(data))

    async def _send_in_parts(self, lines: Sequence[bytes]) -> None:
        self._sending = True
        for first in range(0, len(lines), LINES_AT_ONCE):
            await self._send_lines(lines[first : first + LINES_AT_ONCE])
        self._sending = False
        self._last_output = trio.current_time()


def _read(fd: int, size: int) -> bytes | None:
    """Return what is there, empty at the end, None when nothing is there now."""
    try:
        return os.read(fd, size)
    except BlockingIOError:
        return None


def _waiting(fd: int) -> int:
    """Return how many bytes are in a pipe."""
    count = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return count[0]
