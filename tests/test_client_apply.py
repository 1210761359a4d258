"""``apply`` and ``export`` through a real server, and the file that they read and write."""

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from client_harness import assert_one_line
from client_harness import run_client as run_alone
from farm import LocalServer, run_client, run_server
from hypothesis import given
from hypothesis import strategies as st
from scripted import OURS, connect, queues
from test_client_planning import NAMES, PLANS

from builder.extension.schedule import ShowJob
from builder.messages import Failure
from builder.model import ScriptJob
from builder.planning import JobOptions
from builder_client import jobs, schedule_file
from builder_client.schedule_file import InvalidSchedule, Planned

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
    assert await told(server, "apply", file) == "0 jobs added, 0 changed, 0 removed\n"
    await told(server, "export", tmp_path / "out")
    out = tmp_path / "out" / "schedule.toml"
    assert await told(server, "apply", out, "--dry-run", "--prune") == ""
    assert schedule_file.read(out) == {name: schedule_file.read(file)[name] for name in ("app \u00fc", "lib", "orb")}


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
    assert await told(server, "apply", file, "--prune") == "0 jobs added, 2 changed, 1 removed\n"
    async with connect(server, OURS) as client:
        assert await client.request(ShowJob(name="orb")) == [Failure(message="unknown job orb")]


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
        ('[jobs."a/b"]\nopam-package = "a"', "invalid job name: it contains a slash"),
        ('[jobs.a]\nplatform = "p1"', "job a: write platform and script, or opam-package alone"),
        ('[jobs.a]\nplatform = "p1"\nscript = "none.sh"', "job a: script: can't read none.sh: No such file"),
        ('[jobs.a]\nplatform = "p1"\nscript = "."', "job a: script: can't read .: Is a directory"),
        ('[jobs.a]\nplatform = 1\nscript = "."', "job a: platform: write text"),
        ('[jobs.a]\nopam-package = "a"\npriority = 10', "job a: a priority must lie between 0 and 9"),
        ('[jobs.a]\nopam-package = "a"\ncolour = "red"', "job a: there is no key colour: write one of platform"),
        ('[jobs.a]\nopam-package = "a"\ncron = "61 * * * *"', "job a: invalid cron rule"),
    ],
)
def test_wrong_files_are_told_before_connecting(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "schedule.toml"
    path.write_text(text, "utf-8")
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
    assert plan.options.period.value == period
    assert [line for line in schedule_file.entries(plan) if "after" not in line and "opam" not in line] == (
        [keys] if keys else []
    )


def test_a_file_that_is_not_there() -> None:
    done = run_alone("-r", "127.0.0.1:1", "apply", "/nonexistent/schedule.toml")
    assert done.returncode == 2
    assert_one_line(done.stderr)


@given(st.dictionaries(NAMES, st.tuples(PLANS, NAMES, st.binary(min_size=1)), max_size=3))
def test_what_is_written_is_read(plans: dict[str, tuple[JobOptions, str, bytes]]) -> None:
    import tempfile

    written = [
        Planned(job=ScriptJob(name=name, platform=platform, script=script), options=plan)
        for name, (plan, platform, script) in plans.items()
        if all(each.name != name for each in plan.after)
    ]
    with tempfile.TemporaryDirectory() as folder:
        schedule_file.write(Path(folder), written)
        found = schedule_file.read(Path(folder) / schedule_file.NAME)
    assert [each.job for each in found.values()] == [each.job for each in written]
    for one, other in zip(found.values(), written, strict=True):
        assert jobs.said_options(one.options) == jobs.said_options(other.options)
