"""What a job's script says about itself to a worker: limits of its own, and the date of its sources.

    #!/bin/sh
    # builder: memory=512M timeout=10m
    # builder: source-date-epoch=1700000000

Limits are called as the worker's options, and only ever tighten those. What is not understood is reported and ignored:
it is a comment, after all. What the job needs is for the server, see ``builder.needs``: a job that was given away may run.
"""

import re

from attrs import field, frozen

from builder import needs
from builder.directives import words
from builder.model import printable
from builder.quantities import InvalidQuantity
from builder_worker.allowances import PARSERS, option
from builder_worker.sandbox import Limits

MAX_REMARKS = 20

LEAST = {"memory": 32 * 1024**2, "pids": 64, "cpus": 0.05, "work_size": 1024**2}
"""What a sandbox needs itself, in bytes, processes, CPUs and bytes: with less it would not even start."""

_DATE = re.compile("[0-9]{1,12}", re.ASCII)
_FIELDS = {option(name): name for name in PARSERS}


@frozen(kw_only=True)
class Directives:
    """What was found. ``date`` in seconds since 1970; ``remarks`` are what the console should say."""

    limits: Limits = field(factory=Limits)
    date: int | None = None
    remarks: tuple[str, ...] = ()


def read(script: bytes) -> Directives:
    """Return what a script says about itself; the last of several equal names counts."""
    limits: dict[str, float] = {}
    date: int | None = None
    remarks = [f"{mistake}; ignored" for mistake in needs.of_script(script).mistakes]
    for number, word in words(script):
        name, _, value = word.partition("=")
        try:
            if name == "source-date-epoch":
                date = _parse_date(value)
            elif name != "needs":
                field_name, limit = _parse_limit(name, value)
                limits[field_name] = limit
        except InvalidQuantity as error:
            remarks.append(f"line {number} of the script, {printable(word[:50])}: {error}; ignored")
    return Directives(limits=Limits(**limits), date=date, remarks=tuple(remarks[:MAX_REMARKS]))  # type: ignore[arg-type]


def _parse_limit(name: str, value: str) -> tuple[str, float]:
    if name not in _FIELDS:
        raise InvalidQuantity("a worker knows no such setting")
    limit = PARSERS[_FIELDS[name]](value)
    if limit < LEAST.get(_FIELDS[name], 0):
        raise InvalidQuantity("less than a sandbox needs")
    return _FIELDS[name], limit


def _parse_date(value: str) -> int:
    if not _DATE.fullmatch(value):
        raise InvalidQuantity("not a number of seconds since 1970")
    return int(value)
