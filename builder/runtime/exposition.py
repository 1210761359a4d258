"""A page of metrics as Prometheus reads it, of what a program counts anyway.

It is made in a thread, one at a time and once a second at most, however many ask.
"""

from collections.abc import Awaitable, Callable, Iterable
from functools import partial

import trio
from attrs import define, field, frozen
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from builder.runtime.histogram import Histogram
from builder.runtime.scraping import Page, Pages

INTERVAL = 1.0
"""Seconds for which what was made is good enough."""


PATIENCE = 5.0
"""Seconds in which the database has to answer for the server to be ready."""


@define(eq=False)
class Exposition:
    """Makes the page of what ``_look`` returns, and of what is known of the process."""

    _look: Callable[[], Awaitable[Iterable[Metric]]]
    _process: ProcessCollector = field(factory=lambda: ProcessCollector(registry=None))
    _made: Page | None = None
    _made_at: float = 0.0
    _making: trio.Lock = field(factory=trio.Lock)

    async def page(self) -> Page:
        """Return the page. Raises what ``_look`` does."""
        async with self._making:
            if self._made is None or trio.current_time() >= self._made_at + INTERVAL:
                families = [*await self._look()]
                body = await trio.to_thread.run_sync(partial(_exposed, families, self._process))
                self._made = Page(body=body, type=CONTENT_TYPE_PLAIN_0_0_4)
                self._made_at = trio.current_time()
            return self._made


def pages_of(
    look: Callable[[], Awaitable[Iterable[Metric]]], is_ready: Callable[[], bool], ask: Callable[[], Awaitable[object]]
) -> Pages:
    """Return what makes the pages of a program: metrics of what ``look`` returns; that it runs; and whether it serves, which is
    asked of ``is_ready``, and of the database by ``ask``.
    """

    async def readiness() -> Page:
        if not is_ready():
            return Page(status=503, body=b"not now: it starts or stops\n")
        with trio.move_on_after(PATIENCE) as waiting:
            await ask()
        if waiting.cancelled_caught:
            return Page(status=503, body=b"the database does not answer\n")
        return Page(body=b"ok\n")

    return {"/metrics": Exposition(look).page, "/healthz": _health, "/readyz": readiness}


async def _health() -> Page:
    """Say that the program runs: whoever reads this knows it."""
    return Page(body=b"ok\n")


def gauge(name: str, meaning: str, *labels: str) -> GaugeMetricFamily:
    """Return a gauge without values."""
    return GaugeMetricFamily(name, meaning, labels=labels)


def histogram(name: str, meaning: str, found: Histogram) -> HistogramMetricFamily:
    """Return a histogram with its values."""
    return HistogramMetricFamily(name, meaning, buckets=[*found.buckets()], sum_value=found.total)


def version(name: str, number: str) -> GaugeMetricFamily:
    """Return what tells which version runs."""
    found = gauge(name, "Always 1; the labels tell what runs.", "version")
    found.add_metric([number], 1)
    return found


@frozen(eq=False)
class _Ready(Collector):
    """Families that were made already."""

    families: list[Metric]

    def collect(self) -> Iterable[Metric]:
        """Return them."""
        return self.families


def _exposed(families: list[Metric], process: ProcessCollector) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Ready(families))
    registry.register(process)
    return generate_latest(registry)
