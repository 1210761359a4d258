"""Short runs of the system's own tools: mkfs, mount, rm."""

import importlib.util
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import trio

from builder.model import printable
from builder_worker.sandbox import SandboxError

TIMEOUT = 300.0
"""Seconds that a tool may take; removing a directory of millions of files takes minutes."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Users often have no sbin in their PATH."""

ENVIRONMENT = {"PATH": _PATH, "LC_ALL": "C.UTF-8"}
"""What tools see of the worker's environment: nothing."""


UMASK = 0o022
"""Whatever that of the worker is, which may be for its own files."""


def find(name: str) -> str | None:
    """Return the path of a program, or None."""
    return shutil.which(name, path=_PATH)


def write_private(path: Path, data: bytes, *, owner: int | None = None) -> None:
    """Make a file that only this user may read, or another one. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
    with os.fdopen(descriptor, "wb") as file:
        if owner is not None:
            os.fchown(descriptor, owner, owner)
        file.write(data)


def python(module: ModuleType) -> tuple[str, ...]:
    """Return the start of a command line that runs a module as a program, with the standard library alone: as it was
    compiled for the worker, since to compile it anew takes as long as to run it.
    """
    assert module.__file__ is not None, "it is a file"
    source, compiled = Path(module.__file__), Path(module.__cached__ or "")
    return (sys.executable, "-I", "-S", str(compiled if _is_current(compiled, source) else source))


def _is_current(compiled: Path, source: Path) -> bool:
    """Return whether a file is what a source compiles to: an older one may lie there that nobody may write anew."""
    try:
        with compiled.open("rb") as file:
            magic, by_hash, stamp = file.read(4), file.read(4), file.read(8)
        status = source.stat()
    except OSError:
        return False
    if any(by_hash):
        return magic == importlib.util.MAGIC_NUMBER and stamp == importlib.util.source_hash(source.read_bytes())
    time_and_size = struct.pack("<II", int(status.st_mtime) & 0xFFFFFFFF, status.st_size & 0xFFFFFFFF)
    return magic == importlib.util.MAGIC_NUMBER and stamp == time_and_size


def first_line(data: bytes) -> str:
    """Return the first line that a program said, safe to print and of bounded length."""
    lines = data.strip().splitlines()
    return printable(lines[0][:500]) if lines else "it says nothing"


async def run(*command: str, timeout: float = TIMEOUT, environment: Mapping[str, str] = ENVIRONMENT) -> bytes:
    """Run a tool and return its output. Raises SandboxError if it fails, with what it said."""
    with trio.move_on_after(timeout):
        try:
            done = await trio.run_process(
                command, env=environment, cwd="/", umask=UMASK, check=False, capture_stdout=True, capture_stderr=True
            )
        except OSError as error:
            raise SandboxError(f"cannot run {command[0]}: {error.strerror}") from error
        if done.returncode:
            raise SandboxError(f"{command[0]} failed: {first_line(done.stderr)}")
        return done.stdout
    raise SandboxError(f"{command[0]} took longer than {timeout:.0f} s")


def try_now(
    command: Sequence[str], *, timeout: float = 5.0, environment: Mapping[str, str] = ENVIRONMENT
) -> str | None:
    """Run a tool to see whether it works: return None, or the first line of what it complains about."""
    try:
        done = subprocess.run(
            command,
            env=environment,
            cwd="/",
            umask=UMASK,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
        )
    except OSError as error:
        return f"{command[0]}: {error.strerror}"
    except subprocess.TimeoutExpired:
        return f"{command[0]} took longer than {timeout:.0f} s"
    return first_line(done.stderr) if done.returncode else None
