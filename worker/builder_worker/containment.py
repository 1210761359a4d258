"""What this worker is inside of already: a container, a jail, a user namespace, or nothing."""

import os
import subprocess
import sys
from pathlib import Path

_MARKS = (
    ("/.dockerenv", "a Docker container"),
    ("/run/.containerenv", "a Podman container"),
)
"""Files that container programs put into every container."""

_ALL_USERS = 4294967295
"""Length of the map of users where there is no user namespace."""


def find(root: Path = Path("/")) -> str | None:
    """Return in words what this process is contained in, or None if nothing tells of it.

    ``root`` is where the system's files are looked for.
    """
    if sys.platform.startswith("freebsd"):
        return "a jail" if _is_jailed() else None
    for mark, what in _MARKS:
        if (root / mark.lstrip("/")).exists():
            return what
    return _by_manager(root) or _by_namespace(root) or _by_file_system(root)


def _is_jailed() -> bool:
    done = subprocess.run(["/sbin/sysctl", "-n", "security.jail.jailed"], capture_output=True, check=False)
    return done.stdout.strip() == b"1"


def _by_manager(root: Path) -> str | None:
    """See what systemd noted, or what the container program told the first process."""
    kind = _read(root / "run/systemd/container").strip()
    if not kind:
        environment = _read(root / "proc/1/environ").split("\0")
        kind = next((entry.removeprefix("container=") for entry in environment if entry.startswith("container=")), "")
    if not kind and os.environ.get("KUBERNETES_SERVICE_HOST"):
        kind = "kubernetes"
    return f"a container ({kind[:40]})" if kind else None


def _by_namespace(root: Path) -> str | None:
    """See whether user 0 here is not the machine's."""
    fields = _read(root / "proc/self/uid_map").split()
    return "a user namespace" if fields and fields != ["0", "0", str(_ALL_USERS)] else None


def _by_file_system(root: Path) -> str | None:
    """See whether the root is a layer over an image, as container programs make it that leave no other trace."""
    for line in _read(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        if before.split()[4:5] == ["/"] and after.split()[:1] == ["overlay"]:
            return "a container (its root is an overlay)"
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # not there, or not for this user
        return ""
