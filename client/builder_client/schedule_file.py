"""The file that holds a whole schedule: jobs by their names, with the keys of ``jobs``, and scripts beside it."""

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from attrs import frozen

from builder.errors import BuilderError, InvalidName
from builder.model import Job, OrbBuildJob, ScriptJob, check_name, printable
from builder.planning import JobOptions

from . import jobs, words
from .scripts import ScriptEmpty, ScriptTooLarge, read_script

NAME = "schedule.toml"

MAX_SIZE = 64 * 2**20
"""Bytes of the largest file."""

WHAT = {
    "platform": ('"PLATFORM"', "Whose workers run the script."),
    "script": ('"FILE"', 'The script; its path begins in the folder of this file. "" is an empty script.'),
    "opam-package": (
        '"OPAM"',
        "The package that is built on every platform; it takes the place of platform and script.",
    ),
}
"""The keys that say what a job runs: what to write, and what it means."""

KEYS = (*WHAT, *jobs.KEYS)
_BARE = re.compile(r"[A-Za-z0-9_-]+")


class InvalidSchedule(BuilderError, ValueError):
    """A schedule file that can't be applied; the text names the file, the job, the key, and what to write."""

    exit_code: ClassVar[int] = 2


@frozen(kw_only=True)
class Planned:
    """A job and how it is run."""

    job: Job
    options: JobOptions


def read(path: Path) -> dict[str, Planned]:
    """Return the jobs of a file by their names. Raises InvalidSchedule."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SIZE + 1)
    except IsADirectoryError as error:
        raise InvalidSchedule(f"{path} is a folder: give the file in it, {path / NAME}") from error
    except OSError as error:
        raise InvalidSchedule(f"can't read {path}: {error.strerror}") from error
    if len(data) > MAX_SIZE:
        raise InvalidSchedule(f"{path}: it is larger than {MAX_SIZE >> 20} MiB: is it a schedule?")
    try:
        values = tomllib.loads(data.decode("utf-8-sig"))  # some editors begin a file with a mark of its encoding
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidSchedule(f"{path}: it is not UTF-8 (at line {line}): write it in that encoding") from error
    except ValueError as error:
        raise InvalidSchedule(f"{path}: {_explained(str(error))}") from error
    tables = values.pop("jobs", {})
    if values or not isinstance(tables, dict):
        what = printable(next(iter(values), "jobs"))
        raise InvalidSchedule(f"{path}: {what}: write [jobs.NAME] and the keys of a job below it, and nothing else")
    found = {}
    for name, table in tables.items():
        try:
            found[name] = _planned(name, table, path.parent)
        except ValueError as error:
            raise InvalidSchedule(f"{path}: job {printable(name)}: {error}") from error
    return found


_HINTS = (
    (r"Cannot declare \(.*, '(.*)'\) twice", r"there are two jobs \1"),
    (r"Cannot overwrite a value", r"a key is there twice"),
    (
        r"(Invalid value|Expected '\]' at the end of a table declaration)",
        r"\1: text, and a name that is no word, stand in quotes",
    ),
)
"""What the parser says of common mistakes, and what that means here."""


def _explained(error: str) -> str:
    for pattern, hint in _HINTS:
        error = re.sub(pattern, hint, error)
    return error


def _planned(name: str, table: object, folder: Path) -> Planned:
    check_name(name, what="job name")
    if not isinstance(table, dict):
        raise InvalidSchedule("write a table, [jobs.NAME]")
    if unknown := [key for key in table if key not in KEYS]:
        if isinstance(table[unknown[0]], dict):
            raise InvalidSchedule(f"a name with a dot in it stands in quotes, [jobs.{_toml(f'{name}.{unknown[0]}')}]")
        near = words.near(unknown[0].replace("_", "-"), KEYS)
        hint = f"did you mean {near}?" if near else f"write one of {', '.join(KEYS)}"
        raise InvalidSchedule(f"there is no key {printable(unknown[0])}: {hint}")
    what = {key: table[key] for key in WHAT if key in table}
    if wrong := [key for key, value in what.items() if not isinstance(value, str)]:
        raise InvalidSchedule(f"{wrong[0]}: write text")
    options = jobs.options_with({key: table[key] for key in jobs.KEYS if key in table}, JobOptions(), name)
    if what.keys() == {"opam-package"}:
        return Planned(job=OrbBuildJob(name=name, opam_package=what["opam-package"]), options=options)
    if what.keys() != {"platform", "script"}:
        raise InvalidSchedule("write platform and script, or opam-package alone")
    check_name(what["platform"], what="platform name")
    return Planned(
        job=ScriptJob(name=name, platform=what["platform"], script=_script(folder, what["script"])), options=options
    )


def _script(folder: Path, path: str) -> bytes:
    if not path:
        return b""  # a server may have such a job; an empty file is rather a mistake
    try:
        with (folder / path).open("rb") as file:
            return read_script(file)
    except (ScriptTooLarge, ScriptEmpty) as error:
        raise InvalidSchedule(f"script: {printable(path)}: {error}") from error
    except (OSError, ValueError) as error:
        raise InvalidSchedule(f"script: can't read {printable(path)}: {getattr(error, 'strerror', error)}") from error


# --- writing -------------------------------------------------------------------------------------------------------


def section(name: str, table: Mapping[str, jobs.Value | None]) -> list[str]:
    """Return the lines of a job. Raises InvalidName for a name that is no text."""
    return [f"[jobs.{_key(name)}]", *entries(table)]


def entries(table: Mapping[str, jobs.Value | None]) -> list[str]:
    """Return the lines of a job's keys, but for those that have their defaults."""
    defaults = jobs.defaults(table)
    return [
        f"{key} = {_toml(value)}" for key, value in table.items() if value is not None and value != defaults.get(key)
    ]


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _toml(name)


def _toml(value: Any) -> str:
    match value:
        case str():
            if any("\ud800" <= char <= "\udfff" for char in value):
                raise InvalidName(
                    f"{printable(value)} is not UTF-8, so no schedule file can hold it: give it another name"
                )
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # else JSON's strings are TOML's
        case list():
            return f"[{', '.join(map(_toml, value))}]"
        case dict():
            return "{ " + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + " }"
    return json.dumps(value)
