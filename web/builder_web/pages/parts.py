"""What several pages show: a build in a list, an artifact, a row of cells, a way to the next page.

Texts come from uploads and may hold anything, also lone surrogates where bytes were not UTF-8; rendering makes them
harmless. Only the fields whose name ends in ``_html`` or ``_svg`` go into a page as they are: whoever fills them made
them safe.
"""

import datetime as dt
import enum

from attrs import frozen

from builder.model import Instant, Result


@frozen(kw_only=True)
class ArtifactSummary:
    """A file of a build."""

    path: str
    size: int
    """In bytes."""
    sha256: str
    """64 lower-case hexadecimal digits."""

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


@frozen(kw_only=True)
class BuildSummary:
    """A build as lists show it."""

    job: str
    uuid: str
    platform: str
    started: Instant
    finished: Instant
    result: Result
    output: ArtifactSummary | None
    """The main binary; None means that the build failed, whatever its result is."""

    @property
    def failed(self) -> bool:
        """Whether it has no main binary."""
        return self.output is None

    @property
    def duration(self) -> dt.timedelta:
        """From start to finish; negative where clocks were wrong."""
        return dt.timedelta(milliseconds=self.finished.ms - self.started.ms)


class CellState(enum.Enum):
    """What a build says beside the one before it on the same platform."""

    SAME = "same"
    """The output of the last successful build before."""
    NEW = "new"
    """Another output; also the first one."""
    FAILED = "failed"


@frozen(kw_only=True)
class Cell:
    """One build in a row of the last builds."""

    uuid: str
    started: Instant
    state: CellState


@frozen(kw_only=True)
class History:
    """The last builds of a job on a platform, oldest first; at most 30 are shown well."""

    platform: str
    cells: tuple[Cell, ...]

    @property
    def states(self) -> tuple[CellState, ...]:
        """What the builds say."""
        return tuple(cell.state for cell in self.cells)


@frozen(kw_only=True)
class Paging:
    """Which part of a list a page shows, by the addresses' ``start`` and ``count``."""

    start: int
    """How many entries come before, from 0."""
    count: int
    """How many entries a page has at most, from 1."""
    total: int | None = None
    """How many there are; None where counting them is too slow."""
    more: bool = False
    """Whether another page follows."""


@frozen(kw_only=True)
class NamedChange:
    """Something with a name that differs: a variable, a package, a directory."""

    name: str
    left: str
    right: str
    detail: str = ""


@frozen(kw_only=True)
class Named:
    """Something that only one side has."""

    name: str
    value: str


@frozen(kw_only=True)
class Changes:
    """What two sets of named things have not in common."""

    removed: tuple[Named, ...] = ()
    """Only on the left."""
    added: tuple[Named, ...] = ()
    """Only on the right."""
    changed: tuple[NamedChange, ...] = ()
    unchanged: int = 0
    """How many are the same on both sides."""

    @property
    def total(self) -> int:
        """How many differ."""
        return len(self.removed) + len(self.added) + len(self.changed)


@frozen(kw_only=True)
class FileDifference:
    """How two contents differ."""

    diff: str = ""
    """A unified diff without its two header lines, where both are text."""
    first_byte: int | None = None
    """The offset of the first byte that differs, where one is binary."""
    sections: tuple[NamedChange, ...] = ()
    """Sections of ELF files that differ, with their sizes in words."""
    cut: bool = False
    """Whether there is more than is shown."""


@frozen(kw_only=True)
class ArtifactPair:
    """The artifacts of one path on both sides; at least one is there."""

    path: str
    left: ArtifactSummary | None
    right: ArtifactSummary | None
    difference: FileDifference | None = None

    @property
    def state(self) -> str:
        """One of equal, left, right, different."""
        if self.left is None:
            return "right"
        if self.right is None:
            return "left"
        return "equal" if self.left.sha256 == self.right.sha256 else "different"


@frozen(kw_only=True)
class OpamFileChange:
    """The opam file of a package that both sides have in the same version, and that differs."""

    package: str
    version: str
    diff: str
    """A unified diff without its two header lines."""
    effective: bool = True
    """Whether the difference may matter for the build; a maintainer's name doesn't."""
