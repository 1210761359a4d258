"""Example models of every page, ordinary and hostile: for the tests, and for `python tests/web/gallery.py`."""

import hashlib
import uuid

from builder.model import Aborted, Exited, Instant, Result, Signalled
from builder_web.charts.chart import Chart
from builder_web.charts.document import document, figure_of
from builder_web.pages import console, markdown, models
from builder_web.pages.parts import (
    ArtifactPair,
    ArtifactSummary,
    BuildSummary,
    Cell,
    CellState,
    Changes,
    FileDifference,
    History,
    Named,
    NamedChange,
    OpamFileChange,
    Paging,
)

NOW = 1_795_705_200_000  # 2026-11-26T15:00:00Z
HOUR = 3_600_000

DURATIONS = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 440 160" role="img" aria-label="Durations">
<path d="M50 10V130H430" fill="none" stroke="currentColor" stroke-opacity="0.25"/>
<path d="M50 100L100 97L150 92L180 60L220 64L290 62L340 30L370 58L430 59" fill="none" stroke="#4c6ebe" stroke-width="1.5"/>
<g fill="currentColor" font-size="12"><text x="44" y="20" text-anchor="end">4 min</text><text x="44" y="134" text-anchor="end">0</text>
<text x="50" y="150">October</text><text x="430" y="150" text-anchor="end">today</text></g></svg>"""


def digest(seed: object) -> str:
    return hashlib.sha256(ascii(seed).encode()).hexdigest()


def artifact(path: str, size: int, seed: object = None) -> ArtifactSummary:
    return ArtifactSummary(path=path, size=size, sha256=digest(seed if seed is not None else path))


def build(
    job: str = "hello-hvt",
    *,
    platform: str = "debian-12",
    hours: float = 3,
    minutes: float = 3.5,
    result: Result | None = None,
    output: str | None = "bin/hello.hvt",
    size: int = 6_300_000,
    seed: object = "a",
) -> BuildSummary:
    started = NOW - int(hours * HOUR)
    return BuildSummary(
        job=job,
        uuid=str(uuid.uuid5(uuid.NAMESPACE_URL, ascii(f"{job} {platform} {hours}"))),
        platform=platform,
        started=Instant(started),
        finished=Instant(started + int(minutes * 60_000)),
        result=result or Exited(code=0 if output else 2),
        output=artifact(output, size, (job, seed)) if output else None,
    )


def history(platform: str, states: str) -> History:
    kinds = {".": CellState.SAME, "n": CellState.NEW, "x": CellState.FAILED}
    return History(
        platform=platform,
        cells=tuple(
            Cell(
                uuid=build(platform=platform, hours=index * 24).uuid,
                started=Instant(NOW - (len(states) - index) * 24 * HOUR),
                state=kinds[state],
            )
            for index, state in enumerate(states)
        ),
    )


def state(job: str, platform: str, states: str, **kinds: object) -> models.JobOnPlatform:
    failed = states.endswith("x")
    return models.JobOnPlatform(
        platform=platform,
        newest=build(job, platform=platform, hours=30 if failed else 4, **kinds),  # type: ignore[arg-type]
        failed=build(job, platform=platform, hours=5, output=None) if failed else None,
        past=history(platform, states[-14:]).states,
    )


_ROWS = (
    ("Unikernels", (
        ("dns-primary", "Authoritative DNS server with zones from a git repository", (("debian-12", "n............."), ("freebsd-14", ".....n........"))),
        ("hello-hvt", "Unikernel hello - switch dependencies", (("debian-12", "..n..x........"), ("freebsd-14", "............nx"), ("ubuntu-24.04", "n.n.n.n.n.n.n."))),
        ("tlstunnel", "TLS reverse proxy that terminates connections for other unikernels on the same host", (("debian-12", "n......n......"),)),
    )),
    ("Unikernels (with metrics reported to Influx)", (
        ("dns-primary-monitoring", "Authoritative DNS server with zones from a git repository", (("debian-12", "n......"),)),
    )),
    ("Packages", (
        ("albatross", "Manages, starts and stops unikernels, with metrics of each", (("debian-12", "n....n..n....."), ("freebsd-14", "n...........n."))),
        ("builder", None, (("debian-12", "......n.x..x.x"),)),
        ("solo5", "Sandboxed execution environment", (("debian-12", "n............."), ("ubuntu-24.04", "n............."))),
    )),
)  # fmt: skip


def sections() -> tuple[models.JobSection, ...]:
    return tuple(
        models.JobSection(
            name=name,
            jobs=tuple(
                models.JobState(
                    name=job,
                    synopsis=synopsis,
                    platforms=tuple(
                        state(job, platform, row, output=f"bin/{job}.hvt", size=len(job) * 612_345, seed=row[-5:])
                        for platform, row in platforms
                    ),
                )
                for job, synopsis, platforms in jobs
            ),
        )
        for name, jobs in _ROWS
    )


def failures() -> tuple[BuildSummary, ...]:
    return (
        build(platform="freebsd-14", hours=5, output=None),
        build("builder", hours=7, output=None, result=Aborted(message="timeout after 2 h without output")),
        build("builder", hours=55, output=None, result=Signalled(signal=-7)),
    )


README = """# hello-hvt

Greets over the network, **once** per connection.

## Build it

```
opam install mirage
mirage configure -t hvt && make
```

| option | default | what it does |
| --- | --- | --- |
| `--port` | 80 | where it listens |
| `--hello` | "Hello" | what it says |

- [Documentation](https://docs.example.org/hello)
- ![Screenshot](https://docs.example.org/hello.png)
- <script>alert(1)</script> and [a trap](javascript:alert(1))

> Written for those who read it.
"""


def job_page() -> models.JobPage:
    return models.JobPage(
        name="hello-hvt",
        synopsis="Unikernel hello - switch dependencies",
        readme_html=markdown.to_html(README),
        platform=None,
        with_failed=True,
        platforms=("debian-12", "freebsd-14", "ubuntu-24.04"),
        entries=(
            models.JobEntry(build=build(hours=4), alike=14),
            models.JobEntry(build=build(platform="freebsd-14", hours=5, output=None)),
            models.JobEntry(build=build(platform="ubuntu-24.04", hours=20, seed="b", size=6_310_000), alike=1),
            models.JobEntry(build=build(hours=200, seed="c", result=Exited(code=3)), alike=3),
            models.JobEntry(build=build(platform="freebsd-14", hours=756, seed="d"), alike=1200),
        ),
        paging=Paging(start=20, count=20, total=1234, more=True),
        histories=(
            history("debian-12", "n......n............x........."),
            history("freebsd-14", "n...........................nx"),
            history("ubuntu-24.04", "n.n.n.n.n.n.n."),
        ),
        charts=(
            Chart(
                title="Duration on debian-12",
                svg=DURATIONS,
                description="Between 2 min 1 s and 4 min; 3 min 30 s lately.",
                rows=(("2026-11-26 10:00:00Z", "3 min 30 s"), ("2026-11-25 10:00:00Z", "3 min 28 s")),
            ),
            Chart(title="Size on debian-12", svg=DURATIONS, description="Between 5.9 MiB and 6.1 MiB; 6 MiB lately."),
        ),
    )


ARTIFACTS = (
    artifact("bin/hello.hvt", 6_300_000, ("hello-hvt", "a")),
    artifact("opam-switch", 17_500),
    artifact("build-environment", 235),
    artifact("system-packages", 123),
    artifact("hello.hvt.debug", 14_400_000),
    artifact("share/doc/ünï cödé/☃ notes & more.txt", 0),
)


def drawn(text: str) -> models.Drawing:
    """Return a drawing as it comes out of the cache."""
    chart = Chart(
        title="What takes the room in the binary",
        svg=DURATIONS,
        description=text,
        rows=((text, "4 MiB"), (".data", "1 MiB")),
    )
    return models.Drawing(figure_html=figure_of(document(chart).encode("utf-8", "replace").decode()))


def build_page(kind: str = "reproduced") -> models.BuildPage:
    this = build(output=None if kind == "failed" else "bin/hello.hvt", minutes=62.4)
    others = tuple(
        models.Reproducer(build=build(hours=hours, platform=platform), same_input=same)
        for hours, platform, same in ((30, "debian-12", True), (54, "freebsd-14", False), (80, "debian-12", False))
    )
    different = (build(hours=25, seed="z"), build(hours=26, seed="y")) if kind == "different" else ()
    told = models.Reproduction(
        builds=1 if kind == "once" else 14,
        inputs=1 if kind == "once" else 3,
        reproducers=() if kind == "once" else others,
        different=different,
        different_builds=len(different),
    )
    return models.BuildPage(
        build=this,
        artifacts=ARTIFACTS[1:] if kind == "failed" else ARTIFACTS,
        solo5=models.Solo5(
            target="hvt",
            abi_version=2,
            devices=(
                models.Device(name="storage", kind="BLOCK_BASIC"),
                models.Device(name="service", kind="NET_BASIC"),
            ),
        ),
        reproduction=None if kind == "failed" else told,
        latest=build(hours=1, seed="q"),
        later=build(hours=2, seed="p"),
        earlier=build(hours=100, seed="c"),
        graph=models.Drawing(figure_html=None),
        treemap=None if kind == "failed" else drawn("The largest section is .text with 4 MiB."),
        provenance=PROVENANCE.get(kind),
    )


PROVENANCE = {
    "once": models.Provenance(signature=models.SignatureState.VALID, keys=("3f" * 32,)),
    "different": models.Provenance(signature=models.SignatureState.INVALID, keys=("3f" * 32, "a7" * 32)),
    "failed": models.Provenance(signature=models.SignatureState.UNKNOWN, keys=("3f" * 32,), has_keys=False),
    "reproduced": models.Provenance(signature=models.SignatureState.VALID, keys=("3f" * 32,), differs="bin/hello.hvt"),
}

DIFF = """@@ -1,5 +1,5 @@
 opam-version: "2.0"
-version: "3.7"
+version: "3.17.2"
 depends: [
   "ocaml" {>= "4.08"}
"""


def comparison_page() -> models.ComparisonPage:
    left, right = build(hours=54), build(hours=30, seed="b", size=6_310_112)
    return models.ComparisonPage(
        left=left,
        right=right,
        artifacts=(
            ArtifactPair(
                path="bin/hello.hvt",
                left=left.output,
                right=right.output,
                difference=FileDifference(
                    first_byte=4182,
                    sections=(
                        NamedChange(name=".text", left="4.1 MiB", right="4.1 MiB", detail="12 bytes longer"),
                        NamedChange(name=".note.gnu.build-id", left="36 bytes", right="36 bytes"),
                    ),
                ),
            ),
            ArtifactPair(
                path="opam-switch",
                left=artifact("opam-switch", 17_500),
                right=artifact("opam-switch", 17_512, 2),
                difference=FileDifference(diff=DIFF),
            ),
            ArtifactPair(path="hello.hvt.debug", left=artifact("d", 14_400_000), right=None),
            ArtifactPair(path="notes.txt", left=None, right=artifact("n", 120)),
            *(ArtifactPair(path=one.path, left=one, right=one) for one in ARTIFACTS[2:4]),
        ),
        environment=Changes(
            removed=(Named(name="EMPTY", value=""), Named(name="ZZ", value="1")),
            added=(Named(name="OCAMLRUNPARAM", value="b"),),
            changed=(NamedChange(name="OS_VERSION", left="12.9", right="12"),),
            unchanged=9,
        ),
        system_packages=Changes(unchanged=143),
        opam_packages=Changes(
            removed=(Named(name="astring", value="0.8.5"),),
            added=(Named(name="conf-pkg-config", value="4"), Named(name="mirage-crypto-rng-mirage", value="1.1.0")),
            changed=(
                NamedChange(name="dune", left="3.7", right="3.17.2"),
                NamedChange(name="solo5", left="0.8.0", right="0.9.0"),
            ),
            unchanged=86,
        ),
        duniverse=Changes(
            changed=(
                NamedChange(
                    name="lwt",
                    left="git+https://src.example.org/team/lwt.git#1a2b3c",
                    right="git+https://src.example.org/team/lwt.git#4d5e6f",
                ),
            ),
        ),
        opam_files=(
            OpamFileChange(package="fmt", version="0.9.0", diff=DIFF),
            OpamFileChange(package="logs", version="0.7.0", diff=DIFF, effective=False),
        ),
        same_input=False,
        problems=("The opam-switch of the right build has 2 packages without their opam files.",),
    )


LOG = (
    b"0.050s:\x1b[1m+ opam install mirage\x1b[0m\n"
    b"1.002s:\x1b[32m[ok]\x1b[0m The following actions will be performed:\n"
    b"1.003s:  \x1b[36m*\x1b[0m install \x1b[1mdune\x1b[0m 3.17.2\n"
    b"4.250s:Downloading 1%\rDownloading 20%\rDownloading 60%\rDownloading 100%\n"
    b"61.000s:\x1b[33mWarning\x1b[0m: \x1b[1;4mdeprecated\x1b[0m <option> & \xff bytes that are no UTF-8\n"
    b"61.100s:\x1b]0;a title\x07\x1b[2K\x1b[38;5;196mError\x1b[0m: \x1b[41;97m exit \x1b[0m \xe2\x80\xaereversed\xe2\x80\xac text\n"
    b"62.000s:a long line: " + b"gcc -O2 -g -fPIC " * 40 + b"\n"
    b"3727.120s:done: ok\n"
)


def console_page(query: str = "") -> models.ConsolePage:
    lines = console.to_lines(LOG * 5, first=12_345)
    if query:
        lines = lines[4::8]
    return models.ConsolePage(
        build=build(minutes=62.4), lines=lines, total=15_000, size=1_234_567_890, count=40, query=query, more=True
    )


def ordinary() -> dict[str, models.Page]:
    found = models.FileFound(artifact=ARTIFACTS[0], build=build())
    return {
        "main": models.MainPage(sections=sections(), failures=failures(), expired_days=30),
        "main-empty": models.MainPage(sections=(), failures=(), expired_days=30),
        "all-builds": models.AllBuildsPage(sections=sections()),
        "job": job_page(),
        "failed-builds": models.FailedBuildsPage(
            builds=failures() * 6,
            platform=None,
            platforms=("debian-12", "freebsd-14"),
            paging=Paging(start=0, count=18, more=True),
        ),
        "failed-builds-none": models.FailedBuildsPage(
            builds=(), platform="debian-12", paging=Paging(start=0, count=20)
        ),
        "build": build_page(),
        "build-different": build_page("different"),
        "build-once": build_page("once"),
        "build-failed": build_page("failed"),
        "comparison": comparison_page(),
        "comparison-equal": models.ComparisonPage(
            left=build(hours=54),
            right=build(hours=30),
            artifacts=tuple(ArtifactPair(path=one.path, left=one, right=one) for one in ARTIFACTS),
            environment=Changes(unchanged=12),
            system_packages=Changes(unchanged=143),
            opam_packages=Changes(unchanged=90),
            duniverse=Changes(),
            same_input=True,
        ),
        "hash": models.HashPage(
            sha256=digest("x"),
            size=6_300_000,
            entries=(
                models.Found(build=build(), path="bin/hello.hvt"),
                models.Found(build=build("dns", hours=99), path="share/a/very/long/path/to/some/file/hello.hvt"),
            ),
            paging=Paging(start=0, count=20, total=2),
        ),
        "search": models.SearchPage(
            query="hello",
            jobs=(
                models.JobFound(name="hello-hvt", synopsis="Unikernel hello - switch dependencies"),
                models.JobFound(name="hello-xen", synopsis=None),
            ),
            files=(found, models.FileFound(artifact=ARTIFACTS[4], build=build())),
            packages=(models.PackageFound(name="hello", version="1.0", build=build()),),
            cut=True,
        ),
        "search-hash": models.SearchPage(query="2cf2", hashes=(found,)),
        "search-empty": models.SearchPage(query=""),
        "search-nothing": models.SearchPage(query="no such thing"),
        "console": console_page(),
        "console-found": console_page("warning"),
        "console-empty": models.ConsolePage(build=build(), lines=(), total=0, size=0, count=2000),
        "script": models.ScriptPage(
            build=build(),
            text="#!/bin/sh\nset -ex\n# <b>\nmirage configure -t hvt && make "
            + "--with-a-long-option=value " * 12
            + "\n",
            size=345,
        ),
        "error-404": models.ErrorPage(status=404, detail="There is no job named “hallo”."),
        "error-401": models.ErrorPage(status=401, detail="An upload needs a user and a password."),
    }


NASTY = "<script>alert('&quot;')</script>\u202e\u200f\x1b[31m\udcff\x00\"'`{{7*7}}\u05d0\u05d1"
LONG = "x" * 500


def hostile() -> dict[str, models.Page]:
    pages: dict[str, models.Page] = {}
    for name, text in (("nasty", NASTY), ("long", LONG), ("rtl", "\u05e9\u05dc\u05d5\u05dd " * 12)):
        bad = build(text, platform=text, output=f"bin/{text}")
        failed = build(text, platform=text, output=None, result=Aborted(message=text))
        one = ArtifactSummary(path=f"{text}/{text}", size=2**63, sha256=digest(text))
        row = history(text, "n.x")
        changes = Changes(
            removed=(Named(name=text, value=text),),
            added=(Named(name=text, value=text),),
            changed=(NamedChange(name=text, left=text, right=text, detail=text),),
        )
        pages |= {
            f"{name}-main": models.MainPage(
                sections=(models.JobSection(name=text, jobs=(models.JobState(name=text, synopsis=text, platforms=(models.JobOnPlatform(platform=text, newest=bad, failed=failed, past=row.states), models.JobOnPlatform(platform=text, newest=None, failed=failed))),)),),
                failures=(failed,),
                expired_days=0,
            ),
            f"{name}-job": models.JobPage(name=text, synopsis=text, readme_html=markdown.to_html(text), platform=text, with_failed=True, platforms=(text, "b"), entries=(models.JobEntry(build=bad), models.JobEntry(build=failed)), paging=Paging(start=0, count=1, more=True), histories=(row,)),
            f"{name}-failed-builds": models.FailedBuildsPage(builds=(failed,), platform=text, platforms=(text, "p"), paging=Paging(start=0, count=1, more=True)),
            f"{name}-build": models.BuildPage(
                build=bad, artifacts=(one,), solo5=models.Solo5(target=text, abi_version=2**63, devices=(models.Device(name=text, kind=text),), problem=None),
                reproduction=models.Reproduction(builds=2, inputs=0, reproducers=(models.Reproducer(build=bad, same_input=False),), different=(bad,), different_builds=7), latest=bad,
            ),
            f"{name}-failed-build": models.BuildPage(build=failed, artifacts=(one,), solo5=models.Solo5(target=None, abi_version=None, problem=text), treemap=drawn(text)),
            f"{name}-comparison": models.ComparisonPage(left=bad, right=failed, artifacts=(ArtifactPair(path=text, left=one, right=None, difference=FileDifference(diff=f"+{text}\n-{text}")),), environment=changes, system_packages=changes, opam_packages=changes, duniverse=changes, opam_files=(OpamFileChange(package=text, version=text, diff=text),), problems=(text,)),
            f"{name}-hash": models.HashPage(sha256=digest(1), size=0, entries=(models.Found(build=bad, path=text),), paging=Paging(start=0, count=20)),
            f"{name}-search": models.SearchPage(query=text, jobs=(models.JobFound(name=text, synopsis=text),), files=(models.FileFound(artifact=one, build=bad),), packages=(models.PackageFound(name=text, version=text, build=bad),), hashes=(models.FileFound(artifact=one, build=bad),)),
            f"{name}-console": models.ConsolePage(build=bad, lines=console.to_lines(text.encode("utf-8", "surrogateescape"), first=1), total=1, size=1, count=10, query=text),
            f"{name}-script": models.ScriptPage(build=bad, text=text, size=1, cut=True),
            f"{name}-error": models.ErrorPage(status=418, detail=text),
        }  # fmt: skip
    return pages
