"""How many workers are asked for, and which are given up. Pure: the time is an argument, seconds since the epoch."""

from collections.abc import Mapping, Sequence
from math import inf

from attrs import field, frozen

from builder.needs import Need, text_of
from builder_provision.fleet import Asked, EngineState, Order, Standing, Waiting
from builder_provision.matching import match
from builder_provision.terms import Terms

MARGIN = 900.0
"""Seconds that a worker is there beyond the limit of its job: to start, to fetch, to deliver."""

OVERDUE = 300.0
"""Seconds beyond its time limit after which a worker is removed that its engine should have ended."""

DAY = 86400.0

LEAVING, COMING, LATER = 2.0, 10.0, 60.0
"""Seconds to the next look at the engine: while workers end, while they come, and otherwise. What changes on the server is told."""


@frozen(kw_only=True)
class Situation:
    """A platform as it is now. ``waiting`` are those of its queue that a worker could take, in their order."""

    now: float
    waiting: Sequence[Waiting] = ()
    standing: Sequence[Standing] = ()
    asked: Sequence[Asked] = ()

    spent: float = 0.0
    """Seconds of workers that were used today."""

    refused: Mapping[tuple[Need, ...], float] = field(factory=dict)
    """Until when no worker with such needs is asked for, since the engine refused the last one."""

    unneeded: Mapping[str, float] = field(factory=dict)
    """Workers that had nothing to do when this was planned before, and since when."""


@frozen(kw_only=True)
class Removal:
    """A worker that is given up. If it ``may_have_begun`` it is ended whatever it does, otherwise only before it starts."""

    asked: Asked
    reason: str
    may_have_begun: bool


@frozen(kw_only=True)
class Plan:
    """What to do. ``why_not`` says why no more is asked for, as sentences; ``unneeded`` belongs into the next situation."""

    ask: tuple[Order, ...] = ()
    remove: tuple[Removal, ...] = ()
    why_not: tuple[str, ...] = ()
    unneeded: Mapping[str, float] = field(factory=dict)
    look_at: float


def plan(terms: Terms, situation: Situation) -> Plan:
    """Return what to do now, and when to look again if nothing happens before."""
    now = situation.now
    hung = [removal for each in situation.asked if (removal := _hung(terms, each, now)) is not None]
    given_up = {removal.asked.name for removal in hung}
    alive = [each for each in situation.asked if each.name not in given_up]
    matched = match(terms, situation.waiting, situation.standing, alive, now)
    limits = [entry.time_limit for entry in situation.waiting if entry.time_limit is not None]
    # it may wait for so long before it has the longest of the jobs
    time_limit = max([terms.time_limit, *(limit + terms.cool_down + MARGIN for limit in limits)])
    orders: list[Order] = []
    why_not: dict[str, None] = {}
    for entry in matched.left:
        needs = terms.lacks(entry.needs)
        if beyond := terms.beyond(entry.needs):
            why_not[f"no worker can be asked for that has {text_of(beyond)}"] = None
        elif situation.refused.get(needs, 0.0) <= now:
            orders.append(Order(needs=needs, time_limit=time_limit))
    kept = max(0, terms.least - len(alive) - len(orders))
    if situation.refused.get((), 0.0) <= now:
        orders += [Order(time_limit=time_limit)] * kept
    room = max(0, terms.most - len(situation.asked))  # who is given up has its place until it is gone
    if terms.budget is not None and situation.spent >= terms.budget:
        if orders:
            why_not[f"the {terms.budget / 3600:g} worker hours of today are spent"] = None
        room = 0
    elif len(orders) > room:
        why_not[f"there may be {terms.most} at once"] = None
    spare = [each for each in matched.unneeded if each.is_coming]
    spare = sorted(spare, key=lambda each: (each.asked_at, each.name))[max(0, terms.least - len(alive) + len(spare)) :]
    unneeded = {each.name: situation.unneeded.get(each.name, now) for each in spare}
    cooled = [
        Removal(asked=each, reason="nothing waits for it", may_have_begun=False)
        for each in spare
        if each.state is not EngineState.STARTED and unneeded[each.name] + terms.cool_down <= now
    ]
    return Plan(
        ask=tuple(orders[:room]),
        remove=(*hung, *cooled),
        why_not=tuple(why_not),
        unneeded=unneeded,
        look_at=_next_look(terms, situation, alive, unneeded, is_asking=bool(orders[:room])),
    )


def _hung(terms: Terms, asked: Asked, now: float) -> Removal | None:
    """Return why a worker is given up that will not do any more what it was asked for."""
    if asked.state is EngineState.HELD:
        begun = asked.asked_at if asked.started_at is None else asked.started_at
        if now >= begun + terms.patience:
            reason = f"it does not start: {asked.reason or 'no reason given'}"
            return Removal(asked=asked, reason=reason, may_have_begun=False)
    elif asked.started_at is not None:
        limit = asked.time_limit or terms.time_limit
        if now >= asked.started_at + limit + OVERDUE:
            return Removal(asked=asked, reason="it is there for longer than it was asked for", may_have_begun=True)
        if asked.left_at is not None and now >= asked.left_at + terms.patience:
            return Removal(asked=asked, reason="it has left the server, and does not end", may_have_begun=True)
        if asked.is_coming and now >= asked.started_at + terms.patience:
            return Removal(asked=asked, reason="it was started, and never came to the server", may_have_begun=True)
    return None


def _next_look(
    terms: Terms, situation: Situation, alive: Sequence[Asked], unneeded: Mapping[str, float], *, is_asking: bool
) -> float:
    """Return when something may have to be done that no change of the server tells of."""
    now = situation.now
    is_leaving = len(alive) < len(situation.asked) or any(each.left_at is not None for each in alive)
    is_coming = is_asking or any(each.is_coming for each in alive)
    moments = [
        now + (LEAVING if is_leaving else COMING if is_coming else LATER),
        *situation.refused.values(),
        *(entry.since + terms.aim for entry in situation.waiting),
        *(since + terms.cool_down for since in unneeded.values()),
        *(each.started_at + terms.patience for each in alive if each.started_at is not None and each.is_coming),
        (now // DAY + 1) * DAY if terms.budget is not None else inf,
    ]
    return min(moment for moment in moments if moment > now)
