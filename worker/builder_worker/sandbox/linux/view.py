"""What a job sees of the file system, as arguments for bubblewrap.

From the host: /usr and what belongs to it, and the few files of /etc that programs cannot do without. From a root
tree: everything but the directories that are the sandbox's own. All of it is read-only.
"""

from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

from builder_worker.sandbox.options import Options

BUILD = "/build"
HOME = "/home/builder"
HOSTNAME = "builder"
UID = 1000
"""User and group of the job in its own eyes, the same on every machine."""

SHM_SIZE = 64 * 1024 * 1024
"""Bytes of /dev/shm, Docker's default; they count as memory of the job."""

_MERGED = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
"""Directories beside /usr that are links into it, or on old systems not."""

_ETC = ("alternatives", "debian_version", "fonts", "java-*", "ld.so.cache", "perl")
"""What installed programs read, with nothing in it about the machine."""

_ETC_NETWORK = (
    "resolv.conf",
    "ssl/certs",
    "ssl/openssl.cnf",
    "pki/tls",
    "pki/ca-trust",
    "ca-certificates.conf",
    "services",
)

_OWN = frozenset({"build", "dev", "home", "proc", "run", "sys", "tmp"})
"""Top directories of a root tree that are not shown, because the sandbox has its own."""

PASSWD = f"root:x:0:0:root:/root:/bin/sh\nbuilder:x:{UID}:{UID}:builder:{HOME}:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
GROUP = f"root:x:0:\nbuilder:x:{UID}:\nnogroup:x:65534:\n"
HOSTS = f"127.0.0.1 localhost {HOSTNAME}\n::1 localhost {HOSTNAME}\n"
NSSWITCH = "passwd: files\ngroup: files\nhosts: files dns\n"


@frozen(kw_only=True)
class View:
    """Arguments for bubblewrap, and files of /etc to be made with the given text."""

    arguments: tuple[str, ...]
    files: dict[str, str]


def _show(source: Path, target: str) -> Iterator[str]:
    if source.is_symlink():
        yield from ("--symlink", str(source.readlink()), target)
    else:
        yield from ("--ro-bind", str(source), target)


def _of_host(*, network: bool) -> Iterator[str]:
    yield from ("--ro-bind", "/usr", "/usr")
    for name in _MERGED:
        path = Path("/", name)
        if path.exists() or path.is_symlink():
            yield from _show(path, f"/{name}")
    for pattern in _ETC + (_ETC_NETWORK if network else ()):
        for path in sorted(Path("/etc").glob(pattern)):
            yield from ("--ro-bind", str(path.resolve()), str(path))
    yield from ("--symlink", "../usr/lib/os-release", "/etc/os-release", "--dir", "/var")
    yield from ("--symlink", "../tmp", "/var/tmp")  # noqa: S108 - the job's own


def _of_tree(root: Path, *, network: bool) -> Iterator[str]:
    for path in sorted(root.iterdir()):
        if path.name not in _OWN:
            yield from _show(path, f"/{path.name}")
    if network and (root / "etc/resolv.conf").is_file() and not (root / "etc/resolv.conf").is_symlink():
        yield from ("--ro-bind", str(Path("/etc/resolv.conf").resolve()), "/etc/resolv.conf")


def _files_of_tree(root: Path) -> dict[str, str]:
    """Add the job's user to a tree's own; a tree without such files keeps none."""
    files = {}
    for name, ours in (("passwd", PASSWD), ("group", GROUP)):
        path = root / "etc" / name
        if path.is_file() and not path.is_symlink():
            line = next(line for line in ours.splitlines() if line.startswith("builder:"))
            theirs = [other for other in path.read_text().splitlines() if not other.startswith("builder:")]
            files[name] = "\n".join([*theirs, line, ""])
    return files


def system(options: Options) -> View:
    """Return the read-only part of the view."""
    if options.root is None:
        files = {"passwd": PASSWD, "group": GROUP, "hosts": HOSTS, "nsswitch.conf": NSSWITCH}
        return View(arguments=("--dir", "/etc", *_of_host(network=options.network)), files=files)
    return View(arguments=tuple(_of_tree(options.root, network=options.network)), files=_files_of_tree(options.root))


def kernel() -> tuple[str, ...]:
    """Return the arguments for /proc and a /dev that cannot be filled."""
    return (
        *("--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"),
        *("--size", str(SHM_SIZE), "--perms", "1777", "--tmpfs", "/dev/shm"),  # noqa: S108 - the job's own
    )


def resolver() -> str:
    """Return the host's resolv.conf, or nothing if it has none."""
    path = Path("/etc/resolv.conf")
    return path.read_text(errors="replace") if path.exists() else ""
