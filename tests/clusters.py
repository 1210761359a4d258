"""A PostgreSQL of the tests' own: in a directory of theirs, over a socket there, as a plain user, and without fsync."""

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import psycopg
from attrs import define
from operators import need

DEADLINE = 60.0
"""Seconds for anything it does."""

USER = "postgres"
"""Who runs it when the tests run as root, which it refuses: Debian's package makes that user."""

MAX_CONNECTIONS = 40

_LAUNCHER = ThreadPoolExecutor(1)
"""What is to end with its parent ends with the thread that has begun it: so that is one that stays."""

_AT_END: list[Callable[[], None]] = []
"""What has nothing be left."""


def find_programs() -> Path | None:
    """Return the folder of its programs: Debian keeps each version in a folder of its own, which is in no path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    named = shutil.which("postgres")
    return found[-1].parent if found else Path(named).parent if named else None


def _as_user(*command: str) -> list[str]:
    """Return a command that ends with this process, however that ends."""
    user = ["--reuid", USER, "--regid", USER, "--clear-groups"] if os.geteuid() == 0 else []
    return ["setpriv", *user, "--pdeathsig", "QUIT", *command]


def _run(*command: str) -> None:
    subprocess.run(_as_user(*command), check=True, capture_output=True, cwd="/", timeout=DEADLINE)


def _directory() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="pg-"))
    if os.geteuid() == 0:
        shutil.chown(directory, USER)
    return directory


@cache
def _initialized(programs: Path) -> Path:
    """Return the data of a cluster that has never run, of which each has a copy: to make them takes a second."""
    directory = _directory()
    _AT_END.append(partial(shutil.rmtree, directory, ignore_errors=True))
    options = [
        "--username=builder",
        "--auth=trust",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
        "--no-sync",
        "--wal-segsize=1",
    ]
    _run(str(programs / "initdb"), f"--pgdata={directory}/data", *options)
    return directory / "data"


@define(eq=False)
class Cluster:
    """A PostgreSQL that runs."""

    directory: Path
    programs: Path
    is_durable: bool = False
    process: subprocess.Popen[bytes] | None = None

    @classmethod
    def make(cls, *, is_durable: bool = False) -> "Cluster":
        """Make one and start it, or skip the test where there is no PostgreSQL; ``is_durable``: with fsync, for benches."""
        programs = find_programs()
        if programs is None:
            need("postgres", ["postgres"])
            raise AssertionError
        directory = _directory()
        _run("cp", "--recursive", str(_initialized(programs)), f"{directory}/data")
        found = cls(directory=directory, programs=programs, is_durable=is_durable)
        _AT_END.append(found.kill)
        found.start()
        return found

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = {
            "unix_socket_directories": str(self.directory),
            "listen_addresses": "",
            "max_connections": str(MAX_CONNECTIONS),
            "lock_timeout": "20s",
        }
        if not self.is_durable:
            settings |= {"fsync": "off", "full_page_writes": "off", "autovacuum": "off"}
        given = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self.directory / "log").open("ab") as log:
            self.process = _LAUNCHER.submit(
                subprocess.Popen,
                _as_user(str(self.programs / "postgres"), "-D", f"{self.directory}/data", *given),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
            ).result()  # fmt: skip
        self.wait_for_answer()

    @property
    def is_running(self) -> bool:
        """Whether its first process runs."""
        return self.process is not None and self.process.poll() is None

    def wait_for_answer(self) -> None:
        """Wait until it answers, which takes a while after a crash of one of its processes."""
        end = time.monotonic() + DEADLINE
        while True:
            try:
                self.execute("SELECT 1")
            except psycopg.OperationalError:
                assert self.is_running, (self.directory / "log").read_text("utf-8")
                assert time.monotonic() < end
                time.sleep(0.02)
            else:
                return

    def stop(self, how: int = signal.SIGINT) -> None:
        """Stop it: SIGINT as a restart does, which ends all connections; SIGQUIT as a crash would."""
        assert self.process
        self.process.send_signal(how)
        self.process.wait(DEADLINE)

    def kill(self) -> None:
        """Have it leave nothing behind."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.stop(signal.SIGQUIT)
        shutil.rmtree(self.directory, ignore_errors=True)

    def children(self) -> list[int]:
        """Return the processes that the first one has begun."""
        assert self.process
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text("ascii")
        return [int(pid) for pid in found.split()]

    def signal(self, number: int) -> None:
        """Send a signal to all of its processes."""
        assert self.process
        for pid in (*self.children(), self.process.pid):
            with suppress(ProcessLookupError):  # one that has just ended
                os.kill(pid, number)

    def url(self, name: str, user: str = "builder") -> str:
        """Return the address of a database."""
        return f"postgresql://{user}@/{name}?host={self.directory}"

    def execute(self, statement: str, name: str = "postgres") -> list[Any]:
        """Run a statement by a connection of its own, and return rows."""
        with psycopg.connect(self.url(name), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def create(self, name: str, *, template: str = "template0") -> str:
        """Make a database, and return its address."""
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def drop(self, name: str) -> None:
        """Remove a database, whoever uses it."""
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@cache
def shared() -> Cluster:
    """Return the one that the tests of this process share."""
    return Cluster.make()


def end() -> None:
    """Have nothing be left: processes of xdist call nothing at their exit."""
    while _AT_END:
        _AT_END.pop()()


atexit.register(end)
