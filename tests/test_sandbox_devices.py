"""What operators show jobs of /dev: devices of the machine, and how much of /dev/shm."""

import os
import stat
from pathlib import Path

import pytest
from sandbox_runs import cases_in_turn, driver
from worker_sandboxes import builder_worker, need, reachable_directory

from builder_worker.choice import choose
from builder_worker.sandbox import (
    Backend,
    Check,
    Console,
    ExitStatus,
    Limits,
    Sandbox,
    SandboxError,
    Spare,
    Task,
    probe,
)
from builder_worker.sandbox.backends.jail import Jail
from builder_worker.sandbox.options import Bind, OptionError, Options, parse_device

SUBJECTS = [("bubblewrap", "root"), ("overlay", "root"), ("podman", "root")]

CLOSED = next(
    (path for name in ("kvm", "net/tun", "fuse", "loop-control") if (path := Path("/dev", name)).is_char_device()), None
)
"""A device that is for root, and perhaps for a group."""


@pytest.mark.parametrize(("backend", "privilege"), cases_in_turn(SUBJECTS))
def test_a_job_of_root_opens_a_device_that_is_for_root_alone(backend: str, privilege: str) -> None:
    if CLOSED is None:
        pytest.skip("no such device here")
    status = CLOSED.stat()
    script = f"exec 3<>{CLOSED} && stat -c '%t:%T %a' {CLOSED}; ls {CLOSED.parent} >/dev/null && echo seen"
    with driver(backend, privilege, devices=[str(CLOSED)]) as worker:
        outcome = worker.run(script)
    numbers = f"{os.major(status.st_rdev):x}:{os.minor(status.st_rdev):x}"
    assert outcome.output == f"{numbers} 600\nseen\n"
    assert CLOSED.stat() == status, "nothing of the machine's own was changed"


@pytest.mark.parametrize(
    ("backend", "privilege"), cases_in_turn([*SUBJECTS, ("bubblewrap", "user"), ("podman", "user")])
)
def test_a_job_sees_no_other_device_and_as_much_shared_memory_as_it_may(backend: str, privilege: str) -> None:
    with driver(backend, privilege, devices=["/dev/zero"]) as worker:
        outcome = worker.run(
            "head -c 1 /dev/zero | wc -c; df -k /dev/shm | tail -n 1; ls -d /dev/kvm /dev/mem /dev/loop*",
            limits={"shm_size": 3 << 20},
        )
    lines = outcome.output.splitlines()
    assert lines[0] == "1"
    assert lines[1].split()[1] == "3072"
    assert not [line for line in lines if line.startswith("/dev/")]


def test_the_rights_to_a_device_are_those_of_a_plain_worker() -> None:
    if CLOSED is None:
        pytest.skip("no such device here")
    with driver("bubblewrap", "user", devices=[str(CLOSED)]) as worker:
        open_to_all = stat.S_IMODE(CLOSED.stat().st_mode) & 0o006 == 0o006
        assert worker.run(f"[ -w {CLOSED} ] && echo open || echo closed").output == (
            "open\n" if open_to_all else "closed\n"
        )


class _Ended(Sandbox):
    """A job that found a device closed."""

    @property
    def console(self) -> Console:
        raise AssertionError("nobody reads it")

    def start(self) -> None: ...

    def kill(self) -> None: ...

    async def wait(self) -> ExitStatus:
        return ExitStatus(code=77)

    async def aclose(self) -> None: ...


class _Closed(Backend):
    name = "closed"
    options = Options(devices=(Path("/dev/null"),))

    def check(self) -> Check:
        return Check(works=True)

    async def open(self, task: Task, spare: Spare | None = None) -> Sandbox:
        assert b"in /dev/null; do" in task.script
        return _Ended()


async def test_a_device_that_jobs_can_not_open_is_found_before_any_job() -> None:
    problem = await probe.run(_Closed(), limits=Limits(), timeout=10)
    assert problem is not None
    assert problem[0] == "jobs may not read and write /dev/null (group root)"


def test_no_node_is_made_where_it_would_not_work() -> None:
    if os.geteuid() != 0 or CLOSED is None:
        pytest.skip("only a worker that is root makes nodes")
    need("bubblewrap")
    mount = ("sh", "-c", 'mount -t tmpfs -o nodev,mode=0711 none "$1" && shift && exec "$@"', "sh")
    with reachable_directory() as place:
        arguments = ("run", "--sandbox=bubblewrap", f"--device={CLOSED}", "--work-dir", place / "work", "-")
        done = builder_worker(*arguments, prefix=("unshare", "--mount", *mount, str(place)))
    assert done.returncode == 7
    assert f"below {place}/work, whose file system is mounted nodev" in done.stderr


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("/dev/no-such-device", "is no device of this machine"),
        ("/dev/shm", "is a directory: name the devices in it"),
        ("/etc/passwd", "write the path of a device"),
        ("/dev/../etc/passwd", "write the path of a device"),
        ("/dev", "write the path of a device"),
        ("null", "write the path of a device"),
    ],
)
def test_what_is_no_device_is_refused(text: str, reason: str) -> None:
    with pytest.raises(OptionError, match=reason):
        parse_device(text)


def test_who_binds_a_device_is_told_how_to_show_it() -> None:
    with pytest.raises(OptionError, match="is a device: show it to jobs by --device /dev/null"):
        Bind.parse("/dev/null:/dev/null:rw")


def test_where_there_is_nothing_to_show_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match=r"no --root, .* or --cache"):
        choose("none", Options(work_root=tmp_path / "work", root=tmp_path), one_job=False, container=None)
    choose("none", Options(work_root=tmp_path / "work", devices=(Path("/dev/null"),)), one_job=False, container=None)


def test_a_jail_shows_no_devices() -> None:
    problem = Jail(options=Options(devices=(Path("/dev/null"),)))._unfit()
    assert problem is not None
    assert problem[0] == "it shows jobs no devices but its own"
