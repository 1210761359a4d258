"""The whole system on one machine: a server, a worker, and a real job that runs twice.

The job builds this project's own wheel from sources that its script carries along. Both builds are compared at the
end: with SOURCE_DATE_EPOCH set they are byte-identical.
"""

import argparse
import base64
import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
PLATFORM = "demo"
JOB = "builder-wheel"
SOURCE_DATE_EPOCH = 1_700_000_000  # any fixed date will do
DEADLINE = 80.0  # seconds for one build; on a slow machine it takes 10
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "builder", "server", "worker", "client")

SCRIPT = """\
#!/bin/sh
set -eu
export SOURCE_DATE_EPOCH={epoch} PYTHONDONTWRITEBYTECODE=1
echo "unpacking the sources on $(uname -sm)"
mkdir .source
sed '1,/^# sources$/d' "$0" | base64 -d | tar -xzf - -C .source
echo "building the wheel with hatchling {version}"
cd .source
{python} -m hatchling build -t wheel -d ..
cd ..
{python} -m zipfile -t *.whl
sha256sum *.whl
exit 0
# sources
{sources}
"""


class DemoFailed(Exception):
    """A step of the demo went wrong; the text says which."""


def main() -> int:
    """Run the demo and clean up, also after Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--upload", metavar="URL", help="upload the results instead of keeping them on disk")
    upload = parser.parse_args().upload
    # whoever stops the demo, Ctrl-C or a service manager, gets the same clean-up
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    directory = Path(tempfile.mkdtemp(prefix="builder-demo-"))
    failed = True
    try:
        run(directory, upload)
        failed = False
    except DemoFailed as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        for log in sorted(directory.glob("*.log")):
            print(f"--- {log.name}\n{log.read_text(errors='replace')[-4000:]}", file=sys.stderr)
    except KeyboardInterrupt:
        print("\ndemo: interrupted, everything it started is stopped", file=sys.stderr)
    finally:
        if failed or upload:
            shutil.rmtree(directory, ignore_errors=True)
    return 1 if failed else 0


def run(directory: Path, upload: str | None) -> None:
    """Start the programs, build twice, show what came of it."""
    data, config = directory / "data", directory / "etc"
    data.mkdir()
    config.mkdir()
    script = directory / "job.sh"
    script.write_text(make_script())
    options = ["--port", "0", "--dir", str(data), "--config-dir", str(config)]
    environment = os.environ | ({"BUILDER_SERVER_UPLOAD": upload} if upload else {})  # not for `ps` to show
    with contextlib.ExitStack() as running:
        step("starting a server")
        server = running.enter_context(
            program("builder-server", *options, log=directory / "server.log", env=environment, stdout=subprocess.PIPE)
        )
        address = read_address(server)
        print(f"   listening on {address}, data in {data}")
        client = ["builder-client", "--remote", address]
        step(f"scheduling the job {JOB}: {script.stat().st_size // 1024} KiB of script, which carries the sources")
        call(*client, "schedule", JOB, PLATFORM, str(script), "--period", "never")
        call(*client, "info")
        step("starting a worker, and watching the first build live")
        watching = start(*client, "observe", "--follow-next", JOB, "--exit-status")
        running.enter_context(
            program(
                "builder-worker",
                PLATFORM,
                "--remote",
                address,
                "--loop",
                *worker_options(),
                log=directory / "worker.log",
            )
        )
        wait_for(watching, "the first build")
        step("executing it again")
        watching = start(*client, "observe", "--follow-next", JOB, "--exit-status")
        call(*client, "execute", JOB)
        wait_for(watching, "the second build")
        step("comparing both builds")
        if upload:
            wait_until(lambda: (directory / "server.log").read_text().count(" uploaded (HTTP") == 2, "both uploads")
            print("   both executions were uploaded, and their local copies removed")
        else:
            compare(sorted(data.glob(f"{JOB}/*/full"), key=lambda path: path.stat().st_mtime))


def make_script() -> str:
    """Return the job: a shell script with a tar of the sources behind it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name in SOURCES:
            archive.add(ROOT / name, name, filter=without_caches)
    return SCRIPT.format(
        epoch=SOURCE_DATE_EPOCH,
        python=sys.executable,
        version=metadata.version("hatchling"),
        sources=base64.encodebytes(packed.getvalue()).decode(),
    )


def without_caches(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out what is no source."""
    return None if "__pycache__" in member.name else member


def worker_options() -> list[str]:
    """Return what the job needs of this machine besides the system itself: the Python that has the build tool."""
    return []


def compare(executions: list[Path]) -> None:
    """Print the artifacts of both builds and whether they are the same."""
    digests = []
    for execution in executions:
        shown = subprocess.run(
            [BIN / "builder-inspect", "--json", execution], capture_output=True, text=True, check=False
        )
        if shown.returncode:
            raise DemoFailed(f"builder-inspect failed: {shown.stderr}")
        artifacts: list[dict[str, Any]] = json.loads(shown.stdout)["artifacts"]
        print(f"   {execution}")
        for artifact in artifacts:
            print(f"      {artifact['path']}  {artifact['size']} bytes  SHA-256 {artifact['sha256']}")
        digests.append([(artifact["path"], artifact["sha256"]) for artifact in artifacts])
    if len(digests) != 2 or not digests[0] or digests[0] != digests[1]:
        raise DemoFailed("the two builds differ, or left no wheel")
    print("\nThe two wheels are byte-identical: the build is reproducible.")
    print(
        f"Look closer with: {BIN / 'builder-inspect'} {executions[-1]}\nRemove the results with: rm -r {executions[0].parents[3]}"
    )


def step(text: str) -> None:
    """Tell what comes next."""
    print(f"\n== {text}", flush=True)


@contextlib.contextmanager
def program(name: str, *arguments: str, log: Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a program until the block ends; what it logs goes to a file."""
    with (
        log.open("w") as target,
        subprocess.Popen(
            [BIN / name, *arguments],
            stderr=target,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            **options,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()


def read_address(server: subprocess.Popen[str]) -> str:
    """Return where the server listens: the last word of its first line."""
    assert server.stdout is not None
    line = server.stdout.readline()
    if not line:
        raise DemoFailed("the server did not start")
    return line.split()[-1]


def call(*command: str) -> None:
    """Run a program of the client to its end."""
    done = subprocess.run([BIN / command[0], *command[1:]], check=False)
    if done.returncode:
        raise DemoFailed(f"{' '.join(command)} failed")


def start(*command: str) -> subprocess.Popen[str]:
    """Start a program of the client that shows a build."""
    return subprocess.Popen([BIN / command[0], *command[1:]], text=True)


def wait_for(watching: subprocess.Popen[str], what: str) -> None:
    """Wait until a build that is watched ends well."""
    try:
        status = watching.wait(DEADLINE)
    except subprocess.TimeoutExpired:
        raise DemoFailed(f"{what} took longer than {DEADLINE:.0f} seconds") from None
    finally:
        watching.kill()
    if status:
        raise DemoFailed(f"{what} failed")


def wait_until(condition: Any, what: str) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            raise DemoFailed(f"{what} took longer than {DEADLINE:.0f} seconds")
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
