"""A client's connection: one command, its replies, success or failure."""

import logging
from collections.abc import Callable
from uuid import UUID

import trio
from attrs import define

from builder.errors import InvalidName, InvalidOptions, ProtocolError
from builder.extension import Request
from builder.extension.builds import FetchArtifacts
from builder.extension.halting import AwaitIdle
from builder.extension.logs import ReadConsole
from builder.extension.servers import Relay
from builder.extension.watching import Watch
from builder.framing import StreamedFrame
from builder.messages import (
    DropPlatform,
    Execute,
    Failure,
    Info,
    Message,
    Observe,
    Output,
    Reschedule,
    Schedule,
    ScheduleOrbBuild,
    Success,
    UndropPlatform,
    Unschedule,
)
from builder.model import Instant
from builder.runtime.logs import about, note
from builder.runtime.shutdown import Shutdown
from builder_server.aborts import LOST
from builder_server.attempts import Attempts
from builder_server.attesting import Signer
from builder_server.connections import Connections
from builder_server.errors import CommandRefused
from builder_server.farm import Farm
from builder_server.informer import Informer
from builder_server.looks import Looks
from builder_server.memory import SharingChannel
from builder_server.names import check_job_name, check_package, check_platform_name, known
from builder_server.peers import while_connected
from builder_server.permission import Peer, relayed
from builder_server.requests import (
    Asked,
    Handlers,
    applying,
    builds,
    halts,
    logs,
    provenance,
    schedule,
    servers,
    uploads,
    watching,
)
from builder_server.store import Store, StoreError
from builder_server.upload import Uploader

logger = logging.getLogger(__name__)

REPLY_TIMEOUT = 300.0
"""Seconds that sending a reply may take; the one to info can have many megabytes."""

MAX_FAILURE = 1000
"""Characters of a failure's text; it may repeat a name of any length that the client sent."""


_HANDLERS: Handlers = {
    **schedule.HANDLERS,
    **applying.HANDLERS,
    **builds.HANDLERS,
    **logs.HANDLERS,
    **halts.HANDLERS,
    **provenance.HANDLERS,
    **servers.HANDLERS,
    **uploads.HANDLERS,
    **watching.HANDLERS,
}


@define(eq=False)
class ClientSession:
    """Serves one client after it said what it wants."""

    channel: SharingChannel
    peer: Peer
    store: Store
    informer: Informer
    looks: Looks
    uploader: Uploader
    signer: Signer
    attempts: Attempts
    farm: Farm
    connections: Connections
    shutdown: Shutdown
    now: Callable[[], Instant]
    is_relayed: bool = False
    """Whether it is another server that asks, for a client of its own."""

    async def serve(self, command: Message | StreamedFrame) -> None:
        """Raises one of CONNECTION_ERRORS, and ShuttingDown."""
        with about(job=_job_of(command), platform=_platform_of(command)):
            await self._serve(command)
        if isinstance(command, Relay):
            note(peer=self.peer.address, holder=self.peer.name or None)

    async def _serve(self, command: Message | StreamedFrame) -> None:
        try:
            replies = await self._answer(command)
        except (CommandRefused, InvalidName, InvalidOptions) as error:
            replies = [self._refuse(command, str(error))]
        except UnicodeEncodeError:  # nothing in the database is called so, and it takes nothing like that
            replies = [self._refuse(command, "what is asked for has a text that is not UTF-8")]
        except StoreError as error:
            logger.error("%s failed: %s", type(command).__name__, error)
            replies = [Failure(message=f"the server failed: {error}"[:MAX_FAILURE])]
        with trio.fail_after(REPLY_TIMEOUT):
            await self.channel.send(*replies)

    def _refuse(self, command: Message | StreamedFrame, why: str) -> Failure:
        logger.info("%s refused: %s", type(command).__name__, why)
        return Failure(message=why[:MAX_FAILURE])

    async def _answer(self, command: Message | StreamedFrame) -> list[Message]:
        self.peer.check(type(command))
        match command:
            case Relay():
                await self.farm.check(command)
                self.peer, self.is_relayed = relayed(command), True
            case Info():
                with self.shutdown.interruptible(), trio.fail_after(REPLY_TIMEOUT):
                    await self.informer.send(self.channel)
            case Observe(uuid=uuid):
                with self.connections.staying(), self.shutdown.interruptible():
                    await while_connected(self.channel, lambda: self._observe(uuid))
            case Watch():
                with self.connections.staying(), self.shutdown.interruptible():
                    await while_connected(self.channel, lambda: watching.watch(self._asked(), command))
            case ReadConsole() | FetchArtifacts() | AwaitIdle():
                with self.connections.staying(), self.shutdown.interruptible():
                    await while_connected(self.channel, lambda: self._handle(command))
            case Request():
                with self.shutdown.interruptible(), trio.fail_after(REPLY_TIMEOUT):
                    await self._handle(command)
                if command.changes:
                    logger.info("%s", _brief(command))
            case _:
                await self._change(command)
                logger.info("%s", _brief(command))
        return [Success()]

    async def _handle(self, request: Request) -> None:
        await _HANDLERS[type(request)](self._asked(), request)

    def _asked(self) -> Asked:
        return Asked(
            channel=self.channel,
            client=self.peer,
            is_relayed=self.is_relayed,
            store=self.store,
            attempts=self.attempts,
            looks=self.looks,
            uploader=self.uploader,
            signer=self.signer,
            farm=self.farm,
            now=self.now,
        )

    async def _change(self, command: Message | StreamedFrame) -> None:
        """Do what a command asks for, durably. Raises CommandRefused and InvalidName."""
        match command:
            case Schedule(period=period, job=job):
                check_job_name(job.name)
                check_platform_name(job.platform)
                await self.store.schedule(job, period, self.now())
            case ScheduleOrbBuild(period=period, job=orb_job):
                check_job_name(orb_job.name)
                check_package(orb_job.opam_package)
                await self.store.schedule(orb_job, period, self.now())
            case Unschedule(name=name):
                await self.store.unschedule(known(name, f"unknown job {name}"))
            case Reschedule(name=name, next=next_run, period=new_period):
                await self.store.reschedule(known(name, f"unknown job {name}"), next_run, new_period)
            case Execute(name=name, platform=platform):
                known(platform or "any", "execute failed: no such platform")
                await self.store.execute(
                    known(name, "execute failed: job not found"), platform, self.now(), str(self.peer)
                )
            case DropPlatform(platform=platform):
                await self.store.drop_platform(known(platform, f"unknown platform {platform}"))
            case UndropPlatform(platform=platform):
                await self.store.undrop_platform(known(platform, f"unknown platform {platform}"))
            case _:
                raise ProtocolError(f"{type(command).__name__} is no command")

    async def _observe(self, uuid: UUID) -> None:
        """Send the console as it is and as it grows, then how the build ended. Raises CommandRefused and StoreError."""
        found = await logs.show(self._asked(), ReadConsole(uuid=uuid, follow=True), tells_range=False)
        if found is None:
            raise CommandRefused("uuid not found")
        ended = await self.store.find_head(uuid)
        result = (ended and ended.result) or LOST
        finished = (ended and ended.finished) or self.now()
        # rounded up, so that no line of a short build comes later than its end
        took = (max(0, finished.ms - found.started.ms) + 1) * 1_000_000
        with trio.fail_after(REPLY_TIMEOUT):
            await self.channel.send(
                Output(uuid=uuid, line=str(result).encode("utf-8", "surrogateescape"), timestamp=took)
            )


def _brief(command: object) -> str:
    """Return a command for the log: which, and about what; scripts are left out."""
    what = _job_of(command) or getattr(command, "target", None) or getattr(command, "platform", "")
    return f"{type(command).__name__} {what}".rstrip()


def _platform_of(command: object) -> str | None:
    """Return the platform that a command is about, or that of the job that it brings."""
    found = getattr(command, "platform", None) or getattr(getattr(command, "job", None), "platform", None)
    return found if isinstance(found, str) else None


def _job_of(command: object) -> str | None:
    """Return the name of the job that a command is about, if it is about one."""
    job = getattr(command, "job", None)
    name = getattr(command, "name", None) or (job if isinstance(job, str) else getattr(job, "name", None))
    return name if isinstance(name, str) else None
