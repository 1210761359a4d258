"""Programs of both kinds, started alike: everything here runs the original's and ours with the same arguments."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from attrs import define, field
from check_peer import FARM, PROGRAMS, WEB

DEADLINE = 60.0  # seconds that any single step may take; the originals tick once a minute, nothing here waits for that


def binary(kind: str, name: str) -> str:
    """Return a program: "ours" from this environment, "theirs" from where the variable points that is for it."""
    variable = WEB if name in PROGRAMS[WEB] else FARM
    folder = Path(sys.executable).parent if kind == "ours" else Path(os.environ[variable])
    return str(folder / name)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait until something is true, with a deadline."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {DEADLINE:g} seconds"
        time.sleep(0.05)


def free_port() -> int:
    """Return a port that was free a moment ago; the original can't choose one itself."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@define
class Farm:
    """A server of one kind with its directories; workers and clients of any kind connect to it."""

    root: Path
    server_kind: str
    port: int = field(factory=free_port)
    upload: str | None = None
    _stack: contextlib.ExitStack = field(factory=contextlib.ExitStack)
    server: "subprocess.Popen[bytes] | None" = None

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def config(self) -> Path:
        return self.root / "etc"

    def start_server(self, kind: str | None = None) -> None:
        self.server_kind = kind or self.server_kind
        for directory in (self.data, self.config):
            directory.mkdir(exist_ok=True)
        arguments = [
            "--ip",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--dir",
            str(self.data),
            "--config-dir",
            str(self.config),
        ]
        if self.upload:
            arguments += ["--upload", self.upload]
        self.server = self._start(self.server_kind, "builder-server", *arguments)
        wait_until(self._accepts, f"{self.server_kind} server listening")

    def stop_server(self) -> None:
        assert self.server is not None
        self.server.terminate()
        self.server.wait(DEADLINE)

    def _accepts(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5):
            return True
        return False

    def start_worker(self, kind: str, platform: str = "p1") -> "subprocess.Popen[bytes]":
        return self._start(kind, "builder-worker", platform, "-r", f"127.0.0.1:{self.port}")

    def client(self, kind: str, *arguments: str, ok: bool = True) -> str:
        done = subprocess.run(
            [binary(kind, "builder-client"), *arguments, "-r", f"127.0.0.1:{self.port}"],
            capture_output=True,
            timeout=DEADLINE,
            check=False,
            cwd=self.root,
        )
        output = (done.stdout + done.stderr).decode("utf-8", "replace")
        assert (done.returncode == 0) == ok, f"{kind} builder-client {arguments} exited {done.returncode}: {output}"
        return output

    def start_client(self, kind: str, *arguments: str) -> "subprocess.Popen[bytes]":
        return self._start(kind, "builder-client", *arguments, "-r", f"127.0.0.1:{self.port}", stdout=subprocess.PIPE)

    def script(self, text: str) -> str:
        path = self.root / f"script-{len(list(self.root.glob('script-*')))}.sh"
        path.write_text(text)
        return str(path)

    def fulls(self, job: str) -> list[Path]:
        return sorted((self.data / job).glob("*/full"), key=lambda path: path.stat().st_mtime)

    def wait_full(self, job: str, count: int = 1) -> Path:
        wait_until(lambda: len(self.fulls(job)) >= count, f"result {count} of {job}")
        return self.fulls(job)[-1]

    def _start(self, kind: str, name: str, *arguments: str, stdout: int | None = None) -> "subprocess.Popen[bytes]":
        log = self.root / f"{name}-{kind}.log"
        with log.open("ab") as target:
            process = subprocess.Popen(
                [binary(kind, name), *arguments],
                stdout=stdout or target,
                stderr=target,
                stdin=subprocess.DEVNULL,
                cwd=self.root,
                start_new_session=True,  # the original's worker kills its whole process group
            )
        self._stack.callback(end, process)
        return process

    def close(self) -> None:
        self._stack.close()


def end(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(DEADLINE)
    if process.stdout:
        process.stdout.close()
