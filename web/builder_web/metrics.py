"""What a site shows of itself, for Prometheus and for those who ask whether it works: see docs/metrics.md."""

import os
from collections.abc import Callable, Iterable, Iterator

import trio
from attrs import define
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from builder import __version__
from builder.runtime.exposition import histogram, pages_of, version
from builder.runtime.scraping import Pages
from builder_web.directory import DataDirectory
from builder_web.receiving.recording import Recorder
from builder_web.serving.access_log import Answered
from builder_web.store.store import Store


@define(eq=False, kw_only=True)
class SiteMetrics:
    """Makes the pages. It reads what the parts of the site count, and changes nothing."""

    store: Store
    directory: DataDirectory
    recorder: Recorder
    answered: Answered
    is_ready: Callable[[], bool]

    def pages(self) -> Pages:
        """Return what makes each page."""
        return pages_of(self._look, self.is_ready, self.store.database.answer)

    async def _look(self) -> Iterable[Metric]:
        try:
            disk = await trio.to_thread.run_sync(os.statvfs, self.directory.root)
        except OSError:  # what is not known is not shown
            return self._families(None)
        return self._families(disk.f_bavail * disk.f_frsize)

    def _families(self, free: int | None) -> Iterator[Metric]:
        yield version("builder_web_info", __version__)
        requests = CounterMetricFamily("builder_web_requests", "Requests that were answered.", labels=["status"])
        for status, count in self.answered.by_status.items():
            requests.add_metric([str(status)], count)
        yield requests
        yield CounterMetricFamily("builder_web_sent_bytes", "Bytes of answers.", value=self.answered.size)
        yield histogram("builder_web_request_seconds", "For how long requests were answered.", self.answered.took)
        yield CounterMetricFamily("builder_web_builds", "Builds that were recorded.", value=self.recorder.recorded)
        yield histogram(
            "builder_web_commit_seconds", "For how long changes are written to the disk.", self.store.database.commits
        )
        if free is not None:
            yield GaugeMetricFamily("builder_web_disk_free_bytes", "Free on the disk of the data.", value=free)
