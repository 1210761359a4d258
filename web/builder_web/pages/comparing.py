"""What a comparison has: kinds of things, each with what was removed, added and changed, and where on the page it is.

The anchors and headings are the original's, letter for letter, since people have links to them.
"""

from attrs import frozen

from builder_web.pages.models import Comparison
from builder_web.pages.parts import Change, Changes, Named


@frozen(kw_only=True)
class Group:
    """Things of one kind that differ in one way."""

    anchor: str
    heading: str
    way: str
    """removed, added or changed."""
    word: str
    """The heading in a word."""
    entries: tuple[Named, ...] | tuple[Change, ...]


@frozen(kw_only=True)
class Compared:
    """All of one kind."""

    title: str
    noun: str
    plural: str
    between: str
    """What stands between a name and its value."""
    changes: Changes
    groups: tuple[Group, ...]
    """Those that are not empty."""


_WAYS = (("removed", "removed"), ("added", "new"), ("changed", "changed"))


def compared(page: Comparison) -> list[Compared]:
    """Return what could be compared, in the order of the page."""
    kinds = (
        _kind("Opam packages", "opam package", "opam packages", ".", page.opam_packages,
            ("opam-packages-removed", "Opam packages removed"),
            ("opam-packages-installede", "New opam packages installed"),
            ("opam-packages-version-diff", "Opam packages with version changes")),
        _kind("Duniverse", "duniverse directory", "duniverse directories", " ", page.duniverse,
            ("duniverse-dirs-removed", "Duniverse directories removed"),
            ("duniverse-dirs-installed", "New duniverse directories installed"),
            ("duniverse-dirs-content-diff", "Duniverse directories with content changes")),
        _kind("Environment", "environment variable", "environment variables", "=", page.environment,
            ("env-removed", "Environment variables removed"),
            ("env-added", "New environment variables added"),
            ("env-changed", "Environment variables changed")),
        _kind("System packages", "system package", "system packages", " ", page.system_packages,
            ("pkgs-removed", "System packages removed"),
            ("pkgs-added", "New system packages added"),
            ("pkgs-changed", "System packages changed")),
    )  # fmt: skip
    return [kind for kind in kinds if kind is not None]


def _kind(
    title: str, noun: str, plural: str, between: str, changes: Changes | None, *ways: tuple[str, str]
) -> Compared | None:
    if changes is None:
        return None
    entries: tuple[tuple[Named, ...] | tuple[Change, ...], ...] = (changes.removed, changes.added, changes.changed)
    groups = [
        Group(anchor=anchor, heading=heading, way=way, word=word, entries=found)
        for (way, word), (anchor, heading), found in zip(_WAYS, ways, entries, strict=True)
        if found
    ]
    return Compared(title=title, noun=noun, plural=plural, between=between, changes=changes, groups=tuple(groups))


def in_words(page: Comparison) -> str:
    """Return what differs, as a sentence without its end."""
    differing = sum(pair.state != "equal" for pair in page.artifacts)
    found = [("artifacts", differing), *((kind.plural, kind.changes.total) for kind in compared(page))]
    found.append(("opam files", sum(file.effective for file in page.opam_files)))
    return ", ".join(f"{number} {noun}" for noun, number in found if number) or "nothing"
