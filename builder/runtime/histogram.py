"""Durations that are counted, for those who look at a program from outside."""

from bisect import bisect_left
from collections.abc import Iterator

from attrs import define, field

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds: from a commit on a fast disk to one for which others had the database locked."""


@define(eq=False)
class Histogram:
    """How often something took how long, in seconds. Any thread may add to it, as long as it is one at a time."""

    total: float = 0.0
    _counts: list[int] = field(factory=lambda: [0] * (len(BOUNDS) + 1))

    def add(self, seconds: float) -> None:
        """Count one more."""
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def buckets(self) -> Iterator[tuple[str, int]]:
        """Return for each bound, and for none at last, how many took no longer."""
        so_far = 0
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), self._counts, strict=True):
            so_far += count
            yield bound, so_far
