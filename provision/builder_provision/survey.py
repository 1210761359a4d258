"""How things stand, of what the server and the engine tell. Pure. Times are seconds since the epoch, by this machine's clock."""

from collections.abc import Callable, Iterable, Sequence

from attrs import evolve, frozen

from builder.extension.crew import Doing, WorkerEntry
from builder.extension.halting import SERVER, Scope, Target
from builder.extension.watching import Looked, QueuedState, Why
from builder.model import Instant
from builder.needs import PRESSURE, Capabilities
from builder_provision.fleet import Asked, Standing, Waiting

OUT_OF_REACH = frozenset({Why.PAUSED, Why.NO_TEMPLATE, Why.NOT_BEFORE, Why.DRAINED, Why.DISK_FULL})
"""Why an entry waits that no worker could take."""


@frozen(kw_only=True)
class Survey:
    """What is known of a platform. ``is_closed``: no job is given out there, whoever comes."""

    waiting: tuple[Waiting, ...]
    standing: tuple[Standing, ...]
    asked: tuple[Asked, ...]
    is_closed: bool


def survey(platform: str, looked: Looked, workers: Sequence[WorkerEntry], asked: Iterable[Asked], now: float) -> Survey:
    """Return how a platform stands."""

    def here(moment: Instant) -> float:
        """Return a time of the server's clock by this machine's."""
        return now + (moment.ms - looked.now.ms) / 1000

    mine = {each.name: each for each in asked if each.platform == platform}
    here_now = {entry.place.name: entry for entry in workers if entry.place.platform == platform}
    closed = {halt.target for halt in looked.halts} & {SERVER, Target(scope=Scope.PLATFORM, name=platform)}
    ends = {
        build.uuid: here(build.started) + build.expected / 1000
        for build in looked.running
        if build.expected is not None
    }
    return Survey(
        waiting=tuple(
            _waiting(entry, now, here)
            for entry in looked.queued
            if entry.platform == platform and entry.why not in OUT_OF_REACH
        ),
        standing=tuple(
            Standing(
                able=_able(entry),
                free_at=now if entry.doing is Doing.WAITING else ends.get(entry.place.uuid),
            )
            for entry in workers
            if entry.place.platform == platform and entry.place.name not in mine and not _takes_none(entry)
        ),
        asked=tuple(_arrived(each, here_now.get(name)) for name, each in mine.items()),
        is_closed=bool(closed) or looked.is_full,
    )


def _waiting(entry: QueuedState, now: float, here: Callable[[Instant], float]) -> Waiting:
    moments = [here(moment) for moment in (entry.due, entry.not_before) if moment is not None]
    return Waiting(
        needs=entry.needs,
        since=min(now, max(moments)) if moments else 0.0,
        time_limit=None if entry.time_limit is None else entry.time_limit / 1000,
        expected=None if entry.expected is None else entry.expected / 1000,
    )


def _arrived(asked: Asked, entry: WorkerEntry | None) -> Asked:
    """Return a worker with what the server says of it. One that takes no job now counts as busy."""
    if entry is None:
        return asked
    doing = Doing.AWAY if entry.doing is Doing.WAITING and _takes_none(entry) else entry.doing
    return evolve(asked, doing=doing, able=_able(entry))


def _takes_none(entry: WorkerEntry) -> bool:
    return entry.is_drained or any(fact.name == PRESSURE for fact in entry.facts)


def _able(entry: WorkerEntry) -> Capabilities:
    return Capabilities.of((fact.name, fact.value) for fact in entry.facts)
