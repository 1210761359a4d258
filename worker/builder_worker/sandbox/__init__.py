"""Sandboxes: where a job runs. One module per back end, all behind the interface of this one.

A ``Backend`` is made once from the worker's options and opens a fresh ``Sandbox`` for every job:

    async with await backend.open(task) as sandbox:
        sandbox.start()                 # the script begins; what it writes comes out of sandbox.console
        status = await sandbox.wait()   # returns when every process of the job is gone, daemons included
        ...                             # collect what is below sandbox.work
                                        # leaving the block kills what runs and removes everything

Rules that every back end keeps:
1. When ``wait`` returns no process of the job runs any more, whatever it did to escape.
2. ``kill`` ends all of them; if the worker dies, their supervisor does, unless another worker adopts them within the time
   that the task gives; if that dies too, the kernel ends them, or ``clean_up`` at the next start.
3. The job sees nothing of the worker: not its environment, descriptors, files, processes or network unless told to.
"""

import abc
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Protocol, Self
from uuid import UUID

from attrs import field, frozen

from builder.errors import BuilderError
from builder_worker.sandbox.options import Options


class SandboxError(BuilderError):
    """A sandbox could not be made or did not start: a fault of the machine or its set-up, not of the job."""

    exit_code = 7


class JobTaken(SandboxError):
    """Another worker has the job."""


class JobLeft(BuilderError):
    """This worker has let go of the job, which goes on without it."""


@frozen(kw_only=True)
class Limits:
    """What a job may use. None is no limit. Sizes in bytes, times in seconds.

    A back end enforces memory, pids, cpus, work_size and shm_size, the supervisor timeout, max_silent and max_console; those of
    artifacts are for whoever collects them.
    """

    timeout: float | None = None
    max_silent: float | None = None
    memory: int | None = None
    pids: int | None = None
    cpus: float | None = None
    work_size: int | None = None
    shm_size: int | None = None
    max_console: int | None = None
    max_artifact_bytes: int | None = None
    max_artifacts: int | None = None


@frozen(kw_only=True)
class Task:
    """What a sandbox is to run. ``environment`` is complete: the back end adds only PATH and HOME if missing."""

    uuid: UUID
    name: str
    platform: str
    script: bytes
    environment: Mapping[str, str] = field(factory=dict)
    limits: Limits = Limits()
    worker_grace: float = 0.0
    """Seconds for which the job goes on without a worker, and its end is kept for one that comes back."""


@frozen(kw_only=True)
class ExitStatus:
    """How the script's own process ended: an exit code, or the POSIX number of the signal that killed it."""

    code: int | None = None
    signal: int | None = None


@frozen(kw_only=True)
class Check:
    """What ``builder-worker check`` tells of a back end.

    ``reason`` says why it does not work here and ``remedy`` what to do about it; ``limits`` names the fields of
    ``Limits`` that are real here; ``notes`` whatever else an operator should know.
    """

    works: bool
    reason: str = ""
    remedy: str = ""
    limits: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


class Console(Protocol):
    """What a job writes."""

    @property
    def time(self) -> int:
        """When what was received last was written, in nanoseconds of the monotonic clock."""

    def skip(self, offset: int) -> None:
        """Go on with the byte at that offset: what is before it was received by another worker."""

    async def receive_some(self) -> bytes:
        """Return what was written since, at the latest when the job is over; empty when all was read then."""


class Sandbox(abc.ABC):
    """One job's sandbox; an asynchronous context manager that leaves nothing behind."""

    work: Path
    """The job's work directory as the worker sees it: the script lies in it, and the artifacts are below it."""

    place: Path
    """A directory of the worker's for this job, out of its sight, unless there is no sandbox."""

    owners: range | None = None
    """The users of the host who are the job's alone; None where it has none but the owner of the work directory."""

    script_name: str
    """The name of the script in the work directory: no artifact."""

    is_left: bool = False
    """Whether this worker has let go of the job."""

    @property
    def has_ended(self) -> bool:
        """Whether the job is over, though this worker may not have waited for it yet."""
        return False

    @property
    @abc.abstractmethod
    def console(self) -> Console:
        """What the script and its children write to stdout and stderr, from the start on."""

    @abc.abstractmethod
    def start(self) -> None:
        """Start the script. Raises SandboxError."""

    @abc.abstractmethod
    async def wait(self) -> ExitStatus:
        """Wait until all processes of the job are gone and return how the script ended."""

    @abc.abstractmethod
    def kill(self) -> None:
        """Kill all processes of the job at once. Harmless when they are gone; does not wait."""

    def leave(self) -> None:  # noqa: B027 - what can't be left ends with its worker
        """Let go of the job, if it was started: it goes on for as long as its task says, for a worker that adopts it.

        Whoever waits for it gets JobLeft; to close the sandbox then removes nothing. By default a job can't be left.
        """

    def exceeded(self) -> str | None:
        """Return which limit ended the job, such as "out of memory (limit 512 MiB)", or None."""
        return None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @abc.abstractmethod
    async def aclose(self) -> None:
        """Kill what still runs, wait for it, remove the work directory. Works when the caller is cancelled too."""


class Spare(abc.ABC):
    """What a job needs whichever it is, made for one that is not known yet."""

    @abc.abstractmethod
    async def aclose(self) -> None:
        """Remove it. Harmless when a sandbox was made of it and is gone; works when the caller is cancelled too."""


class Backend(abc.ABC):
    """A way to make sandboxes."""

    name: ClassVar[str]
    options: Options

    @abc.abstractmethod
    def check(self) -> Check:
        """Return whether it works on this machine, by trying, in well under a second."""

    async def spare(self) -> Spare | None:
        """Make what the next job needs, if there is anything, while the worker waits. Raises SandboxError.

        Who asks for it removes it in the end.
        """
        return None

    @abc.abstractmethod
    async def open(self, task: Task, spare: Spare | None = None) -> Sandbox:
        """Return a fresh sandbox with the script in its work directory. Raises SandboxError.

        A spare one makes it faster, and serves once.
        """

    async def adopt(self, place: Path) -> Sandbox:
        """Return the sandbox of a job that an earlier worker has left in a directory: it runs, or has ended meanwhile.

        Raises SandboxError if there is nothing to go on with, and then what is left can be cleaned up; and JobTaken.
        """
        raise SandboxError(f"jobs in the sandbox {self.name} can't be adopted: {place}")

    async def clean_up(self) -> tuple[str, ...]:
        """Remove what a worker that was killed left behind; return a line for each thing removed.

        What can be adopted stays as long as its supervisor waits for a worker.
        """
        return ()
