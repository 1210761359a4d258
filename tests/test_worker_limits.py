"""What a job may use: how it is written, who may tighten it, what is told when a limit ends a job."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from forked import FIRST
from hypothesis import given
from hypothesis import strategies as st
from worker_program import Finished, run_script
from worker_sandboxes import builder_worker, need, reachable_directory

from builder.model import Aborted, Exited
from builder.quantities import (
    InvalidQuantity,
    parse_count,
    parse_cpus,
    parse_duration,
    parse_pause,
    parse_size,
)
from builder_worker import directives
from builder_worker.allowances import (
    DEFAULT_MAX_ARTIFACT_BYTES,
    DEFAULT_MAX_CONSOLE,
    DEFAULT_PIDS,
    DEFAULT_SHM_SIZE,
    PARSERS,
    Machine,
    allot,
    tighten,
)
from builder_worker.choice import DEFAULT_DATE
from builder_worker.sandbox import Limits, SandboxError

ALL = frozenset({"memory", "pids", "cpus", "work_size", "shm_size"})
MIB, GIB = 1024**2, 1024**3
MACHINE = Machine(memory=10 * GIB, cpus=4)
OUTPUT: dict[str, Any] = {"max_console": DEFAULT_MAX_CONSOLE, "max_artifact_bytes": DEFAULT_MAX_ARTIFACT_BYTES}


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_size, "1", 1),
        (parse_size, "1000", 1000),
        (parse_size, "512M", 512 * 1024**2),
        (parse_size, "2g", 2 * 1024**3),
        (parse_size, "1.5KiB", 1536),
        (parse_size, "3KB", 3072),
        (parse_size, "1T", 1024**4),
        (parse_duration, "90", 90),
        (parse_duration, "0.5", 0.5),
        (parse_duration, "90s", 90),
        (parse_duration, "10m", 600),
        (parse_duration, "1h30m", 5400),
        (parse_duration, "2d", 172800),
        (parse_pause, "0", 0),
        (parse_pause, "5m", 300),
        (parse_count, "1", 1),
        (parse_count, "4096", 4096),
        (parse_cpus, "0.5", 0.5),
        (parse_cpus, "2", 2),
    ],
)
def test_quantities_are_written_in_words(parse: Any, text: str, value: float) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        *((parse_size, text) for text in ("", "0", "-1", "M", "1X", "1 M", "1e9", "0.1", "9" * 15 + "T", "٣", "1M\n")),
        *((parse_duration, text) for text in ("", "0", "s", "1x", "-1s", "1h 3m", "inf", "nan", "999999d", "1s2")),
        *((parse_count, text) for text in ("", "0", "1.5", "-1", "9" * 12, "²")),
        *((parse_cpus, text) for text in ("", "0", "0.001", "1e3", "99999", "-2")),
    ],
)
def test_what_is_no_quantity_is_refused(parse: Any, text: str) -> None:
    with pytest.raises(InvalidQuantity):
        parse(text)


@given(st.text(alphabet="0123456789.KMGTiBsmhd ٣-", max_size=20))
def test_any_text_is_a_number_or_refused(text: str) -> None:
    for parse in PARSERS.values():
        with suppress(InvalidQuantity):
            assert 0 < parse(text) < 2**63


@pytest.mark.parametrize(
    "arguments",
    [
        ("--memory", "much"),
        ("--timeout", "0"),
        ("--pids", "0"),
        ("--slots", "0"),
        ("--drain-timeout", "-1"),
        ("--cpus=x",),
    ],
)
def test_a_wrong_quantity_is_a_wrong_command_line(arguments: tuple[str, ...]) -> None:
    done = builder_worker("p1", *arguments)
    assert done.returncode == 2
    assert arguments[0].partition("=")[0] in done.stderr
    assert len(done.stderr.splitlines()) == 1


# --- what the job asks for ---------------------------------------------------------------------------------------------


def test_a_script_tells_its_limits_near_its_top() -> None:
    script = b"""#!/bin/sh
# Builds it.

#builder: pids=100
# builder: memory=512M  timeout=10m
## builder: source-date-epoch=1700000000 max-artifact-bytes=1G pids=70
# builder:memory=1
true
# builder: cpus=1
"""
    assert directives.read(script) == directives.Directives(
        limits=Limits(memory=512 * 1024**2, timeout=600, max_artifact_bytes=1024**3, pids=70), date=1700000000
    )


def test_needs_are_none_of_the_workers_business_unless_they_are_mistaken() -> None:
    assert directives.read(b"# builder: needs=kvm pids=70").remarks == ()
    assert directives.read(b"# builder: needs=cores=4").remarks == (
        "line 1 of the script: cores=4: write cores>=N, such as cores>=4; ignored",
    )


def test_what_is_not_understood_is_told_and_ignored() -> None:
    found = directives.read(b"# builder: memroy=1G Hannes timeout=\x1b source-date-epoch=-1 pids=1 pids=99")
    assert found.limits == Limits(pids=99)
    assert found.date is None
    assert [remark.partition(": ")[0] for remark in found.remarks] == [
        "line 1 of the script, memroy=1G",
        "line 1 of the script, Hannes",
        "line 1 of the script, timeout=\\x1b",
        "line 1 of the script, source-date-epoch=-1",
        "line 1 of the script, pids=1",
    ]


@given(
    st.lists(st.sampled_from([b"# builder: ", b"memory=", b"timeout=", b"1", b"M", b"\xff", b"\n", b" ", b"=", b"#"]))
)
def test_no_script_is_an_error(parts: list[bytes]) -> None:
    found = directives.read(b"".join(parts))
    assert all(remark.isprintable() for remark in found.remarks)


@given(*[st.builds(Limits, **{name: st.none() | st.integers(1, 9) for name in PARSERS})] * 2)
def test_limits_only_get_tighter(one: Limits, other: Limits) -> None:
    both = tighten(one, other)
    for name in PARSERS:
        given = [limit for limit in (getattr(one, name), getattr(other, name)) if limit is not None]
        assert getattr(both, name) == (min(given) if given else None)


# --- what is allowed if nobody says -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "slots", "real", "expected"),
    [
        (Limits(), 1, ALL, Limits(memory=9 * GIB, pids=DEFAULT_PIDS, shm_size=DEFAULT_SHM_SIZE, **OUTPUT)),
        (Limits(), 3, ALL, Limits(memory=3 * GIB, pids=DEFAULT_PIDS, cpus=4 / 3, shm_size=DEFAULT_SHM_SIZE, **OUTPUT)),
        (Limits(), 3, frozenset(), Limits(**OUTPUT)),
        (
            Limits(work_size=70),
            1,
            frozenset({"work_size"}),
            Limits(work_size=70, max_artifact_bytes=70, max_console=DEFAULT_MAX_CONSOLE),
        ),
        (
            Limits(memory=800, cpus=4, pids=5, shm_size=6, timeout=9, max_console=1, max_artifact_bytes=2**50),
            3,
            ALL,
            Limits(memory=800, cpus=4, pids=5, shm_size=6, timeout=9, max_console=1, max_artifact_bytes=2**50),
        ),
    ],
)
def test_memory_and_cpus_are_divided_unless_told_otherwise(
    asked: Limits, slots: int, real: frozenset[str], expected: Limits
) -> None:
    assert allot(asked, slots=slots, real=real, machine=MACHINE) == expected


@pytest.mark.parametrize(
    ("asked", "machine", "expected"),
    [
        (None, 300 * MIB, 200 * MIB),  # the worker needs some of it too
        (None, 150 * MIB, 75 * MIB),
        (250 * MIB, 300 * MIB, 250 * MIB),
        (GIB, 300 * MIB, 300 * MIB),  # more than all would never be reached: something else would be named, or nothing
    ],
)
def test_no_job_gets_more_memory_than_its_worker(asked: int | None, machine: int, expected: int) -> None:
    limits = allot(Limits(memory=asked), slots=1, real=ALL, machine=Machine(memory=machine, cpus=1))
    assert limits.memory == expected


@pytest.mark.parametrize(
    ("asked", "there_are", "expected"), [(None, 0.5, None), (0.4, 0.5, 0.4), (1, 0.5, 0.5), (8, 4, 4)]
)
def test_no_job_gets_more_cpus_than_its_worker(asked: float | None, there_are: float, expected: float | None) -> None:
    limits = allot(Limits(cpus=asked), slots=1, real=ALL, machine=Machine(memory=GIB, cpus=there_are))
    assert limits.cpus == expected


def test_a_limit_that_can_not_be_enforced_is_not_promised() -> None:
    with pytest.raises(SandboxError, match=r"--memory, --work-size here.*builder-worker check"):
        allot(Limits(memory=1, work_size=1, pids=1), slots=1, real=frozenset({"pids"}), machine=MACHINE)
    done = builder_worker("p1", "--sandbox=none", "--memory=1G", "--shm-size=1M", first="without_groups")
    assert done.returncode == 7
    assert "can't enforce --memory, --shm-size here" in done.stderr


# --- limits that end jobs -----------------------------------------------------------------------------------------------


@pytest.fixture
def place() -> Iterator[Path]:
    with reachable_directory() as path:
        yield path


@pytest.mark.parametrize(
    ("limit", "directive", "script", "message"),
    [
        ("memory", "memory=32M", "exec perl -e '$x = q(x) x 2**28; sleep 100'", "out of memory (limit 32 MiB)"),
        ("pids", "pids=64", "for i in $(seq 90); do sleep 100 & done; exit 3", "too many processes (limit 64)"),
        ("work_size", "work-size=4M", "head -c 9000000 /dev/zero >f; exit 3", "work directory full (limit 4 MiB)"),
    ],
)
@pytest.mark.parametrize("sandbox", ["bubblewrap", "none"])
async def test_the_result_says_which_limit_of_the_sandbox_ended_the_job(
    place: Path, sandbox: str, limit: str, directive: str, script: str, message: str
) -> None:
    need(sandbox, limit)
    job = f"#!/bin/sh\n# builder: {directive}\n{script}\n"
    finished = await run_script(place, job.encode(), f"--sandbox={sandbox}")
    assert finished.result == Aborted(message=message)


async def test_a_job_takes_less_shared_memory_than_its_worker_gives(place: Path) -> None:
    need("bubblewrap")
    look = b"df -k /dev/shm | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2"
    for allowed, wish, size in (("64M", b"3M", b"3072"), ("3M", b"64M", b"3072")):
        script = b"# builder: shm-size=%s\n%s" % (wish, look)
        finished = await run_script(place, script, "--sandbox=bubblewrap", f"--shm-size={allowed}")
        assert finished.own_lines == [size]


@pytest.mark.parametrize(
    ("directive", "script", "message"),
    [
        ("timeout=0.3s", "sleep 1000", "time limit of 0.3 s exceeded"),
        ("max-silent=0.3s", "echo; sleep 1000", "no output for 0.3 s"),
        ("max-console=1K", "exec yes", "more than 1024 bytes of console output"),
        ("max-artifacts=2", "touch a b c", "more than the 2 artifacts allowed"),
        ("max-artifact-bytes=1K", "head -c 1025 /dev/zero >f", "the artifacts take more than the 1 KiB allowed"),
    ],
)
@pytest.mark.parametrize("by", ["operator", "job"])
async def test_the_result_says_which_limit_of_the_worker_ended_the_job(
    tmp_path: Path, directive: str, script: str, message: str, by: str
) -> None:
    name, _, value = directive.partition("=")
    strict, lax = (f"--{name}", value), (f"--{name}", {"t": "1h", "s": "1h"}.get(value[-1], "1000000"))
    if by == "operator":  # whose limits a job does not loosen
        finished = await run_script(tmp_path, f"# builder: {name}={lax[1]}\n{script}".encode(), *strict)
    else:
        finished = await run_script(tmp_path, f"# builder: {directive}\n{script}".encode(), *lax)
    assert finished.result == Aborted(message=message)


async def test_a_wish_that_can_not_be_granted_is_told_in_the_console(tmp_path: Path) -> None:
    finished = await run_script(tmp_path, b"# builder: memory=1G wonder=1\ntrue", environment={FIRST: "without_groups"})
    assert finished.result == Exited(code=0)
    assert finished.remarks == [
        "line 1 of the script, wonder=1: a worker knows no such setting; ignored",
        "memory can't be limited here; ignored",
        "0 artifacts, 0 bytes",
    ]


# --- the date -----------------------------------------------------------------------------------------------------------


async def _date(place: Path, script: bytes, *arguments: str) -> list[bytes]:
    finished: Finished = await run_script(place, script + b"\necho ${SOURCE_DATE_EPOCH-none}", *arguments)
    return finished.own_lines


async def test_the_date_of_the_sources_is_the_jobs_or_a_fixed_one(place: Path) -> None:
    need("bubblewrap")
    sandboxed = "--sandbox=bubblewrap"
    assert await _date(place, b"", sandboxed) == [b"%d" % DEFAULT_DATE]
    assert await _date(place, b"# builder: source-date-epoch=5", sandboxed) == [b"5"]
    assert await _date(place, b"", sandboxed, "--env", "SOURCE_DATE_EPOCH=7") == [b"7"]


async def test_without_a_sandbox_it_is_only_the_jobs(tmp_path: Path) -> None:
    assert await _date(tmp_path, b"") == [b"none"]
    assert await _date(tmp_path, b"# builder: source-date-epoch=5") == [b"5"]
