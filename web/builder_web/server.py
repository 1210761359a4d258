"""The site as a program: who lives how long."""

import datetime as dt
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
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
from builder.runtime import service, sockets
from builder.runtime.files import lock_directory
from builder.runtime.nurseries import plain_nursery
from builder.runtime.shutdown import Shutdown
from builder_web import application
from builder_web.access import Access
from builder_web.aftermath import Aftermath
from builder_web.directory import DataDirectory
from builder_web.hooks import Hooks
from builder_web.pages.links import Links
from builder_web.receiving.recording import Recorder
from builder_web.store import users
from builder_web.store.store import Store
from builder_web.views.site import Options, Site

GRACE = 10.0
"""Seconds that requests may take to end when the program stops."""


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
                aftermath = Aftermath(
                    directory, Hooks(configuration=settings.configuration.absolute(), directory=directory)
                )
                nursery.start_soon(aftermath.run)
                recorder = Recorder(directory, store, aftermath.begin)
                await recorder.recover()
                site = make_site(directory, store, recorder, settings)
                async with plain_nursery() as connections:
                    serve_site = partial(
                        serve_http,
                        cast("Framework", application.make(site)),
                        _configuration(_listen(settings)),
                        shutdown_trigger=shutdown.requested.wait,
                    )
                    announce(await connections.start(serve_site))
                    service.notify("READY=1")
                    await shutdown.requested.wait()
                    service.notify("STOPPING=1")
                    _end_at_last()
                nursery.cancel_scope.cancel()
        finally:
            store.close()


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
        ),
        links=Links(prefix=settings.prefix),
        now=now,
    )


def _end_at_last() -> None:
    """End the process some time after it began to stop, whatever it waits for: a peer that reads nothing, for one.

    Nothing is lost by that: what is half done is taken back at the next start, as after a crash.
    """
    timer = threading.Timer(GRACE + 5, os._exit, [0])
    timer.daemon = True
    timer.start()


def _listen(settings: Settings) -> list[socket.socket]:
    """Return sockets that listen on all addresses of all hosts. Raises StartError."""
    listeners: list[socket.socket] = []
    try:
        for host in settings.hosts:
            # with 0 the first takes a free one, and the others the same
            port = settings.port or (listeners[0].getsockname()[1] if listeners else 0)
            for family, kind, protocol, _, address in socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            ):
                listener = socket.socket(family, kind, protocol)
                listeners.append(listener)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                # connections have these from the socket that accepts them
                sockets.tune(listener)
                sockets.bound_unsent(listener)
                listener.bind(address)
    except OSError as error:
        for listener in listeners:
            listener.close()
        raise StartError(f"can't listen on {host} port {settings.port}: {error.strerror}") from error
    return listeners


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


def _configuration(listeners: Sequence[socket.socket]) -> Config:
    config = Config()
    config.bind = [f"fd://{listener.detach()}" for listener in listeners]
    config.graceful_timeout = GRACE
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = None
    return config
