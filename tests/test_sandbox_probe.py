"""What the machine and the worker's starter may be like without a job noticing, or else is told before any job."""

import json
import os
from functools import cache
from pathlib import Path

import pytest
from sandbox_runs import cases_in_turn, driver, root_tree
from worker_sandboxes import PRIVILEGE, builder_worker, need, reachable_directory

from builder_worker.sandbox.job_directory import make_directory

BACKENDS = ("bubblewrap", "overlay", "podman", "none")

# A file system that executes nothing, as /tmp and /var are on some machines, below the directory in $1.
NOEXEC = ("sh", "-c", 'mount -t tmpfs -o noexec,mode=0711 none "$1" && shift && exec "$@"', "sh")


@cache
def arguments(backend: str) -> tuple[str, ...]:
    """Options for a back end that works here, with what it needs."""
    if backend in ("overlay", "podman"):
        root = ("--root", str(root_tree()))
        with driver(backend, PRIVILEGE):
            pass  # whether it works here at all
        return (f"--sandbox={backend}", *root)
    need(backend)
    return (f"--sandbox={backend}",)


@pytest.mark.parametrize("backend", cases_in_turn((each,) for each in BACKENDS))
def test_a_directory_that_executes_nothing_is_refused_before_any_job(backend: str) -> None:
    own = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--mount", "--map-root-user")
    if os.geteuid() != 0 and backend != "none":
        pytest.skip("a plain user can't mount it for others")
    given = arguments(backend)
    with reachable_directory() as place:
        prefix = (*own, *NOEXEC, str(place))
        done = builder_worker("run", *given, "--work-dir", place / "work", "-", stdin="#!/bin/sh\n", prefix=prefix)
        assert done.returncode == 7
        assert f"no script can be executed in {place}/work" in done.stderr
        assert "mounted noexec; name another directory with --work-dir" in done.stderr


def test_check_tells_of_a_directory_that_executes_nothing() -> None:
    if os.geteuid() != 0:
        pytest.skip("a plain user can't mount it for others")
    need("bubblewrap")
    with reachable_directory() as place:
        prefix = ("unshare", "--mount", *NOEXEC, str(place))
        told = json.loads(builder_worker("check", "--work-dir", place / "work", "--json", prefix=prefix).stdout)
    found = {report["name"]: report for report in told["sandboxes"]}
    for name in ("bubblewrap", "none"):
        assert (found[name]["works"], found[name]["remedy"]) == (False, "name another directory with --work-dir")
        assert "mounted noexec" in found[name]["reason"]
    assert told["auto"] is None


@pytest.mark.parametrize(
    ("backend", "more"),
    cases_in_turn(
        (
            ("none", ()),
            ("bubblewrap", ()),
            *((backend, ("--work-size=20M", "--cache=c:/cache")) for backend in ("bubblewrap", "overlay", "podman")),
        )
    ),
)
def test_a_worker_that_keeps_its_files_to_itself_runs_jobs_as_ever(backend: str, more: tuple[str, ...]) -> None:
    given = arguments(backend)
    script = "umask; mkdir directory; touch directory/file; stat -c %a . directory directory/file $0 ${CACHE:+/cache}\n"
    said = []
    for umask in (0o022, 0o077):
        with reachable_directory() as place:
            work = ("--work-dir", place / "work")
            env = ("--env=CACHE=yes",) if more else ()
            done = builder_worker("run", *given, *more, *work, *env, "-", stdin=script, umask=umask)
            said.append(done.stdout.splitlines()[:6])
            assert done.returncode == 0, done.stderr
            assert (place / "work").stat().st_mode & 0o777 == 0o711
    assert said[0] == said[1]
    assert said[0][:5] == ["0022", "755", "755", "644", "755"]


def test_artifacts_are_written_as_their_owner_wants(tmp_path: Path) -> None:
    arguments = ("run", "--sandbox=none", "--output", tmp_path / "out", "-")
    assert builder_worker(*arguments, stdin="echo x >file", umask=0o077).returncode == 0
    assert (tmp_path / "out/file").stat().st_mode & 0o777 == 0o600


def test_directories_have_their_modes_whatever_the_umask(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir(mode=0o700)
    before = os.umask(0o077)
    try:
        make_directory(tmp_path / "there/one/two/three", 0o711)
        make_directory(tmp_path / "there/one", 0o700)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {"there": 0o700, "one": 0o755, "two": 0o755, "three": 0o711}
