"""builder-inspect as a program, on files that are whole, damaged, hostile and large."""

import hashlib
import json
import os
import resource
from pathlib import Path
from typing import Protocol
from uuid import UUID

import attrs
import pytest
from client_harness import assert_one_line, environment, run_in_terminal, run_inspect

from builder import execution
from builder.execution import ExecutionEnd, ExecutionHead, artifact_head, encode_console_line, execution_head
from builder.model import Artifact, ConsoleLine, Execution, Exited, Instant, ScriptJob, Signalled

U = UUID("323b2a40-25d1-4f8e-90af-a4e2b9fd7f22")
SCRIPT = b"#!/bin/sh\nprintf '\xff\x1b[2J'"
JOB = ScriptJob(name="hello", platform="p1", script=SCRIPT)
README = Artifact(path="README", content=b"hi\n")
BINARY = Artifact(path="bin/a/x.bin", content=b"\0\xff")
EXECUTION = Execution(
    job=JOB,
    uuid=U,
    console=(ConsoleLine(delta=1_000_000, line=b"one"), ConsoleLine(delta=2_000_000_000, line=b"\xff\x1b[2J\t")),
    started=Instant(1_900_000_000_000),
    finished=Instant(1_900_000_003_061),
    result=Signalled(signal=-7),
    artifacts=(README, BINARY, Artifact(path="empty", content=b"")),
)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Make(Protocol):
    def __call__(self, *artifacts: Artifact) -> Path: ...


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a function that writes EXECUTION, with other artifacts if there are any, and returns its path."""

    def make(*artifacts: Artifact) -> Path:
        path = tmp_path / "full"
        value = attrs.evolve(EXECUTION, artifacts=artifacts) if artifacts else EXECUTION
        path.write_bytes(execution.encode(value))
        return path

    return make


def tree(directory: Path) -> dict[str, bytes | None]:
    """Return the files below a directory and their contents; None for a folder."""
    return {
        str(path.relative_to(directory)): None if path.is_dir() else path.read_bytes()
        for path in sorted(directory.rglob("*"))
    }


# --- what is shown ---


def test_summary(make: Make) -> None:
    done = run_inspect(str(make()))
    assert done.returncode == 0
    assert done.stderr == b""
    assert done.stdout.decode() == (
        "job        hello\n"
        "platform   p1\n"
        f"uuid       {U}\n"
        "started    2030-03-17T17:46:40Z\n"
        "finished   2030-03-17T17:46:43.061Z\n"
        "duration   3.061s\n"
        "result     killed by signal KILL (9)\n"
        "script     24 bytes\n"
        "console    2 lines, 9 bytes\n"
        "artifacts  3, 5 bytes\n"
        f"{sha256(README.content)}             3  README\n"
        f"{sha256(BINARY.content)}             2  bin/a/x.bin\n"
        f"{sha256(b'')}             0  empty\n"
    )


def test_summary_of_next_to_nothing(tmp_path: Path) -> None:
    path = tmp_path / "full"
    nothing = attrs.evolve(EXECUTION, console=(), finished=EXECUTION.started, result=Exited(code=0), artifacts=())
    path.write_bytes(execution.encode(nothing))
    lines = run_inspect(str(path)).stdout.decode().splitlines()
    assert lines[-5:] == [
        "duration   0.000us",
        "result     exited 0",
        "script     24 bytes",
        "console    0 lines, 0 bytes",
        "artifacts  0, 0 bytes",
    ]
    assert run_inspect(str(path), "--console").stdout == b""
    value = json.loads(run_inspect(str(path), "--json", "--console").stdout)
    assert (value["console"], value["artifacts"]) == ([], [])


def test_single_parts(make: Make) -> None:
    path = str(make())
    assert run_inspect(path, "--job").stdout.decode() == f"job        hello\nplatform   p1\nuuid       {U}\n"
    assert run_inspect(path, "--script").stdout == SCRIPT
    assert run_inspect(path, "--console").stdout == b"one\n\xff\x1b[2J\t\n"
    assert run_inspect(path, "--console", "--times").stdout == b"1.000ms one\n2.000s \xff\x1b[2J\t\n"
    assert run_inspect("--script", "--console", path).stdout == SCRIPT + b"one\n\xff\x1b[2J\t\n"


def test_a_terminal_gets_no_control_character_of_the_job(make: Make) -> None:
    path = make(Artifact(path="a\x1b[2J", content=b""))
    module = "builder_client.inspect"
    for option in ("--console", "--script", "--json", "--job"):
        status, shown = run_in_terminal([str(path), option], environment(), module)
        assert status == 0
        assert not set(shown) & (set(range(32)) - {9, 10})
    assert b"a\\x1b[2J" in run_in_terminal([str(path)], environment(), module)[1]


def test_json(make: Make) -> None:
    path = make()
    short = json.loads(run_inspect(str(path), "--json").stdout)
    assert short == {
        "file": str(path),
        "job": "hello",
        "platform": "p1",
        "uuid": str(U),
        "started": "2030-03-17T17:46:40Z",
        "finished": "2030-03-17T17:46:43.061Z",
        "duration_ms": 3061,
        "result": {"kind": "signalled", "signal": 9, "name": "KILL"},
        "text": "killed by signal KILL (9)",
        "script_size": 24,
        "console_lines": 2,
        "artifacts": [
            {"path": "README", "size": 3, "sha256": sha256(README.content)},
            {"path": "bin/a/x.bin", "size": 2, "sha256": sha256(BINARY.content)},
            {"path": "empty", "size": 0, "sha256": sha256(b"")},
        ],
    }
    whole = json.loads(run_inspect(str(path), "--json", "--console", "--script").stdout)
    assert whole["console"] == [
        {"line": "one", "timestamp_ns": 1_000_000},
        {
            "line": "\N{REPLACEMENT CHARACTER}\x1b[2J\t",
            "line_base64": "/xtbMkoJ",
            "timestamp_ns": 2_000_000_000,
        },
    ]
    assert whole["script"].startswith("#!/bin/sh\n")
    assert {key: value for key, value in whole.items() if key in short} == short


def test_standard_input(make: Make) -> None:
    data = make().read_bytes()
    assert run_inspect("-", "--script", stdin=data).stdout == SCRIPT
    assert run_inspect("-", "--console", stdin=data).stdout == b"one\n\xff\x1b[2J\t\n"


def test_the_recorded_executions_can_be_shown(tmp_path: Path) -> None:
    vectors = Path(__file__).parent / "data" / "vectors" / "exec.jsonl"
    records = [json.loads(line) for line in vectors.read_text("ascii").splitlines()]
    path = tmp_path / "full"
    for record in records[:: max(1, len(records) // 4)]:
        path.write_bytes(bytes.fromhex(record["hex"]))
        done = run_inspect(str(path), "--json", "--console")
        assert done.returncode == 0, done.stderr
        console = json.loads(done.stdout)["console"]
        # the file has the newest line first
        assert [line["timestamp_ns"] for line in console] == [
            line["delta"] for line in reversed(record["value"]["console"])
        ]


# --- writing artifacts ---


def test_artifacts_are_written(make: Make, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    done = run_inspect(str(make()), "--output", str(out))
    assert done.returncode == 0
    assert b"artifacts  3, 5 bytes\n" in done.stdout
    assert tree(out) == {
        "README": README.content,
        "bin": None,
        "bin/a": None,
        "bin/a/x.bin": BINARY.content,
        "empty": b"",
    }


def test_the_rights_of_new_files_follow_the_umask(make: Make, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_inspect(str(make()), "--output", str(out), umask=0o027)
    assert (out / "README").stat().st_mode & 0o777 == 0o640
    assert (out / "bin").stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize(
    "path", ["../evil", "/evil", "bin/../../evil", "a//b", "./a", "..", "x" * 256, "a/", "/".join("a" * 2100)]
)
def test_paths_that_lead_elsewhere_are_refused_and_the_others_written(make: Make, tmp_path: Path, path: str) -> None:
    out = tmp_path / "out"
    done = run_inspect(str(make(Artifact(path=path, content=b"evil"), README)), "--output", str(out))
    assert done.returncode == 1
    first, last = done.stderr.decode().splitlines()
    assert first.startswith(f"not written: {path}: invalid artifact path ")
    assert last == "builder-inspect: 1 of 2 artifacts not written"
    assert tree(out) == {"README": README.content}
    assert not (tmp_path / "evil").exists()


def test_symlinks_that_lie_there_do_not_lead_out(make: Make, tmp_path: Path) -> None:
    out, outside = tmp_path / "out", tmp_path / "outside"
    out.mkdir()
    outside.mkdir()
    (out / "bin").symlink_to(outside)
    (out / "README").symlink_to(outside / "README")
    (out / "loop").symlink_to("loop")
    path = make(README, BINARY, Artifact(path="loop/x", content=b"x"), Artifact(path="new", content=b"new"))
    options: list[str]
    for options, readme_written in (([], False), (["--force"], True)):
        done = run_inspect(str(path), "--output", str(out), *options)
        assert done.returncode == 1
        assert b"not written: bin/a/x.bin: a part of its path exists and is no directory\n" in done.stderr
        assert b"not written: loop/x: " in done.stderr
        assert (b"not written: README" in done.stderr) is not readme_written
        assert tree(outside) == {}
        assert (out / "README").is_symlink() is not readme_written
        (out / "new").unlink()
    # --force has replaced the link itself
    assert (out / "README").read_bytes() == README.content


def test_existing_files_stay_without_force(make: Make, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "README").write_bytes(b"old")
    (out / "empty").mkdir()
    path = str(make())
    done = run_inspect(path, "--output", str(out))
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        "not written: README: a file of that name exists (--force replaces it)",
        "not written: empty: a file of that name exists (--force replaces it)",
        "builder-inspect: 2 of 3 artifacts not written",
    ]
    assert (out / "README").read_bytes() == b"old"
    done = run_inspect(path, "--output", str(out), "--force")
    assert done.stderr.decode().splitlines()[0] == "not written: empty: Is a directory"
    assert tree(out) == {
        "README": README.content,
        "bin": None,
        "bin/a": None,
        "bin/a/x.bin": BINARY.content,
        "empty": None,
    }


def test_artifacts_that_are_in_each_others_way(make: Make, tmp_path: Path) -> None:
    out = tmp_path / "out"
    artifacts = [Artifact(path=path, content=path.encode()) for path in ("a", "a/b", "c/d", "c", "a")]
    done = run_inspect(str(make(*artifacts)), "--output", str(out), "--json")
    assert done.returncode == 1
    written = [artifact["not_written"] is None for artifact in json.loads(done.stdout)["artifacts"]]
    assert written == [True, False, True, False, False]
    assert tree(out) == {"a": b"a", "c": None, "c/d": b"c/d"}


def test_a_fifo_in_the_way_is_not_waited_for(make: Make, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    os.mkfifo(out / "README")
    os.mkfifo(out / "bin")
    done = run_inspect(str(make()), "--output", str(out))
    assert done.returncode == 1
    assert done.stderr.count(b"not written: ") == 2


# --- several files ---


@pytest.fixture
def several(tmp_path: Path) -> list[str]:
    """Return the paths of three builds of a job, as the README has them, and of a damaged and a missing one between."""
    paths = []
    for number, name in enumerate("abcde"):
        path = tmp_path / name / "full"
        path.parent.mkdir()
        artifacts = (Artifact(path="greeting", content=name.encode()),)
        data = execution.encode(attrs.evolve(EXECUTION, uuid=UUID(int=number), artifacts=artifacts))
        path.write_bytes(data[:-1] if name == "b" else data)
        paths.append(str(path))
    Path(paths[3]).unlink()
    return paths


@pytest.mark.parametrize("options", [(), ("--job",), ("--script",), ("--console", "--times"), ("--json", "--console")])
def test_several_are_shown_as_each_alone_and_named(several: list[str], options: tuple[str, ...]) -> None:
    done = run_inspect(*several, *options)
    assert done.returncode == 4  # the damaged one; the missing one alone is 2
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"builder-inspect: {several[1]} is damaged or no execution: ")
    assert lines[1] == f"builder-inspect: can't read {several[3]}: No such file or directory"
    good = [several[0], several[2], several[4]]
    alone = {path: run_inspect(path, *options) for path in (several if "--json" in options else good)}
    assert {(alone[path].returncode, alone[path].stderr) for path in good} == {(0, b"")}
    if "--json" in options:
        assert done.stdout == b"".join(alone[path].stdout for path in several)
        values = {path: json.loads(alone[path].stdout) for path in several}
        assert [value["file"] for value in values.values()] == several
        errors = {path: f"builder-inspect: {value['error']}" for path, value in values.items() if "error" in value}
        assert errors == {several[1]: lines[0], several[3]: lines[1]}
    else:
        texts = [f"==> {path} <==\n".encode() + alone[path].stdout for path in good]
        assert done.stdout == b"\n".join(texts)


def test_artifacts_of_several_go_to_folders_of_their_own(several: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    good = [several[0], several[2], several[4]]
    assert run_inspect(*good, "--output", str(out)).returncode == 0
    names = {str(UUID(int=0)): b"a", str(UUID(int=2)): b"c", str(UUID(int=4)): b"e"}
    written = {f"{uuid}/greeting": content for uuid, content in names.items()}
    assert tree(out) == dict.fromkeys(names) | written
    again = run_inspect(*good, "--output", str(out))
    assert again.returncode == 1
    assert again.stderr.decode().splitlines()[:2] == [
        f"{several[0]}: not written: greeting: a file of that name exists (--force replaces it)",
        f"builder-inspect: {several[0]}: 1 of 1 artifact not written",
    ]
    assert run_inspect(*good, "--output", str(out), "--force").returncode == 0


def test_no_link_leads_out_of_the_folder_of_one_of_several(several: list[str], tmp_path: Path) -> None:
    out, outside = tmp_path / "out", tmp_path / "outside"
    out.mkdir()
    outside.mkdir()
    (out / str(UUID(int=0))).symlink_to(outside)
    done = run_inspect(several[0], several[2], "--output", str(out), "--force")
    assert done.returncode == 1
    assert tree(outside) == {}
    assert (out / str(UUID(int=2)) / "greeting").read_bytes() == b"c"


def test_a_file_that_can_not_be_read_to_its_end_hides_no_other(several: list[str]) -> None:
    done = run_inspect("/proc/self/mem", several[2], "--job")
    assert done.returncode == 2
    assert done.stderr == b"builder-inspect: can't read /proc/self/mem: Input/output error\n"
    assert done.stdout.startswith(f"==> {several[2]} <==\n".encode())


def test_standard_input_among_several(several: list[str]) -> None:
    done = run_inspect("-", several[2], "--job", stdin=Path(several[0]).read_bytes())
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"==> <stdin> <==\n")


def test_more_files_than_may_be_open(several: list[str]) -> None:
    done = run_inspect(*[several[0]] * 50, "--json", limits={resource.RLIMIT_NOFILE: 20})
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.count(b'"file"') == 50


def test_a_full_disk_ends_it_at_once(several: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = run_inspect(*several, stdout=full.fileno())
    assert done.returncode == 1
    assert done.stderr.decode() == "builder-inspect: No space left on device\n"


# --- damage ---


def test_a_file_that_is_cut_off_anywhere_is_one_error_and_leaves_no_part(make: Make, tmp_path: Path) -> None:
    whole = make().read_bytes()
    cut = tmp_path / "cut"
    # in the job, the console, the first artifact's header and content, the second's, and before the last byte
    first = whole.index(README.content)
    second = whole.index(BINARY.content, first)
    for size in (0, 10, 60, first - 1, first + 1, second + 1, len(whole) - 1):
        out = tmp_path / f"out-{size}"
        cut.write_bytes(whole[:size])
        done = run_inspect(str(cut), "--output", str(out))
        assert done.returncode == 4
        assert_one_line(done.stderr, b"builder-inspect")
        assert str(cut).encode() + b" is damaged or no execution: " in done.stderr
        assert done.stdout == b""
        written = {path: content for path, content in tree(out).items() if content is not None}
        assert written.items() <= {"README": README.content, "bin/a/x.bin": BINARY.content, "empty": b""}.items()
        assert ("README" in written) is (size > second)
        assert "bin/a/x.bin" not in written or size == len(whole) - 1


def test_damage_with_force_leaves_the_old_file(make: Make, tmp_path: Path) -> None:
    path, out = make(Artifact(path="big", content=b"new" * 1000)), tmp_path / "out"
    out.mkdir()
    (out / "big").write_bytes(b"old")
    path.write_bytes(path.read_bytes()[:-1])
    assert run_inspect(str(path), "--output", str(out), "--force").returncode == 4
    assert tree(out) == {"big": b"old"}


def test_what_is_no_execution(tmp_path: Path) -> None:
    path = tmp_path / "x\x1b[2J"
    path.write_bytes(b"<html>")
    done = run_inspect(str(path))
    assert done.returncode == 4
    assert_one_line(done.stderr, b"builder-inspect")
    assert b"\x1b" not in done.stderr
    assert run_inspect(str(tmp_path / "missing")).returncode == 2
    assert run_inspect(str(tmp_path)).returncode == 2


# --- size ---

LIMIT = 220 * 2**20
"""Bytes of address space for the program: Python and its libraries take about 60 MiB, the file has more than all."""

ARTIFACT_SIZE = 300 * 2**20
CONSOLE_LINES = 300_000


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file with a large artifact, a hole on the disk, and a long console."""
    path = tmp_path / "large"
    lines = [
        encode_console_line(ConsoleLine(delta=number * 1000, line=b"line %d %s" % (number, b"x" * 100)))
        for number in reversed(range(CONSOLE_LINES))
    ]
    head = artifact_head("large.bin", ARTIFACT_SIZE)
    before, after = execution_head(
        ExecutionHead(job=JOB, uuid=U),
        ExecutionEnd(started=EXECUTION.started, finished=EXECUTION.finished, result=EXECUTION.result),
        console_length=sum(map(len, lines)),
        data_length=len(head) + ARTIFACT_SIZE,
    )
    with path.open("wb") as file:
        file.write(before)
        file.writelines(lines)
        file.write(after + head)
        file.truncate(file.tell() + ARTIFACT_SIZE)
    return path


@pytest.mark.long
def test_memory_does_not_grow_with_the_file(large: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run_inspect(str(large), "--console", "--output", str(out), limits={resource.RLIMIT_AS: LIMIT})
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == CONSOLE_LINES
    assert lines == [b"line %d %s" % (number, b"x" * 100) for number in range(CONSOLE_LINES)]
    assert (out / "large.bin").stat().st_size == ARTIFACT_SIZE
