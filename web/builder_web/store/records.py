"""What the store gives and takes."""

import datetime as dt

from attrs import frozen

from builder.model import Aborted, Exited, Instant, Result, Signalled, Stopped
from builder_web.console_index import ConsoleIndex

_MS_PER_DAY = 24 * 60 * 60 * 1000
_PS_PER_MS = 1_000_000_000
_MESSAGE = 65536


@frozen(kw_only=True)
class User:
    """Who may upload; a restricted one to the jobs on its access list alone."""

    id: int
    username: str
    password_hash: bytes
    password_salt: bytes
    scrypt_n: int
    scrypt_r: int
    scrypt_p: int
    restricted: bool


@frozen(kw_only=True)
class Password:
    """A password's hash by scrypt, and how it was made."""

    hash: bytes
    salt: bytes
    n: int
    r: int
    p: int


@frozen(kw_only=True)
class StoredArtifact:
    """A file of a build."""

    path: str
    digest: bytes
    """Its SHA-256."""
    size: int


@frozen(kw_only=True)
class Build:
    """A build without its artifacts. One without a main binary counts as failed, whatever its result is."""

    id: int
    uuid: str
    job: str
    platform: str
    started: Instant
    finished: Instant
    result: Result
    main_binary: StoredArtifact | None
    input_id: bytes | None
    console: str
    script: str

    @property
    def duration(self) -> dt.timedelta:
        """From start to finish; negative where clocks were wrong."""
        return dt.timedelta(milliseconds=self.finished.ms - self.started.ms)


@frozen(kw_only=True)
class Readme:
    """A README.md that was uploaded with a build, and its place among the other artifacts."""

    position: int
    content: bytes


@frozen(kw_only=True)
class NewBuild:
    """A build that arrived. Its files are staged, artifacts in the order of their rows."""

    uuid: str
    job: str
    platform: str
    started: Instant
    finished: Instant
    result: Result
    console: ConsoleIndex
    """Where the lines of its console are."""
    artifacts: tuple[StoredArtifact, ...]
    """The main binary first, if there is one."""
    main_binary: str | None
    """The path of the first of the artifacts."""
    main_position: int = 0
    """The place that the main binary had among the artifacts that were uploaded."""
    readme: Readme | None = None
    input_id: bytes | None
    tags: dict[str, str]
    """What the job is tagged with from now on: section, synopsis, description, readme."""
    solo5: str | None
    """What the main binary says of itself, as JSON; None if there is no main binary."""


@frozen(kw_only=True)
class Newest:
    """The newest successful build of a job on a platform, if any, and the newest failed one if it is newer."""

    platform: str
    build: Build | None
    failed: Build | None
    past: str
    """The states of the last builds: see ``summaries.states``."""


@frozen(kw_only=True, cache_hash=True)
class Job:
    """A job with what its newest builds say."""

    name: str
    section: str
    synopsis: str | None
    newest: tuple[Newest, ...]


def to_row(moment: Instant) -> tuple[int, int]:
    """Return days since 1970 and picoseconds of the day."""
    days, ms = divmod(moment.ms, _MS_PER_DAY)
    return days, ms * _PS_PER_MS


def from_row(days: int, picoseconds: int) -> Instant:
    """Return the moment of a row. Raises ValueError if it lies outside of the years 0 to 9999."""
    return Instant(days * _MS_PER_DAY + picoseconds // _PS_PER_MS)


def result_to_row(result: Result) -> tuple[int, str | None]:
    """Return result_code and result_msg of a result."""
    match result:
        case Exited(code=code):
            return code, None
        case Signalled(signal=number):
            return number << 8, None
        case Stopped(signal=number):
            return number << 16, None
        case Aborted(message=message):
            return _MESSAGE, message


def result_from_row(code: int, message: str | None) -> Result:
    """Return the result of a row."""
    if message is not None:
        return Aborted(message=message)
    if code and code % (1 << 16) == 0:
        return Stopped(signal=code >> 16)
    if code and code % (1 << 8) == 0:
        return Signalled(signal=code >> 8)
    return Exited(code=code)
