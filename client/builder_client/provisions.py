"""What provisioners have asked engines for, as a server tells of it: as lines and JSON."""

from collections.abc import Iterator

from builder.extension.provisioning import Coming, Provision
from builder.extension.watching import PlatformState
from builder.model import Instant, printable

from . import words
from .output import JsonObject, json_text


def lines(platform: PlatformState, now: Instant) -> Iterator[str]:
    """Yield what is said of the workers that a platform is to get; nothing where none come and nothing is in the way."""
    for provision in platform.provisions:
        if said := "; ".join(_sentences(provision, now)):
            yield said


def _sentences(provision: Provision, now: Instant) -> Iterator[str]:
    engine = printable(provision.engine)
    if count := sum(group.count for group in provision.coming):
        ago = "" if provision.since is None else f" {words.duration(now.ms - provision.since.ms)} ago"
        groups = ", ".join(map(_group, provision.coming))
        yield f"asked {engine} for {words.count(count, 'worker')}{ago}: {groups}"
    if provision.why_not:
        reasons = ", ".join(map(printable, provision.why_not))
        yield f"no more: {reasons}" if count else f"asked {engine} for no worker: {reasons}"


def _group(group: Coming) -> str:
    return f"{group.count} {group.stage.value}" + (f" ({printable(group.reason)})" if group.reason else "")


def json(provision: Provision) -> JsonObject:
    """Return what a provisioner has told."""
    return {
        "by": json_text(provision.by),
        "engine": json_text(provision.engine),
        "since": provision.since and provision.since.isoformat(),
        "coming": [
            {"count": group.count, "stage": group.stage.value, "reason": json_text(group.reason)}
            for group in provision.coming
        ],
        "why_not": [*map(json_text, provision.why_not)],
    }
