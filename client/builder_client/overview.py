"""What a server does, on one screen: what ``builder-client`` alone prints."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from builder.messages import InfoReply
from builder.model import NEVER, Instant, printable

from . import report, words
from .errors import Unreachable
from .output import Column, Printer

if TYPE_CHECKING:
    from .remote import Remote

ROWS = 4
"""Most rows of each of the three tables: with their titles and the prompt that follows, 24 lines."""

_NEXT = (Column("NEXT RUN", rigid=True), Column("", rigid=True), Column("JOB"))
_QUEUES = (Column("PLATFORM"), Column("QUEUED", rigid=True), Column("RUNNING", rigid=True), Column("NEXT JOB"))


def ask(remote: "Remote") -> InfoReply:
    """Return what the server has. Where there is none, the error says what to do: whoever asks may be new here."""
    try:
        return remote.info()
    except Unreachable as error:
        raise Unreachable(
            f"{error}; start builder-server there, or name another server with -r HOST:PORT (see 'builder-client --help')"
        ) from error


def show(printer: Printer, info: InfoReply, *, name: str, now: Instant, plans: report.Plans | None = None) -> None:
    """Print counts, and the first rows of what runs, what runs next, and the queues; the fullest come first."""
    paused = {name for name, plan in (plans or {}).items() if plan.paused}
    printer.line(f"builder-server at {name}")
    printer.line(_counts(info, len(paused)))
    printer.line("")
    running = report.running_rows(info, now=now)
    printer.table(_title("Running", running), report.RUNNING, running[:ROWS], empty="nothing")
    printer.line("")
    soon = [
        (report.seconds(item.next), words.until(item.next, now), printable(item.job.name))
        for item in sorted(info.schedule, key=report.next_run)
        if item.next != NEVER and item.job.name not in paused
    ]
    printer.table(_title("Next runs", soon), _NEXT, soon[:ROWS], empty="none")
    printer.line("")
    queues = [
        (
            printable(queue.platform),
            str(len(queue.jobs)),
            str(sum(build.job.platform == queue.platform for build in info.running)),
            printable(queue.jobs[0].name) if queue.jobs else "",
        )
        for queue in sorted(info.queues, key=lambda queue: (-len(queue.jobs), queue.platform))
    ]
    printer.table(_title("Queues", queues), _QUEUES, queues[:ROWS], empty="no platforms")


def _counts(info: InfoReply, paused: int) -> str:
    queued = sum(len(queue.jobs) for queue in info.queues)
    dropped = f", {len(info.dropped_platforms)} dropped" if info.dropped_platforms else ""
    pauses = f" ({paused} paused)" if paused else ""
    return (
        f"{words.count(len(info.schedule), 'job')}{pauses}, {queued} queued, {len(info.running)} running; "
        f"{words.count(len(info.queues), 'platform')}{dropped}"
    )


def _title(name: str, rows: Sequence[object]) -> str:
    return f"{name} ({ROWS} of {len(rows)})" if len(rows) > ROWS else name
