"""builder-web as a process of its own, on a data directory with the users of ``sites``."""

import os
import re
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import forked
from attrs import define
from sites import make_directory

TIMEOUT = 60.0


@define
class Program:
    """A program that listens."""

    process: forked.Process
    log: Path
    urls: list[str]

    @property
    def url(self) -> str:
        return self.urls[0]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def memory(self, kind: str = "VmHWM") -> int:
        """Return the most bytes of memory that it had, or those that it has now (VmRSS)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"{kind}:\s+(\d+) kB", status)
        assert found
        return int(found[1]) * 1024

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=TIMEOUT)


@contextmanager
def running(root: Path, *args: str) -> Iterator[Program]:
    """Run a program until the block ends; its log is beside the data directory."""
    if not root.exists():
        make_directory(root)
    log = root.parent / f"{root.name}.log"
    arguments = ("--port", "0", "--datadir", str(root), "--configdir", str(root.parent / "config"), *args)
    with log.open("ab") as file:
        process = forked.start("builder_web", *arguments, env=os.environ, stdout=subprocess.PIPE, stderr=file)
    with process:
        assert process.stdout
        try:
            readable, _, _ = select.select([process.stdout], [], [], TIMEOUT)
            line = process.stdout.readline().decode() if readable else ""
            assert "listening on" in line, log.read_text()
            yield Program(process, log, re.findall(r"http://[^ ,\n]+", line))
        finally:
            if process.poll() is None:
                process.kill()
