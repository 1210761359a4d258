"""What builder-web takes: small uploads, large ones, and what its pages take meanwhile; medians of several runs.

python bench/bench_web_uploads.py [--runs N] [--huge]

With BUILDER_WEB_PEER_BIN, a folder with the original's builder-web and builder-db, each case is run beside the original.
Bodies are made before the clock starts. A figure ends with the answer, when all is on the disk; what the machine can
hash and write by itself stands first, as no program is faster than that.
"""

import hashlib
import http.client
import os
import queue
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from uuid import uuid4

import click
from attrs import frozen

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]

from figures import show  # noqa: E402

from builder import execution  # noqa: E402
from builder.execution import ExecutionEnd, ExecutionHead  # noqa: E402
from builder.model import Exited, Instant, ScriptJob  # noqa: E402

MB = 10**6
GROWTH = 32.0
"""MB by which the memory may grow."""

SPEED = 300.0
SMALL = 200
UPLOADERS = 4
READERS = 100
WHILE_READ = 20
PASSWORD = "secret"
AUTHORIZATION = "Basic " + b64encode(f"bench:{PASSWORD}".encode()).decode()


def main_binary(size: int, *, job: str) -> tuple[bytes, Iterator[bytes]]:
    """Return a new upload whose main binary has so many bytes: what stands before these, and these."""
    now = Instant(time.time_ns() // MB)
    path = "bin/hello.hvt"
    before, after = execution.execution_head(
        ExecutionHead(job=ScriptJob(name=job, platform="debian-12", script=b"#!/bin/sh\n" * 50), uuid=uuid4()),
        ExecutionEnd(started=now, finished=now, result=Exited(code=0)),
        console_length=0,
        data_length=execution.artifacts_length([(path, size)]),
    )
    piece = os.urandom(min(size, MB))
    return before + after + execution.artifact_head(path, size), (piece for _ in range(size // len(piece)))


@frozen
class Site:
    """A builder-web that runs."""

    port: int
    pid: int

    def post(self, size: int, job: str = "large") -> float:
        """Upload a build, over a connection of its own as builder-server does; return the seconds it took."""
        head, pieces = main_binary(size, job=job)
        request = "POST /upload HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        request += f"Authorization: {AUTHORIZATION}\r\nContent-Length: {len(head) + size}\r\n\r\n"
        began = time.perf_counter()
        with socket.create_connection(("127.0.0.1", self.port), timeout=1200) as stream:
            stream.sendall(request.encode() + head)
            for piece in pieces:
                stream.sendall(piece)
            answer = stream.recv(1000)
        assert answer.startswith(b"HTTP/1.1 201 "), answer
        return time.perf_counter() - began

    def get(self, path: str) -> float:
        """Read a page over a connection of its own; return the seconds it took."""
        began = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        assert answer.status == 200, answer.status
        return time.perf_counter() - began

    def memory(self, what: str) -> float:
        """Return a figure of /proc/PID/status in MB."""
        lines = Path(f"/proc/{self.pid}/status").read_text("ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:")) * 1024 / MB

    def forget_peak(self) -> None:
        """Have VmHWM begin at what is used now."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5", "ascii")


@contextmanager
def running(programs: Path, directory: Path) -> Iterator[Site]:
    """Run the builder-web of a folder of programs, ours or the original's."""
    data, configuration = directory / "data", directory / "etc"
    for made in (data, configuration):
        made.mkdir()
    environment = os.environ | {"MIOU_DOMAINS": "3"}
    for arguments in (["migrate"], ["user-add", "--unrestricted", "bench"]):
        subprocess.run(
            [programs / "builder-db", *arguments, "-d", data], input=PASSWORD, text=True, check=True, env=environment
        )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]  # the original can't choose one itself
    arguments = ["-h", "127.0.0.1", "-p", str(port), "-d", str(data), "-c", str(configuration)]
    with (
        (directory / "log").open("w") as log,
        subprocess.Popen([programs / "builder-web", *arguments], stdout=log, stderr=log, env=environment) as process,
    ):
        try:
            wait_for(port)
            site = Site(port, process.pid)
            site.post(1000)  # the password is remembered from now on, and everything is imported
            yield site
        finally:
            process.terminate()


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def at_once(count: int, work: Callable[[], object]) -> None:
    """Do something so many times at once, and wait for the end of all; an error of one is raised."""
    errors: queue.SimpleQueue[BaseException] = queue.SimpleQueue()

    def attempt() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - it is raised below, in the thread that waits
            errors.put(error)

    threads = [threading.Thread(target=attempt) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if not errors.empty():
        raise errors.get()


def small(site: Site, uploaders: int) -> tuple[float]:
    """Return uploads/s of builds of 10 KB, by that many who upload at once."""

    def upload() -> None:
        for _ in range(SMALL // uploaders):
            site.post(10_000, "small")

    began = time.perf_counter()
    at_once(uploaders, upload)
    return (SMALL / (time.perf_counter() - began),)


def large(site: Site, size: int) -> tuple[float, float]:
    """Return MB/s of one upload of so many bytes, and the MB by which the memory grew meanwhile."""
    site.forget_peak()
    before = site.memory("VmRSS")
    took = site.post(size)
    return size / MB / took, site.memory("VmHWM") - before


def read_meanwhile(site: Site) -> tuple[float, float]:
    """Return the 99th percentile in ms of what readers wait for pages while others upload, and the errors they saw."""
    took: list[float] = []
    errors: list[Exception] = []
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            try:
                took.append(site.get("/"))
            except (OSError, http.client.HTTPException, AssertionError) as error:
                errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(READERS)]
    for reader in readers:
        reader.start()
    try:
        at_once(WHILE_READ, lambda: site.post(10 * MB))
    finally:
        ended.set()
        for reader in readers:
            reader.join()
    return statistics.quantiles(took, n=100)[98] * 1000, len(errors)


def machine(directory: Path) -> None:
    """Show what there is to be had: the speed of hashing, and of writing to the disk."""
    piece = os.urandom(MB)
    hashed, written = [], []
    for _ in range(3):
        began = time.perf_counter()
        digest = hashlib.sha256()
        for _ in range(256):
            digest.update(piece)
        hashed.append(256 / (time.perf_counter() - began))
        began = time.perf_counter()
        with (directory / "written").open("wb", buffering=0) as file:
            for _ in range(256):
                file.write(piece)
            os.fsync(file.fileno())
        written.append(256 / (time.perf_counter() - began))
    (directory / "written").unlink()
    show("this machine: SHA-256, one core", hashed, "MB/s")
    show("this machine: 256 MB written and fsynced", written, "MB/s")


def measure(sites: dict[str, Site], runs: int, sizes: list[int]) -> None:
    """Run each case with each site in turn, so that what else the machine does slows both down."""

    def case(name: str, run: Callable[[Site], tuple[float, ...]], *columns: tuple[str, str, float | None]) -> None:
        """Show the figures that a case returns; each column is what it is, its unit and its goal."""
        found: dict[str, list[tuple[float, ...]]] = {kind: [] for kind in sites}
        for _ in range(runs):
            for kind, site in sites.items():
                found[kind].append(run(site))
        for number, (what, unit, goal) in enumerate(columns):
            ours = [figures[number] for figures in found["ours"]]
            show(f"    {what}" if number else name, ours, unit, goal=goal)
            if "theirs" in found:
                theirs = [figures[number] for figures in found["theirs"]]
                median = statistics.median(theirs)
                ratio = f", ours {statistics.median(ours) / median:.1f} times that" if median else ""
                show(f"    the original{ratio}", theirs, unit)

    for uploaders in (1, UPLOADERS):
        name = f"uploads of 10 KB, {uploaders} at once"
        case(name, partial(small, uploaders=uploaders), ("", "uploads/s", 100))
    for size in sizes:
        case(
            f"an upload of {size // MB} MB",
            partial(large, size=size),
            ("", "MB/s", SPEED),
            ("growth of memory", "MB", GROWTH),
        )
    case(
        f"{READERS} readers while {WHILE_READ} upload, p99",
        read_meanwhile,
        ("", "ms", 1000),
        ("errors", "requests", None),
    )


@click.command()
@click.option("--runs", type=click.IntRange(1), default=3, show_default=True, help="Runs of each, for the median.")
@click.option("--huge", is_flag=True, help="Upload 5 GB as well.")
def main(runs: int, *, huge: bool) -> None:
    """Measure what builder-web takes."""
    folders = {"ours": Path(sys.executable).parent}
    if peer := os.environ.get("BUILDER_WEB_PEER_BIN"):
        folders["theirs"] = Path(peer)
    sizes = [64 * MB, 256 * MB] + [5000 * MB] * huge
    with tempfile.TemporaryDirectory(prefix="builder-bench-") as directory, ExitStack() as stack:
        root = Path(directory)
        machine(root)
        sites = {}
        for kind, programs in folders.items():
            (root / kind).mkdir()
            sites[kind] = stack.enter_context(running(programs, root / kind))
        measure(sites, runs, sizes)


if __name__ == "__main__":
    main()
