"""Build Debian packages: ``debian/build.py [--output DIR] [--python /usr/bin/python3]``, or ``make deb``.

The programs and the libraries that they use are bundled in /usr/lib/builder, as wheels for the given Python: the one
that the packages are for, which is this release's own. Nothing is compiled. The same tree makes the same packages:
versions are those of constraints.txt, times those of SOURCE_DATE_EPOCH or else of the changelog.
"""

import argparse
import gzip
import os
import re
import shutil
import string
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from email.parser import HeaderParser
from email.utils import parsedate_to_datetime
from pathlib import Path

from attrs import field, frozen

HERE = Path(__file__).parent.resolve()
ROOT = HERE.parent
BUNDLE = Path("usr/lib/builder")

OLDEST_MINOR = 11
"""Of Python 3; requires-python in pyproject.toml."""

SCRIPTS = ("preinst", "postinst", "prerm", "postrm")


@frozen(kw_only=True)
class Package:
    """What is in a package: programs by the module of their ``main``, and files of the project by where they go."""

    name: str
    programs: dict[str, str] = field(factory=dict)
    pages: tuple[str, ...] = ()
    """Manual pages of files; those of the programs, and those whose name begins so, are here anyway."""
    files: dict[str, str] = field(factory=dict)
    secrets: frozenset[str] = frozenset()
    """Of the files, those that only root may read. All below etc are configuration."""


_SYSTEMD = "lib/systemd/system"

PACKAGES = (
    Package(
        name="builder-common",
        files={
            "README.md": "usr/share/doc/builder-common/README.md",
            "CHANGES.md": "usr/share/doc/builder-common/CHANGES.md",
            "SECURITY.md": "usr/share/doc/builder-common/SECURITY.md",
            "docs/*.md": "usr/share/doc/builder-common/",
            "docs/operations/*": "usr/share/doc/builder-common/operations/",
            "docs/examples/*": "usr/share/doc/builder-common/examples/",
        },
    ),
    Package(
        name="builder-server",
        programs={"builder-server": "builder_server.cli"},
        files={
            "systemd/builder-server.service": f"{_SYSTEMD}/builder-server.service",
            "systemd/builder-server.socket": f"{_SYSTEMD}/builder-server.socket",
            "systemd/sysusers.d/builder-server.conf": "usr/lib/sysusers.d/builder-server.conf",
            "systemd/tmpfiles.d/builder-server.conf": "usr/lib/tmpfiles.d/builder-server.conf",
            "systemd/server.env": "etc/builder/server.env",
            "templates/*": "usr/share/builder/templates/",
        },
        secrets=frozenset({"etc/builder/server.env"}),
    ),
    Package(
        name="builder-worker",
        programs={"builder-worker": "builder_worker.cli"},
        files={
            "systemd/builder-worker@.service": f"{_SYSTEMD}/builder-worker@.service",
            "systemd/builder-worker-room@.service": f"{_SYSTEMD}/builder-worker-room@.service",
            "systemd/builder-worker-container@.service": f"{_SYSTEMD}/builder-worker-container@.service",
            "systemd/builder-worker-root.conf": "usr/share/doc/builder-worker/examples/builder-worker-root.conf",
            "systemd/Containerfile": "usr/share/doc/builder-worker/examples/Containerfile",
            "systemd/sysusers.d/builder-worker.conf": "usr/lib/sysusers.d/builder-worker.conf",
            "systemd/tmpfiles.d/builder-worker.conf": "usr/lib/tmpfiles.d/builder-worker.conf",
            "systemd/worker.env": "etc/builder/worker.env",
        },
        secrets=frozenset({"etc/builder/worker.env"}),
    ),
    Package(
        name="builder-web",
        programs={"builder-web": "builder_web.cli", "builder-db": "builder_web.administration.cli"},
        files={
            "systemd/builder-web.service": f"{_SYSTEMD}/builder-web.service",
            "systemd/sysusers.d/builder-web.conf": "usr/lib/sysusers.d/builder-web.conf",
            "systemd/tmpfiles.d/builder-web.conf": "usr/lib/tmpfiles.d/builder-web.conf",
            "systemd/web.env": "etc/builder/web.env",
        },
        secrets=frozenset({"etc/builder/web.env"}),
    ),
    Package(
        name="builder-provision",
        programs={"builder-provision": "builder_provision.cli"},
        files={
            "systemd/builder-provision.service": f"{_SYSTEMD}/builder-provision.service",
            "systemd/sysusers.d/builder-provision.conf": "usr/lib/sysusers.d/builder-provision.conf",
            "systemd/provision.env": "etc/builder/provision.env",
        },
        secrets=frozenset({"etc/builder/provision.env"}),
    ),
    Package(
        name="builder-client",
        programs={"builder-client": "builder_client.cli", "builder-inspect": "builder_client.inspect"},
        pages=("builder-schedule.toml",),
    ),
)


class BuildError(Exception):
    """A package can't be built; the message says what to do."""


@frozen(kw_only=True)
class Release:
    """What the packages are built from and for."""

    version: str
    epoch: int
    python: Path
    python_minor: int
    architecture: str


def read_release(python: Path) -> Release:
    """Return what the changelog, the environment and this machine say. Raises BuildError."""
    head, _, rest = (HERE / "changelog").read_text("utf-8").partition("\n")
    stamp = re.search(r"^ -- .*>  (.*)$", rest, re.MULTILINE)
    version = re.fullmatch(r"builder \(([0-9][0-9A-Za-z.+~-]*)\) .*", head)
    if not version or not stamp:
        raise BuildError("debian/changelog does not begin with an entry of builder")
    code = re.search(r'__version__ = "(.*)"', (ROOT / "builder/__init__.py").read_text("utf-8"))
    if not code or version[1].partition("-")[0] != code[1]:
        raise BuildError(f"debian/changelog is for {version[1]}, the code is another version: add an entry")
    minor = int(_output(str(python), "-c", "import sys; print(sys.version_info.minor)"))
    if minor < OLDEST_MINOR:
        raise BuildError(f"{python} is Python 3.{minor}, and 3.{OLDEST_MINOR} is the oldest that builder runs on")
    return Release(
        version=version[1],
        epoch=int(os.environ.get("SOURCE_DATE_EPOCH") or parsedate_to_datetime(stamp[1]).timestamp()),
        python=python,
        python_minor=minor,
        architecture=_output("dpkg", "--print-architecture"),
    )


def _output(*command: str) -> str:
    return _run(*command, capture=True).strip()


def _run(*command: str, capture: bool = False, **environment: str) -> str:
    try:
        done = subprocess.run(
            command,
            check=True,
            text=True,
            stdout=subprocess.PIPE if capture else None,
            env={**os.environ, "LC_ALL": "C.UTF-8", **environment},
        )
    except FileNotFoundError as error:
        raise BuildError(f"{command[0]} is not installed") from error
    except subprocess.CalledProcessError as error:
        raise BuildError(f"{' '.join(command)} failed") from error
    return done.stdout if capture else ""


def bundle(release: Release, target: Path, work: Path) -> None:
    """Install the project and its libraries below ``target``, without anything that tells where that was done.

    The manual pages are left in ``work / "man"``.
    """
    # pip takes wheels for the Python that it runs on, and judges by it what a library needs.
    _run(str(release.python), "-m", "venv", str(work / "venv"))
    pip = (str(work / "venv/bin/python"), "-m", "pip", "--quiet", "--disable-pip-version-check")
    constraints = str(HERE / "constraints.txt")
    command = (*pip, "wheel", "--no-deps", "--wheel-dir", str(work), str(ROOT))
    # the wheel holds manual pages, whose words are partly those of click: its version counts as well
    _run(*command, SOURCE_DATE_EPOCH=str(release.epoch), PIP_CONSTRAINT=constraints)
    wheel = next(work.glob("builder-*.whl"))
    options = ("--target", str(target), "--only-binary", ":all:", "--no-compile", "--constraint", constraints)
    _run(*pip, "install", *options, f"{wheel}[web]")
    shutil.rmtree(target / "bin")
    shutil.move(target / "share/man", work / "man")
    (target / "share").rmdir()  # no library has anything there
    for name in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json"):
        for path in target.glob(f"*.dist-info/{name}"):
            path.unlink()
    for path in [*target.rglob("*.c"), *target.rglob("*.pyx"), *target.rglob("*.pxd")]:
        path.unlink()  # sources of what is there compiled


def licences(target: Path) -> Iterator[str]:
    """Return paragraphs of the copyright file, one for each library of the bundle."""
    for path in sorted(target.glob("*.dist-info/METADATA")):
        metadata = HeaderParser().parsestr(path.read_text("utf-8"))
        if metadata["Name"] == "builder":
            continue
        classifiers = [
            text.rpartition(" :: ")[2] for text in metadata.get_all("Classifier", []) if "License ::" in text
        ]
        licence = metadata["License-Expression"] or ", ".join(classifiers) or metadata["License"] or "see there"
        author = metadata["Author"] or metadata["Author-email"] or metadata["Maintainer-email"] or "its authors"
        place = f"/{BUNDLE}/{path.parent.name}"
        yield (
            f"\nFiles: {BUNDLE}/{path.parent.name.partition('-')[0]}/*\nCopyright: {' '.join(author.split())}\n"
            f"License: {metadata['Name']}-license\nComment: {metadata['Name']} {metadata['Version']}\n\n"
            f"License: {metadata['Name']}-license\n {' '.join(licence.split())}. Its text is in {place}.\n"
        )


def lay_out(package: Package, tree: Path, manual: Path) -> None:
    """Put a package's programs, their pages and its files in their places."""
    template = string.Template((HERE / "program.in").read_text("utf-8"))
    for name, module in package.programs.items():
        _write(tree / "usr/bin" / name, template.substitute(module=module), mode=0o755)
    for name in (*package.programs, *package.pages):
        for page in manual.glob(f"*/{name}.*"):
            _compress(page, tree / "usr/share/man" / page.parent.name / f"{page.name}.gz")
    for pattern, target in package.files.items():
        for source in sorted(ROOT.glob(pattern)):
            path = tree / target / source.name if target.endswith("/") else tree / target
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, path)
    documents = tree / "usr/share/doc" / package.name
    documents.mkdir(parents=True, exist_ok=True)
    _compress(HERE / "changelog", documents / "changelog.gz")
    shutil.copyfile(HERE / "copyright", documents / "copyright")
    overrides = HERE / package.name / "lintian-overrides"
    if overrides.exists():
        _write(tree / "usr/share/lintian/overrides" / package.name, overrides.read_text("utf-8"))


def _compress(source: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(source.read_bytes(), mtime=0))


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    path.chmod(mode)


def settle(tree: Path, package: Package) -> int:
    """Give files and directories their modes, whatever the umask was; return the size of all in KiB."""
    size = 0
    for path in [tree, *sorted(tree.rglob("*"))]:
        name = str(path.relative_to(tree))
        if path.is_dir():
            path.chmod(0o755)
        elif name in package.secrets:
            path.chmod(0o600)
        else:
            path.chmod(0o755 if name.startswith("usr/bin/") else 0o644)
        size += 1 + path.lstat().st_size // 1024 if path.is_file() else 1
    return size


def describe(package: Package, tree: Path, release: Release) -> str:
    """Write the package's control files; return the name of its file."""
    size = settle(tree, package)
    control = string.Template((HERE / package.name / "control").read_text("utf-8")).substitute(
        version=release.version,
        python=f"python3 (>= 3.{release.python_minor}~), python3 (<< 3.{release.python_minor + 1}~)",
    )
    architecture = "all" if "Architecture: all" in control else release.architecture
    control = control.replace("Architecture: any", f"Architecture: {architecture}")
    head, separator, description = control.partition("Description:")
    fields = f"Source: builder\nVersion: {release.version}\nInstalled-Size: {size}\n"
    _write(tree / "DEBIAN/control", head + fields + separator + description)
    configuration = [f"/{path.relative_to(tree)}\n" for path in sorted((tree / "etc").rglob("*")) if path.is_file()]
    if configuration:
        _write(tree / "DEBIAN/conffiles", "".join(configuration))
    for name in SCRIPTS:
        if (HERE / package.name / name).exists():
            _write(tree / "DEBIAN" / name, (HERE / package.name / name).read_text("utf-8"), mode=0o755)
    (tree / "DEBIAN").chmod(0o755)
    return f"{package.name}_{release.version}_{architecture}.deb"


def build(output: Path, python: Path, compression: int) -> list[Path]:
    """Build all packages into ``output`` and return their files. ``compression`` is xz's level, 0 to 9."""
    release = read_release(python)
    output.mkdir(parents=True, exist_ok=True)
    made = []
    with tempfile.TemporaryDirectory(prefix="builder-deb-") as directory:
        work = Path(directory)
        for package in PACKAGES:
            tree = work / package.name
            lay_out(package, tree, work / "man")
            if package.name == "builder-common":
                bundle(release, tree / BUNDLE, work)
                with (tree / "usr/share/doc" / package.name / "copyright").open("a", encoding="utf-8") as file:
                    file.writelines(licences(tree / BUNDLE))
            file_name = describe(package, tree, release)
            # xz on one thread, whatever the machine has: more would make another file.
            options = ("--root-owner-group", "--threads-max=1", "-Zxz", f"-z{compression}")
            command = ("dpkg-deb", *options, "--build", str(tree), str(output / file_name))
            _run(*command, capture=True, SOURCE_DATE_EPOCH=str(release.epoch))
            made.append(output / file_name)
    return made


def main() -> None:
    """Build what the command line asks for."""
    parser = argparse.ArgumentParser(description="Build Debian packages of builder for this release.")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="directory for the packages [dist]")
    parser.add_argument("--python", type=Path, default=Path("/usr/bin/python3"), help="the release's own Python")
    parser.add_argument("--compression", type=int, choices=range(10), default=6, help="level of xz [6]")
    arguments = parser.parse_args()
    try:
        for path in build(arguments.output, arguments.python, arguments.compression):
            print(path)
    except BuildError as error:
        sys.exit(f"debian/build.py: {error}")


if __name__ == "__main__":
    main()
