"""``apply`` and ``export`` through a real server, and the file that they read and write."""

import itertools
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from client_harness import assert_one_line, environment, run_on_terminal
from client_harness import run_client as run_alone
from farm import LocalServer, run_client, run_server
from scripted import OURS, connect, do, queues, schedule

from builder.endpoint import Servers
from builder.extension import Request
from builder.extension.applying import Apply, JobsListed, ListedJob, ListJobs
from builder.extension.schedule import ShowJob
from builder.messages import Failure, Message
from builder.model import OrbBuildJob, ScriptJob
from builder.planning import JobOptions
from builder_client import applying, jobs, schedule_file
from builder_client.errors import Refused, Unreachable
from builder_client.remote import Remote
from builder_client.schedule_file import InvalidSchedule

FILE = """
[jobs.lib]
platform = "p1"
script = "lib.sh"
cron = "17 3 * * mon-fri"
time-zone = "Europe/Copenhagen"
timeout = "1h30m"

[jobs."app \u00fc"]
platform = "p1"
script = "lib.sh"
after = ["lib@p1"]
priority = 7

[jobs.orb]
opam-package = "retreat"
period = "weekly"
spread = true
"""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LocalServer]:
    async with run_server(tmp_path) as running_server:
        yield running_server


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "lib.sh").write_bytes(b"echo 1\necho 2\n")
    path = tmp_path / "schedule.toml"
    path.write_text(FILE, "utf-8")
    return path


async def run(server: LocalServer, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    words = [*map(str, arguments)]
    return await trio.to_thread.run_sync(lambda: run_client(server, *words))  # type: ignore[arg-type]


async def told(server: LocalServer, *arguments: str | Path) -> str:
    done = await run(server, *arguments)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode()


async def test_apply_export_and_apply_again(server: LocalServer, file: Path, tmp_path: Path) -> None:
    dry = await told(server, "apply", file, "--dry-run")
    assert [line for line in dry.splitlines() if "job" in line] == ["+ job lib", "+ job app \u00fc", "+ job orb"]
    assert '+   timeout = "1h30m"' in dry.splitlines()
    assert await queues(server) == {}
    assert await told(server, "apply", file) == "3 jobs added, 0 changed, 0 removed\n"
    assert await queues(server) == {"p1": ["lib", "orb"]}
    assert await told(server, "apply", file) == "no changes\n"
    await told(server, "export", tmp_path / "out")
    out = tmp_path / "out" / "schedule.toml"
    assert await told(server, "apply", out, "--dry-run", "--prune") == "no changes\n"
    assert schedule_file.read(out) == {name: schedule_file.read(file)[name] for name in ("app \u00fc", "lib", "orb")}


async def test_few_are_named_of_the_many_that_are_not_in_the_file(server: LocalServer, file: Path) -> None:
    await do(server, *(schedule(f"j{number:02}") for number in range(12)))
    done = await run(server, "apply", file, "--dry-run")
    assert (
        done.stderr
        == f"not in the file, and left: {', '.join(f'j{number:02}' for number in range(10))} and 2 more\n".encode()
    )


async def test_changes_and_what_is_not_in_the_file(server: LocalServer, file: Path, tmp_path: Path) -> None:
    await told(server, "apply", file, "--not-now")
    assert await queues(server) == {"p1": []}
    (tmp_path / "lib.sh").write_bytes(b"echo 1\necho 3\n")
    # the two change who waits for whom: on the way there is no cycle
    changed = FILE.replace('after = ["lib@p1"]\npriority = 7', "").replace(
        'timeout = "1h30m"', 'after = ["app \u00fc"]'
    )
    file.write_text(changed.partition("[jobs.orb]")[0], "utf-8")
    done = await run(server, "apply", file, "--dry-run")
    assert done.stderr == b"not in the file, and left: orb\n"
    assert done.stdout.decode().splitlines()[:6] == [
        "  job lib", '-   timeout = "1h30m"', '+   after = ["app \u00fc"]', "    script", "-     echo 2", "+     echo 3",
    ]  # fmt: skip
    assert await told(server, "apply", file, "--prune") == "- job orb\n0 jobs added, 2 changed, 1 removed\n"
    async with connect(server, OURS) as client:
        assert await client.request(ShowJob(name="orb")) == [Failure(message="unknown job orb")]


async def test_a_dry_run_refuses_what_apply_refuses(server: LocalServer, file: Path) -> None:
    await told(server, "apply", file, "--not-now")
    file.write_text(FILE.replace('timeout = "1h30m"', 'after = ["app \u00fc"]'), "utf-8")
    done, dry = await run(server, "apply", file), await run(server, "apply", file, "--dry-run")
    assert (done.returncode, done.stdout) == (dry.returncode, dry.stdout) == (3, b"")
    assert done.stderr == dry.stderr
    assert "jobs would wait for each other" in dry.stderr.decode()
    await told(server, "drop-platform", "p1")
    file.write_text(FILE, "utf-8")
    assert (await run(server, "apply", file, "--dry-run")).stderr == (
        b"builder-client: job lib: platform dropped; can't schedule jobs; 'undrop-platform' lets it have jobs again\n"
    )


async def test_a_dry_run_changes_nothing(server: LocalServer, file: Path) -> None:
    await told(server, "apply", file, "--not-now")
    before = server.query("select * from job"), server.query("select * from dependency")
    file.write_text(FILE.partition('[jobs."app')[0].replace("17 3", "18 4"), "utf-8")
    await told(server, "apply", file, "--dry-run", "--prune")
    assert (server.query("select * from job"), server.query("select * from dependency")) == before


async def test_the_diff_of_new_jobs_and_of_line_ends(server: LocalServer, file: Path) -> None:
    script = file.with_name("lib.sh")
    file.write_text(FILE.partition('[jobs."app')[0], "utf-8")
    dry = await told(server, "apply", file, "--dry-run")
    assert dry.splitlines()[-3:] == ["    script", "+     echo 1", "+     echo 2"]
    await told(server, "apply", file, "--not-now")
    script.write_bytes(b"echo 1\necho 2\r\n\techo \xff")
    dry = await told(server, "apply", file, "--dry-run")
    assert dry.splitlines() == [
        "  job lib", "    script", "-     echo 2", r"+     echo 2\r", "+     \techo \\xff (without a newline)"
    ]  # fmt: skip


async def test_jobs_that_go_are_named_before_and_after(server: LocalServer, file: Path) -> None:
    await told(server, "apply", file, "--not-now")
    file.write_text(FILE.partition("[jobs.lib]")[0], "utf-8")
    gone = ["- job app \u00fc", "- job lib", "- job orb"]
    assert (await told(server, "apply", file, "--dry-run", "--prune")).splitlines() == gone
    argv = ["-r", server.remote, "apply", str(file), "--prune"]
    for typed, end in (
        (b"n\n", ["builder-client: nothing was changed"]),
        (b"y\n", ["0 jobs added, 0 changed, 3 removed"]),
    ):
        _, shown = await trio.to_thread.run_sync(run_on_terminal, argv, environment(), typed)
        question = f"Remove 3 jobs from {server.remote} that {file} does not have? [y/N] "
        before, _, after = shown.decode().replace("\r", "").partition(question)
        assert (before.splitlines()[-3:], after.splitlines()[-1:]) == (gone, end)
    assert after.splitlines()[-4:-1] == gone
    _, shown = await trio.to_thread.run_sync(run_on_terminal, argv, environment(), b"")
    assert b"[y/N]" not in shown, "there is nothing to ask about"


async def test_a_job_that_is_nowhere_is_named(server: LocalServer, file: Path) -> None:
    await told(server, "schedule", "there", "p1", file.with_name("lib.sh"), "--not-now")
    file.write_text(FILE.replace('after = ["lib@p1"]', 'after = ["lib", "there", "lbi@p1"]'), "utf-8")
    for more in (["--dry-run"], [], ["--json"]):
        done = await run(server, "apply", file, *more)
        assert done.returncode == 0
        assert "There is no job lbi yet: it is waited for by app \u00fc until" in done.stderr.decode()
    done = await run(server, "apply", file, "--prune")
    assert "There is no job there yet" in done.stderr.decode()


@pytest.mark.parametrize("dry_run", [False, True])
async def test_where_others_were_quicker_the_file_wins(server: LocalServer, file: Path, *, dry_run: bool) -> None:
    script = file.with_name("lib.sh")
    await told(server, "apply", file, "--not-now")
    await told(server, "schedule", "old", "p1", script, "--not-now")
    file.write_text(FILE.replace("17 3", "18 4").partition("[jobs.orb]")[0], "utf-8")
    remote = Remote(servers=Servers.of(server.remote, {}))

    def look() -> applying.Plan:
        with remote.requests(what="") as ask:
            return applying.look(ask, schedule_file.read(file), prune=True)

    def apply() -> applying.Plan:
        with remote.requests(what="") as ask:
            return applying.apply(ask, found, run_now=False, dry_run=dry_run)

    found = await trio.to_thread.run_sync(look)
    await told(server, "edit", "lib", "--priority", "9")  # changed by both
    await told(server, "edit", "app \u00fc", "--priority", "9")  # it was as in the file
    await told(server, "edit", "orb", "--priority", "9")  # it goes
    await told(server, "unschedule", "old")  # it had to go
    await told(server, "schedule", "new", "p1", script, "--not-now")
    done = await trio.to_thread.run_sync(apply)
    assert (done.changed, done.removed, done.left) == (("lib", "app \u00fc"), ("orb",), ("new",))
    names = [name for (name,) in server.query("select name from job order by name")]
    assert names == (["app \u00fc", "lib", "new", "orb"] if dry_run else ["app \u00fc", "lib", "new"])


def test_a_schedule_that_is_never_as_it_was_is_left() -> None:
    looks = itertools.count()

    def ask(request: Request) -> list[Message]:
        if isinstance(request, Apply):
            raise Refused("a was changed meanwhile")
        assert isinstance(request, ListJobs)
        found = ListedJob(job=OrbBuildJob(name="a", opam_package="p"), options=JobOptions(), revision=next(looks))
        return [JobsListed(jobs=() if request.after else (found,))]

    with pytest.raises(Refused, match=r"nothing was done.*: give the command again"):
        applying.apply(ask, applying.look(ask, {}, prune=True), run_now=False)


@pytest.mark.parametrize(("dry_run", "more"), [(False, "; it may have been done or not"), (True, "")])
def test_a_server_that_is_lost_may_have_done_it(*, dry_run: bool, more: str) -> None:
    def ask(request: Request) -> list[Message]:
        if isinstance(request, Apply):
            raise Unreachable("lost")
        return [JobsListed(jobs=())]

    job = OrbBuildJob(name="a", opam_package="p")
    here = {"a": schedule_file.Planned(job=job, options=JobOptions())}
    with pytest.raises(Unreachable, match=f"^lost{more}"):
        applying.apply(ask, applying.look(ask, here, prune=False), run_now=False, dry_run=dry_run)


async def test_all_or_nothing(server: LocalServer, file: Path) -> None:
    with file.open("a", encoding="utf-8") as more:
        more.write('[jobs.bad]\nopam-package = "a b"\n')
    done = await run(server, "apply", file)
    assert done.returncode == 3
    assert_one_line(done.stderr)
    assert b"invalid opam package" in done.stderr
    assert server.query("select * from job") == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = 1", "x: write [jobs.NAME]"),
        ("jobs = 1", "jobs: write [jobs.NAME]"),
        ("[jobs", "end of document"),
        ("[jobs.a]\n[jobs.a]", "there are two jobs a (at line 2, column 8)"),
        ('[jobs.a]\nscript = "a"\nscript = "b"', "a key is there twice (at "),
        ("[jobs.a]\nplatform = p1", "text, and a name that is no word, stand in quotes (at line 2"),
        ("[jobs.a b]", "text, and a name that is no word, stand in quotes (at line 1"),
        ("[jobs.a.b]", 'job a: a name with a dot in it stands in quotes, [jobs."a.b"]'),
        ("\n# \udcff", "it is not UTF-8 (at line 2): write it in that encoding"),
        ('[jobs."a/b"]\nopam-package = "a"', "invalid job name: it contains a slash"),
        ('[jobs.a]\nplatform = "p1"', "job a: write platform and script, or opam-package alone"),
        ('[jobs.a]\nplatform = "p1"\nscript = "none.sh"', "job a: script: can't read none.sh: No such file"),
        ('[jobs.a]\nplatform = "p1"\nscript = "."', "job a: script: can't read .: Is a directory"),
        ('[jobs.a]\nplatform = 1\nscript = "."', "job a: platform: write text"),
        ('[jobs.a]\nopam-package = "a"\npriority = 10', "job a: a priority must lie between 0 and 9"),
        ('[jobs.a]\nopam-package = "a"\ncolour = "red"', "job a: there is no key colour: write one of platform"),
        (
            '[jobs.a]\nopam-package = "a"\ntime_zone = "UTC"',
            "job a: there is no key time_zone: did you mean time-zone?",
        ),
        ('[jobs.a]\nplatform = "p1"\nscript = "empty.sh"', "job a: script: empty.sh: the script is empty"),
        ('[jobs.a]\nopam-package = "a"\ncron = "61 * * * *"', "job a: invalid cron rule"),
    ],
)
def test_wrong_files_are_told_before_connecting(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "empty.sh").touch()
    path = tmp_path / "schedule.toml"
    path.write_text(text, "utf-8", "surrogateescape")
    with pytest.raises(InvalidSchedule) as caught:
        schedule_file.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "period"),
    [("", "never"), ('period = "daily"', "daily"), ("spread = true", "daily"), ('period = "weekly"', "weekly")],
)
def test_a_job_after_others_has_the_period_that_is_asked_for(tmp_path: Path, keys: str, period: str) -> None:
    path = tmp_path / "schedule.toml"
    path.write_text(f'[jobs.a]\nopam-package = "a"\nafter = ["lib"]\n{keys}\n', "utf-8")
    plan = schedule_file.read(path)["a"]
    assert plan.options.runs_every.value == period
    assert [
        line
        for line in schedule_file.entries(jobs.said(plan.job, plan.options))
        if "after" not in line and "opam" not in line
    ] == ([keys] if keys else [])


@pytest.mark.parametrize("begin", [b"", b"\xef\xbb\xbf"])
def test_files_of_other_editors(tmp_path: Path, begin: bytes) -> None:
    (tmp_path / "a.sh").write_bytes(b"a\r\n")
    (tmp_path / "s.toml").write_bytes(begin + b'[jobs.a]\r\nplatform = "p1"\r\nscript = "a.sh"\r\n')
    found = schedule_file.read(tmp_path / "s.toml")["a"].job
    assert found == ScriptJob(name="a", platform="p1", script=b"a\r\n")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidSchedule, match=rf"is a folder: give the file in it, {tmp_path}/schedule\.toml"):
        schedule_file.read(tmp_path)


def test_a_file_that_is_not_there() -> None:
    done = run_alone("-r", "127.0.0.1:1", "apply", "/nonexistent/schedule.toml")
    assert done.returncode == 2
    assert_one_line(done.stderr)
