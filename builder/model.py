"""The values of the domain: jobs, periods, instants, results, executions.

Strings that come from the wire may hold any bytes. Names, paths and messages are ``str`` decoded as UTF-8 with
``surrogateescape``, so that every byte string survives the way there and back; scripts, console lines and contents
are ``bytes``. Nothing here is trusted to be a file name: see ``check_name`` and ``check_artifact_path``.
"""

import datetime as dt
import enum
import re
import signal
from uuid import UUID

from attrs import field, frozen

from builder.errors import InvalidName

NO_PLATFORM = "no-platform"
"""The platform of a script job that names none, as the original reads it."""

MAX_NAME_CHARACTERS = 128
"""Longest name of a job or a platform; they become directory names and lines of tables."""

MAX_NAME_BYTES = 255
"""NAME_MAX of every file system in use: a longer name could never be stored as a directory."""

MAX_PATH_BYTES = 4095
"""PATH_MAX on Linux less its NUL: no file with a longer path could be extracted."""

_MS_PER_DAY = 24 * 60 * 60 * 1000
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_GREGORIAN_CYCLE_YEARS = 400
_GREGORIAN_CYCLE_MS = 146_097 * _MS_PER_DAY  # days in 400 years, after which the calendar repeats
_FIRST_MS = -62_167_219_200_000  # 0000-01-01T00:00:00Z
_FIRST_DATETIME_MS = -62_135_596_800_000  # 0001-01-01T00:00:00Z, the first that datetime can hold


def text(data: bytes) -> str:
    """Return bytes of the wire as ``str``; ``raw`` is its exact inverse."""
    return data.decode("utf-8", "surrogateescape")


def raw(value: str) -> bytes:
    """Return the bytes that ``text`` was made from."""
    return value.encode("utf-8", "surrogateescape")


def printable(value: str | bytes) -> str:
    r"""Return text from outside as something that a terminal or a log can show.

    Control characters and bytes that are not UTF-8 appear as escapes (``\x1b``), so that nobody can move the
    cursor, forge a line or hide one.
    """
    decoded = value if isinstance(value, str) else text(value)
    if decoded.isprintable():  # almost all text is, and that is told in one look
        return decoded
    return "".join(char if char.isprintable() else _escape(char) for char in decoded)


def _escape(char: str) -> str:
    if "\udc80" <= char <= "\udcff":  # a byte that is not UTF-8
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


@frozen(order=True)
class Instant:
    """A moment in UTC, in whole milliseconds since 1970: the precision of the wire.

    The range is that of the original, years 0 to 9999; ``datetime`` begins at year 1.
    """

    ms: int = field()

    @ms.validator
    def _in_range(self, _attribute: object, value: int) -> None:
        if not _FIRST_MS <= value <= 253_402_300_799_999:
            raise ValueError("a time must lie between the years 0 and 9999")

    @classmethod
    def from_datetime(cls, moment: dt.datetime) -> "Instant":
        """Return the instant of an aware datetime, microseconds cut off."""
        return cls((moment - _EPOCH) // dt.timedelta(milliseconds=1))

    def to_datetime(self) -> dt.datetime:
        """Return an aware datetime in UTC. Raises OverflowError in year 0, which datetime does not know."""
        return _EPOCH + dt.timedelta(milliseconds=self.ms)

    def calendar(self) -> tuple[int, dt.datetime]:
        """Return the year and a datetime with all the smaller fields: together they also cover year 0."""
        if self.ms >= _FIRST_DATETIME_MS:
            moment = self.to_datetime()
            return moment.year, moment
        moment = _EPOCH + dt.timedelta(milliseconds=self.ms + _GREGORIAN_CYCLE_MS)
        return moment.year - _GREGORIAN_CYCLE_YEARS, moment

    def isoformat(self) -> str:
        """Return ISO 8601 with a trailing Z; milliseconds only where there are any."""
        year, moment = self.calendar()
        fraction = f".{self.ms % 1000:03}" if self.ms % 1000 else ""
        return f"{year:04}{moment.isoformat()[4:19]}{fraction}Z"

    def plus(self, duration: dt.timedelta) -> "Instant":
        """Return the instant that much later, or earlier; the first or the last one where it would lie beyond."""
        return Instant(max(_FIRST_MS, min(self.ms + duration // dt.timedelta(milliseconds=1), NEVER.ms)))


NEVER = Instant(253_402_300_799_999)
"""9999-12-31T23:59:59.999Z: the next run of a job whose period is never."""


class Period(enum.Enum):
    """How often a scheduled job runs."""

    HOURLY = "hourly"
    DAILY = "daily"
    WEEKLY = "weekly"
    NEVER = "never"

    @property
    def duration(self) -> dt.timedelta | None:
        """The time from one run to the next; None for never."""
        return _DURATIONS[self]

    def first_after(self, start: Instant) -> Instant:
        """Return the run that follows one at ``start``."""
        return start.plus(self.duration) if self.duration else NEVER


_DURATIONS = {
    Period.HOURLY: dt.timedelta(hours=1),
    Period.DAILY: dt.timedelta(days=1),
    Period.WEEKLY: dt.timedelta(weeks=1),
    Period.NEVER: None,
}


@frozen(kw_only=True)
class ScriptJob:
    """A script for one platform."""

    name: str
    platform: str
    script: bytes


@frozen(kw_only=True)
class OrbBuildJob:
    """An opam package, built through the template of each platform."""

    name: str
    opam_package: str


Job = ScriptJob | OrbBuildJob


@frozen(kw_only=True)
class ScheduleItem:
    """A job, how often it runs, and when next."""

    next: Instant
    period: Period
    job: Job


@frozen(kw_only=True)
class Queue:
    """The jobs that wait for a worker of a platform, the next one first."""

    platform: str
    jobs: tuple[Job, ...]


@frozen(kw_only=True)
class RunningBuild:
    """A job that a worker has."""

    started: Instant
    uuid: UUID
    job: ScriptJob


@frozen(kw_only=True)
class DroppedPlatform:
    """A platform that an operator banned."""

    platform: str


StateItem = ScheduleItem | Queue | DroppedPlatform
"""An entry of the original's ``state`` file."""


@frozen(kw_only=True)
class Exited:
    """The job's process ended with an exit status."""

    code: int

    def __str__(self) -> str:
        return f"exited {self.code}"


@frozen(kw_only=True)
class Signalled:
    """A signal ended the job's process. ``signal`` is the number on the wire, see ``posix_signal``."""

    signal: int

    def __str__(self) -> str:
        return f"signalled {self.signal}"


@frozen(kw_only=True)
class Stopped:
    """A signal stopped the job's process. ``signal`` is the number on the wire, see ``posix_signal``."""

    signal: int

    def __str__(self) -> str:
        return f"stopped {self.signal}"


@frozen(kw_only=True)
class Aborted:
    """The execution ended for another reason than the job's own process, told by ``message``."""

    message: str

    def __str__(self) -> str:
        return f"execution aborted: {self.message}"


Result = Exited | Signalled | Stopped | Aborted
"""How an execution ended; its ``str`` is the text that observers of the original see."""

_RESULT_TEXT = re.compile(r"(?s:(exited|signalled|stopped) (-?[0-9]{1,19})|execution aborted: (.*))")


def parse_result(value: str) -> Result | None:
    """Return the result whose ``str`` this is, or None: the inverse of the text that ends an observation."""
    match = _RESULT_TEXT.fullmatch(value)
    if match is None:
        return None
    kind, number, message = match.groups()
    match kind:
        case "exited":
            return Exited(code=int(number))
        case "signalled":
            return Signalled(signal=int(number))
        case "stopped":
            return Stopped(signal=int(number))
    return Aborted(message=message)


# OCaml numbers the signals it knows itself, downwards from -1 (module Sys of its standard library); a signal that
# it does not know keeps the number of the system.
_OCAML_SIGNALS = (  # noqa: SIM905  28 quoted names, a line each, would hide the order that matters
    "ABRT ALRM FPE HUP ILL INT KILL PIPE QUIT SEGV TERM USR1 USR2 CHLD CONT STOP TSTP TTIN TTOU VTALRM PROF BUS POLL "
    "SYS TRAP URG XCPU XFSZ"
).split()
_TO_POSIX = {
    -index: int(getattr(signal, f"SIG{name}"))
    for index, name in enumerate(_OCAML_SIGNALS, start=1)
    if hasattr(signal, f"SIG{name}")
}
_TO_WIRE = {posix: wire for wire, posix in _TO_POSIX.items()}


def posix_signal(wire: int) -> int:
    """Return the number of a signal on this system for its number on the wire (KILL: -7 gives 9)."""
    return _TO_POSIX.get(wire, wire)


def wire_signal(posix: int) -> int:
    """Return the number on the wire for the number of a signal on this system (KILL: 9 gives -7)."""
    return _TO_WIRE.get(posix, posix)


def signal_name(posix: int) -> str | None:
    """Return the name of a signal of this system without its SIG, such as ``KILL``; None for one it does not have."""
    try:
        return signal.Signals(posix).name.removeprefix("SIG")
    except ValueError:
        return None


def describe_signal(wire: int) -> str:
    """Return what people call a signal of the wire, as this system numbers it: ``signal KILL (9)``."""
    number = posix_signal(wire)
    name = signal_name(number)
    return f"signal {name} ({number})" if name else f"signal {number}"


def describe_result(result: Result) -> str:
    """Return how an execution ended for people to read: its text, but signals with the names of this system."""
    match result:
        case Signalled(signal=number):
            return f"killed by {describe_signal(number)}"
        case Stopped(signal=number):
            return f"stopped by {describe_signal(number)}"
    return printable(str(result))


@frozen(kw_only=True)
class ConsoleLine:
    """A line of a console, without its newline, and when it came: nanoseconds since the start of the build."""

    delta: int
    line: bytes


@frozen(kw_only=True)
class Artifact:
    """A file that a job left, held in memory. Large ones are streamed instead: see ``builder.execution``."""

    path: str
    content: bytes


@frozen(kw_only=True)
class Execution:
    """A finished build as a whole: the value of a ``full`` file. ``console`` is oldest line first here."""

    job: ScriptJob
    uuid: UUID
    console: tuple[ConsoleLine, ...]
    started: Instant
    finished: Instant
    result: Result
    artifacts: tuple[Artifact, ...]


def check_name(
    name: str, *, what: str, reserved: frozenset[str] = frozenset(), longest: int = MAX_NAME_CHARACTERS
) -> None:
    """Raise InvalidName unless ``name`` can be the name of a job or a platform, and so of a directory.

    ``what`` is how the error calls it, such as "job name"; ``reserved`` are names taken for other files; ``longest`` is
    in characters.
    """

    def refuse(reason: str) -> InvalidName:
        return InvalidName(f"invalid {what}: {reason}")

    if not name:
        raise refuse("it is empty")
    if len(name) > longest:
        raise refuse(f"it has more than {longest} characters")
    if any("\ud800" <= char <= "\udfff" for char in name):
        raise refuse("it is not UTF-8")
    if "/" in name:
        raise refuse("it contains a slash")
    if any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 for char in name):
        raise refuse("it contains a control character")
    if name in (".", "..") or name in reserved:
        raise refuse(f"{name!r} is reserved")


def check_artifact_path(path: str) -> None:
    """Raise InvalidName unless ``path`` is a relative path that stays below the directory it is put in."""

    def refuse(reason: str) -> InvalidName:
        return InvalidName(f"invalid artifact path {printable(path[:200])!r}: {reason}")

    if not path:
        raise refuse("it is empty")
    if len(raw(path)) > MAX_PATH_BYTES:
        raise refuse(f"it has more than {MAX_PATH_BYTES} bytes")
    if "\0" in path:
        raise refuse("it contains a NUL")
    if path.startswith("/"):
        raise refuse("it is absolute")
    for part in path.split("/"):
        if part in ("", ".", ".."):
            raise refuse("it has an empty, '.' or '..' component")
        if len(raw(part)) > MAX_NAME_BYTES:
            raise refuse(f"a component has more than {MAX_NAME_BYTES} bytes")
