"""What a job sees of the file system, as arguments for bubblewrap.

From the host: /usr and what belongs to it, and of /etc what ``etc`` says. From a root tree: everything but the
directories that are the sandbox's own. All of it is read-only.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import frozen

from builder_worker.sandbox.linux import devices, etc
from builder_worker.sandbox.linux.etc import HOME, HOSTNAME
from builder_worker.sandbox.options import Options

__all__ = ["BUILD", "HOME", "HOSTNAME", "UID", "View", "kernel", "system"]

BUILD = "/build"
UID = 1000
"""User and group of the job in its own eyes, the same on every machine."""

_MERGED = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
"""Directories beside /usr that are links into it, or on old systems not."""

_SMALL = 64 * 1024
"""Bytes of a file that is copied instead of mounted. The copy counts as memory of the job."""

_OWN = frozenset({"build", "dev", "etc", "home", "proc", "run", "sys", "tmp"})
"""Top directories of a root tree that are not shown as they are, because the sandbox has its own."""


@frozen(kw_only=True)
class View:
    """Arguments for bubblewrap, and files with the given text: to be made, or put on what is there already."""

    arguments: tuple[str, ...]
    files: dict[str, bytes]
    covers: bool


def _show(source: Path, target: str) -> Iterator[str]:
    if source.is_symlink():
        yield from ("--symlink", str(source.readlink()), target)
    else:
        yield from ("--ro-bind", str(source), target)


def _copy_or_bind(source: str, target: str, files: dict[str, bytes]) -> Iterator[str]:
    """Show something of /etc: a small file as a copy, for a hundred mounts cost more than all the rest of a sandbox."""
    try:
        status = os.stat(source)  # noqa: PTH116 - where links of the host lead
    except FileNotFoundError:
        return  # it has just gone
    if status.st_mode == stat.S_IFREG | 0o644 and status.st_size <= _SMALL:
        with open(source, "rb", buffering=0) as file:  # noqa: PTH123 - for each job
            files[target] = file.read()
    else:
        yield from ("--ro-bind", source, target)


def _of_host(files: dict[str, bytes]) -> Iterator[str]:
    yield from ("--ro-bind", "/usr", "/usr")
    for name in _MERGED:
        path = Path("/", name)
        if path.exists() or path.is_symlink():
            yield from _show(path, f"/{name}")
    for name in etc.shown():
        yield from _copy_or_bind(name, name, files)
    yield from ("--dir", "/var", "--symlink", "../tmp", "/var/tmp")  # noqa: S108 - the job's own


def _of_tree(root: Path, files: dict[str, bytes]) -> Iterator[str]:
    for path in sorted(root.iterdir()):
        if path.name not in _OWN:
            yield from _show(path, f"/{path.name}")
    directory = root / "etc"
    if directory.is_symlink() or not directory.is_dir():
        return
    if not etc.missing(root):
        yield from ("--ro-bind", str(directory), "/etc")
        return
    # One by one: on a directory that is shown as a whole, nothing can be put in place of a link or of nothing.
    for path in sorted(directory.iterdir()):
        target = f"/etc/{path.name}"
        if path.is_symlink() and target not in files:
            yield from _show(path, target)
        elif target not in files:
            yield from _copy_or_bind(str(path), target, files)


def system(options: Options) -> View:
    """Return the read-only part of the view. Raises OSError."""
    texts = etc.texts(options.root, network=options.network, account=etc.Account(number=UID))
    files = {f"/etc/{name}": text for name, text in texts.items()}
    arguments = tuple(_of_host(files) if options.root is None else _of_tree(options.root, files))
    return View(
        arguments=("--perms", "0755", "--dir", "/etc", *arguments),
        files=files,
        covers=options.root is not None and not etc.missing(options.root),
    )


def kernel(shm_size: int | None, shown: Sequence[devices.Node] = ()) -> tuple[str, ...]:
    """Return the arguments for /proc and a /dev that cannot be filled, with what an operator shows of the machine's.

    /dev/shm has ``shm_size`` bytes, without that half of the machine's memory.
    """
    return (
        *("--proc", "/proc", "--dev", "/dev"),
        *(part for node in shown for part in ("--perms", "0755", "--dir", str(node.target.parent))),
        *(part for node in shown for part in ("--dev-bind", str(node.source), str(node.target))),
        *("--remount-ro", "/dev"),
        *(() if shm_size is None else ("--size", str(shm_size))),
        *("--perms", "1777", "--tmpfs", "/dev/shm"),  # noqa: S108 - the job's own
    )
