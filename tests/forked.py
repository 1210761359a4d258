"""Runs builder-client many times: forks each run from a process that has loaded it, which takes 30 ms instead of 400.

Each is a process of its own all the same, with arguments, environment, directory, standard streams and exit status.

    python -W error client_nursery.py SOCKET         (started by ``Nursery``, and ends with it)
"""

import atexit
import functools
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_LARGEST = 1 << 20
"""Bytes of the arguments and the environment of a run."""


# --- the process that is forked ------------------------------------------------------------------------------------


def _load() -> Callable[[], None]:
    """Import the client with all that it imports when it is needed, and return what runs it."""
    import rich.table  # noqa: F401

    from builder import asn1
    from builder_client import __main__, checking, comparison, completion, overview, registry, remote  # noqa: F401

    asn1.load()
    for section in registry.SECTIONS.values():
        for name in section:
            registry.load(name)
    return __main__.main


def _serve(listener: socket.socket) -> None:
    """Return in each run's own process, which has its arguments and streams then."""
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            os._exit(0)  # whoever started it is gone
        connection, _ = listener.accept()
        if os.fork() == 0:
            _watch(connection)
            return
        connection.close()


def _watch(connection: socket.socket) -> None:
    """Return in the process of a run; tell its number and its exit status from the one above it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    data, streams, _, _ = socket.recv_fds(connection, _LARGEST, 3)
    pid = os.fork()
    if pid:
        for stream in streams:
            os.close(stream)
        connection.sendall(str(pid).encode())
        _, status = os.waitpid(pid, 0)
        connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    connection.close()
    found = json.loads(data)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(found["env"])
    os.chdir(found["directory"])
    sys.argv = ["builder-client", *found["arguments"]]


# --- whoever runs them ---------------------------------------------------------------------------------------------


class Nursery:
    """The process that runs are forked from."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="b-")
        self._path = str(Path(self._folder.name, "socket"))
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(self._path)
        self._listener.listen(64)
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", __file__, str(self._listener.fileno())],
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

    def run(
        self,
        arguments: Sequence[str],
        env: Mapping[str, str],
        deadline: float,
        stdin: bytes = b"",
        stdout: int | None = None,
        on_started: Callable[[int], object] = lambda _pid: None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run builder-client in this process's directory. What it says to a descriptor ``stdout`` is not returned.

        ``on_started`` is told the number of its process.
        """
        pipes = [os.pipe() for _ in range(2)]
        with tempfile.TemporaryFile() as given, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            given.write(stdin)
            given.seek(0)
            connection.settimeout(deadline)
            connection.connect(self._path)
            task = {"arguments": list(arguments), "env": dict(env), "directory": str(Path.cwd())}
            streams = [given.fileno(), *(write for _, write in pipes)]
            if stdout is not None:
                streams[1] = stdout
            socket.send_fds(connection, [json.dumps(task).encode()], streams)
            for _, write in pipes:
                os.close(write)
            said = [b"", b""]
            readers = [
                threading.Thread(target=_read, args=(said, number, read)) for number, (read, _) in enumerate(pipes)
            ]
            for reader in readers:
                reader.start()
            try:
                on_started(int(connection.recv(64)))
                status = int(connection.recv(64))
            except TimeoutError as error:
                raise subprocess.TimeoutExpired(list(arguments), deadline) from error
            for reader in readers:
                reader.join()
        return subprocess.CompletedProcess(list(arguments), status, *said)


def _read(said: list[bytes], number: int, descriptor: int) -> None:
    with os.fdopen(descriptor, "rb") as file:
        said[number] = file.read()


@functools.cache
def nursery() -> Nursery:
    """Return the one of this process."""
    return Nursery()


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that tell
    main = _load()
    gc.freeze()  # the end of a run does not go through all that was loaded, and copy it for that
    with socket.socket(fileno=int(sys.argv[1])) as found:
        _serve(found)
    main()
