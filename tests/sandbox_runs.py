"""What the tests of sandboxes share: back ends as root and as a plain user, a root tree, and who is left alive."""

import atexit
import fcntl
import fnmatch
import json
import os
import pwd
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import forked
import pytest
import trio
from attrs import define, field, frozen
from worker_copy import copy_worker, python

from builder_worker.sandbox import Console, owner, roots

LONG = "podman"
"""The slowest back end, for which each job takes a second: its turn at what all can do comes in `make test-long`."""

REQUIRED = frozenset(filter(None, os.environ.get("BUILDER_TEST_REQUIRE", "").split(",")))
"""Back ends that must work here: a test that would skip them fails instead."""

USER = "builder-test"
"""The plain user, made by the tests when they run as root."""

DEADLINE = float(os.environ.get("BUILDER_TEST_DEADLINE", "60"))
"""Seconds for any answer of a driver; more are set where the machine is emulated."""

ROOT_TREES = Path(os.environ.get("BUILDER_TEST_CACHE", "/var/cache/builder-tests"))
"""Where root trees are kept. Jobs run as users who must be able to come here."""

NEED_TREE = frozenset({"overlay", "podman"})
"""Back ends that run nothing without a root tree."""

DRIVER = Path(__file__).with_name("sandbox_driver.py")
MIB = 1024 * 1024


def give_up(backend: str, reason: str) -> NoReturn:
    """Skip, unless the back end is one that must work."""
    if backend in REQUIRED:
        pytest.fail(f"{backend} must work here: {reason}")
    pytest.skip(f"{backend}: {reason}")


@frozen(kw_only=True)
class Outcome:
    """How a job ended."""

    code: int | None = None
    signal: int | None = None
    exceeded: str | None = None
    error: str | None = None
    output: str
    files: list[str]


@define
class Driver:
    """A process with a back end in it, in which scripts are run."""

    process: subprocess.Popen[bytes] | forked.Process
    backend: str
    home: Path
    work_root: Path
    delegate: str
    """Name of the control groups that belong to a plain user's driver."""

    things: str = field(init=False)
    """A pattern of what the driver makes. Its number alone is not enough: what was left of a killed one may have the same."""

    check: dict[str, Any] = field(factory=dict)
    _buffer: bytes = b""
    _last: int = 0

    def __attrs_post_init__(self) -> None:
        self.things = owner.tag("*", self.process.pid)

    def receive(self) -> dict[str, Any]:
        """Return the next line of the driver."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + DEADLINE
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                pytest.fail("the driver says nothing")
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                pytest.fail("the driver has ended")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def send(self, request: dict[str, Any]) -> None:
        """Ask for something."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()

    def begin(self, script: str, announce: str, **request: Any) -> int:
        """Start a job and return its number when its output has the announced text."""
        self._last += 1
        self.send({"id": self._last, "script": script, "announce": announce, **request})
        answer = self.receive()
        assert answer == {"id": self._last, "said": announce}, answer
        return self._last

    def kill(self, number: int) -> Outcome:
        """Kill a job that was begun."""
        self.send({"kill": number})
        return self.outcome()

    def adopt(self, place: Path, announce: str) -> int:
        """Adopt a job that another driver has left, and return its number when its output has the announced text."""
        self._last += 1
        self.send({"id": self._last, "adopt": str(place), "announce": announce})
        answer = self.receive()
        assert answer == {"id": self._last, "said": announce}, answer
        return self._last

    def leave(self, number: int) -> Outcome:
        """Let go of a job that was begun."""
        self.send({"leave": number})
        return self.outcome()

    def finish(self, place: Path) -> Outcome:
        """Adopt a job, and return how it ends, or why it can't be adopted."""
        self._last += 1
        self.send({"id": self._last, "adopt": str(place)})
        return self.outcome()

    def run(self, script: str, **request: Any) -> Outcome:
        """Run a script to its end."""
        self._last += 1
        self.send({"id": self._last, "script": script, **request})
        return self.outcome()

    def outcome(self) -> Outcome:
        """Return how the job ended of which that is told next."""
        answer = self.receive()
        del answer["id"]
        return Outcome(**answer)


def root_tree() -> Path:
    """Return a Debian root tree, made once for all runs of the tests on this machine: that takes 20 s."""
    path = ROOT_TREES / "debian-12"
    ROOT_TREES.mkdir(mode=0o755, parents=True, exist_ok=True)
    with (ROOT_TREES / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if roots.read(path) is None:
            trio.run(roots.create, "debian-12", path)
    return path


@cache
def _with_libraries(name: str) -> tuple[str, ...]:
    program = shutil.which(name)
    assert program is not None, f"{name} is not installed"
    needed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout.split()
    return (program, *(word for word in needed if word.startswith("/")))


def small_tree(path: Path, *programs: str) -> None:
    """Make a system of a shell and a few programs of this machine, with the libraries that they need."""
    for name in ("sh", "env", *programs):
        for file in _with_libraries(name):
            target = path / "usr" / Path(file).relative_to("/usr" if file.startswith("/usr/") else "/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    for directory in (path / "usr").iterdir():
        (path / directory.name).symlink_to(f"usr/{directory.name}")


def plain_user() -> int:
    """Return the plain user's number, after making it if need be: only once, though tests run at the same time."""
    ROOT_TREES.mkdir(mode=0o755, parents=True, exist_ok=True)
    with (ROOT_TREES / "user-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            return pwd.getpwnam(USER).pw_uid
        except KeyError:
            subprocess.run(["useradd", "--no-create-home", "--shell", "/bin/false", USER], check=True)
            return pwd.getpwnam(USER).pw_uid


def in_turn(subjects: Iterable[tuple[str, str]]) -> list[Any]:
    """Return back ends with who runs them as parameters of a fixture, of which the slowest is left to the long tests."""
    return [pytest.param(each, marks=_marks(each[0])) for each in subjects]


def cases_in_turn(cases: Iterable[tuple[Any, ...]]) -> list[Any]:
    """The same for the parameters of a test, the first of which is the back end."""
    return [pytest.param(*each, marks=_marks(each[0])) for each in cases]


def _marks(backend: str) -> Any:
    return pytest.mark.long if backend == LONG else ()


@contextmanager
def work_directory(privilege: str) -> Iterator[Path]:
    """A directory for jobs that belongs to the one who runs them."""
    path = Path(tempfile.mkdtemp(prefix="builder-tests-", dir="/var/tmp"))
    path.chmod(0o711)
    if privilege == "user" and os.geteuid() == 0:
        os.chown(path, plain_user(), plain_user())
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextmanager
def driver(backend: str, privilege: str, *, secret: str = "", **options: Any) -> Iterator[Driver]:
    """Start a driver; skip if the back end does not work for this user here. Everything it left is an error."""
    if privilege == "root" and os.geteuid() != 0:
        give_up(backend, "the tests do not run as root")
    with work_directory(privilege) as work_root:
        started = start(backend, privilege, work_root, secret=secret, **options)
        try:
            started.check = started.receive()
            if not started.check["works"]:
                give_up(backend, started.check["reason"])
            yield started
        finally:
            stop(started)
        left = [path for path in work_root.iterdir() if path.name.startswith("builder-")]
        assert not left, "work directories are removed"
        left = control_groups(started.things)
        assert not left, "control groups are removed"


@cache
def worker_copy() -> Path:
    """Return a copy of the worker and its driver that anybody may read, made once and removed when the tests end."""
    place = Path(tempfile.mkdtemp(prefix="builder-tests-", dir="/var/tmp"))
    atexit.register(shutil.rmtree, place)
    place.chmod(0o755)
    copy_worker(place / "worker", DRIVER, *(DRIVER.with_name(name) for name in ("forked.py", "impatient.py")))
    return place / "worker"


def start(
    backend: str,
    privilege: str,
    work_root: Path,
    *,
    secret: str = "",
    delegate: str = "",
    home: Path | None = None,
    prefix: Sequence[str] = (),
    first: str = "",
    **options: Any,
) -> Driver:
    """Start a driver without waiting for what it says, by another program that ``prefix`` names, or after modules as in
    ``forked.FIRST``; ``delegate`` and ``home`` are from one that was killed.
    """
    delegate = delegate or f"delegated-{secrets.token_hex(8)}"
    if backend in NEED_TREE:
        options = {"root": str(root_tree())} | options
    uid = plain_user() if privilege == "user" and os.geteuid() == 0 else None
    given = {
        "backend": backend,
        "options": {"work_root": str(work_root), **options},
        "uid": uid,
        "delegate": delegate,
    }
    # A short name: podman puts sockets below it, whose names are bounded, and waits 20 s for one that is too long.
    home = home or Path(tempfile.mkdtemp(prefix="b-", dir="/tmp"))
    program, folder, path = sys.executable, DRIVER.parent, os.pathsep.join(sys.path)
    if uid is not None:
        os.chown(home, uid, uid)
        program, folder = python(), worker_copy()
        path = str(folder)
    env = dict(os.environ) | {"HOME": str(home), "XDG_RUNTIME_DIR": str(home), "SECRET": secret, "PYTHONPATH": path}
    process: subprocess.Popen[bytes] | forked.Process
    if secret or prefix:  # a forked process does not show what it is started with
        process = subprocess.Popen(
            [*prefix, program, str(folder / DRIVER.name), json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=env,
        )
    else:
        process = forked.start(
            DRIVER.stem,
            json.dumps(given),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=env | {forked.FIRST: first},
            place=forked.Place(program, folder),
        )
    return Driver(process=process, backend=backend, home=home, work_root=work_root, delegate=delegate)


def stop(started: Driver, *, keep: bool = False) -> None:
    """End a driver, gently first, and unless others follow it, remove what it was given."""
    assert started.process.stdin is not None
    assert started.process.stdout is not None
    started.process.stdin.close()
    try:
        started.process.wait(30)
    except subprocess.TimeoutExpired:
        started.process.kill()
        started.process.wait()
    started.process.stdout.close()
    if not keep:
        tidy(started)


def tidy(started: Driver) -> None:
    """Remove a driver's home and the control groups that were delegated to it."""
    shutil.rmtree(started.home)
    for path in control_groups(started.delegate):
        for group in (*path.glob("builder-worker"), path):
            for pid in (group / "cgroup.procs").read_text().split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)  # what rootless podman keeps for its next container
                wait_gone([int(pid)])
            group.rmdir()


async def read_console(console: Console) -> str:
    """Return all that a job has written; what came at different times is received in parts."""
    output = b""
    while data := await console.receive_some():
        output += data
    return output.decode()


def control_groups(pattern: str) -> list[Path]:
    """Return the control groups with such a name; those of other tests may come and go meanwhile."""
    found = os.walk("/sys/fs/cgroup")
    return [Path(above, name) for above, names, _ in found for name in fnmatch.filter(names, pattern)]


def processes_with(text: str) -> list[int]:
    """Return the processes of the whole machine that have a text in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if text.encode() in (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except OSError:
            pass  # it has ended
    return found


def wait_gone(pids: list[int]) -> None:
    """Wait until processes that are not ours have ended."""
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            ready, _, _ = select.select([descriptor], [], [], DEADLINE)
            assert ready, f"process {pid} is still alive"
        finally:
            os.close(descriptor)


def kill_hard(started: Driver) -> None:
    """Kill a driver as the kernel's out-of-memory killer would."""
    started.process.send_signal(signal.SIGKILL)
    started.process.wait()
    for stream in (started.process.stdin, started.process.stdout):
        assert stream is not None
        stream.close()
