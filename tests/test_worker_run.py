"""``builder-worker run``: a job without a server."""

import hashlib
import os
import pty
import signal
import subprocess
from pathlib import Path

import forked
import pytest
from sandbox_runs import processes_with, wait_gone
from worker_program import DEADLINE, without_leftovers
from worker_sandboxes import ENVIRONMENT, builder_worker, need, reachable_directory

from builder_worker import trial
from builder_worker.console import End, Part


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return tmp_path / "job.sh"


def _run(script: Path, text: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a script without a sandbox, its directory below the one that the script is in."""
    script.write_text(text)
    return builder_worker("run", script, "--sandbox=none", "--work-dir", script.parent / "work", *arguments)


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def test_it_prints_the_console_the_result_and_the_artifacts(script: Path) -> None:
    text = 'echo "$BUILDER_JOB on $BUILDER_PLATFORM"; echo error >&2; mkdir d; printf abc > d/é; printf x > f; exit 3'
    done = _run(script, text, "--platform", "debian-12")
    assert done.returncode == 3
    *console, result, first, second = done.stdout.splitlines()
    assert console == ["job on debian-12", "error", "builder-worker: 2 artifacts, 4 bytes"]
    assert result.startswith("exited 3 after ")
    assert first.split() == [_digest("abc"), "3", "d/é"]
    assert second.split() == [_digest("x"), "1", "f"]
    assert not list((script.parent / "work").iterdir())


def test_the_same_sandbox_is_around_it_as_around_a_job() -> None:
    need("bubblewrap")
    with reachable_directory() as place:
        arguments = ("--sandbox=bubblewrap", "--work-dir", place / "work", "--output", place / "out", "--memory=64M")
        done = builder_worker(
            "run", "-", *arguments, stdin="pwd; id -u; hostname; cat /etc/shadow; umask; echo kept > f; exit 0"
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[:3] == ["/build", "1000", "builder"]
        assert "0022" in done.stdout
        assert (place / "out" / "f").read_text() == "kept\n"


@pytest.mark.parametrize("sandbox", ["bubblewrap", "none"])
def test_signals_that_the_worker_ignores_are_not_ignored_by_jobs(sandbox: str) -> None:
    need(sandbox)
    started_oddly = ("env", "--ignore-signal=HUP,INT,TERM,CHLD", "--block-signal=USR2")
    with reachable_directory() as place:
        arguments = (f"--sandbox={sandbox}", "--work-dir", place / "work")
        asked = "grep -e SigBlk -e SigIgn /proc/self/status"
        done = builder_worker("run", "-", *arguments, stdin=asked, prefix=started_oddly)
        _, blocked, _, ignored, *_ = done.stdout.split()
        # 32 and 33 are glibc's own; its posix_spawn, by which make starts tests, leaves them ignored
        internal = 1 << 31 | 1 << 32
        assert (int(blocked, 16), int(ignored, 16) & ~internal) == (0, 0), done


def test_the_number_of_open_files_does_not_depend_on_the_workers() -> None:
    need("bubblewrap")
    with reachable_directory() as place:
        arguments = ("--sandbox=bubblewrap", "--work-dir", place / "work")
        done = builder_worker("run", "-", *arguments, stdin="ulimit -n", prefix=("prlimit", "--nofile=1500:2000"))
        assert done.stdout.splitlines()[0] == "1024"


def test_the_best_sandbox_is_taken_and_told() -> None:
    need("bubblewrap")
    with reachable_directory() as place:
        done = builder_worker("run", "-", "--work-dir", place / "work", stdin="true")
    assert done.returncode == 0
    assert done.stderr == "builder-worker: sandbox: bubblewrap, the best that works here\n"


@pytest.mark.parametrize(
    ("text", "status", "result"),
    [
        ("true", 0, "exited 0"),
        ("exit 77", 77, "exited 77"),
        ("kill -9 $$", 137, "killed by signal KILL (9)"),
        ("# builder: timeout=0.2\nsleep 1000", 124, "execution aborted: time limit of 0.2 s exceeded"),
    ],
)
def test_its_exit_status_is_the_jobs(script: Path, text: str, status: int, result: str) -> None:
    done = _run(script, text)
    assert done.returncode == status
    assert f"\n{result} after " in done.stdout


# --- artifacts in files -------------------------------------------------------------------------------------------------


def test_artifacts_are_written_below_a_new_directory_and_nowhere_else(script: Path) -> None:
    text = "mkdir -p a/b; echo 1 > a/b/f; ln -s /etc/passwd link; ln -s .. a/up; mkfifo pipe; printf 2 > '\n'"
    out = script.parent / "new" / "out"
    done = _run(script, text, "--output", out)
    assert done.returncode == 0, done.stderr
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*") if not path.is_dir()) == ["\n", "a/b/f"]
    assert (out / "a/b/f").read_text() == "1\n"
    assert "left out link: symbolic link" in done.stdout
    assert done.stdout.splitlines()[-2].endswith(" \\n")


@pytest.mark.parametrize("kind", ["file", "full", "link"])
def test_nothing_that_exists_is_overwritten(script: Path, kind: str) -> None:
    out = script.parent / "out"
    full = script.parent / "full"
    full.mkdir()
    (full / "f").write_text("old")
    if kind == "file":
        out.write_text("old")
    elif kind == "full":
        full.rename(out)
    else:
        out.symlink_to(full)
    done = _run(script, "echo ran; echo new > f", "--output", out)
    assert done.returncode == 2
    assert done.stdout == ""
    assert str(out) in done.stderr
    assert (out if kind == "file" else out / "f").read_text() == "old"


# --- twice --------------------------------------------------------------------------------------------------------------


def test_two_runs_that_leave_the_same_are_the_same(script: Path) -> None:
    done = _run(script, "echo $BUILDER_UUID; echo same > f", "--twice")
    assert done.returncode == 0
    first, *_, last = done.stdout.splitlines()
    assert last == "both runs left the same"
    assert done.stdout.count(first) == 1, "each run is a build of its own"


def test_all_differences_of_two_runs_are_told(script: Path) -> None:
    mark = script.parent / "mark"
    text = f"""
echo same > same; echo $BUILDER_UUID > differs
if test -e {mark}; then touch second; else touch first {mark}; fi
"""
    out = script.parent / "out"
    done = _run(script, text, "--twice", "--output", out)
    assert done.returncode == 1
    differences = [line for line in done.stdout.splitlines() if line.startswith("different: ")]
    assert [line.split(":")[1] for line in differences] == [" differs", " first", " second"]
    assert [line.split(": ")[2] for line in differences[1:]] == ["only in the first run", "only in the second run"]
    digests = [hashlib.sha256((out / number / "differs").read_bytes()).hexdigest() for number in "12"]
    assert differences[0] == f"different: differs: 37 bytes {digests[0]}, then 37 bytes {digests[1]}"


def test_a_failure_of_either_run_is_the_exit_status(script: Path) -> None:
    mark = script.parent / "mark"
    done = _run(script, f"test -e {mark} && exit 5; touch {mark}", "--twice")
    assert done.returncode == 5
    assert "different: result: exited 0, then exited 5" in done.stdout


# --- people and signals -------------------------------------------------------------------------------------------------


def test_a_terminal_is_not_handed_over_to_the_job(script: Path) -> None:
    script.write_text("printf '\\033]0;title\\007\\tend\\n'")
    master, slave = pty.openpty()
    arguments = ("run", str(script), "--sandbox=none", f"--work-dir={script.parent}/work")
    with forked.start("builder_worker", *arguments, stdout=slave, stderr=slave, env=ENVIRONMENT) as process:
        assert process.wait(DEADLINE) == 0
    shown = without_leftovers(os.read(master, 65536).decode())
    os.close(master)
    os.close(slave)
    assert shown.startswith("\\x1b]0;title\\x07\tend\r\n")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_job_too(script: Path, number: signal.Signals, status: int) -> None:
    mark = f"3141.{os.getpid()}"
    script.write_text(f"echo begun; exec sleep {mark}")
    arguments = ("run", str(script), "--sandbox=none", "-q", f"--work-dir={script.parent}/work")
    with forked.start(
        "builder_worker",
        *arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(number)
        _, said = process.communicate(timeout=DEADLINE)
    assert process.returncode == status
    assert without_leftovers(said.decode()) == f"builder-worker: ended by {number.name}; the job was killed\n"
    wait_gone(processes_with(mark))
    assert not list((script.parent / "work").iterdir())


@pytest.mark.parametrize(
    "arguments",
    [("no-such-file",), ("/dev/null", "--job", "a/b"), ("/dev/null", "--platform", ".."), ("/dev/null", "--bind=x")],
)
def test_a_wrong_command_line_is_one_line_and_no_job(arguments: tuple[str, ...]) -> None:
    done = builder_worker("run", *arguments)
    assert done.returncode in {1, 2}
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1


async def test_parts_of_lines_are_printed_without_newlines_that_the_job_did_not_write(
    capfd: pytest.CaptureFixture[str],
) -> None:
    for lines in ([Part(b"Password: ")], [b"x"], [Part(b".")], [End(), b"y", Part(b"z" * 70_000)], [b"z"]):
        await trial.print_lines(lines)
    assert capfd.readouterr().out == f"Password: x\n.\ny\n{'z' * 70_001}\n"
