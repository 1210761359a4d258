"""What all sandboxes have in common that run a job in a directory: its end, with an eye on the disk, and the reason."""

import abc
from collections.abc import Iterable

from builder.runtime.nurseries import plain_nursery
from builder_worker.sandbox import ExitStatus, Sandbox
from builder_worker.sandbox.job_directory import JobDirectory

SCRIPT = ".builder-script"
"""Begins with a dot, so that a job's own ``rm *`` or ``sha256sum *`` does not see it."""


class WatchedSandbox(Sandbox):
    """A job in a directory. ``status`` is None until all of the job is gone."""

    script_name = SCRIPT

    def __init__(self, directory: JobDirectory) -> None:
        self.work = directory.build
        self.directory = directory
        self.status: ExitStatus | None = None

    async def wait(self) -> ExitStatus:
        """Wait until all of the job is gone, and kill it if it writes more than it may."""
        if self.status is None:
            async with plain_nursery() as nursery:
                nursery.start_soon(self._enforce_size)
                await self.wait_gone()
                nursery.cancel_scope.cancel()
            await self.directory.settle()
            self.status = await self.conclude()
        return self.status

    async def _enforce_size(self) -> None:
        await self.directory.wait_full(self.processes)
        self.kill()

    def exceeded(self) -> str | None:
        """Return the limit that ended the job. A job that coped with it and succeeded was not ended by it."""
        if self.status is None or (self.status.code == 0 and not self.directory.is_over):
            return None
        return self.limit_hit() or self.directory.exceeded()

    @abc.abstractmethod
    async def wait_gone(self) -> None:
        """Wait until no process of the job is left."""

    @abc.abstractmethod
    async def conclude(self) -> ExitStatus:
        """Return how the script ended, when no process is left. Raises SandboxError if it did not come to it."""

    @abc.abstractmethod
    def processes(self) -> Iterable[int]:
        """Return the processes of the job, as far as the worker knows them."""

    @abc.abstractmethod
    def limit_hit(self) -> str | None:
        """Return which limit the job has hit, in words, or None; of what it has written, the directory tells."""
