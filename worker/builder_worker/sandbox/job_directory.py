"""The directory of one job on the host's disk: what the job may write lies here and nowhere else.

    WORK_ROOT/builder-PID-START-UUID/       the worker's; others may only pass through
        image                               the file system below, when the size is limited by one
        disk/build                          the job's work directory
        disk/home, disk/tmp                 its home and /tmp, so that the same limit holds for them

A worker that is root limits the size with an ext4 file system in a sparse file, mounted through a loop device: that
is exact, costs 20 ms, and unlike tmpfs it takes no memory, of which builds have less than disk. Without root nothing
can be mounted that the worker still sees when the job is over, so the size is measured every second, and RLIMIT_FSIZE
bounds each file.

What is left of the host's own disk is looked at as often, whether there is a limit or not: a job that takes the last of
it is ended before others fail for it.
"""

import errno
import math
import os
import stat
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from os.path import samestat
from pathlib import Path
from typing import Self

import trio
from attrs import define, field

from builder.runtime.files import lock, lock_directory
from builder.sizes import format_size
from builder_worker import trees
from builder_worker.sandbox import SandboxError
from builder_worker.sandbox.disk import Space, measure
from builder_worker.sandbox.owner import is_left_over, tag
from builder_worker.sandbox.processes import supervisor, tools
from builder_worker.sandbox.processes.leftovers import kill_marked

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

ATTEMPT = "attempt"
"""A file beside a job by which a worker knows who waits for its result. Who sees that through removes it first."""

MIN_IMAGE = 1024 * 1024
"""Bytes; ext4 needs some for itself."""

_SLACK = 64 * 1024
"""Bytes: a file system with less free space than this is full."""

_REFUSED = 2 * 1024 * 1024
"""Bytes that the kernel takes or refuses as a whole: that much can be free when a large write found no room."""

MEASURE_INTERVAL = 1.0
"""Seconds between two looks at how much is written."""

LOW_TIMEOUT = 300.0
"""Seconds that a disk may be almost full before jobs are ended that seem to have written little: who filled it is ended
at once, and its files are gone long before."""


def prepare_root(path: Path) -> None:
    """Make the directory in which job directories are made. Raises SandboxError if it could be someone else's."""
    try:
        make_directory(path, 0o711)
        _check_root(path)
    except OSError as error:
        raise SandboxError(f"cannot make {path}: {error.strerror}; name another one with --work-dir") from error


def _check_root(path: Path) -> None:
    """Raise SandboxError if others could have made what is in a directory, and OSError."""
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise SandboxError(f"{path} must be a directory that only this user can write to")


def make_directory(path: Path, mode: int) -> None:
    """Make a directory with this mode, and what is missing above it for all to pass, whatever the umask is.

    What is there is left as it is. Raises OSError.
    """
    for directory in reversed((path, *path.parents)):
        if not directory.exists():
            directory.mkdir(exist_ok=True)
            directory.chmod(mode if directory == path else 0o755)


def can_execute(root: Path) -> bool:
    """Return whether scripts in the directories of jobs can be executed, by trying. Raises SandboxError."""
    prepare_root(root)
    try:
        with tempfile.TemporaryDirectory(prefix=tag("trial-"), dir=root) as place:
            script = Path(place, "script")
            script.write_text("#!/bin/sh\n")
            script.chmod(0o700)
            return tools.try_now([str(script)]) is None
    except OSError as error:
        raise SandboxError(
            f"cannot try a script in {root}: {error.strerror}; name another one with --work-dir"
        ) from error


@define(kw_only=True)
class JobDirectory:
    """A job's directory. ``size`` is its limit in bytes, ``owner`` the job's user and group if not the worker's.

    ``users`` tells how many users of the host are the job's, from the owner on.
    """

    path: Path
    size: int | None
    owner: int | None
    users: int = 1
    _mounted: bool = field(init=False, default=False)
    _seen: Path | None = field(init=False, default=None)
    """Another name of it, where what is mounted in it can be seen by that alone."""

    _was_full: bool = field(init=False, default=False)
    _left: Space | None = field(init=False, default=None)
    """What was left of the host's disk when the job was found to have taken the rest."""

    _blame: str = field(init=False, default="")

    _held: int | None = field(init=False, default=None)
    """A descriptor with a lock: by that, workers in other containers, who do not see this process, know that it lives."""

    _fault: OSError | None = field(init=False, default=None)
    """Why it could not be looked at: without a sandbox, a job can move it away."""

    @classmethod
    async def make(cls, root: Path, name: str, *, size: int | None, owner: int | None, users: int = 1) -> Self:
        """Make the directory. Raises SandboxError, and then nothing is left."""
        directory = cls(path=root / tag(name), size=size, owner=owner, users=users)
        await directory.create()
        return directory

    async def create(self) -> None:
        """Make it. Raises SandboxError, and then nothing is left."""
        self.reserve()
        await self.furnish()

    def reserve(self) -> None:
        """Make it for a job of which nothing is known. Raises SandboxError, and then nothing is left."""
        try:
            # nobody passes but the worker and the job's own group: what jobs write may be open to all
            self.path.mkdir(mode=0o700)
        except OSError as error:  # whatever is there is not ours to remove
            raise SandboxError(f"cannot make the work directory: {error}") from error
        try:
            self._held = os.open(self.path, _DIRECTORY)
            lock(self._held, shared=True, wait=True)  # for as long as somebody looks whether it is held
        except OSError as error:
            self.path.rmdir()
            raise SandboxError(f"cannot make the work directory: {error}") from error

    async def furnish(self) -> None:
        """Make what is in it. Raises SandboxError, and then nothing is left."""
        try:
            if self.owner is not None:
                os.chown(self.path, -1, self.owner)
                self.path.chmod(0o710)
            await self._make()
        except OSError as error:
            await self.remove()
            raise SandboxError(f"cannot make the work directory: {error}") from error
        except BaseException:
            with trio.CancelScope(shield=True):
                await self.remove()
            raise

    def take_over(self, held: int | None, *, is_mounted: bool) -> None:
        """Have it as another worker left it, with the lock of its supervisor, or one of its own if that has gone.

        A supervisor may see other mounts than this worker, when a service manager has given each start of the worker its
        own: the job's disk is then seen through the supervisor's descriptor of the directory. Raises SandboxError.
        """
        try:
            self._held = held if held is not None else lock_directory(self.path, shared=True)
        except OSError as error:
            raise SandboxError(f"its directory can't be opened: {error.strerror}") from error
        if self._held is None:
            raise SandboxError("another worker is about to remove it")
        self._mounted = is_mounted
        if is_mounted:
            self._find_disk()

    def _find_disk(self) -> None:
        if _is_mount(self.disk):
            return
        self._seen = Path(f"/proc/{os.getpid()}/fd/{self._held}")
        if not self.disk.is_dir() or samestat(self.disk.stat(), (self.path / "disk").stat()):
            raise SandboxError("its disk is not mounted any more")

    @property
    def lock(self) -> int:
        """The descriptor with the lock."""
        assert self._held is not None, "it was reserved or taken over"
        return self._held

    @property
    def is_mounted(self) -> bool:
        """Whether a file system limits the size."""
        return self._mounted

    @property
    def is_there(self) -> bool:
        """Whether it is where it was made: jobs without a sandbox can move it away, and what tidies up remove it."""
        try:
            return self._held is not None and samestat(os.fstat(self._held), self.path.lstat())
        except OSError:
            return False

    @property
    def owners(self) -> range | None:
        """The users of the host who are the job's alone, if it has any."""
        return None if self.owner is None else range(self.owner, self.owner + self.users)

    @property
    def disk(self) -> Path:
        """What the limit holds for."""
        return (self._seen or self.path) / "disk"

    @property
    def build(self) -> Path:
        """The work directory."""
        return self.disk / "build"

    @property
    def is_measured(self) -> bool:
        """Whether ``wait_full`` is what limits the size."""
        return self.size is not None and not self._mounted

    @property
    def took_the_disk(self) -> bool:
        """Whether the job was found to have taken the last of the disk that all share."""
        return self._left is not None

    @property
    def is_over(self) -> bool:
        """Whether the job has written more than it may and no file system kept it from it, or nobody can tell."""
        return self._left is not None or self._fault is not None or (self.is_measured and self._was_full)

    async def _make(self) -> None:
        make_directory(self.disk, 0o755)
        if self.size is not None and self.owner is not None:
            await self._mount(self.size)
        for name, mode in (("build", 0o755), ("home", 0o755), ("tmp", 0o1777)):
            self.make_own(name, mode)

    def make_own(self, name: str, mode: int) -> None:
        """Make a directory of the job's on its disk. Raises OSError."""
        path = self.disk / name
        path.mkdir()
        path.chmod(mode)
        if self.owner is not None:
            os.chown(path, self.owner, self.owner)

    async def _mount(self, size: int) -> None:
        image = self.path / "image"
        with image.open("xb") as file:
            space = os.statvfs(self.path)  # a job may ask for more than there is
            file.truncate(max(min(size, space.f_bavail * space.f_frsize), MIN_IMAGE))
        # No journal and no reserve: it lives as long as one job. The tables are written as they are needed.
        await tools.run(
            "mkfs.ext4",
            "-q",
            "-F",
            "-m",
            "0",
            "-O",
            "^has_journal,^resize_inode",
            "-E",
            "lazy_itable_init=1",
            str(image),
        )
        await tools.run("mount", "-t", "ext4", "-o", "loop,nosuid,nodev,noatime", str(image), str(self.disk))
        self._mounted = True
        (self.disk / "lost+found").rmdir()

    def write_script(self, name: str, script: bytes) -> None:
        """Write the script into the work directory, executable. Raises SandboxError."""
        try:
            with (self.build / name).open("xb") as file:
                file.write(script)
                os.fchmod(file.fileno(), 0o755)
                if self.owner is not None:
                    os.fchown(file.fileno(), self.owner, self.owner)
        except OSError as error:
            raise SandboxError(f"cannot write the script: {error}") from error

    def _note_full(self, slack: int = _SLACK) -> None:
        """Remember it if the file system is full now: the job may make room before it ends."""
        if self._mounted:
            space = os.statvfs(self.disk)
            self._was_full = self._was_full or space.f_bavail * space.f_frsize < slack or space.f_favail == 0

    async def written(self, processes: Iterable[int]) -> int:
        """Return the bytes that the job has written, with those of deleted files that the processes keep open.

        Raises OSError.
        """
        return await measure(self.disk, processes)

    async def wait_full(self, processes: Callable[[], Iterable[int]]) -> None:
        """Return when the job has written more than it may, or nobody can tell; for ever, if it does not.

        ``processes`` returns those of the job: what they keep open counts, though it is in no directory any more.
        """
        try:
            await self._watch(processes)
        except OSError as error:
            self._fault = error

    async def _watch(self, processes: Callable[[], Iterable[int]]) -> None:
        low_since = math.inf if Space.of(self.path).is_low else None  # before it wrote anything: not its fault
        while not self.is_over:
            await trio.sleep(MEASURE_INTERVAL)
            self._note_full()
            space, now = Space.of(self.path), trio.current_time()
            low_since = (now if low_since is None else low_since) if space.is_low else None
            if self.is_measured or space.is_low:
                size = await self.written(processes())
                self._was_full = self._was_full or (self.is_measured and size > (self.size or 0))
                if low_since is not None and (size > space.reserve or now - low_since > LOW_TIMEOUT):
                    self._left = space
                    self._blame = (
                        "it filled the worker's disk" if size > space.reserve else "the worker's disk stayed full"
                    )
                await trio.sleep(5 * (trio.current_time() - now))  # millions of files must not cost a whole CPU

    async def settle(self) -> None:
        """Measure once more, when the job is over. Whether it failed, the caller knows: then little room means none."""
        try:
            self._note_full(max(_SLACK, min(_REFUSED, (self.size or 0) // 8)))
            if self.is_measured:
                self._was_full = self._was_full or await self.written(()) > (self.size or 0)
        except OSError as error:
            self._fault = error

    def exceeded(self) -> str | None:
        """Return in words whether the job wanted to write more than it may."""
        if self._fault is not None:
            return f"the job's directory can't be looked at any more: {self._fault.strerror}"
        if self._left is not None:
            return f"{self._blame} ({format_size(self._left.free)} left)"
        return f"work directory full (limit {format_size(self.size)})" if self._was_full and self.size else None

    async def clear(self) -> None:
        """Remove what the job has written. Raises SandboxError."""
        try:
            if self._mounted:
                await _unmount(self.disk)
                self._mounted = False
                (self.path / "image").unlink(missing_ok=True)
            for path in list(self.disk.iterdir()):
                await trio.to_thread.run_sync(trees.remove_tree, path)
            self.build.mkdir()
        except (OSError, trees.TreeChanged) as error:
            raise SandboxError(f"cannot clear {self.disk}: {error}") from error

    async def remove(self) -> None:
        """Remove it, whatever the job made of it. Raises SandboxError."""
        try:
            await remove_tree(self.path)
        finally:
            self.release()

    def release(self) -> None:
        """Let others have what is left of it."""
        if self._held is not None:
            os.close(self._held)
            self._held = None


async def remove_tree(path: Path) -> None:
    """Remove a job's directory with what is mounted in it. Raises SandboxError."""
    if _is_mount(path / "disk"):
        await _unmount(path / "disk")
    try:
        try:
            await trio.to_thread.run_sync(trees.remove_tree, path)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            await trio.to_thread.run_sync(trees.remove_tree, path)  # its supervisor has written down the end meanwhile
    except FileNotFoundError:
        pass  # it was not even made
    except (OSError, trees.TreeChanged) as error:
        raise SandboxError(f"cannot remove {path}: {error}") from error


def _is_mount(path: Path) -> bool:
    return path.is_mount()


async def _unmount(disk: Path) -> None:
    try:
        await tools.run("umount", str(disk))
    except SandboxError:  # busy: a hook of the operator's still looks at it
        await tools.run("umount", "--lazy", str(disk))


def left_over(root: Path) -> list[Path]:
    """Return the job directories of workers that are gone, or that can't be seen from here, sorted.

    What is written down in them says which programs are run: SandboxError is raised where others could have written it, and
    OSError where it can't be read.
    """
    if not root.is_dir():
        return []
    _check_root(root)
    return sorted(path for path in root.iterdir() if is_left_over(path.name))


async def clean_up(root: Path) -> tuple[str, ...]:
    """Remove the job directories of workers that are gone; return a line for each.

    Does nothing while another worker does it in the same place. Raises SandboxError if the place can't be read, or is not
    this user's alone.
    """
    try:
        descriptor = lock_directory(root)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise SandboxError(f"cannot read {root}: {error.strerror}; name another one with --work-dir") from error
    if descriptor is None:
        return ()
    try:
        said = [await _remove_unless_held(path) for path in left_over(root)]
        return tuple(line for line in said if line is not None)
    finally:
        os.close(descriptor)


async def _remove_unless_held(path: Path) -> str | None:
    """Remove what a worker has left and return a line about it; None if a worker that lives in another container has it,
    or a supervisor that waits for one, or if a worker is still to deliver what came of the job.
    """
    if all((path / name).exists() for name in (ATTEMPT, supervisor.STATUS)):
        return None
    with ExitStack() as held:
        with suppress(OSError):  # no directory at all, or not for this worker: removing it will tell
            descriptor = lock_directory(path)
            if descriptor is None:
                return None
            held.callback(os.close, descriptor)  # nobody adopts it meanwhile
        return await _remove_left_over(path)


async def _remove_left_over(path: Path) -> str:
    await kill_marked(path.name)  # its supervisor, too, if that is not done yet or was stopped
    try:
        await remove_tree(path)
    except SandboxError as error:  # what one job left must not keep all that come after it from running
        return f"{error}; remove it by hand"
    return f"removed the work directory {path}"


def make_cache(path: Path, owner: int | None) -> None:
    """Make the directory of a cache, the job's own. Raises SandboxError."""
    try:
        make_directory(path, 0o755)
        if owner is not None:
            os.chown(path, owner, owner)
    except OSError as error:
        raise SandboxError(f"cannot make a cache: {error}") from error
