"""The site as a program: who lives how long."""

import datetime as dt
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import cast

import trio
import trio.lowlevel
from attrs import frozen
from hypercorn.config import Config
from hypercorn.trio import serve as serve_http
from hypercorn.typing import Framework

from builder.errors import BuilderError
from builder.model import Instant
from builder.runtime import service
from builder.runtime.files import lock_directory
from builder.runtime.nurseries import plain_nursery
from builder.runtime.shutdown import Shutdown
from builder_web import application, hooks
from builder_web.access import Access
from builder_web.directory import DataDirectory
from builder_web.hooks import Hooks
from builder_web.pages.links import Links
from builder_web.receiving.recording import Recorder
from builder_web.store import users
from builder_web.store.records import NewBuild
from builder_web.store.store import Store
from builder_web.views.site import Options, Site

GRACE = 10.0
"""Seconds that requests may take to end when the program stops."""

_HOOKS_WAITING = 10_000
_HOOKS_AT_ONCE = 2


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
    expired_days: int
    """0: jobs do not expire."""
    max_upload: int
    """Bytes."""


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
                begin, run_hooks = _hooks(Hooks(configuration=settings.configuration.absolute(), directory=directory))
                nursery.start_soon(run_hooks)
                recorder = Recorder(directory, store, begin)
                await recorder.recover()
                site = Site(
                    directory=directory,
                    store=store,
                    access=Access(lambda name: store.ask(users.find, name), trio.current_time),
                    recorder=recorder,
                    options=Options(
                        expired_after=dt.timedelta(days=settings.expired_days) if settings.expired_days else None,
                        max_upload=settings.max_upload,
                    ),
                    links=Links(),
                    now=wall_clock,
                )
                addresses = await nursery.start(
                    partial(
                        serve_http,
                        cast("Framework", application.make(site)),
                        _configuration(settings),
                        shutdown_trigger=shutdown.requested.wait,
                    )
                )
                announce(addresses)
                service.notify("READY=1")
                await shutdown.requested.wait()
                service.notify("STOPPING=1")
                await trio.lowlevel.checkpoint()
                nursery.cancel_scope.deadline = trio.current_time() + GRACE
                nursery.cancel_scope.cancel()
        finally:
            store.close()


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


def _configuration(settings: Settings) -> Config:
    config = Config()
    config.bind = [f"[{host}]:{settings.port}" if ":" in host else f"{host}:{settings.port}" for host in settings.hosts]
    config.graceful_timeout = GRACE
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = None
    return config


def _hooks(found: Hooks) -> tuple[Callable[[NewBuild], None], Callable[[], Awaitable[None]]]:
    """Return what takes a build for its hooks, and what runs them, a few at once, until cancelled."""
    send, receive = trio.open_memory_channel[NewBuild](_HOOKS_WAITING)

    def begin(build: NewBuild) -> None:
        try:
            send.send_nowait(build)
        except trio.WouldBlock:
            hooks.log.error("no hooks are run for build %s: %d wait already", build.uuid, _HOOKS_WAITING)

    async def work() -> None:
        async for build in receive.clone():
            for path in await trio.to_thread.run_sync(found.find, build):
                await hooks.run(path, found.arguments(build))

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(_HOOKS_AT_ONCE):
                nursery.start_soon(work)

    return begin, run
