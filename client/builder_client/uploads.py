"""Uploads as a server tells of them: as rows, lines and JSON."""

from collections.abc import Iterator
from typing import TYPE_CHECKING
from uuid import UUID

from builder.extension import MAX_PAGE
from builder.extension.uploads import (
    CountUploads,
    ListUploads,
    ReceiverState,
    UploadEntry,
    UploadPlace,
    UploadsCounted,
    UploadsListed,
    UploadState,
)
from builder.model import Instant, printable

from . import words
from .errors import TooOld, Unreachable
from .fitting import Column
from .output import JsonObject, json_text

if TYPE_CHECKING:
    from .remote import Remote

COLUMNS = (
    Column("ENDED", rigid=True, brief=words.brief_time),
    Column("JOB"),
    Column("STATE", rigid=True),
    Column("ATTEMPTS", rigid=True, spare=3),
    Column("NEXT"),
    Column("REASON", spare=1),
    Column("RECEIVER", spare=2),
    Column("UUID", rigid=True, brief=words.brief_uuid),
)
"""The table of uploads."""


def entries(remote: "Remote", *, limit: int | None = None, build: UUID | None = None) -> Iterator[UploadEntry]:
    """Yield uploads that are pending or refused, or all of a build, the oldest first; pages are asked for when needed."""
    behind: UploadPlace | None = None
    left = MAX_PAGE if limit is None else limit
    while left > 0:
        asked = ListUploads(count=min(left, MAX_PAGE), build=build, behind=behind)
        (page,) = remote.request(asked, what="list of uploads")
        assert isinstance(page, UploadsListed), "the order of messages sees to it"
        if not page.uploads:
            return
        yield from page.uploads
        if limit is not None:
            left -= len(page.uploads)
        last = page.uploads[-1]
        behind = UploadPlace(since=last.since, uuid=last.uuid, receiver=last.receiver)


def counted(remote: "Remote") -> tuple[ReceiverState, ...] | None:
    """Return how uploads stand; None of a server that does not tell it.

    Whoever asks does not need it, and is told no error.
    """
    try:
        (reply,) = remote.request(CountUploads(), what="uploads")
    except (TooOld, Unreachable):
        return None
    assert isinstance(reply, UploadsCounted), "the order of messages sees to it"
    return reply.receivers


# --- words ---------------------------------------------------------------------------------------------------------


def warnings(receivers: tuple[ReceiverState, ...], now: Instant) -> Iterator[str]:
    """Yield what a person should know: which uploads do not get on. What merely waits for its turn is none of it."""
    for each in receivers:
        name, reason = printable(each.name), printable(each.reason or "")
        pending = f"{words.count(each.pending, 'upload')} to {name} {'is' if each.pending == 1 else 'are'} pending"
        if each.pending and not each.is_known:
            yield f"{pending}, which the server was started without; see 'uploads'"
        elif each.pending and reason:
            oldest = f"the oldest since {each.oldest.isoformat()}, " if each.oldest else ""
            again = f"; next attempt {_when(each.resume, now)}" if each.resume else ""
            yield f"{pending}, {oldest}last error: {reason}{again}"
        if each.refused:
            were = "was" if each.refused == 1 else "were"
            yield f"{words.count(each.refused, 'upload')} to {name} {were} refused; see 'uploads'"


def _when(moment: Instant, now: Instant) -> str:
    return f"in {words.duration(moment.ms - now.ms)}" if moment.ms > now.ms else "now"


def _next(entry: UploadEntry, now: Instant) -> str:
    """Return when an upload is tried again."""
    if entry.state is not UploadState.PENDING:
        return ""
    if not entry.is_known:
        return "never: the server was started without this receiver"
    return "in its turn" if entry.next_attempt is None else _when(entry.next_attempt, now)


def row(entry: UploadEntry, now: Instant) -> tuple[str, ...]:
    """Return the row of an upload."""
    return (
        words.seconds(entry.since),
        printable(entry.job),
        entry.state.value,
        str(entry.attempts),
        _next(entry, now),
        printable(entry.reason or ""),
        printable(entry.receiver),
        str(entry.uuid),
    )


def line(entry: UploadEntry, now: Instant) -> str:
    """Return how an upload of a build stands."""
    again = _next(entry, now)
    parts = [
        f"{entry.state.value} at {printable(entry.receiver)}",
        words.count(entry.attempts, "failed attempt") if entry.attempts else "",
        f"next {again}" if again else "",
    ]
    return ", ".join(filter(None, parts)) + (f": {printable(entry.reason)}" if entry.reason else "")


def json(entry: UploadEntry) -> JsonObject:
    """Return an upload."""
    return {
        "uuid": str(entry.uuid),
        "job": json_text(entry.job),
        "platform": json_text(entry.platform),
        "receiver": json_text(entry.receiver),
        "known": entry.is_known,
        "state": entry.state.value,
        "ended": entry.since.isoformat(),
        "attempts": entry.attempts,
        "tried": _time(entry.tried),
        "next_attempt": _time(entry.next_attempt),
        "reason": None if entry.reason is None else json_text(entry.reason),
    }


def receiver_json(state: ReceiverState) -> JsonObject:
    """Return how uploads to a receiver stand."""
    return {
        "receiver": json_text(state.name),
        "known": state.is_known,
        "pending": state.pending,
        "refused": state.refused,
        "failures": state.failures,
        "oldest": _time(state.oldest),
        "next_attempt": _time(state.resume),
        "reason": None if state.reason is None else json_text(state.reason),
    }


def _time(moment: Instant | None) -> str | None:
    return None if moment is None else moment.isoformat()
