"""How long workers have been there, whatever becomes of the wall clock: one that is set while they build must cost none its build."""

from collections.abc import Iterable

from attrs import define, evolve, field

from builder_provision.fleet import Asked


@define
class Ages:
    """The wall clock is asked once for each worker, when that is seen first; from then on a clock counts that nobody sets."""

    _began: dict[str, float] = field(factory=dict)
    """By that clock, which may have begun later."""

    def told(self, asked: Iterable[Asked], now: float, elapsed: float) -> list[Asked]:
        """Return the same as started as long before ``now`` as they have been there. Both times are seconds."""
        listed = [*asked]
        self._began = {
            each.name: self._began.get(each.name, elapsed - max(now - each.started_at, 0.0))
            for each in listed
            if each.started_at is not None
        }
        return [
            evolve(each, started_at=now - (elapsed - self._began[each.name])) if each.name in self._began else each
            for each in listed
        ]
