"""What a worker writes down of a job when it starts it, so that another worker can adopt it.

It is JSON, in a file beside the job; the worker that has the job holds a lock on it. A field that a later release adds has
a default, since jobs are adopted across upgrades.
"""

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from attrs import asdict, field, frozen

from builder.runtime.files import lock
from builder_worker.sandbox import JobTaken, Limits, SandboxError
from builder_worker.sandbox.linux.cgroups import Group, Hierarchy
from builder_worker.sandbox.owner import boot
from builder_worker.sandbox.processes import tools

NAME = "record"


@frozen(kw_only=True)
class GroupRecord:
    """A control group: in which hierarchy it is, and its directory."""

    version: int
    parent: str
    controllers: Sequence[str]
    directory: str

    @classmethod
    def of(cls, group: Group) -> "list[Self]":
        """Return those of a job."""
        return [
            cls(
                version=hierarchy.version,
                parent=str(hierarchy.parent),
                controllers=sorted(hierarchy.controllers),
                directory=str(directory),
            )
            for hierarchy, directory in zip(group.hierarchies, group.directories, strict=True)
        ]


@frozen(kw_only=True)
class JobRecord:
    """A job that was started."""

    backend: str
    supervisor: int
    """The number of its process."""

    begun: float
    """Seconds of the monotonic clock."""

    limits: Mapping[str, Any]
    """Those of the job, by the names in ``Limits``."""

    size: int | None
    """The limit of the job's directory in bytes, and whether a file system keeps it."""

    is_mounted: bool
    owner: int | None
    """The first of the host's users who are the job's, and how many there are."""

    users: int
    groups: Sequence[GroupRecord] = ()
    group_limits: Mapping[str, Any] = field(factory=dict)
    adopts: bool = True
    """As in ``launch.Launch``, and so are the next two."""

    end: Sequence[str] = ()
    end_environment: Mapping[str, str] = field(factory=dict)
    boot: str | None = field(factory=boot)

    @property
    def group(self) -> Group:
        """The job's control groups."""
        hierarchies = tuple(
            Hierarchy(version=group.version, parent=Path(group.parent), controllers=frozenset(group.controllers))
            for group in self.groups
        )
        directories = tuple(Path(group.directory) for group in self.groups)
        return Group(hierarchies=hierarchies, directories=directories, limits=Limits(**self.group_limits))

    @classmethod
    def read(cls, place: Path) -> Self:
        """Return that of a job's directory. Raises SandboxError."""
        try:
            given = json.loads((place / NAME).read_text())
            given["groups"] = [GroupRecord(**group) for group in given["groups"]]
            record = cls(**given)
            Limits(**record.limits), Limits(**record.group_limits)
        except OSError as error:
            raise SandboxError(f"it was not started: {error.strerror}") from error
        except (ValueError, TypeError, KeyError) as error:
            raise SandboxError(f"what was written down of it is of another release: {error}") from error
        return record

    @property
    def is_of_this_boot(self) -> bool:
        """Whether the machine is known to have run on since: a crash of it can leave files that are not whole."""
        return self.boot is not None and self.boot == boot()

    def write(self, place: Path) -> int:
        """Write it into a job's directory, all of it at once. Return a descriptor with the lock. Raises OSError."""
        part = place / f"{NAME}.part"
        tools.write_private(part, json.dumps(asdict(self)).encode())
        descriptor = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            part.rename(place / NAME)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def claim(place: Path) -> int:
    """Take a job that was written down; return a descriptor with the lock. Raises JobTaken if a worker has it, and OSError."""
    descriptor = os.open(place / NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    if lock(descriptor):
        return descriptor
    os.close(descriptor)
    raise JobTaken("another worker has it")
