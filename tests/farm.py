"""Real servers, workers and clients for tests: processes on free ports, with temporary directories and deadlines.

``start_server`` runs builder-server as a process; ``run_server`` runs the same code in this process, where a test can
reach in: its clock, its limits, the calls that write to the disk. Peers are either the real programs (``running_worker``,
``run_client``) or those of ``scripted``.

Everything that waits has a deadline, and a process that fails a test shows its log.
"""

import contextlib
import os
import random
import resource
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from unittest import SkipTest, mock
from uuid import UUID

import databases
import forked
import trio
from attrs import define, field, frozen

from builder import execution
from builder.model import Execution
from builder_server.names import DATABASE, directory_name

T = TypeVar("T")

ROOT = Path(__file__).parent.parent
PACKAGES = (ROOT, ROOT / "server", ROOT / "worker", ROOT / "client", ROOT / "web", ROOT / "provision")

DEADLINE = 30.0
"""Seconds that no step of a test takes, however busy the machine is."""

POLL = 0.01
"""Seconds between looks at something that tells nobody when it changes."""


# --- waiting -------------------------------------------------------------------------------------------------------


async def eventually(check: Callable[[], T], *, what: str = "the condition", deadline: float = DEADLINE) -> T:
    """Wait until ``check`` returns something true, and return it. The clock is the wall's, also under a mock clock."""
    end = time.monotonic() + deadline
    while not (value := check()):
        assert time.monotonic() < end, f"{what} did not come about within {deadline} s"
        await trio.to_thread.run_sync(time.sleep, POLL)
    return value


async def eventually_async(
    check: Callable[[], Awaitable[T]], *, what: str = "the condition", deadline: float = DEADLINE
) -> T:
    """The same for a check that waits itself."""
    end = time.monotonic() + deadline
    while not (value := await check()):
        assert time.monotonic() < end, f"{what} did not come about within {deadline} s"
        await trio.to_thread.run_sync(time.sleep, POLL)
    return value


# --- processes -----------------------------------------------------------------------------------------------------


def environment(**changes: str) -> dict[str, str]:
    """Return what a program needs of this process's environment, and none of what would change what it does."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return kept | {"PYTHONPATH": os.pathsep.join(map(str, PACKAGES)), "XDG_CONFIG_HOME": "/dev/null"} | changes


@define(kw_only=True)
class Program:
    """One of the programs, running. Its standard error goes to a file, so that nothing it says can block it."""

    name: str
    process: forked.Process | subprocess.Popen[bytes]
    log_path: Path

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self.log_path.read_text("utf-8", "replace")

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait(self, deadline: float = DEADLINE) -> int:
        """Wait for its end and return its exit status, negative for a signal."""
        try:
            return self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end within {deadline} s:\n{self.log}") from None

    async def wait_async(self, deadline: float = DEADLINE) -> int:
        return await trio.to_thread.run_sync(self.wait, deadline)

    async def wait_for_log(self, text: str, *, count: int = 1, deadline: float = DEADLINE) -> str:
        """Wait until it has said something, ``count`` times, and return its log."""
        try:
            await eventually(lambda: self.log.count(text) >= count, deadline=deadline)
        except AssertionError:
            raise AssertionError(f"{self.name} did not say {text!r} within {deadline} s:\n{self.log}") from None
        return self.log

    def kill(self) -> None:
        """End it as a crash would, and wait until it is gone."""
        self.process.kill()
        self.wait()

    def terminate(self, deadline: float = 10) -> int:
        """Ask it to stop, and return its exit status."""
        self.process.terminate()
        return self.wait(deadline)

    def memory(self, what: str = "VmRSS") -> int:
        """Return a figure of /proc/PID/status in bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text("ascii").splitlines():
            if line.startswith(f"{what}:"):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"no {what} for {self.name}")

    def descriptors(self) -> int:
        """Return how many file descriptors it has open."""
        try:
            return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))
        except PermissionError as error:
            raise SkipTest("only root may look into a program that keeps secrets") from error

    def limit(self, what: int, value: int) -> None:
        """Set a limit of the running process (``resource.RLIMIT_…``), or lift it with RLIM_INFINITY."""
        resource.prlimit(self.pid, what, (value, resource.prlimit(self.pid, what)[1]))


def start(
    module: str,
    *arguments: str,
    log_path: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    is_forked: bool = True,
) -> Program:
    """Start one of the programs. ``is_forked``: not where others look at its arguments and its environment, which are
    then those of the process that it was forked from.
    """
    variables = environment(**(env or {}))
    process: forked.Process | subprocess.Popen[bytes]
    with log_path.open("ab") as log:
        if is_forked:
            process = forked.start(module, *arguments, env=variables, cwd=cwd, stdout=subprocess.PIPE, stderr=log)
        else:
            command = [sys.executable, "-W", "error", "-m", module, *arguments]
            process = subprocess.Popen(command, env=variables, cwd=cwd, stdout=subprocess.PIPE, stderr=log)
    return Program(name=module, process=process, log_path=log_path)


@contextmanager
def _shown_on_failure(program: Program) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        if not isinstance(error, trio.Cancelled):
            error.add_note(f"--- log of {program.name} ---\n{program.log}")
        raise
    finally:
        if program.process.poll() is None:
            program.kill()
        if program.process.stdout:
            program.process.stdout.close()


def read_line(program: Program, deadline: float = DEADLINE) -> str:
    """Return the next line of a program's standard output."""
    assert program.process.stdout
    ready, _, _ = select.select([program.process.stdout], [], [], deadline)
    assert ready, f"{program.name} said nothing within {deadline} s:\n{program.log}"
    return program.process.stdout.readline().decode("utf-8").rstrip("\n")


@define(kw_only=True)
class Server(Program):
    """builder-server as a process."""

    data_dir: Path
    config_dir: Path
    announcement: str = ""
    addresses: list[tuple[str, int]] = field(factory=list)

    @property
    def port(self) -> int:
        return self.addresses[0][1]

    @property
    def remote(self) -> str:
        """The server's address, as the option --remote takes it."""
        return f"127.0.0.1:{self.port}"

    def job_dir(self, name: str) -> Path:
        return self.data_dir / name

    def full(self, name: str, uuid: UUID) -> Path:
        return self.data_dir / directory_name(name) / str(uuid) / "full"

    def execution(self, name: str, uuid: UUID) -> Execution:
        """Return the record of a build, read back as a whole."""
        return execution.decode(self.full(name, uuid).read_bytes())

    def query(self, sql: str) -> list[Any]:
        """Return rows of the server's database, as it is on disk."""
        return query(self.data_dir, sql)


def query(data_dir: Path, sql: str) -> list[Any]:
    """Return rows of a server's database, read as another process would."""
    if databases.kind == "postgres":
        return databases.query(data_dir / DATABASE, sql)
    connection = sqlite3.connect(data_dir / DATABASE, timeout=DEADLINE)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def launch_server(
    root: Path,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    data_dir: Path | None = None,
    is_forked: bool = True,
) -> Server:
    """Start builder-server on a free port, without waiting for it; the directories lie below ``root``.

    Where there is none for its data yet it gets one with a database, as it would make it.
    """
    data_dir = data_dir or root / "data"
    config_dir = root / "etc"
    if not data_dir.exists():
        data_dir.mkdir()
        if not any(given.startswith("--database") for given in arguments) and not env:
            databases.make(data_dir / DATABASE)
    config_dir.mkdir(exist_ok=True)
    program = start(
        "builder_server",
        "--port=0",
        f"--dir={data_dir}",
        f"--config-dir={config_dir}",
        *arguments,
        log_path=root / "server.log",
        env=env,
        is_forked=is_forked,
    )
    return Server(
        name="builder-server",
        process=program.process,
        log_path=program.log_path,
        data_dir=data_dir,
        config_dir=config_dir,
    )


def _announced(server: Server, line: bytes) -> None:
    server.announcement = line.decode("utf-8").rstrip("\n")
    assert " listening on " in server.announcement, f"no announcement but {server.announcement!r}:\n{server.log}"
    for address in server.announcement.partition(" listening on ")[2].split(", "):
        if address.startswith("unix:"):
            continue
        host, _, port = address.rpartition(":")
        server.addresses.append((host.strip("[]"), int(port)))


@asynccontextmanager
async def start_server(
    root: Path,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    data_dir: Path | None = None,
    is_forked: bool = True,
) -> AsyncIterator[Server]:
    """Run builder-server as a process until the block ends, then kill it: a test of its end ends it before."""
    server = launch_server(root, *arguments, env=env, data_dir=data_dir, is_forked=is_forked)
    with _shown_on_failure(server):
        await wait_until_announced(server)
        yield server


async def wait_until_announced(server: Server) -> None:
    """Wait for the line that tells the server's addresses."""
    assert server.process.stdout
    descriptor = server.process.stdout.fileno()
    with trio.fail_after(DEADLINE):
        await trio.lowlevel.wait_readable(descriptor)
    _announced(server, server.process.stdout.readline())


@contextmanager
def running_server(root: Path, *arguments: str, env: Mapping[str, str] | None = None) -> Iterator[Server]:
    """The same for tests that do not use trio."""
    server = launch_server(root, *arguments, env=env)
    with _shown_on_failure(server):
        _announced(server, (read_line(server) + "\n").encode())
        yield server


@contextmanager
def running_worker(
    server: "Server | LocalServer", platform: str, *arguments: str, env: Mapping[str, str] | None = None
) -> Iterator[Program]:
    """Run builder-worker as a process until the block ends."""
    program = start(
        "builder_worker",
        platform,
        f"--remote={server.remote}",
        f"--work-dir={server.log_path.with_name('work')}",  # in the usual place it would adopt jobs of others
        *arguments,
        log_path=server.log_path.with_name(f"worker-{platform}-{time.monotonic_ns()}.log"),
        env=env,
    )
    with _shown_on_failure(program):
        yield program


def run_client(
    server: Server, *arguments: str, env: Mapping[str, str] | None = None, deadline: float = DEADLINE
) -> subprocess.CompletedProcess[bytes]:
    """Run builder-client and return how it ended and what it said."""
    given = environment(**(env or {}))
    return forked.run("builder_client", f"--remote={server.remote}", *arguments, env=given, timeout=deadline)


# --- the server in this process ------------------------------------------------------------------------------------


@frozen(kw_only=True)
class LocalServer:
    """builder-server's own code in this process, to be reached into."""

    data_dir: Path
    config_dir: Path
    port: int
    _stopped: trio.Event = field(factory=trio.Event)

    @property
    def remote(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def log_path(self) -> Path:
        """Where a process would log; the logs of its workers lie beside it."""
        return self.data_dir.with_name("server.log")

    def stop(self) -> None:
        """Stop it as SIGTERM does; the signal is sent once, since a second one would be this process's own."""
        if not self._stopped.is_set():
            self._stopped.set()
            os.kill(os.getpid(), signal.SIGTERM)

    def full(self, name: str, uuid: UUID) -> Path:
        return self.data_dir / directory_name(name) / str(uuid) / "full"

    def execution(self, name: str, uuid: UUID) -> Execution:
        return execution.decode(self.full(name, uuid).read_bytes())

    def query(self, sql: str) -> list[Any]:
        return query(self.data_dir, sql)


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Let this process end by signals again after a server in it was stopped."""
    from builder.runtime.shutdown import SIGNALS

    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@asynccontextmanager
async def run_server(root: Path, **options: Any) -> AsyncIterator[LocalServer]:
    """Run the server in this process until the block ends, and stop it as SIGTERM does.

    ``options`` are those of Settings (``upload``, one URL or several, ``job_timeout``, ``grace``), ``now``, and ``env`` as
    for a process.
    """
    from builder_server.listening import Listening
    from builder_server.server import Settings, serve, wall_clock

    now = options.pop("now", wall_clock)
    env = environment(**options.pop("env", {}))
    data_dir = root / "data"
    config_dir = root / "etc"
    data_dir.mkdir(exist_ok=True)
    config_dir.mkdir(exist_ok=True)
    if "database" not in options:
        where = databases.place(data_dir / DATABASE)
        options["database"] = None if isinstance(where, Path) else where
    defaults: dict[str, Any] = {"listening": Listening(), "job_timeout": 3600.0, "grace": 120.0}
    urls = options.pop("upload", None) or ()
    options["upload"] = (urls,) if isinstance(urls, str) else urls
    settings = Settings(**defaults | options, data_dir=data_dir, config_dir=config_dir)
    addresses: list[str] = []
    with _signals_kept(), mock.patch.object(os, "environ", env):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(serve, settings, addresses.extend, now=now))
            await eventually(lambda: addresses, what="the announcement")
            ports = [int(each.rpartition(":")[2]) for each in addresses if not each.startswith("unix:")]
            server = LocalServer(data_dir=data_dir, config_dir=config_dir, port=ports[0] if ports else 0)
            yield server
            server.stop()


Reachable = Server | LocalServer


def free_port() -> int:
    """Return a port that nobody listens on now, and that no connection is given meanwhile: those are higher ones."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
            return port


def log_lines(log: str, *parts: str) -> list[str]:
    """Return the lines of a log that have all of these parts."""
    return [line for line in log.splitlines() if all(part in line for part in parts)]
