"""The environment of a job: what it needs to know, and nothing that it need not."""

import re
from collections.abc import Mapping
from uuid import UUID

from builder.errors import BuilderError
from builder.model import ScriptJob, printable

INHERITED = (
    "PATH",
    "HOME",
    *(name for proxy in ("http", "https", "ftp", "all", "no") for name in (f"{proxy}_proxy", f"{proxy}_PROXY".upper())),
)
"""What a job without a sandbox gets from its worker: the operator has prepared the jail's tools and its way out to
the network for it. Anything else may be a credential that was meant for the worker, and is passed on by name only."""

_FIXED = {"LANG": "C.UTF-8", "TZ": "UTC"}
"""The same on every machine, so that two runs can give the same bytes."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class InvalidVariable(BuilderError, ValueError):
    """Text that should name an environment variable, and does not."""

    exit_code = 2


def inherited(worker: Mapping[str, str]) -> dict[str, str]:
    """Return what a job without a sandbox gets of the worker's own environment."""
    return {name: worker[name] for name in INHERITED if name in worker}


def job_environment(job: ScriptJob, uuid: UUID, *, given: Mapping[str, str], date: int | None) -> dict[str, str]:
    """Return a job's environment. ``given`` is its operator's wish; ``date`` is that of its sources, in seconds since
    1970, for what would otherwise write the present time into its files.
    """
    return {
        **_FIXED,
        **({} if date is None else {"SOURCE_DATE_EPOCH": str(date)}),
        **given,
        **job_variables(job, uuid),
    }


def job_variables(job: ScriptJob, uuid: UUID) -> dict[str, str]:
    """Return what tells which job this is."""
    return {
        "BUILDER_JOB": printable(job.name),
        "BUILDER_PLATFORM": printable(job.platform),
        "BUILDER_UUID": str(uuid),
    }


def parse_variable(text: str, worker: Mapping[str, str]) -> tuple[str, str]:
    """Return the name and value of ``NAME=VALUE``, or of ``NAME`` as the worker has it. Raises InvalidVariable."""
    name, equals, value = text.partition("=")
    if not _NAME.fullmatch(name) or "\0" in text:
        raise InvalidVariable(
            f"invalid variable {printable(name)!r}: write NAME=VALUE or NAME, with letters, digits and _ in NAME"
        )
    if equals:
        return name, value
    if name not in worker:
        raise InvalidVariable(f"the variable {printable(name)} is not set; write {printable(name)}=VALUE")
    return name, worker[name]
