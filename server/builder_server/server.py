"""The server as a whole: who lives how long, and who is told of what."""

import logging
import os
import platform
import secrets
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from ssl import SSLContext
from typing import TYPE_CHECKING
from urllib.parse import quote
from uuid import uuid4

import trio
from attrs import define, field, frozen

from builder import __version__
from builder.errors import BuilderError, ConnectionEnded
from builder.extension import VERSION, Welcome
from builder.extension.working import Alive, AskJob, Return
from builder.framing import StreamedFrame
from builder.messages import Hello, JobRequested, Message, ServerHello
from builder.model import Instant
from builder.reasons import reason_of
from builder.runtime import scraping, service
from builder.runtime.logs import note
from builder.runtime.nurseries import plain_nursery
from builder.runtime.shutdown import Shutdown, ShuttingDown, outlive_hangups
from builder.runtime.sockets import bound_unsent, tune
from builder.runtime.tls import TlsFiles
from builder_server import backups, crews, listening
from builder_server.aside import Replies
from builder_server.attempts import Attempts
from builder_server.attesting import Signer
from builder_server.certified import Certificates
from builder_server.clients import ClientSession
from builder_server.connections import Connections, NoPlace, Place, connections_for_descriptors
from builder_server.dispatch import Dispatcher
from builder_server.expiry import Expiry
from builder_server.farm import Farm
from builder_server.handshakes import why
from builder_server.importer import import_state
from builder_server.informer import Informer
from builder_server.keeper import Keeper
from builder_server.keyring import Keyring
from builder_server.limits import ServerLimits
from builder_server.listening import Listener, Listening, Refusals, Stream
from builder_server.looks import Looks
from builder_server.membership import ServerMembership
from builder_server.memory import Memory, SharingChannel, return_large_blocks
from builder_server.names import REVOKED
from builder_server.peers import IDLE_TIMEOUT, STEP_TIMEOUT
from builder_server.permission import Peer
from builder_server.provisions import Provisions
from builder_server.receiver import receivers_at
from builder_server.recorder import Recorder
from builder_server.retention import Retention
from builder_server.served import held, note_elsewhere, place_of
from builder_server.store import ServerIdentity, Store
from builder_server.ticker import Ticker
from builder_server.upload import Uploader, UploadTiming
from builder_server.upstream import Upstreams
from builder_server.workers import WorkerSession
from builder_server.working import WorkingSession

if TYPE_CHECKING:
    from builder.runtime.postgres import Location  # its library need not be there

logger = logging.getLogger(__name__)

SHUTDOWN_TIMEOUT = 8.0
"""Seconds that what is being written has to finish; the process is to be gone within 10."""

LAST_WAIT = 3.0
"""Seconds of these for which whoever has the database locked is waited for."""

MAX_THREADS = 8
"""Threads that wait for the disk: more make it no faster, and each takes 64 MiB of address space for a heap."""


READ_AGAIN = "nothing to read again, options are read at the start and templates for each job"

DEFAULT_ID = f"urn:builder:server:{quote(platform.node() or 'localhost')}"
"""The URI of a server in what it signs, if its operator names none."""


@frozen(kw_only=True)
class Settings:
    """What an operator decides. ``upload`` are URLs, with passwords; ``job_timeout`` and ``grace`` are in seconds, ``min_free``
    in bytes.
    """

    listening: Listening
    limits: ServerLimits = field(factory=ServerLimits)
    tls: TlsFiles | None = None
    crl: Path | None = None
    """Those that are revoked; None stands for crl.pem beside the authorities, where that is there."""
    data_dir: Path
    database: "Location | None" = None
    """Where it is if it is not in ``data_dir``."""
    name: str | None = None
    """What other servers on its database call it; None stands for what they did before, or the name of the machine."""
    address: str | None = None
    """Where they reach it."""
    config_dir: Path
    upload: tuple[str, ...] = field(repr=False)
    job_timeout: float
    grace: float
    min_free: int | None = None
    keep: Retention = field(factory=Retention)
    metrics: tuple[str, int] | None = None
    builder_id: str = DEFAULT_ID


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
    connections = Connections(
        connections_for_descriptors(settings.limits.connections), settings.limits.connections_per_holder
    )
    trio.to_thread.current_default_thread_limiter().total_tokens = MAX_THREADS
    return_large_blocks()
    with held(settings.data_dir):
        backups.check_whole(settings.data_dir)
        certificates = _certificates(settings, now)
        store = Store.open(*place_of(settings.data_dir, settings.database, settings.name))
        store.limits = settings.limits
        try:
            async with plain_nursery() as nursery:
                nursery.start_soon(store.run)
                nursery.start_soon(outlive_hangups, READ_AGAIN)
                await _Server.make(settings, store, now, connections, certificates).run(announce)
                nursery.cancel_scope.cancel()  # last: whoever ended had something to record
        finally:
            store.close()


@define(eq=False)
class _Server:
    _settings: Settings
    _store: Store
    _informer: Informer
    _looks: Looks
    _now: Callable[[], Instant]
    _attempts: Attempts
    _farm: Farm
    _membership: ServerMembership
    _ticker: Ticker
    _uploader: Uploader
    _keeper: Keeper
    _signer: Signer
    _connections: Connections
    _memory: Memory
    _certificates: Certificates | None
    _expiry: Expiry
    _refusals: Refusals = field(factory=Refusals)
    _shutdown: Shutdown = field(factory=Shutdown)
    _is_serving: bool = False

    @classmethod
    def make(
        cls,
        settings: Settings,
        store: Store,
        now: Callable[[], Instant],
        connections: Connections,
        certificates: Certificates | None,
    ) -> "_Server":
        dispatcher = Dispatcher(store, settings.data_dir, settings.config_dir, settings.min_free)
        receivers = receivers_at(settings.upload, os.environ)
        signer = Signer(store=store, data_dir=settings.data_dir, builder_id=settings.builder_id, now=now)
        uploader = Uploader(store, settings.data_dir, receivers, UploadTiming(now=now), signer.path)

        def on_recorded() -> None:
            signer.wake()
            uploader.wake()

        recorder = Recorder(
            store=store,
            data_dir=settings.data_dir,
            now=now,
            receivers=uploader.names,
            on_recorded=on_recorded,
        )
        attempts = Attempts(
            dispatcher=dispatcher,
            recorder=recorder,
            time_limit=settings.job_timeout,
            grace=settings.grace,
            limits=settings.limits,
        )
        memory = Memory(Replies(settings.data_dir))
        upstreams = Upstreams(memory=memory, name=lambda: store.owner, tls=_tls_between(settings, certificates))
        farm = Farm(store=store, attempts=attempts, upstreams=upstreams, provisions=Provisions(now))
        me = ServerIdentity(
            name=store.owner,
            incarnation=uuid4(),
            address=settings.address,
            version=__version__,
            token=secrets.token_urlsafe(),
        )
        membership = ServerMembership(store, me, attempts, lambda: crews.text_of(farm.here()))
        ticker = Ticker(store, now, up_time)
        keeper = Keeper(store, settings.data_dir, now, settings.keep)
        expiry = Expiry(now, Keyring(settings.data_dir))
        if certificates:
            expiry.certificates, certificates.note = certificates.expiring, expiry.say
        warnings = certificates.warnings if certificates else tuple
        informer = Informer(store, memory)
        looks = Looks(store, dispatcher, farm, memory, now, expiry.soon, warnings)
        return cls(
            settings,
            store,
            informer,
            looks,
            now,
            attempts,
            farm,
            membership,
            ticker,
            uploader,
            keeper,
            signer,
            connections,
            memory,
            certificates,
            expiry,
        )

    async def run(self, announce: Callable[[list[str]], None]) -> None:
        await import_state(self._store, self._settings.data_dir)
        async with self._membership.held(), plain_nursery() as background:
            if self._settings.database is not None:  # not before: another server may have the name
                note_elsewhere(self._settings.data_dir, self._settings.database, self._store.owner)
            background.start_soon(self._ticker.run)
            background.start_soon(self._uploader.run)
            background.start_soon(self._keeper.run)
            if self._settings.metrics is not None:
                await self._show_metrics(*self._settings.metrics, background)
            background.start_soon(self._signer.run)
            background.start_soon(self._expiry.run)
            background.start_soon(_show_life)
            if self._certificates:
                background.start_soon(self._certificates.run)
            await self._store.recall_halts()
            async with self._attempts.running():
                await self._attempts.recover()
                self._membership.attend()
                background.start_soon(self._farm.run)
                async with listening.opened(self._settings.listening, self._certificates) as listeners:
                    await self._serve_peers(listeners, announce)
            background.cancel_scope.cancel()

    async def _show_metrics(self, host: str, port: int, background: trio.Nursery) -> None:
        from builder_server.metrics import Metrics  # its library is for those who want it

        metrics = Metrics(
            store=self._store,
            attempts=self._attempts,
            uploader=self._uploader,
            connections=self._connections,
            memory=self._memory,
            now=self._now,
            is_ready=lambda: self._is_serving and not self._shutdown.requested.is_set(),
            expiring=self._expiry.all,
        )
        await scraping.show(metrics.pages(), host, port, background)

    async def _serve_peers(self, listeners: list[Listener], announce: Callable[[list[str]], None]) -> None:
        """Serve until a signal comes; then accept nobody, have all end, and cut off those that have not by the deadline."""
        with self._shutdown.requested_by_signals():
            async with plain_nursery() as sessions, plain_nursery() as accepting:
                for listener in listeners:
                    serve_one = partial(self._serve_connection, listener)
                    accepting.start_soon(
                        partial(trio.serve_listeners, serve_one, [listener.accepting], handler_nursery=sessions)
                    )
                announce([listener.name for listener in listeners])
                service.notify("READY=1")
                self._is_serving = True
                await self._shutdown.requested.wait()
                service.notify("STOPPING=1")
                accepting.cancel_scope.cancel()
                self._store.limit_waits(LAST_WAIT)
                self._attempts.stop()
                sessions.cancel_scope.deadline = trio.current_time() + SHUTDOWN_TIMEOUT

    async def _serve_connection(self, listener: Listener, transport: trio.SocketStream) -> None:
        """Serve one peer. Whatever it does, or goes wrong with it, ends here."""
        peer = Peer(address="unknown")
        try:
            async with transport:
                peer = Peer(address=listening.address_of(transport))
                note(peer=peer.address)
                tune(transport)
                bound_unsent(transport)
                with self._connections.place() as place:
                    with place.until_asked(), self._shutdown.interruptible():
                        stream, peer = await self._admit(listener, transport, place)
                    channel = SharingChannel(stream, self._memory)
                    async with stream:
                        try:
                            await self._serve_peer(channel, peer, place)
                        finally:
                            channel.give_back()
        except ShuttingDown:
            pass
        except (listening.NotAdmitted, NoPlace) as error:
            self._refusals.say(str(error))
        except trio.TooSlowError:
            logger.warning("closed, it was silent for too long")
        except (BuilderError, trio.BrokenResourceError, OSError) as error:
            logger.warning("closed: %s", reason_of(error))
        except Exception:
            # a fault of ours, told in full; but the other peers must not pay for it
            logger.exception("internal error")

    async def _admit(self, listener: Listener, transport: trio.SocketStream, place: Place) -> tuple[Stream, Peer]:
        """Find out who it is. Raises NotAdmitted."""
        try:
            with trio.fail_after(self._settings.limits.handshake):
                return await listener.admit(transport, place)
        except _STRANGERS_ERRORS as error:
            raise _not_admitted(error, why(error)) from error

    async def _greet(self, channel: SharingChannel, peer: Peer, place: Place) -> tuple[bool, Message | StreamedFrame]:
        """Return whether it speaks our own protocol, and what it wants. Raises NotAdmitted for a stranger without a hello."""
        try:
            with trio.fail_after(STEP_TIMEOUT):
                hello = await channel.receive_expected(Hello)
        except _STRANGERS_ERRORS as error:
            if peer.name:
                raise
            raise _not_admitted(error, reason_of(error)) from error
        with trio.fail_after(STEP_TIMEOUT):
            is_ours = hello.version >= VERSION
            await channel.send(Welcome(version=VERSION, release=__version__) if is_ours else ServerHello())
        place.greet()
        with trio.fail_after(STEP_TIMEOUT):
            return is_ours, await _receive_request(channel)

    async def _serve_peer(self, channel: SharingChannel, peer: Peer, place: Place) -> None:
        with place.until_asked(), self._shutdown.interruptible():
            is_ours, request = await self._greet(channel, peer, place)
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
            self._signer,
            self._attempts,
            self._farm,
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


_STRANGERS_ERRORS = (BuilderError, trio.TooSlowError, trio.BrokenResourceError, OSError)
"""What goes wrong with somebody of whom nothing is known yet."""


def _not_admitted(error: Exception, reason: str) -> listening.NotAdmitted:
    silent = isinstance(error, trio.TooSlowError)
    return listening.NotAdmitted("it was silent for too long" if silent else reason)


async def _receive_request(channel: SharingChannel) -> Message | StreamedFrame:
    while isinstance(request := await channel.receive(), Alive):
        pass  # it may have been said before the end of an attempt was known
    return request


def _certificates(settings: Settings, now: Callable[[], Instant]) -> Certificates | None:
    """Return those of a server that asks for some. Raises InvalidCredentials."""
    if settings.tls is None:
        return None
    crl = settings.crl or settings.tls.ca.with_name("crl.pem")
    seen = settings.data_dir / REVOKED
    return Certificates(settings.tls, crl, now, must_exist=settings.crl is not None, seen=seen)


def _tls_between(settings: Settings, certificates: Certificates | None) -> Callable[[str], SSLContext | None]:
    """Return how servers of one farm speak TLS with each other: as this one does with its clients."""

    def context_of(host: str) -> SSLContext | None:
        is_plain = certificates is None or (settings.listening.loopback_is_plain and listening.is_loopback(host))
        return None if is_plain or certificates is None else certificates.between_servers

    return context_of


async def _show_life() -> None:
    """Tell the service manager that the event loop turns, if it wants to know."""
    if interval := service.watchdog_interval():
        while True:
            service.notify("WATCHDOG=1")
            await trio.sleep(interval)
