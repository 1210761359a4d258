"""What people say of a job: the keys that its options have on the command line and in a schedule file, and their values.

Values are those of TOML: text, numbers, true and false, lists. A key that is not there has its default.
"""

from collections.abc import Callable, Mapping
from typing import Any

from attrs import evolve

from builder.errors import InvalidOptions
from builder.model import Job, Period, ScriptJob, check_name, printable
from builder.needs import Need, together
from builder.planning import MAX_LIMIT, Cron, JobOptions, JobReference, Missed
from builder.quantities import format_duration, parse_duration

Value = str | int | bool | list[Any]


def _limit(value: str) -> int:
    found = round(parse_duration(value) * 1000)
    if not 1 <= found <= MAX_LIMIT:
        raise ValueError(f"it lies between {format_duration(1)} and {format_duration(MAX_LIMIT)}")
    return found


def _reference(value: object) -> JobReference:
    match value:
        case str():
            found = JobReference.parse(value)
        case {"job": str(name), "platform": str(platform), **rest} if not rest:
            found = JobReference(name=name, platform=platform)
        case _:
            raise ValueError("write JOB or JOB@PLATFORM")
    check_name(found.name, what="job name")
    if found.platform is not None:
        check_name(found.platform, what="platform name")
    return found


def _say_reference(reference: JobReference) -> object:
    said = str(reference)
    if JobReference.parse(said) == reference:
        return said
    return {"job": reference.name, "platform": reference.platform}  # a platform with an @


def _needs(values: list[object]) -> tuple[Need, ...]:
    if not all(isinstance(value, str) for value in values):
        raise ValueError('write a list such as ["kvm", "memory>=16G"]')
    return together(Need.parse(said) for value in values for said in str(value).split(","))


_READ: dict[str, tuple[type, str, str, Callable[[Any], object]]] = {
    "period": (str, '"hourly", "daily", "weekly" or "never"', "period", Period),
    "spread": (bool, "true or false", "spread", bool),
    "missed": (str, '"run-once" or "skip"', "missed", Missed),
    "priority": (int, "a number from 0 to 9", "priority", int),
    "retries": (int, "a number from 0 to 10", "retries", int),
    "timeout": (str, 'a duration such as "10m" or "1h30m"', "time_limit", _limit),
    "max-silent": (str, 'a duration such as "10m" or "1h30m"', "max_silent", _limit),
    "after": (list, 'a list such as ["lib", "tool@debian-12"]', "after", lambda value: tuple(map(_reference, value))),
    "needs": (list, 'a list such as ["kvm", "memory>=16G"]', "needs", _needs),
    "paused": (bool, "true or false", "paused", bool),
}
"""Of each key its type, what to write, the attribute of JobOptions, and what makes that of the value."""


def options_with(given: Mapping[str, Value | None], before: JobOptions, name: str) -> JobOptions:
    """Return the options of a job of that name with what is given; None takes away what was there before.

    A period, or a spread, takes the place of a cron rule. A daily job that is after others now runs no more each day,
    but does again once it is after none. Raises InvalidOptions, which says the key and what to write.
    """
    values = {attribute: getattr(before, attribute) for _, _, attribute, _ in _READ.values()}
    defaults = JobOptions()
    for key in given.keys() & _READ.keys():
        kind, what, attribute, read = _READ[key]
        value = given[key]
        if value is None:
            values[attribute] = getattr(defaults, attribute)
            continue
        if type(value) is not kind:
            raise InvalidOptions(f"{key}: write {what}")
        try:
            values[attribute] = read(value)
        except ValueError as error:
            reason = f"write {what}" if key in ("period", "missed") else str(error)
            raise InvalidOptions(f"{key}: {reason}") from error
    cron = _cron(given, before)
    if cron is not None and "spread" not in given:
        values["spread"] = False
    options = JobOptions(**values, cron=cron)
    is_after_now = options.after and not before.after
    if is_after_now and options.period is Period.DAILY and given.get("period") is None:
        options = evolve(options, period=None)
    options.check(name)
    return options


def _cron(given: Mapping[str, Value | None], before: JobOptions) -> Cron | None:
    rule, zone = given.get("cron"), given.get("time-zone")
    for key in ("cron", "time-zone"):
        if not isinstance(given.get(key), str | None):
            raise InvalidOptions(f"{key}: write text")
    if rule is not None and given.get("period") is not None:
        raise InvalidOptions("cron: it takes the place of a period: give one of them")
    replaced = given.get("period") is not None or given.get("spread") or ("cron" in given and rule is None)
    kept = None if replaced else before.cron
    if rule is None and kept is None:
        if zone is not None:
            raise InvalidOptions("time-zone: it is for cron rules: give a rule too, or leave it out")
        return None
    return Cron(
        rule=str(rule) if rule is not None else (kept.rule if kept else ""),
        zone=str(zone)
        if zone is not None
        else (kept.zone if kept and "time-zone" not in given else Cron(rule="").zone),
    )


def said(job: Job, options: JobOptions) -> dict[str, Value | None]:
    """Return all keys of a job with their values, but for the script; None is a limit that it does not have."""
    what: dict[str, Value | None] = (
        {"platform": job.platform} if isinstance(job, ScriptJob) else {"opam-package": job.opam_package}
    )
    return what | said_options(options)


def said_options(options: JobOptions) -> dict[str, Value | None]:
    """Return the keys of options with their values."""
    when: dict[str, Value | None] = (
        {"cron": options.cron.rule, "time-zone": options.cron.zone}
        if options.cron
        else {"period": options.runs_every.value, "spread": options.spread}
    )
    return when | {
        "missed": options.missed.value,
        "priority": options.priority,
        "retries": options.retries,
        "timeout": None if options.time_limit is None else format_duration(options.time_limit),
        "max-silent": None if options.max_silent is None else format_duration(options.max_silent),
        "after": [*map(_say_reference, options.after)],
        "needs": [*map(str, options.needs)],
        "paused": options.paused,
    }


def when(options: JobOptions) -> str:
    """Return in short when a job runs."""
    rule = f"{options.cron.rule} {options.cron.zone}" if options.cron else options.runs_every.value
    after = f"after {options.after[0] if len(options.after) == 1 else f'{len(options.after)} jobs'}"
    parts = [printable(rule), *["spread"] * options.spread, *[printable(after)] * bool(options.after)]
    return ", ".join(parts[1:] if options.after and rule == Period.NEVER.value else parts)


WRITE = {"cron": '"RULE"', "time-zone": '"ZONE"'} | {key: what for key, (_, what, _, _) in _READ.items()}
"""The keys of options, and what to write."""

KEYS = (*WRITE,)

PAUSED = "Whether it does not run until it is resumed.  [default: false]"
"""What the key means that is no option: a job is paused by a command."""


def defaults(given: Mapping[str, Value | None]) -> dict[str, Value | None]:
    """Return what the keys of such a job have that are not given: one that is after others runs at no other time."""
    usual = JobOptions(
        spread=bool(given.get("spread")), after=(JobReference(name="others"),) if given.get("after") else ()
    )
    return said_options(JobOptions(period=usual.runs_every)) | {"time-zone": Cron(rule="").zone}


def in_words(value: Value | None) -> str:
    """Return a value as a person reads it."""
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case list():
            return (
                ", ".join(
                    printable(each if isinstance(each, str) else f"{each['job']} on {each['platform']}")
                    for each in value
                )
                or "none"
            )
    return printable(str(value))
