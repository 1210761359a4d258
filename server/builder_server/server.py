"""The server as a whole: who lives how long, and who is told of what."""

import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import trio
from attrs import define, field, frozen

from builder.address import format_address
from builder.errors import BuilderError, ConnectionEnded
from builder.extension import VERSION, Welcome
from builder.extension.working import Alive, AskJob, Return
from builder.framing import StreamedFrame
from builder.messages import Hello, JobRequested, Message, ServerHello
from builder.model import Instant, printable
from builder.reasons import reason_of
from builder.runtime import entry, service
from builder.runtime.files import lock
from builder.runtime.nurseries import plain_nursery
from builder.runtime.shutdown import Shutdown, ShuttingDown
from builder.runtime.sockets import bound_unsent, tune
from builder_server import backups
from builder_server.aside import Replies
from builder_server.attempts import Attempts
from builder_server.clients import ClientSession
from builder_server.connections import Connections, Place, connections_for_descriptors
from builder_server.dispatch import Dispatcher
from builder_server.importer import Imported, import_builds, import_state
from builder_server.informer import Informer
from builder_server.keeper import Keeper
from builder_server.looks import Looks
from builder_server.memory import Memory, SharingChannel, return_large_blocks
from builder_server.names import DATABASE, LOCK
from builder_server.peers import IDLE_TIMEOUT, STEP_TIMEOUT
from builder_server.receiver import receivers_at
from builder_server.recorder import Recorder
from builder_server.retention import Retention
from builder_server.store import Store
from builder_server.ticker import Ticker
from builder_server.upload import Uploader, UploadTiming
from builder_server.workers import WorkerSession
from builder_server.working import WorkingSession

logger = logging.getLogger(__name__)

SHUTDOWN_TIMEOUT = 8.0
"""Seconds that what is being written has to finish; the process is to be gone within 10."""

LAST_WAIT = 3.0
"""Seconds of these for which whoever has the database locked is waited for."""

MAX_THREADS = 8
"""Threads that wait for the disk: more make it no faster, and each takes 64 MiB of address space for a heap."""


class StartError(BuilderError):
    """The server can't start: its directory is not there, in use, or its address can't be had."""

    exit_code = 3


@frozen(kw_only=True)
class Settings:
    """What an operator decides. ``upload`` are URLs, with passwords; ``job_timeout`` and ``grace`` are in seconds, ``min_free``
    in bytes.
    """

    addresses: tuple[str, ...]
    port: int
    data_dir: Path
    config_dir: Path
    upload: tuple[str, ...]
    job_timeout: float
    grace: float
    min_free: int | None = None
    keep: Retention = field(factory=Retention)


def wall_clock() -> Instant:
    """Return the time: the one place where it is read."""
    return Instant(time.time_ns() // 1_000_000)


def up_time() -> float:
    """Return seconds that nobody sets: those since the machine was started, on Linux with those in which it slept."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


async def serve(
    settings: Settings, announce: Callable[[list[str]], None], *, now: Callable[[], Instant] = wall_clock
) -> None:
    """Run the server until SIGTERM or SIGINT. ``announce`` is told the addresses once they accept connections."""
    connections = Connections(connections_for_descriptors())
    trio.to_thread.current_default_thread_limiter().total_tokens = MAX_THREADS
    return_large_blocks()
    with _locked(settings.data_dir):
        backups.check_whole(settings.data_dir)
        store = Store.open(settings.data_dir / DATABASE)
        try:
            async with plain_nursery() as nursery:
                nursery.start_soon(store.run)
                nursery.start_soon(_outlive_hangups)
                await _Server.make(settings, store, now, connections).run(announce)
                nursery.cancel_scope.cancel()  # last: whoever ended had something to record
        finally:
            store.close()


def migrate(data_dir: Path, revision: str) -> None:
    """Bring the database of a server that does not run to a revision. Raises StartError and StoreError."""
    with _locked(data_dir):
        Store.migrate(data_dir / DATABASE, revision)


def restore(data_dir: Path, source: Path) -> None:
    """Bring a backup back to a directory in which no server runs. Raises StartError, StoreError and BackupFailed."""
    data_dir.mkdir(exist_ok=True)
    _check_owner(data_dir)
    with _locked(data_dir):
        backups.read(data_dir, source)


def _check_owner(data_dir: Path) -> None:
    """See that what is written is its server's, too. Raises StartError."""
    try:
        owner = data_dir.stat().st_uid
    except FileNotFoundError:
        return
    if os.geteuid() == 0 != owner:
        raise StartError(f"{data_dir} belongs to user {owner}: run this as that user, with runuser -u NAME --")


async def import_left(data_dir: Path, *, upload: bool) -> Imported:
    """Take over what the original has left in a directory in which no server runs.

    Raises StartError, StoreError and ImportFailed.
    """
    _check_owner(data_dir)
    with _locked(data_dir):
        backups.check_whole(data_dir)
        store = Store.open(data_dir / DATABASE)
        try:
            async with plain_nursery() as nursery:
                nursery.start_soon(store.run)
                await import_state(store, data_dir)  # only a new database takes it
                found = await import_builds(store, data_dir, upload=upload)
                nursery.cancel_scope.cancel()
        finally:
            store.close()
    return found


async def _outlive_hangups() -> None:
    """Say what a SIGHUP does here: nothing, and it ends nothing either."""
    with trio.open_signal_receiver(signal.SIGHUP) as signals:
        entry.deliver()
        async for _ in signals:
            logger.info("SIGHUP: nothing to read again, options are read at the start and templates for each job")


@contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    """Hold the data directory. Raises StartError if another server does."""
    try:
        file = (data_dir / LOCK).open("w")
    except OSError as error:
        raise StartError(
            f"can't use the data directory {data_dir}: {error.strerror}; create it, or name another with --dir"
        ) from error
    with file:
        try:
            taken = lock(file.fileno())
        except OSError as error:
            raise StartError(f"can't lock {data_dir}: {error.strerror}") from error
        if not taken:
            raise StartError(f"another server uses {data_dir}")
        yield


@define(eq=False)
class _Server:
    _settings: Settings
    _store: Store
    _informer: Informer
    _looks: Looks
    _now: Callable[[], Instant]
    _attempts: Attempts
    _ticker: Ticker
    _uploader: Uploader
    _keeper: Keeper
    _connections: Connections
    _memory: Memory
    _shutdown: Shutdown = field(factory=Shutdown)

    @classmethod
    def make(cls, settings: Settings, store: Store, now: Callable[[], Instant], connections: Connections) -> "_Server":
        dispatcher = Dispatcher(store, settings.data_dir, settings.config_dir, settings.min_free)
        receivers = receivers_at(settings.upload, os.environ)
        uploader = Uploader(store, settings.data_dir, receivers, UploadTiming(now=now))
        recorder = Recorder(
            store=store,
            data_dir=settings.data_dir,
            now=now,
            receivers=uploader.names,
            on_recorded=uploader.wake,
        )
        attempts = Attempts(
            dispatcher=dispatcher, recorder=recorder, time_limit=settings.job_timeout, grace=settings.grace
        )
        ticker = Ticker(store, now, up_time)
        keeper = Keeper(store, settings.data_dir, now, settings.keep)
        memory = Memory(Replies(settings.data_dir))
        informer, looks = Informer(store, memory), Looks(store, dispatcher, memory, now)
        return cls(settings, store, informer, looks, now, attempts, ticker, uploader, keeper, connections, memory)

    async def run(self, announce: Callable[[list[str]], None]) -> None:
        await import_state(self._store, self._settings.data_dir)
        async with plain_nursery() as background:
            background.start_soon(self._ticker.run)
            background.start_soon(self._uploader.run)
            background.start_soon(self._keeper.run)
            await self._store.recall_halts()
            async with self._attempts.running():
                await self._attempts.recover()
                await self._serve_peers(await _listen(self._settings), announce)
            background.cancel_scope.cancel()

    async def _serve_peers(self, listeners: list[trio.SocketListener], announce: Callable[[list[str]], None]) -> None:
        """Serve until a signal comes; then accept nobody, have all end, and cut off those that have not by the deadline."""
        with self._shutdown.requested_by_signals():
            async with plain_nursery() as sessions, plain_nursery() as accepting:
                accepting.start_soon(
                    partial(trio.serve_listeners, self._serve_connection, listeners, handler_nursery=sessions)
                )
                announce([format_address(*listener.socket.getsockname()[:2]) for listener in listeners])
                service.notify("READY=1")
                await self._shutdown.requested.wait()
                service.notify("STOPPING=1")
                accepting.cancel_scope.cancel()
                self._store.limit_waits(LAST_WAIT)
                self._attempts.stop()
                sessions.cancel_scope.deadline = trio.current_time() + SHUTDOWN_TIMEOUT

    async def _serve_connection(self, stream: trio.SocketStream) -> None:
        """Serve one peer. Whatever it does, or goes wrong with it, ends here."""
        peer = "unknown"
        try:
            async with stream:
                peer = format_address(*stream.socket.getpeername()[:2])
                tune(stream)
                bound_unsent(stream)
                channel = SharingChannel(stream, self._memory)
                with self._connections.place() as place, channel.sharing():
                    await self._serve_peer(channel, peer, place)
        except ShuttingDown:
            pass
        except trio.TooSlowError:
            logger.warning("%s: closed, it was silent for too long", peer)
        except (BuilderError, trio.BrokenResourceError, OSError) as error:
            logger.warning("%s: closed: %s", peer, printable(reason_of(error)))
        except Exception:
            # a fault of ours, told in full; but the other peers must not pay for it
            logger.exception("%s: internal error", peer)

    async def _serve_peer(self, channel: SharingChannel, peer: str, place: Place) -> None:
        with place.until_asked(), self._shutdown.interruptible():
            with trio.fail_after(STEP_TIMEOUT):
                hello = await channel.receive_expected(Hello)
                is_ours = hello.version >= VERSION
                await channel.send(Welcome(version=VERSION) if is_ours else ServerHello())
            place.greet()
            with trio.fail_after(STEP_TIMEOUT):
                request = await _receive_request(channel)
        if isinstance(request, JobRequested):
            with self._connections.staying():
                await WorkerSession(channel, peer, self._attempts).serve(request.platform)
            return
        if isinstance(request, AskJob | Return):
            working = WorkingSession(channel, peer, self._attempts)
            with self._connections.staying():
                goes_on = await working.serve(request)
            while goes_on and (following := await self._next_request(channel, place)):
                with self._connections.staying():
                    goes_on = await working.serve(following)
            return
        session = ClientSession(
            channel,
            peer,
            self._store,
            self._informer,
            self._looks,
            self._uploader,
            self._attempts,
            self._connections,
            self._shutdown,
            self._now,
        )
        await session.serve(request)
        while is_ours and (following := await self._next_request(channel, place)):
            await session.serve(following)

    async def _next_request(self, channel: SharingChannel, place: Place) -> Message | StreamedFrame | None:
        """Return what a peer of ours wants next, None if that is nothing."""
        with place.until_asked(), self._shutdown.interruptible(), trio.fail_after(IDLE_TIMEOUT):
            place.greet()  # it said hello long ago
            try:
                return await _receive_request(channel)
            except ConnectionEnded:
                return None  # it has asked for all that it wanted


async def _receive_request(channel: SharingChannel) -> Message | StreamedFrame:
    while isinstance(request := await channel.receive(), Alive):
        pass  # it may have been said before the end of an attempt was known
    return request


async def _listen(settings: Settings) -> list[trio.SocketListener]:
    listeners: list[trio.SocketListener] = []
    for address in settings.addresses:
        try:
            for host in await _resolve(address):
                # all addresses share the port, also a free one that the first of them was given
                port = settings.port or (listeners[0].socket.getsockname()[1] if listeners else 0)
                listeners += await trio.open_tcp_listeners(port, host=host)
        except (OSError, ValueError, UnicodeError) as error:
            for listener in listeners:
                await listener.aclose()
            raise StartError(f"can't listen on {format_address(address, settings.port)}: {reason_of(error)}") from error
    return listeners


async def _resolve(address: str) -> list[str]:
    """Return the addresses of a host name, or the one that was given. Raises OSError and UnicodeError."""
    found = await trio.socket.getaddrinfo(address, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys(socket.getnameinfo(info[4], socket.NI_NUMERICHOST)[0] for info in found))
