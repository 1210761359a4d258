"""What a server shows of itself, for Prometheus and for those who ask whether it works: see docs/metrics.md.

There is a series for each platform, of which there are at most a thousand, for each receiver of uploads and each server; never for a job, a
build or a peer.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from attrs import define, frozen
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from builder import __version__
from builder.extension.halting import Scope
from builder.extension.uploads import ReceiverState, UploadState
from builder.model import Instant, printable
from builder.runtime.exposition import gauge, histogram, pages_of, version
from builder.runtime.scraping import Pages
from builder_server.attempts import STATES, Attempts
from builder_server.connections import Connections
from builder_server.expiry import Expiring
from builder_server.memory import Memory
from builder_server.room import Room
from builder_server.store import PlatformLoad, ServerState, Store
from builder_server.upload import Uploader

_UPLOADS = {UploadState.DONE: "stored", UploadState.PENDING: "failed", UploadState.REFUSED: "refused"}

MAX_CERTIFICATES = 100
"""Certificates that are shown, those that expire first: anybody who has one may be connected."""


@frozen(kw_only=True)
class _Seen:
    """What had to be waited for."""

    platforms: tuple[PlatformLoad, ...]
    receivers: tuple[ReceiverState, ...]
    room: Room | None
    servers: tuple[ServerState, ...]
    now: Instant


@define(eq=False, kw_only=True)
class Metrics:
    """Makes the pages. It reads what the parts of the server count, and changes nothing."""

    store: Store
    attempts: Attempts
    uploader: Uploader
    connections: Connections
    memory: Memory
    now: Callable[[], Instant]
    is_ready: Callable[[], bool]
    expiring: Callable[[], Iterable[Expiring]] = tuple

    def pages(self) -> Pages:
        """Return what makes each page."""
        return pages_of(self._look, self.is_ready, self.store.database.answer)

    async def _look(self) -> Iterable[Metric]:
        """Raises StoreError."""
        now = self.now()
        try:
            room = await self.attempts.dispatcher.room()
        except OSError:  # what is not known is not shown, and missed by the alert
            room = None
        seen = _Seen(
            platforms=await self.store.load(now),
            receivers=await self.store.count_uploads(self.uploader.names),
            room=room,
            servers=await self.store.servers(),
            now=now,
        )
        return self._families(seen)

    def _families(self, seen: _Seen) -> Iterator[Metric]:
        yield version("builder_info", __version__)
        yield from self._platforms(seen)
        yield from self._builds()
        yield from self._uploads(seen)
        yield from self._server(seen)
        yield from self._farm(seen)

    def _platforms(self, seen: _Seen) -> Iterator[Metric]:
        queued = gauge("builder_queue_entries", "Entries of a queue that may run now.", "platform")
        held = gauge(
            "builder_queue_held_entries", "Entries that are paused or drained, or wait for a time.", "platform"
        )
        oldest = gauge("builder_queue_oldest_seconds", "For how long the oldest entry has been due.", "platform")
        running = gauge("builder_builds_running", "Builds that run.", "platform")
        workers = gauge("builder_workers", "Workers that are connected.", "platform", "state")
        connected = self.attempts.connected()
        for each in seen.platforms:
            name = _label(each.name)
            is_drained = self.store.waking.is_halted(self.store.owner, each.name, worker="")
            queued.add_metric([name], 0 if is_drained else each.ready)
            held.add_metric([name], each.held + (each.ready if is_drained else 0))
            oldest.add_metric([name], 0 if is_drained else each.waited / 1000)
            running.add_metric([name], each.running)
            for state in STATES:
                workers.add_metric([name, state], connected[each.name, state])
        drained = gauge("builder_drained", "What gets no jobs: the server, platforms, workers.", "scope")
        halted = Counter(target.scope for target in self.store.waking.halts)
        for scope in Scope:
            drained.add_metric([scope.value], halted[scope])
        yield from (queued, held, oldest, running, workers, drained)

    def _builds(self) -> Iterator[Metric]:
        done = self.attempts.recorder.done
        builds = CounterMetricFamily(
            "builder_builds", "Builds that ended, by what became of them.", labels=["platform", "outcome"]
        )
        for (platform, outcome), count in done.builds.items():
            builds.add_metric([_label(platform), outcome.value], count)
        yield builds
        yield CounterMetricFamily("builder_console_bytes", "Bytes of consoles written.", value=done.console_bytes)
        yield CounterMetricFamily("builder_artifact_bytes", "Bytes of artifacts written.", value=done.artifact_bytes)
        yield histogram(
            "builder_dispatch_seconds",
            "From when there was a job and a worker for it until it was taken.",
            self.attempts.dispatcher.latency,
        )

    def _uploads(self, seen: _Seen) -> Iterator[Metric]:
        pending = gauge("builder_uploads_pending", "Builds that a receiver is still to get.", "receiver")
        refused = gauge("builder_uploads_refused", "Builds that a receiver has refused.", "receiver")
        oldest = gauge("builder_uploads_oldest_seconds", "For how long the oldest of them waits.", "receiver")
        attempts = CounterMetricFamily(
            "builder_uploads", "Attempts to upload, by what came of them.", labels=["receiver", "result"]
        )
        known = set(self.uploader.names)
        for state in seen.receivers:
            if state.name in known:
                pending.add_metric([state.name], state.pending)
                refused.add_metric([state.name], state.refused)
                waits = seen.now.ms - state.oldest.ms if state.oldest else 0
                oldest.add_metric([state.name], max(0, waits) / 1000)
        for name in self.uploader.names:
            for outcome, word in _UPLOADS.items():
                attempts.add_metric([name, word], self.uploader.attempted[name, outcome])
        yield from (pending, refused, oldest, attempts)

    def _farm(self, seen: _Seen) -> Iterator[Metric]:
        alive = gauge("builder_server_alive", "Whether a server that works on the database lives.", "server")
        keeps = gauge("builder_server_keeps_schedule", "Whether it is the one that queues what is due.", "server")
        for each in seen.servers:
            alive.add_metric([_label(each.name)], each.is_alive)
            keeps.add_metric([_label(each.name)], each.is_alive and each.keeps_schedule)
        yield from (alive, keeps)

    def _server(self, seen: _Seen) -> Iterator[Metric]:
        connections = self.connections
        yield GaugeMetricFamily("builder_connections", "Open connections.", value=connections.number)
        yield GaugeMetricFamily("builder_connections_limit", "Most connections at once.", value=connections.limit)
        yield GaugeMetricFamily("builder_watchers", "Clients that watch.", value=self.store.waking.changes.watchers)
        yield CounterMetricFamily("builder_received_bytes", "Bytes received from peers.", value=self.memory.received)
        if seen.room:
            yield GaugeMetricFamily("builder_disk_free_bytes", "Free for builds.", value=seen.room.free)
            yield GaugeMetricFamily(
                "builder_disk_needed_bytes", "With less free no job is handed out.", value=seen.room.wanted
            )
        yield histogram(
            "builder_commit_seconds", "For how long changes are written to the disk.", self.store.database.commits
        )
        expiry = gauge("builder_certificate_expiry_timestamp_seconds", "When a certificate expires.", "name")
        signing = gauge(
            "builder_signing_key_expiry_timestamp_seconds", "When the last of the keys expires that sign builds.", "id"
        )
        found = sorted(self.expiring(), key=lambda each: each.expires)
        for each in [each for each in found if not each.is_key][:MAX_CERTIFICATES]:
            expiry.add_metric([_label(each.name)], each.expires.ms / 1000)
        for each in found:
            if each.is_key:
                signing.add_metric([_label(each.name)], each.expires.ms / 1000)
        yield expiry
        yield signing


def _label(name: str) -> str:
    """Return a name as a label shows it: no two become one, which would be two values of one series."""
    return printable(name.replace("\\", "\\\\"))
