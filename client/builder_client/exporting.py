"""A schedule written to a folder: its file, and the scripts beside it.

Whatever ends this, a crash or a full disk, the file and the scripts that it names are those of one schedule: the one
before, or the new one. Only one file can be replaced at once, so scripts that change are written beside those of the one
before, and the file names them there until they are in their places.
"""

import contextlib
import hashlib
import os
import re
import stat
import tomllib
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from builder.model import ScriptJob, raw
from builder.planning import JobOptions
from builder.runtime.files import sync_directory

from . import applying, jobs, schedule_file
from .errors import Refused
from .looking import Ask, listed
from .schedule_file import Planned

if TYPE_CHECKING:
    from .remote import Remote

SCRIPTS = "scripts"
"""The folder of the scripts."""

HEAD = "# Written by builder-client export, as are the scripts that it names."
"""The first line of a file whose scripts are known to be from here: those that the next export does not need may go."""

_IS_ASIDE = re.compile(r"\.([^/]*)\.[0-9a-f]{16}\.new")
_PART = ".part"
"""The name of a file until all of it is on the disk."""

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@-]{0,99}")


def everything(ask: Ask) -> list[Planned]:
    """Return all jobs of a server."""
    found = []
    for name in listed(ask):
        try:
            each = applying.shown(ask, name)
        except Refused:
            if name in listed(ask):
                raise
            continue  # it has gone meanwhile
        found.append(Planned(job=each.job, options=each.options))
    return found


def everything_classic(remote: "Remote") -> list[Planned]:
    """Return all jobs of a server that speaks only the classic protocol, with what that has of them."""
    items = sorted(remote.info().schedule, key=lambda item: item.job.name)
    return [Planned(job=item.job, options=JobOptions(period=item.period)) for item in items]


def write(folder: Path, plans: Iterable[Planned]) -> list[Path]:
    """Write a schedule; return the scripts of an earlier export that are no more needed, and were removed.

    Raises OSError, and InvalidName for a name that is no text.
    """
    tables = {plan.job.name: plan for plan in plans}
    scripts = {
        script_name(name): plan.job.script
        for name, plan in tables.items()
        if isinstance(plan.job, ScriptJob) and plan.job.script
    }
    text = _text(tables.values(), {})  # before anything is written: it may be refused
    file = (folder / schedule_file.NAME).resolve()  # a link stays one
    below = folder / SCRIPTS
    below.mkdir(parents=True, exist_ok=True)
    sync_directory(folder)
    earlier = _scripts_of(file)

    changed = {name: script for name, script in scripts.items() if not _holds(below / name, script)}
    aside = {name: _aside(name, script) for name, script in changed.items() if os.path.lexists(below / name)}
    try:
        for name, script in changed.items():
            _replace(below / aside.get(name, name), script, like=below / name)
    except OSError:
        _remove(below, aside.values())
        raise
    sync_directory(below)
    if aside and file.exists():
        _replace(file, _text(tables.values(), aside), like=file)
        sync_directory(file.parent)
    for name, other in aside.items():
        _place(below / name, below / other)
    sync_directory(below)
    _replace(file, text, like=file)
    sync_directory(file.parent)

    _remove(below, [*_asides(below, scripts), _PART])  # also what a crash has left
    return [below / name for name in _remove(below, sorted(earlier - scripts.keys()))]


def is_foreign(file: Path) -> bool:
    """Return whether a file is there that no export has written: somebody's work, with comments perhaps."""
    try:
        with file.open("rb") as there:
            return there.read(len(HEAD)) != HEAD.encode()
    except OSError:
        return False  # nothing is lost, or writing will tell


def script_name(job: str) -> str:
    """Return how the file of a job's script is called: as the job, where that is a plain name, or with a digest."""
    if _FILE_NAME.fullmatch(job) and job == job.lower():  # there are disks on which A is a
        return f"{job}.sh"
    plain = re.sub(r"[^A-Za-z0-9._+-]", "_", job)[:60].lstrip(".")
    return f"{plain}~{hashlib.sha256(raw(job)).hexdigest()[:16]}.sh"


def _aside(name: str, script: bytes) -> str:
    """Return the name of a script until it is in its place: another one for each content, since a file may name it."""
    return f".{name}.{hashlib.sha256(script).hexdigest()[:16]}.new"


def _of_aside(name: str) -> str | None:
    """Return the name of the script that is in a file of such a name."""
    found = _IS_ASIDE.fullmatch(name)
    return found and found[1]


def _text(plans: Iterable[Planned], aside: Mapping[str, str]) -> bytes:
    """Return the file, which names some scripts where they lie beside their places."""
    parts = [HEAD + "\n"]
    for plan in plans:
        table = jobs.said(plan.job, plan.options)
        if isinstance(plan.job, ScriptJob):
            name = script_name(plan.job.name)
            where = f"{SCRIPTS}/{aside.get(name, name)}" if plan.job.script else ""
            table = {"platform": plan.job.platform, "script": where, **table}
        parts.append("\n".join(schedule_file.section(plan.job.name, table)) + "\n")
    return "\n".join(parts).encode()


def _scripts_of(file: Path) -> set[str]:
    """Return the names of the scripts that an earlier export has written for this file."""
    try:
        text = file.read_text("utf-8")
        tables = tomllib.loads(text)["jobs"] if text.startswith(HEAD) else {}
        named = {script_name(job): table.get("script") for job, table in tables.items()}
    except (OSError, ValueError, LookupError, AttributeError):  # not there, or somebody's own
        return set()
    return {
        name
        for own, path in named.items()
        for folder, _, name in [str(path).partition("/")]
        if folder == SCRIPTS and own in (name, _of_aside(name))
    }


def _asides(folder: Path, scripts: Container[str]) -> list[str]:
    """Return the files in which scripts were until they were in their places."""
    return [path.name for path in folder.glob(".*.new") if _of_aside(path.name) in scripts]


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except OSError:
        return False


def _place(path: Path, aside: Path) -> None:
    """Put a script that is on the disk in its place as well: by a link, which no full disk refuses, where there are any."""
    temporary = path.with_name(_PART)
    temporary.unlink(missing_ok=True)
    try:
        temporary.hardlink_to(aside)
    except OSError:
        _replace(path, aside.read_bytes(), like=aside)
    else:
        temporary.replace(path)


def _replace(path: Path, content: bytes, *, like: Path) -> None:
    """Put a file in its place, once it is on the disk as a whole; it may be executed if the other may."""
    temporary = path.with_name(_PART)
    try:
        with temporary.open("wb") as file:
            file.write(content)
            with contextlib.suppress(FileNotFoundError):
                os.fchmod(file.fileno(), stat.S_IMODE(like.stat().st_mode))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _remove(folder: Path, names: Iterable[str]) -> list[str]:
    """Remove files; return those that were there."""
    removed = []
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            (folder / name).unlink()
            removed.append(name)
    return removed
