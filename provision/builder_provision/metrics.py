"""What a provisioner shows of itself, for Prometheus and for those who ask whether it works: see docs/metrics.md."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from attrs import define
from prometheus_client.core import CounterMetricFamily, Metric

from builder import __version__
from builder.runtime.exposition import gauge, pages_of, version
from builder.runtime.scraping import Pages
from builder_provision.fleet import Asked, EngineState
from builder_provision.keeper import Keeper


@define(eq=False, kw_only=True)
class ProvisionMetrics:
    """Makes the pages, of what the keepers have found and counted."""

    keepers: Sequence[Keeper]
    is_ready: Callable[[], bool]

    def pages(self) -> Pages:
        """Return what makes each page. It is ready while no engine and no server is in the way."""
        return pages_of(
            self._look, lambda: self.is_ready() and not any(each.trouble for each in self.keepers), _nothing
        )

    def _is_ready(self) -> bool:
        return self.is_ready() and all(each.rounds and not each.trouble for each in self.keepers)

    async def _look(self) -> Iterable[Metric]:
        return [*self._families()]

    def _families(self) -> Iterator[Metric]:
        yield version("builder_provision_info", __version__)
        workers = gauge("builder_provision_workers", "Workers that were asked for.", "engine", "platform", "state")
        hours = gauge("builder_provision_hours", "Hours of workers on this day, in UTC.", "engine", "platform")
        counters = {
            name: CounterMetricFamily(f"builder_provision_{name}", meaning, labels=["engine", "platform"])
            for name, meaning in (
                ("asked", "Workers that an engine was asked for, and took."),
                ("refused", "Workers that an engine refused."),
                ("removed", "Workers that were given up."),
            )
        }
        trouble = gauge("builder_provision_trouble", "1 if the last round failed.", "engine")
        for keeper in self.keepers:
            trouble.add_metric([keeper.name], bool(keeper.trouble))
            for platform, shown in keeper.shown.items():
                states = Counter(map(_state, shown.asked))
                for state in ("pending", "starting", "waiting", "building", "away", "leaving"):
                    workers.add_metric([keeper.name, platform, state], states[state])
                hours.add_metric([keeper.name, platform], shown.spent / 3600)
            for platform, counts in keeper.counts.items():
                for name, counter in counters.items():
                    counter.add_metric([keeper.name, platform], getattr(counts, name))
        yield from (workers, hours, *counters.values(), trouble)


def _state(asked: Asked) -> str:
    if asked.doing is not None:
        return asked.doing.value
    if asked.left_at is not None:
        return "leaving"
    return "starting" if asked.state is EngineState.STARTED else "pending"


async def _nothing() -> None:
    pass
