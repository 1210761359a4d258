"""How things stand on a server that speaks our own protocol: its pages joined, and what they mean to people and programs."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from builder.extension import Request
from builder.extension.applying import JobsListed, ListedJob, ListJobs
from builder.extension.halting import HaltState
from builder.extension.watching import (
    MAX_SHOWN,
    EndingState,
    Look,
    Looked,
    PlatformState,
    QueuedState,
    RunningState,
    Unmet,
    Why,
)
from builder.messages import Message
from builder.model import Instant, printable
from builder.planning import JobOptions

from . import halts, provisions, words
from .errors import Refused, TooOld, Unreachable
from .output import JsonObject, json_text

if TYPE_CHECKING:
    from .remote import Remote


DISK_FULL = "the server's disk is almost full"

Ask = Callable[[Request], list[Message]]
"""What makes a request on a connection, and returns the replies."""


def look(remote: "Remote", *, entries: int = MAX_SHOWN, results: int = 0, platform: str | None = None) -> Looked:
    """Return how things stand, all pages in one. Raises TooOld."""
    pages = remote.request(Look(entries=entries, results=results, platform=platform), what="view of all that waits")
    found = [page for page in pages if isinstance(page, Looked)]
    return Looked(
        now=found[0].now,
        is_full=found[0].is_full,
        scheduled=found[0].scheduled,
        platforms=tuple(each for page in found for each in page.platforms),
        running=tuple(each for page in found for each in page.running),
        queued=tuple(each for page in found for each in page.queued),
        results=tuple(each for page in found for each in page.results),
        halts=tuple(each for page in found for each in page.halts),
        ending=tuple(each for page in found for each in page.ending),
        warnings=tuple(each for page in found for each in page.warnings),
    )


def check_platform(remote: "Remote", platform: str) -> None:
    """Raise Refused for a platform that a server does not have, and TooOld."""
    if not look(remote, entries=0, platform=platform).platforms:
        raise Refused(f"unknown platform {printable(platform)}")


def standing(remote: "Remote") -> Looked | None:
    """Return how things stand, without queues and results; None of a server that does not tell it.

    Whoever asks does not need it, and is told no error.
    """
    try:
        return look(remote, entries=0)
    except (TooOld, Unreachable):
        return None


def _ending(what: EndingState, left: int) -> str:
    when = f"ends in {words.duration(left)}" if left > 0 else "has ended"
    if what.is_key:
        return f"the key that signs builds {when}: 'builder-server keys rotate' makes another"
    whose = "the server's certificate" if what.is_own else "the certificate of"
    return f"{whose} {printable(what.name)} {when}: renew it"


def running(looked: Looked | None) -> dict[UUID, RunningState] | None:
    """Return the running builds; None if they were not told."""
    return {build.uuid: build for build in looked.running} if looked else None


def listed(ask: Ask) -> dict[str, ListedJob]:
    """Return all jobs of a server by their names."""
    found: dict[str, ListedJob] = {}
    last: str | None = None
    while True:
        (page,) = ask(ListJobs(after=last))
        assert isinstance(page, JobsListed), "a server answers so"
        names = [each.job.name for each in page.jobs]
        if not names or names[-1] in found:
            return found
        found.update(zip(names, page.jobs, strict=True))
        last = names[-1]


def plans(remote: "Remote") -> dict[str, JobOptions] | None:
    """Return how all jobs are run, by their names; None of a server that tells their periods alone. No error, as above."""
    try:
        with remote.requests(what="options of jobs") as ask:
            return {name: each.options for name, each in listed(ask).items()}
    except (TooOld, Unreachable):
        return None


def why(entry: QueuedState, drained: Sequence[HaltState]) -> str:
    """Return why an entry waits; ``drained`` is what gets no job."""
    match entry.why:
        case Why.DRAINED:
            return halts.briefly(drained, halts.of_platform(entry.platform))
        case Why.WORKERS_DRAINED:
            return "all workers are drained"
        case Why.PRESSED:
            return "all workers take none now, 'workers' says why"
        case Why.PAUSED:
            return "its job is paused"
        case Why.NO_TEMPLATE:
            return "no template for this platform"
        case Why.NOT_BEFORE:
            assert entry.not_before, "that is why"
            return f"not before {entry.not_before.isoformat()}"
        case Why.DISK_FULL:
            return DISK_FULL
        case Why.NEEDS:
            assert entry.unmet, "that is why"
            return unmet(entry.unmet, entry.platform)
        case Why.ABLE_BUSY:
            return "the workers that have what it needs are busy, or take none"
        case Why.NO_WORKER:
            return "no worker of this platform"
        case Why.BEHIND:
            return f"behind {words.count(entry.ahead, 'other')}"
        case Why.BUSY:
            return "all workers are busy"
        case Why.NEXT:
            return "a worker takes it now"


def unmet(found: Unmet, platform: str) -> str:
    """Return what no worker of a platform has."""
    missing = ", ".join(map(str, found.missing)) or "all that it needs"
    nearest = f"; nearest: {printable(found.nearest)} lacks {', '.join(map(str, found.lacks))}"
    there_is = f"; there is {', '.join(map(str, found.instead))}" if found.instead else ""
    return f"no worker of {printable(platform)} has {missing}{there_is}" + nearest * (found.lacks != found.missing)


def unmet_json(found: Unmet) -> JsonObject:
    """Return the same."""
    return {
        "missing": [*map(str, found.missing)],
        "nearest": json_text(found.nearest),
        "lacks": [*map(str, found.lacks)],
        "instead": [*map(str, found.instead)],
    }


def warnings(looked: Looked | None) -> tuple[str, ...]:
    """Return what somebody has to do something about, a line each: what concerns all before what concerns some."""
    if looked is None:
        return ()
    full = (f"{DISK_FULL}: no job is handed out until there is room",) if looked.is_full else ()
    ending = (_ending(each, each.expires.ms - looked.now.ms) for each in looked.ending)
    needed = (
        f"{unmet(found, platform.name)}: what needs that waits"
        for platform in looked.platforms
        for found in platform.unmet
    )
    return (*full, *map(printable, looked.warnings), *ending, *needed)


def start(entry: QueuedState, now: Instant) -> str:
    """Return when an entry is likely to start."""
    if entry.start is None:
        return ""
    return f"in {words.duration(entry.start.ms - now.ms)}" if entry.start.ms > now.ms else "now"


def entry_json(entry: QueuedState) -> JsonObject:
    """Return an entry of a queue."""
    return {
        "job": json_text(entry.job),
        "cause": entry.cause.value,
        "why": entry.why.value,
        "ahead": entry.ahead,
        "due": entry.due and entry.due.isoformat(),
        "not_before": entry.not_before and entry.not_before.isoformat(),
        "likely_start": entry.start and entry.start.isoformat(),
        "expected_ms": entry.expected,
        "needs": [*map(str, entry.needs)],
        "unmet": None if entry.unmet is None else unmet_json(entry.unmet),
    }


def queue_json(platform: PlatformState, looked: Looked) -> JsonObject:
    """Return the queue of a platform."""
    return {
        "platform": json_text(platform.name),
        "workers_waiting": platform.waiting,
        "workers_busy": platform.busy,
        "workers_drained": platform.drained,
        "workers_pressed": platform.pressed,
        "queued": platform.queued,
        "asked": [*map(provisions.json, platform.provisions)],
        "jobs": [entry_json(entry) for entry in looked.queued if entry.platform == platform.name],
    }


def workers(platform: PlatformState) -> str:
    """Return what the workers of a platform do."""
    total = platform.waiting + platform.busy + platform.pressed
    if not total:
        return "no workers"
    drained = f", {platform.drained} drained" if platform.drained else ""
    takes = "takes" if platform.pressed == 1 else "take"
    pressed = f", {platform.pressed} {takes} none" if platform.pressed else ""
    return f"{words.count(total, 'worker')}, {platform.busy} busy{drained}{pressed}"


def title(platform: PlatformState, shown: int) -> str:
    """Return the heading of a platform's queue."""
    more = f", {platform.queued - shown} {'more' if shown else 'queued'}" if platform.queued > shown else ""
    return f"{printable(platform.name)} ({workers(platform)}{more})"
