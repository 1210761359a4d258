"""What the tests of builder-client share: a small server on a real socket, and the program as a real process."""

import contextlib
import os
import pty
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from uuid import UUID

import forked

from builder.connection import Connection
from builder.errors import ProtocolError
from builder.framing import StreamedFrame
from builder.messages import CLIENT_VERSION, Hello, InfoReply, Message, Role, ServerHello, Success
from builder.model import Instant, RunningBuild, ScriptJob
from builder.order import Side

DEADLINE = 30.0
"""Seconds after which a test that waits has failed."""

COMMANDS: dict[str, tuple[str, ...]] = {
    "schedule": ("hello", "p1", "-"),
    "orb-build": ("orb", "retreat"),
    "show": ("hello",),
    "next": ("hello",),
    "edit": ("hello", "--period", "hourly"),
    "pause": ("hello",),
    "resume": ("hello",),
    "apply": ("/dev/stdin",),
    "export": (".",),
    "reschedule": ("hello", "2030-01-01"),
    "execute": ("hello",),
    "dequeue": ("hello",),
    "unschedule": ("hello",),
    "info": (),
    "queue": (),
    "watch": ("--json",),
    "observe": ("323b",),
    "history": (),
    "result": ("323b",),
    "log": ("323b", "--follow"),
    "fetch": ("323b", "."),
    "compare": ("323b", "323b"),
    "uploads": (),
    "retry-upload": ("--all",),
    "drop-upload": ("323b",),
    "cancel": ("hello",),
    "observe-latest": (),
    "servers": (),
    "workers": (),
    "drain": ("--reason", "new disk"),
    "drop-platform": ("p1",),
    "undrop-platform": ("p1",),
    "completion": ("bash",),
}
"""Each command with arguments that do what it is for; what it reads is standard input, and it writes here."""

Answer = Iterable[Message | bytes]


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a program under test: this process's search path, and nothing that colours it."""
    kept = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")}
    return (
        kept
        | {
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "TERM": "xterm",
            "XDG_CONFIG_HOME": "/dev/null",
        }
        | changes
    )


def client_argv(*arguments: str | bytes) -> list[str | bytes]:
    return [sys.executable, "-m", "builder_client", *arguments]


def run_client(
    *arguments: str | bytes,
    stdin: bytes = b"",
    env: dict[str, str] | None = None,
    stdout: int = subprocess.PIPE,
    on_started: Callable[[int], object] = lambda _pid: None,
) -> subprocess.CompletedProcess[bytes]:
    """Run builder-client; what it says to a descriptor ``stdout`` is not returned. ``on_started`` is told its pid."""
    given = environment() if env is None else env
    return forked.run(
        "builder_client", *map(os.fsdecode, arguments), env=given, timeout=DEADLINE, stdin=stdin, stdout=stdout,
        on_started=on_started,
    )  # fmt: skip


def run_inspect(
    *arguments: str,
    stdin: bytes = b"",
    stdout: int = subprocess.PIPE,
    umask: int = 0o022,
    limits: Mapping[int, int] = forked.AS_HERE,
) -> subprocess.CompletedProcess[bytes]:
    return forked.run(
        "builder_client.inspect", *arguments, env=environment(), timeout=DEADLINE, stdin=stdin, stdout=stdout,
        umask=umask, limits=limits,
    )  # fmt: skip


def run_in_terminal(
    arguments: Sequence[str | bytes], env: dict[str, str], module: str = "builder_client"
) -> tuple[int, bytes]:
    """Run a program with a terminal as its standard output; return its exit status and what the terminal got."""
    ours, theirs = pty.openpty()
    with forked.start(module, *map(os.fsdecode, arguments), stdout=theirs, stderr=subprocess.PIPE, env=env) as process:
        os.close(theirs)
        shown = _read_terminal(ours)
        status = process.wait(DEADLINE)
    return status, shown


def run_on_terminal(arguments: Sequence[str | bytes], env: dict[str, str], typed: bytes) -> tuple[int, bytes]:
    """Run builder-client whose standard streams are all one terminal; return its exit status and what that shows."""
    ours, theirs = pty.openpty()
    with forked.start(
        "builder_client", *map(os.fsdecode, arguments), stdin=theirs, stdout=theirs, stderr=theirs, env=env
    ) as process:
        os.close(theirs)
        os.write(ours, typed)  # it waits in the terminal until somebody reads
        shown = _read_terminal(ours)
        status = process.wait(DEADLINE)
    return status, shown


def _read_terminal(ours: int) -> bytes:
    """Return all that a terminal gets until nobody has it open any more."""
    pieces = []
    deadline = time.monotonic() + DEADLINE
    with contextlib.suppress(OSError):  # EIO: the program has closed the terminal
        while select.select([ours], [], [], deadline - time.monotonic())[0]:
            pieces.append(os.read(ours, 65536))
    os.close(ours)
    return b"".join(pieces).replace(b"\r\n", b"\n")


def assert_one_line(stderr: bytes, program: bytes = b"builder-client") -> None:
    assert stderr.startswith(program + b": "), stderr
    assert stderr.count(b"\n") == 1, stderr
    assert b"Traceback" not in stderr


class Server:
    """Answers each command with what ``answer`` returns for it: messages, or bytes to send as they are.

    A generator may wait for an event between two of them. ``seen`` lists the commands.
    """

    def __init__(self, answer: Callable[[Message], Answer], family: socket.AddressFamily = socket.AF_INET) -> None:
        self._answer = answer
        self._listener = socket.create_server(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0), family=family)
        self._listener.settimeout(DEADLINE)
        self.port = self._listener.getsockname()[1]
        self.address = f"{'[::1]' if family == socket.AF_INET6 else '127.0.0.1'}:{self.port}"
        self.seen: list[Message] = []
        self.commanded = threading.Event()
        self.stopped = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "Server":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        with contextlib.suppress(OSError):  # it wakes the thread that accepts
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(DEADLINE)
        self._listener.close()

    def _serve(self) -> None:
        while not self.stopped.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with sock, contextlib.suppress(ConnectionError, ProtocolError):
                sock.settimeout(DEADLINE)
                self._exchange(sock)

    def _exchange(self, sock: socket.socket) -> None:
        connection = Connection(Side.SERVER)
        if _receive(sock, connection) != Hello(role=Role.CLIENT, version=CLIENT_VERSION):
            return  # it speaks the classic protocol alone
        sock.sendall(connection.send(ServerHello()))
        command = _receive(sock, connection)
        self.seen.append(command)
        self.commanded.set()
        for reply in self._answer(command):
            sock.sendall(reply if isinstance(reply, bytes) else connection.send(reply))

    def run(
        self, *arguments: str | bytes, stdin: bytes = b"", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the client against this server."""
        return run_client("-r", self.address, *arguments, stdin=stdin, env=env)


def _receive(sock: socket.socket, connection: Connection) -> Message:
    while (message := connection.next_message()) is None:
        connection.receive_data(sock.recv(65536))
    assert not isinstance(message, StreamedFrame)
    return message


def succeed(_command: Message) -> Answer:
    return [Success()]


EMPTY = InfoReply(schedule=(), queues=(), running=(), dropped_platforms=())


def running(*builds: tuple[str, str, str, int]) -> InfoReply:
    """Return an info reply with running builds: (uuid, job, platform, started in ms)."""
    return InfoReply(
        schedule=(),
        queues=(),
        running=tuple(
            RunningBuild(
                uuid=UUID(uuid), job=ScriptJob(name=job, platform=platform, script=b""), started=Instant(started)
            )
            for uuid, job, platform, started in builds
        ),
        dropped_platforms=(),
    )


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """Hold a port that nobody listens on: it is bound, so that nobody else takes it."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]
