"""Control groups: version 2 in a made-up tree of files, and whatever this machine has, with real processes."""

import errno
import os
import secrets
import subprocess
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import evolve
from worker_sandboxes import builder_worker

from builder.runtime.files import is_locked, lock_directory
from builder_worker.sandbox import Limits, SandboxError
from builder_worker.sandbox.linux.cgroups import WORKER_LEAF, Cgroups, Group, find
from builder_worker.sandbox.owner import is_left_over, tag


def make_tree(tmp_path: Path, *, own: str = "/service", controllers: str = "cpu memory pids io") -> Path:
    """A version 2 hierarchy as plain files, whose mount point is below tmp_path."""
    point = tmp_path / "cgroup"
    group = point / own.strip("/")
    group.mkdir(parents=True)
    for directory in {group, group.parent}:
        (directory / "cgroup.type").write_text("domain\n")  # other than in the group of the whole machine
        (directory / "cgroup.procs").write_text(f"{os.getpid()}\n" if directory == group else "")
        (directory / "cgroup.controllers").write_text(controllers + "\n")
        (directory / "cgroup.subtree_control").write_text("")
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text(f"0::{own}\n")
    (proc / "mountinfo").write_text(
        f"31 23 0:28 / {tmp_path} rw,relatime shared:3 - tmpfs tmpfs rw\n"
        f"36 25 0:31 / {point} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
    )
    return proc


def everything(top: Path) -> dict[str, str]:
    return {str(path.relative_to(top)): path.read_text() for path in top.rglob("*") if path.is_file()}


def test_version_2_is_found_by_looking_and_its_controllers_are_enabled_when_jobs_come(tmp_path: Path) -> None:
    proc = make_tree(tmp_path)
    before = everything(tmp_path)
    groups = find(proc)
    (hierarchy,) = groups.hierarchies
    assert hierarchy.parent == tmp_path / "cgroup/service"
    assert groups.limits == {"memory", "pids", "cpus"}
    assert (groups.remedy, groups.is_settled) == ("", False)
    groups.create("a job without limits", Limits())
    assert everything(tmp_path) == before
    groups.settle()
    assert (hierarchy.parent / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files behave like those of control groups: a group whose processes are its own limits no groups below it."""
    write = Path.write_text

    def write_text(path: Path, text: str, *arguments: Any, **more: Any) -> int:
        if text and path.name == "cgroup.subtree_control" and (path.parent / "cgroup.procs").read_text().strip():
            raise OSError(errno.EBUSY, "Device or resource busy")
        if path.name == "cgroup.procs" and path.parent.name == WORKER_LEAF:
            above = path.parent.parent / "cgroup.procs"
            write(above, "".join(f"{pid}\n" for pid in above.read_text().split() if pid != text))
            text = (path.read_text() if path.exists() else "") + f"{text}\n"
        return write(path, text, *arguments, **more)

    monkeypatch.setattr(Path, "write_text", write_text)


@pytest.mark.usefixtures("kernel")
def test_a_worker_that_is_alone_in_its_group_moves_itself_when_jobs_are_limited(tmp_path: Path) -> None:
    groups = find(make_tree(tmp_path))
    service = tmp_path / "cgroup/service"
    groups.create("x", Limits(memory=1 << 30))
    assert (service / WORKER_LEAF / "cgroup.procs").read_text() == f"{os.getpid()}\n"
    assert (service / "cgroup.procs").read_text() == ""
    assert (service / "cgroup.subtree_control").read_text() == "+memory"


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("mark", [None, "user.delegate", "trusted.delegate"])
def test_a_group_of_others_is_left_alone_unless_it_was_delegated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: str | None
) -> None:
    proc = make_tree(tmp_path, own="/user.slice/session-1.scope")
    scope = tmp_path / "cgroup/user.slice/session-1.scope"
    with subprocess.Popen(["sleep", "1000"]) as shell:  # our child: in truth it would be the one above us
        try:
            (scope / "cgroup.procs").write_text(f"1\n{os.getpid()}\n{shell.pid}\n")

            def getxattr(path: Path, name: str) -> bytes:
                if (path, name) == (scope, mark):
                    return b"1"
                raise OSError(errno.ENODATA, "No data available")

            monkeypatch.setattr(os, "getxattr", getxattr)
            before = everything(tmp_path)
            groups = find(proc)
            groups.settle()
        finally:
            shell.kill()
    if mark is None:
        assert groups.hierarchies == ()
        assert "shared with others and not delegated" in groups.remedy
        assert "systemd-run" in groups.remedy
        assert groups.create("x", Limits()).entries == ()
        assert everything(tmp_path) == before
    else:
        assert groups.limits == {"memory", "pids", "cpus"}
        assert (scope / WORKER_LEAF / "cgroup.procs").read_text().split() == ["1", str(os.getpid()), str(shell.pid)]


def test_the_children_of_a_worker_are_its_own(tmp_path: Path) -> None:
    proc = make_tree(tmp_path)
    with subprocess.Popen(["sleep", "1000"]) as child:
        try:
            (tmp_path / "cgroup/service/cgroup.procs").write_text(f"{os.getpid()}\n{child.pid}\n")
            assert find(proc).limits == {"memory", "pids", "cpus"}
        finally:
            child.kill()


def test_a_group_that_was_given_to_a_user_may_have_others_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a worker of its own left there, such as podman's, for a unit's older manager leaves no mark to see."""
    proc = make_tree(tmp_path)
    (tmp_path / "cgroup/service/cgroup.procs").write_text("1\n")
    assert find(proc).hierarchies == ()
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).is_relative_to(tmp_path / "cgroup/service"))
    assert find(proc).limits == {"memory", "pids", "cpus"}


def test_the_group_of_the_whole_machine_need_not_be_empty(tmp_path: Path) -> None:
    proc = make_tree(tmp_path)
    (tmp_path / "cgroup/service/cgroup.type").unlink()
    (tmp_path / "cgroup/service/cgroup.procs").write_text("1\n2\n")
    assert find(proc).limits == {"memory", "pids", "cpus"}


def test_limits_are_written_in_the_words_of_version_2(tmp_path: Path) -> None:
    groups = find(make_tree(tmp_path))
    limits = Limits(memory=512 * 1024 * 1024, pids=100, cpus=1.5)
    (directory,) = groups.create("x", limits).directories
    assert {path.name: path.read_text() for path in directory.iterdir()} == {
        "memory.max": str(512 * 1024 * 1024),
        "pids.max": "100",
        "cpu.max": "150000 100000",
    }


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("memory.events", "low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\n", {"memory"}),
        ("memory.events", "low 0\nhigh 0\nmax 12\noom 0\noom_kill 0\n", set()),
        ("pids.events", "max 3\n", {"pids"}),
        ("pids.events", "max 0\n", set()),
    ],
)
def test_the_limit_that_was_hit_is_named(tmp_path: Path, file: str, text: str, expected: set[str]) -> None:
    group = find(make_tree(tmp_path)).create("x", Limits(memory=512 * 1024 * 1024, pids=100))
    (group.directories[0] / file).write_text(text)
    assert group.hit() == expected


def test_a_limit_that_was_hit_in_a_group_below_is_named(tmp_path: Path) -> None:
    group = find(make_tree(tmp_path)).create("x", Limits(pids=100))
    (group.directories[0] / "pids.events").write_text("max 0\n")
    payload = group.directories[0] / "payload"  # as a container program makes it
    payload.mkdir()
    (payload / "pids.events").write_text("max 7\n")
    assert group.hit() == {"pids"}


def test_a_worker_in_its_own_leaf_makes_groups_beside_it(tmp_path: Path) -> None:
    groups = find(make_tree(tmp_path, own=f"/service/{WORKER_LEAF}"))
    assert groups.hierarchies[0].parent == tmp_path / "cgroup/service"


def test_a_limit_that_cannot_be_enforced_is_refused_with_a_remedy(tmp_path: Path) -> None:
    groups = find(make_tree(tmp_path, controllers="pids"))
    assert groups.limits == {"pids"}
    with pytest.raises(SandboxError, match=r"limit memory: .*(Delegate=yes|mount)"):
        groups.create("x", Limits(memory=1, pids=5))
    assert not list((tmp_path / "cgroup/service").glob("builder-*"))


def test_nothing_is_found_where_nothing_is_mounted(tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text("0::/\n")
    (tmp_path / "mountinfo").write_text("31 23 0:28 / / rw - ext4 /dev/vda rw\n")
    groups = find(tmp_path)
    assert groups.limits == frozenset()
    assert groups.create("x", Limits()).entries == ()


def gone() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_tags_tell_the_living_from_the_dead() -> None:
    mine = tag("x")
    assert not is_left_over(mine)
    assert is_left_over(f"builder-{gone()}-1-x")
    assert is_left_over(mine.replace(str(os.getpid()), "1", 1)), "another process than process 1"
    assert not is_left_over("builder-of-something-else")


@pytest.fixture
def real() -> Cgroups:
    groups = find()
    if groups.limits != {"memory", "pids", "cpus"}:
        pytest.skip(f"this user may not make control groups here: {groups.remedy}")
    return groups


def spawn(group: Group, script: str) -> subprocess.Popen[bytes]:
    """Start a shell in a group; it has entered when it says something."""
    enter = f'for entry; do echo 0 >"$entry"; done\n{script}'
    return subprocess.Popen(["sh", "-c", enter, "sh", *map(str, group.entries)], stdout=subprocess.PIPE)


def said(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    with process.stdout:
        return process.stdout.readline()


async def test_memory_is_limited(real: Cgroups) -> None:
    group = real.create("memory", Limits(memory=64 * 1024 * 1024))
    hog = spawn(group, "exec perl -e '$x = q(y) x (256 << 20)'")
    assert said(hog) == b""
    assert hog.wait(30) == -9
    assert group.hit() == {"memory"}
    await group.remove()
    assert not any(directory.exists() for directory in group.directories)


async def test_processes_are_limited_and_all_killed(real: Cgroups) -> None:
    group = real.create("pids", Limits(pids=20))
    bomb = spawn(group, "f() { f & f; }; (f) 2>/dev/null; echo full; exec sleep 1000")
    assert said(bomb) == b"full\n"
    assert group.hit() == {"pids"}
    assert bomb.pid in group.processes()
    group.kill()
    assert bomb.wait(10) == -9
    await group.remove()


async def test_groups_of_a_dead_worker_are_cleaned_up(real: Cgroups) -> None:
    group = real.create("mine", Limits())
    name = f"builder-{gone()}-1-left"
    left = evolve(group, directories=tuple(directory.parent / name for directory in group.directories))
    left.make()
    survivor = spawn(left, "echo entered; exec sleep 1000")
    assert said(survivor) == b"entered\n"
    with trio.fail_after(20):
        lines = await real.clean_up()
    assert survivor.wait(10) == -9
    assert f"removed the control group {name}" in lines
    assert all(directory.exists() for directory in group.directories), "the living worker's are left alone"
    assert not any(directory.exists() for directory in left.directories)
    await group.remove()


ENTER = ("sh", "-c", 'echo 0 >"$1" && shift && exec "$@"', "sh")


@pytest.mark.parametrize("command", [("check",), ("run", "--sandbox=none", "-")], ids=["check", "run"])
def test_who_shares_a_group_with_a_worker_stays_in_it(command: tuple[str, ...]) -> None:
    parent = next((hierarchy.parent for hierarchy in find().hierarchies if hierarchy.version == 2), None)
    if parent is None:
        pytest.skip("this user may not make control groups of version 2 here")
    session = parent / f"session-{secrets.token_hex(8)}"
    session.mkdir()
    with subprocess.Popen(["sleep", "1000"]) as shell:
        try:
            (session / "cgroup.procs").write_text(str(shell.pid))
            done = builder_worker(
                *command, stdin="cat /proc/self/cgroup", prefix=(*ENTER, str(session / "cgroup.procs"))
            )
            assert (session / "cgroup.procs").read_text() == f"{shell.pid}\n"
            assert not (session / "cgroup.subtree_control").read_text().split()
            assert not [path for path in session.iterdir() if path.is_dir()]
        finally:
            shell.kill()
            shell.wait()
            session.rmdir()
    if command == ("check",):
        assert "none        works" in done.stdout
    else:
        assert f"/{session.name}\n" in done.stdout, done.stderr


def test_who_looks_whether_groups_are_held_does_not_keep_them_from_being_held(tmp_path: Path) -> None:
    """A worker that starts, while a job does. Otherwise the next one to look would take that job for left over."""
    group = Group(hierarchies=(), directories=(tmp_path,), limits=Limits())
    looking = lock_directory(tmp_path)
    assert looking is not None
    with ThreadPoolExecutor() as pool:
        locking = pool.submit(group.lock)
        assert not wait([locking], timeout=0.1).done
        os.close(looking)
        (held,) = locking.result()
    assert is_locked(tmp_path)
    os.close(held)
    assert not is_locked(tmp_path)
