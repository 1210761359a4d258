"""Which jobs the workers that are there, and those that come, will take. Pure.

What was asked for because of one job may take another one: so it is counted who can take what, and nobody is set aside for a
job. Jobs that need most choose first, and each takes the worker that has least beyond what it needs.
"""

from collections.abc import Iterable, Sequence
from math import inf

from attrs import define, frozen

from builder.extension.crew import Doing
from builder.needs import Capabilities
from builder_provision.fleet import Asked, Standing, Waiting
from builder_provision.terms import Terms


@define
class _Place:
    """A worker, and from when on it can take a job; ``asked`` if it takes one alone."""

    able: Capabilities
    free_at: float
    since: float
    asked: Asked | None = None

    def rank(self) -> tuple[int, bool, float, float, str]:
        """Return what makes one better than another: those that have less first, then who is there, then who was first."""
        asked = self.asked
        return (
            len(self.able.facts),
            asked is not None and asked.doing is None,
            self.free_at,
            self.since,
            asked.name if asked else "",
        )


@frozen(kw_only=True)
class Matched:
    """Jobs that nobody will take in time, in the order of their queue, and workers for which there will be no job."""

    left: tuple[Waiting, ...]
    unneeded: tuple[Asked, ...]


def match(
    terms: Terms, waiting: Sequence[Waiting], standing: Iterable[Standing], asked: Iterable[Asked], now: float
) -> Matched:
    """Return who and what is left when each job has the worker that will take it."""
    places = [
        *(_Place(able=each.able, free_at=_known(each.free_at), since=0.0) for each in standing),
        *(
            _Place(able=each.able or terms.of_asked(each.needs), free_at=now, since=each.asked_at, asked=each)
            for each in asked
            if each.is_coming or each.doing is Doing.WAITING
        ),
    ]
    left = []
    for index, entry in sorted(enumerate(waiting), key=lambda pair: (-len(pair[1].needs), pair[0])):
        # one that is busy for nobody knows how long is hoped for until then, and no longer
        until = max(now, entry.since + terms.aim)
        hoped_for = until > now
        able = [
            place
            for place in places
            if (place.free_at <= until or (place.free_at == inf and place.asked is None and hoped_for))
            and not place.able.lacks(entry.needs)
        ]
        if not able:
            left.append((index, entry))
            continue
        taken = min(able, key=_Place.rank)
        if taken.asked is None and taken.free_at < inf and entry.expected is not None:
            taken.free_at = max(taken.free_at, now) + entry.expected
        else:
            places.remove(taken)
    return Matched(
        left=tuple(entry for _, entry in sorted(left, key=lambda pair: pair[0])),
        unneeded=tuple(place.asked for place in places if place.asked),
    )


def _known(moment: float | None) -> float:
    return inf if moment is None else moment
