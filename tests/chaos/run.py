"""The farm: starts it, has it at work while it is hit, lets it come to rest, and draws up the account."""

import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random

import trio
from attrs import define, field, frozen
from endpoints import Endpoint, serving
from farm import DEADLINE, Program, free_port, read_line, start
from forked import FIRST

from builder_server.names import DATABASE
from chaos import accounts
from chaos.accounts import Account
from chaos.crowd import OURS_PLATFORM, Crowd
from chaos.database import Ask, Postgres, in_file, running
from chaos.faults import Faults
from chaos.proxy import Proxy, proxied

REST = 120.0
"""Seconds after the last fault within which everything must be done: pauses between attempts double up to a minute."""


RESTART = 0.5
"""Seconds after which a program is started again that could not start."""

SCHEDULE, CANCEL = 0.4, 4.0
"""Seconds between two jobs of a client, and between two that are cancelled, on the average."""


@define(eq=False, kw_only=True)
class Member:
    """A program of the farm, which is started again and again."""

    module: str
    arguments: tuple[str, ...]
    log_path: Path
    env: dict[str, str] = field(factory=dict)
    announces: bool = False
    program: Program | None = None
    _begin: int = 0
    """Bytes of its log that are of earlier runs."""

    @property
    def is_running(self) -> bool:
        return self.program is not None and self.program.process.poll() is None

    @property
    def last_line(self) -> str:
        """The last line that this run has logged."""
        data = self.log_path.read_bytes()[self._begin :] if self.log_path.exists() else b""
        return data.decode("utf-8", "replace").rpartition("\n")[0].rpartition("\n")[2]

    async def start(self) -> int:
        """Start it, if it does not run, and again for as long as that fails, as a service manager does; return how often."""
        end, times = time.monotonic() + DEADLINE, 0
        while not self.is_running:
            times += 1
            self._close()
            self._begin = self.log_path.stat().st_size if self.log_path.exists() else 0
            program = self.program = start(self.module, *self.arguments, log_path=self.log_path, env=self.env)
            if self.announces and not await trio.to_thread.run_sync(read_line, program):
                await program.wait_async()
                assert time.monotonic() < end, f"{self.module} does not start: {self.last_line}"
                await trio.sleep(RESTART)
        return times

    async def kill(self) -> None:
        """End it by SIGKILL."""
        await self.restart(signal.SIGKILL)

    async def restart(self, number: int) -> None:
        """End it by a signal, and wait until it is gone."""
        self.send(number)
        if self.program:
            await self.program.wait_async()
            self._close()

    def _close(self) -> None:
        if self.program and self.program.process.stdout:
            self.program.process.stdout.close()

    def send(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self.program and self.is_running:
            self.program.process.send_signal(number)


@frozen(kw_only=True)
class Report:
    """What came of a run."""

    seed: int
    faults: dict[str, int]
    observed: int
    account: Account
    left: list[str]
    """Processes and directories of jobs that are still there."""

    @property
    def is_good(self) -> bool:
        """Whether everything is accounted for."""
        return not self.account.wrong and not self.left

    def __str__(self) -> str:
        lines = [f"seed {self.seed}: {sum(self.faults.values())} faults, {self.observed} observers saw an end"]
        lines += [f"  {count:5} {name}" for name, count in sorted(self.faults.items())]
        lines += [str(self.account), *map(str, self.account.wrong), *(f"left: {what}" for what in self.left)]
        return "\n".join(lines)


async def run(
    root: Path,
    *,
    seconds: float,
    seed: int,
    workers: int = 2,
    servers: int = 0,
    pause: float = 1.0,
    say: Callable[[str], None] = print,
) -> Report:
    """Have the farm at work in a directory for so long. ``pause`` is the average time between faults, in seconds.

    Any number of ``servers`` share a PostgreSQL; with none of them there is one, with a database of its own.
    """
    chance = Random(seed)
    names = [f"b{number}" for number in range(max(servers, 1))]
    async with AsyncExitStack() as stack:
        database = stack.enter_context(running()) if servers else None
        receiver = stack.enter_context(serving())
        ports = [free_port() for _ in names]
        proxies = [await stack.enter_async_context(proxied(port)) for port in ports]
        members = [
            _server(root, name, port, proxy, receiver, database)
            for name, port, proxy in zip(names, ports, proxies, strict=True)
        ]
        at_work = [_worker(root, number, proxies) for number in range(workers)]
        ask = database.ask if database else in_file(root / names[0] / DATABASE)
        crowd = Crowd(ports=[proxy.port for proxy in proxies], chance=chance)
        faults = Faults(
            chance=chance,
            servers=members,
            workers=at_work,
            database=database,
            proxies=proxies,
            receiver=receiver,
            clocks=[root / f"{name}.clock" for name in names],
            say=say,
        )
        async with _running(*members, *at_work):
            async with trio.open_nursery() as working:
                for _ in range(2):
                    working.start_soon(crowd.work_classic)
                with trio.move_on_after(seconds):
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(crowd.schedule, SCHEDULE)
                        nursery.start_soon(crowd.cancel, CANCEL)
                        nursery.start_soon(crowd.observe)
                        nursery.start_soon(faults.run, pause)
                crowd.is_over = True
                say("no more faults: everything has to come to its end")
                await rest(ask, say)
                working.cancel_scope.cancel()
            account = accounts.draw_up(ask, crowd.told, receiver)
            left = await _left(root, workers)
    return Report(seed=seed, faults=dict(faults.done), observed=crowd.told.observed, account=account, left=left)


def _server(root: Path, name: str, port: int, proxy: Proxy, receiver: Endpoint, database: Postgres | None) -> Member:
    for each in (name, "etc"):
        (root / each).mkdir(exist_ok=True)
    clock = root / f"{name}.clock"
    clock.write_text("0")
    shared = [f"--name={name}", f"--advertise=127.0.0.1:{proxy.port}", f"--database={database.url}"] if database else []
    return Member(
        module="builder_server",
        arguments=(
            f"--port={port}",
            f"--dir={root / name}",
            f"--config-dir={root / 'etc'}",
            f"--upload={receiver.url()}",
            *shared,
            *SERVER,
        ),
        log_path=root / f"{name}.log",
        env={FIRST: "chaos.wrong_clock,chaos.eager", "CHAOS_CLOCK": str(clock)},
        announces=True,
    )


def _worker(root: Path, number: int, proxies: Sequence[Proxy]) -> Member:
    return Member(
        module="builder_worker",
        arguments=(
            OURS_PLATFORM,
            f"--remote={','.join(f'127.0.0.1:{proxy.port}' for proxy in proxies)}",
            f"--work-dir={root / f'jobs{number}'}",
            *WORKER,
        ),
        log_path=root / f"worker{number}.log",
    )


SERVER = ("--grace=20s", "--min-free=1M")
WORKER = ("--loop", "--slots=2", "--sandbox=none", "--reconnect-for=60s")


@asynccontextmanager
async def _running(*members: Member) -> AsyncIterator[None]:
    try:
        for member in members:
            await member.start()
        yield
    finally:
        with trio.CancelScope(shield=True):
            for member in reversed(members):
                member.send(signal.SIGCONT)
                await member.restart(signal.SIGTERM)


async def rest(ask: Ask, say: Callable[[str], None], *, pause: float = 0.5) -> None:
    """Wait until nothing runs or waits, and all is uploaded; what is still open after REST is for the account. ``pause`` is
    in seconds, between looks.
    """
    end = time.monotonic() + REST
    last: object = None
    while time.monotonic() < end:
        found = accounts.open_ends(ask)
        if not any(found.values()):
            return
        if found != last:
            say(f"  {found}")
        last = found
        await trio.sleep(pause)


async def _left(root: Path, workers: int) -> list[str]:
    """Return what jobs have left, when there are none any more: a little later, for what is being removed."""
    for _ in range(20):
        found = [str(path) for number in range(workers) for path in (root / f"jobs{number}").glob("*/attempt")]
        found += [f"process {pid}: {command}" for pid, command in processes_of_jobs(root)]
        if not found:
            break
        await trio.sleep(0.5)
    return found


def processes_of_jobs(root: Path) -> list[tuple[int, str]]:
    """Return the numbers and commands of those that run a script below that directory."""
    place = str(root).encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        if place in command and b"builder-script" in command:
            found.append((int(path.parent.name), command.replace(b"\0", b" ").decode(errors="replace")))
    return found
