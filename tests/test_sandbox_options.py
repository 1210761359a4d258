"""Options of sandboxes, users for jobs, root trees and the choice of a back end: what needs no sandbox to run."""

import datetime as dt
import json
import os
import sys
from pathlib import Path
from uuid import uuid4

import pytest
import trio
from sandbox_runs import give_up, read_console, small_tree
from worker_sandboxes import builder_worker, need, reachable_directory

from builder.errors import BuilderError
from builder_worker.sandbox import Check, Limits, SandboxError, Task, diagnosis, registry, roots
from builder_worker.sandbox.backends.bubblewrap import Bubblewrap
from builder_worker.sandbox.job_directory import clean_up, left_over, prepare_root
from builder_worker.sandbox.linux import users
from builder_worker.sandbox.linux.cgroups import Cgroups
from builder_worker.sandbox.options import Bind, Cache, OptionError, Options
from builder_worker.sandbox.processes import rlimits


def test_binds_and_caches_are_read() -> None:
    assert Bind.parse("/srv/x:/x") == Bind(source=Path("/srv/x"), target="/x")
    assert Bind.parse("/srv/x:/x:rw") == Bind(source=Path("/srv/x"), target="/x", writable=True)
    assert Cache.parse("opam:/home/builder/.opam") == Cache(name="opam", target="/home/builder/.opam")


@pytest.mark.parametrize("text", ["", "/srv", ":/x", "/srv:x", "/srv:/", "/srv:/x/../..", "/srv:/x:rwx", "/srv:/x:rw:"])
def test_a_bind_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(OptionError):
        Bind.parse(text)


@pytest.mark.parametrize("text", ["", "x", "../x:/x", "a/b:/x", ":/x", "x:relative", "x:/"])
def test_a_cache_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(BuilderError):
        Cache.parse(text)


def test_caches_are_kept_apart_by_platform(tmp_path: Path) -> None:
    options, cache = Options(work_root=tmp_path), Cache(name="x", target="/x")
    assert options.cache_directory("debian-12", cache) == tmp_path / "caches/debian-12/x"
    with pytest.raises(BuilderError):
        options.cache_directory("../debian-12", cache)


def test_a_work_directory_of_others_is_refused(tmp_path: Path) -> None:
    prepare_root(tmp_path / "new/work")
    assert (tmp_path / "new/work").stat().st_mode & 0o777 == 0o711
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path / "new/work")
    for name in ("open", "link"):
        with pytest.raises(SandboxError, match="only this user"):
            prepare_root(tmp_path / name)


async def test_nothing_is_adopted_or_removed_where_others_could_have_put_it(tmp_path: Path) -> None:
    """What is written down of a job names programs, which the worker would run."""
    place = tmp_path / "builder-1-1-x"
    place.mkdir()
    tmp_path.chmod(0o777)
    with pytest.raises(SandboxError, match="only this user"):
        left_over(tmp_path)
    with pytest.raises(SandboxError, match="only this user"):
        await clean_up(tmp_path)
    tmp_path.chmod(0o755)
    assert left_over(tmp_path) == [place]


def test_each_sandbox_has_a_user_of_its_own(tmp_path: Path) -> None:
    three = range(1000, 1003)
    first = users.take(three, shared=False, locks=tmp_path / "locks")
    second = users.take(three, shared=False, locks=tmp_path / "locks")
    assert [first.uid, second.uid] == [1000, 1001]
    with pytest.raises(SandboxError, match="1000 to 1002, are taken"):
        users.take(three, shared=False, locks=tmp_path / "locks")
    first.release()
    third = users.take(three, shared=False, locks=tmp_path / "locks")
    assert (third.uid, third.index) == (1000, 0)
    with_caches = [users.take(three, shared=True, locks=tmp_path / "locks") for _ in range(2)]
    assert [user.uid for user in with_caches] == [1002, 1002]
    for user in (second, third, *with_caches):
        user.release()


def test_an_unknown_back_end_is_refused_with_the_known_ones() -> None:
    with pytest.raises(OptionError, match=r"chroot: there are bubblewrap, .*none and auto"):
        registry.make("chroot", Options())


def test_a_back_end_that_is_gone_is_named_with_what_does_the_same() -> None:
    done = builder_worker("p1", "--sandbox=nspawn")
    assert done.returncode == 2
    assert (
        done.stderr
        == "builder-worker: the sandbox nspawn is gone: use overlay, which gives jobs the same at half the cost\n"
    )


def test_the_best_back_end_that_works_is_chosen_and_never_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    options = Options(work_root=tmp_path)
    broken = Check(works=False, reason="user namespaces are off", remedy="sysctl -w user.max_user_namespaces=15000")
    monkeypatch.setattr(Bubblewrap, "check", lambda _: broken)
    with pytest.raises(
        SandboxError, match=r"bubblewrap: user namespaces are off \(sysctl .*; podman: .*--sandbox none"
    ):
        registry.choose(options)
    monkeypatch.setattr(Bubblewrap, "check", lambda _: Check(works=True))
    assert registry.choose(options)[0].name == "bubblewrap"


async def test_a_check_tells_what_works_and_what_it_costs(tmp_path: Path) -> None:
    bubblewrap, overlay = await registry.check_all(Options(work_root=tmp_path), ["bubblewrap", "overlay"])
    assert (bubblewrap.milliseconds is not None) == bubblewrap.check.works
    assert overlay.milliseconds is None
    assert not overlay.check.works, "there is no root tree"
    assert overlay.check.reason
    assert overlay.check.remedy


async def test_a_job_that_cannot_be_limited_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    backend = Bubblewrap(options=Options(work_root=tmp_path / "work"), groups=Cgroups(hierarchies=()))
    task = Task(uuid=uuid4(), name="x", platform="x", script=b"", limits=Limits(memory=1 << 30))
    with pytest.raises(SandboxError, match="no control group to limit memory"):
        await backend.open(task)
    assert not list((tmp_path / "work").iterdir())


def test_a_missing_program_is_named_with_its_package() -> None:
    assert diagnosis.missing({"sh": "dash"}) is None
    assert diagnosis.missing({"sh": "dash", "no-such-program": "its-package"}) == (
        "no-such-program is not installed",
        "apt install its-package, or what your system calls it",
    )


def test_an_old_bubblewrap_is_recognised() -> None:
    assert diagnosis.explain("bwrap: Unknown option --disable-userns")[1] == "install bubblewrap 0.8 or newer"


def test_root_trees_are_listed_and_nothing_else_is_removed(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "tree/etc").mkdir(parents=True)
    label = {"name": "debian-12", "suite": "bookworm", "snapshot": None, "sha256": "00"}
    (tmp_path / "tree" / roots.LABEL).write_text(json.dumps(label))
    (tmp_path / "other/etc").mkdir(parents=True)
    (tmp_path / "other" / roots.LABEL).write_text("[1, 2]")
    assert roots.list_roots(tmp_path) == ((tmp_path / "tree", roots.RootTree(**label)),)  # type: ignore[arg-type]
    for name in ("data", "other", "missing"):
        with pytest.raises(SandboxError, match="no root tree"):
            trio.run(roots.remove, tmp_path / name)
    assert (tmp_path / "data").is_dir()
    trio.run(roots.remove, tmp_path / "tree")
    assert not (tmp_path / "tree").exists()


def test_a_root_tree_that_a_worker_uses_is_not_removed() -> None:
    need("bubblewrap")
    with reachable_directory() as place:
        tree = place / "tree"
        small_tree(tree)
        (tree / roots.LABEL).parent.mkdir()
        label = {"name": "debian-12", "suite": "bookworm", "snapshot": None, "sha256": "00"}
        (tree / roots.LABEL).write_text(json.dumps(label))
        remove = f"{sys.executable} -m builder_worker root remove {tree}"
        arguments = ("--sandbox=bubblewrap", "--root", tree, "--work-dir", place / "work", "--prepare", remove, "-")
        assert f"a worker uses {tree}: remove it when" in builder_worker("run", *arguments, stdin="exit 0").stdout
        trio.run(roots.remove, tree)
        assert not tree.exists()


@pytest.mark.parametrize("name", ["missing", "file"])
def test_where_no_trees_can_be_is_told_with_a_remedy(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SandboxError, match=f"{name} is no directory: name the one"):
        roots.list_roots(tmp_path / name)


def test_a_root_tree_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="no distribution is called beos"):
        trio.run(roots.create, "beos", tmp_path / "tree")
    day = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)

    async def create() -> None:
        await roots.create("debian-12", tmp_path / "tree", snapshot=day, mirror=f"file://{tmp_path}/no-archive")

    with pytest.raises(SandboxError, match="mmdebstrap"):
        trio.run(create)
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - hidden ones too


async def test_without_control_groups_the_processes_of_a_user_are_bounded() -> None:
    backend = Bubblewrap(options=Options(), groups=Cgroups(hierarchies=()))
    if not (check := backend.check()).works:
        give_up("bubblewrap", check.reason)
    task = Task(uuid=uuid4(), name="job", platform="p1", script=b"grep processes /proc/self/limits; nice")
    async with await backend.open(task) as sandbox:
        sandbox.start()
        assert (await sandbox.wait()).code == 0
        words = (await read_console(sandbox.console)).split()
    assert words[2:4] == [str(rlimits.PROCESSES)] * 2
    assert words[-1] == "10"
    assert "pids" not in check.limits
