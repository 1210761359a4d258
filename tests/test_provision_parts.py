"""What a provisioner remembers, what it makes of answers, what it tells, and how it runs programs."""

import json
from pathlib import Path
from uuid import UUID

import pytest
import trio
from attrs import evolve

from builder.extension.crew import Doing, WorkerEntry, WorkerPlace
from builder.extension.halting import SERVER, HaltState, Scope, Target
from builder.extension.provisioning import MAX_REASON, MAX_TOLD, Coming, Stage
from builder.extension.watching import Looked, QueuedState, RunningState, Why
from builder.extension.working import Fact
from builder.history import Cause
from builder.model import Instant
from builder.needs import Capabilities, of_text
from builder_provision import engines, quantities
from builder_provision.ages import Ages
from builder_provision.engines import programs
from builder_provision.errors import EngineFailed, UnreadableLedger
from builder_provision.fleet import Asked, EngineState, Standing, Ticket, Waiting
from builder_provision.ledger import DOUBT, FIRST_PAUSE, LONGEST_PAUSE, Ledger
from builder_provision.planning import DAY
from builder_provision.survey import survey
from builder_provision.telling import provision
from builder_worker.allowances import Machine

NOON = 20_000 * DAY + DAY / 2
TICKET = Ticket(name="w", platform="p", needs=of_text("kvm"), asked_at=NOON, time_limit=3600.0, id="i-1")
ASKED = Asked(name="w", platform="p", needs=of_text("kvm"), state=EngineState.QUEUED, asked_at=NOON, time_limit=3600.0)
STARTED = evolve(ASKED, state=EngineState.STARTED, started_at=NOON + 100)

# --- how long workers have been there ------------------------------------------------------------------------------


def test_a_worker_gets_no_older_by_a_clock_that_is_set() -> None:
    ages = Ages()

    def told(now: float, elapsed: float, started: float | None = NOON + 100) -> float | None:
        (found,) = ages.told([evolve(STARTED, started_at=started)], now, elapsed)
        return None if found.started_at is None else now - found.started_at

    assert told(NOON, 5.0, started=None) is None
    assert told(NOON + 130, 10.0) == 30, "the program may have begun after it"
    assert told(NOON + 2 * DAY, 70.0) == 90
    assert told(NOON - 2 * DAY, 80.0) == 100
    assert told(NOON + 240, 120.0) == 140
    assert ages.told([], NOON, 130.0) == []
    assert told(NOON, 140.0) == 0, "another one, which the engine's machine has started in the future"


# --- the ledger ----------------------------------------------------------------------------------------------------


def test_who_was_asked_for_when_the_program_was_killed_may_still_come(tmp_path: Path) -> None:
    """What asks an engine outlives the program: until it must have ended, nobody else is asked for instead."""
    ledger = Ledger.load(tmp_path / "x.json")
    for name in ("v", "w"):
        ledger.ask(evolve(TICKET, name=name))
    ledger.save()
    again = Ledger.load(tmp_path / "x.json")
    coming = [(each.name, each.state) for each in again.found([], NOON + 500)]
    assert coming == [("v", EngineState.QUEUED), ("w", EngineState.QUEUED)]
    assert again.found([STARTED], NOON + 500 + DOUBT - 1)[0] == STARTED
    assert [each.name for each in again.tickets] == ["v", "w"], "an engine is asked by these"
    assert again.found([], NOON + 500 + DOUBT) == []
    assert again.workers == {}


def test_a_clock_that_was_years_ahead_leaves_nothing_behind() -> None:
    ledger = Ledger()
    ledger.found([evolve(STARTED, started_at=NOON + 1000 * DAY - 90)], NOON + 1000 * DAY)
    ledger.found([], NOON + 1000 * DAY)
    ledger.refuse("p", (), "no", NOON + 1000 * DAY)
    assert ledger.spent_today("p", NOON + 1000 * DAY) == 90
    assert ledger.refusals("p", NOON) == {}, "it would be refused for years"
    assert ledger.spent_today("p", NOON) == 0, "its hours would be spent for years"
    assert ledger.refuse("p", (), "no", NOON).until == NOON + 2 * FIRST_PAUSE


def test_what_an_engine_has_answered_is_no_doubt() -> None:
    ledger = Ledger()
    ledger.ask(TICKET)
    ledger.settle("w")
    assert ledger.found([], NOON + 1) == []


def test_hours_are_those_of_workers_that_ran() -> None:
    ledger = Ledger()
    ledger.ask(TICKET)
    ledger.found([ASKED], NOON + 50)
    assert ledger.spent_today("p", NOON + 50) == 0, "it has not started"
    ledger.found([STARTED], NOON + 110)
    assert ledger.spent_today("p", NOON + 160) == 60
    ledger.found([], NOON + 200)
    assert ledger.spent_today("p", NOON + 900) == 100
    assert ledger.spent_today("other", NOON + 900) == 0
    assert ledger.workers == {}


def test_the_first_word_on_when_a_worker_has_started_counts() -> None:
    ledger = Ledger()
    assert ledger.found([ASKED], NOON) == [ASKED]
    assert ledger.found([STARTED], NOON + 100) == [STARTED]
    assert ledger.found([evolve(STARTED, started_at=NOON + 500)], NOON + 500) == [STARTED]


def test_one_that_came_and_went_unseen_counts_from_when_it_was_seen_last() -> None:
    ledger = Ledger()
    ledger.ask(TICKET)
    ledger.found([ASKED], NOON + 50)
    ledger.found([], NOON + 65)
    assert ledger.spent_today("p", NOON + 65) == 15


def test_at_midnight_a_new_day_begins() -> None:
    ledger = Ledger()
    ledger.found([STARTED], NOON + 100)
    midnight = 20_001 * DAY
    assert ledger.spent_today("p", midnight - 1) == DAY / 2 - 101
    assert ledger.spent_today("p", midnight + 30) == 30
    ledger.found([], midnight + 60)
    assert ledger.spent_today("p", midnight + 60) == 60
    assert ledger.spent_today("p", NOON) == 60, "a clock that was set back gives no hours back"


def test_after_a_refusal_it_is_tried_again_less_and_less_often() -> None:
    ledger = Ledger()
    pauses = [ledger.refuse("p", (), "no", NOON).pause for _ in range(8)]
    assert pauses[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert pauses[-1] == LONGEST_PAUSE
    assert ledger.refusals("p", NOON)[()].until == NOON + LONGEST_PAUSE
    assert ledger.refusals("other", NOON) == {}
    ledger.take("p", ())
    assert ledger.refuse("p", (), "no", NOON).pause == FIRST_PAUSE
    ledger.refuse("p", of_text("kvm"), "no", NOON + 2 * DAY)
    assert set(ledger.refusals("p", NOON + 2 * DAY)) == {of_text("kvm")}, "what is long over is forgotten"


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "slurm.json"
    ledger = Ledger.load(path)
    ledger.ask(TICKET)
    ledger.found([evolve(STARTED, started_at=NOON - 100)], NOON)
    ledger.ask(evolve(TICKET, name="v"))
    ledger.settle("v")
    ledger.refuse("p", of_text("memory>=4G"), "no room", NOON)
    ledger.save()
    again = Ledger.load(path)
    assert again.tickets == [TICKET, evolve(TICKET, name="v")]
    assert again.spent_today("p", NOON) == 100
    assert again.refused == ledger.refused
    before = path.stat().st_mtime_ns
    ledger.found([evolve(STARTED, started_at=NOON - 100), evolve(ASKED, name="v")], NOON + 5)
    ledger.save()
    assert path.stat().st_mtime_ns == before, "nothing has happened"


@pytest.mark.parametrize("text", ["", "[]", '{"day": 1}', '{"day": 1, "spent": {}, "workers": [{}], "refused": []}'])
def test_another_file_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UnreadableLedger, match=r"x\.json is no ledger of builder-provision: move it away"):
        Ledger.load(tmp_path / "x.json")


# --- what answers mean ---------------------------------------------------------------------------------------------

SERVER_NOW = Instant(1_795_194_796_000)
UUID_1 = UUID(int=1)


def entry(why: Why = Why.NO_WORKER, **more: object) -> QueuedState:
    return QueuedState(job="a", platform="p", cause=Cause.DUE, why=why, ahead=0, **more)  # type: ignore[arg-type]


def worker(
    name: str = "s", doing: Doing = Doing.WAITING, *, drained: bool = False, facts: str = "", uuid: int = 9
) -> WorkerEntry:
    return WorkerEntry(
        place=WorkerPlace(platform="p", name=name, uuid=UUID(int=uuid)),
        address="127.0.0.1",
        doing=doing,
        since=SERVER_NOW,
        is_drained=drained,
        is_classic=False,
        facts=tuple(Fact(name=fact, value="yes") for fact in facts.split()),
    )


def looked(*queued: QueuedState, **more: object) -> Looked:
    return Looked(**{"now": SERVER_NOW, "is_full": False, "scheduled": 1, "queued": queued} | more)  # type: ignore[arg-type]


def ago(seconds: float) -> Instant:
    return Instant(SERVER_NOW.ms - round(seconds * 1000))


def test_times_of_the_server_are_told_by_this_machines_clock() -> None:
    found = survey(
        "p",
        looked(
            entry(due=ago(60), needs=of_text("kvm"), time_limit=90_000, expected=5000),
            entry(due=ago(60), not_before=ago(10)),
            entry(due=ago(-60)),
            entry(),
            evolve(entry(), platform="other"),
            *(entry(why) for why in (Why.PAUSED, Why.NO_TEMPLATE, Why.NOT_BEFORE, Why.DRAINED, Why.DISK_FULL)),
        ),
        [],
        [],
        NOON,
    )
    assert found.waiting == (
        Waiting(needs=of_text("kvm"), since=NOON - 60, time_limit=90.0, expected=5.0),
        Waiting(since=NOON - 10),
        Waiting(since=NOON),
        Waiting(since=0.0),
    )


def test_workers_that_stand_are_told_from_those_that_were_asked_for() -> None:
    running = RunningState(uuid=UUID_1, job="b", platform="p", started=ago(40), cause=Cause.DUE, expected=60_000)
    found = survey(
        "p",
        looked(running=(running,)),
        [
            worker("w", Doing.BUILDING),
            worker("free", facts="kvm"),
            worker("busy", Doing.BUILDING, uuid=1),
            worker("unknown", Doing.BUILDING, uuid=2),
            worker("drained", drained=True),
            worker("pressed", facts="pressure"),
            evolve(worker("x"), place=WorkerPlace(platform="other", name="x", uuid=UUID_1)),
        ],
        [STARTED, evolve(ASKED, name="v"), evolve(ASKED, name="y", platform="other")],
        NOON,
    )
    assert found.standing == (
        Standing(able=Capabilities.of([("kvm", "yes")]), free_at=NOON),
        Standing(able=Capabilities(), free_at=NOON + 20),
        Standing(able=Capabilities(), free_at=None),
    )
    assert [(each.name, each.doing) for each in found.asked] == [("w", Doing.BUILDING), ("v", None)]


def test_one_that_takes_no_job_counts_as_busy() -> None:
    found = survey("p", looked(), [worker("w", drained=True)], [STARTED], NOON)
    assert found.asked[0].doing is Doing.AWAY


def test_where_no_job_is_given_out_is_closed() -> None:
    def halt(target: Target) -> HaltState:
        return HaltState(target=target, since=SERVER_NOW, by="x", reason="")

    here = Target(scope=Scope.PLATFORM, name="p")
    for more in ({"is_full": True}, {"halts": (halt(SERVER),)}, {"halts": (halt(here),)}):
        assert survey("p", looked(**more), [], [], NOON).is_closed
    elsewhere = Target(scope=Scope.PLATFORM, name="q")
    assert not survey("p", looked(halts=(halt(elsewhere),)), [], [], NOON).is_closed


# --- what is told --------------------------------------------------------------------------------------------------


def test_workers_are_told_in_groups() -> None:
    asked = [
        evolve(ASKED, reason="Resources", asked_at=NOON - 40),
        evolve(ASKED, reason="Priority"),
        evolve(ASKED, reason="Resources"),
        STARTED,
        evolve(STARTED, doing=Doing.BUILDING, asked_at=NOON - 900),
        evolve(STARTED, left_at=NOON),
    ]
    told = provision("farm", "slurm", asked, ["what failed" + "x" * 300 + "why"], now=NOON, server_now=SERVER_NOW)
    assert told.coming == (
        Coming(count=2, stage=Stage.PENDING, reason="Resources"),
        Coming(count=1, stage=Stage.PENDING, reason="Priority"),
        Coming(count=1, stage=Stage.STARTING, reason=""),
    )
    assert told.since == ago(40)
    (reason,) = told.why_not
    assert len(reason) == MAX_REASON
    assert (reason[:12], reason[-4:]) == ("what failedx", "xwhy")
    told.check()


def test_whatever_there_is_to_tell_is_within_bounds() -> None:
    asked = [evolve(ASKED, name=str(number), reason=f"{number} " * 200) for number in range(20)]
    told = provision("l" * 80, "e" * 80, asked, [str(number) for number in range(20)], now=NOON, server_now=SERVER_NOW)
    told.check()
    assert (len(told.coming), len(told.why_not)) == (MAX_TOLD, MAX_TOLD)


# --- how much is asked for -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("needed", ["64M", "999M", "1G", "16G", "511G"])
def test_a_worker_with_what_was_asked_for_has_what_the_job_needs(needed: str) -> None:
    needs = of_text(f"memory>={needed}")
    mebibytes = quantities.memory(needs)
    assert mebibytes is not None
    assert needs[0].least is not None
    machine = Machine(memory=mebibytes * quantities.MIB, cpus=1)
    assert machine.memory_for_jobs >= needs[0].least


# --- programs ------------------------------------------------------------------------------------------------------


async def test_what_a_program_says() -> None:
    assert await programs.run(["cat"], given="hello\n") == "hello\n"
    assert await programs.run(["sh", "-c", "echo $A"], env={"A": "b"}) == "b\n"
    assert await programs.run(["true"], given="x" * 1_000_000) == "", "it need not read what it is given"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["/none/program"], "program can't be run: No such file or directory"),
        (["sh", "-c", "exit 3"], "sh failed: status 3"),
        (["sh", "-c", "echo first >&2; echo 'the \x1b last ' >&2; exit 1"], "sh failed: the \\x1b last"),
    ],
)
async def test_a_program_that_fails(words: list[str], reason: str) -> None:
    with pytest.raises(EngineFailed) as caught:
        await programs.run(words)
    assert str(caught.value) == reason


async def test_a_program_has_a_deadline_and_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "TIMEOUT", 0.1)
    with pytest.raises(EngineFailed, match=r"sleep took longer than 0\.1 s"):
        await programs.run(["sleep", "60"])
    monkeypatch.setattr(programs, "TIMEOUT", 0.5)
    with pytest.raises(EngineFailed, match=r"sh took longer than 0\.5 s: no way"):
        await programs.run(["sh", "-c", "echo no way >&2; exec sleep 60"])
    monkeypatch.setattr(programs, "TIMEOUT", 30.0)
    monkeypatch.setattr(programs, "MAX_SAID", 1024**2)
    with trio.fail_after(30), pytest.raises(EngineFailed, match="cat says more than 1 MiB"):
        await programs.run(["cat", "/dev/zero"])


def test_labels_are_what_a_worker_can_not_find_out() -> None:
    needs = of_text("arch=x86_64 big-disk cores>=2 gpu kvm memory>=1G sandbox=none")
    assert engines.labels(needs) == ["big-disk", "gpu"]
    assert json.dumps(engines.labels(())) == "[]"


async def test_a_program_that_leaves_its_output_to_another_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """What holds it would lose it when nobody reads any more."""
    monkeypatch.setattr(programs, "LEFT", 0.1)
    said = "sh has ended, and what it started holds its output: start that with one of its own"
    with trio.fail_after(30), pytest.raises(EngineFailed, match=f"^{said}$"):
        await programs.run(["sh", "-c", "sleep 5 &"])
