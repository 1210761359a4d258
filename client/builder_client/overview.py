"""What a server does, on one screen: what ``builder-client`` alone prints."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from builder.extension.halting import HaltState
from builder.extension.watching import ResultState
from builder.history import Outcome
from builder.messages import InfoReply
from builder.model import NEVER, Instant, printable

from . import halts, report, words
from .errors import TooOld
from .fitting import Column, share
from .looking import look, plans, running, warnings
from .output import Printer

if TYPE_CHECKING:
    from .remote import Remote

RESULTS = 100
"""The newest builds among which those are looked for that did not succeed."""

_HEADING = 2
"""Lines above the tables."""

_MOST_NOTES = 5
"""Lines about what is drained, and about what somebody has to do something about: the rest is in ``info``."""

_FRAME = 3
"""Lines of each table that are no rows: the empty one before it, its title, its heading."""

_NEXT = (Column("NEXT RUN", rigid=True, brief=words.brief_time), Column("", rigid=True), Column("JOB"))
_QUEUES = (Column("PLATFORM"), Column("QUEUED", rigid=True), Column("RUNNING", rigid=True), Column("NEXT JOB"))
_FAILED = (
    Column("ENDED", rigid=True),
    Column("JOB"),
    Column("PLATFORM"),
    Column("OUTCOME", rigid=True),
    Column("UUID", rigid=True, brief=words.brief_uuid),
)


@frozen(kw_only=True)
class Seen:
    """What a server has, and its builds that have ended without success, the newest first: none of a classic server."""

    info: InfoReply
    paused: frozenset[str] = frozenset()
    """The names of the jobs that do not run until they are resumed."""
    failed: tuple[ResultState, ...] = ()
    halts: tuple[HaltState, ...] = ()
    warnings: tuple[str, ...] = ()
    """What somebody has to do something about, a line each."""

    running: report.Told | None = None
    """None of a classic server."""


@frozen(kw_only=True)
class _Table:
    name: str
    columns: Sequence[Column]
    rows: Sequence[tuple[str, ...]]
    empty: str = ""
    """What is said in place of it; without a word it is left out."""


def ask(remote: "Remote") -> Seen:
    """Return what there is to be seen."""
    info = remote.info()
    try:
        looked = look(remote, entries=0, results=RESULTS)
    except TooOld:
        looked = None
    found = plans(remote) if info.schedule else None
    paused = frozenset(name for name, plan in (found or {}).items() if plan.paused)
    failed = tuple(each for each in (looked.results if looked else ()) if each.outcome not in (None, Outcome.SUCCEEDED))
    return Seen(
        info=info,
        paused=paused,
        failed=failed,
        halts=looked.halts if looked else (),
        warnings=warnings(looked),
        running=running(looked),
    )


def show(printer: Printer, seen: Seen, *, name: str, now: Instant) -> None:
    """Print counts, and the first rows of what runs, failed, runs next, and the queues; the fullest come first."""
    printer.line(f"builder-server at {name}")
    printer.line(_counts(seen))
    notes = [*_first([halts.line(each) for each in seen.halts]), *_first(seen.warnings)]
    for line in notes:
        printer.line(line)
    tables = [table for table in _tables(seen, now) if table.rows or table.empty]
    room = printer.height - 1 - _HEADING - len(notes) - sum(_FRAME if table.rows else _FRAME - 1 for table in tables)
    for table, count in zip(tables, share([len(table.rows) for table in tables], room), strict=True):
        printer.line("")
        printer.table(table.name, table.columns, table.rows, empty=table.empty, limit=count)


def _first(lines: Sequence[str]) -> list[str]:
    more = len(lines) - _MOST_NOTES
    return [*lines[:_MOST_NOTES], *([f"{more} more like this: 'builder-client info' has all"] if more > 0 else [])]


def _tables(seen: Seen, now: Instant) -> list[_Table]:
    info = seen.info
    failed = [
        (
            f"{words.duration(now.ms - result.finished.ms)} ago",
            printable(result.job),
            printable(result.platform),
            result.outcome.value if result.outcome else "",
            str(result.uuid),
        )
        for result in seen.failed
    ]
    soon = [
        (words.seconds(item.next), words.until(item.next, now), printable(item.job.name))
        for item in sorted(info.schedule, key=report.next_run)
        if item.next != NEVER and item.job.name not in seen.paused
    ]
    queues = [
        (
            printable(queue.platform),
            str(len(queue.jobs)),
            str(sum(build.job.platform == queue.platform for build in info.running)),
            printable(queue.jobs[0].name) if queue.jobs else "",
        )
        for queue in sorted(info.queues, key=lambda queue: (-len(queue.jobs), queue.platform))
    ]
    columns, running_now = report.running_table(info, now=now, told=seen.running)
    return [
        _Table(name="Running", columns=columns, rows=running_now, empty="nothing"),
        _Table(name="Failed", columns=_FAILED, rows=failed),
        _Table(name="Next runs", columns=_NEXT, rows=soon, empty="none"),
        _Table(name="Queues", columns=_QUEUES, rows=queues, empty="no platforms"),
    ]


def _counts(seen: Seen) -> str:
    info = seen.info
    queued = sum(len(queue.jobs) for queue in info.queues)
    dropped = f", {len(info.dropped_platforms)} dropped" if info.dropped_platforms else ""
    pauses = f" ({len(seen.paused)} paused)" if seen.paused else ""
    return (
        f"{words.count(len(info.schedule), 'job')}{pauses}, {queued} queued, {len(info.running)} running; "
        f"{words.count(len(info.queues), 'platform')}{dropped}"
    )
