"""A zfs clone that is the whole system of one job: made from a snapshot, destroyed with all that is mounted in it.

Written after the manuals of zfs(8), mount_nullfs(8) and umount(8) in FreeBSD 13 and 14, where it has not run yet.
"""

import errno
import os
import re
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath

import trio
from attrs import define

from builder.model import printable
from builder_worker.sandbox import SandboxError
from builder_worker.sandbox.job_directory import JobDirectory, make_directory
from builder_worker.sandbox.linux import view

HOME = "/build-home"
"""The job's home: beside /build, since what lies in there is an artifact, and no name that a system has, perhaps as a
link."""

DESTROY_TIMEOUT = 30.0
"""Seconds in which a clone must be destroyed: it is busy for a moment after the last process of its jail."""

MOUNTS = "mounts"
"""Name of the list of what is mounted, each with a zero byte after it."""

SNAPSHOT = re.compile(r"([A-Za-z][A-Za-z0-9_.:-]*(?:/[A-Za-z0-9_.:-]+)*)@[A-Za-z0-9_.:-]+")
"""What a snapshot may be called here: zfs allows spaces too, and is asked whether there is one."""

Run = Callable[..., Awaitable[bytes]]
"""``tools.run`` in an environment of one's own."""


def parent_of(snapshot: str) -> str:
    """Return the dataset in which clones of a snapshot are made. Raises SandboxError if it is no name of one."""
    match = SNAPSHOT.fullmatch(snapshot)
    if match is None:
        raise SandboxError(f"{printable(snapshot)} is no zfs snapshot: write DATASET@NAME")
    return match[1].rpartition("/")[0] or match[1]


@define(kw_only=True)
class Clone(JobDirectory):
    """A job's directory whose disk is a clone, and the whole system of its jail.

    Beside the disk lies a list of what is mounted in it, for whoever removes it.
    """

    dataset: str
    snapshot: str
    run: Run

    async def _make(self) -> None:
        self.path.chmod(0o700)  # inside of a jail nobody comes from above, and the host has a nobody too
        make_directory(self.disk, 0o755)
        quota = [] if self.size is None else ["-o", f"quota={self.size}"]
        await self.run(
            *("zfs", "clone", "-o", f"mountpoint={self.disk}", "-o", "atime=off", "-o", "setuid=off"),
            *(*quota, self.snapshot, self.dataset),
        )
        self._mounted = True
        for name in (view.BUILD, HOME):
            self.make_own(name.lstrip("/"), 0o755)

    def _find_disk(self) -> None:
        """Find it where it was: here all see the same mounts."""

    def write(self, directory: str, name: str, text: bytes) -> None:
        """Write a file of the system, instead of the snapshot's, for all to read. Raises OSError and SandboxError."""
        path = _make_directory(self.disk, directory) / name
        path.unlink(missing_ok=True)  # it may be a link
        with path.open("xb") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(text)

    async def mount(self, target: str, *command: str) -> None:
        """Mount something where the job sees it at ``target``, by a command whose last argument is that directory."""
        path = _make_directory(self.disk, target)
        with (self.path / MOUNTS).open("ab") as file:
            file.write(os.fsencode(path) + b"\0")
        await self.run(*command, str(path))

    async def share(self, source: Path, target: str, *, writable: bool) -> None:
        """Show the job a directory of the host. Raises SandboxError."""
        _check_directory(source)
        await self.mount(target, "mount_nullfs", "-o", "nosuid" if writable else "ro,nosuid", str(source))

    async def written(self, processes: Iterable[int]) -> int:  # noqa: ARG002 - zfs counts what they keep open too
        """Return the bytes that the clone takes beyond its snapshot, with those of deleted files that are open.

        Not what lies in it: that is a whole system, which others have filled the disk with. Raises OSError.
        """
        try:
            return int(await self.run("zfs", "list", "-H", "-p", "-o", "used", self.dataset))
        except SandboxError as error:
            raise OSError(errno.EIO, str(error)) from error

    async def clear(self) -> None:
        """Leave it as it is: the system in it goes as a whole."""

    async def remove(self) -> None:
        """Unmount and destroy. Raises SandboxError."""
        if (self.path / MOUNTS).exists():
            for target in reversed((self.path / MOUNTS).read_bytes().split(b"\0")[:-1]):
                with suppress(SandboxError):  # the mount has failed; if it has not, the clone can't be destroyed
                    await self.run("umount", "-f", os.fsdecode(target))
        if await succeeds(self.run("zfs", "list", "-H", "-o", "name", self.dataset)):
            await self._destroy()
        await super().remove()

    async def _destroy(self) -> None:
        said = "it takes too long"
        with trio.move_on_after(DESTROY_TIMEOUT):
            pause = 0.01
            while True:
                try:
                    await self.run("zfs", "destroy", "-r", "-f", self.dataset)
                except SandboxError as error:
                    said = str(error)
                else:
                    return
                await trio.sleep(pause)
                pause = min(1.0, pause * 2)
        raise SandboxError(f"cannot destroy {self.dataset}, do it by hand: {said}")


def _make_directory(root: Path, target: str) -> Path:
    """Make the directory that a job sees at ``target``, if there is none. Raises SandboxError where a link of the snapshot
    would lead elsewhere: outside of the jail that is somewhere else on the host.
    """
    path = root
    for part in PurePosixPath(target).parts[1:]:
        path /= part
        if path.is_symlink():
            raise SandboxError(f"{target} leads through a link in the snapshot: take another place")
        try:
            make_directory(path, 0o755)
        except OSError as error:
            raise SandboxError(f"cannot make {target} in the clone: {error.strerror}") from error
    return path


def _check_directory(source: Path) -> None:
    if not source.is_dir():
        raise SandboxError(f"{source} is no directory: jails can't be shown anything else")


async def succeeds(running: Awaitable[bytes]) -> bool:
    """Return whether a program that was run did not fail."""
    try:
        await running
    except SandboxError:
        return False
    return True
