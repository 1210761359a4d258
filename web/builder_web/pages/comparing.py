"""What a comparison has: kinds of things, each with what was removed, added and changed, and where on the page it is.

The anchors and headings are the original's, letter for letter, since people have links to them.
"""

from collections.abc import Callable

from attrs import frozen

from builder_web.pages.models import ComparisonPage
from builder_web.pages.parts import Changes, Named, NamedChange


@frozen(kw_only=True)
class ChangeKind:
    """A kind of things, and how the page speaks of it."""

    of: Callable[[ComparisonPage], Changes | None]
    """Where a comparison has it."""
    title: str
    noun: str
    plural: str
    between: str
    """What stands between a name and its value."""
    removed: tuple[str, str]
    """Anchor and heading."""
    added: tuple[str, str]
    changed: tuple[str, str]
    of_opam: bool = False


@frozen(kw_only=True)
class ChangeGroup:
    """Things of one kind that differ in one way."""

    anchor: str
    heading: str
    way: str
    """removed, added or changed."""
    word: str
    """The heading in a word."""
    entries: tuple[Named, ...] | tuple[NamedChange, ...]


@frozen(kw_only=True)
class Compared:
    """What differs among the things of one kind."""

    kind: ChangeKind
    changes: Changes
    groups: tuple[ChangeGroup, ...]
    """Those that are not empty."""


_KINDS = (
    ChangeKind(
        of=lambda page: page.opam_packages,
        title="Opam packages",
        noun="opam package",
        plural="opam packages",
        between=".",
        removed=("opam-packages-removed", "Opam packages removed"),
        added=("opam-packages-installede", "New opam packages installed"),
        changed=("opam-packages-version-diff", "Opam packages with version changes"),
        of_opam=True,
    ),
    ChangeKind(
        of=lambda page: page.duniverse,
        title="Duniverse",
        noun="duniverse directory",
        plural="duniverse directories",
        between=" ",
        removed=("duniverse-dirs-removed", "Duniverse directories removed"),
        added=("duniverse-dirs-installed", "New duniverse directories installed"),
        changed=("duniverse-dirs-content-diff", "Duniverse directories with content changes"),
        of_opam=True,
    ),
    ChangeKind(
        of=lambda page: page.environment,
        title="Environment",
        noun="environment variable",
        plural="environment variables",
        between="=",
        removed=("env-removed", "Environment variables removed"),
        added=("env-added", "New environment variables added"),
        changed=("env-changed", "Environment variables changed"),
    ),
    ChangeKind(
        of=lambda page: page.system_packages,
        title="System packages",
        noun="system package",
        plural="system packages",
        between=" ",
        removed=("pkgs-removed", "System packages removed"),
        added=("pkgs-added", "New system packages added"),
        changed=("pkgs-changed", "System packages changed"),
    ),
)


def compared(page: ComparisonPage) -> list[Compared]:
    """Return what could be compared, in the order of the page."""
    found = ((kind, kind.of(page)) for kind in _KINDS)
    return [
        Compared(kind=kind, changes=changes, groups=_groups(kind, changes))
        for kind, changes in found
        if changes is not None
    ]


def _groups(kind: ChangeKind, changes: Changes) -> tuple[ChangeGroup, ...]:
    removed, added, changed = kind.removed, kind.added, kind.changed
    groups = (
        ChangeGroup(anchor=removed[0], heading=removed[1], way="removed", word="removed", entries=changes.removed),
        ChangeGroup(anchor=added[0], heading=added[1], way="added", word="new", entries=changes.added),
        ChangeGroup(anchor=changed[0], heading=changed[1], way="changed", word="changed", entries=changes.changed),
    )
    return tuple(group for group in groups if group.entries)


def in_words(page: ComparisonPage) -> str:
    """Return what differs, as a sentence without its end."""
    differing = sum(pair.state != "equal" for pair in page.artifacts)
    found = [("artifacts", differing), *((one.kind.plural, one.changes.total) for one in compared(page))]
    found.append(("opam files", sum(file.effective for file in page.opam_files)))
    return ", ".join(f"{number} {noun}" for noun, number in found if number) or "nothing"
