"""Root trees: the systems that jobs see, made by mmdebstrap from a distribution's archive, and reproducible.

With a snapshot date the packages are those of that day, and every time stamp in the tree is clamped to it: two trees
of one name and date are equal wherever they are made. The tree says what it is in ``etc/builder-root.json``.
"""

import datetime as dt
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import trio
from attrs import asdict, frozen

from builder.runtime.files import lock_directory
from builder_worker import trees
from builder_worker.sandbox import SandboxError, diagnosis
from builder_worker.sandbox.processes import tools

LABEL = Path("etc/builder-root.json")

_TIMEOUT = 3600.0
"""Seconds for a tree over a slow line."""

_PROXIES = ("http_proxy", "https_proxy", "no_proxy")
"""Variables of the worker's environment that the download may need."""


@frozen(kw_only=True)
class _Distribution:
    archive: str
    """Name in the snapshot service."""

    suite: str
    snapshots: str


_DEBIAN_SNAPSHOTS = "https://snapshot.debian.org/archive/{archive}/{date}/"
_UBUNTU_SNAPSHOTS = "https://snapshot.ubuntu.com/{archive}/{date}/"

DISTRIBUTIONS: Mapping[str, _Distribution] = {
    name: _Distribution(archive=archive, suite=suite, snapshots=snapshots)
    for name, archive, suite, snapshots in (
        ("debian-11", "debian", "bullseye", _DEBIAN_SNAPSHOTS),
        ("debian-12", "debian", "bookworm", _DEBIAN_SNAPSHOTS),
        ("debian-13", "debian", "trixie", _DEBIAN_SNAPSHOTS),
        ("ubuntu-22.04", "ubuntu", "jammy", _UBUNTU_SNAPSHOTS),
        ("ubuntu-24.04", "ubuntu", "noble", _UBUNTU_SNAPSHOTS),
    )
}


@frozen(kw_only=True)
class RootTree:
    """What a tree says of itself; ``sha256`` is of the archive that it was unpacked from."""

    name: str
    suite: str
    snapshot: str | None
    sha256: str


def problem(root: Path | None) -> diagnosis.Problem | None:
    """Return what is wrong with a root tree for jobs, or with there being none, or None."""
    make = "make one by `builder-worker root create NAME DIR` and give it as --root DIR"
    if root is None:
        return "it needs a root tree", make
    if not any((root / path).exists() for path in ("bin/sh", "usr/bin/sh")):
        return f"{root} is no root tree: there is no /bin/sh in it", make
    return None


def read(directory: Path) -> RootTree | None:
    """Return the label of a tree, or None if it has none."""
    try:
        return RootTree(**json.loads((directory / LABEL).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def list_roots(parent: Path) -> tuple[tuple[Path, RootTree], ...]:
    """Return the trees in a directory, sorted by path. Raises SandboxError if it cannot be read."""
    try:
        paths = sorted(path for path in parent.iterdir() if path.is_dir() and not path.is_symlink())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SandboxError(f"{parent} is no directory: name the one that your root trees are in") from error
    except OSError as error:
        raise SandboxError(f"cannot list {parent}: {error.strerror}") from error
    return tuple((path, label) for path in paths if (label := read(path)) is not None)


async def remove(directory: Path) -> None:
    """Remove a tree, and nothing that is none or that a worker holds. Raises SandboxError."""
    if read(directory) is None:
        raise SandboxError(f"{directory} is no root tree: it has no {LABEL}")
    lock = _lock(directory, shared=False)
    if lock is None:
        raise SandboxError(f"a worker uses {directory}: remove it when that worker has been stopped")
    try:
        await _remove(directory)
    finally:
        os.close(lock)


def hold(directory: Path) -> None:
    """Keep a tree from being removed as long as this process lives. Raises SandboxError."""
    if _lock(directory, shared=True) is None:  # never closed
        raise SandboxError(f"{directory} is being removed: use another root tree")


def _lock(directory: Path, *, shared: bool) -> int | None:
    try:
        return lock_directory(directory, shared=shared)
    except OSError as error:
        raise SandboxError(f"cannot lock {directory}: {error.strerror}") from error


async def _remove(directory: Path) -> None:
    try:
        await trio.to_thread.run_sync(trees.remove_tree, directory)
    except (OSError, trees.TreeChanged) as error:
        raise SandboxError(f"cannot remove {directory}: {error}") from error


async def create(
    name: str,
    directory: Path,
    *,
    snapshot: dt.datetime | None = None,
    mirror: str | None = None,
    include: tuple[str, ...] = ("ca-certificates",),
) -> RootTree:
    """Make the tree of a distribution in a new directory. Raises SandboxError.

    ``mirror`` is an archive's URL, by default the snapshot service's for a snapshot, else mmdebstrap's own choice.
    """
    lacking = diagnosis.missing({"mmdebstrap": "mmdebstrap", "tar": "tar"})
    if lacking is not None:
        raise SandboxError(": ".join(lacking))
    if name not in DISTRIBUTIONS:
        raise SandboxError(f"no distribution is called {name}: there are {', '.join(DISTRIBUTIONS)}")
    try:
        scratch = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    except OSError as error:
        raise SandboxError(f"cannot make {directory}: {error.strerror}") from error
    try:
        label = await _make(name, scratch, snapshot=snapshot, mirror=mirror, include=include)
        _move(scratch / "tree", directory)
    finally:
        with trio.CancelScope(shield=True):
            await _remove(scratch)
    return label


def _move(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError as error:
        raise SandboxError(f"cannot make {target}: {error.strerror}") from error


async def _make(
    name: str, scratch: Path, *, snapshot: dt.datetime | None, mirror: str | None, include: tuple[str, ...]
) -> RootTree:
    distribution, archive = DISTRIBUTIONS[name], scratch / "tree.tar"
    options, environment = [f"--include={','.join(include)}"] if include else [], {}
    date = None
    if snapshot is not None:
        date = snapshot.astimezone(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
        environment["SOURCE_DATE_EPOCH"] = str(int(snapshot.timestamp()))
        mirror = mirror or distribution.snapshots.format(archive=distribution.archive, date=date)
        # A snapshot's lists have expired by design; they are signed as ever.
        options.append('--aptopt=Acquire::Check-Valid-Until "false"')
    command = ["mmdebstrap", "--quiet", "--variant=minbase", *options, distribution.suite, str(archive)]
    await tools.run(*command, *([mirror] if mirror else []), timeout=_TIMEOUT, environment=_environment(environment))
    sha256 = await trio.to_thread.run_sync(_digest, archive)
    tree = scratch / "tree"
    tree.mkdir(mode=0o755)
    # Devices cannot be made by all users, and every sandbox has its own.
    unpack = ["tar", "--extract", "--numeric-owner", "--preserve-permissions", "--exclude=./dev/*"]
    await tools.run(*unpack, f"--file={archive}", f"--directory={tree}", timeout=_TIMEOUT)
    label = RootTree(name=name, suite=distribution.suite, snapshot=date, sha256=sha256)
    await trio.to_thread.run_sync(_finish, tree, label)
    return label


def _finish(tree: Path, label: RootTree) -> None:
    """Add the label, and what podman puts things on or makes: without root, it cannot make them in such a tree."""
    directories = [tree / "etc", tree / "run"]
    times = [path.stat().st_mtime_ns for path in directories]
    added = [
        tree / LABEL,
        tree / "etc/hosts",
        tree / "etc/hostname",
        tree / "etc/resolv.conf",
        tree / "run/.containerenv",
    ]
    for path in added:
        if not path.exists():
            path.touch()
            path.chmod(0o644)
    (tree / LABEL).write_text(json.dumps(asdict(label), indent=1, sort_keys=True) + "\n")
    mounts = tree / "etc/mtab"
    if not mounts.is_symlink():
        mounts.symlink_to("../proc/self/mounts")
    for path in (*added, mounts):
        os.utime(path, ns=(times[0], times[0]), follow_symlinks=False)
    for path, time in zip(directories, times, strict=True):
        os.utime(path, ns=(time, time))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _environment(own: dict[str, str]) -> dict[str, str]:
    given = {name: value for name in _PROXIES if (value := os.environ.get(name))}
    return {**tools.ENVIRONMENT, **given, **own}
