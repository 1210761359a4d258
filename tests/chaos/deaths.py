"""One job from its scheduling to its upload, while the server or its worker dies before a change and is started again."""

import signal
import sqlite3
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from random import Random
from uuid import UUID

import trio
from attrs import define, frozen
from endpoints import Endpoint, serving
from farm import DEADLINE, free_port, query
from forked import FIRST

from builder.model import Instant
from builder.provenance import FILE_NAME
from builder.provenance.envelope import Envelope
from builder.provenance.statement import Statement
from builder.provenance.verification import Verdict, verify
from builder_server.keyring import Keyring
from builder_server.names import DATABASE
from chaos import accounts
from chaos.crowd import OURS_PLATFORM, Crowd
from chaos.database import in_file
from chaos.jobs import Work
from chaos.run import Member, processes_of_jobs, rest

SERVER, WORKER = "server", "worker"

_TROUBLE = ("Traceback", "internal error", "a fault of this worker")
"""What no log has."""

_PAUSE = 0.05
"""Seconds between looks, and between attempts of a client."""


@frozen(kw_only=True)
class Death:
    """What became of a farm one of which has died."""

    place: str
    """The change before which it was to die."""

    changes: tuple[str, ...]
    """Those that it came to, in its first life."""

    has_died: bool
    is_repeated: bool
    """The job was run again: it had said nothing yet."""

    wrong: tuple[str, ...]

    def __str__(self) -> str:
        return f"died before {self.place}: {'; '.join(self.wrong) or 'fine'}"


@define(eq=False, kw_only=True)
class _Farm:
    root: Path
    who: str
    place: str
    server: Member
    worker: Member
    crowd: Crowd
    wrong: list[str]
    has_died: bool = False
    may_repeat: bool = False

    @classmethod
    def below(cls, root: Path, who: str, place: str, receiver: Endpoint) -> "_Farm":
        for name in ("data", "etc", "jobs"):
            (root / name).mkdir(parents=True)
        port = free_port()
        server = Member(
            module="builder_server",
            arguments=(
                f"--port={port}",
                f"--dir={root / 'data'}",
                f"--config-dir={root / 'etc'}",
                f"--upload={receiver.url()}",
                "--grace=5s",  # so long is waited for a worker that was not told of its job
                "--min-free=1M",
            ),
            log_path=root / "server.log",
            announces=True,
        )
        worker = Member(
            module="builder_worker",
            arguments=(
                OURS_PLATFORM,
                f"--remote=127.0.0.1:{port}",
                f"--work-dir={root / 'jobs'}",
                *("--loop", "--sandbox=none", "--reconnect-for=60s"),
            ),
            log_path=root / "worker.log",
        )
        crowd = Crowd(ports=[port], chance=Random(0))
        return cls(root=root, who=who, place=place, server=server, worker=worker, crowd=crowd, wrong=crowd.told.wrong)

    @property
    def mortal(self) -> Member:
        return self.server if self.who == SERVER else self.worker

    async def live(self) -> None:
        """Do the job, and be at rest."""
        self.mortal.env = {
            FIRST: "chaos.dying",
            "CHAOS_PLACE": self.place,
            "CHAOS_TOLD": str(self.root / "told"),
        }
        try:
            async with trio.open_nursery() as nursery:
                times = await self.server.start()
                await self.worker.start()
                if times > 1:  # it died before it was ready
                    self.has_died, self.mortal.env = True, {}
                nursery.start_soon(self._bring_back)
                await self._schedule()
                await self._rest()
                nursery.cancel_scope.cancel()
            await self._stop()
            if await self._dies_first():
                await self.server.start()
                await self.worker.start()
                await self._rest()
        finally:
            with trio.CancelScope(shield=True):
                await self._stop()
        self._look()

    async def _bring_back(self) -> None:
        assert self.mortal.program
        while self.mortal.program.process.poll() is None:  # noqa: ASYNC110 - no thread that waits for it can be cancelled
            await trio.sleep(_PAUSE)
        if await self._dies_first():
            await self.mortal.start()
        else:
            self.wrong.append(f"the {self.who} has ended by itself")

    async def _dies_first(self) -> bool:
        """Return whether it has died for the first time, and have it live when it is started again."""
        program = self.mortal.program
        if self.has_died or program is None or program.process.returncode != -signal.SIGKILL:
            return False
        self.has_died = True
        self.mortal.env = {}
        self.may_repeat = not self._has_spoken() and await trio.to_thread.run_sync(self._is_running)
        return True

    def _is_running(self) -> bool:
        database = self.root / "data" / DATABASE
        try:
            return database.exists() and accounts.open_ends(in_file(database))["running"] > 0
        except sqlite3.OperationalError:  # it has no tables yet
            return False

    def _has_spoken(self) -> bool:
        return any(path.stat().st_size for path in (self.root / "jobs").glob("*/console"))

    async def _schedule(self) -> None:
        number, is_accepted = 0, False
        while not is_accepted:
            number += 1
            work = Work(name=f"job{number}", platform=OURS_PLATFORM, lines=60, every=20)
            is_accepted = await self.crowd.ask_for(work)
            await trio.sleep(_PAUSE)

    async def _rest(self) -> None:
        """Wait until all is done, and the worker has removed what it needs no more and wants the next job."""
        await rest(in_file(self.root / "data" / DATABASE), lambda _: None, pause=_PAUSE)
        with trio.move_on_after(DEADLINE):
            while not self._is_idle():  # noqa: ASYNC110 - the log tells nobody
                await trio.sleep(_PAUSE)

    def _unsigned(self) -> Iterable[str]:
        """Yield what is wrong with the provenance of what was recorded."""
        data = self.root / "data"
        keys = Keyring(data).public(Instant(0))
        for uuid, name in query(data, "select uuid, name from build where state = 'finished'"):
            envelope = Envelope.decode((data / name / uuid / FILE_NAME).read_bytes())
            statement = Statement.decode(envelope)
            if verify(envelope, statement, keys).verdict is not Verdict.VALID or not statement.is_about(
                UUID(uuid), name
            ):
                yield f"the envelope of build {uuid} is wrong"

    def _is_idle(self) -> bool:
        return self.worker.is_running and "waiting for a job" in self.worker.last_line

    async def _stop(self) -> None:
        for member in (self.worker, self.server):
            await member.restart(signal.SIGTERM)

    def _look(self) -> None:
        self.wrong += [f"left: {path}" for path in (self.root / "jobs").iterdir()]
        self.wrong += [f"left: process {pid}, {command}" for pid, command in processes_of_jobs(self.root)]
        self.wrong += [f"left: {path}" for path in (self.root / "data").glob("*/*/full*")]
        self.wrong += [f"left: {path}" for path in (self.root / "data").glob("**/*.part")]
        self.wrong += self._unsigned()
        for member in (self.server, self.worker):
            log = member.log_path.read_text("utf-8", "replace")
            self.wrong += [
                f"{member.module} says: {line}" for line in log.splitlines() if any(map(line.count, _TROUBLE))
            ]


async def die(root: Path, who: str, place: str = "") -> Death:
    """Have one of a farm die before a change, if it comes to that, and account for all when it is at rest."""
    with serving() as receiver:
        farm = _Farm.below(root, who, place, receiver)
        await farm.live()
    account = accounts.draw_up(in_file(root / "data" / DATABASE), farm.crowd.told, receiver)
    is_repeated = account.attempts > account.succeeded
    if is_repeated and not farm.may_repeat:
        account.wrong.append("a job that had said something was run again")
    return Death(
        place=place,
        changes=tuple((root / "told").read_text().splitlines()),
        has_died=farm.has_died,
        is_repeated=is_repeated,
        wrong=tuple(account.wrong),
    )


def places(changes: Iterable[str]) -> list[str]:
    """Return what names each change: which one it is of those that are alike."""
    counted: Counter[str] = Counter()
    found = []
    for change in changes:
        counted[change] += 1
        found.append(f"{counted[change]} {change}")
    return found


async def die_everywhere(root: Path, who: str, every: int, at_once: int) -> list[Death]:
    """See what changes there are while nobody dies, and then die before each of them, or every so many; some ``at_once``."""
    alive = await die(root / "0", who)
    found = [alive]
    left = enumerate(places(alive.changes)[every // 2 :: every], start=1)

    async def go_on() -> None:
        for number, place in left:
            found.append(await die(root / str(number), who, place))

    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(go_on)
    return found
