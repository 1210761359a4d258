"""The site as a program: who lives how long."""

import datetime as dt
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import trio
from attrs import frozen
from starlette.types import ASGIApp

from builder.errors import BuilderError
from builder.model import Instant
from builder.provenance.keys import PublicKey
from builder.runtime import scraping, service
from builder.runtime.files import lock_directory
from builder.runtime.nurseries import plain_nursery
from builder.runtime.seats import Seat
from builder.runtime.shutdown import Shutdown, outlive_hangups
from builder_web import application, drawings
from builder_web.access import Access
from builder_web.aftermath import Aftermath
from builder_web.directory import DataDirectory
from builder_web.hooks import Hooks
from builder_web.pages.links import Links
from builder_web.receiving.recording import Recorder
from builder_web.serving.access_log import AccessLog, Answered
from builder_web.serving.connection import HttpConnection
from builder_web.serving.forwarding import Forwarding, Network
from builder_web.serving.listening import accept, listen, url_of
from builder_web.store import users
from builder_web.store.removal import Policy
from builder_web.store.store import Store
from builder_web.vacuum import vacuum_daily
from builder_web.views.site import Options, Site

log = logging.getLogger(__name__)

GRACE = 8.0
"""Seconds that requests may take to end when the program stops; the process is to be gone within 10."""

LAST_WAIT = 3.0
"""Seconds of these for which whoever has the database locked is waited for."""


class StartError(BuilderError):
    """The program can't start; the text says why."""

    exit_code = 3


@frozen(kw_only=True)
class Settings:
    """What an operator decides."""

    hosts: tuple[str, ...]
    port: int
    directory: Path
    configuration: Path
    expired_days: int = 30
    """0: jobs do not expire."""
    max_upload: int = 16 * 1024**3
    """Bytes."""
    prefix: str = ""
    """The path below which a proxy has this program, without a slash at its end."""
    trusted_proxies: tuple[Network, ...] = ()
    """Where those are whose X-Forwarded-… headers are believed."""
    keys: tuple[PublicKey, ...] = ()
    """What provenance is verified with."""
    vacuum: Policy | None = None
    """What is kept, once a day; None: everything."""
    metrics: tuple[str, int] | None = None
    """Where metrics are shown."""


def wall_clock() -> Instant:
    """Return the time: the one place where it is read."""
    return Instant(time.time_ns() // 1_000_000)


async def serve(settings: Settings, announce: Callable[[list[str]], None]) -> None:
    """Serve until SIGTERM or SIGINT. ``announce`` is told the addresses once they accept connections."""
    directory = DataDirectory(settings.directory.absolute())
    shutdown = Shutdown()
    with _locked(directory), shutdown.requested_by_signals():
        store = Store.open(directory)
        try:
            async with plain_nursery() as nursery:
                nursery.start_soon(store.database.run)
                nursery.start_soon(
                    outlive_hangups, "nothing to read again, options are read at the start and hooks for each upload"
                )
                hooks = Hooks(configuration=settings.configuration.absolute(), directory=directory)
                aftermath = Aftermath(store, directory, hooks)
                recorder = Recorder(directory, store, aftermath.begin)
                await recorder.recover()
                await trio.to_thread.run_sync(drawings.remove_parts, directory)
                nursery.start_soon(aftermath.run)
                if settings.vacuum is not None:
                    nursery.start_soon(vacuum_daily, store, directory, settings.vacuum, wall_clock)
                site = make_site(directory, store, recorder, settings)
                answered = Answered()
                if settings.metrics is not None:
                    await _show_metrics(settings.metrics, site, answered, shutdown, nursery)
                served = make_application(site, settings, answered)
                await _serve_connections(served, settings, shutdown, store, announce)
                nursery.cancel_scope.cancel()  # last: whoever ended had something to record
        finally:
            store.close()


async def _show_metrics(
    where: tuple[str, int], site: Site, answered: Answered, shutdown: Shutdown, nursery: trio.Nursery
) -> None:
    from builder_web.metrics import SiteMetrics  # its library is for those who want it

    metrics = SiteMetrics(
        store=site.store,
        directory=site.directory,
        recorder=site.recorder,
        answered=answered,
        is_ready=lambda: not shutdown.requested.is_set(),
    )
    await scraping.show(metrics.pages(), *where, nursery)


async def _serve_connections(
    served: ASGIApp, settings: Settings, shutdown: Shutdown, store: Store, announce: Callable[[list[str]], None]
) -> None:
    listeners = listen(settings.hosts, settings.port)
    addresses = [url_of(listener) for listener in listeners]

    async def serve_one(stream: trio.SocketStream, seat: Seat) -> None:
        await HttpConnection(served, stream, seat, shutdown).run()

    async with plain_nursery() as connections:
        async with plain_nursery() as accepting:
            accepting.start_soon(accept, listeners, serve_one, connections)
            announce(addresses)
            service.notify("READY=1")
            await shutdown.requested.wait()
            service.notify("STOPPING=1")
            accepting.cancel_scope.cancel()
        connections.cancel_scope.deadline = trio.current_time() + GRACE
        store.database.limit_waits(LAST_WAIT)


def make_application(site: Site, settings: Settings, answered: Answered | None = None) -> ASGIApp:
    """Return what connections are served by."""
    logged = AccessLog(application.make(site), answered or Answered())
    return Forwarding(logged, trusted=settings.trusted_proxies, prefix=settings.prefix)


def make_site(
    directory: DataDirectory,
    store: Store,
    recorder: Recorder,
    settings: Settings,
    *,
    now: Callable[[], Instant] = wall_clock,
) -> Site:
    """Return what the addresses share."""
    return Site(
        directory=directory,
        store=store,
        access=Access(lambda name: store.ask(users.find, name), trio.current_time),
        recorder=recorder,
        options=Options(
            expired_after=dt.timedelta(days=settings.expired_days) if settings.expired_days else None,
            max_upload=settings.max_upload,
            keys=settings.keys,
        ),
        links=Links(prefix=settings.prefix),
        now=now,
    )


@contextmanager
def _locked(directory: DataDirectory) -> Iterator[None]:
    """Hold the data directory. Raises StartError if another builder-web does."""
    try:
        descriptor = lock_directory(directory.root)
    except OSError as error:
        raise StartError(
            f"can't use the data directory {directory.root}: {error.strerror}; name one with --datadir"
        ) from error
    if descriptor is None:
        raise StartError(f"another builder-web uses {directory.root}")
    try:
        yield
    finally:
        os.close(descriptor)
