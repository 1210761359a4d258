"""A site with builds as a farm makes them, behind a real socket: for whoever looks at pages, and for their pictures.

`python tests/web/populated.py FOLDER [JOBS BUILDS]` fills a data directory, serves it and prints the address.
"""

import datetime as dt
import hashlib
import io
import queue
import random
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import trio
from attrs import frozen
from served import serving
from sites import UPLOADS, InProcess, authorization, make_directory, open_site

from builder import execution
from builder.model import Artifact, ConsoleLine, Execution, Exited, Instant, Result, ScriptJob, Signalled
from builder_web import derived, server
from builder_web.binaries.elf import Elf, read_elf
from builder_web.directory import DataDirectory

NOW = Instant(1_795_704_000_000)
"""2026-11-26T15:00:00Z."""

PLATFORMS = ("debian-12", "freebsd-14", "ubuntu-24.04")
NAMES = (
    ("dns-primary", "Authoritative name server with its zone in a Git repository"),
    ("dns-resolver", "Recursive resolver that validates"),
    ("mail-relay", "Relays mail of the hosts of a network"),
    ("static-website", "Serves a directory over HTTPS"),
    ("vpn-gateway", "Gateway of a virtual private network"),
    ("backup-server", "Keeps snapshots of file systems"),
    ("log-collector", "Receives the logs of other hosts"),
    ("time-server", "Tells the time"),
)
README = b"""# dns-primary

Serves zones that are kept in a **Git** repository. See the [manual](https://example.org/dns-primary).

    solo5-hvt --net:service=tap100 bin/dns-primary.hvt --remote=git@git.example.org:zones.git
"""
EVERY_MS = 8 * 3600 * 1000


@frozen(kw_only=True)
class Build:
    """One build of the farm: ``state`` is the number of its input, and ``output`` that of what came out of it."""

    job: str
    synopsis: str
    platform: str
    number: int
    started: Instant
    state: int
    output: int | None


def farm(jobs: int, builds: int) -> Iterator[Build]:
    """Return builds, the oldest first: inputs change now and then, some outputs differ, some builds fail."""
    chance = random.Random(7)
    made = []
    for index in range(jobs):
        name, synopsis = NAMES[index % len(NAMES)]
        name = name if index < len(NAMES) else f"{name}-{index // len(NAMES) + 1}"
        for place, platform in enumerate(PLATFORMS[: 1 + index % 3]):
            state = 0
            for number in range(builds):
                state += chance.random() < 0.2
                fails = chance.random() < 0.06 or (index == 3 and place == 1 and number > builds - 3)
                differs = index % 5 == 4 and chance.random() < 0.2
                ago = (builds - number) * EVERY_MS - chance.randrange(3_600_000)
                made.append(
                    Build(
                        job=name,
                        synopsis=synopsis,
                        platform=platform,
                        number=number,
                        started=Instant(NOW.ms - ago),
                        state=state,
                        output=None if fails else state + 1000 * number * differs,
                    )
                )
    return iter(sorted(made, key=lambda build: build.started))


def switch_of(build: Build) -> bytes:
    name, state = build.job, build.state
    packages = [
        f"{name}.1.{state}",
        "ocaml.4.14.2",
        f"dune.3.{15 + state // 3}.0",
        f"mirage.4.{state % 7}.0",
        "cstruct.6.2.0",
    ]
    packages += ["lwt.5.7.0", f"tls.1.0.{state}", "x509.1.0.4", "fmt.0.9.0", "logs.0.7.0", "tcpip.8.2.0", "zarith.1.14"]
    listed = "\n".join(f'  "{package}"' for package in packages)
    needed = " ".join(f'"{package.partition(".")[0]}"' for package in packages[1:])
    sections = "\n".join(
        f'package "{package.partition(".")[0]}" {{\n  opam-version: "2.0"\n  depends: ["ocaml" "dune"]\n}}'
        for package in packages[3:]
    )
    return f"""opam-version: "2.0"
roots: ["{name}.1.{state}"]
installed: [
{listed}
]
package "{name}" {{
  opam-version: "2.0"
  synopsis: "{build.synopsis}"
  depends: [{needed}]
  x-mirage-opam-lock-location: "mirage/{name}.opam.locked"
  build: ["dune" "build" "--release={state}"]
}}
{sections}
""".encode()


def body_of(build: Build, *, elf: bytes, symbols: bytes) -> bytes:
    """Return the upload of a build."""
    seed = f"{build.job} {build.platform} {build.output}".encode()
    files = {
        "build-environment": f"CI=true\nHOME=/home/build\nSOURCE_DATE_EPOCH={1_790_000_000 + build.state}\n".encode(),
        "opam-switch": switch_of(build),
        "system-packages": f"gcc=12.2.0\ngit=2.39.{build.state % 9}\nmake=4.3\n".encode(),
    }
    if build.output is not None:
        extent = bytes(
            random.Random(f"{build.job} {build.platform} {build.state}").randbytes(40_000 + 900 * build.state)
        )
        files[f"bin/{build.job}.hvt"] = _stamped(elf, hashlib.sha256(seed).digest()) + extent
        files[f"{build.job}.hvt.debug"] = symbols
    if build.job == NAMES[0][0]:
        files["README.md"] = README
    result: Result = Exited(code=0)
    lines = [b"\x1b[1m<><> Gathering sources ><><><><><><><><><><>\x1b[0m", b"\x1b[32m[ok]\x1b[0m synchronised"]
    lines += [b"-> installed package-%d.%d" % (number, build.state) for number in range(40)]
    lines += [b"fetching 0%\rfetching 40%\rfetching 100%", b"\x1b[33mWarning\x1b[0m: a deprecated alert was raised"]
    if build.output is None:
        result = Signalled(signal=-7) if build.number % 3 == 0 else Exited(code=2)
        lines += [b"\x1b[31mError\x1b[0m: Unbound module Mirage_kv", b"make: *** [Makefile:12: build] Error 2"]
    seconds = 70 + 40 * (len(build.job) % 5) + random.Random(build.started.ms).randrange(25)
    return execution.encode(
        Execution(
            job=ScriptJob(
                name=build.job, platform=build.platform, script=b"#!/bin/sh -e\nopam install --yes .\nmake\n"
            ),
            uuid=UUID(int=random.Random(f"{build}").getrandbits(128), version=4),
            console=tuple(
                ConsoleLine(delta=seconds * 10**9 * index // len(lines), line=line) for index, line in enumerate(lines)
            ),
            started=build.started,
            finished=Instant(build.started.ms + seconds * 1000),
            result=result,
            artifacts=tuple(Artifact(path=path, content=content) for path, content in files.items()),
        )
    )


def _stamped(elf: bytes, stamp: bytes) -> bytes:
    """Return a file whose section of data that is only read begins with a stamp, as a time of the build would be."""
    found = read_elf(io.BytesIO(elf))
    assert isinstance(found, Elf)
    section = found.find(b".rodata") or found.sections[-1]
    return elf[: section.offset] + stamp[: section.size] + elf[section.offset + len(stamp[: section.size]) :]


def bodies(builds: Iterable[Build]) -> Iterator[bytes]:
    hello = execution.decode((UPLOADS / "hello-1.full").read_bytes()).artifacts
    elf = next(file.content for file in hello if file.path.startswith("bin/"))
    symbols = next(file.content for file in hello if file.path.endswith(".debug"))
    for build in builds:
        yield body_of(build, elf=elf, symbols=symbols)


def recorded() -> Iterator[bytes]:
    """Return the bodies of the recorded uploads that are taken."""
    for path in sorted(UPLOADS.glob("*.full")):
        if not path.name.startswith(("bad-", "future-")):
            yield path.read_bytes()


async def fill(site: InProcess, uploads: Iterable[bytes]) -> None:
    headers = authorization("admin")
    for content in uploads:
        answer = await site.client.request("POST", "/upload", content=content, headers=headers)
        assert answer.status == 201, answer.text
    await derived.note_switches(site.store, site.directory)


@contextmanager
def served_site(directory: DataDirectory, uploads: Iterable[bytes]) -> Iterator[str]:
    """Upload, and serve in a thread of its own; give the address."""
    told: queue.Queue[tuple[str, trio.lowlevel.TrioToken, trio.Event] | BaseException] = queue.Queue()

    async def main() -> None:
        async with open_site(directory, now=NOW, expired_days=0) as site:
            await fill(site, uploads)
            application = server.make_application(site.site, site.settings)
            async with serving(application, deadline=float("inf")) as served:
                stop = trio.Event()
                told.put((f"http://127.0.0.1:{served.port}", trio.lowlevel.current_trio_token(), stop))
                await stop.wait()

    def run() -> None:
        try:
            trio.run(main)
        except BaseException as error:  # noqa: BLE001 - raised where somebody waits
            told.put(error)

    thread = threading.Thread(target=run)
    thread.start()
    answer = told.get()
    if isinstance(answer, BaseException):
        thread.join()
        raise answer
    address, token, stop = answer
    try:
        yield address
    finally:
        token.run_sync_soon(stop.set)
        thread.join()


def now() -> dt.datetime:
    return dt.datetime.fromtimestamp(NOW.ms / 1000, dt.UTC)


def main(folder: Path, jobs: int = 60, builds: int = 30) -> None:
    """Fill a directory unless it was filled before, and serve it."""
    uploads = [] if folder.exists() else [*recorded(), *bodies(farm(jobs, builds))]
    directory = DataDirectory(folder) if folder.exists() else make_directory(folder)
    with served_site(directory, uploads) as address:
        print(address, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(number) for number in sys.argv[2:4]))
