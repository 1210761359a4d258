"""What a switch says of the job that it was made for, for the main page: its section and what it is about."""

from collections.abc import Iterator

from attrs import frozen

from builder_web.opam.switch import Switch
from builder_web.opam.syntax import (
    Bracketed,
    Filtered,
    Group,
    Logical,
    Value,
)

UNCATEGORIZED = "Uncategorized"
"""The section of jobs of which no switch says what they are."""

_UNIKERNELS = "Unikernels"
_METRICS = "Unikernels (with metrics reported to Influx)"
_PACKAGES = "Packages"


@frozen(kw_only=True)
class Summary:
    """The section of a job, a line about it and a text, as its main package has them; no text is empty."""

    section: str
    synopsis: str | None
    description: str | None


def summarize(switch: Switch) -> Summary | None:
    """Return what the switch says of its main package; None when it has none, or not its opam file."""
    opam_file = switch.opam_files.get(switch.main.name) if switch.main else None
    if switch.main is None or opam_file is None:
        return None
    section = _PACKAGES
    if "x-mirage-opam-lock-location" in opam_file.fields or switch.main.name.startswith("mirage-unikernel-"):
        depends = set(named_packages(opam_file.fields.get("depends")))
        section = _METRICS if "metrics-influx" in switch.installed or "mirage-monitoring" in depends else _UNIKERNELS
    return Summary(section=section, synopsis=opam_file.text("synopsis"), description=opam_file.text("description"))


def named_packages(formula: Value | None) -> Iterator[str]:
    """Yield each package that a formula of dependencies names, whatever the versions and conditions."""
    match formula:
        case str():
            yield formula
        case Bracketed(values=values) | Group(values=values) | Logical(operands=values):
            for value in values:
                yield from named_packages(value)
        case Filtered(value=value):
            yield from named_packages(value)
