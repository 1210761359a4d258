"""What ``opam switch export`` writes: the packages that a build was made with, and their opam files."""

from collections.abc import Iterable, Iterator, Mapping

from attrs import frozen

from builder_web.errors import NoDuniverse, UnreadableOpamFile
from builder_web.opam.package import OpamFile
from builder_web.opam.syntax import Bracketed, Section, Value, parse

SWITCH_NAME = "opam-switch"
"""The file in which a build leaves its export."""

_DUNIVERSE = "x-opam-monorepo-duniverse-dirs"


@frozen(kw_only=True, order=True)
class Package:
    """A package and its version, or whatever else has both: a variable and its value, a directory and its address."""

    name: str
    version: str

    def __str__(self) -> str:
        """Return them as opam does: ``dune.3.17.2``."""
        return f"{self.name}.{self.version}"


@frozen(kw_only=True)
class Directory:
    """A directory of sources that is built along with a unikernel; ``hashes`` by kind, such as ``sha256``."""

    name: str
    url: str
    hashes: Mapping[str, str]


@frozen(kw_only=True)
class Switch:
    """An export. ``roots`` are the packages that were asked for; opam files need not be there for all packages."""

    installed: Mapping[str, Package]
    roots: tuple[Package, ...]
    compiler: tuple[Package, ...]
    pinned: tuple[Package, ...]
    opam_files: Mapping[str, OpamFile]

    @property
    def main(self) -> Package | None:
        """The package that the build is about; None where several were asked for, or none."""
        return self.roots[0] if len(self.roots) == 1 else None

    def duniverse(self) -> Mapping[str, Directory]:
        """Return the directories that the main package brings along, by name. Raises NoDuniverse."""
        if self.main is None:
            raise NoDuniverse("not a single root package found in opam switch export")
        opam_file = self.opam_files.get(self.main.name)
        if opam_file is None:
            raise NoDuniverse("opam switch export doesn't contain the main package")
        rows = opam_file.fields.get(_DUNIVERSE, Bracketed(values=()))
        if not isinstance(rows, Bracketed):
            raise NoDuniverse(f"{_DUNIVERSE} is not a list")
        return {directory.name: directory for directory in map(_directory, rows.values)}


def switch_path(paths: Iterable[str]) -> str | None:
    """Return which of a build's files is its export: the one with that name, in whatever folder; None without any."""
    found = [path for path in paths if path.rpartition("/")[2] == SWITCH_NAME]
    return min(found, key=lambda path: path.count("/"), default=None)


def read_switch(data: bytes) -> Switch:
    """Return the export of these bytes. Raises UnreadableOpamFile."""
    items = parse(data)
    fields = OpamFile.of(items).fields
    if "installed" not in fields and "roots" not in fields:
        raise UnreadableOpamFile("no export of a switch: it says nothing of what is installed", line=1, column=1)
    opam_files: dict[str, OpamFile] = {}
    for item in items:
        if isinstance(item, Section) and item.kind == "package" and item.name is not None:
            opam_files.setdefault(item.name, OpamFile.of(item.items))
    return Switch(
        installed={package.name: package for package in _packages(fields.get("installed"))},
        roots=tuple(dict.fromkeys(_packages(fields.get("roots")))),
        compiler=tuple(_packages(fields.get("compiler"))),
        pinned=tuple(_packages(fields.get("pinned"))),
        opam_files=opam_files,
    )


def _packages(value: Value | None) -> Iterator[Package]:
    for text in _texts(value):
        name, _, version = text.partition(".")
        yield Package(name=name, version=version)


def _texts(value: Value | None) -> Iterator[str]:
    values = value.values if isinstance(value, Bracketed) else (value,)
    return (text for text in values if isinstance(text, str))


def _directory(row: Value) -> Directory:
    values = row.values if isinstance(row, Bracketed) else ()
    match values:
        case (str(url), str(name)):
            return Directory(name=name, url=url, hashes={})
        case (str(url), str(name), Bracketed() as hashes):
            pairs = (text.partition("=") for text in _texts(hashes))
            # A hash without a kind is MD5 to opam.
            kinds = [(kind, content) if equals else ("md5", kind) for kind, equals, content in pairs]
            return Directory(name=name, url=url, hashes=dict(reversed(kinds)))
        case _:
            raise NoDuniverse(f"{_DUNIVERSE} has a row that is not an address, a directory and its hashes")
