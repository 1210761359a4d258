"""``builder-worker check``: which sandboxes work here, why others do not, what each costs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from builder_worker.commands.options import CONTEXT, place

if TYPE_CHECKING:  # imports trio and more
    from builder_worker.sandbox.options import Options
    from builder_worker.sandbox.registry import Report


@click.command(context_settings=CONTEXT)
@click.option(
    "--root",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Check with this root tree, which some sandboxes need.",
)
@click.option(
    "--image",
    metavar="IMAGE",
    help="Check with this container image, which podman has already, or zfs snapshot for jail.",
)
@click.option("--network", is_flag=True, help="Check with the network that jobs have with --network.")
@click.option("--device", metavar="PATH", multiple=True, help="Check with this device of the machine. Repeat.")
@click.option(
    "--work-dir",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where jobs' directories are made.  [default: /var/tmp/builder-worker-UID]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with keys that stay as they are.")
def check(
    *,
    root: Path | None,
    image: str | None,
    network: bool,
    device: tuple[str, ...],
    work_dir: Path | None,
    as_json: bool,
) -> int:
    """Tell which sandboxes work here, and for those that do not, why and what mends it.

    Each that works runs a few jobs that do nothing; the median time is what a sandbox costs. "Limits" are those that
    it enforces on this machine; the worker itself sees to the others in any case.

    Without a root tree jobs see the host's /usr, and those files of its /etc that say nothing about the machine. "Not
    shown" are others that installed programs lead to by links. "Meets" is what a worker with one slot and these options tells
    the server, which jobs may need; memory and cores are what one job may use.

    \b
    JSON, one object: {auto: NAME or null, container: null or what this machine is inside of, not_shown: [PATH],
      facts: {NAME: VALUE}, sandboxes: [{name, works, reason, remedy, limits: [NAME], notes: [TEXT], milliseconds: null or NUMBER}]}

    \b
    Exit status: 0 if there is a sandbox for --sandbox auto, else 1.
    """  # noqa: D301 - the \b is the character that makes click keep the lines below it
    import trio

    from builder_worker import containment
    from builder_worker.sandbox import registry
    from builder_worker.sandbox.linux import etc
    from builder_worker.sandbox.options import Options, parse_device

    devices = tuple(map(parse_device, device))
    shown = Options(root=root.absolute() if root else None, image=image, network=network, devices=devices)
    options = place(shown, work_dir)
    reports = trio.run(registry.check_all, options)
    auto = registry.best(reports)
    container = containment.find()
    not_shown = [] if root or image else etc.dangling()
    told_facts = _facts(options, auto, next((each.check.limits for each in reports if each.name == auto), frozenset()))
    if as_json:
        sandboxes = [_to_json(report) for report in reports]
        told: dict[str, Any] = {"auto": auto, "container": container, "not_shown": not_shown, "facts": told_facts}
        told["sandboxes"] = sandboxes
        click.echo(json.dumps(told, indent=1))
    else:
        for report in reports:
            _print(report)
        if not_shown:
            click.echo(_not_shown(not_shown))
        click.echo(_summary(auto, container))
        if told_facts:
            click.echo(f"Meets {', '.join(_as_needs(told_facts))}.")
    return 0 if auto else 1


def _facts(options: "Options", auto: str | None, real: frozenset[str]) -> dict[str, str]:
    """Return what a worker tells that takes the best sandbox."""
    from builder_worker import facts
    from builder_worker.allowances import Machine, allot
    from builder_worker.sandbox import Limits, registry

    if auto is None:
        return {}
    limits = allot(Limits(), slots=1, real=real, machine=Machine.here())
    found = facts.lasting(registry.make(auto, options), limits, slots=1)
    return {fact.name: fact.value for fact in found}


MIB = 1024**2


def _as_needs(told: dict[str, str]) -> Iterator[str]:
    """Yield facts as jobs would need them."""
    from builder.needs import QUANTITIES, TEXTS, TRUTHS, Need

    for name, value in told.items():
        if name in QUANTITIES:
            amount = int(value)
            yield str(Need(name=name, least=amount - amount % MIB or amount))
        elif name in TEXTS:
            yield f"{name}={value}"
        elif name in TRUTHS and value == "yes":
            yield name


def _to_json(report: "Report") -> dict[str, Any]:
    check = report.check
    return {
        "name": report.name,
        "works": check.works,
        "reason": check.reason,
        "remedy": check.remedy,
        "limits": sorted(check.limits),
        "notes": list(check.notes),
        "milliseconds": None if report.milliseconds is None else round(report.milliseconds, 1),
    }


def _print(report: "Report") -> None:
    from builder_worker.allowances import OF_THE_SANDBOX, option

    check = report.check
    if not check.works:
        click.echo(f"{report.name:<11} no     {check.reason}")
        if check.remedy:
            click.echo(f"{'':<18} to mend it: {check.remedy}")
        return
    limits = ", ".join(option(name) for name in OF_THE_SANDBOX if name in check.limits) or "none"
    cost = "" if report.milliseconds is None else f"{report.milliseconds:.1f} ms a job"
    click.echo(f"{report.name:<11} works  {cost}, limits: {limits}")
    for note in check.notes:
        click.echo(f"{'':<18} {note}")


def _not_shown(paths: list[str]) -> str:
    """Tell which files of /etc programs will miss: all by name, for each is another program that fails."""
    first = paths[0]
    return (
        f"\nJobs that see the host's /usr are not shown, though programs in it lead there: {', '.join(paths)}.\n"
        f"Where jobs need one of them, and it tells them nothing that is not theirs: --bind {first}:{first}"
    )


def _summary(auto: str | None, container: str | None) -> str:
    where = (
        f"This machine is inside of {container}." if container else "Nothing tells of a container around this machine."
    )
    if auto:
        return f"\n--sandbox auto takes {auto}. {where}"
    return f"\n--sandbox auto has none to take. {where}"
