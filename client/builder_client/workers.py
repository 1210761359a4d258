"""Workers as a server tells of them: as rows, lines and JSON."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from builder.extension.crew import MAX_WORKERS, Doing, ListWorkers, WorkerEntry, WorkersListed
from builder.model import Instant, printable
from builder.needs import PRESSURE

from . import words
from .fitting import Column
from .output import JsonObject, json_text

if TYPE_CHECKING:
    from .remote import Remote

COLUMNS = (
    Column("WORKER"),
    Column("PLATFORM"),
    Column("DOES"),
    Column("FOR", rigid=True),
    Column("SEEN", rigid=True, spare=1),
    Column("LOAD", rigid=True, spare=2),
    Column("SANDBOX", rigid=True, spare=3),
    Column("VERSION", rigid=True, spare=4),
    Column("ADDRESS", spare=5),
    Column("HOLDER", spare=6),
    Column("SERVER", spare=7),
)
"""The table of workers."""


def pages(remote: "Remote", *, platform: str | None) -> Iterator[WorkersListed]:
    """Yield pages, by platform and name; the next one is asked for when it is needed. The last one is empty."""
    behind = None
    with remote.requests(what="list of workers") as ask:
        while True:
            (page,) = ask(ListWorkers(count=MAX_WORKERS, platform=platform, behind=behind))
            assert isinstance(page, WorkersListed), "the order of messages sees to it"
            yield page
            if not page.workers:
                return
            behind = page.workers[-1].place


def told(entry: WorkerEntry) -> dict[str, str]:
    """Return what a worker tells of itself."""
    return {fact.name: fact.value for fact in entry.facts}


# --- words ---------------------------------------------------------------------------------------------------------


def row(entry: WorkerEntry, now: Instant) -> tuple[str, ...]:
    """Return the row of a worker."""
    facts = told(entry)
    return (
        printable(entry.place.name),
        printable(entry.place.platform),
        _does(entry),
        words.duration(now.ms - entry.since.ms),
        f"{words.duration(now.ms - entry.heard.ms)} ago" if entry.heard else "connected",
        printable(facts.get("load", "")),
        printable(facts.get("sandbox", "")),
        "classic" if entry.is_classic else printable(facts.get("version", "")),
        printable(entry.address),
        printable(entry.holder or ""),
        printable(entry.server or ""),
    )


def _does(entry: WorkerEntry) -> str:
    job = printable(entry.job or "")
    match entry.doing:
        case Doing.WAITING if pressure := told(entry).get(PRESSURE):
            return f"takes none: {printable(pressure)}"
        case Doing.WAITING:
            return "drained" if entry.is_drained else "waits"
        case Doing.BUILDING:
            return f"builds {job}" + (", drained" if entry.is_drained else "")
        case Doing.AWAY:
            return f"away from {job}"


def differing(entries: list[WorkerEntry], release: str) -> str:
    """Return how many of our workers run another version than the server; empty if none does."""
    versions = [told(entry).get("version") for entry in entries if not entry.is_classic]
    count = sum(version not in (None, release) for version in versions)
    if not count:
        return ""
    run = "runs" if count == 1 else "run"
    return f"{words.count(count, 'worker')} {run} another version than the server, which is {printable(release)}"


def json(entry: WorkerEntry) -> JsonObject:
    """Return a worker."""
    return {
        "worker": json_text(entry.place.name),
        "platform": json_text(entry.place.platform),
        "address": json_text(entry.address),
        "holder": entry.holder and json_text(entry.holder),
        "doing": entry.doing.value,
        "since": entry.since.isoformat(),
        "drained": entry.is_drained,
        "classic": entry.is_classic,
        "job": entry.job and json_text(entry.job),
        "uuid": None if entry.doing is Doing.WAITING else str(entry.place.uuid),
        "server": entry.server and json_text(entry.server),
        "heard": entry.heard and entry.heard.isoformat(),
        "facts": {json_text(name): json_text(value) for name, value in told(entry).items()},
    }
