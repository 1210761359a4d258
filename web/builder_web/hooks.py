"""Upload hooks: programs of the operator's that run when a build was recorded."""

import errno
import logging
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import trio
from attrs import frozen

from builder.model import printable
from builder_web.directory import DataDirectory
from builder_web.store.records import NewBuild

log = logging.getLogger(__name__)

TIME_LIMIT = 600.0
"""Seconds that a hook may run."""

GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL for a hook that has to end: after its time, or because the program stops."""

MAX_OUTPUT = 64 * 1024
"""Bytes of a hook's output that are logged; the rest is thrown away."""

_LAST_OUTPUT = 1.0  # seconds: what it left running may hold its output open
_OF_THE_MANAGER = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_PID")


@frozen(kw_only=True)
class Hooks:
    """The hooks in a configuration directory: ``upload-hooks/*.sh``, and ``upload-hooks-failed/*.sh`` for failed builds."""

    configuration: Path
    directory: DataDirectory

    def find(self, *, failed: bool) -> list[Path]:
        """Return the hooks for failed builds, or for others, in the order of their names."""
        folder = self.configuration / ("upload-hooks-failed" if failed else "upload-hooks")
        try:
            found = sorted(path for path in folder.iterdir() if path.suffix == ".sh" and path.is_file())
        except FileNotFoundError:
            return []
        except OSError as error:
            log.error("hooks can't be run: %s: %s", folder, error.strerror)
            return []
        hooks = []
        for path in found:
            if os.access(path, os.X_OK):
                hooks.append(path)
            else:
                log.warning("%s is not executable, and not run", path)
        return hooks

    def arguments(self, build: NewBuild) -> list[str]:
        """Return what each hook is called with, as the original does."""
        _, moment = build.started.calendar()
        main = next((file for file in build.artifacts if file.path == build.main_binary), None)
        arguments = [f"--build-time={moment:%Y%m%d%H%M%S}"]
        if main:
            arguments.append(f"--sha256={main.digest.hex()}")
        arguments += [
            f"--job={build.job}",
            f"--uuid={build.uuid}",
            f"--platform={build.platform}",
            f"--cache-dir={self.directory.cache}",
            f"--data-dir={self.directory.root}",
        ]
        if main:
            arguments += [f"--main-binary-filepath={main.path}", str(self.directory.content(main.digest))]
        return arguments


async def run(path: Path, arguments: list[str]) -> None:
    """Run a hook to its end, or to the end of its time; what it says and how it ends is logged.

    It has a process group of its own, which ends as a whole when its time is over, or when this is cancelled.
    """
    try:
        process = await _start(path, arguments)
    except (OSError, ValueError) as error:  # ValueError: an argument holds a NUL
        log.error("hook %s can't be run: %s", path.name, getattr(error, "strerror", None) or error)
        return
    try:
        with trio.move_on_after(TIME_LIMIT) as limit:
            await _log_output(process, path.name)
    finally:
        if process.returncode is None:
            await _end(process)
    if limit.cancelled_caught:
        log.error("hook %s was ended after %.0f s", path.name, TIME_LIMIT)
    elif process.returncode:
        log.error("hook %s ended with %d", path.name, process.returncode)


async def _start(path: Path, arguments: list[str]) -> trio.Process:
    environment = {name: value for name, value in os.environ.items() if name not in _OF_THE_MANAGER}
    command = [str(path), *arguments]
    try:
        return await _open(command, environment)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
        return await _open(["/bin/sh", *command], environment)  # as execvp(3) does with what has no #!


async def _open(command: list[str], environment: dict[str, str]) -> trio.Process:
    return await trio.lowlevel.open_process(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/",
        env=environment,
        start_new_session=True,
    )


async def _log_output(process: trio.Process, name: str) -> None:
    """Log what a hook says until it has ended."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_log_lines, process, name)
        await process.wait()
        nursery.cancel_scope.deadline = trio.current_time() + _LAST_OUTPUT


async def _log_lines(process: trio.Process, name: str) -> None:
    assert process.stdout
    left, held = MAX_OUTPUT, b""
    async with process.stdout as output:
        async for piece in output:
            if not left:
                continue
            held += piece[:left]
            left -= len(piece[:left])
            *lines, held = held.split(b"\n")
            if not left:
                lines, held = [*lines, held, b"(more of it is not logged)"], b""
            for line in lines:
                log.info("hook %s: %s", name, printable(line))
    if held:
        log.info("hook %s: %s", name, printable(held))


async def _end(process: trio.Process) -> None:
    with trio.CancelScope(shield=True):
        os.killpg(process.pid, signal.SIGTERM)
        with trio.move_on_after(GRACE):
            await process.wait()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what is left of the group
        await process.wait()
