"""The pages: a model for each, with all that its template shows. ``rendering.render`` makes the HTML."""

import enum

from attrs import frozen

from builder.model import Instant
from builder_web.charts.chart import Chart
from builder_web.pages.console import ShownLine
from builder_web.pages.parts import (
    ArtifactPair,
    ArtifactSummary,
    BuildSummary,
    CellState,
    Changes,
    History,
    OpamFileChange,
    Paging,
)


@frozen(kw_only=True)
class JobOnPlatform:
    """How a job does on a platform."""

    platform: str
    newest: BuildSummary | None
    """The newest successful build."""
    failed: BuildSummary | None = None
    """The newest failed build, if it is newer than the newest successful one."""
    past: tuple[CellState, ...] = ()
    """The last builds, the oldest first, if they are shown."""


@frozen(kw_only=True, cache_hash=True)
class JobState:
    """A job in the list of all."""

    name: str
    synopsis: str | None
    platforms: tuple[JobOnPlatform, ...]

    @property
    def has_past(self) -> bool:
        """Whether last builds are shown."""
        return any(state.past for state in self.platforms)


@frozen(kw_only=True)
class JobSection:
    """Jobs of one kind, such as "Unikernels"."""

    name: str
    jobs: tuple[JobState, ...]


@frozen(kw_only=True)
class MainPage:
    """The first page: the jobs with a successful build that is not too old."""

    sections: tuple[JobSection, ...]
    failures: tuple[BuildSummary, ...]
    """What failed lately, newest first; a handful."""
    failed: int = 0
    """How many builds failed lately."""
    expired_days: int
    """Jobs without a successful build for so many days are left out; 0: none are."""


@frozen(kw_only=True)
class AllBuildsPage:
    """All jobs, however old."""

    sections: tuple[JobSection, ...]
    failures: tuple[BuildSummary, ...] = ()
    failed: int = 0


@frozen(kw_only=True)
class JobEntry:
    """A line in the list of a job's builds: a failed build, or the newest of those with one output."""

    build: BuildSummary
    alike: int = 1
    """How many builds of the job, on the platform if one is chosen, have this output."""


@frozen(kw_only=True)
class JobPage:
    """The builds of a job by distinct output, newest first."""

    name: str
    synopsis: str | None
    readme_html: str | None
    """Made by ``markdown.to_html``."""
    platform: str | None
    """The only platform that is shown."""
    with_failed: bool
    """Whether failed builds are among them: the page below /failed."""
    platforms: tuple[str, ...]
    """Where the job was ever built."""
    entries: tuple[JobEntry, ...]
    paging: Paging
    histories: tuple[History, ...] = ()
    charts: tuple[Chart, ...] = ()


@frozen(kw_only=True)
class FailedBuildsPage:
    """What failed, newest first."""

    builds: tuple[BuildSummary, ...]
    platform: str | None
    """The only platform that is shown."""
    platforms: tuple[str, ...] = ()
    """Where any build ever failed."""
    paging: Paging


@frozen(kw_only=True)
class Device:
    """A device that a solo5 binary asks for."""

    name: str
    kind: str
    """NET_BASIC or BLOCK_BASIC."""


@frozen(kw_only=True)
class Solo5:
    """What the notes of a solo5 binary say."""

    target: str | None
    """hvt, spt, virtio, muen, genode or xen."""
    abi_version: int | None
    devices: tuple[Device, ...] = ()
    problem: str | None = None
    """What is wrong with damaged notes."""


@frozen(kw_only=True)
class Reproducer:
    """Another build with the same output."""

    build: BuildSummary
    same_input: bool


@frozen(kw_only=True)
class Reproduction:
    """What other builds say of the output of this one."""

    builds: int
    """How many builds have this output, this one among them."""
    inputs: int
    """From how many different inputs they were made; 0 where inputs are not known."""
    reproducers: tuple[Reproducer, ...] = ()
    """The others, newest first; perhaps not all of them."""
    different: tuple[BuildSummary, ...] = ()
    """Builds with the same input and another output, newest first; perhaps not all of them."""
    different_builds: int = 0
    """How many there are of the latter."""


@frozen(kw_only=True)
class Drawing:
    """A drawing of a build."""

    figure_html: str | None
    """None: the document at its address is shown in a frame, since another program made it."""


class SignatureState(enum.Enum):
    """What the keys of this site say of a signature."""

    VALID = "valid"
    UNKNOWN = "unknown key"
    OUTSIDE = "outside of the key's validity"
    INVALID = "invalid"


@frozen(kw_only=True)
class Provenance:
    """What the server that built it has signed of a build."""

    signature: SignatureState
    keys: tuple[str, ...]
    """The ids of those that have signed, or are said to have."""
    differs: str | None = None
    """The path of a file of the build that is not as it was signed; empty where it is not known which one. None: all are."""
    has_keys: bool = True
    """Whether this site has any keys to verify with."""


@frozen(kw_only=True)
class BuildPage:
    """One build."""

    build: BuildSummary
    artifacts: tuple[ArtifactSummary, ...]
    """The main binary first."""
    solo5: Solo5 | None = None
    """What the main binary says of itself; None if it is none of solo5."""
    reproduction: Reproduction | None = None
    """None for a failed build."""
    has_input: bool = True
    """Whether it has an opam-switch, a build-environment and system-packages, so that inputs can be told apart."""
    latest: BuildSummary | None = None
    """The newest successful build of job and platform, if it is another one."""
    later: BuildSummary | None = None
    """The next build of job and platform with a different output."""
    earlier: BuildSummary | None = None
    """The previous build of job and platform with a different output."""
    graph: Drawing | None = None
    """Of what it was built."""
    treemap: Drawing | None = None
    """What takes how much room in the binary."""
    provenance: Provenance | None = None


@frozen(kw_only=True)
class ComparisonPage:
    """What differs between two builds. What is None could not be compared: ``problems`` says why."""

    left: BuildSummary
    right: BuildSummary
    artifacts: tuple[ArtifactPair, ...]
    environment: Changes | None
    system_packages: Changes | None
    opam_packages: Changes | None
    duniverse: Changes | None
    opam_files: tuple[OpamFileChange, ...] = ()
    same_input: bool | None = None
    """None where the input of one is not known."""
    problems: tuple[str, ...] = ()
    """Sentences, such as "The opam-switch of the right build cannot be read: …"."""


@frozen(kw_only=True)
class Found:
    """A build that has the file in question, under this path."""

    build: BuildSummary
    path: str


@frozen(kw_only=True)
class HashPage:
    """Every build that has an artifact with one content, newest first."""

    sha256: str
    size: int
    entries: tuple[Found, ...]
    paging: Paging


@frozen(kw_only=True)
class JobFound:
    """A job whose name or synopsis matches."""

    name: str
    synopsis: str | None


@frozen(kw_only=True)
class FileFound:
    """A file whose name matches, and the newest build that has it."""

    artifact: ArtifactSummary
    build: BuildSummary


@frozen(kw_only=True)
class PackageFound:
    """A package that matches, in the input of a build; the newest one."""

    name: str
    version: str
    build: BuildSummary


@frozen(kw_only=True)
class SearchPage:
    """What was found; an empty query shows how to search."""

    query: str
    jobs: tuple[JobFound, ...] = ()
    files: tuple[FileFound, ...] = ()
    packages: tuple[PackageFound, ...] = ()
    hashes: tuple[FileFound, ...] = ()
    """Files whose SHA-256 begins with the query."""
    cut: bool = False
    """Whether there is more of any kind than is shown."""


@frozen(kw_only=True)
class ConsolePage:
    """A part of what a build wrote, or the lines that match a search in it."""

    build: BuildSummary
    lines: tuple[ShownLine, ...]
    total: int
    """How many lines the console has."""
    size: int
    """How many bytes."""
    count: int
    """How many lines a page has at most."""
    query: str = ""
    """What was searched for; then the lines are those that match, and need not follow one another."""
    more: bool = False
    """Whether more lines match, after the last one."""


@frozen(kw_only=True)
class ScriptPage:
    """The script that a build ran."""

    build: BuildSummary
    text: str
    size: int
    cut: bool = False
    """Whether the text is only the beginning."""


@frozen(kw_only=True)
class ErrorPage:
    """Something that could not be shown."""

    status: int
    """Of HTTP."""
    detail: str
    """A sentence or two: what is wrong, and what to do next."""
    job: str | None = None
    """A job whose builds may be what is looked for."""


@frozen(kw_only=True)
class Feed:
    """An Atom feed of builds."""

    job: str | None
    """None: of all jobs."""
    platform: str | None
    """None: of all platforms."""
    failures: bool
    """Whether it has failed builds alone."""
    updated: Instant
    """When the newest of them finished; for an empty feed, any time that does not change."""
    builds: tuple[BuildSummary, ...]
    """Newest first."""


Page = (
    MainPage
    | AllBuildsPage
    | JobPage
    | FailedBuildsPage
    | BuildPage
    | ComparisonPage
    | HashPage
    | SearchPage
    | ConsolePage
    | ScriptPage
    | ErrorPage
)
