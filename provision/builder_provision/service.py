"""builder-provision as a program: who lives how long."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import trio
from attrs import field, frozen

from builder.endpoint import Servers
from builder.errors import BuilderError
from builder.extension.watching import Changed, LookAgain, What
from builder.runtime import scraping, service
from builder.runtime.files import lock_directory
from builder.runtime.nurseries import plain_nursery
from builder.runtime.shutdown import Shutdown, outlive_hangups
from builder_provision import link
from builder_provision.configuration import EngineSettings, Fleet
from builder_provision.engines import Engine
from builder_provision.errors import InUse
from builder_provision.keeper import LONGEST_PAUSE, PAUSE, Keeper
from builder_provision.ledger import Ledger

log = logging.getLogger(__name__)

NEWS = frozenset({What.QUEUED, What.FINISHED, What.REMOVED, What.RESUMED, What.WORKER_WENT})
"""Changes after which more or fewer workers may be needed."""


@frozen(kw_only=True)
class Settings:
    """What an operator decides. ``now`` is the wall clock, in seconds since the epoch."""

    servers: Servers
    fleet: Fleet
    directory: Path
    """Where is remembered what the engines do not know."""
    metrics: tuple[str, int] | None = None
    pause: float = PAUSE
    now: Callable[[], float] = field(default=time.time)


async def serve(settings: Settings, announce: Callable[[list[str]], None]) -> None:
    """Work until SIGTERM or SIGINT: workers that were asked for stay. Raises InUse, UnreadableLedger and OSError for the directory."""
    shutdown = Shutdown()
    with _locked(settings.directory), shutdown.requested_by_signals():
        keepers = [await _keeper(name, settings) for name in settings.fleet.engines if _platforms(name, settings)]
        async with plain_nursery() as nursery:
            nursery.start_soon(outlive_hangups, "nothing is read again; a restart loses no worker")
            nursery.start_soon(_watch, settings, keepers)
            for keeper in keepers:
                nursery.start_soon(keeper.run)
            if settings.metrics is not None:
                await _show_metrics(settings.metrics, keepers, shutdown, nursery)
            announce(list(settings.fleet.platforms))
            service.notify("READY=1")
            await shutdown.requested.wait()
            service.notify("STOPPING=1")
            nursery.cancel_scope.cancel()


def _platforms(engine: str, settings: Settings) -> list[str]:
    return [name for name, each in settings.fleet.platforms.items() if each.engine == engine]


async def _keeper(name: str, settings: Settings) -> Keeper:
    path = settings.directory / f"{name}.json"
    return Keeper(
        name=name,
        label=settings.fleet.label,
        engine=open_engine(settings.fleet.engines[name], settings.fleet.label),
        platforms={platform: settings.fleet.platforms[platform] for platform in _platforms(name, settings)},
        pods=settings.fleet.pods,
        servers=settings.servers,
        ledger=await trio.to_thread.run_sync(Ledger.load, path),
        now=settings.now,
        pause=settings.pause,
    )


def open_engine(settings: EngineSettings, label: str) -> Engine:
    """Return an engine. Raises InvalidFleet for one that can't be reached as it is described."""
    match settings.kind:
        case "slurm":
            from builder_provision.engines.slurm import Slurm

            return Slurm(label=label)
        case "command":
            from builder_provision.engines.command import Commands

            return Commands(label=label, ask_words=settings.ask, list_words=settings.list, remove_words=settings.remove)
        case _:
            from builder_provision.engines.kubernetes import Kubernetes

            return Kubernetes.of(settings, label)


async def _watch(settings: Settings, keepers: list[Keeper]) -> None:
    """Wake whoever has something to do, through breaks of the connection."""

    def tell(change: Changed | LookAgain) -> None:
        for keeper in keepers:
            for platform, arrivals in keeper.arrivals.items():
                if isinstance(change, LookAgain) or (change.what is What.BEGUN and change.platform == platform):
                    arrivals.begin()
            if isinstance(change, LookAgain) or (
                change.what in NEWS and (change.platform is None or change.platform in keeper.platforms)
            ):
                keeper.changed.announce()

    pause, trouble = settings.pause, ""
    while True:
        begun = trio.current_time()
        try:
            await link.watch(settings.servers, tell)
        except BuilderError as error:
            if str(error) != trouble:
                log.warning("%s", error)
                trouble = str(error)
        pause = settings.pause if trio.current_time() - begun > LONGEST_PAUSE else min(2 * pause, LONGEST_PAUSE)
        await trio.sleep(pause)


async def _show_metrics(
    where: tuple[str, int], keepers: list[Keeper], shutdown: Shutdown, nursery: trio.Nursery
) -> None:
    from builder_provision.metrics import ProvisionMetrics  # its library is for those who want it

    metrics = ProvisionMetrics(keepers=keepers, is_ready=lambda: not shutdown.requested.is_set())
    await scraping.show(metrics.pages(), *where, nursery)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the directory for what has to be remembered. Raises InUse."""
    try:
        descriptor = lock_directory(directory)
    except OSError as error:
        raise InUse(f"can't use {directory}: {error.strerror}; make it, or name another one with --state") from error
    if descriptor is None:
        raise InUse(f"another builder-provision uses {directory}")
    try:
        yield
    finally:
        os.close(descriptor)
