"""The opam file of a package: its fields, how opam itself would print it, and what of it matters to a build."""

import enum
from collections.abc import Iterator, Mapping

from attrs import frozen

from builder_web.opam import printing
from builder_web.opam.syntax import Bracketed, Field, Item, Section, Value

ENVIRONMENT_REWRITE = "x-env-path-rewrite"
"""The one extension of opam that changes a build."""


class _Shape(enum.IntEnum):
    """How many lists around a value opam leaves out when they hold one value only."""

    PLAIN = 0
    LIST = 1
    TABLE = 2
    FORMULA = -1
    """What depends on other packages keeps its list."""


_SHAPES = {
    "opam-version": _Shape.PLAIN,
    "name": _Shape.PLAIN,
    "version": _Shape.PLAIN,
    "synopsis": _Shape.PLAIN,
    "description": _Shape.PLAIN,
    "maintainer": _Shape.LIST,
    "authors": _Shape.LIST,
    "license": _Shape.LIST,
    "tags": _Shape.LIST,
    "homepage": _Shape.LIST,
    "doc": _Shape.LIST,
    "bug-reports": _Shape.LIST,
    "depends": _Shape.FORMULA,
    "depopts": _Shape.FORMULA,
    "conflicts": _Shape.FORMULA,
    "conflict-class": _Shape.LIST,
    "available": _Shape.LIST,
    "flags": _Shape.LIST,
    "setenv": _Shape.TABLE,
    "build": _Shape.TABLE,
    "run-test": _Shape.TABLE,
    "install": _Shape.TABLE,
    "remove": _Shape.TABLE,
    "substs": _Shape.LIST,
    "patches": _Shape.LIST,
    "build-env": _Shape.TABLE,
    "features": _Shape.TABLE,
    "messages": _Shape.LIST,
    "post-messages": _Shape.LIST,
    "depexts": _Shape.TABLE,
    "libraries": _Shape.LIST,
    "syntax": _Shape.LIST,
    "dev-repo": _Shape.PLAIN,
    "pin-depends": _Shape.TABLE,
    "extra-files": _Shape.TABLE,
    "build-test": _Shape.TABLE,
    "build-doc": _Shape.TABLE,
}
"""All fields, in the order in which opam prints them."""

_SECTION_SHAPES = {"checksum": _Shape.LIST, "mirrors": _Shape.LIST}

_EFFECTIVE = frozenset({
    "name", "version", "depends", "depopts", "conflicts", "conflict-class", "available", "flags", "setenv", "build",
    "run-test", "install", "remove", "substs", "patches", "build-env", "features", "extra-files", "build-test",
    "build-doc", ENVIRONMENT_REWRITE,
})  # fmt: skip
"""Fields that can change what is built; the others inform people."""


@frozen(kw_only=True)
class OpamFile:
    """The opam file of a package. Of fields that stand there twice, the first counts."""

    fields: Mapping[str, Value]
    sections: tuple[Section, ...]

    @classmethod
    def of(cls, items: tuple[Item, ...]) -> "OpamFile":
        """Return the opam file with these items."""
        fields: dict[str, Value] = {}
        for item in items:
            if isinstance(item, Field):
                fields.setdefault("authors" if item.name == "author" else item.name, item.value)
        return cls(fields=fields, sections=tuple(item for item in items if isinstance(item, Section)))

    def text(self, name: str) -> str | None:
        """Return the text of a field without the blanks around it; None where it has none."""
        value = self.fields.get(name)
        return (value.strip() or None) if isinstance(value, str) else None

    def effective(self) -> object:
        """Return what is equal for two opam files by which the same is built.

        Of a source with checksums only the first counts: it says what the source is, wherever it comes from.
        """
        fields = {name: _normal(name, value) for name, value in self.fields.items() if name in _EFFECTIVE}
        return {name: value for name, value in fields.items() if value != Bracketed(values=())}, self._sources()

    def _sources(self) -> object:
        url = next((section for section in self.sections if section.kind == "url"), None)
        extra = {section.name: _source(section) for section in self.sections if section.kind == "extra-source"}
        return (None if url is None else _source(url)), extra

    def show(self, *, name: str) -> str:
        """Return the opam file of the package ``name`` as opam prints it: fields in its order, extensions last."""
        values: dict[str, Value] = {**self.fields, "name": name}
        known = [field for field in _SHAPES if field in values]
        others = sorted(values.keys() - _SHAPES.keys())
        url = [section for section in self.sections if section.kind == "url"][:1]
        extra = sorted((s for s in self.sections if s.kind == "extra-source"), key=lambda section: section.name or "")
        items: list[Item] = [*_fields(known, values), *map(_normal_section, [*url, *extra]), *_fields(others, values)]
        return printing.show(items)


def _fields(names: list[str], values: Mapping[str, Value]) -> Iterator[Field]:
    for name in names:
        value = _normal(name, values[name])
        if value not in {Bracketed(values=()), Bracketed(values=(Bracketed(values=()),))}:
            yield Field(name=name, value=value)


def _normal_section(section: Section) -> Section:
    items = (
        Field(name=item.name, value=_unwrapped(item.value, _SECTION_SHAPES.get(item.name, _Shape.PLAIN)))
        for item in section.items
        if isinstance(item, Field)
    )
    return Section(kind=section.kind, name=section.name, items=tuple(items))


def _normal(name: str, value: Value) -> Value:
    shape = _SHAPES.get(name)
    if shape is None:
        return value
    if shape is _Shape.FORMULA:
        return value if isinstance(value, Bracketed) else Bracketed(values=(value,))
    return _unwrapped(value, shape)


def _unwrapped(value: Value, depth: int) -> Value:
    if isinstance(value, str):
        return value.strip() if depth == _Shape.PLAIN else value
    while depth > 0 and isinstance(value, Bracketed) and len(value.values) == 1:
        (value,) = value.values
        depth -= 1
    return value


def _source(section: Section) -> Value | None:
    source = OpamFile.of(section.items).fields
    checksums = source.get("checksum")
    if isinstance(checksums, Bracketed):
        checksums = checksums.values[0] if checksums.values else None
    return source.get("src") if checksums is None else checksums
