"""``export``: what is in the folder, whatever was there before and whatever happens meanwhile."""

import errno
import hashlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from client_harness import EMPTY, Server, environment, run_on_terminal
from hypothesis import given
from hypothesis import strategies as st
from scripted import script
from test_client_planning import NAMES, PLANS

from builder.errors import InvalidName
from builder.extension import Request
from builder.extension.applying import JobsListed, ListedJob, ListedScript, ListJobs
from builder.extension.schedule import JobShown, ShowJob
from builder.messages import Message, Success
from builder.model import NEVER, OrbBuildJob, ScriptJob
from builder.planning import JobOptions
from builder_client import applying, exporting, schedule_file
from builder_client.errors import Refused
from builder_client.schedule_file import Planned

SCRIPTS = st.binary() | st.sampled_from([b"", b"\r\n", b"a\r\nb\n", b"\xff\x00", b"x\n" * 3])


def plan(name: str, content: bytes = b"echo\n") -> Planned:
    return Planned(job=script(name, script=content), options=JobOptions())


def read(folder: Path) -> dict[str, Planned]:
    return schedule_file.read(folder / schedule_file.NAME)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def named(plans: list[Planned]) -> dict[str, Planned]:
    return {each.job.name: each for each in plans}


def as_listed(planned: Planned) -> ListedJob:
    job = planned.job
    assert isinstance(job, ScriptJob)
    digest = hashlib.sha256(job.script).digest()
    return ListedJob(
        job=ListedScript(name=job.name, platform=job.platform, sha256=digest), options=planned.options, revision=1
    )


@given(st.dictionaries(NAMES, st.tuples(PLANS, NAMES, SCRIPTS), max_size=4))
def test_what_is_exported_is_applied_without_a_change(found: dict[str, tuple[JobOptions, str, bytes]]) -> None:
    plans = [
        Planned(job=ScriptJob(name=name, platform=platform, script=content), options=options)
        for name, (options, platform, content) in found.items()
        if all(each.name != name for each in options.after)
    ]
    with tempfile.TemporaryDirectory() as folder:
        exporting.write(Path(folder), plans)
        here = read(Path(folder))
        assert len(files(Path(folder))) == 1 + sum(plan.job.script != b"" for plan in plans)  # type: ignore[union-attr]
    assert [each.job for each in here.values()] == [each.job for each in plans]
    there = {name: as_listed(planned) for name, planned in named(plans).items()}
    assert not applying.plan(here, there, may_go=there).is_change


# --- what was there before -----------------------------------------------------------------------------------------


def test_scripts_of_jobs_that_have_gone_go_and_nothing_else(tmp_path: Path) -> None:
    orb = Planned(job=OrbBuildJob(name="o", opam_package="p"), options=JobOptions())
    exporting.write(tmp_path, [plan("a"), plan("b"), plan("B/".replace("/", "\u2215")), plan("o")])
    own = {"README", "scripts/own.sh", "scripts/.git"}
    for name in own:
        (tmp_path / name).write_bytes(b"mine")
    removed = exporting.write(tmp_path, [plan("a"), orb])
    assert {path.name for path in removed} == {"b.sh", exporting.script_name("B\u2215"), "o.sh"}
    assert files(tmp_path) == own | {"schedule.toml", "scripts/a.sh"}


@pytest.mark.parametrize(
    "text",
    [
        '[jobs.b]\nplatform = "p"\nscript = "scripts/b.sh"\n',  # somebody's own
        f'{exporting.HEAD}\n[jobs.a]\nplatform = "p"\nscript = "scripts/b.sh"\n',  # of another job
        f'{exporting.HEAD}\n[jobs.b]\nplatform = "p"\nscript = "b.sh"\n',  # elsewhere
        f"{exporting.HEAD}\njobs = 1",
        f"{exporting.HEAD}\njobs = [1]",
        f"{exporting.HEAD}\n[jobs]\nb = 1",
        f"{exporting.HEAD}\n[",
        "",
    ],
)
def test_what_is_not_known_to_be_from_here_stays(tmp_path: Path, text: str) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/b.sh").write_bytes(b"mine")
    (tmp_path / "schedule.toml").write_text(text)
    assert exporting.write(tmp_path, [plan("a")]) == []
    assert (tmp_path / "scripts/b.sh").read_bytes() == b"mine"
    assert [*read(tmp_path)] == ["a"]


def test_links_and_modes(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "farm", tmp_path / "elsewhere"
    elsewhere.mkdir()
    exporting.write(folder, [plan("a"), plan("b")])
    (folder / "schedule.toml").rename(elsewhere / "s.toml")
    (folder / "schedule.toml").symlink_to(elsewhere / "s.toml")
    (folder / "scripts/a.sh").chmod(0o755)
    (elsewhere / "b.sh").write_bytes(b"not of the schedule\n")
    (folder / "scripts/b.sh").unlink()
    (folder / "scripts/b.sh").symlink_to(elsewhere / "b.sh")
    exporting.write(folder, [plan("a", b"new\n"), plan("b")])
    assert (folder / "schedule.toml").is_symlink()
    assert (folder / "scripts/a.sh").stat().st_mode & 0o777 == 0o755
    assert (elsewhere / "b.sh").read_bytes() == b"not of the schedule\n"
    assert read(folder) == named([plan("a", b"new\n"), plan("b")])


def test_what_is_the_same_is_not_written_again(tmp_path: Path) -> None:
    exporting.write(tmp_path, [plan("a"), plan("b")])
    before = (tmp_path / "scripts/a.sh").stat().st_ino
    exporting.write(tmp_path, [plan("a"), plan("b", b"other\n")])
    assert (tmp_path / "scripts/a.sh").stat().st_ino == before


def test_a_name_that_is_no_text_is_told_before_anything_is_written(tmp_path: Path) -> None:
    exporting.write(tmp_path, [plan("a")])
    with pytest.raises(InvalidName, match="give it another name"):
        exporting.write(tmp_path, [plan("a", b"new\n"), plan("\udcff")])
    assert read(tmp_path) == named([plan("a")])


@pytest.mark.parametrize(
    ("there", "typed", "is_asked", "is_written"),
    [
        ("# mine", b"n\n", True, False),
        ("# mine", b"y\n", True, True),
        ("", b"y\n", True, True),
        (exporting.HEAD, b"", False, True),
        (None, b"", False, True),
    ],
)
def test_a_person_is_asked_before_their_file_is_written_over(
    tmp_path: Path, there: str | None, typed: bytes, *, is_asked: bool, is_written: bool
) -> None:
    file = tmp_path / "schedule.toml"
    if there is not None:
        file.write_text(there)

    with Server(lambda _: [EMPTY, Success()]) as server:
        argv = ["-r", server.address, "export", str(tmp_path)]
        status, shown = run_on_terminal(argv, environment(), typed)
    assert (b"which no export has written? [y/N]" in shown) is is_asked
    assert (status, file.read_text().startswith(exporting.HEAD)) == ((0, True) if is_written else (1, False))


# --- faults --------------------------------------------------------------------------------------------------------


class Crash(BaseException):
    """The program ends here."""


BEFORE = [plan("a", b"a 1\n"), plan("b", b"b 1\n"), plan("gone")]
AFTER = [plan("a", b"a 2\n"), plan("b", b"b 2\n"), plan("new")]


def failing(step: Callable[..., None], fails: Iterator[bool], fault: BaseException) -> Callable[..., None]:
    def do(*arguments: object, **options: object) -> None:
        if next(fails):
            raise fault
        step(*arguments, **options)

    return do


@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left on device"), Crash()])
def test_whatever_happens_one_whole_schedule_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    seen = []
    for number in itertools.count():
        folder = tmp_path / str(number)
        exporting.write(folder, BEFORE)
        fails = map(number.__le__, itertools.count())
        with monkeypatch.context() as patch:
            for step in ("fsync", "replace", "unlink", "link"):
                patch.setattr(os, step, failing(getattr(os, step), fails, fault))
            try:
                exporting.write(folder, AFTER)
                is_done = True
            except type(fault):
                is_done = False
        found = read(folder)
        assert found in (named(BEFORE), named(AFTER))
        seen.append(found == named(AFTER))
        exporting.write(folder, AFTER)
        left = files(folder) - {"scripts/gone.sh"}  # after a crash nobody knows that it was from here
        assert left == {"schedule.toml", "scripts/a.sh", "scripts/b.sh", "scripts/new.sh"}
        shutil.rmtree(folder)
        if is_done:
            break
    assert seen == sorted(seen)
    assert len(seen) > 15
    assert not seen[0]


def test_nor_does_a_second_crash_mix_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tmp_path / "left"
    exporting.write(left, BEFORE)
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", failing(os.link, itertools.repeat(True), Crash()))
        with pytest.raises(Crash):
            exporting.write(left, AFTER)
    last = [plan("a", b"a 3\n"), plan("b", b"b 2\n")]
    for number in itertools.count():
        folder = tmp_path / str(number)
        shutil.copytree(left, folder)
        fails = map(number.__le__, itertools.count())
        with monkeypatch.context() as patch:
            for step in ("fsync", "replace", "unlink", "link"):
                patch.setattr(os, step, failing(getattr(os, step), fails, Crash()))
            try:
                exporting.write(folder, last)
                break
            except Crash:
                assert read(folder) in (named(AFTER), named(last))
    assert files(folder) == {"schedule.toml", "scripts/a.sh", "scripts/b.sh", "scripts/gone.sh"}
    assert number > 10


def test_a_disk_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exporting.write(tmp_path, BEFORE)
    monkeypatch.setattr(os, "link", failing(os.link, itertools.repeat(True), OSError(errno.EPERM, "no links here")))
    exporting.write(tmp_path, AFTER)
    assert read(tmp_path) == named(AFTER)
    assert files(tmp_path) == {"schedule.toml", "scripts/a.sh", "scripts/b.sh", "scripts/new.sh"}


# --- the server ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_gone", [True, False])
def test_a_job_that_goes_meanwhile_is_left_out(*, has_gone: bool) -> None:
    looks = itertools.count()

    def ask(request: Request) -> list[Message]:
        if isinstance(request, ListJobs):
            names = ["a", "b"] if next(looks) == 0 or not has_gone else ["a"]
            return [JobsListed(jobs=() if request.after else tuple(as_listed(plan(name)) for name in names))]
        assert isinstance(request, ShowJob)
        if request.name == "b":
            raise Refused("unknown job b" if has_gone else "the server failed")
        return [
            JobShown(
                job=plan("a").job, options=JobOptions(), revision=1, next_run=NEVER, queued_on=(), awaited=()
            )
        ]  # fmt: skip

    if has_gone:
        assert exporting.everything(ask) == [plan("a")]
    else:
        with pytest.raises(Refused, match="the server failed"):
            exporting.everything(ask)
