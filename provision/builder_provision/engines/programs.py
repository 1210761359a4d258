"""Programs that an engine is spoken to with: run, with a deadline and a bound for what they say."""

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence

import trio

from builder.model import printable
from builder.runtime.nurseries import plain_nursery
from builder_provision.engines import TIMEOUT
from builder_provision.errors import EngineFailed, EngineSilent

MAX_SAID = 64 * 1024**2
"""Bytes that a program may say: a line for each of a hundred thousand workers."""

_LOOKED_AT = 4096
"""Bytes of the end of what a program has said in which it is looked for what makes it hopeless."""

LEFT = 5.0
"""Seconds in which the output of a program ends that has ended itself: else something else writes there."""

MAX_REASON = 300
"""Characters that are quoted of what went wrong."""


async def run(
    words: Sequence[str],
    *,
    given: str = "",
    env: Mapping[str, str] | None = None,
    hopeless: Callable[[str], str] = lambda _: "",
) -> str:
    """Return what a program says. Raises EngineFailed if it can't be run, fails, says too much, or takes too long.

    It is not waited for either when ``hopeless`` returns, of what it has complained about, why it will fail.
    """
    name = os.path.basename(words[0])  # noqa: PTH119 - a word
    said, errors = bytearray(), bytearray()
    try:
        process = await trio.lowlevel.open_process(
            list(words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(env or {})},
        )
    except OSError as error:
        raise EngineFailed(f"{name} can't be run: {error.strerror}") from error
    try:
        with trio.fail_after(TIMEOUT):
            async with plain_nursery() as nursery:
                nursery.start_soon(_write, process, given)
                nursery.start_soon(_read, process.stdout, said, name)
                nursery.start_soon(_read, process.stderr, errors, name, hopeless)
                await process.wait()
                nursery.cancel_scope.deadline = trio.current_time() + LEFT
            if nursery.cancel_scope.cancelled_caught:
                raise EngineFailed(
                    f"{name} has ended, and what it started holds its output: start that with one of its own"
                )
    except trio.TooSlowError as error:
        complaint = f": {reason}" if (reason := _reason(bytes(errors))) else ""
        raise EngineSilent(f"{name} took longer than {TIMEOUT:g} s{complaint}") from error
    finally:
        if process.returncode is None:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
    if process.returncode:
        raise EngineFailed(f"{name} failed: {_reason(bytes(errors)) or f'status {process.returncode}'}")
    return said.decode("utf-8", "replace")


async def _write(process: trio.Process, given: str) -> None:
    assert process.stdin, "it was asked for"
    async with process.stdin:
        try:
            await process.stdin.send_all(given.encode())
        except trio.BrokenResourceError:  # it reads nothing, and its status says whether that is wrong
            return


async def _read(
    stream: trio.abc.ReceiveStream | None, into: bytearray, name: str, hopeless: Callable[[str], str] = lambda _: ""
) -> None:
    assert stream, "it was asked for"
    async with stream:
        async for piece in stream:
            into += piece
            if len(into) > MAX_SAID:
                raise EngineFailed(f"{name} says more than {MAX_SAID // 1024**2} MiB")
            if reason := hopeless(into[-_LOOKED_AT:].decode("utf-8", "replace")):
                raise EngineFailed(f"{name} {reason}")


def _reason(errors: bytes) -> str:
    """Return the last line of what a program has complained about, which says what it has come to."""
    lines = errors.decode("utf-8", "replace").strip().splitlines()
    return printable(lines[-1].strip()[:MAX_REASON]) if lines else ""
