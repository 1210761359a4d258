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
    _reason: str | None = field(init=False, default=None)

    def next_pause(self, chance: float | None = None) -> float:
        """Return the next pause; ``chance`` is a random number from 0 to 1."""
        pause = min(self.shortest * 2.0 ** min(self._failures, 30), self.longest)
        self._failures += 1
        return pause * (1 - (_chance() if chance is None else chance) / 2)

    def is_news(self, reason: str) -> bool:
        """Return whether the attempt before has failed for another reason: what stays as it is need not be said again."""
        before, self._reason = self._reason, reason
        return before != reason

    def reset(self) -> None:
        """Begin with the shortest pause again, and with whatever reason."""
        self._failures, self._reason = 0, None
