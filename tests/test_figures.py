"""Figures in the pages for people are those of the code: each is compared with the constant that it comes from."""

import datetime as dt
import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builder.sizes import format_size

ROOT = Path(__file__).parent.parent
UNITS = {"hour": 3600, "minute": 60, "second": 1}
NUMBERS = {3: "three", 5: "five", 10: "ten"}

Form = Callable[[Any], str]


def number(value: int) -> str:
    """12, 2000, 10 000."""
    return f"{value:,}".replace(",", " ") if value >= 10_000 else str(value)


def plain(value: int) -> str:
    return str(value)


def size(value: int) -> str:
    return format_size(value)


def option(value: int) -> str:
    """A size as options are given it: 2G."""
    return format_size(value).replace(" GiB", "G")


def duration(value: float) -> str:
    """30 seconds, 5 minutes, an hour."""
    name, unit = next((name, unit) for name, unit in UNITS.items() if value % unit == 0)
    count = round(value / unit)
    one = "an" if name == "hour" else "a"
    return f"{one} {name}" if count == 1 else f"{count} {name}s"


def seconds(value: dt.timedelta) -> str:
    """The same of a timedelta."""
    return duration(round(value.total_seconds()))


def milliseconds(value: float) -> str:
    return f"{value * 1000:g} ms"


def spelled(form: Form) -> Form:
    """Return the same with small numbers in words: five minutes, one hour."""
    return lambda value: re.sub(r"\d+", lambda found: NUMBERS[int(found[0])], form(value)).replace(
        "an hour", "one hour"
    )


def percent(value: float) -> str:
    return f"{value:.0%}".replace("%", " %")


FIGURES: list[tuple[str, str, str, Form]] = [
    # page, what it says, the constant, how it is written
    (
        "README.md",
        "| 90 % of ",
        "builder_worker.allowances:MEMORY_FOR_JOBS",
        percent,
    ),
    ("README.md", "| `--pids` | 4096 |", "builder_worker.allowances:DEFAULT_PIDS", number),
    ("README.md", "| `--max-console` | 2G |", "builder_worker.allowances:DEFAULT_MAX_CONSOLE", option),
    ("README.md", "`--max-artifacts` | 64G, or", "builder_worker.allowances:DEFAULT_MAX_ARTIFACT_BYTES", option),
    ("README.md", "if that is less; 100000 |", "builder_worker.artifacts:MAX_ARTIFACTS", plain),
    ("README.md", "the third loss in a row", "builder_server.scheduler:MAX_LOSSES", lambda value: {3: "third"}[value]),
    ("docs/architecture.md", "by kind, 64 bytes to", "builder.messages:Hello.max_size", size),
    ("docs/architecture.md", "16 MiB in memory", "builder.messages:Output.max_size", size),
    ("docs/architecture.md", "up to 1 TiB on the disk", "builder.messages:JobFinished.max_size", size),
    ("docs/architecture.md", "A TLS handshake has 10 seconds", "builder_server.limits:DEFAULTS.handshake", duration),
    ("docs/architecture.md", "one certificate 500", "builder_server.limits:DEFAULTS.connections_per_holder", number),
    (
        "docs/architecture.md",
        "and 64 GiB (`--max-artifact-bytes`)",
        "builder_server.limits:DEFAULTS.artifact_bytes",
        size,
    ),
    ("docs/architecture.md", "| jobs | 50 000", "builder_server.limits:DEFAULTS.jobs", number),
    ("docs/architecture.md", "| a queue | 50 000", "builder_server.limits:DEFAULTS.queue", number),
    ("docs/architecture.md", "| 300 that begin", "builder_server.limits:DEFAULTS.attempts", number),
    (
        "docs/architecture.md",
        "| 2000 (`--max-connections`), or fewer",
        "builder_server.limits:DEFAULTS.connections",
        number,
    ),
    (
        "docs/architecture.md",
        "not three descriptors for each",
        "builder_server.connections:_DESCRIPTORS",
        spelled(plain),
    ),
    ("docs/architecture.md", "30 seconds for each step", "builder_server.peers:STEP_TIMEOUT", duration),
    (
        "docs/architecture.md",
        "three quarters of all places",
        "builder_server.connections:_STAYING",
        lambda value: {(3, 4): "three quarters"}[value],
    ),
    ("docs/architecture.md", "large messages, above 128 KiB", "builder_server.memory:SMALL", size),
    ("docs/architecture.md", "large replies, above 128 KiB", "builder_server.aside:SMALL", size),
    ("docs/architecture.md", "| 2 are made at once", "builder_server.memory:MADE_AT_ONCE", number),
    ("docs/architecture.md", "names, 1 GiB in all", "builder_server.aside:TOTAL", size),
    ("docs/architecture.md", "is sent 64 KiB at a time", "builder_server.memory:PIECE", size),
    ("docs/architecture.md", "up to 5 seconds |", "builder_server.shared:LONGEST_REST", duration),
    ("CHANGES.md", "on the disk, up to 1 GiB", "builder_server.aside:TOTAL", size),
    ("docs/architecture.md", "| 128 MiB for all that are under way", "builder_server.memory:TOTAL", size),
    ("docs/architecture.md", "less than 64 KiB a second", "builder_server.memory:SLOWEST", size),
    ("docs/architecture.md", "is cut off after 3 seconds", "builder_server.memory:GRACE", duration),
    ("docs/architecture.md", "or needs more than 15 seconds in all", "builder_server.memory:LONGEST", duration),
    ("docs/architecture.md", "are slower than 8 KiB a second", "builder_server.delivery:SLOWEST_RESULT", size),
    ("docs/architecture.md", "| 256 MiB on the worker's disk", "builder_worker.spool:MAX_AHEAD", size),
    ("docs/architecture.md", "its script, at most 4 MiB", "builder.messages:MAX_SCRIPT", size),
    ("docs/architecture.md", "then 5 minutes without a byte", "builder_server.delivery:ARTIFACT_TIMEOUT", duration),
    ("docs/architecture.md", "| 64 KiB of memory;", "builder_server.console:READ_SIZE", size),
    ("docs/architecture.md", "an hour without progress", "builder_server.requests.logs:OBSERVER_TIMEOUT", duration),
    ("docs/architecture.md", "| 5 seconds until it lets this one in", "builder_server.upstream:PATIENCE", duration),
    ("docs/architecture.md", "then 45 seconds without a byte", "builder_server.upstream:ANSWER_TIMEOUT", duration),
    ("docs/architecture.md", "25 seconds in which a build", "builder_server.farm:TAKEOVER", duration),
    ("docs/scale.md", "stand still for 25 seconds", "builder_server.farm:TAKEOVER", duration),
    ("docs/scale.md", "random order, each for 5 seconds while", "builder.endpoint:PATIENCE", duration),
    ("docs/architecture.md", "in the 1000 newest changes", "builder_server.store.changes:MAX_KEPT", number),
    ("docs/architecture.md", "told something 50 ms after", "builder_server.requests.watching:PAUSE", milliseconds),
    (
        "docs/architecture.md",
        "| connections to builder-web | 1000,",
        "builder_web.serving.listening:MAX_CONNECTIONS",
        number,
    ),
    ("docs/security.md", "each of 20 reasons", "builder_server.listening:MAX_REASONS", number),
    ("docs/provenance.md", "No more than 16 keys", "builder.provenance.envelope:MAX_SIGNATURES", number),
    ("docs/architecture.md", "| metrics | 16 connections", "builder.runtime.scraping:PLACES", number),
    ("docs/architecture.md", ", 10 seconds for each", "builder.runtime.scraping:TIMEOUT", duration),
    ("docs/architecture.md", "and 8 KiB for the head of a request", "builder.runtime.scraping:MAX_HEAD", size),
    ("docs/architecture.md", "is made a second after", "builder.runtime.exposition:INTERVAL", duration),
    ("docs/architecture.md", "and shows 100 certificates", "builder_server.metrics:MAX_CERTIFICATES", number),
    ("docs/metrics.md", "16 connections at once", "builder.runtime.scraping:PLACES", number),
    ("docs/metrics.md", "have 10 seconds each", "builder.runtime.scraping:TIMEOUT", duration),
    ("docs/architecture.md", "| a look | 1000 entries", "builder.extension.watching:MAX_SHOWN", number),
    ("docs/architecture.md", "of each queue, 10 000 in all", "builder_server.store.standing:MAX_ENTRIES", number),
    ("docs/architecture.md", "and 1000 results |", "builder.extension.watching:MAX_SHOWN", number),
    ("docs/architecture.md", "counts as away after 45 seconds", "builder.extension.working:SILENCE", duration),
    ("docs/architecture.md", "tried again every 10 seconds", "builder_server.attempt:RETRY", duration),
    ("docs/reliability.md", "tried again every 10 seconds", "builder_server.attempt:RETRY", duration),
    ("docs/reliability.md", "a stop waits up to 8 seconds", "builder_server.server:SHUTDOWN_TIMEOUT", duration),
    ("docs/protocol.md", "says Alive every 15 seconds", "builder.extension.working:ALIVE_INTERVAL", duration),
    ("docs/protocol.md", "hears nothing for 45 seconds", "builder.extension.working:SILENCE", duration),
    (
        "docs/architecture.md",
        "| what is drained | 1000 workers and platforms",
        "builder.extension.halting:MAX_HALTS",
        plain,
    ),
    ("docs/architecture.md", "each with 200 characters of why", "builder.extension.halting:MAX_REASON", plain),
    ("docs/architecture.md", "| a console | 4 GiB on the disk", "builder_server.limits:DEFAULTS.console", size),
    ("docs/architecture.md", "| platforms | 1000, of which", "builder_server.store.queues:MAX_PLATFORMS", number),
    ("docs/architecture.md", " the last 100 are", "builder_server.store.queues:RESERVED", number),
    ("docs/architecture.md", "certificate has 100 new ones made", "builder_server.store.newcomers:MOST", number),
    ("docs/security.md", "of which 100 within a day", "builder_server.store.newcomers:MOST", number),
    ("docs/architecture.md", "cut at 8192 characters", "builder_web.pages.console:MAX_LINE", number),
    ("docs/architecture.md", "page | 100 000 characters;", "builder_web.pages.markdown:MAX_CHARACTERS", number),
    ("docs/architecture.md", "of more than 10 000 stays", "builder_web.pages.markdown:MAX_BLOCK", number),
    (
        "docs/architecture.md",
        "| artifacts of a build | 1 000 000 (",
        "builder_server.limits:DEFAULTS.artifacts",
        number,
    ),
    ("docs/architecture.md", "for each path a digest of 12 bytes", "builder_server.results:DIGEST_SIZE", plain),
    ("docs/architecture.md", "unfolds to 1000 pieces at once |", "builder_server.delivery:MAX_PIECES", number),
    ("docs/architecture.md", "The server turns 2 of", "builder_server.recorder:CONSOLES_AT_ONCE", number),
    ("docs/architecture.md", "those above 1 MiB round", "builder_server.console:BLOCK_SIZE", size),
    ("docs/architecture.md", "| uploads | 2 at once to each", "builder_server.upload:PARALLEL", number),
    ("docs/architecture.md", "and 8 receivers;", "builder_server.receiver:MAX_RECEIVERS", number),
    ("docs/reliability.md", "and 2 uploads each at once", "builder_server.upload:PARALLEL", number),
    ("docs/reliability.md", "Up to 8 can be named", "builder_server.receiver:MAX_RECEIVERS", number),
    ("docs/reliability.md", "takes nothing for 300 s", "builder_server.receiver:TAKE_TIMEOUT", number),
    ("docs/reliability.md", "answers nothing for 1800 s", "builder_server.receiver:ANSWER_TIMEOUT", number),
    ("docs/reliability.md", "can't be reached within 30 s", "builder_server.receiver:CONNECT_TIMEOUT", number),
    ("docs/reliability.md", "left alone for 30 seconds", "builder_server.retrying:FIRST_PAUSE", seconds),
    ("docs/reliability.md", "and an hour at most", "builder_server.retrying:LONGEST_PAUSE", seconds),
    ("docs/reliability.md", "up to half of it", "builder_server.retrying:JITTER", lambda value: {0.5: "half"}[value]),
    (
        "docs/reliability.md",
        "1 second up to a day",
        "builder_server.retrying:LONGEST_ASKED",
        lambda value: {1: "a day"}[value.days],
    ),
    ("docs/architecture.md", "| a binary | 65 536 sections", "builder_web.binaries.elf:MAX_SECTIONS", number),
    ("docs/architecture.md", "and 500 000 symbols are read;", "builder_web.binaries.contents:MAX_SYMBOLS", number),
    ("docs/architecture.md", "sections take at most 16 MiB,", "builder_web.binaries.elf:MAX_NAMES", size),
    ("docs/architecture.md", "those of symbols 64 MiB |", "builder_web.binaries.contents:MAX_NAMES", size),
    ("docs/architecture.md", "| 1000 platforms of provisioners,", "builder_server.provisions:MAX_PROVISIONS", number),
    ("docs/architecture.md", "each with 8 groups", "builder.extension.provisioning:MAX_TOLD", number),
    ("docs/architecture.md", "reasons of 200 characters,", "builder.extension.provisioning:MAX_REASON", number),
    (
        "docs/architecture.md",
        "for an hour at most |",
        "builder.extension.provisioning:MAX_KEPT",
        lambda value: duration(value / 1000),
    ),
    ("docs/architecture.md", "has a minute for each answer,", "builder_provision.engines:TIMEOUT", duration),
    ("docs/architecture.md", "64 MiB for a list;", "builder_provision.engines.programs:MAX_SAID", size),
    ("docs/architecture.md", "64 MiB for a list;", "builder_provision.engines.kubernetes:MAX_ANSWER", size),
    ("docs/architecture.md", "1000 refusals are remembered |", "builder_provision.ledger:MAX_REFUSED", number),
    ("docs/provision.md", "or a minute is over", "builder_provision.ledger:DOUBT", duration),
    ("docs/provision.md", "after 15 seconds, then", "builder_provision.ledger:FIRST_PAUSE", duration),
    ("docs/provision.md", "up to 15 minutes.", "builder_provision.ledger:LONGEST_PAUSE", duration),
    ("docs/provision.md", "and 15 minutes, if that is more.", "builder_provision.planning:MARGIN", duration),
    ("docs/provision.md", "5 minutes after that it is removed", "builder_provision.planning:OVERDUE", duration),
    (
        "docs/provision.md",
        "keeps that in memory for 5 minutes;",
        "builder_provision.link:KEEP",
        lambda value: duration(value / 1000),
    ),
    ("docs/architecture.md", "a statement has 4 MiB,", "builder.provenance.envelope:MAX_PAYLOAD", size),
    ("docs/architecture.md", "an envelope 6 MiB", "builder.provenance:MAX_ENVELOPE", size),
    ("docs/architecture.md", "and 16 signatures;", "builder.provenance.envelope:MAX_SIGNATURES", number),
    ("docs/architecture.md", "beyond 3 MiB no artifact is named", "builder.provenance.statement:MAX_SUBJECTS", size),
    ("docs/provenance.md", "would take more than 3 MiB,", "builder.provenance.statement:MAX_SUBJECTS", size),
    ("docs/architecture.md", "A worker tells 64 facts of a build", "builder.extension.working:MAX_FACTS", number),
    (
        "docs/provenance.md",
        "valid for 30 days more",
        "builder_server.keyring:OVERLAP",
        lambda value: f"{value.days} days",
    ),
    ("docs/architecture.md", "| a treemap | 280 000 bytes,", "builder_web.charts.treemap:MAX_SIZE", number),
    ("docs/architecture.md", "the newest 400 builds |", "builder_web.charts.history:MAX_BUILDS", number),
    ("docs/architecture.md", "waits up to 30 seconds for others", "builder.runtime.grouping:LOCK_TIMEOUT", duration),
    ("CHANGES.md", "is waited for: up to 30 seconds", "builder.runtime.grouping:LOCK_TIMEOUT", duration),
    ("docs/architecture.md", "one connection that writes, 4 that read and", "builder.runtime.postgres:READERS", number),
    ("docs/architecture.md", "a program that stands still after 15;", "builder.runtime.postgres:FROZEN", number),
    ("docs/architecture.md", "7900 bytes of a notice,", "builder.runtime.database:MAX_NOTICE", plain),
    (
        "docs/architecture.md",
        "10 000 of them that were not looked at",
        "builder.runtime.subscription:MAX_HEARD",
        number,
    ),
    (
        "docs/scale.md",
        "one that has not for 15 seconds",
        "builder_server.store.servers:LEASE",
        lambda value: f"{value.seconds} seconds",
    ),
    (
        "docs/scale.md",
        "nor in the 8 seconds after",
        "builder_server.membership:PATIENCE",
        lambda value: f"{value:.0f} seconds",
    ),
    (
        "docs/scale.md",
        "to end its session, after 15 seconds;",
        "builder.runtime.postgres:FROZEN",
        lambda value: f"{value} seconds",
    ),
    (
        "docs/architecture.md",
        "a statement ends after 60 seconds",
        "builder.runtime.postgres:STATEMENT_TIMEOUT",
        number,
    ),
    ("docs/scale.md", "one that writes and 4 that read", "builder.runtime.postgres:READERS", number),
    ("docs/scale.md", "waits, for up to 30 seconds;", "builder.runtime.grouping:LOCK_TIMEOUT", duration),
    ("docs/scale.md", "a statement is ended after 60 seconds;", "builder.runtime.postgres:STATEMENT_TIMEOUT", number),
    ("docs/scale.md", "counts as lost after 70,", "builder.runtime.postgres:SILENCE", number),
    ("docs/scale.md", "Each says every 5 seconds that it", "builder_server.membership:RENEWAL", duration),
    (
        "docs/scale.md",
        "one that has not for 15 seconds,",
        "builder_server.store.servers:LEASE",
        lambda value: duration(value.total_seconds()),
    ),
    ("docs/scale.md", "another one does within 5 seconds,", "builder_server.membership:RENEWAL", duration),
    ("docs/architecture.md", "less than 1 GiB free", "builder_server.room:MIN_FREE", size),
    ("docs/architecture.md", "one part in 10 of a small disk", "builder_server.room:_SMALL_DISK_FREE", plain),
    ("docs/architecture.md", "takes the last 64 MiB", "builder_server.room:MIN_ROOM", size),
    (
        "docs/architecture.md",
        "one part in a hundred of a small disk",
        "builder_server.room:_SMALL_DISK_PART",
        lambda value: {100: "one part in a hundred"}[value],
    ),
    ("docs/architecture.md", "| 32 needs of a job", "builder.needs:MAX_NEEDS", plain),
    ("docs/architecture.md", "1000 different sets of needs", "builder_server.store.needed:MAX_SETS", plain),
    ("docs/architecture.md", "| 32 labels", "builder_worker.facts:MAX_LABELS", plain),
    ("docs/architecture.md", "of 50 characters |", "builder.needs:MAX_LABEL", plain),
    ("docs/schedule.md", "There may be 32 needs of a job", "builder.needs:MAX_NEEDS", plain),
    ("docs/schedule.md", "and 1000 different sets of needs", "builder_server.store.needed:MAX_SETS", plain),
    ("docs/linux.md", "`--min-free` | 1 GiB", "builder_worker.pressure:MIN_FREE", size),
    ("docs/linux.md", "`--min-memory` | 512 MiB", "builder_worker.pressure:MIN_MEMORY", size),
    ("docs/linux.md", "nor for a minute after", "builder_worker.pressure:SETTLING", spelled(duration)),
    ("docs/linux.md", "there is one for every 4 cores", "builder_worker.allowances:CPUS_OF_A_SLOT", plain),
    ("docs/linux.md", "and every 4 GiB of memory", "builder_worker.allowances:MEMORY_OF_A_SLOT", size),
    ("docs/linux.md", "and at most 64; where", "builder_worker.allowances:MAX_AUTO_SLOTS", plain),
    ("docs/architecture.md", "backwards in blocks of 1 MiB", "builder_server.console:BLOCK_SIZE", size),
    ("docs/protocol.md", "by default port 1234", "builder.address:DEFAULT_PORT", plain),
    ("docs/protocol.md", "more than 16 levels", "builder.der:MAX_DEPTH", number),
    ("docs/protocol.md", "can have: 10 000, or", "builder.messages:Schedule.max_elements", number),
    ("docs/protocol.md", "or 2 000 000 where there are lists", "builder.messages:InfoReply.max_elements", number),
    ("docs/protocol.md", "result have at most 64 KiB", "builder.execution:_MAX_SMALL", size),
    ("docs/protocol.md", "a console line 16 MiB", "builder.messages:Output.max_size", size),
    ("docs/protocol.md", "at most 1 000 000 files", "builder.execution:MAX_ARTIFACTS", number),
    ("docs/protocol.md", "one: 13 for clients", "builder.messages:CLIENT_VERSION", plain),
    ("docs/protocol.md", "and 5 for workers", "builder.messages:WORKER_VERSION", plain),
    ("docs/protocol.md", "a worker leaves 20 ms", "builder.order:CLASSIC_WORKER.result_gap", milliseconds),
    ("docs/linux.md", "127.0.0.1, port 1234.", "builder.address:DEFAULT_PORT", plain),
    ("docs/linux.md", "`--job-timeout`, one hour |", "builder_server.cli:JOB_TIMEOUT", spelled(duration)),
    (
        "docs/linux.md",
        "| 90 % of ",
        "builder_worker.allowances:MEMORY_FOR_JOBS",
        percent,
    ),
    ("docs/linux.md", "processes and threads | 4096 |", "builder_worker.allowances:DEFAULT_PIDS", number),
    ("docs/linux.md", "bytes of output | 2 GiB |", "builder_worker.allowances:DEFAULT_MAX_CONSOLE", size),
    ("docs/linux.md", "what it leaves | 64 GiB, or", "builder_worker.allowances:DEFAULT_MAX_ARTIFACT_BYTES", size),
    ("docs/linux.md", "if that is less; 100 000 |", "builder_worker.artifacts:MAX_ARTIFACTS", number),
    ("docs/linux.md", "jobs leave 512 MiB of the disk", "builder_worker.sandbox.disk:MAX_RESERVE", size),
    ("docs/linux.md", "one part in 50 of a smaller one", "builder_worker.sandbox.disk:_RESERVED_PART", plain),
    (
        "docs/linux.md",
        "stays full for five minutes ends",
        "builder_worker.sandbox.job_directory:LOW_TIMEOUT",
        spelled(duration),
    ),
    ("docs/architecture.md", "an opam file | 8 MiB", "builder_web.opam.syntax:MAX_SIZE", size),
    (
        "docs/architecture.md",
        "a million tokens",
        "builder_web.opam.syntax:MAX_TOKENS",
        lambda value: {1_000_000: "a million"}[value],
    ),
    ("docs/architecture.md", ", 30 levels;", "builder_web.opam.syntax:MAX_DEPTH", plain),
    ("docs/architecture.md", "up to 500 lines", "builder_web.differences:MAX_EDITS", plain),
    ("docs/architecture.md", "300 packages are drawn", "builder_web.charts.graph:MAX_DRAWN", plain),
    ("docs/linux.md", "With less than 1 GiB left", "builder_server.room:MIN_FREE", size),
    ("docs/architecture.md", "| a search | 20 results", "builder_web.views.searching:_FOUND", plain),
    ("docs/architecture.md", "5000 packages of a switch", "builder_web.derived:MAX_PACKAGES", plain),
    ("docs/architecture.md", "on a page | 2000 lines", "builder_web.views.texts:LINES", number),
    ("docs/architecture.md", "and 4 MiB; a search", "builder_web.console_index:MAX_PART", size),
    ("docs/architecture.md", "goes through 256 MiB", "builder_web.console_index:MAX_SEARCHED", size),
    ("docs/architecture.md", "the last 30 builds of each", "builder_web.views.presenting:ROW", plain),
    ("docs/architecture.md", "5 failures of", "builder_web.views.presenting:FEW", plain),
    ("docs/architecture.md", "the last 7 days", "builder_web.views.jobs:LATELY", lambda value: f"{value.days} days"),
    ("docs/architecture.md", "are kept | 32 MiB", "builder_web.views.kept:MAX_BYTES", size),
    ("docs/architecture.md", "of parts of pages 8 MiB", "builder_web.pages.rendering:MAX_FRAGMENTS", size),
    ("docs/architecture.md", "the charts of 32 jobs", "builder_web.views.presenting:MAX_CHARTS", plain),
    ("docs/architecture.md", ", 32 READMEs", "builder_web.pages.markdown:MAX_KEPT", plain),
    ("CHANGES.md", "the last 30 builds", "builder_web.views.presenting:ROW", plain),
    ("CHANGES.md", "of the last 7 days", "builder_web.views.jobs:LATELY", lambda value: f"{value.days} days"),
    ("docs/web.md", "in the last 7 days", "builder_web.views.jobs:LATELY", lambda value: f"{value.days} days"),
    ("docs/web.md", "last 30 builds", "builder_web.views.presenting:ROW", plain),
    ("docs/web.md", "a page has 2000 lines", "builder_web.views.texts:LINES", number),
    ("docs/web.md", "up to 256 MiB at once", "builder_web.console_index:MAX_SEARCHED", size),
    ("docs/web.md", "It finds, 20 of each", "builder_web.views.searching:_FOUND", plain),
    ("docs/web.md", "the first 4 digits", "builder_web.store.finding:_MIN_PREFIX", plain),
    ("docs/web.md", "remembered for 5 minutes", "builder_web.access:REMEMBER", duration),
    ("docs/web.md", "after 5 wrong ones", "builder_web.access:FREE_FAILURES", plain),
    ("docs/web.md", "A hook has 10 minutes", "builder_web.hooks:TIME_LIMIT", duration),
    ("docs/web.md", "schema version 18", "builder_web.store.schema:SCHEMA_VERSION", plain),
    ("docs/freebsd.md", "127.0.0.1, port 1234.", "builder.address:DEFAULT_PORT", plain),
    ("CHANGES.md", "large messages together have 128 MiB", "builder_server.memory:TOTAL", size),
    ("CHANGES.md", "After three losses in a row", "builder_server.scheduler:MAX_LOSSES", spelled(plain)),
]


def text(page: str) -> str:
    """Return a page with its lines joined."""
    return " ".join((ROOT / page).read_text("utf-8").split())


def value(name: str) -> Any:
    """Return what ``module:name`` is, or the attribute of that."""
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize(
    ("page", "phrase", "constant", "form"), FIGURES, ids=[f"{row[0]}: {row[1]}" for row in FIGURES]
)
def test_a_figure_is_the_constant(page: str, phrase: str, constant: str, form: Form) -> None:
    assert phrase in text(page), "the page says it in other words: so must this table"
    assert re.search(rf"(?<!\w){re.escape(form(value(constant)))}(?!\w)", phrase), form(value(constant))


def test_no_bound_is_without_its_constant() -> None:
    section = text("docs/architecture.md").split("## What bounds what", 1)[1].split("## ", 1)[0]
    for page, phrase, _, _ in FIGURES:
        if page == "docs/architecture.md":
            section = section.replace(phrase, "")
    assert not re.findall(r"[^|]*\d[^|]*", section)


@pytest.mark.parametrize(
    ("form", "value", "written"),
    [
        (number, 9999, "9999"),
        (number, 1_000_000, "1 000 000"),
        (option, 2 * 2**30, "2G"),
        (duration, 3600, "an hour"),
        (duration, 5400, "90 minutes"),
        (duration, 1, "a second"),
        (spelled(duration), 3600, "one hour"),
        (spelled(duration), 300, "five minutes"),
        (percent, 0.9, "90 %"),
    ],
)
def test_how_figures_are_written(form: Form, value: float, written: str) -> None:
    assert form(value) == written
