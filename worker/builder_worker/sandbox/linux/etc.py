"""What /etc holds in a job: one table for all back ends.

Some files are the sandbox's own, since they say where the job is: ``texts`` makes them, for the host's /usr, for a root
tree and for what has a system of its own. The rest is the root tree's. From a host come only files that programs can't do
without and that say nothing about the machine: ``shown`` finds them, ``dangling`` what is missing among them.
"""

import fnmatch
import os
import stat
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from attrs import frozen

HOSTNAME = "builder"

USER, HOME = "builder", "/home/builder"
"""The job, where it is a plain user."""

RESOLVER = Path("/etc/resolv.conf")
"""The host's; often a link, which leads somewhere on the host alone."""

_HOSTS = f"127.0.0.1 localhost\n::1 localhost\n127.0.0.1 {HOSTNAME}\n::1 {HOSTNAME}\n"
_NSSWITCH = "passwd: files\ngroup: files\nhosts: files dns\n"

_USERS = {
    "passwd": b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "group": b"root:x:0:\nnogroup:x:65534:\n",
}
"""Who there is besides the job, where the system does not say."""

_PUBLIC = (
    # the system: which one it is, which of its programs are meant, how they are linked
    *("alternatives", "debian_version", "*-release", "ld.so.cache"),
    *("dpkg/origins", "dpkg/shlibs.default", "dpkg/shlibs.override"),
    # numbers and kinds
    *("ethertypes", "protocols", "rpc", "services", "magic", "magic.mime", "mime.types"),
    # certificates and ciphers, but no key: what the machine trusts
    *("ca-certificates", "ca-certificates.conf", "crypto-policies", "ssl/cert.pem", "ssl/certs", "ssl/openssl.cnf"),
    *("pki/ca-trust", "pki/java", "pki/tls/cert.pem", "pki/tls/certs", "pki/tls/openssl.cnf"),
    # text, fonts, pictures
    *("aspell*", "dictionaries-common", "fonts", "groff", "inputrc", "locale.alias", "papersize", "paperspecs"),
    *("sgml", "terminfo", "texmf", "xml", "ImageMagick-*", "X11/rgb.txt"),
    # languages and their tools
    *("R", "ant", "emacs", "ghc", "gradle", "guile*", "java*", "maven*", "mono", "ocaml", "perl"),
    *("python3", "python3.*", "sbclrc", "scala"),
    *("OpenCL", "glvnd", "vulkan", "mke2fs.conf", "shells"),
)
"""What installed programs read, with nothing in it about the machine, and nothing that is an operator's to keep. No
settings of programs that take passwords or tokens: pip, npm, git, wget, package managers."""

_PRIVATE = ("environment", "hostname", "localtime", "machine-id", "ssl/private")
"""What links of installed programs lead to, and jobs are not to see."""

_SCAN_TIMEOUT = 1.0
"""Seconds for looking at all of /usr; a large one on a slow disk is looked at in part."""


@frozen(kw_only=True)
class Account:
    """The job's user in its own eyes, where it is none of the system's: ``number`` is its group's too."""

    number: int

    def line(self, name: str) -> bytes:
        """Return its line in passwd or group."""
        user = f"{USER}:x:{self.number}:{self.number}:{USER}:{HOME}:/bin/sh"
        return (user if name == "passwd" else f"{USER}:x:{self.number}:").encode()


def where(*, network: bool) -> dict[str, bytes]:
    """Return the files that say where a job is. Without a network there is no resolver, whatever a tree says."""
    return {
        "hosts": _HOSTS.encode(),
        "hostname": f"{HOSTNAME}\n".encode(),
        "resolv.conf": resolver() if network else b"",
    }


def texts(root: Path | None, *, network: bool, account: Account | None) -> dict[str, bytes]:
    """Return all files that are not the system's own; ``root`` None is the host, ``account`` None user 0.

    Raises OSError.
    """
    files = where(network=network)
    if root is None or not os.path.lexists(root / "etc/nsswitch.conf"):
        files["nsswitch.conf"] = _NSSWITCH.encode()
    for name, ours in _USERS.items():
        theirs = None if root is None or not _is_file(root / "etc" / name) else (root / "etc" / name).read_bytes()
        if account is not None:
            files[name] = _with(account.line(name), ours if theirs is None else theirs)
        elif theirs is None:
            files[name] = ours
    return files


def missing(root: Path) -> list[str]:
    """Return what a tree must have so that files of ours can be mounted where nothing can be made, sorted."""
    names = ("group", "hostname", "hosts", "nsswitch.conf", "passwd", "resolv.conf")
    return [f"/etc/{name}" for name in names if not _is_file(root / "etc" / name)]


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()  # a link leads nowhere, or somewhere on the host


def _with(line: bytes, others: bytes) -> bytes:
    """Add a user or group to others, byte for byte, in place of one of that name."""
    name = line.partition(b":")[0] + b":"
    kept = [other for other in others.rstrip(b"\n").split(b"\n") if not other.startswith(name)]
    return b"\n".join([*kept, line, b""])


def write(layer: Path, files: dict[str, bytes], *, root: Path | None, owner: int) -> None:
    """Write files of /etc into a layer over a tree, for a job whose user 0 is ``owner``. Raises OSError."""
    directory = layer / "etc"
    directory.mkdir()
    below = None if root is None else root / "etc"
    shown_as = below.lstat() if below is not None and below.is_dir() and not below.is_symlink() else None
    for name, text in files.items():
        (directory / name).write_bytes(text)
        (directory / name).chmod(0o644)
        os.chown(directory / name, owner, owner)
    directory.chmod(0o755 if shown_as is None else stat.S_IMODE(shown_as.st_mode))
    os.chown(directory, *((owner, owner) if shown_as is None else (owner + shown_as.st_uid, owner + shown_as.st_gid)))


def resolver() -> bytes:
    """Return the host's resolv.conf; nothing if it has none. Jobs with a network share the host's, its loopback too."""
    try:
        return RESOLVER.read_bytes()
    except OSError:  # missing, or a link to what is
        return b""


def name_servers() -> tuple[str, ...]:
    """Return the addresses that jobs with a network ask for names."""
    lines = (line.split() for line in resolver().decode(errors="replace").splitlines())
    return tuple(words[1] for words in lines if len(words) > 1 and words[0] == "nameserver")


def shown(etc: str = "/etc") -> tuple[str, ...]:
    """Return the paths of what jobs see of the host's own /etc."""
    return _shown(etc, os.stat(etc).st_mtime_ns)  # noqa: PTH116 - for each job


@lru_cache(maxsize=1)
def _shown(etc: str, _time: int) -> tuple[str, ...]:
    """Look for it, again when something has come or gone: it takes longer than to start a sandbox's first program."""
    names = sorted(os.listdir(etc))  # noqa: PTH208
    found = []
    for pattern in _PUBLIC:
        top, slash, below = pattern.partition("/")
        for name in fnmatch.filter(names, top) if "*" in top else (top,):
            path = f"{etc}/{name}{slash}{below}"
            if os.path.exists(path):  # noqa: PTH110
                found.append(path)
    return tuple(found)


def dangling(usr: Path = Path("/usr"), etc: Path = Path("/etc"), *, timeout: float = _SCAN_TIMEOUT) -> list[str]:
    """Return what links of installed programs lead to in /etc that is there and that jobs do not see, sorted."""
    deadline = time.monotonic() + timeout
    seen = (*map(Path, shown(str(etc))), *(etc / name for name in _PRIVATE))
    found = set()
    for link in _links(usr, deadline):
        target = Path(os.path.normpath(link.parent / link.readlink()))
        if target.is_relative_to(etc) and target.exists() and not any(map(target.is_relative_to, seen)):
            found.add(str(target))
    return sorted(found)


def _links(top: Path, deadline: float) -> Iterator[Path]:
    """Return the symbolic links below a directory, those near to its top first."""
    level = [str(top)]
    while level:
        below = []
        for directory in level:
            if time.monotonic() > deadline:
                return
            try:
                with os.scandir(directory) as entries:
                    for entry in entries:
                        if entry.is_symlink():
                            yield Path(entry.path)
                        elif entry.is_dir(follow_symlinks=False):
                            below.append(entry.path)
            except OSError:  # not for this user
                continue
        level = below
