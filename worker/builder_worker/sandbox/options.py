"""What an operator chooses for the sandboxes of a worker."""

import os
from pathlib import Path, PurePosixPath
from typing import Self

from attrs import field, frozen

from builder.errors import BuilderError, InvalidName
from builder.model import check_name, printable


class OptionError(BuilderError):
    """An option of the sandboxes that makes no sense."""

    exit_code = 2


JOB_UIDS = range(1_900_000_000, 1_900_001_024)
"""Host users that jobs run as when the worker is root: in a range that neither Debian nor systemd assigns.
With the 65536 of each that ``overlay`` adds behind them they end below 2^31."""


def _check_target(target: str, text: str, form: str) -> None:
    path = PurePosixPath(target)
    if not path.is_absolute() or ".." in path.parts or path == PurePosixPath("/"):
        raise OptionError(
            f"{printable(text)}: write {form}, where DST is an absolute path in the sandbox, not / itself"
        )


@frozen(kw_only=True)
class Bind:
    """A directory or file of the host that jobs see at ``target``; read-only unless ``writable``."""

    source: Path
    target: str
    writable: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read SRC:DST[:rw]. Raises OptionError."""
        source, _, rest = text.partition(":")
        target, _, mode = rest.partition(":")
        if not source or mode not in ("", "ro", "rw"):
            raise OptionError(f"{text}: not of the form SRC:DST or SRC:DST:rw")
        _check_target(target, text, "SRC:DST or SRC:DST:rw")
        if Path(source).is_char_device() or Path(source).is_block_device():
            raise OptionError(f"{printable(source)} is a device: show it to jobs by --device {printable(source)}")
        return cls(source=Path(source).absolute(), target=target, writable=mode == "rw")


def parse_device(text: str) -> Path:
    """Read the path of a device of this machine, which jobs see under the same. Raises OptionError."""
    path = Path(text)
    if path.parts[:2] != ("/", "dev") or ".." in path.parts or len(path.parts) < 3:
        raise OptionError(f"{printable(text)}: write the path of a device, such as /dev/kvm")
    if not path.is_char_device() and not path.is_block_device():
        what = "is a directory: name the devices in it" if path.is_dir() else "is no device of this machine"
        raise OptionError(f"{printable(text)} {what}")
    return path


@frozen(kw_only=True)
class Cache:
    """A directory that the jobs of one platform share on purpose, seen at ``target``."""

    name: str
    target: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read NAME:DST. Raises OptionError."""
        name, _, target = text.partition(":")
        try:
            check_name(name, what="cache")
        except InvalidName as error:
            raise OptionError(f"{printable(text)}: write NAME:DST; {error}") from error
        _check_target(target, text, "NAME:DST")
        return cls(name=name, target=target)


def _default_work_root() -> Path:
    # Not /tmp, which is often memory; a name per user, because its owner must be this one.
    return Path(os.environ.get("TMPDIR") or "/var/tmp") / f"builder-worker-{os.geteuid()}"  # noqa: S108 - its owner is checked


@frozen(kw_only=True)
class Options:
    """The options that back ends share."""

    root: Path | None = None
    """The root tree that jobs see, None for the host's /usr."""

    image: str | None = None
    """What podman runs instead of a root tree: the name of an image that has been pulled; and for jails, of a snapshot."""

    network: bool = False
    binds: tuple[Bind, ...] = ()
    caches: tuple[Cache, ...] = ()
    devices: tuple[Path, ...] = ()

    work_root: Path = field(factory=_default_work_root)
    """Where the directories of jobs are made: on a disk, not in memory."""

    cache_root: Path | None = None
    """Where the caches lie, one directory per platform; None is below work_root."""

    job_uids: range = JOB_UIDS
    """As root: the host's users for jobs, one for each sandbox at a time. The last one is for jobs with caches."""

    def cache_directory(self, platform: str, cache: Cache) -> Path:
        """Return where a cache of a platform lies."""
        check_name(platform, what="platform")
        return (self.cache_root or self.work_root / "caches") / platform / cache.name
