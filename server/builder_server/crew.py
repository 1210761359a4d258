"""The workers of a server: what the owners of all attempts tell of them."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from uuid import UUID

import trio
from attrs import evolve, field, frozen

from builder.extension.crew import Doing, ListWorkers, WorkerEntry, WorkerPlace
from builder.extension.halting import HaltState, Target
from builder.model import Instant
from builder_server.estimates import Worker
from builder_server.owner import Owner
from builder_server.provisions import Told
from builder_server.store import split_peer


@frozen(kw_only=True)
class Crew:
    """The ``number`` of workers; how many of each platform are ``waiting``; of those so many are ``idle``, since they are drained.

    ``workers`` have what a job can need, but of so many it is ``unknown``: they have come back to builds of an earlier server.
    ``pressed`` wait too, and take no job for their machine's sake. ``drained`` counts these and those that still have a build, ``of_drained`` are the builds. ``away`` are the builds whose worker is away, and since when.
    ``asked`` is what provisioners have told of workers that are to come.
    """

    number: int = 0
    waiting: Counter[str] = field(factory=Counter)
    idle: Counter[str] = field(factory=Counter)
    pressed: Counter[str] = field(factory=Counter)
    drained: Counter[str] = field(factory=Counter)
    of_drained: frozenset[UUID] = frozenset()
    away: Mapping[UUID, Instant] = field(factory=dict)
    workers: Mapping[str, Sequence[Worker]] = field(factory=dict)
    unknown: Counter[str] = field(factory=Counter)
    asked: tuple[Told, ...] = ()


def muster(owners: Collection[Owner], halts: Mapping[Target, HaltState]) -> Crew:
    """Return what the workers do."""
    waiting, idle, pressed, drained = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    of_drained, away = set(), {}
    workers, unknown = defaultdict[str, list[Worker]](list), Counter[str]()
    for owner in owners:
        is_drained = owner.is_drained(halts)
        is_pressed = owner.job is None and bool(owner.worker.pressure) and not is_drained
        is_waiting = owner.job is None and not is_pressed
        if owner.worker.name is not None and not owner.worker.facts:
            unknown[owner.platform] += 1
        else:
            can_begin = is_waiting and not is_drained
            able = Worker(name=owner.worker.known_as, able=owner.worker.able, is_waiting=can_begin)
            workers[owner.platform].append(able)
        if is_waiting:
            waiting[owner.platform] += 1
        if is_pressed:
            pressed[owner.platform] += 1
        if owner.away_since is not None:
            away[owner.uuid] = owner.away_since
        if is_drained:
            drained[owner.platform] += 1
            if is_waiting:
                idle[owner.platform] += 1
            else:
                of_drained.add(owner.uuid)
    return Crew(
        number=len(owners),
        waiting=waiting,
        idle=idle,
        pressed=pressed,
        drained=drained,
        of_drained=frozenset(of_drained),
        away=away,
        workers=workers,
        unknown=unknown,
    )


def page(
    owners: Iterable[Owner], asked: ListWorkers, halts: Mapping[Target, HaltState], now: Instant, server: str
) -> tuple[WorkerEntry, ...]:
    """Return the next workers of a server by platform and name."""
    behind = None if asked.behind is None else (asked.behind.platform, asked.behind.name, asked.behind.uuid)
    wanted = (owner for owner in owners if asked.platform in (None, owner.platform))
    first = heapq.nsmallest(
        asked.count, (owner for owner in wanted if behind is None or _order(owner) > behind), key=_order
    )
    return tuple(_entry(owner, halts, now, server) for owner in first)


def _order(owner: Owner) -> tuple[str, str, UUID]:
    return owner.platform, owner.worker.known_as, owner.uuid


def merged(pages: Iterable[Iterable[WorkerEntry]], count: int) -> tuple[WorkerEntry, ...]:
    """Return the first workers of the pages of several servers."""
    return tuple(heapq.nsmallest(count, (entry for page in pages for entry in page), key=_place))


def _place(entry: WorkerEntry) -> tuple[str, str, UUID]:
    return entry.place.platform, entry.place.name, entry.place.uuid


def _entry(owner: Owner, halts: Mapping[Target, HaltState], now: Instant, server: str) -> WorkerEntry:
    holder, address = split_peer(owner.worker.address)
    doing = Doing.WAITING if owner.job is None else Doing.BUILDING if owner.away_since is None else Doing.AWAY
    changed = owner.attachment.changed
    silent = trio.current_time() - owner.attachment.heard
    return WorkerEntry(
        place=WorkerPlace(platform=owner.platform, name=owner.worker.known_as, uuid=owner.uuid),
        address=address,
        holder=holder,
        doing=doing,
        since=owner.away_since or owner.since,
        is_drained=owner.is_drained(halts),
        is_classic=owner.worker.name is None,
        facts=tuple(evolve(fact, value=changed.get(fact.name, fact.value)) for fact in owner.worker.facts),
        job=owner.job,
        server=server,
        heard=None if doing is Doing.WAITING else Instant(now.ms - round(silent * 1000)),
    )
