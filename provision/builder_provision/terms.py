"""What an operator allows on a platform. Times are seconds."""

from collections.abc import Iterable, Mapping

from attrs import field, frozen

from builder.needs import LABEL, QUANTITIES, TRUTHS, Capabilities, Need


def able(needs: Iterable[Need]) -> Capabilities:
    """Return what a worker has that meets all of these; of several of one name the last one, of amounts the largest."""
    facts: dict[str, str] = {}
    for need in needs:
        if need.least is not None:
            facts[need.name] = str(max(need.least, int(facts.get(need.name, 0))))
        elif need.value is not None:
            facts[need.name] = need.value
        elif need.name in TRUTHS:
            facts[need.name] = "yes"
        else:
            facts[LABEL + need.name] = ""
    return Capabilities.of(facts.items())


@frozen(kw_only=True)
class Terms:
    """How many workers there may be for a platform, for how long, and what they have."""

    least: int = 0
    """Workers that are there or asked for also when nothing waits."""

    most: int = 1

    aim: float = 0.0
    """For how long a job may wait for a worker that stands anyway. Without such a one, one is asked for at once."""

    cool_down: float = 300.0
    """For how long a worker stays that nothing waits for, whether it has come or not."""

    patience: float = 900.0
    """In which a worker comes that its engine has started, or holds back for a reason of which no end is known."""

    time_limit: float = 6 * 3600.0
    """For which a worker is asked for, unless a job that waits may take longer."""

    budget: float | None = None
    """Seconds of all workers together on a day, in UTC; once they are spent, no more are asked for."""

    has: tuple[Need, ...] = ()
    """What every worker has."""

    features: Mapping[str, str] = field(factory=dict)
    """What a worker has if the engine is asked for it: the text of a need, and how the engine calls it."""

    most_of: Mapping[str, int] = field(factory=dict)
    """How much of a number the engine can be asked for, by the name of the need."""

    def lacks(self, needs: Iterable[Need]) -> tuple[Need, ...]:
        """Return what the engine has to be asked for, of what is needed."""
        return able(self.has).lacks(needs)

    def beyond(self, needs: Iterable[Need]) -> tuple[Need, ...]:
        """Return what no worker can be asked for with."""
        return tuple(need for need in self.lacks(needs) if not self._is_had(need))

    def _is_had(self, need: Need) -> bool:
        if need.name in QUANTITIES:
            return need.least is not None and need.least <= self.most_of.get(need.name, QUANTITIES[need.name][1])
        return str(need) in self.features

    def of_asked(self, needs: Iterable[Need]) -> Capabilities:
        """Return what a worker has that was asked for with these needs."""
        return able([*self.has, *needs])
