"""How long is waited between attempts to reach a server."""

import random

from attrs import field, mutable

SHORTEST_PAUSE = 1.0
"""Seconds before the first new attempt: a server that restarts is back in about that time."""

LONGEST_PAUSE = 60.0
"""Seconds between attempts at most: a server that was away for hours has its workers back within a minute."""


def _chance() -> float:
    return random.random()  # noqa: S311 - it spreads load, it keeps no secret


@mutable(kw_only=True)
class Backoff:
    """Pauses in seconds that double, each cut by up to a half so that many workers do not come back together."""

    shortest: float = SHORTEST_PAUSE
    longest: float = LONGEST_PAUSE
    _failures: int = field(init=False, default=0)

    def next_pause(self, chance: float | None = None) -> float:
        """Return the next pause; ``chance`` is a random number from 0 to 1."""
        pause = min(self.shortest * 2.0 ** min(self._failures, 30), self.longest)
        self._failures += 1
        return pause * (1 - (_chance() if chance is None else chance) / 2)

    def reset(self) -> None:
        """Begin with the shortest pause again."""
        self._failures = 0


@mutable
class Troubles:
    """What all slots of a worker have told of why they can't work: what stays as it is need not be said again."""

    _told: str | None = field(init=False, default=None)

    def is_news(self, reason: str) -> bool:
        """Return whether something else was told last, or nothing since one of them worked."""
        before, self._told = self._told, reason
        return before != reason

    def forget(self) -> None:
        """Note that one of them works."""
        self._told = None
