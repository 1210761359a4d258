"""Runs our programs many times: forks each run from a process that has loaded the program, which takes 10 ms, not 600.

Each is a process of its own all the same, with arguments, environment, directory, limits, standard streams and exit
status. Only what an interpreter does is missing: imports, what it reads of its environment, such as PYTHONUNBUFFERED, and
the removal of its modules in the end. Tests of how a program begins start it by ``subprocess``.

    python -W error forked.py MODULE SOCKET         (started by ``_Nursery``, and ends with it)
"""

import atexit
import contextlib
import functools
import gc
import importlib
import io
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

_LARGEST = 1 << 20
"""Bytes of the arguments and the environment of a run."""

_DEADLINE = 30.0
"""Seconds for the start of a run."""

LOADED = {
    "builder_client": (
        "builder_client.advice",
        "builder_client.checking",
        "builder_client.cli",
        "builder_client.comparison",
        "builder_client.completion",
        "builder_client.overview",
        "builder_client.remote",
        "rich.live",
        "rich.table",
    ),
    "builder_client.inspect": ("builder_client.inspect", "builder_client.inspection", "builder_client.output"),
    "builder_server": (
        "alembic.command",
        "builder.runtime.logs",
        "builder.runtime.postgres",
        "builder_server.cli",
        "builder_server.credentials",
        "builder_server.server",
        "builder_server.statements",
        "sqlalchemy.dialects.postgresql.psycopg",
        "sqlalchemy.dialects.sqlite",
    ),
    "builder_provision": (
        "builder.runtime.logs",
        "builder_provision.cli",
        "builder_provision.engines.command",
        "builder_provision.service",
    ),
    "builder_worker": (
        "builder_worker.cli",
        "builder_worker.containment",
        "builder_worker.loop",
        "builder_worker.sandbox.backends.bubblewrap",
        "builder_worker.trial",
    ),
    "builder_web": (
        "builder.runtime.logs",
        "builder_web.cli",
        "builder_web.policies",
        "builder_web.server",
        "sqlalchemy.dialects.sqlite",
    ),
    "builder_web.administration": ("builder_web.administration.cli", "sqlalchemy.dialects.sqlite"),
    "sandbox_driver": (
        "builder_worker.sandbox.backends.bubblewrap",
        "builder_worker.sandbox.backends.none",
        "builder_worker.sandbox.backends.overlay",
        "builder_worker.sandbox.backends.podman",
    ),
}
"""The programs, and what they import once they run."""

_LIMITS = tuple(value for name, value in vars(resource).items() if name.startswith("RLIMIT_"))

AS_HERE: Mapping[int, int] = {}
"""The limits of the process that starts a program."""

FIRST = "BUILDER_TESTS_FIRST"
"""In the environment of a run: modules of the tests, with commas between them, whose ``begin`` is called in its process
before the program.
"""


# --- the process that is forked ------------------------------------------------------------------------------------


def _load(module: str) -> Callable[[], None]:
    """Import a program with all that it imports when it is needed, and return what runs it."""
    from builder import asn1
    from builder.runtime import entry

    asn1.load()
    for name in ("encodings.idna", *LOADED[module]):
        importlib.import_module(name)
    if module == "builder_client":
        from builder_client import registry

        for section in registry.SECTIONS.values():
            for name in section:
                registry.load(name)
    if module == "builder_client.inspect":
        return functools.partial(entry.run, module)
    is_package = hasattr(importlib.import_module(module), "__path__")
    main: Callable[[], None] = importlib.import_module(f"{module}.__main__" if is_package else module).main
    return main


def _serve(module: str, listener: socket.socket) -> None:
    """Return in each run's own process, which has its arguments and streams then; tell its number and its exit status."""
    ended, ends = socket.socketpair()
    for end in (ended, ends):
        end.setblocking(False)
    signal.set_wakeup_fd(ends.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    running: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([listener, sys.stdin, ended], [], [])
        if sys.stdin in ready:
            os._exit(0)  # whoever started it is gone
        if ended in ready:
            ended.recv(4096)
            _tell(running)
        if listener in ready:
            connection, _ = listener.accept()
            data, streams, _, _ = socket.recv_fds(connection, _LARGEST, 3)
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for found in (connection, ended, ends, *running.values()):
                    found.close()
                _become(module, json.loads(data), streams)
                return
            running[pid] = connection
            for stream in streams:
                os.close(stream)
            connection.sendall(str(pid).encode())


def _tell(running: dict[int, socket.socket]) -> None:
    """Tell of the runs that have ended."""
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with running.pop(pid) as connection, contextlib.suppress(OSError):  # whoever started it does not want to know
            connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())


def _become(module: str, task: dict[str, Any], streams: Sequence[int]) -> None:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    _open_streams()
    os.environ.clear()
    os.environ.update(task["env"])
    os.chdir(task["directory"])
    if task["umask"] is not None:
        os.umask(task["umask"])
    if task["new_session"]:
        os.setsid()
    for which, limits in task["limits"]:
        resource.setrlimit(which, limits)
    sys.argv = [module, *task["arguments"]]


class _End:
    """The end of a run whose status is known, when all has been done that a program may notice.

    An interpreter would take down each module then, and copy for that what a run shares with the process that it was
    forked from: 30 to 60 ms of the processor.
    """

    def __init__(self) -> None:
        self.status: int | None = None
        atexit.register(self)  # the first one, which is called last

    def __call__(self) -> None:
        if self.status is None:
            return
        gc.collect()  # warns of what was left open
        with contextlib.suppress(OSError, ValueError):  # which the interpreter reports
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(self.status)


def _open_streams() -> None:
    """Make files of the standard streams anew: those of the process that was forked know whether theirs was a terminal."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        before = getattr(sys, name)
        raw = io.FileIO(number, "w" if number else "r", closefd=False)
        raw.name = f"<{name}>"
        size = os.fstat(number).st_blksize
        file = io.TextIOWrapper(
            io.BufferedWriter(raw, size) if number else io.BufferedReader(raw, size),
            encoding=before.encoding,
            errors=before.errors,
            line_buffering=name == "stderr" or raw.isatty(),
        )
        setattr(sys, name, file)
        setattr(sys, f"__{name}__", file)


# --- whoever runs them ---------------------------------------------------------------------------------------------


class Process:
    """A run, to be used as subprocess.Popen is."""

    def __init__(self, args: Sequence[str], connection: socket.socket, pipes: Sequence[IO[bytes] | None]) -> None:
        self.args = args
        self.stdin, self.stdout, self.stderr = pipes
        self.returncode: int | None = None
        self.pid = int(connection.recv(64))
        connection.settimeout(None)
        self._ended = threading.Event()
        threading.Thread(target=self._watch, args=[connection], daemon=True).start()

    def _watch(self, connection: socket.socket) -> None:
        with connection:
            self.returncode = int(connection.recv(64))
        self._ended.set()

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if not self._ended.wait(timeout):
            assert timeout is not None
            raise subprocess.TimeoutExpired(list(self.args), timeout)
        assert self.returncode is not None
        return self.returncode

    def communicate(self, input: bytes = b"", timeout: float | None = None) -> tuple[bytes, bytes]:  # noqa: A002
        """Give it what it reads, and return what it says until its end."""
        said = [b"", b""]

        def read(number: int, pipe: IO[bytes]) -> None:
            with pipe:
                said[number] = pipe.read()

        def write(pipe: IO[bytes]) -> None:
            with contextlib.suppress(BrokenPipeError), pipe:
                pipe.write(input)

        threads = [
            threading.Thread(target=read, args=(number, pipe), daemon=True)
            for number, pipe in enumerate((self.stdout, self.stderr))
            if pipe
        ]
        if self.stdin:
            threads.append(threading.Thread(target=write, args=[self.stdin], daemon=True))
        for thread in threads:
            thread.start()
        self.wait(timeout)
        for thread in threads:
            thread.join()
        return said[0], said[1]

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe:
                pipe.close()
        self.wait()


class Place(NamedTuple):
    """Where programs are loaded from."""

    python: str
    folder: Path
    """It has this module, and what it loads, unless our own interpreter finds that."""


_HERE = Place(sys.executable, Path(__file__).parent)


class _Nursery:
    """The process that runs of a program are forked from."""

    def __init__(self, module: str, place: Place) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="b-")
        self.path = str(Path(self._folder.name, "socket"))
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(self.path)
        self._listener.listen(64)
        self._process = subprocess.Popen(
            [
                place.python,
                "-W",
                "error",
                str(place.folder / Path(__file__).name),
                module,
                str(self._listener.fileno()),
            ],
            stdin=subprocess.PIPE,
            pass_fds=[self._listener.fileno()],
        )
        atexit.register(self.close)

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._listener.close()
        self._folder.cleanup()


@functools.cache
def _nursery(module: str, place: Place) -> _Nursery:
    return _Nursery(module, place)


def start(
    module: str,
    *arguments: str,
    env: Mapping[str, str],
    cwd: Path | None = None,
    stdin: Any = subprocess.DEVNULL,
    stdout: Any = None,
    stderr: Any = None,
    umask: int | None = None,
    limits: Mapping[int, int] = AS_HERE,
    start_new_session: bool = False,
    place: Place = _HERE,
) -> Process:
    """Start a program. The streams are those of subprocess: PIPE, DEVNULL, a file or descriptor, None for our own."""
    task = {
        "arguments": arguments,
        "env": dict(env),
        "directory": str(cwd or Path.cwd()),
        "umask": umask,
        "new_session": start_new_session,
        "limits": [
            (which, (limits[which],) * 2 if which in limits else resource.getrlimit(which)) for which in _LIMITS
        ],
    }
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs: list[int] = []
    pipes: list[IO[bytes] | None] = []
    with contextlib.ExitStack() as stack:
        for number, stream in enumerate((stdin, stdout, stderr)):
            descriptor, pipe = _stream(number, stream, stack)
            theirs.append(descriptor)
            pipes.append(pipe)
        connection.settimeout(_DEADLINE)
        connection.connect(_nursery(module, place).path)
        socket.send_fds(connection, [json.dumps(task).encode()], theirs)
        return Process([module, *arguments], connection, pipes)


def _stream(number: int, stream: Any, stack: contextlib.ExitStack) -> tuple[int, IO[bytes] | None]:
    """Return the descriptor of a run's standard stream, and the other end of its pipe."""
    if stream == subprocess.PIPE:
        read, write = os.pipe()
        ours, theirs = (write, read) if number == 0 else (read, write)
        stack.callback(os.close, theirs)
        return theirs, os.fdopen(ours, "wb" if number == 0 else "rb", buffering=-1)
    if stream == subprocess.DEVNULL:
        descriptor = os.open(os.devnull, os.O_RDWR)
        stack.callback(os.close, descriptor)
        return descriptor, None
    if stream is None:
        return number, None
    return (stream if isinstance(stream, int) else stream.fileno()), None


def run(
    module: str,
    *arguments: str,
    env: Mapping[str, str],
    timeout: float,
    stdin: bytes = b"",
    stdout: Any = subprocess.PIPE,
    cwd: Path | None = None,
    umask: int | None = None,
    limits: Mapping[int, int] = AS_HERE,
    on_started: Callable[[int], object] = lambda _pid: None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end; what it says to a descriptor ``stdout`` is not returned.

    ``on_started`` is told the number of its process.
    """
    with start(
        module,
        *arguments,
        env=env,
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=subprocess.PIPE,
        umask=umask,
        limits=limits,
    ) as process:
        on_started(process.pid)
        try:
            said = process.communicate(stdin, timeout)
        except BaseException:
            process.kill()
            raise
    assert process.returncode is not None
    return subprocess.CompletedProcess([module, *arguments], process.returncode, *said)


if __name__ == "__main__":
    end = _End()
    main = _load(sys.argv[1])
    gc.freeze()  # the end of a run does not go through all that was loaded, and copy it for that
    with socket.socket(fileno=int(sys.argv[2])) as found:
        _serve(sys.argv[1], found)
    for name in filter(None, os.environ.pop(FIRST, "").split(",")):
        importlib.import_module(name).begin()
    try:
        main()
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            end.status = (ended.code or 0) & 0xFF
        raise
    end.status = 0
