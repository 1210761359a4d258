"""Devices of this machine that an operator shows jobs, under the same paths.

A worker that is root makes each job a node of its own, which belongs to the job's user: nobody else gets a right by that,
and the machine's own node is left as it is. Of another worker jobs have the rights, those of its groups too.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from builder_worker.sandbox import SandboxError
from builder_worker.sandbox.job_directory import JobDirectory, make_directory


@frozen(kw_only=True)
class Node:
    """A device: where its node is on the host, and where the job sees it."""

    source: Path
    target: Path


def show(devices: Sequence[Path], directory: JobDirectory) -> tuple[Node, ...]:
    """Return the nodes for a job. Raises SandboxError where it can't have them, and OSError."""
    if directory.owner is None:
        return tuple(Node(source=path, target=path) for path in devices)
    return tuple([_make(path, directory, directory.owner) for path in devices])


def _make(path: Path, directory: JobDirectory, owner: int) -> Node:
    place = directory.path / "dev"
    make_directory(place, 0o755)
    if os.statvfs(place).f_flag & os.ST_NODEV:
        raise SandboxError(
            f"jobs can't have {path} below {directory.path.parent}, whose file system is mounted nodev: "
            "name another directory with --work-dir"
        )
    status = path.stat()
    node = place / "-".join(path.parts[2:])
    os.mknod(node, stat.S_IFMT(status.st_mode) | 0o600, status.st_rdev)
    os.chown(node, owner, owner)
    return Node(source=node, target=path)
