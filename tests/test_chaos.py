"""A farm that is hit at random loses nothing; and an account finds what is wrong, wherever something is."""

import sqlite3
from pathlib import Path
from uuid import UUID

import pytest
from attrs import evolve
from chaos import accounts
from chaos.crowd import CLASSIC_PLATFORM, OURS_PLATFORM, Told
from chaos.database import in_file
from chaos.jobs import Work
from chaos.run import run
from endpoints import Endpoint, Request

from builder import codec, execution
from builder.model import Aborted, ConsoleLine, Execution, Exited, Instant, Result

SEEDS = (1,)
"""Those that found something, and one to begin with."""


@pytest.mark.parametrize("seed", SEEDS)
async def test_nothing_is_lost(tmp_path: Path, seed: int) -> None:
    report = await run(tmp_path, seconds=7, seed=seed, pause=0.5)
    assert report.is_good, report
    assert report.account.succeeded > 0, report
    assert sum(report.faults.values()) > 0, report


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 103))
async def test_nothing_is_lost_in_a_longer_time(tmp_path: Path, seed: int) -> None:
    report = await run(tmp_path, seconds=60, seed=seed, workers=3)
    assert report.is_good, report
    assert report.account.succeeded > 30, report


@pytest.mark.long
async def test_nothing_is_lost_by_three_servers(tmp_path: Path) -> None:
    """Any of them, and PostgreSQL, may go at any time, or stand still for longer than its lease."""
    report = await run(tmp_path, seconds=40, seed=303, workers=3, servers=3)
    assert report.is_good, report
    assert report.account.succeeded > 10, report


# --- the account ---------------------------------------------------------------------------------------------------

WORK = Work(name="job1", platform=OURS_PLATFORM, lines=3, every=1)
BUILD = UUID(int=1)
FINE = Execution(
    job=WORK.job,
    uuid=BUILD,
    console=tuple(ConsoleLine(delta=number, line=line) for number, line in enumerate(WORK.says())),
    started=Instant(0),
    finished=Instant(1),
    result=Exited(code=0),
    artifacts=WORK.artifacts,
)


def account(
    root: Path,
    *,
    ends: int = 1,
    state: str = "finished",
    outcome: str = "succeeded",
    upload: str = "done",
    result: Result = FINE.result,
    arrived: tuple[Execution, ...] = (FINE,),
    platform: str = OURS_PLATFORM,
    told: Told | None = None,
) -> accounts.Account:
    database = root / "database"
    connection = sqlite3.connect(database)
    connection.execute("create table build (uuid, name, platform, state, outcome, result, upload)")
    for number in range(1, ends + 1):
        row = (str(UUID(int=number)), "job1", platform, state, outcome, codec.encode_result(result), upload)
        connection.execute("insert into build values (?, ?, ?, ?, ?, ?, ?)", row)
    connection.commit()
    connection.close()
    receiver = Endpoint(0, requests=[Request("/", {}, b"", execution.encode(each)) for each in arrived])
    told = told or Told(accepted={"job1": evolve(WORK, platform=platform)})
    return accounts.draw_up(in_file(database), told, receiver)


def test_an_account_of_what_is_fine(tmp_path: Path) -> None:
    found = account(tmp_path)
    assert (found.wrong, found.succeeded, found.lost, found.doubled) == ([], 1, 0, 0)


CUT_OFF = evolve(FINE, console=FINE.console[:-1])
TURNED = evolve(FINE, console=FINE.console[::-1])
DOUBLED = evolve(FINE, console=(*FINE.console, FINE.console[-1]))
EMPTY = evolve(FINE, artifacts=())
LOST = Aborted(message="worker lost")


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ({"ends": 0}, "job1 was accepted and has no end"),
        ({"state": "lost"}, "job1 was accepted and has no end"),
        ({"state": "running"}, "still running"),
        ({"ends": 2}, "job1 has 2 ends"),
        ({"arrived": ()}, "has not arrived"),
        ({"arrived": (CUT_OFF,)}, "2 lines in place of 3"),
        ({"arrived": (DOUBLED,)}, "4 lines in place of 3"),
        ({"arrived": (TURNED,)}, "line 1 of 3"),
        ({"arrived": (EMPTY,)}, "it left []"),
        ({"arrived": (FINE, EMPTY)}, "arrived twice, and not the same"),
        ({"upload": "failed"}, "its upload is failed"),
        ({"outcome": "failed", "result": Exited(code=1)}, "exited 1 was recorded and"),
        ({"outcome": "lost", "result": LOST, "arrived": (evolve(FINE, result=LOST),)}, "worker lost"),
        ({"told": Told(accepted={"job1": WORK}, recorded={UUID(int=7)})}, "a worker was told, and it is not"),
        ({"told": Told(accepted={"job1": WORK}, wrong=["what an observer saw"])}, "what an observer saw"),
    ],
)
def test_an_account_of_what_is_wrong(tmp_path: Path, what: dict[str, object], expected: str) -> None:
    found = account(tmp_path, **what)  # type: ignore[arg-type]
    assert any(expected in line for line in found.wrong), found.wrong


def test_what_is_no_fault(tmp_path: Path) -> None:
    cancelled = evolve(FINE, result=Aborted(message="cancelled by somebody"))
    told = Told(unknown={"job1": WORK}, cancelled={BUILD})
    assert account(tmp_path, outcome="aborted", result=cancelled.result, arrived=(cancelled,), told=told).wrong == []
    (tmp_path / "database").unlink()
    lost = evolve(FINE, result=LOST)
    found = account(tmp_path, outcome="lost", result=LOST, arrived=(lost,), platform=CLASSIC_PLATFORM)
    assert (found.wrong, found.given_up) == ([], 1)
    (tmp_path / "database").unlink()
    assert account(tmp_path, ends=0, arrived=(), told=Told(unknown={"job1": WORK})).wrong == []
