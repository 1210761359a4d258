"""Which sandbox a worker takes, when it refuses to work, and what ``builder-worker check`` and ``root`` tell."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sandbox_runs
from worker_copy import copy_worker, python
from worker_program import UUID_1, open_server, run_worker
from worker_sandboxes import ENVIRONMENT, PRIVILEGE, builder_worker, checked, need, reachable_directory

from builder.model import Exited
from builder_worker import containment
from builder_worker.choice import DEFAULT_DATE, Choice, choose, default_date, warning
from builder_worker.sandbox import SandboxError, registry
from builder_worker.sandbox.backends.none import NoSandbox
from builder_worker.sandbox.options import OptionError, Options
from builder_worker.sandbox.processes import tools


@pytest.fixture
def place() -> Iterator[Path]:
    with reachable_directory() as path:
        yield path


@pytest.fixture
def options(place: Path) -> Options:
    return Options(work_root=place / "work")


@pytest.fixture
def without_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine on which no sandbox is installed."""
    monkeypatch.setattr(tools, "_PATH", str(tmp_path))


# --- the choice ---------------------------------------------------------------------------------------------------------


def _choose(
    options: Options, name: str | None = None, *, one_job: bool = False, container: str | None = None
) -> Choice:
    return choose(name, options, one_job=one_job, container=container)


@pytest.mark.parametrize("name", [None, "auto"])
@pytest.mark.parametrize("container", [None, "a jail"])
def test_the_best_that_works_is_taken_and_told(options: Options, name: str | None, container: str | None) -> None:
    need("bubblewrap")
    choice = _choose(options, name, container=container)
    assert choice.is_sandbox
    assert choice.reason == "sandbox: bubblewrap, the best that works here"


@pytest.mark.parametrize("name", [None, "auto"])
@pytest.mark.parametrize("one_job", [False, True])
@pytest.mark.usefixtures("without_programs")
def test_without_a_sandbox_and_a_container_it_refuses(options: Options, name: str | None, *, one_job: bool) -> None:
    with pytest.raises(SandboxError) as refused:
        _choose(options, name, one_job=one_job)
    for part in ("bwrap is not installed", "apt install bubblewrap", "--sandbox none", "builder-worker check"):
        assert part in str(refused.value)


@pytest.mark.usefixtures("without_programs")
def test_without_a_sandbox_inside_of_a_container_it_goes_without_and_says_so(options: Options) -> None:
    choice = _choose(options, container="a jail")
    assert not choice.is_sandbox
    assert choice.reason == "sandbox: none, but this worker is inside of a jail"


def test_one_job_inside_of_a_container_is_the_original_s_way(options: Options) -> None:
    choice = _choose(options, one_job=True, container="a jail")
    assert not choice.is_sandbox
    assert choice.reason == "sandbox: none, since this worker is for one job and inside of a jail"


def test_an_image_is_for_podman_and_for_nothing_else(place: Path) -> None:
    options = Options(work_root=place / "work", image="no-such-image")
    for name in (None, "auto"):
        with pytest.raises(SandboxError, match="the sandbox podman does not work here"):
            _choose(options, name, one_job=True, container="a jail")
    need("bubblewrap")
    with pytest.raises(OptionError, match="--image is for --sandbox podman"):
        _choose(options, "bubblewrap")


@pytest.mark.usefixtures("without_programs")
def test_a_sandbox_that_was_named_is_taken_or_nothing(options: Options) -> None:
    with pytest.raises(SandboxError, match="bubblewrap does not work here: bwrap is not installed"):
        _choose(options, "bubblewrap", container="a jail")
    assert not _choose(options, "none").is_sandbox
    with pytest.raises(OptionError, match="no sandbox is called chroot"):
        _choose(options, "chroot")


@pytest.mark.parametrize("wish", [{"root": Path("/")}, {"image": "x"}, {"binds": ("x",)}, {"caches": ("x",)}])
def test_what_only_a_sandbox_can_do_is_refused_without_one(place: Path, wish: dict[str, object]) -> None:
    options = Options(work_root=place / "work", **wish)  # type: ignore[arg-type]
    with pytest.raises(SandboxError, match="without a sandbox there is no --root"):
        _choose(options, "none")


def test_root_without_anything_around_its_jobs_is_warned(options: Options) -> None:
    none = Choice(backend=NoSandbox(options=options), real=frozenset(), reason="")
    expected = os.geteuid() == 0
    assert bool(warning(none, container=None)) == expected
    assert warning(none, container="a jail") is None
    sandbox = Choice(backend=registry.make("bubblewrap", options), real=frozenset(), reason="")
    assert warning(sandbox, container=None) is None


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({".dockerenv": ""}, "a Docker container"),
        ({"run/.containerenv": ""}, "a Podman container"),
        ({"run/systemd/container": "systemd-nspawn\n"}, "a container (systemd-nspawn)"),
        ({"proc/1/environ": "PATH=/\0container=lxc\0"}, "a container (lxc)"),
        ({"proc/1/environ": "PATH=/\0NOT_container=x\0"}, None),
        ({"proc/self/uid_map": "         0          0 4294967295\n"}, None),
        ({"proc/self/uid_map": "0 100000 65536\n"}, "a user namespace"),
        ({"proc/self/mountinfo": "1 0 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n"}, None),
        ({"proc/self/mountinfo": "1 0 8:1 / /mnt rw - overlay overlay rw\n"}, None),
        ({"proc/self/mountinfo": "1 0 0:9 / / rw - overlay overlay rw\n"}, "a container (its root is an overlay)"),
    ],
)
def test_containers_are_told_by_what_they_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: str | None
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert containment.find(tmp_path) == expected


def test_a_pod_is_told_by_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert containment.find(tmp_path) == "a container (kubernetes)"


# --- the worker ---------------------------------------------------------------------------------------------------------


async def test_a_worker_that_loops_uses_a_sandbox_by_itself(place: Path) -> None:
    need("bubblewrap")
    async with (
        open_server() as server,
        run_worker(place, "-r", server.address, "--loop", sandbox=None) as worker,
        server.accept() as connection,
    ):
        await connection.hand_out(b"pwd; id -u; test ! -e /etc/shadow && env | sort", uuid=UUID_1)
        finished = await connection.finish()
        assert finished.result == Exited(code=0), worker.log
        assert finished.own_lines[:2] == [b"/build", b"1000"]
        assert [line for line in finished.own_lines[2:] if not line.startswith(b"PWD=")] == [
            b"BUILDER_JOB=job",
            b"BUILDER_PLATFORM=p1",
            b"BUILDER_UUID=%s" % str(UUID_1).encode(),
            b"HOME=/home/builder",
            b"LANG=C.UTF-8",
            b"PATH=/usr/local/bin:/usr/bin:/bin",
            b"SOURCE_DATE_EPOCH=1577836800",
            b"TZ=UTC",
        ]
        assert "sandbox: bubblewrap, the best that works here" in worker.log


def test_what_is_wrong_with_the_sandbox_is_told_before_a_job_is_taken(place: Path) -> None:
    need("bubblewrap")
    arguments = ("--sandbox=bubblewrap", "--work-dir", place / "work", f"--bind={place}/missing:/mnt/x")
    done = builder_worker("p1", "-r", "127.0.0.1:1", *arguments)
    assert done.returncode == 7, "and not 3, for a server that can't be reached"
    assert f"{place}/missing" in done.stderr
    assert not [path for path in (place / "work").iterdir() if path.name.startswith("builder-")]


def test_a_place_that_jobs_can_not_come_to_is_told(tmp_path: Path) -> None:
    need("bubblewrap")
    if PRIVILEGE != "root":
        pytest.skip("only the jobs of a worker that is root are other users")
    (tmp_path / "closed").mkdir(mode=0o700)
    for arguments in (("--work-dir", tmp_path / "closed/work"), ("--bind", f"{tmp_path}/closed/x:/mnt/x")):
        (tmp_path / "closed/x").mkdir(exist_ok=True)
        done = builder_worker("run", "-", "--sandbox=bubblewrap", *arguments, stdin="true")
        assert done.returncode == 7
        assert "who can't come through /" in done.stderr


PLAIN = """
import ctypes, os, sys
import builder_worker.cli
uid = int(sys.argv.pop(1))
os.setgroups([])
os.setgid(uid)
os.setuid(uid)
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: a process that changed its user does not own its /proc
builder_worker.cli.main()
"""


def test_a_plain_user_has_a_sandbox_and_the_limits_that_are_real() -> None:
    need("bubblewrap")
    if PRIVILEGE != "root":
        pytest.skip("the other tests are those of a plain user already")
    with sandbox_runs.work_directory("user") as place:
        copy_worker(place / "worker")
        command = [python(), "-c", PLAIN, str(sandbox_runs.plain_user()), "run", "-", f"--work-dir={place}/work"]

        def run(*arguments: str, script: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [*command, *arguments],
                input=script,
                capture_output=True,
                text=True,
                cwd=place,  # the directory that -c imports from first
                env=ENVIRONMENT | {"PYTHONPATH": str(place / "worker")},
                timeout=60,
                check=False,
            )

        done = run("--work-size=4M", script="id -u; head -c 9000000 /dev/zero > f; exit 3")
        assert done.returncode == 124, done.stderr
        assert "work directory full (limit 4 MiB)" in done.stdout
        assert done.stdout.startswith("1000\n")
        assert "sandbox: bubblewrap" in done.stderr
        done = run("--memory=100M", script="true")
        assert done.returncode == 7
        assert "can't enforce --memory here; `builder-worker check` says why" in done.stderr


async def test_what_a_killed_worker_left_is_removed_at_the_next_start(place: Path) -> None:
    need("bubblewrap")
    arguments = ("--loop", "--sandbox", "bubblewrap")
    async with open_server() as server:
        async with (
            run_worker(place, "-r", server.address, *arguments, sandbox=None) as worker,
            server.accept() as connection,
        ):
            await connection.hand_out(b"echo begun; exec sleep 1000")
            assert await connection.read_line() == b"begun"
            worker.process.kill()
            await worker.wait()
        left = set((place / "work").glob("builder-*"))
        assert left
        async with (
            run_worker(place, "-r", server.address, *arguments, sandbox=None) as worker,
            server.accept() as connection,
        ):
            await connection.greet()
            assert "removed the work directory" in worker.log
            assert left.isdisjoint((place / "work").glob("builder-*"))


# --- check --------------------------------------------------------------------------------------------------------------


def test_check_tells_of_each_back_end_whether_it_works_or_why_not() -> None:
    found = checked()
    assert set(found) == set(registry.NAMES)
    for name, report in found.items():
        assert set(report) == {"name", "works", "reason", "remedy", "limits", "notes", "milliseconds"}
        if report["works"]:
            assert 0 < report["milliseconds"] < 60_000, name
        else:
            assert report["reason"], name
            assert report["milliseconds"] is None


def test_check_says_the_same_to_people() -> None:
    done = builder_worker("check")
    found = checked()
    rows = {line.split()[0]: line.split()[1] for line in done.stdout.splitlines() if line[:1].strip()}
    assert {name: rows[name] for name in found} == {n: "works" if r["works"] else "no" for n, r in found.items()}
    works = any(report["works"] for name, report in found.items() if name != "none")
    assert done.returncode == (0 if works else 1)
    assert "--sandbox auto" in done.stdout


def test_check_tells_what_mends_it() -> None:
    if PRIVILEGE != "root":
        pytest.skip("only root can hide a program")
    hide = ("unshare", "--mount", "sh", "-c", 'mount --bind /dev/null "$(command -v bwrap)" && exec "$@"', "sh")
    need("bubblewrap")
    done = builder_worker("check", "--json", prefix=hide)
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert told["auto"] is None
    (bubblewrap,) = [report for report in told["sandboxes"] if report["name"] == "bubblewrap"]
    assert "bwrap is not installed" in bubblewrap["reason"]
    assert "apt install bubblewrap" in bubblewrap["remedy"]


# --- root trees ---------------------------------------------------------------------------------------------------------


def _label(tree: Path) -> None:
    (tree / "etc").mkdir(parents=True)
    label = {"name": "debian-12", "suite": "bookworm", "snapshot": "20260115T000000Z", "sha256": "ab"}
    (tree / "etc/builder-root.json").write_text(json.dumps(label))


def test_the_date_of_the_sources_is_that_of_the_root_tree(tmp_path: Path) -> None:
    _label(tmp_path)
    assert default_date(Options(root=tmp_path)) == 1768435200  # 2026-01-15
    assert default_date(Options(root=tmp_path / "etc")) == default_date(Options()) == DEFAULT_DATE


def test_root_trees_are_listed_and_removed_and_nothing_else_is(tmp_path: Path) -> None:
    _label(tmp_path / "one")
    (tmp_path / "other").mkdir()
    done = builder_worker("root", "list", tmp_path)
    assert done.stdout == f"{tmp_path}/one  debian-12 (bookworm), snapshot 20260115T000000Z, SHA-256 ab\n"
    assert builder_worker("root", "remove", tmp_path / "one").returncode == 0
    done = builder_worker("root", "remove", tmp_path / "other")
    assert done.returncode == 7
    assert "is no root tree" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(("no-such-distribution",), 2), (("debian-12", "--snapshot", "today"), 2), (("debian-12", "/etc"), 7)],
)
def test_a_tree_that_can_not_be_made_is_told_at_once(arguments: tuple[str, ...], status: int) -> None:
    done = builder_worker("root", "create", *arguments)
    assert done.returncode == status
    assert len(done.stderr.splitlines()) == 1


def test_a_root_tree_is_made_from_an_archive(tmp_path: Path) -> None:
    """From one that has nothing in it, so this says only that the tool is called and that its failure leaves nothing."""
    if tools.find("mmdebstrap") is None:
        sandbox_runs.give_up("overlay", "mmdebstrap is not installed")
    done = builder_worker("root", "create", "debian-12", tmp_path / "tree", "--mirror", f"file://{tmp_path}")
    assert done.returncode == 7
    assert done.stderr.startswith("builder-worker: mmdebstrap failed: ")
    assert not list(tmp_path.iterdir())


def test_help_imports_nothing_heavy() -> None:
    for command in ((), ("run",), ("check",), ("root", "create")):
        done = builder_worker(*command, "--help")
        assert done.returncode == 0
        assert done.stdout.startswith("Usage: builder-worker")
    code = "import sys, builder_worker.cli; print(*sorted({'trio', 'asn1tools', 'ssl', 'asyncio'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert done.stdout == "\n"
