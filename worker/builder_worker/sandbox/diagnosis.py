"""Why a sandbox does not work on this machine, in words that lead to what mends it."""

import os
from collections.abc import Mapping
from pathlib import Path

from builder_worker.sandbox.linux import etc
from builder_worker.sandbox.linux.cgroups import Cgroups
from builder_worker.sandbox.processes import tools

ALWAYS_LIMITED = frozenset({"work_size", "shm_size"})
"""What sandboxes of Linux limit without control groups."""

Problem = tuple[str, str]
"""What is wrong, and what to do."""

_SETTINGS = (
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("user.max_user_namespaces", "0", "15000"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
)
"""Kernel settings that forbid user namespaces: name, forbidding value, value to set."""

_COMPLAINTS = (
    ("nknown option", "it is too old: {}", "install bubblewrap 0.8 or newer"),
    ("unknown flag", "it is too old: {}", "install podman 4.3 or newer"),
    ("image not known", "{}", "run `podman pull`, or `podman load`, as the user that the worker is"),
    ("stat /usr/bin/env", "{}", "take an image with /usr/bin/env and /bin/sh, which all may run"),
    ("hybrid mode not supported", "{}", "install runc, or let the machine have control groups of version 2 alone"),
)
"""Complaints of tools that have one cause: words in it, what to say of it, and what to do."""


def missing(programs: Mapping[str, str]) -> Problem | None:
    """Name the first program that is not installed; ``programs`` gives the Debian package of each."""
    for program, package in programs.items():
        if tools.find(program) is None:
            return f"{program} is not installed", f"apt install {package}, or what your system calls it"
    return None


def _forbidden_by() -> Problem | None:
    for name, forbidding, allowing in _SETTINGS:
        path = Path("/proc/sys", *name.split("."))
        if path.exists() and path.read_text().strip() == forbidding:
            return f"user namespaces are off ({name} = {forbidding})", f"sysctl -w {name}={allowing}"
    return None


def explain(said: str) -> Problem:
    """Return what a complaint of bubblewrap, podman or another tool means here."""
    for words, problem, remedy in _COMPLAINTS:
        if words in said:
            return problem.format(said), remedy
    if any(word in said for word in ("namespace", "uid map", "Operation not permitted", "Permission denied")):
        return _forbidden_by() or (
            f"namespaces cannot be made here: {said}",
            "inside of a container, use --sandbox none, or let the container make user namespaces",
        )
    return said, "this is none of the known causes: look up what the program says"


def notes(groups: Cgroups, *, network: bool = False) -> tuple[str, ...]:
    """Return what an operator should know about limits and names here."""
    remarks = []
    if network:
        remarks.append(_resolver())
    if groups.remedy:
        remarks.append(f"not all of memory, processes and CPUs can be limited: {groups.remedy}")
    if os.geteuid():
        remarks.append("the size of the work directory is measured every second, not limited by a file system")
    return tuple(remarks)


def _resolver() -> str:
    servers = etc.name_servers()
    if not servers:
        return f"jobs will look up no names: this machine's {etc.RESOLVER} names no server"
    return f"jobs look up names where this machine does: {', '.join(servers)}"
