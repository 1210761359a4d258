"""What the tests of the operators' files share."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

SHELLCHECK = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
"""The one that the project installs for its tests, or the system's."""

REQUIRED = frozenset(filter(None, os.environ.get("BUILDER_TEST_REQUIRE", "").split(",")))
"""Tools and files of operators that must be tested here, such as ``deb``: what would skip fails instead."""


def need(area: str, programs: Iterable[str], *, root: bool = False, python: str | None = None) -> None:
    """Skip the tests of an area where its programs are missing, or fail if the area is required.

    ``python`` is one that must be new enough and able to make virtual environments.
    """
    missing = [name for name in programs if shutil.which(name) is None]
    reason = f"not installed: {', '.join(missing)}" if missing else "needs root" if root and os.geteuid() else ""
    if python and not reason:
        able = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))"
        if subprocess.run([python, "-c", able], check=False, stderr=subprocess.DEVNULL).returncode:
            reason = f"{python} is older than 3.11, or python3-venv is not installed"
    if reason and area in REQUIRED:
        pytest.fail(f"{area} must work here: {reason}")
    if reason:
        pytest.skip(f"{area}: {reason}")


def shellcheck(*arguments: str | Path, stdin: bytes = b"") -> str:
    """Return what shellcheck says of a script of /bin/sh."""
    if SHELLCHECK is None:
        need("shellcheck", ["shellcheck"])
    done = subprocess.run(
        [str(SHELLCHECK), "--shell=sh", *arguments], input=stdin, capture_output=True, timeout=60, check=False
    )
    return (done.stdout + done.stderr).decode("utf-8", "replace")


def run(*command: str | Path, deadline: float = 120.0, check: bool = True, **options: object) -> str:
    """Run a program and return what it said on both outputs; a failure shows it."""
    done = subprocess.run(  # type: ignore[call-overload]
        list(map(str, command)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=deadline,
        check=False,
        **options,
    )
    said: str = done.stdout.decode("utf-8", "replace")
    assert not check or done.returncode == 0, f"{command}: exit {done.returncode}\n{said}"
    return said
