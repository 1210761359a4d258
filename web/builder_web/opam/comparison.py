"""Two builds compared by what went into them: opam packages and files, environment, packages of the system.

What cannot be read or is missing on one side leaves its part of the comparison out, and stands among the problems.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal, TypeVar

from attrs import frozen

from builder_web.differences import unified
from builder_web.errors import NoDuniverse, UnreadableOpamFile
from builder_web.opam.package import OpamFile
from builder_web.opam.switch import SWITCH_NAME, Directory, Package, Switch, read_switch

ENVIRONMENT_NAME = "build-environment"
SYSTEM_PACKAGES_NAME = "system-packages"
"""The files in which a build leaves its environment and the packages of its system, a line each."""

Side = Literal["left", "right"]
_T = TypeVar("_T")


@frozen(kw_only=True)
class Inputs:
    """What went into a build, as its files say; None for a file that the build does not have."""

    switch: bytes | None
    environment: bytes | None
    system_packages: bytes | None


@frozen(kw_only=True)
class ChangedValue:
    """The same name with another version, or another value."""

    name: str
    left: str
    right: str


@frozen(kw_only=True)
class Differences:
    """What only one side has, and what has another version; each sorted by name."""

    only_left: tuple[Package, ...] = ()
    only_right: tuple[Package, ...] = ()
    changed: tuple[ChangedValue, ...] = ()
    unchanged: int = 0
    """How many names have the same on both sides."""

    @property
    def count(self) -> int:
        """How many there are; with none, both sides are equal."""
        return len(self.only_left) + len(self.only_right) + len(self.changed)


@frozen(kw_only=True)
class ChangedOpamFile:
    """A package of the same version whose opam files differ."""

    package: Package
    diff: tuple[str, ...]
    """The lines of a unified diff, two header lines first."""

    is_effective: bool
    """Whether something else may be built; a maintainer's address changes nothing."""


@frozen(kw_only=True)
class ChangedDirectory:
    """A directory of the duniverse whose content differs."""

    name: str
    left: Directory
    right: Directory


@frozen(kw_only=True)
class DuniverseDifferences:
    """Directories that only one side has, and those whose content differs; each sorted by name."""

    only_left: tuple[Directory, ...] = ()
    only_right: tuple[Directory, ...] = ()
    changed: tuple[ChangedDirectory, ...] = ()

    @property
    def count(self) -> int:
        """How many there are; with none, both sides are equal."""
        return len(self.only_left) + len(self.only_right) + len(self.changed)


@frozen(kw_only=True)
class Problem:
    """Why a file of one side could not be compared."""

    side: Side
    file: str
    why: str


@frozen(kw_only=True)
class SwitchComparison:
    """What differs between two exports."""

    packages: Differences
    opam_files: tuple[ChangedOpamFile, ...]
    described_once: tuple[Package, ...]
    """Packages of the same version whose opam file only one export holds, so that they cannot be compared."""

    duniverse: DuniverseDifferences | None
    duniverse_problem: str | None
    """Why there is no ``duniverse``: most builds that are no unikernels have none."""


@frozen(kw_only=True)
class Comparison:
    """What differs between the inputs of two builds; None for what could not be compared, which is a problem."""

    switch: SwitchComparison | None
    environment: Differences | None
    system_packages: Differences | None
    problems: tuple[Problem, ...]


def compare(left: Inputs, right: Inputs) -> Comparison:
    """Return what differs between the inputs of two builds."""
    problems: list[Problem] = []

    def read(side: Side, file: str, data: bytes | None, reader: Callable[[bytes], _T]) -> _T | None:
        if data is None:
            problems.append(Problem(side=side, file=file, why="the build has no such file"))
            return None
        try:
            return reader(data)
        except UnreadableOpamFile as error:
            problems.append(Problem(side=side, file=file, why=str(error)))
            return None

    def read_both(
        file: str, datas: tuple[bytes | None, bytes | None], reader: Callable[[bytes], _T]
    ) -> tuple[_T, _T] | None:
        one, other = read("left", file, datas[0], reader), read("right", file, datas[1], reader)
        return None if one is None or other is None else (one, other)

    switches = read_both(SWITCH_NAME, (left.switch, right.switch), read_switch)
    environments = read_both(ENVIRONMENT_NAME, (left.environment, right.environment), _read_lines)
    systems = read_both(SYSTEM_PACKAGES_NAME, (left.system_packages, right.system_packages), _read_lines)
    return Comparison(
        switch=switches and compare_switches(*switches),
        environment=environments and _compare_named(*environments),
        system_packages=systems and _compare_named(*systems),
        problems=tuple(problems),
    )


def compare_switches(left: Switch, right: Switch) -> SwitchComparison:
    """Return what differs between two exports."""
    same = [package for package in left.installed.values() if right.installed.get(package.name) == package]
    same.sort(key=_opam_order)
    try:
        duniverse, problem = _compare_directories(left.duniverse(), right.duniverse()), None
    except NoDuniverse as error:
        duniverse, problem = None, str(error)
    return SwitchComparison(
        packages=_compare_named(left.installed.values(), right.installed.values(), order=_opam_order),
        opam_files=tuple(_compare_opam_files(same, left.opam_files, right.opam_files)),
        described_once=tuple(
            package for package in same if (package.name in left.opam_files) != (package.name in right.opam_files)
        ),
        duniverse=duniverse,
        duniverse_problem=problem,
    )


def _compare_opam_files(
    packages: Iterable[Package], left: Mapping[str, OpamFile], right: Mapping[str, OpamFile]
) -> Iterator[ChangedOpamFile]:
    for package in packages:
        name = package.name
        if name not in left or name not in right or left[name] == right[name]:
            continue
        one, other = (opam_file.show(name=name).split("\n")[:-1] for opam_file in (left[name], right[name]))
        diff = tuple(unified(one, other, left_name=f"left/{name}/opam", right_name=f"right/{name}/opam"))
        is_effective = left[name].effective() != right[name].effective()
        if diff or is_effective:
            yield ChangedOpamFile(package=package, diff=diff, is_effective=is_effective)


def _opam_order(package: Package) -> tuple[str, str]:
    # opam sorts names without regard to case.
    return package.name.lower(), package.name


def _read_lines(data: bytes) -> tuple[Package, ...]:
    """Return the packages of a list, or the variables of an environment: the first "=" parts a line, else the first "-"."""
    return tuple(_read_line(line) for line in data.decode("utf-8", "replace").split("\n") if line.strip())


def _read_line(line: str) -> Package:
    name, _, version = line.partition("=" if "=" in line else "-")
    return Package(name=name, version=version)


def _compare_named(
    left: Iterable[Package], right: Iterable[Package], *, order: Callable[[Package], tuple[str, str]] | None = None
) -> Differences:
    """Compare by name. Where a side has a name twice, versions are not paired: each is there or it isn't."""
    lefts, rights = _versions(left), _versions(right)
    only_left: list[Package] = []
    only_right: list[Package] = []
    changed: list[ChangedValue] = []
    unchanged = 0
    for name in lefts.keys() | rights.keys():
        ours, theirs = lefts.get(name, set()), rights.get(name, set())
        unchanged += ours == theirs
        if len(ours) == len(theirs) == 1:
            (one,), (other,) = ours, theirs
            if one != other:
                changed.append(ChangedValue(name=name, left=one, right=other))
            continue
        only_left += (Package(name=name, version=version) for version in ours - theirs)
        only_right += (Package(name=name, version=version) for version in theirs - ours)
    by_name = order or (lambda package: (package.name, package.version))
    return Differences(
        only_left=tuple(sorted(only_left, key=by_name)),
        only_right=tuple(sorted(only_right, key=by_name)),
        changed=tuple(sorted(changed, key=lambda change: by_name(Package(name=change.name, version=change.left)))),
        unchanged=unchanged,
    )


def _versions(packages: Iterable[Package]) -> dict[str, set[str]]:
    versions: dict[str, set[str]] = {}
    for package in packages:
        versions.setdefault(package.name, set()).add(package.version)
    return versions


def _compare_directories(left: Mapping[str, Directory], right: Mapping[str, Directory]) -> DuniverseDifferences:
    return DuniverseDifferences(
        only_left=tuple(left[name] for name in sorted(left.keys() - right.keys())),
        only_right=tuple(right[name] for name in sorted(right.keys() - left.keys())),
        changed=tuple(
            ChangedDirectory(name=name, left=left[name], right=right[name])
            for name in sorted(left.keys() & right.keys())
            if not _is_same_content(left[name], right[name])
        ),
    )


def _is_same_content(left: Directory, right: Directory) -> bool:
    # Sources of a version control have no hashes: their address names the commit.
    return left.hashes == right.hashes and (bool(left.hashes) or left.url == right.url)
