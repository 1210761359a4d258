"""The whole system on one machine: a server, a worker, a site that shows what they build, and a real job that runs twice.

The job builds this project's own wheel from sources that its script carries along. Both builds are compared at the
end, by the client and on the site: with SOURCE_DATE_EPOCH set they are byte-identical.
"""

import argparse
import base64
import contextlib
import io
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
PLATFORM = "demo"
JOB = "builder-wheel"
SOURCE_DATE_EPOCH = 1_700_000_000  # any fixed date will do
REPRODUCED = "reproduced: built 2 times"
DEADLINE = 80.0  # seconds for one build; on a slow machine it takes 10
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PACKAGES = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "man", *(Path(package).parts[0] for package in PACKAGES))

SCRIPT = """\
#!/bin/sh
set -eu
export SOURCE_DATE_EPOCH={epoch} PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={tools}
echo "unpacking the sources on $(uname -sm)"
sleep 1  # time to watch it live
mkdir .source
sed '1,/^# sources$/d' "$0" | base64 -d | tar -xzf - -C .source
echo "building the wheel with hatchling {version}"
cd .source
{python} -m hatchling build -t wheel -d ../bin  # the one file in bin/ is what a build is about: its main binary
cd ../bin
{python} -m zipfile -t *.whl
sha256sum *.whl
exit 0
# sources
{sources}
"""


class DemoFailed(Exception):
    """A step of the demo went wrong; the text says which."""


class UploadRefused(DemoFailed):
    """The receiver did not take a result; the text is what the server logged of it."""


@dataclass(frozen=True)
class Place:
    """Where the job runs: the worker's options, and where in there the interpreter and the build tool are."""

    options: list[str]
    python: Path
    tools: Path


@dataclass(frozen=True)
class Upload:
    """Where the server uploads to, and the address of the site that this demo runs; None: it is somebody else's."""

    url: str
    site: str | None = None


def main() -> int:
    """Run the demo and clean up, also after Ctrl-C."""
    argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="Environment: with a URL in UPLOAD the results go there, and no site is started; with KEEP=1 all programs "
        "run on until Ctrl-C.",
    ).parse_args()
    upload, stay = os.environ.get("UPLOAD"), os.environ.get("KEEP", "") not in ("", "0")
    # whoever stops the demo, Ctrl-C or a service manager, gets the same clean-up
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    directory = Path(tempfile.mkdtemp(prefix="builder-demo-"))
    directory.chmod(0o711)  # the job may be another user, who must get through to the tools
    os.environ["TMPDIR"] = str(directory)  # what the programs leave there goes with it
    failed, keep = True, False
    try:
        run(directory, upload, stay=stay)
        failed = False
    except UploadRefused as error:
        keep = True
        print(f"\ndemo: an upload was refused, the results stay in {directory / 'data'}:\n{error}", file=sys.stderr)
    except DemoFailed as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        for log in sorted(directory.glob("*.log")):
            print(f"--- {log.name}\n{log.read_text(errors='replace')[-4000:]}", file=sys.stderr)
    except KeyboardInterrupt:
        print("\ndemo: interrupted, everything it started is stopped", file=sys.stderr)
    finally:
        if not keep:
            shutil.rmtree(directory, ignore_errors=True)
    if not failed:
        print("Everything that it started is stopped, and its files are removed.")
        if not (stay or upload):
            print("To look at the pages yourself: make demo KEEP=1")
    return 1 if failed else 0


_held = [0]
"""How many blocks hold an interrupt back."""

_came: list[int] = []
"""The interrupt that was held back."""


def interrupt(number: int, _frame: FrameType | None) -> None:
    """Begin to clean up; a signal that comes again changes nothing."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    if _held[0]:
        _came.append(number)
    else:
        raise KeyboardInterrupt


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Hold an interrupt back until the block ends: a program that is being started, or stopped, is in nobody's hands."""
    _held[0] += 1
    try:
        yield
    finally:
        _held[0] -= 1
    if _came and not _held[0]:
        _came.clear()
        raise KeyboardInterrupt


def run(directory: Path, upload: str | None, *, stay: bool) -> None:
    """Start the programs, build twice, show what came of it. With ``stay`` they run on until Ctrl-C."""
    data, config = directory / "data", directory / "etc"
    data.mkdir(mode=0o700)
    config.mkdir()
    step("choosing a sandbox")
    place = choose_place(copy_tools(directory / "tools"))
    script = directory / "job.sh"
    script.write_text(make_script(place))
    options = ["--port", "0", "--dir", str(data), "--config-dir", str(config)]
    with contextlib.ExitStack() as running:
        receiver = Upload(upload) if upload else start_site(directory, running)
        step("starting a server")
        environment = os.environ | {"BUILDER_SERVER_UPLOAD": receiver.url}  # not for `ps` to show
        if receiver.site:
            environment |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        server = running.enter_context(
            program("builder-server", *options, log=directory / "server.log", env=environment, stdout=subprocess.PIPE)
        )
        address = read_address(server, "builder-server")
        print(f"   listening on {address}, data in {data}")
        client = ["builder-client", "--remote", address]
        step(f"scheduling the job {JOB}: {script.stat().st_size // 1024} KiB of script, which carries the sources")
        call(*client, "schedule", JOB, PLATFORM, str(script), "--period", "never")
        call(*client, "info")
        step("starting a worker, and watching the first build live")
        running.enter_context(
            program(
                "builder-worker",
                PLATFORM,
                "--remote",
                address,
                "--loop",
                *place.options,
                log=directory / "worker.log",
            )
        )
        watch(client, directory / "server.log", 1)
        step("executing it again")
        call(*client, "execute", JOB)
        builds = watch(client, directory / "server.log", 2)
        step("waiting until both builds are uploaded")
        wait_for_uploads(directory / "server.log", 2, is_own=receiver.site is not None)
        print("   both were; the server keeps no copies of its own")
        step("comparing both builds by the client")
        call(*client, "compare", *builds)
        if receiver.site:
            step("asking the site about the job")
            show_page(f"{receiver.site}/job/{JOB}")
        print("\nThe two wheels are byte-identical: the build is reproducible.")
        if stay:
            wait_for_interrupt(server, address, receiver)


def start_site(directory: Path, running: contextlib.ExitStack) -> Upload:
    """Make the data directory of a builder-web with a user who may upload, and start it on a free port."""
    step("starting a site that takes the results and shows them")
    data, password = directory / "site", secrets.token_urlsafe()
    call("builder-db", "migrate", "--datadir", str(data))
    call("builder-db", "user-add", "--datadir", str(data), "--unrestricted", "demo", said=password)
    options = ["--host", "127.0.0.1", "--port", "0", "--datadir", str(data), "--configdir", str(directory / "etc")]
    site = running.enter_context(program("builder-web", *options, log=directory / "site.log", stdout=subprocess.PIPE))
    address = read_address(site, "builder-web")
    print(f"   listening on {address}, data in {data}")
    return Upload(f"http://demo:{password}@{address.removeprefix('http://')}/upload", address)


def show_page(address: str) -> None:
    """Print the address of the job's page, and what it says of its builds."""
    print(f"   {address}")
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(address, timeout=DEADLINE) as answer:
            page = answer.read().decode()
    except OSError as error:
        raise DemoFailed(f"{address} can't be read: {error}") from None
    if REPRODUCED not in page:
        raise DemoFailed(f"{address} does not say “{REPRODUCED}”")
    print(f"   the page says “{REPRODUCED}”")


def wait_for_interrupt(server: subprocess.Popen[str], address: str, receiver: Upload) -> None:
    """Leave the programs running until Ctrl-C."""
    with contextlib.suppress(KeyboardInterrupt):
        print(
            "\nAll of it runs on, until you press Ctrl-C.\n"
            f"Ask the server with: {BIN / 'builder-client'} --remote {address} info"
        )
        if receiver.site:
            print(f"Look at the pages: {receiver.site}/job/{JOB}", flush=True)
        server.wait()
        raise DemoFailed("the server has ended")
    print()


def wait_for_uploads(log: Path, count: int, *, is_own: bool) -> None:
    """Wait until the server has uploaded so many results, or says that one was refused."""

    def told(what: str) -> list[str]:
        return [line for line in log.read_text().splitlines() if what in line]

    wait_until(lambda: told("not uploaded") or len(told(" uploaded (HTTP")) == count, "the uploads")
    if refused := told("not uploaded"):
        raise (DemoFailed if is_own else UploadRefused)("\n".join(refused))


def make_script(place: Place) -> str:
    """Return the job: a shell script with a tar of the sources behind it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name in SOURCES:
            archive.add(ROOT / name, name, filter=without_caches)
    return SCRIPT.format(
        epoch=SOURCE_DATE_EPOCH,
        python=place.python,
        tools=place.tools,
        version=metadata.version("hatchling"),
        sources=base64.encodebytes(packed.getvalue()).decode(),
    )


def without_caches(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out what is no source."""
    return None if "__pycache__" in member.name else member


def copy_tools(target: Path) -> Path:
    """Copy the build tool and what it needs, all of it plain Python: where this environment lies the job may not read."""
    wanted = PROJECT["build-system"]["requires"]
    pending, done = [re.split(r"[^A-Za-z0-9._-]", text)[0] for text in wanted], set()
    while pending:
        name = pending.pop()
        if name in done:
            continue
        done.add(name)
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # for another version of Python
            continue
        pending += [
            re.split(r"[^A-Za-z0-9._-]", text)[0] for text in distribution.requires or () if "extra" not in text
        ]
        for file in distribution.files or ():
            if ".." not in file.parts and file.suffix != ".pyc":
                (target / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(str(file.locate()), target / file)
    for path in (target, *target.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return target


def choose_place(tools: Path) -> Place:
    """Take the best sandbox that works here and that has a Python in it; say which, or that there is none."""
    _, checked, errors = completed(
        BIN / "builder-worker", "check", "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        best = json.loads(checked)["auto"]
    except (ValueError, KeyError):
        raise DemoFailed(f"builder-worker check failed: {errors}") from None
    python, base = Path(sys.base_prefix, "bin", "python3"), Path(sys.base_prefix)
    shared = [f"{tools}:/opt/tools"]
    if not base.is_relative_to("/usr") and can_be_shown(base):
        shared.append(f"{base}:{base}")
    elif not base.is_relative_to("/usr"):
        python = Path("/usr/bin/python3")
    reason = "see `builder-worker check`: on Debian, apt-get install bubblewrap"
    if best and not is_new_enough(python):
        best, reason = None, f"no Python that jobs could use: {base} is closed to other users"
    if not best:
        print(f"   none works here ({reason}): THE JOB RUNS WITHOUT A SANDBOX")
        return Place(["--sandbox", "none"], Path(sys.executable), tools)
    print(f"   {best}: the job sees /usr, its own directory and the build tool, and no network")
    binds = [part for bind in shared for part in ("--bind", bind)]
    return Place(["--sandbox", best, *binds], python, Path("/opt/tools"))


def can_be_shown(path: Path) -> bool:
    """Return whether a job can reach a directory of this machine: as root, it is another user."""
    return os.geteuid() != 0 or all(above.stat().st_mode & 0o001 for above in (path, *path.parents))


def is_new_enough(python: Path) -> bool:
    """Return whether there is an interpreter that the build tool works with."""
    test = "import sys, zipfile; sys.exit(sys.version_info < (3, 11))"
    try:
        status, _, _ = completed(python, "-I", "-c", test, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError:
        return False
    return status == 0


def step(text: str) -> None:
    """Tell what comes next."""
    print(f"\n== {text}", flush=True)


@contextlib.contextmanager
def started(*command: str | Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a program until the block ends, whatever ends it."""
    process: subprocess.Popen[str] | None = None
    try:
        with held():
            process = subprocess.Popen(command, text=True, **options)
        yield process
    finally:
        if process is not None:
            with held(), process:
                process.terminate()
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    process.kill()


@contextlib.contextmanager
def program(name: str, *arguments: str, log: Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run one of the programs until the block ends; what it logs goes to a file."""
    with (
        log.open("w") as target,
        started(
            BIN / name, *arguments, stderr=target, stdin=subprocess.DEVNULL, start_new_session=True, **options
        ) as process,
    ):
        yield process


def completed(
    *command: str | Path, said: str = "", deadline: float | None = None, **options: Any
) -> tuple[int, str, str]:
    """Run a program to its end, with so much on its standard input; return its status and what it wrote to pipes.

    Raises TimeoutExpired.
    """
    with started(*command, stdin=subprocess.PIPE, **options) as process:
        written, errors = process.communicate(said, deadline)
        return process.returncode, written or "", errors or ""


def read_address(server: subprocess.Popen[str], name: str) -> str:
    """Return where a program listens: the last word of its first line."""
    assert server.stdout is not None
    line = server.stdout.readline()
    if not line:
        raise DemoFailed(f"{name} did not start")
    return line.split()[-1]


def call(*command: str, said: str = "") -> None:
    """Run a program to its end, with so much on its standard input."""
    status, _, _ = completed(BIN / command[0], *command[1:], said=said)
    if status:
        raise DemoFailed(f"{' '.join(command)} failed")


def watch(client: list[str], log: Path, count: int) -> list[str]:
    """Wait until that many builds have begun, observe the last one until it ends well, and return the uuids of all."""

    def begun() -> list[str]:
        return re.findall(r" build (\S+) of \S+ on \S+: begins at ", log.read_text())

    wait_until(lambda: len(begun()) >= count, f"the beginning of build {count}")
    command = [str(BIN / client[0]), *client[1:], "observe", begun()[-1], "--exit-status"]
    try:
        status, _, _ = completed(*command, deadline=DEADLINE)
    except subprocess.TimeoutExpired:
        raise DemoFailed(f"build {count} took longer than {DEADLINE:.0f} seconds") from None
    if status:
        raise DemoFailed(f"build {count} failed")
    return begun()


def wait_until(condition: Any, what: str) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            raise DemoFailed(f"{what} took longer than {DEADLINE:.0f} seconds")
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
