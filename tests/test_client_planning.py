"""The commands that plan jobs, through a real server: what they send, print and refuse."""

import json
import re
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import trio
from client_harness import Server, assert_one_line, succeed
from client_harness import run_client as run_alone
from farm import LocalServer, run_client, run_server
from hypothesis import given
from hypothesis import strategies as st
from scripted import build, queues, script
from strategies import needs

from builder.errors import InvalidOptions
from builder.extension.schedule import ChangeJob, JobShown, ShowJob
from builder.messages import Info, InfoReply, Message, Reschedule, Schedule, Success
from builder.model import Instant, Period, ScheduleItem, ScriptJob
from builder.planning import MAX_LIMIT, Cron, JobOptions, JobReference
from builder_client import changes, jobs, schedule_file
from builder_client.errors import Refused

Run = Callable[..., Coroutine[Any, Any, subprocess.CompletedProcess[bytes]]]

_OF_ONE = ("awaited", "script_needs", "queued_on", "revision")
"""What only ``show`` tells."""

NIGHTLY = ("--cron", "17 3 * * mon-fri", "--time-zone", "Europe/Copenhagen")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LocalServer]:
    async with run_server(tmp_path) as running_server:
        yield running_server


@pytest.fixture
def run(server: LocalServer) -> Run:
    async def run(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        return await trio.to_thread.run_sync(lambda: run_client(server, *arguments))  # type: ignore[arg-type]

    return run


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "job.sh"
    path.write_bytes(b"#!/bin/sh\n")
    return str(path)


async def ok(run: Run, *arguments: str) -> str:
    done = await run(*arguments)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode()


async def shown(run: Run, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await ok(run, "show", name, "--json"))
    return found


async def test_schedule_with_a_rule(run: Run, server: LocalServer, file: str) -> None:
    told = await ok(run, "schedule", "a", "p1", file, *NIGHTLY)
    assert told.startswith("a runs now, and then 20")
    assert " 03:17:00 +0" in told
    assert await queues(server) == {"p1": ["a"]}
    told = await ok(run, "schedule", "b", "p1", file, "--cron", "@daily", "--not-now")
    assert told.startswith("b runs next 20")
    assert await queues(server) == {"p1": ["a"]}


async def test_schedule_with_every_option(run: Run, server: LocalServer, file: str) -> None:
    for name in ("lib", "x@y"):
        await ok(run, "schedule", name, "p1", file)
    told = await ok(
        run, "schedule", "app", "p1", file, "--period", "never", "--missed", "skip", "--priority", "9",
        "--retries", "2", "--timeout", "1h30m", "--max-silent", "90s", "--after", "lib@p1", "--after", "x@y@",
        "--needs", "kvm", "--needs", "memory>=2048M,cores>=4",
    )  # fmt: skip
    assert told == ""
    assert await queues(server) == {"p1": ["lib", "x@y"]}
    assert await shown(run, "app") == {
        "job": "app", "kind": "script", "platform": "p1", "script": "#!/bin/sh\n",
        "period": "never", "cron": None, "time_zone": None, "spread": False, "missed": "skip",
        "priority": 9, "retries": 2, "timeout_ms": 5_400_000, "max_silent_ms": 90_000,
        "after": [{"job": "lib", "platform": "p1"}, {"job": "x@y", "platform": None}],
        "awaited": [{"job": "lib", "platform": "p1"}, {"job": "x@y", "platform": None}],
        "needs": ["cores>=4", "kvm", "memory>=2G"], "script_needs": [],
        "paused": False, "next": None, "queued_on": [], "revision": 1,
    }  # fmt: skip
    text = await ok(run, "show", "app")
    needed = "needs       cores>=4, kvm, memory>=2G"
    for line in ("priority    9", "timeout     1h30m", "after       lib@p1, x@y@", "waits for   lib@p1, x@y@", needed):
        assert f"{line}\n" in text
    assert text.endswith("script:\n  #!/bin/sh\n")


async def test_an_orb_build_has_the_same_options(run: Run) -> None:
    await ok(run, "orb-build", "orb", "retreat", "--spread", "--priority", "1")
    found = await shown(run, "orb")
    assert (found["kind"], found["opam_package"], found["spread"], found["priority"]) == (
        "orb-build",
        "retreat",
        True,
        1,
    )
    assert "script" not in found


async def test_needs_are_changed_and_taken_away(run: Run, file: str) -> None:
    await ok(run, "schedule", "app", "p1", file, "--needs", "kvm")
    assert await ok(run, "edit", "app", "--needs", "gpu") == "needs: kvm -> gpu\n"
    assert await ok(run, "edit", "app", "--no-needs") == "needs: gpu -> none\n"


async def test_what_a_script_needs_is_shown(run: Run, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n# builder: needs=kvm,memory>=2G\n")
    await ok(run, "schedule", "app", "p1", str(script), "--needs", "gpu")
    assert (await shown(run, "app"))["script_needs"] == ["kvm", "memory>=2G"]
    assert "script needs  kvm, memory>=2G\n" in await ok(run, "show", "app")
    script.write_text("#!/bin/sh\n# builder: needs=memory=2G\n")
    done = await run("edit", "app", "--script", str(script))
    assert done.returncode == 3
    assert b"line 2 of the script: memory=2G: write memory>=SIZE, such as memory>=16G" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--needs", "memory"], "--needs: memory: write memory>=SIZE, such as memory>=16G"),
        (["--needs", "kvm", "--needs", "cores=2"], "--needs: cores=2: write cores>=N, such as cores>=4"),
        (["--cron", "30 2 30 2 *"], "invalid cron rule '30 2 30 2 *': it never matches"),
        (["--cron", "@daily", "--time-zone", "Mars/Base"], "unknown time zone 'Mars/Base'"),
        (["--time-zone", "UTC"], "--time-zone: it is for cron rules"),
        (["--cron", "@daily", "--period", "daily"], "--cron: it takes the place of a period"),
        (["--cron", "@daily", "--spread"], "in a cron rule, H spreads"),
        (["--timeout", "soon"], "--timeout: 'soon' is not a duration"),
        (["--timeout", "31d"], "--timeout: it lies between 0.001s and 30d"),
        (["--max-silent", "0.0001s"], "--max-silent: it lies between 0.001s and 30d"),
        (["--after", "a"], "can't wait for itself"),
        (["--after", "b/c"], "invalid job name: it contains a slash"),
        (["--after", "b@p/c"], "invalid platform name: it contains a slash"),
        (["--priority", "10"], "10 is not in the range"),
    ],
)
def test_wrong_options_are_told_before_connecting(arguments: list[str], reason: str, file: str) -> None:
    done = run_alone("-r", "127.0.0.1:1", "schedule", "a", "p1", file, *arguments)
    assert done.returncode == 2
    assert_one_line(done.stderr)
    assert reason in done.stderr.decode()


def test_an_older_server_is_asked_in_the_classic_way_where_that_suffices(file: str) -> None:
    with Server(succeed) as server:
        assert server.run("schedule", "a", "p1", file, "--period", "weekly").returncode == 0
    assert server.seen == [
        Schedule(period=Period.WEEKLY, job=ScriptJob(name="a", platform="p1", script=b"#!/bin/sh\n"))
    ]


# --- next ----------------------------------------------------------------------------------------------------------


async def test_next(run: Run, file: str) -> None:
    await ok(run, "schedule", "a", "p1", file, *NIGHTLY)
    found = json.loads(await ok(run, "next", "a", "--count", "3", "--json"))
    assert [*found] == ["next"]
    assert len(found["next"]) == 3
    assert all(moment.endswith(":17:00Z") for moment in found["next"])
    lines = (await ok(run, "next", "a", "--count", "2")).splitlines()
    assert len(lines) == 2
    assert all(" 03:17:00 +0" in line and "Europe/Copenhagen (in " in line for line in lines)
    await ok(run, "schedule", "never", "p1", file, "--period", "never")
    assert await ok(run, "next", "never") == "never\n"
    await ok(run, "schedule", "app", "p1", file, "--after", "never@p1", "--after", "a")
    assert await ok(run, "next", "app") == "only after a, never@p1\n"
    assert json.loads(await ok(run, "next", "app", "--json")) == {"next": []}


def test_next_of_a_rule_without_a_server() -> None:
    arguments = ("-r", "127.0.0.1:1", "next", "--cron", "0 1 28 3 *", "--time-zone", "Europe/Copenhagen")
    done = run_alone(*arguments, "--count", "2", "--json")
    runs = json.loads(done.stdout)["next"]
    assert len(runs) == 2
    assert all(run[4:] in ("-03-28T00:00:00Z", "-03-27T23:00:00Z") for run in runs)  # summer time has begun, or not
    for wrong in (("--time-zone", "UTC"), ("a", "--time-zone", "UTC")):
        assert run_alone("next", *wrong).returncode == 2


# --- edit, pause, resume -------------------------------------------------------------------------------------------


async def test_edit(run: Run, server: LocalServer, file: str, tmp_path: Path) -> None:
    await ok(run, "schedule", "a", "p1", file, *NIGHTLY, "--timeout", "10m")
    assert await ok(run, "edit", "a", "--priority", "7", "--no-timeout") == "priority: 5 -> 7\ntimeout: 10m -> none\n"
    assert await ok(run, "edit", "a", "--priority", "7") == "a is so already: nothing was changed\n"
    (tmp_path / "new.sh").write_bytes(b"new\n")
    told = await ok(run, "edit", "a", "--script", str(tmp_path / "new.sh"), "--platform", "p2")
    assert told.startswith("platform: p1 -> p2\nscript: 10 bytes, SHA-256 ")
    assert (await ok(run, "edit", "a", "--time-zone", "UTC")) == "time-zone: Europe/Copenhagen -> UTC\n"
    assert "cron: 17 3 * * mon-fri -> none\n" in await ok(run, "edit", "a", "--spread")
    found = await shown(run, "a")
    assert (found["platform"], found["script"], found["cron"], found["period"]) == ("p2", "new\n", None, "daily")
    assert (found["spread"], found["priority"], found["timeout_ms"], found["revision"]) == (True, 7, None, 5)
    assert "spread: yes -> none\n" in await ok(run, "edit", "a", "--cron", "@hourly")
    assert "cron: @hourly -> none\n" in await ok(run, "edit", "a", "--no-cron")
    assert (await shown(run, "a"))["period"] == "daily"
    assert await queues(server) == {"p1": [], "p2": []}


@pytest.mark.parametrize("kind", ["script", "orb"])
@pytest.mark.parametrize(
    ("asked", "period", "cron"),
    [
        ((), "never", None),
        (("--period", "daily"), "daily", None),
        (("--period", "weekly", "--spread"), "weekly", None),
        (("--spread",), "daily", None),
        (("--cron", "0 */6 * * *"), "daily", "0 */6 * * *"),
    ],
)
async def test_a_job_after_others_has_the_period_that_is_asked_for(
    run: Run, file: str, kind: str, asked: tuple[str, ...], period: str, cron: str | None
) -> None:
    await ok(run, "schedule", "lib", "p1", file)
    what = ("schedule", "app", "p1", file) if kind == "script" else ("orb-build", "app", "app")
    await ok(run, *what, "--after", "lib", *asked)
    found = await shown(run, "app")
    assert (found["period"], found["cron"]) == (period, cron)
    assert (found["next"] is None) == (period == "never")
    # and the same by an edit of a job that was after none
    await ok(run, "unschedule", "app", "--yes")
    await ok(run, *what)
    await ok(run, "edit", "app", "--after", "lib", *asked)
    found = await shown(run, "app")
    assert (found["period"], found["cron"]) == (period, cron)


async def test_a_period_that_was_asked_for_stays(run: Run, file: str) -> None:
    for name in ("app", "lib", "tool"):
        await ok(run, "schedule", name, "p1", file)
    assert await ok(run, "edit", "app", "--after", "lib") == "period: daily -> never\nafter: none -> lib\n"
    assert await ok(run, "edit", "app", "--period", "daily") == "period: never -> daily\n"
    assert await ok(run, "edit", "app", "--after", "tool") == "after: lib -> tool\n"
    assert await ok(run, "edit", "app", "--no-after", "--period", "weekly") == (
        "period: daily -> weekly\nafter: tool -> none\n"
    )
    assert await ok(run, "edit", "app", "--after", "lib") == "after: none -> lib\n"
    await ok(run, "edit", "app", "--cron", "@hourly")
    assert (await shown(run, "app"))["period"] == "hourly"
    told = await ok(run, "edit", "app", "--no-cron")
    assert "cron: @hourly -> none\n" in told
    assert (await shown(run, "app"))["period"] == "weekly"
    assert await ok(run, "edit", "app", "--no-after") == "after: lib -> none\n"


@pytest.mark.parametrize("period", ["hourly", "daily", "weekly", "never"])
async def test_a_job_that_is_after_none_any_more_runs_as_it_did_before(run: Run, file: str, period: str) -> None:
    await ok(run, "schedule", "lib", "p1", file)
    await ok(run, "schedule", "app", "p1", file, "--period", period)
    before = await shown(run, "app")
    await ok(run, "edit", "app", "--after", "lib")
    await ok(run, "edit", "app", "--cron", "17 3 * * *")
    await ok(run, "edit", "app", "--no-cron")
    await ok(run, "edit", "app", "--no-after")
    changes = {"revision", "next"}
    found = await shown(run, "app")
    assert {key: found[key] for key in found.keys() - changes} == {key: before[key] for key in before.keys() - changes}
    await ok(run, "reschedule", "app", "2030-01-01", "--period", "never")
    await ok(run, "edit", "app", "--after", "lib")
    await ok(run, "edit", "app", "--no-after")
    assert (await shown(run, "app"))["period"] == "never"


async def test_edit_refuses_what_it_can_not_do(run: Run, file: str) -> None:
    await ok(run, "schedule", "a", "p1", file)
    await ok(run, "orb-build", "orb", "retreat")
    for status, arguments, reason in (
        (2, ["a"], b"Say what to change"),
        (2, ["a", "--cron", "@daily", "--no-cron"], b"exclude each other"),
        (2, ["a", "--cron", "61 * * * *"], b"invalid cron rule"),
        (2, ["a", "--opam-package", "b"], b"a is a script job: it has no --opam-package"),
        (2, ["orb", "--script", file], b"orb is an orb build: it has no --script"),
        (3, ["b", "--priority", "1"], b"unknown job b; there are a"),
    ):
        done = await run("edit", *arguments)
        assert done.returncode == status, done
        assert reason in done.stderr
        assert done.stdout == b""


async def test_pause_and_resume(run: Run, server: LocalServer, file: str) -> None:
    await ok(run, "schedule", "a", "p1", file)
    assert await ok(run, "resume", "a") == "a is not paused\n"
    assert await ok(run, "pause", "a") == ""
    assert await ok(run, "pause", "a") == "a is paused already\n"
    assert (await shown(run, "a"))["paused"] is True
    assert await ok(run, "resume", "a") == ""
    await build(server)


async def test_rules_and_pauses_are_shown_of_all_jobs(run: Run, file: str) -> None:
    await ok(run, "schedule", "rule", "p1", file, *NIGHTLY, "--priority", "7", "--not-now")
    await ok(run, "schedule", "still", "p1", file, "--cron", "@weekly", "--not-now")
    await ok(run, "schedule", "last", "p1", file, "--period", "never", "--after", "rule@p1")
    await ok(run, "pause", "still")
    await ok(run, "pause", "last")
    for command in ("info", "next"):
        lines = {name: line for line in (await ok(run, command)).splitlines() for name in line.split()[-4:-3]}
        assert re.search(r"Z  in \d.*  17 3 \* \* mon-fri Europe/Copenhagen +rule ", lines["rule"])
        assert re.search(r"Z  paused  +@weekly UTC +still ", lines["still"])
        assert re.search(r"^never +paused +after rule@p1 +last ", lines["last"])
    told = {item["job"]: item for item in json.loads(await ok(run, "info", "--json"))["schedule"]}
    for name, item in told.items():
        whole = await shown(run, name)
        assert item == {key: whole[key] for key in whole if key not in _OF_ONE}
    found = json.loads(await ok(run, "next", "--json", "--count", "2"))["jobs"]
    assert {each["job"]: (each["next"], each["paused"]) for each in found} == {
        name: (told[name]["next"], name == "still") for name in ("rule", "still")
    }
    done = await run("next", "still", "--count", "1")
    assert done.stderr == b"still is paused: it does not run until it is resumed\n"
    assert b"is paused" in (await run("next", "still")).stderr
    overview = await ok(run)
    assert "3 jobs (2 paused)" in overview
    assert "still" not in overview


# --- a change that another one has overtaken -----------------------------------------------------------------------


class Overtaken:
    """A remote of a schedule with one job, which somebody else changes after it was looked at first."""

    def __init__(self, theirs: JobOptions) -> None:
        self._states = [(1, JobOptions()), (2, theirs)]
        self.sent: list[ChangeJob] = []

    def request(self, request: Message, *, what: str) -> list[Message]:
        del what
        if isinstance(request, ShowJob):
            revision, plan = self._states[0]
            self._states = self._states[1:] or self._states
            return [
                JobShown(
                    job=script("a"), options=plan, revision=revision, next_run=Instant(0), queued_on=(), awaited=()
                )
            ]
        assert isinstance(request, ChangeJob)
        self.sent.append(request)
        if request.revision == 1:
            raise Refused("a was changed meanwhile")
        return []


def prioritize(seen: JobShown) -> changes.Made:
    return seen.job, jobs.options_with({"priority": 9}, seen.options, "a")


def test_a_change_that_was_overtaken_is_made_once_more() -> None:
    remote = Overtaken(JobOptions(retries=2))
    changes.change(remote, "a", prioritize, what="edit")  # type: ignore[arg-type]
    assert [(each.revision, each.options) for each in remote.sent] == [
        (1, JobOptions(priority=9)),
        (2, JobOptions(priority=9, retries=2)),
    ]


def test_a_change_of_the_same_is_told() -> None:
    remote = Overtaken(JobOptions(priority=1))
    with pytest.raises(Refused, match=r"changed meanwhile \(priority: 5 -> 1\)"):
        changes.change(remote, "a", prioritize, what="edit")  # type: ignore[arg-type]
    assert len(remote.sent) == 1


# --- older servers -------------------------------------------------------------------------------------------------


def old_server(command: Message) -> list[Message]:
    assert isinstance(command, Info)
    item = ScheduleItem(next=Instant(1_795_194_796_000), period=Period.WEEKLY, job=script("a"))
    return [InfoReply(schedule=(item,), queues=(), running=()), Success()]


def test_show_and_next_of_an_older_server() -> None:
    with Server(old_server) as server:
        found = json.loads(server.run("show", "a", "--json").stdout)
        assert (found["period"], found["next"], found["priority"]) == ("weekly", "2026-11-20T17:13:16Z", 5)
        runs = json.loads(server.run("next", "a", "--count", "2", "--json").stdout)["next"]
        assert runs == ["2026-11-20T17:13:16Z", "2026-11-27T17:13:16Z"]
        assert server.run("show", "b").returncode == 3
        assert json.loads(server.run("next", "--json").stdout) == {
            "jobs": [{"job": "a", "next": "2026-11-20T17:13:16Z", "paused": False}]
        }
        assert "cron" not in json.loads(server.run("info", "--json").stdout)["schedule"][0]


def test_what_an_older_server_has_not_is_told(file: str) -> None:
    schedule = Path(file).with_name("schedule.toml")
    schedule.write_bytes(b"")
    with Server(old_server) as server:
        for arguments, what in (
            (("schedule", "a", "p1", file, "--cron", "@daily", "--not-now"), b"no --cron and no --not-now"),
            (("edit", "a", "--priority", "1"), b"no edit, but --period: 'unschedule' and"),
            (("edit", "a", "--period", "daily", "--script", file), b"no edit, but --period"),
            (("pause", "a"), b"no jobs that are paused"),
            (("apply", str(schedule)), b"no whole schedules: 'schedule' and 'unschedule' do it job by job"),
        ):
            done = server.run(*arguments)
            assert done.returncode == 3
            assert_one_line(done.stderr)
            assert b"speaks only the classic protocol, which has " + what in done.stderr
    assert server.seen == []


def test_the_period_of_a_job_of_an_older_server_can_be_changed() -> None:
    def answer(command: Message) -> list[Message]:
        return [Success()] if isinstance(command, Reschedule) else old_server(command)

    with Server(answer) as server:
        assert server.run("edit", "a", "--period", "daily").stdout == b"period: weekly -> daily\n"
        assert server.run("edit", "a", "--period", "weekly").stdout == b"a is so already: nothing was changed\n"
        assert server.run("edit", "b", "--period", "weekly").returncode == 3
    (sent,) = (command for command in server.seen if not isinstance(command, Info))
    assert isinstance(sent, Reschedule)
    assert (sent.name, sent.period) == ("a", Period.DAILY)
    assert sent.next > Instant(int(time.time() * 1000))


def test_what_an_older_server_has_is_exported(tmp_path: Path) -> None:
    with Server(old_server) as server:
        done = server.run("export", str(tmp_path))
    assert done.stdout.decode() == f"1 job written to {tmp_path / 'schedule.toml'}\n"
    assert done.stderr.endswith(
        b"speaks only the classic protocol, which has no options of jobs but periods: here are these alone\n"
    )
    found = schedule_file.read(tmp_path / "schedule.toml")["a"]
    assert (found.job, found.options) == (script("a"), JobOptions(period=Period.WEEKLY))


# --- values --------------------------------------------------------------------------------------------------------

NAMES = st.text(st.characters(min_codepoint=0x20, exclude_characters="/", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=9).filter(lambda name: name not in (".", ".."))  # fmt: skip
PLANS = st.builds(
    JobOptions,
    period=st.none() | st.sampled_from(Period),
    cron=st.none() | st.just(Cron(rule="@daily", zone="Europe/Copenhagen")) | st.just(Cron(rule="0 H * * *")),
    priority=st.integers(0, 9),
    retries=st.integers(0, 10),
    time_limit=st.none() | st.integers(1, MAX_LIMIT),
    max_silent=st.none() | st.integers(1, MAX_LIMIT),
    needs=st.lists(needs, max_size=3, unique_by=lambda need: need.name).map(tuple),
    after=st.lists(st.builds(JobReference, name=NAMES, platform=st.none() | NAMES), max_size=3, unique=True).map(tuple),
    paused=st.booleans(),
)


@given(PLANS)
def test_what_is_said_of_options_is_read_as_them(plan: JobOptions) -> None:
    again = jobs.options_with(jobs.said_options(plan), JobOptions(), "no such name/")
    assert jobs.said_options(again) == jobs.said_options(plan)
    assert again.needs == plan.needs
    assert (again.after, again.time_limit, again.cron) == (plan.after, plan.time_limit, plan.cron)


@pytest.mark.parametrize(
    ("given_", "reason"),
    [
        ({"priority": "high"}, "priority: write a number from 0 to 9"),
        ({"priority": True}, "priority: write a number from 0 to 9"),
        ({"period": "monthly"}, 'period: write "hourly", "daily", "weekly" or "never"'),
        ({"needs": "kvm"}, 'needs: write a list such as ["kvm", "memory>=16G"]'),
        ({"needs": [1]}, 'needs: write a list such as ["kvm", "memory>=16G"]'),
        ({"needs": ["memory"]}, "needs: memory: write memory>=SIZE, such as memory>=16G"),
        ({"after": [1]}, "after: write JOB or JOB@PLATFORM"),
        ({"after": [{"job": "a"}]}, "after: write JOB or JOB@PLATFORM"),
        ({"cron": 5}, "cron: write text"),
        ({"spread": "yes"}, "spread: write true or false"),
    ],
)
def test_values_of_a_file_that_are_wrong(given_: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidOptions, match=re.escape(reason)):
        jobs.options_with(given_, JobOptions(), "a")


async def test_a_job_to_wait_for_that_is_not_there_is_named(run: Run, file: str) -> None:
    told = b"There is no job lob yet: it is waited for until it is scheduled and succeeds\n"
    await ok(run, "schedule", "lib", "p1", file)
    done = await run("schedule", "app", "p1", file, "--after", "lib", "--after", "lob@p1")
    assert (done.returncode, done.stderr) == (0, told)
    done = await run("edit", "app", "--after", "lob")
    assert (done.returncode, done.stderr) == (0, told)
    await ok(run, "edit", "app", "--priority", "7")
    await ok(run, "edit", "app", "--no-after")


async def test_a_rule_with_h_needs_a_name(run: Run) -> None:
    done = await run("next", "--cron", "H H(0-5) * * thu")
    assert done.returncode == 2
    assert b"Give NAME too" in done.stderr
    assert len(json.loads(await ok(run, "next", "a", "--cron", "H H(0-5) * * thu", "--json"))["next"]) == 10
    await ok(run, "next", "--cron", "@hourly")
    await ok(run, "next", "--cron", "0 0 * mar thu")


async def test_what_commands_say_in_json(run: Run, file: str, tmp_path: Path) -> None:
    async def said(*arguments: str) -> Any:
        return json.loads(await ok(run, *arguments, "--json"))

    assert await said("schedule", "a", "p1", file) == {"done": "scheduled", "job": "a", "queued": True}
    assert await said("schedule", "b", "p1", file, *NIGHTLY, "--not-now") == {
        "done": "scheduled",
        "job": "b",
        "queued": False,
    }
    assert await said("orb-build", "c", "retreat") == {"done": "scheduled", "job": "c", "queued": True}
    assert await said("pause", "a") == {"done": "paused", "job": "a", "changed": True}
    assert await said("pause", "a") == {"done": "paused", "job": "a", "changed": False}
    assert await said("resume", "a") == {"done": "resumed", "job": "a", "changed": True}
    assert await said("edit", "a", "--priority", "7") == {
        "done": "edited",
        "job": "a",
        "changed": {"priority": {"before": "5", "after": "7"}},
    }
    assert await said("reschedule", "a", "2999-01-01") == {
        "done": "rescheduled",
        "job": "a",
        "next": "2999-01-01T00:00:00Z",
    }
    assert await said("export", str(tmp_path / "farm")) == {
        "done": "exported",
        "jobs": 3,
        "file": str(tmp_path / "farm" / "schedule.toml"),
        "removed": [],
    }
    assert await said("unschedule", "c") == {"done": "unscheduled", "job": "c"}
    added = {"added": ["c"], "changed": [], "removed": [], "left": []}
    assert await said("apply", str(tmp_path / "farm" / "schedule.toml"), "--dry-run") == {"done": "compared"} | added
    assert await said("apply", str(tmp_path / "farm" / "schedule.toml")) == {"done": "applied"} | added
    assert await said("drop-platform", "p1") == {"done": "dropped", "platform": "p1"}
    assert await said("undrop-platform", "p1") == {"done": "undropped", "platform": "p1"}
