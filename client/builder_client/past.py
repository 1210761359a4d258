"""Builds of the history, as rows and lines for people and as JSON for programs."""

from collections.abc import Iterator
from uuid import UUID

from builder.extension import MAX_PAGE
from builder.extension.builds import (
    ArtifactEntry,
    ArtifactsListed,
    BuildShown,
    HistoryEntry,
    HistoryShown,
    ListArtifacts,
    ShowBuild,
    ShowHistory,
)
from builder.history import Cause, Outcome
from builder.model import Instant, printable
from builder.sizes import format_size

from . import report, words
from .fitting import Column
from .output import JsonObject, json_text
from .remote import Remote

FIRST_PAGE = 100
"""Entries of a page where more may follow."""

_SHORT = 10_000
"""Milliseconds below which tenths of a second matter."""

COLUMNS = (
    Column("STARTED", rigid=True, brief=words.brief_time),
    Column("JOB"),
    Column("PLATFORM"),
    Column("OUTCOME"),
    Column("WHY", spare=3),
    Column("TOOK", rigid=True, spare=1),
    Column("WAITED", rigid=True, spare=4),
    Column("ARTIFACTS", spare=5),
    Column("CHANGED", spare=2),
    Column("UPLOAD", spare=6),
    Column("WORKER", spare=7),
    Column("UUID", rigid=True, brief=words.brief_uuid),
)
"""The table of the history."""


def find(remote: Remote, digits: str, *, what: str) -> BuildShown:
    """Return the build whose uuid begins so. Raises Refused where there is none, or several."""
    (reply,) = remote.request(ShowBuild(target=digits), what=what)
    assert isinstance(reply, BuildShown), "the order of messages sees to it"
    return reply


def uuid_of(shown: BuildShown) -> UUID:
    """Return the uuid of a build."""
    assert shown.entry.uuid, "it is a build"
    return shown.entry.uuid


def entries(
    remote: Remote, *, name: str | None, platform: str | None, failed: bool, since: Instant | None, limit: int
) -> Iterator[HistoryEntry]:
    """Yield the history, the newest entry first, as far as it is wanted; pages are asked for as they are needed."""
    behind = None
    while limit > 0:
        asked = ShowHistory(
            count=min(limit, FIRST_PAGE if behind is None else MAX_PAGE),
            name=name,
            platform=platform,
            failed=failed,
            since=since,
            behind=behind,
        )
        (page,) = remote.request(asked, what="history")
        assert isinstance(page, HistoryShown), "the order of messages sees to it"
        if not page.entries:
            return
        yield from page.entries
        limit -= len(page.entries)
        behind = page.entries[-1].place


def artifacts(remote: Remote, uuid: UUID, *, what: str) -> Iterator[ArtifactEntry]:
    """Yield the artifacts of a build in the order of the bytes of their paths; pages are asked for as they are needed."""
    behind = ""
    while True:
        (page,) = remote.request(ListArtifacts(uuid=uuid, count=MAX_PAGE, behind=behind), what=what)
        assert isinstance(page, ArtifactsListed), "the order of messages sees to it"
        if not page.artifacts:
            return
        yield from page.artifacts
        behind = page.artifacts[-1].path


# --- words ---------------------------------------------------------------------------------------------------------


def why(entry: HistoryEntry) -> str:
    """Return why a build ran."""
    of = printable(entry.cause_of or "")
    match entry.cause:
        case Cause.FIRST:
            return "first run"
        case Cause.DUE:
            return "due"
        case Cause.MISSED:
            return "missed while the server was down"
        case Cause.EXECUTED:
            return f"executed by {of}"
        case Cause.AFTER:
            return f"after {of}"
        case Cause.RETRY:
            return f"retry {entry.retry}" + (f" of {entry.retries}" if entry.retries is not None else "")
        case Cause.CHECK:
            return f"check of {of}"
        case Cause.LOST:
            return "worker lost"
        case Cause.IMPORTED:
            return "imported"


def outcome(entry: HistoryEntry) -> str:
    """Return what became of a build."""
    if entry.skipped is not None:
        return f"skipped, {printable(entry.skipped)}"
    result = words.result(entry.result) if entry.result is not None else ""
    match entry.outcome:
        case None:
            return result or ("running, worker away" if entry.away else "running")
        case Outcome.SUCCEEDED:
            return "succeeded"
        case Outcome.ABORTED:
            return result
    return f"{entry.outcome.value}: {result.removeprefix('aborted: ')}"


def changed(entry: HistoryEntry) -> str:
    """Return what changed against the last success."""
    compared = {
        "script": entry.script_changed,
        "template": entry.template_changed,
        "artifacts": entry.artifacts_changed,
    }
    parts = [name for name, is_other in compared.items() if is_other]
    return ", ".join(parts) or ("unchanged" if entry.artifacts_changed is False else "")


def took(entry: HistoryEntry) -> int | None:
    """Return the milliseconds that a build took."""
    return None if entry.started is None or entry.finished is None else entry.finished.ms - entry.started.ms


def waited(entry: HistoryEntry) -> int | None:
    """Return the milliseconds that a build was due before it began."""
    return None if entry.started is None or entry.due is None else max(0, entry.started.ms - entry.due.ms)


def _duration(ms: int | None) -> str:
    if ms is None:
        return ""
    return f"{ms / 1000:.1f} s" if ms < _SHORT else words.duration(ms)


def _artifacts(entry: HistoryEntry) -> str:
    if entry.artifacts is None:
        return ""
    return f"{entry.artifacts}, {format_size(entry.artifact_bytes or 0)}"


def row(entry: HistoryEntry) -> tuple[str, ...]:
    """Return the row of an entry."""
    return (
        words.seconds(entry.place.at),
        printable(entry.name),
        printable(entry.platform),
        outcome(entry),
        why(entry),
        _duration(took(entry)),
        _duration(waited(entry)),
        _artifacts(entry),
        printable(entry.verdict) if entry.verdict is not None else changed(entry),
        entry.upload or "",
        printable(entry.worker_name or entry.worker or ""),
        "" if entry.uuid is None else str(entry.uuid),
    )


def lines(entry: HistoryEntry) -> Iterator[tuple[str, str]]:
    """Yield what is known of a build: names and values."""
    found = {
        "build": str(entry.uuid),
        "job": printable(entry.name),
        "platform": printable(entry.platform),
        "outcome": outcome(entry),
        "why": why(entry),
        "started": words.seconds(entry.place.at),
        "took": _duration(took(entry)),
        "waited": _duration(waited(entry)),
        "worker": " at ".join(printable(each) for each in (entry.worker_name, entry.worker) if each),
        "ended by": printable(entry.ended_by or ""),
        "changed": changed(entry),
        "since": str(entry.previous) if changed(entry) else "",
        "check": printable(entry.verdict or ""),
        "upload": entry.upload or "",
        "artifacts": _artifacts(entry),
        "main hash": entry.main_hash or "",
    }
    return ((name, value) for name, value in found.items() if value)


def json(entry: HistoryEntry) -> JsonObject:
    """Return an entry."""
    return {
        "uuid": None if entry.uuid is None else str(entry.uuid),
        "job": json_text(entry.name),
        "platform": json_text(entry.platform),
        "outcome": "skipped" if entry.skipped is not None else entry.outcome.value if entry.outcome else None,
        "result": None if entry.result is None else report.result_json(entry.result),
        "skipped": entry.skipped,
        "ended_by": entry.ended_by,
        "cause": entry.cause.value,
        "cause_of": None if entry.cause_of is None else json_text(entry.cause_of),
        "retry": entry.retry,
        "retries": entry.retries,
        "due": _time(entry.due),
        "started": _time(entry.started),
        "finished": _time(entry.finished),
        "took_ms": took(entry),
        "waited_ms": waited(entry),
        "worker": entry.worker,
        "worker_name": entry.worker_name and json_text(entry.worker_name),
        "artifacts": entry.artifacts,
        "artifact_bytes": entry.artifact_bytes,
        "main_hash": entry.main_hash,
        "upload": entry.upload,
        "previous": None if entry.previous is None else str(entry.previous),
        "script_changed": entry.script_changed,
        "template_changed": entry.template_changed,
        "artifacts_changed": entry.artifacts_changed,
        "away_since": _time(entry.away),
        "verdict": None if entry.verdict is None else json_text(entry.verdict),
    }


def _time(moment: Instant | None) -> str | None:
    return None if moment is None else moment.isoformat()
