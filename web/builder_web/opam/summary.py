"""What a switch says of the job that it was made for, for the main page: its section and what it is about."""

from attrs import frozen

from builder_web.opam.dependencies import needed_packages
from builder_web.opam.package import OpamFile
from builder_web.opam.switch import Switch

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
    """Return what the switch says of its main package, or None.

    An export with a compiler or pins says nothing, as it does to the original: it is of somebody's own switch, not of one
    that was made for a build.
    """
    if switch.main is None or switch.compiler or switch.pinned:
        return None
    opam_file = switch.opam_files.get(switch.main.name, OpamFile(fields={}, sections=()))
    section = _PACKAGES
    if "x-mirage-opam-lock-location" in opam_file.fields or switch.main.name.startswith("mirage-unikernel-"):
        depends = set(needed_packages(opam_file.fields.get("depends")))
        section = _METRICS if "metrics-influx" in switch.installed or "mirage-monitoring" in depends else _UNIKERNELS
    return Summary(section=section, synopsis=opam_file.text("synopsis"), description=opam_file.text("description"))
