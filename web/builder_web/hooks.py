"""Upload hooks: programs of the operator's that run when a build was recorded."""

import logging
import os
import subprocess
from pathlib import Path

import trio
from attrs import frozen

from builder_web.directory import DataDirectory
from builder_web.store.records import NewBuild

log = logging.getLogger(__name__)

TIME_LIMIT = 600.0
"""Seconds that a hook may run."""

_MAX_OUTPUT = 64 * 1024
_AT_ONCE = 2


@frozen(kw_only=True)
class Hooks:
    """The hooks in a configuration directory: ``upload-hooks/*.sh``, and ``upload-hooks-failed/*.sh`` for failed builds."""

    configuration: Path
    directory: DataDirectory

    def find(self, build: NewBuild) -> list[Path]:
        """Return the hooks for a build in the order of their names."""
        folder = self.configuration / ("upload-hooks" if build.main_binary else "upload-hooks-failed")
        try:
            found = sorted(path for path in folder.iterdir() if path.suffix == ".sh")
        except OSError:
            return []
        return [path for path in found if path.is_file() and os.access(path, os.X_OK)]

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
    """Run a hook to its end, or to the end of its time; what it says and how it ends is logged."""
    try:
        with trio.move_on_after(TIME_LIMIT) as scope:
            ended = await trio.run_process(
                [str(path), *arguments], capture_stdout=True, stderr=subprocess.STDOUT, check=False
            )
    except OSError as error:
        log.error("hook %s can't be run: %s", path.name, error.strerror)
        return
    if scope.cancelled_caught:
        log.error("hook %s was ended after %d s", path.name, TIME_LIMIT)
        return
    output = ended.stdout[-_MAX_OUTPUT:].decode("utf-8", "replace").strip()
    for line in output.splitlines():
        log.info("hook %s: %s", path.name, line)
    if ended.returncode:
        log.error("hook %s ended with %d", path.name, ended.returncode)
